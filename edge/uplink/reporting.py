"""The outbox as the uplink's task sees it, and what follows from an acknowledgement of what this journal does not have.

Then the journal was put back to an older state: what was done since is not known here, and might be done again. So it
is held, durably, until a person says that it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.journal import Journal, Transaction
from edge.model.event import Draft, EventKind
from edge.scribe import ACTOR
from edge.uplink.outbox import Outbox
from edge.uplink.port import Uplink


class OutboxReporting:
    """See `edge.uplink.service.Reporting`."""

    def __init__(self, outbox: Outbox, journal: Journal) -> None:
        self._outbox = outbox
        self._journal = journal
        self._holds = False

    async def send(self, uplink: Uplink) -> None:
        """Send over one connection until cancelled. Raises `UplinkError`."""
        await self._outbox.send(uplink)

    async def take_ack(self, raw: bytes, now_s: float) -> None:
        """What came as an acknowledgement; durable on return."""
        await self._outbox.take_ack(raw, now_s)
        behind = self._outbox.report.behind
        if behind and not self._holds:
            await self._journal.transact(lambda transaction: _hold(transaction, behind))
            self._holds = True

    def waiting_s(self, now_s: float) -> float:
        """How long the oldest event that was sent waits for its acknowledgement, in seconds; 0 if none does."""
        since_s = self._outbox.report.waiting_since_s
        return 0.0 if since_s is None else now_s - since_s

    def attention(self) -> list[str]:
        """What keeps events from being reported, in sentences."""
        report = self._outbox.report
        return [text for text in (report.behind, report.problem) if text]

    def view(self) -> Mapping[str, Any]:
        """How reporting goes, as docs/json.md has it."""
        report = self._outbox.report
        return {
            "last_seq": report.last_seq,
            "acked_seq": report.acked.seq,
            "acked_at": report.at,
            "backlog": report.backlog,
            "in_flight": report.in_flight,
            "refused_acks": report.refused,
            "refusal": report.refusal,
        }


def _hold(transaction: Transaction, reason: str) -> None:
    if not transaction.held():
        transaction.record(Draft(EventKind.JOURNAL_HELD, ACTOR, {"reason": reason}))
