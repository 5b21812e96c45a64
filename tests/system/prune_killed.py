"""A process that works, has it acknowledged, and prunes it, as fast as it can. To be killed.

    python -m tests.system.prune_killed FOLDER FIRST

A line for each thing that is durable: "event SEQ HASH", "acked SEQ", "job NAME DIGEST".
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.event import ClockTrust, Draft, Stamp, stamp_text
from tests.helpers.pruning import LATER, acknowledge, job, pruner
from tests.journal_kit import SITE, cancelled, cleared, ended


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def main(folder: Path, first: int) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    hours = iter(range(first * 4, 10**9))

    def stamp() -> Stamp:
        hour = next(hours)
        return Stamp(stamp_text(began + timedelta(minutes=hour)), float(hour), "boot-1", ClockTrust.TRUSTED)

    async with Journal.open(folder / FILE_NAME, SITE, stamp) as journal:
        await journal.until_sound()

        async def record(*drafts: Draft) -> None:
            for event in await journal.record(drafts):
                say(f"event {event.seq} {event.hash}")

        for run in await journal.open_runs():  # of the one that was killed: an open job would keep all that follows
            where = {"job_id": run.job_id, "machine": run.machine}
            await record(cancelled(run.job_id), ended(run.run_id, "STOPPED", **where), cleared(run.run_id, run.machine))
        waiting = "SELECT DISTINCT job_id FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED')"
        for (job_id,) in await journal.transact(lambda t: t.connection.execute(waiting).fetchall()):
            await record(cancelled(job_id))

        async def works() -> None:
            for number in range(first, first + 100_000):
                taken, begins, ends, taken_off = job(number)
                await record(taken)
                say(f"job {taken.job_id} {taken.body['digest']}")
                await record(begins)
                await record(ends, taken_off)
                if number % 5 == 0:
                    say(f"acked {await acknowledge(journal)}")

        async def prunes() -> None:
            while True:
                await pruner(folder, journal, LATER).prune(0)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(works(), name="works")
            group.create_task(prunes(), name="prunes")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
