"""Keeps the files within their room, and the journal's list of them true.

Rules:

    1. A file that an open order names, or one that waits to be judged, is never taken away. What none names stays until
       its room is needed: the next order may name it again. The one whose orders are the longest ago goes first.
    2. Room is needed when the files pass `max_bytes`, or when the disk has less than what is kept for the journal and
       what accepted orders may still bring.
    3. Deciding and taking away are one function in the journal's writer, so that no order can be accepted in between.
       After a power cut there the list may name a file that is gone, or miss one that is here: each round looks, and
       writes down what is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from edge.artifacts.artifacts import Artifacts
from edge.artifacts.needs import Needs, last_used, stored_files
from edge.clock import SystemClock
from edge.errors import EdgeError
from edge.journal.journal import Journal
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from edge.reading import views

ACTOR = "site"

RESERVE_BYTES = 64 * 1024 * 1024
"""Kept free for the journal, whatever artifacts ask for."""

QUARANTINE_BYTES = 256 * 1024 * 1024
QUARANTINE_S = 30 * 86_400.0
ROUND_S = 60.0

log = logging.getLogger("edge.artifacts.keeper")


class Keeper:
    """The task that tidies up. `trouble` says why it cannot; empty while that goes well."""

    def __init__(
        self,
        journal: Journal,
        state_dir: Path,
        artifacts: Artifacts,
        clock: SystemClock,
        max_bytes: int,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._journal = journal
        self._state_dir = state_dir
        self._artifacts = artifacts
        self._clock = clock
        self._max_bytes = max_bytes
        self._free_bytes = free_bytes or artifacts.free_bytes
        self._needs_to_look, self._needs = Needs(), Needs()  # for a reader's thread, and for the writer's
        self._turn = asyncio.Lock()
        self.trouble = ""

    async def serve(self) -> None:
        """A round every minute, until cancelled."""
        while True:
            await self.make_room()
            await asyncio.sleep(ROUND_S)

    async def make_room(self, coming_bytes: int = 0) -> None:
        """One round, also for so many bytes that no open order names yet.

        What keeps it from succeeding is told in `trouble`, and is no reason to stop what asked for it.
        """
        try:
            async with self._turn:
                await self._round(coming_bytes)
        except (EdgeError, OSError) as error:
            if str(error) != self.trouble:
                log.error("the files cannot be tidied: %s; trying again", error)
            self.trouble = str(error)
        else:
            self._tell(await asyncio.to_thread(self._free_bytes))

    def _tell(self, free_bytes: int) -> None:
        """What is left of the disk when all has given way that could."""
        if free_bytes >= RESERVE_BYTES:
            self.trouble = ""
            return
        full = f"the disk of {self._state_dir} is nearly full, and no program comes in"
        if not self.trouble.startswith(full):
            log.warning("%s: %d bytes are free", full, free_bytes)
        self.trouble = f"{full}: {free_bytes} bytes are free, and {RESERVE_BYTES} are kept for the journal"

    async def _round(self, coming: int) -> None:
        halves = await asyncio.to_thread(self._artifacts.halves)  # before it is decided who needs them
        here, free_bytes, used = await asyncio.to_thread(self._look, coming)
        needed = await self._journal.transact(lambda found: self._decide(found, here, free_bytes, used, coming))
        now_s = self._clock.age_by_s()
        halves = [half for half in halves if half.name.partition(".")[0] not in needed]
        await asyncio.to_thread(self._artifacts.empty, halves, QUARANTINE_BYTES, QUARANTINE_S, now_s)

    def _look(self, coming: int) -> tuple[dict[str, int], int, dict[str, int]]:
        here, free_bytes = self._artifacts.on_disk(), self._free_bytes()
        with views.open_readonly(self._state_dir) as snapshot:
            claims = self._needs_to_look.claims(snapshot.connection)
            short = self._shortage(here, claims.missing_bytes + coming, free_bytes) > 0
            used = last_used(snapshot.connection) if short else {}
        return here, free_bytes, used

    def _decide(
        self, transaction: Transaction, here: dict[str, int], free_bytes: int, used: dict[str, int], coming: int
    ) -> set[str]:
        """In the writer's thread. The hashes that open orders name and that are still to come."""
        connection = transaction.connection
        claims, stored = self._needs.claims(connection), stored_files(connection)
        for sha256 in stored.keys() - here.keys():
            if not self._artifacts.has(sha256):  # nor did it come since we looked
                transaction.record(Draft(EventKind.ARTIFACT_LOST, ACTOR, {"sha256": sha256, "reason": "it is gone"}))
        short = self._shortage(here, claims.missing_bytes + coming, free_bytes)
        waited_for = self._needs.of_parked_orders(connection)  # also what has just come, and is not written down yet
        idle = [sha256 for sha256 in here if sha256 not in claims.held and sha256 not in waited_for]
        for sha256 in sorted(idle, key=lambda name: (used.get(name, 0), name)):
            if sha256 in stored and short <= 0:
                continue
            self._artifacts.evict(sha256)
            short -= here[sha256]
            if sha256 in stored:
                body = {"sha256": sha256, "size_bytes": here[sha256]}
                transaction.record(Draft(EventKind.ARTIFACT_EVICTED, ACTOR, body))
        return {sha256 for sha256 in claims.held if not self._artifacts.has(sha256)}

    def _shortage(self, here: dict[str, int], missing_bytes: int, free_bytes: int) -> int:
        """How many bytes too many are here."""
        over = sum(here.values()) + missing_bytes - self._max_bytes
        return max(over, RESERVE_BYTES + missing_bytes - free_bytes)
