"""The outbox: the journal's tail, signed and sent until the collector acknowledges it.

Rules:

    1. Only the collector's signed acknowledgement counts, and it is durable here before anything follows from it.
    2. Nothing waits in memory but the one batch that is being handed over: whatever has to be sent again is read again.
    3. An acknowledgement of what this journal does not have, or has otherwise, means that the journal was put back, or
       that two of them go under one id. Then nothing is sent any more, and no order begins (`journal_held`, in the
       transaction that learns of it) before a person has confirmed.
    4. What does not verify changes nothing. It is counted, and its reason is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge import batch
from edge.batch import Ack, Packed
from edge.errors import BatchError
from edge.journal import Journal, Transaction
from edge.model.event import Draft, EventKind
from edge.model.fields import time_text
from edge.trust.envelope import PayloadType, sign
from edge.trust.root import TrustRoot
from edge.uplink import tail
from edge.uplink.port import Uplink
from edge.uplink.tail import Mark
from edge.uplink.topics import What, topic
from edge.uplink.window import RESEND_S, Window

log = logging.getLogger("edge.outbox")

ACTOR = "outbox"


class Outbox:
    """What is reported of one journal; made by `Outbox.open`. All methods belong to one event loop."""

    def __init__(
        self,
        journal: Journal,
        key: Ed25519PrivateKey,
        root: Callable[[], TrustRoot],
        mark: Mark,
        resend_s: float,
        max_bytes: int,
    ) -> None:
        self._journal = journal
        self._key = key
        self._root = root
        self._mark = mark
        self._window = Window(mark.acked.seq, resend_s)
        self._max_bytes = max_bytes
        self._wake = asyncio.Event()
        self._waiting_since_s: float | None = None
        self._problem = ""
        self._refused = 0
        self._refusal = ""
        self.held_bytes = 0
        """Of what is being handed over: all that this class keeps of the events."""

    @classmethod
    async def open(
        cls,
        journal: Journal,
        key: Ed25519PrivateKey,
        root: Callable[[], TrustRoot],
        resend_s: float = RESEND_S,
        max_bytes: int = batch.BATCH_MAX_BYTES,
    ) -> Outbox:
        """The outbox of `journal`; `root` gives the trust root in force, `key` is the site's own."""
        return cls(journal, key, root, await journal.transact(tail.read_mark), resend_s, max_bytes)

    def view(self) -> dict[str, object]:
        """How reporting goes: ``uplink.reporting`` of `edge status --json`."""
        return {
            "last_seq": self._journal.last_seq,
            "acked_seq": self._mark.acked.seq,
            "acked_at": self._mark.at,
            "backlog": self.backlog,
            "in_flight": self._window.in_flight,
            "stopped": self.stopped,
            "refused_acks": self._refused,
            "refusal": self._refusal,
        }

    @property
    def backlog(self) -> int:
        """How many events the collector has not acknowledged."""
        return max(0, self._journal.last_seq - self._mark.acked.seq)

    @property
    def behind(self) -> str:
        """Why this journal is not the one that the collector knows; empty if it is."""
        return self._mark.behind

    @property
    def stopped(self) -> str:
        """Why nothing is sent any more, until a person has done something; empty if all is well."""
        return self._mark.behind or self._problem

    def attention(self) -> list[str]:
        """What keeps events from being reported, in sentences."""
        return [f"nothing is reported any more: {self.stopped}"] if self.stopped else []

    def waiting_s(self, now_s: float) -> float:
        """How long what was sent waits for an acknowledgement of anything; 0 if nothing waits."""
        return 0.0 if self._waiting_since_s is None else max(0.0, now_s - self._waiting_since_s)

    async def send(self, uplink: Uplink) -> None:
        """Send over one connection, until cancelled. Raises `UplinkError`."""
        self._window.connected()
        loop = asyncio.get_running_loop()
        watching = asyncio.create_task(self._watch(), name="outbox: new events")
        try:
            while True:
                self._wake.clear()
                envelopes = await self.next(loop.time())
                self.held_bytes = sum(map(len, envelopes))
                for raw in envelopes:
                    await uplink.publish(topic(self._journal.site, What.OUT), raw)
                if not self._ready(loop.time()):
                    await self._wait(self._window.due_at)
        finally:
            self.held_bytes = 0
            watching.cancel()
            await asyncio.wait([watching])

    async def next(self, now_s: float) -> list[bytes]:
        """The envelopes to be published now; nothing if it is not their turn. What is returned counts as sent."""
        if not self._ready(now_s):
            return []
        first_seq = self._window.next_seq

        def read(transaction: Transaction) -> Packed:
            before = tail.at(transaction, first_seq - 1)
            if before is None:
                raise BatchError(f"event {first_seq - 1} is not in the journal, so event {first_seq} cannot be sent")
            rows = tail.rows(transaction, first_seq)
            return batch.pack(self._journal.site, self._journal.ident, before, rows, self._max_bytes)

        try:
            packed = await self._journal.transact(read)
        except BatchError as error:
            self._problem = str(error)
            log.error("nothing more can be reported: %s", error)
            return []
        if self._window.next_seq != first_seq:
            return []  # an acknowledgement came meanwhile and says where to go on
        self._window.sent(packed.last.seq, now_s)
        if self._waiting_since_s is None and packed.last.seq > self._mark.acked.seq:
            self._waiting_since_s = now_s
        return [sign(PayloadType.BATCH, payload, [self._key]) for payload in packed.payloads]

    async def take_ack(self, raw: bytes, now_s: float) -> None:
        """What came as an acknowledgement. What it says is durable on return; what cannot be believed is counted."""
        try:
            ack = batch.open_ack(raw, self._root())
            if (ack.site, ack.journal) != (self._journal.site, self._journal.ident):
                raise BatchError(f"the acknowledgement is of journal {ack.journal} of site {ack.site}")
        except BatchError as error:
            self._refused += 1
            self._refusal = str(error)
            log.warning("an acknowledgement is not believed: %s", error)
            return
        found = await self._journal.transact(lambda transaction: _judge(transaction, ack))
        if found.behind and not self._mark.behind:
            log.error("%s", found.behind)
        moved = found.acked.seq > self._mark.acked.seq
        self._mark = found
        if not found.behind:
            if ack.resend:
                self._window.asked(found.acked.seq, now_s)
            else:
                self._window.acknowledged(found.acked.seq)
            if moved:
                self._waiting_since_s = now_s if self._window.in_flight else None
        self._wake.set()

    def connected(self) -> None:
        """A new connection: begin with the newest acknowledged event. `send` does it by itself."""
        self._window.connected()

    def _ready(self, now_s: float) -> bool:
        return not self.stopped and self._window.may_send(self._journal.last_seq, now_s)

    async def _watch(self) -> None:
        seen = self._journal.last_seq
        while True:
            seen = await self._journal.wait_beyond(seen)
            self._wake.set()

    async def _wait(self, deadline_s: float | None) -> None:
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._wake.wait()
        except TimeoutError:
            log.info("what was sent, and is not acknowledged, is sent again")


def _judge(transaction: Transaction, ack: Ack) -> Mark:
    """What is known after `ack`, durably."""
    known = tail.read_mark(transaction)
    if known.behind:
        return known
    ours = tail.at(transaction, ack.seq)
    if ours != ack.head:
        last = tail.newest(transaction)
        here = f"this journal ends with event {last.seq}" if ours is None else "this journal has another one there"
        behind = (
            f"the collector has event {ack.seq} of this journal, and {here}: the journal was put back to an older"
            " state, or copied; what was done since is not known here"
        )
        mark = Mark(known.acked, known.at, behind)
        transaction.record(Draft(EventKind.JOURNAL_HELD, ACTOR, {"reason": behind}))
    elif ack.seq > known.acked.seq or (ack.resend and ack.seq < known.acked.seq):
        mark = Mark(ack.head, time_text(ack.at))
    else:
        return known
    tail.write_mark(transaction, mark)
    return mark
