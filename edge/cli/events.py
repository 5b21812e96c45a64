"""`edge events`: what happened, oldest first, and what goes on happening."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from edge import sitefile
from edge.cli import text
from edge.cli.client import call
from edge.cli.status import configured
from edge.errors import NotRunningError, UsageError
from edge.model.machine import in_words
from edge.reading import beginning
from edge.reading.status import FINE
from edge.reading.views import open_readonly
from edge.sitefile import SiteFile

FOLLOW_WAIT_S = 30
PAGE = 1000

SAID = ("outcome", "resolution", "reason", "detail", "firmware", "problem", "confirmed")
"""Of an event's body, what is shown of it, as far as there is room."""


def events(args: argparse.Namespace) -> int:
    """Print the last events; with --follow also each one that comes."""
    file = sitefile.read(sitefile.find(args.config))
    with open_readonly(file.state_dir) as snapshot:
        found = snapshot.last_events(max(0, args.last), args.machine)
        before = beginning.in_words(beginning.pruned(snapshot.connection)) if len(found) < args.last else ""
        newest = (snapshot.summary()["last_event"] or {"seq": 0})["seq"]
    known = [machine["id"] for machine in configured(file)]
    if args.machine and not found and args.machine not in known:  # one that is gone has left events
        raise UsageError(f"there is no machine {args.machine}; there are: {', '.join(known) or 'none'}")
    if before and not args.json:
        print("\n".join(text.wrap(before, "")))
    _show(found, as_json=args.json)
    while args.follow:
        more = _more(file, newest, args.machine)
        _show(more, as_json=args.json)
        newest = more[-1]["seq"] if more else newest
    return FINE


def _more(file: SiteFile, after: int, machine: str | None) -> list[Mapping[str, Any]]:
    query = {"after": after, "limit": PAGE, "wait": FOLLOW_WAIT_S} | ({"machine": machine} if machine else {})
    try:
        found: list[Mapping[str, Any]] = call(file.socket, "GET", f"/v1/events?{urlencode(query)}")
    except NotRunningError as error:
        raise NotRunningError(f"{error}; there is nothing to follow") from error
    return found


def _show(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    whole = not sys.stdout.isatty()  # a file and a pipe have room for all of it
    for event in found:
        print(json.dumps(event, ensure_ascii=False) if as_json else line(event, whole=whole), flush=True)


def line(event: Mapping[str, Any], *, job: bool = True, whole: bool = False) -> str:
    """One event on one line of the terminal, or `whole`; without `job` on a page that is about one job anyway."""
    about = [event["machine"]] if event["machine"] else []
    about += [f"…{event['job_id'][-text.ID_TAIL :]}"] if event["job_id"] and job else []
    body = event["body"]
    said = ": ".join(str(body[key]) for key in SAID if body.get(key))
    if event["kind"] == "machine_loaded":
        said = ", ".join(f"{name}={in_words(one['value'])}" for name, one in body["values"].items())
    if event["kind"] == "load_overtaken":
        now = body["configured"].items()
        said = ", ".join(f"no {name}" if value is None else f"{name}={in_words(value)}" for name, value in now)
    when, who = text.clock_time(event["at_wall"]), f"({event['actor']})"
    parts = [f"{event['seq']:>5}", when, event["kind"], *about, who, said]
    told = "  ".join(part for part in parts if part)
    return text.plain(told) if whole else text.clip(told, text.WIDTH)
