"""A process that writes to a journal as fast as it can, and says what was acknowledged. To be killed.

    python -m tests.system.journal_writer FILE PREFIX [FILE_SIZE_LIMIT]

A line for each acknowledged record: "event SEQ HASH" or "checkpoint RUN VALUE". If a write fails: "failed MESSAGE".
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.errors import JournalError
from edge.journal.journal import Journal
from edge.model.event import Draft
from tests.journal_kit import SITE, accepted, began, cleared, ended, order, ticking

WORKERS = 6


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def record(journal: Journal, *drafts: Draft) -> None:
    for event in await journal.record(drafts):
        say(f"event {event.seq} {event.hash}")


async def work(journal: Journal, machine: str, prefix: str) -> None:
    """Job after job on one machine, each with a few checkpoints."""
    number = 0
    while True:
        number += 1
        job_id = f"{prefix}-{machine}-{number}"
        run_id = f"run-{job_id}"
        await record(journal, accepted(order(job_id)))
        await record(journal, began(run_id, machine, job_id=job_id))
        for value in range(3):
            await journal.checkpoint(run_id, value)
            say(f"checkpoint {run_id} {value}")
        outcome: Sequence[Draft] = [
            ended(run_id, "SUCCEEDED", machine=machine, job_id=job_id),
            cleared(run_id, machine),
        ]
        await record(journal, *outcome)


async def main(path: Path, prefix: str) -> None:
    try:
        async with Journal.open(path, SITE, ticking()) as journal, asyncio.TaskGroup() as group:
            for worker in range(WORKERS):
                group.create_task(work(journal, f"{prefix}-m{worker}", prefix), name=f"worker {worker}")
    except* JournalError as errors:
        say(f"failed {errors.exceptions[0]}")


if __name__ == "__main__":
    if len(sys.argv) > 3:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
