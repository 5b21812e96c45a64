"""Work on one machine that no run asked for, on its way into the journal.

A driver tells of it (`ForeignWork`) as often as it likes; the journal has it once. Until it is there, the machine takes
no work: what somebody else has made may be on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edge.driver import ForeignWork
from edge.errors import JournalError
from edge.journal.journal import Journal
from edge.journal.scribe import ACTOR, Scribe
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind

log = logging.getLogger("edge.foreign")


class ForeignLog:
    """Of one machine. `on_change` is called when the machine may take work again, or must not."""

    def __init__(self, machine: str, journal: Journal, scribe: Scribe, on_change: Callable[[], None]) -> None:
        self._machine = machine
        self._journal = journal
        self._scribe = scribe
        self._on_change = on_change
        self._told: set[str] = set()
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def waits(self) -> bool:
        """Whether something is not written down yet."""
        return bool(self._writing)

    def add(self, seen: ForeignWork) -> None:
        """The driver tells of it; nothing new the second time."""
        if seen.token in self._told:
            return
        self._told.add(seen.token)
        log.warning("%s does what is not ours: %s", self._machine, seen.detail)
        task = asyncio.create_task(self._write(seen), name=f"foreign work on {self._machine}")
        self._writing.add(task)
        task.add_done_callback(self._written)

    async def written(self) -> None:
        """Wait until all is written down that was told of."""
        if self._writing:
            await asyncio.wait(self._writing)

    async def _write(self, seen: ForeignWork) -> None:
        body = {"token": seen.token, "detail": seen.detail}

        def write(transaction: Transaction) -> None:
            if not transaction.knows_foreign_work(self._machine, seen.token):
                transaction.record(Draft(EventKind.FOREIGN_WORK, ACTOR, body, machine=self._machine))

        try:
            await self._scribe.durable(lambda: self._journal.transact(write), EventKind.FOREIGN_WORK)
        except JournalError as error:  # the daemon is being stopped; the driver tells of what still goes on next time
            log.error("foreign work on %s is not written down: %s", self._machine, error)
            self._told.discard(seen.token)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        self._on_change()
