"""Says once that a run takes too long, when it does. Nothing is stopped by that: a person looks.

What counts is in `edge.journal.worktime`. Whether it was said, and how long the run was at work, is read from the
journal, so that neither a restart nor a connection that broke begins anew. Nothing ticks: this waits for the limit, or
until the run is suspended or goes on.
"""

from __future__ import annotations

import asyncio
import contextlib

from edge.driver import Run
from edge.journal import worktime
from edge.journal.journal import Journal
from edge.journal.scribe import Scribe
from edge.journal.transaction import Transaction
from edge.model.event import EventKind

ROUNDING_S = 0.01
"""Events have whole milliseconds: who comes back a little later need not come back twice."""

UNTIL_IT_GOES_ON = float("inf")
"""The time of a suspended run stands still."""


class Overrun:
    """Of one run at an open driver. `serve` is its task; it ends when there is nothing more to say."""

    def __init__(self, run: Run, journal: Journal, scribe: Scribe) -> None:
        self._run = run
        self._journal = journal
        self._scribe = scribe
        self._turned = asyncio.Event()

    def look(self) -> None:
        """The run was suspended, or goes on."""
        self._turned.set()

    async def serve(self) -> None:
        """Wait for the limit. Raises `JournalError` as `Scribe.record` does."""
        while True:
            self._turned.clear()
            left_s = await self._scribe.durable(lambda: self._journal.transact(self._tell), EventKind.RUN_OVERRAN)
            if left_s is None:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if left_s == UNTIL_IT_GOES_ON else left_s + ROUNDING_S):
                    await self._turned.wait()

    def _tell(self, transaction: Transaction) -> float | None:
        """Say so if it is time; after how many seconds it may be, None if never (again).

        In one transaction: no run is told of twice, or after its end, or while it is suspended.
        """
        run = self._run
        events, now = transaction.time_of_run(run.job_id, run.run_id)
        bodies = {event["kind"]: event["body"] for event in events}
        began = bodies.get(EventKind.RUN_BEGAN, {})
        limit_s = began.get("limit_s")  # an older edge has not said
        if limit_s is None or EventKind.RUN_OVERRAN in bodies or EventKind.RUN_ENDED in bodies:
            return None
        if not worktime.is_at_work(events):
            return UNTIL_IT_GOES_ON
        worked_s = worktime.worked_s(events, now)
        if worked_s < limit_s:
            return float(limit_s - worked_s)
        told = {"worked_s": round(worked_s, 1), "limit_s": limit_s, "predicted_s": began["predicted_s"]}
        body = told | {"detail": worktime.in_words(told)}
        transaction.record(self._scribe.draft(EventKind.RUN_OVERRAN, run, body))
        return None
