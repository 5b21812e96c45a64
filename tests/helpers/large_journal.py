"""A journal of any size, made by plain SQL: the chain is real, only the way through the daemon is left out.

python -m tests.helpers.large_journal FILE SITE EVENTS
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from edge.clock import SystemClock
from edge.journal import chain, projection
from edge.journal.chain import Head
from edge.journal.journal import Journal
from edge.journal.transaction import head
from edge.model.event import ClockTrust, Draft, EventKind, Stamp, stamp_text

BODY = {"outcome": "SUCCEEDED", "motion": "possible", "reason": "as the printer says", "text": "x" * 200}
MACHINE = "prn-1"


def fill(path: Path, site: str, events: int, acknowledged: int | None = None) -> Head:
    """Append `events` events of about 600 bytes to the journal at `path`, made if it is not there; the newest.

    With `acknowledged`, the collector is said to have the events up to this number.
    """
    asyncio.run(_make(path, site))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("synchronous=OFF", "cache_size=-65536"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, NULL, ?, ?)", _rows(connection, site, events))
        last = head(connection)
        (raw,) = connection.execute("SELECT raw FROM events WHERE seq = ?", (last.seq,)).fetchone()
        projection.apply(connection, chain.decode(raw))  # the last one stands for all of them
        if acknowledged is not None:
            (digest,) = connection.execute("SELECT hash FROM events WHERE seq = ?", (acknowledged,)).fetchone()
            connection.execute("INSERT OR REPLACE INTO uplink VALUES (1, ?, ?, NULL, '')", (acknowledged, digest))
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return last


async def _make(path: Path, site: str) -> None:
    async with Journal.open(path, site, SystemClock().stamp):
        pass


def _rows(connection: sqlite3.Connection, site: str, events: int) -> Iterator[tuple[object, ...]]:
    (journal,) = connection.execute("SELECT value FROM meta WHERE key = 'journal'").fetchone()
    last, now = head(connection), SystemClock().now()
    at = stamp_text(now.wall)
    stamp = Stamp(at, 0.0, SystemClock().boot_id, ClockTrust.UNKNOWN)
    draft = Draft(EventKind.MACHINE_ONLINE, "bench", BODY, machine=MACHINE)
    previous = last.hash
    for seq in range(last.seq + 1, last.seq + 1 + events):
        raw, digest = chain.encode(site, journal, seq, previous, stamp, draft)
        yield seq, digest, raw, draft.kind, draft.machine, at
        previous = digest


if __name__ == "__main__":
    fill(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
