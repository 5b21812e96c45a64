"""A journal that is old enough to be pruned: jobs, one after another and one across another, an hour for each step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge.journal.journal import Journal
from edge.journal.prune import Pruner
from edge.journal.transaction import Transaction
from edge.model.event import ClockTrust, Draft, Stamp, stamp_text
from edge.model.fields import time_text
from tests.helpers.clock import SetClock
from tests.journal_kit import accepted, began, cleared, ended, order

BEGAN = datetime(2026, 11, 21, 10, tzinfo=UTC)
LATER = datetime(2027, 6, 1, tzinfo=UTC)
KEEP_DAYS = 90


def hourly(clock: ClockTrust = ClockTrust.TRUSTED) -> Callable[[], Stamp]:
    """A clock that goes on by an hour whenever it is read."""
    hours = itertools.count()

    def stamp() -> Stamp:
        hour = next(hours)
        return Stamp(stamp_text(BEGAN + timedelta(hours=hour)), 1000.5 + 3600 * hour, "boot-1", clock)

    return stamp


def pruner(folder: Path, journal: Journal, now: datetime = LATER) -> Pruner:
    """One whose clock is trusted."""
    return Pruner(journal, folder, SetClock(now, synchronized=True), KEEP_DAYS)


def job(number: int) -> tuple[Draft, Draft, Draft, Draft]:
    """A job that is accepted, begins, succeeds, and is taken off its machine."""
    job_id, run_id, machine = f"job-{number}", f"run-{number}", f"prn-{number % 3}"
    where = {"job_id": job_id}
    taken = accepted(order(job_id, expires_at=time_text(BEGAN + timedelta(days=5))))
    return (
        taken,
        began(run_id, machine, **where),
        ended(run_id, "SUCCEEDED", machine=machine, **where),
        cleared(run_id, machine),
    )


async def work(journal: Journal, jobs: int, first: int = 0) -> None:
    """Each job overlaps with the next."""
    for number in range(first, first + jobs):
        taken, begins, ends, taken_off = job(number)
        await journal.record([taken])
        if number > first:
            await journal.record([job(number - 1)[2], job(number - 1)[3]])
        await journal.record([begins])
    await journal.record([ends, taken_off])


async def acknowledge(journal: Journal, seq: int | None = None) -> int:
    """As if the collector had signed for it: up to `seq`, or all."""

    def write(transaction: Transaction) -> int:
        row = transaction.connection.execute(
            "SELECT seq, hash FROM events WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (seq or 2**62,)
        ).fetchone()
        transaction.connection.execute("INSERT OR REPLACE INTO uplink VALUES (1, ?, ?, NULL, '')", row)
        return int(row[0])

    return await journal.transact(write)
