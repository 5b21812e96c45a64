"""The outbox: the journal's tail, signed and sent until the collector acknowledges it.

Rules:

    1. Only the collector's signed acknowledgement counts, and it is durable here before anything follows from it.
    2. Nothing waits in memory but the one batch that is being handed over: whatever has to be sent again is read again.
    3. An acknowledgement of what this journal does not have, or has otherwise, means that the journal was put back, or
       that two of them go under one id. Then it goes on under a new id (`edge.journal.restored`), in the transaction
       that learns of it: no order begins before a person has confirmed, and what follows the newest acknowledged event
       is reported under the new id. What is acknowledged of an older id is no news, unless the collector asks for what
       follows an event that both have: it was put back to before the new id.
    4. A collector that has lost what it acknowledged, and what was pruned here since, gets what is here, with the word
       that the rest is gone (`Batch.begins`). Both sides tell their people. It is an event, but not within
       `QUIET_EVENTS` of the last one: a broker that repeats what the collector once asked must not fill the journal.
    5. A broker that takes no message of that size gets smaller ones, down to `SMALL_BYTES`.
    6. What does not verify changes nothing. It is counted, and its reason is kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.errors import BatchError
from edge.journal import base
from edge.journal.chain import Head
from edge.journal.journal import Journal
from edge.journal.restored import begin_anew
from edge.journal.transaction import Transaction, ident_of
from edge.model.event import Draft, EventKind
from edge.model.fields import time_text
from edge.trust.envelope import PayloadType, sign
from edge.trust.root import TrustRoot
from edge.uplink import batch, tail
from edge.uplink.batch import Ack, Packed
from edge.uplink.port import Trouble, Uplink, UplinkError
from edge.uplink.tail import Mark
from edge.uplink.topics import What, topic
from edge.uplink.window import RESEND_S, Window

log = logging.getLogger("edge.outbox")

ACTOR = "outbox"

QUIET_EVENTS = 1000

SMALL_BYTES = 32 * 1024
"""Of a payload: the largest order that a site takes still goes in `batch.MAX_PIECES` of them."""


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
        self._ident = journal.ident
        self._window = Window(mark.acked.seq, resend_s)
        self._max_bytes = max_bytes
        self._wake = asyncio.Event()
        self._told = asyncio.Event()  # set, and made anew, with each acknowledgement that is believed
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
    def stopped(self) -> str:
        """Why nothing is sent any more, until a person has done something; empty if all is well."""
        return self._problem

    @property
    def due_at(self) -> float | None:
        """When there may be something to send though nothing has happened; None if never."""
        return None if self.stopped else self._window.due_at

    def attention(self) -> list[str]:
        """What keeps events from being reported, in sentences."""
        found = [f"nothing is reported any more: {self.stopped}"] if self.stopped else []
        return [*found, self._mark.behind] if self._mark.behind else found

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
                try:
                    for raw in envelopes:
                        await uplink.publish(topic(self._journal.site, What.OUT), raw)
                except UplinkError as error:
                    if error.trouble is not Trouble.TOO_LARGE or self._max_bytes < 2 * SMALL_BYTES:
                        raise
                    self._max_bytes //= 2
                    log.info("from now on a batch has %d bytes at most, before it is signed", self._max_bytes)
                    self._window.connected()
                    continue
                if envelopes:
                    self._window.taken(loop.time())
                if not self._ready(loop.time()):
                    await self._wait(self.due_at)
        finally:
            self.held_bytes = 0
            watching.cancel()
            await asyncio.wait([watching])

    async def next(self, now_s: float) -> list[bytes]:
        """The envelopes to be published now; nothing if it is not their turn. What is returned counts as sent."""
        if self._ident != self._journal.ident:  # it has a new id: the collector has to learn where that begins
            self._ident = self._journal.ident
            self._window.connected()
        if not self._ready(now_s):
            return []
        first_seq = self._window.next_seq

        def read(transaction: Transaction) -> Packed:
            first = max(first_seq, base.read(transaction.connection).head.seq + 1)
            before = tail.at(transaction, first - 1)
            if before is None:
                raise BatchError(f"event {first - 1} is not in the journal, so event {first} cannot be sent")
            rows = tail.rows(transaction, first)
            return batch.pack(tail.frame(transaction, self._journal.site, before), rows, self._max_bytes)

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
            if ack.site != self._journal.site:
                raise BatchError(f"the acknowledgement is of site {ack.site}")
            found = await self._journal.transact(lambda transaction: _judge(transaction, ack))
        except BatchError as error:
            self._refused += 1
            self._refusal = str(error)
            log.warning("an acknowledgement is not believed: %s", error)
            return
        if found is None:
            self._wake.set()
            return
        if found.behind and not self._mark.behind:
            log.error("%s", found.behind)
        moved = found.acked.seq > self._mark.acked.seq
        self._mark = found
        if ack.resend:
            self._window.asked(found.acked.seq, now_s)
        else:
            self._window.acknowledged(found.acked.seq)
        if moved:
            self._waiting_since_s = now_s if self._window.in_flight else None
        self._wake.set()
        told, self._told = self._told, asyncio.Event()
        told.set()

    async def until_told(self, seq: int) -> None:
        """Until the collector has acknowledged event `seq`, or nothing is sent any more."""
        while self._mark.acked.seq < seq and not self.stopped:
            await self._told.wait()

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


def _judge(transaction: Transaction, ack: Ack) -> Mark | None:
    """What is known after `ack`, durably; None if it says nothing about how this journal is reported.

    Raises:
        BatchError: it is of a journal that this one never was.
    """
    if ack.journal != ident_of(transaction.connection):
        if not tail.was_called(transaction, ack.journal):
            raise BatchError(f"the acknowledgement is of journal {ack.journal}")
        if not ack.resend or tail.at(transaction, ack.seq) != ack.head:
            return None
    known, pruned = tail.read_mark(transaction), base.read(transaction.connection).head
    if ack.seq < pruned.seq:
        if not ack.resend:
            return known
        mark = _lost(transaction, known, ack.seq, pruned)
    elif tail.at(transaction, ack.seq) != ack.head:
        _put_back(transaction, ack)
        return None
    elif ack.seq > known.acked.seq or (ack.resend and ack.seq < known.acked.seq):
        mark = Mark(ack.head, time_text(ack.at))
    else:
        return known
    tail.write_mark(transaction, mark)
    return mark


def _put_back(transaction: Transaction, ack: Ack) -> None:
    """The collector knows of this journal what is not known here."""
    last = tail.newest(transaction)
    here = f"this journal ends with event {last.seq}" if ack.seq > last.seq else "this journal has another one there"
    reason = (
        f"the collector has event {ack.seq} of this journal, and {here}: the journal was put back to an older"
        " state, or copied; what was done since is not known here"
    )
    log.error("%s", reason)
    begin_anew(transaction, reason, ACTOR)


def _lost(transaction: Transaction, known: Mark, has: int, pruned: Head) -> Mark:
    """The collector asks for what it had acknowledged, and what was pruned since: it begins again after that."""
    mark = Mark(pruned, known.at, known.behind)
    if not known.behind:
        reason = (
            f"the collector has lost what it had acknowledged, and asks for events {has + 1} to {pruned.seq}: they were"
            " pruned here and cannot be sent again; a backup of the collector may have them"
        )
        if not tail.has_recent(transaction, EventKind.COLLECTOR_BEHIND, QUIET_EVENTS):
            transaction.record(Draft(EventKind.COLLECTOR_BEHIND, ACTOR, {"reason": reason, "seq": has}))
        mark = Mark(pruned, known.at, reason)
    return mark
