"""`edge machine load`: say what is loaded in a machine now, or ask what counts and who has said so."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from edge import sitefile
from edge.cli import text
from edge.cli.client import call, named
from edge.cli.status import fetch
from edge.errors import UsageError
from edge.model.machine import in_words
from edge.reading.status import ATTENTION, FINE, loaded_row


def load(args: argparse.Namespace) -> int:
    """Hand over what is loaded, if values are given; then show what counts. Without values 1 if no daemon answers."""
    file = sitefile.read(sitefile.find(args.config))
    missing = ""
    if args.values:
        body = {"values": said(args.values)}
        found = call(file.socket, "POST", f"/v1/machines/{quote(args.machine)}/load", body)
    else:
        document = fetch(file)
        found, missing = loaded_row(named(document["machines"], args.machine)), document.get("daemon_missing", "")
    if args.json:
        text.print_json(found)
    else:
        print("\n".join(page(found, said_now=bool(args.values))))
        if missing:
            print("\n".join(text.wrap(f"{missing}; this is what its journal and site.toml say", "")))
    return ATTENTION if missing else FINE


def said(words: Sequence[str]) -> dict[str, str]:
    """``name=value`` by name. Raises `UsageError`."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value.strip()):
            raise UsageError(f"{word!r} does not say what is loaded; write NAME=VALUE, as material=PETG")
        if name in found:
            raise UsageError(f"{name} stands twice, must stand once")
        found[name] = value
    return found


def page(found: Mapping[str, Any], *, said_now: bool) -> list[str]:
    """What counts of each property, for a terminal."""
    lines = [found["machine"]]
    for name, one in found["properties"].items():
        own, loaded = in_words(one["configured"]), one["loaded"]
        origin = "as site.toml says"
        if loaded is not None:
            by, when = loaded["by"].removeprefix("user:"), text.clock_time(loaded["since"])
            origin = f"loaded by {by}, {when}; site.toml says {own}"
        lines += text.wrap(f"{name}: {in_words(one['value'])} ({origin})", "  ", "    ")
    if not found["properties"]:
        lines += text.wrap("site.toml names no properties for it, so nothing can be loaded", "  ", "    ")
    if found["job"] and said_now:
        goes_on = f"job {found['job']} goes on as it began; this counts for what begins after it"
        lines += text.wrap(goes_on, "  ", "    ")
    return lines
