"""`edge collect`: the receiving end at the centre."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge import folders, logs
from edge.cli import text
from edge.collector import config, views
from edge.collector.schema import FILE_NAME
from edge.errors import ConfigError, UsageError
from edge.model.fields import time_text

PRIVATE_NAME, PUBLIC_NAME = "collector.key", "collector.pub"

TEMPLATE = """\
# The collector, as `edge collect` sees it. Paths are relative to this file.

[collector]
state_dir = "state"                 # the database, and the key that acknowledgements are signed with

[uplink]
kind = "mqtt"
url = "mqtts://broker.example:8883"
# ca = "ca.pem"
# certificate = "collector.pem"
# key = "collector-key.pem"
# user = "collector"                # or a name, and a password in a file of mode 0600
# password_file = "broker.password"

# One table for each site; its key is the file site.pub of the site's state_dir.
#
# [[sites]]
# id = "berlin-1"
# keys = ["berlin-1.pub"]
"""

_WORDS = {views.FINE: ("all is well", "green"), views.ATTENTION: ("needs attention", "yellow")}
_ALARM = ("ALARM", "red")


def serve(args: argparse.Namespace) -> int:
    """`edge collect`."""
    from edge.collector import service
    from edge.uplink.build import broker_of
    from edge.uplink.mqtt import connect
    from edge.uplink.sitekey import open_key
    from edge.uplink.topics import PREFIX, What

    path = _path(args)
    if args.telemetry and not args.ndjson:
        raise UsageError("--telemetry says what --ndjson is to write; give both")
    found = config.read(path)
    if found.uplink is None:
        raise ConfigError(path, "uplink", "is missing", "without it nothing can be received")
    state_dir, broker, name = found.collector.state_dir, broker_of(found.uplink), found.collector.id
    os.umask(folders.UMASK)
    try:
        folders.make_state_dir(state_dir)
        logs.set_up(state_dir)
    except OSError as error:
        raise ConfigError(path, "collector.state_dir", f"{state_dir}: {error.strerror}") from error
    key, sites = open_key(state_dir, "collector", PRIVATE_NAME, PUBLIC_NAME), found.public_keys()
    topics = [f"{PREFIX}+/{what}" for what in (What.OUT, What.STATE, What.LINK, What.TELEMETRY)]
    logging.getLogger("edge.collector").info("sites that report to %s over %s: %d", state_dir, broker, len(sites))
    write = _write if args.ndjson else None
    served = service.run(
        state_dir / FILE_NAME, sites, key, lambda: connect(broker, name, topics), write, telemetry=args.telemetry
    )
    asyncio.run(served)
    return views.FINE


def _write(lines: bytes) -> None:
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()


def init(args: argparse.Namespace) -> int:
    """`edge collect init`."""
    from edge.uplink.sitekey import open_key

    file: Path = args.dir / "collector.toml"
    try:
        args.dir.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            out.write(TEMPLATE)
        folders.make_state_dir(args.dir / "state")
    except FileExistsError as error:
        raise UsageError(f"{file} is there already; nothing was changed") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    open_key(args.dir / "state", "collector", PRIVATE_NAME, PUBLIC_NAME)
    public = args.dir / "state" / PUBLIC_NAME
    if args.json:
        text.print_json({"file": str(file), "public_file": str(public)})
        return views.FINE
    print(f"wrote {file}")
    print(f"public key   {public}")
    print(f"next, put it into the trust root:\n  edge root add … --collector {public}")
    print(f"then name the broker and the sites in {file}:\n  edge collect --config {file}")
    return views.FINE


def status(args: argparse.Namespace) -> int:
    """`edge collect status`; 1 if something wants a person, 2 if there is an alarm."""
    found = config.read(_path(args))
    with views.opened(found.collector.state_dir) as connection:
        document = views.document(connection, [site.id for site in found.sites])
    if args.json:
        text.print_json(document)
    else:
        print("\n".join([*screen(document), *(values(document) if args.values else [])]))
    return int(document["level"])


def clear(args: argparse.Namespace) -> int:
    """`edge collect clear`."""
    found = config.read(_path(args))
    with views.opened(found.collector.state_dir, "rw") as connection:
        count = views.clear(connection, time_text(datetime.now(UTC)))
    if args.json:
        text.print_json({"cleared": count})
    else:
        print(f"{count} alarm{'' if count == 1 else 's'} cleared; what happens again raises one again")
    return views.FINE


def _path(args: argparse.Namespace) -> Path:
    given: Path | None = args.config
    return given if given is not None else Path("collector.toml")


def screen(found: Mapping[str, Any]) -> list[str]:
    """What `edge collect status` shows: alarms first."""
    words, tone = _WORDS.get(found["level"], _ALARM)
    count = len(found["sites"])
    lines = [f"{count} site{'' if count == 1 else 's'}, {found['events']} events: {text.colour(words, tone)}"]
    for alarm in found["alarms"]:
        where = alarm["site"] or "unknown"
        times = f", {alarm['count']} times" if alarm["count"] > 1 else ""
        said = f"! {where}: {alarm['kind']}{times}, last {text.since(alarm['last_at'])} ago: {alarm['text']}"
        lines += text.wrap(said, "  ", "    ")
    lines += ["      edge collect clear"] if found["alarms"] else []
    rows = [
        [
            site["site"],
            "SILENT" if site["silent"] else {True: "online", False: "OFFLINE", None: "-"}[site["online"]],
            text.since(at) if (at := site["state_at"] or site["applied_at"]) else "-",
            str(site["running"]),
            "-" if site["backlog"] is None else str(site["backlog"]),
            str(site["seq"]),
            text.since(site["telemetry"]["came_at"]) if site["telemetry"] else "-",
            ", ".join(f"{process} {free}/{of}" for process, (free, of) in site["capacity"].items()) or "-",
        ]
        for site in found["sites"]
    ]
    header = ["SITE", "LINK", "AGE", "RUNNING", "BACKLOG", "EVENTS", "VALUES", "FREE"]
    lines += ["", *text.table(header, rows)] if rows else ["  no site yet: add a table [[sites]] to collector.toml"]
    for site in found["sites"]:
        for what in site["attention"]:
            lines += text.wrap(f"! {site['site']} {what}", "  ", "    ")
        if site["journals"] > 1:
            lines += text.wrap(f"note: {site['site']} has had {site['journals']} journals; all are kept", "  ", "    ")
    return lines


def values(found: Mapping[str, Any]) -> list[str]:
    """The newest values of every site: no facts, so each with its age."""
    lines = ["", text.colour("NEWEST VALUES", "bold") + " (no facts: nothing proves that none is missing)"]
    for site in found["sites"]:
        if (told := site["telemetry"]) is None:
            lines.append(f"  {text.plain(site['site'])}: none has come")
            continue
        said = f"{site['site']}: {told['skipped']} values not sent, {told['lost']} messages lost"
        if gap := told["gap"]:
            said += f"; last gap {gap['from']} to {gap['to']} ({', '.join(gap['why'])})"
        lines += text.wrap(said, "  ", "    ")
        rows = [
            [text.clip(key, 40), f"{seen['value']} {seen['unit']}".strip(), text.since(seen["seen_at"])]
            for key, seen in sorted(told["values"].items())
        ]
        lines += text.table(["KEY", "VALUE", "AGE"], rows, "    ") if rows else []
    return lines
