"""Every applied event as one line, for an engine that stands behind the collector.

    {"number": n, "site": …, "journal": …, "seq": …, "hash": …, "event": the event, byte for byte}

Lines come in the order in which events were applied, each at least once: after a crash the last ones may come again,
and a reader drops them by (site, journal, seq). How far it has come is kept after it was written.

With telemetry, also each of its messages, at most once and never before an event that waits:

    {"site": …, "came_at": …, "telemetry": the message, as docs/uplink.md has it}

For a reader that is slow the newest of each site is kept, and the `number` in it shows what is missing.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from edge.collector.collector import Collector
from edge.errors import NotNowError

T = TypeVar("T")

LINES = 256
"""Handed on together."""

AGAIN_S = 5.0
"""Pause after the database could not be used."""

log = logging.getLogger("edge.collector")


async def hand_on(collector: Collector, write: Callable[[bytes], None], *, telemetry: bool = False) -> None:
    """Hand on what is new, until cancelled. `write` blocks until the reader has taken it, and may raise `OSError`."""
    while True:
        collector.moved.clear()
        lines, last = await _when_possible(collector, _read)
        if lines:
            await asyncio.to_thread(write, b"".join(lines))
            await _when_possible(collector, functools.partial(_keep, last=last))
        elif telemetry and collector.told:
            told, collector.told = collector.told, {}
            await asyncio.to_thread(write, b"".join(told.values()))
        else:
            await collector.moved.wait()


async def _when_possible(collector: Collector, work: Callable[[sqlite3.Connection], T]) -> T:
    """Ask the database again and again while its disk is full: what was written must not be written anew meanwhile."""
    while True:
        try:
            return await collector.store.write(work)
        except NotNowError as error:
            log.error("nothing is handed on now: %s", error)
            await asyncio.sleep(AGAIN_S)


def _read(connection: sqlite3.Connection) -> tuple[list[bytes], int]:
    (after,) = connection.execute("SELECT value FROM meta WHERE key = 'handed_on'").fetchone()
    rows = connection.execute(
        "SELECT number, site, journal, seq, hash, raw FROM events WHERE number > ? ORDER BY number LIMIT ?",
        (int(after), LINES),
    ).fetchall()
    return [_line(*row) for row in rows], rows[-1][0] if rows else int(after)


def _line(number: int, site: str, journal: str, seq: int, digest: str, raw: bytes) -> bytes:
    head = {"number": number, "site": site, "journal": journal, "seq": seq, "hash": digest}
    return json.dumps(head)[:-1].encode() + b', "event": ' + raw + b"}\n"


def _keep(connection: sqlite3.Connection, last: int) -> None:
    connection.execute("UPDATE meta SET value = ? WHERE key = 'handed_on'", (str(last),))
