"""Facts of one machine on their way into the journal: written again and again until they are durable.

A fact happened, so it must not be lost; while one waits, the machine takes no work (`Scribe.waits`). Only a daemon that
is asked to stop gives up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from edge.clock import SystemClock
from edge.driver import Run
from edge.errors import IllegalTransitionError, JournalError, StoreClosedError
from edge.journal.journal import Journal
from edge.model.event import Draft, EventKind, JsonObject

ACTOR = "site"
"""Who says so, where no person does."""

RETRY_S = 1.0

LAST_WORDS_S = 10.0
"""How long a daemon that is asked to stop waits for a journal that takes nothing."""

T = TypeVar("T")

log = logging.getLogger("edge.scribe")


class Scribe:
    """Of one machine. `closing` is set when the daemon is asked to stop."""

    def __init__(
        self,
        machine: str,
        journal: Journal,
        clock: SystemClock,
        closing: asyncio.Event,
        on_change: Callable[[], None],
    ) -> None:
        self._machine = machine
        self._journal = journal
        self._clock = clock
        self._closing = closing
        self._on_change = on_change
        self.waits = ""  # why a fact cannot be written down; empty while none waits

    def draft(self, kind: EventKind, run: Run, body: JsonObject) -> Draft:
        """A fact about a run on this machine."""
        return Draft(kind, ACTOR, body, run.job_id, run.part, run.step.id, run.run_id, self._machine)

    async def record(self, draft: Draft) -> None:
        """Record a fact, however long the journal takes.

        Raises `JournalError` if it never can be, or if the daemon is asked to stop and the journal still takes nothing.
        """
        await self.durable(lambda: self._journal.record([draft]), draft.kind)

    async def durable(self, write: Callable[[], Awaitable[T]], what: str) -> T:
        """Do `write` until the journal takes it; its value. Raises as `record`."""
        give_up_s = float("inf")
        while True:
            try:
                value = await write()
            except (IllegalTransitionError, StoreClosedError):
                raise
            except JournalError as error:
                self.tell(str(error))
                if self._closing.is_set():
                    give_up_s = min(give_up_s, self._clock.mono_s() + LAST_WORDS_S)
                if self._clock.mono_s() >= give_up_s:
                    log.error("%s of %s is not in the journal", what, self._machine)
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                self.tell("")
                return value

    def tell(self, reason: str) -> None:
        """Show that a fact cannot be written down, or (empty) that it could."""
        if reason and not self.waits:
            log.error("%s waits: %s; trying again", self._machine, reason)
        if bool(reason) != bool(self.waits):
            self.waits = reason and f"the journal cannot be written: {reason}"
            self._on_change()
