"""Bytes from anywhere -> `edge.trust` -> the journal. Idempotent: the same bytes again change nothing.

`Intake.take` is the door for every way in: an order, the next trust root, or a command from the centre.

Rules

1. The verdict, its event, the replay mark and the job's id become durable in one transaction, and only then does the
   sender get an answer.
2. Files are taken out of a bundle only after its order is accepted, and only those that the order names. So nobody
   without a valid signature can fill the disk.
3. A bundle whose order was accepted before still brings the files that are missing.
4. What is judged is judged by the trust root that is durable at that moment.
5. A command and what it does are one transaction: it is carried out once, or not at all.
6. An order that needs a time which nobody vouches for is kept, before any mark changes, and judged when somebody does.
   That it is here is an event, once; what its bundle brings is kept, too, as far as there is room.
7. An order is accepted only if there is room for what it may bring beside what earlier orders may bring.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from edge.artifacts.artifacts import Artifacts
from edge.artifacts.bundle import read_bundle
from edge.artifacts.keeper import RESERVE_BYTES
from edge.artifacts.needs import Needs
from edge.clock import SystemClock
from edge.errors import BundleError, EnvelopeError
from edge.intake.authority import Authority
from edge.intake.door import Remote, take_command, take_root, take_time, write_refusal
from edge.intake.nonce import NonceFile
from edge.journal.journal import Journal, parked
from edge.journal.transaction import KnownRoot, Transaction
from edge.model.event import Draft, EventKind, signed_body
from edge.timefloor import Known
from edge.trust import (
    Claims,
    CommandVerdict,
    JobOrder,
    PayloadType,
    Reason,
    ReplayWindow,
    RootVerdict,
    Snapshot,
    TimeVerdict,
    Verdict,
    admit,
    parse,
    parse_order,
    payload_digest,
)
from edge.trust.admit import MAX_BYTES, room_for
from edge.trust.envelope import MAX_ENVELOPE_BYTES

log = logging.getLogger("edge.intake")

PARKED_MAX = 1000
"""Orders that wait for a time at once; a thousand of `MAX_ENVELOPE_BYTES` is a quarter of a gigabyte, and a few times
that in the journal."""

LARGE_BYTES = 16 * 1024
"""Hardly an order is larger; what is takes its turn among a few, so that many of them keep no order waiting."""

LARGE_AT_ONCE = 2


ENDS_OF_ORDERS = (EventKind.JOB_REFUSED, EventKind.JOB_DECLINED, EventKind.CANCEL_REQUESTED)
"""Before they were jobs."""

AnyVerdict: TypeAlias = Verdict | RootVerdict | CommandVerdict | TimeVerdict


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of what was sent in, an order or another signed message.

    `refused` maps a file's hash to the reason why it was not taken.
    """

    verdict: AnyVerdict
    job_id: str | None
    stored: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


class _Ledger:
    """What the journal remembers, as `trust.admit` asks for it."""

    def __init__(self, transaction: Transaction, needs: Needs) -> None:
        self._transaction = transaction
        self._needs = needs

    def verdict_of(self, digest: str) -> Verdict | None:
        known = self._transaction.verdict_of(digest)
        if known is None:
            return None
        reason = None if known.accepted else Reason(known.reason)
        return Verdict(known.accepted, reason, known.detail, digest, signed=True)

    def refusal_of(self, payload_digest: str) -> tuple[Reason, str] | None:
        found = self._transaction.refusal_of(payload_digest, ENDS_OF_ORDERS)
        return None if found is None else (Reason(found[0]), found[1])

    def window(self, issuer: str, series: str) -> ReplayWindow:
        return self._transaction.window(issuer, series)

    def digest_of(self, job_id: str) -> str | None:
        return self._transaction.digest_of(job_id)

    def claims(self) -> Claims:
        return self._needs.claims(self._transaction.connection)


class Intake:
    """The site's door for orders."""

    def __init__(
        self,
        journal: Journal,
        artifacts: Artifacts,
        authority: Authority,
        processes: frozenset[str],
        clock: SystemClock,
        free_bytes: Callable[[], int] | None = None,
        max_bytes: int = MAX_BYTES,
        make_room: Callable[..., Awaitable[None]] | None = None,
        remote: Remote | None = None,
        nonce: NonceFile | None = None,
    ) -> None:
        self._journal = journal
        self._artifacts = artifacts
        self._authority = authority
        self._processes = processes
        self._clock = clock
        self._free_bytes = free_bytes or artifacts.free_bytes
        self._remote = remote or Remote({})
        self._nonce = nonce or NonceFile(clock)
        self._max_bytes = max_bytes
        self._make_room = make_room
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._answers = asyncio.Lock()
        self._keeping = asyncio.Lock()
        self._needs = Needs()  # asked in the journal's writer only
        self.arriving: frozenset[str] = frozenset()  # hashes that bundles bring at this moment

    async def take(self, raw: bytes, actor: str) -> AnyVerdict:
        """Judge one signed message of any type, record the verdict, and do what follows from it."""
        if len(raw) <= LARGE_BYTES:
            return await self._take(raw, _type_of(raw), actor)
        async with self._large:
            return await self._take(raw, await asyncio.to_thread(_type_of, raw), actor)

    async def _take(self, raw: bytes, kind: str, actor: str) -> AnyVerdict:
        match kind:
            # Once they are durable the site goes by them, also if the connection that brought them is lost meanwhile.
            case PayloadType.ROOT:
                return await asyncio.shield(self.root(raw, actor))
            case PayloadType.TIME:
                return await asyncio.shield(self.time(raw, actor))
            case PayloadType.COMMAND:
                return await self.command(raw, actor)
            case _:
                return (await self.envelope(raw, actor)).verdict

    async def root(self, raw: bytes, actor: str) -> RootVerdict:
        """Judge the next trust root; from then on the site goes by it."""
        now = self._clock.now().wall

        def judge(transaction: Transaction) -> tuple[RootVerdict, KnownRoot | None]:
            verdict = take_root(transaction, raw, self._authority, actor, now)
            return verdict, transaction.root_in_force()

        verdict, known = await self._journal.transact(judge)
        if known is not None:
            self._authority.adopt(known)
            self._clock.learn(Known(self._authority.root.issued_at))
        if verdict.signed and not verdict.accepted:
            log.error("a trust root that enough root keys signed is refused, %s: %s", verdict.reason, verdict.detail)
        return verdict

    async def time(self, raw: bytes, actor: str) -> TimeVerdict:
        """Judge a signed time; from then on the site goes by it, and judges the orders that have waited for it."""
        async with self._answers:  # one after the other: the first uses the nonce up
            verdict = await self._time(raw, actor)
        if verdict.accepted:
            await self.judge_parked()
        return verdict

    async def _time(self, raw: bytes, actor: str) -> TimeVerdict:
        now, waiting = self._clock.now().wall, self._nonce.waiting()

        def judge(transaction: Transaction) -> tuple[TimeVerdict, Known]:
            verdict = take_time(transaction, raw, self._authority, waiting, actor, now)
            return verdict, transaction.known_time()

        verdict, known = await self._journal.transact(judge)
        if verdict.accepted:
            self._clock.repair(known) if verdict.repairs else self._clock.learn(known)
        return verdict

    async def judge_parked(self) -> int:
        """Judge the orders that have waited for the time, in the order in which they came; how many there were.

        While nobody vouches for the clock, only those that have certainly expired: nothing else can come of them.
        """
        count = after = 0
        while True:
            now = self._clock.now()
            over = None if now.trusted else now.floor
            look = functools.partial(Transaction.next_parked, after=after, over=over)
            parked = await self._journal.transact(look)
            if parked is None:
                break
            after, raw, actor = parked
            receipt = await self.envelope(raw, actor)  # with its verdict it is parked no more
            if receipt.verdict.reason is Reason.CLOCK_UNTRUSTED:
                break
            count += 1
        return count

    async def command(self, raw: bytes, actor: str) -> CommandVerdict:
        """Judge a command from the centre and carry it out."""
        now = self._clock.now()
        judge = functools.partial(
            take_command,
            raw=raw,
            authority=self._authority,
            remote=self._remote,
            site=self._journal.site,
            actor=actor,
            now=now,
        )
        return await self._journal.transact(judge)

    async def envelope(self, raw: bytes, actor: str) -> Receipt:
        """Judge one signed order and record the verdict."""
        free_bytes, now = self._free_bytes(), self._clock.now()

        def judge(transaction: Transaction) -> tuple[Receipt, int]:
            snapshot = self._snapshot(transaction, free_bytes)
            verdict = admit(raw, snapshot, now)
            if verdict.reason is Reason.CLOCK_UNTRUSTED:
                verdict = _park(transaction, verdict, raw, actor, free_bytes)
            elif not verdict.repeated:
                _record(transaction, verdict, raw, actor, now.wall)
            return Receipt(verdict, _job_id(transaction, verdict)), snapshot.root.version

        receipt, version = await self._journal.transact(judge)
        if receipt.verdict.accepted and not receipt.verdict.repeated:
            self._authority.vouch(receipt.verdict.digest, version)
        return receipt

    def _snapshot(self, transaction: Transaction, free_bytes: int) -> Snapshot:
        return Snapshot(
            site=self._journal.site,
            root=self._authority.judged_by(transaction.root_in_force()).root,
            processes=self._processes,
            free_bytes=free_bytes,
            reserve_bytes=RESERVE_BYTES,
            ledger=_Ledger(transaction, self._needs),
            max_bytes=self._max_bytes,
        )

    async def file(self, path: Path, actor: str) -> Receipt:
        """Judge what is in a file: an envelope alone, or a bundle. Raises `BundleError` if it is neither."""
        raw = await asyncio.to_thread(_envelope_alone, path)
        if raw is None:
            return await self.bundle(path, actor)
        if _type_of(raw) == PayloadType.JOB:
            return await self.envelope(raw, actor)
        return Receipt(await self.take(raw, actor), None)

    async def bundle(self, path: Path, actor: str) -> Receipt:
        """Judge the order in a bundle, and take the files that it names. Raises `BundleError`."""
        raw = await asyncio.to_thread(_envelope_in, path)
        receipt = await self.envelope(raw, actor)
        if receipt.verdict.reason is Reason.CLOCK_UNTRUSTED:
            return await self._keep_for_later(path, raw, receipt, actor)
        if not receipt.verdict.accepted or receipt.job_id is None:
            return receipt
        if await self._journal.transact(lambda transaction: transaction.revision(str(receipt.job_id))) is None:
            return receipt  # it was done, and is forgotten: nobody needs its files
        order = await self._order(receipt.job_id)
        wanted = {artifact.sha256: artifact.size_bytes for artifact in order.artifacts.values()}
        return await self._take_files(path, receipt, wanted, actor)

    async def _keep_for_later(self, path: Path, raw: bytes, receipt: Receipt, actor: str) -> Receipt:
        """Take the files of an order that waits to be judged, if there is room beside what others may still bring."""
        order = receipt.verdict.order if isinstance(receipt.verdict, Verdict) else None
        free_bytes = self._free_bytes()

        def look(transaction: Transaction) -> tuple[int, int] | None:
            if order is None or not transaction.is_parked(payload_digest(raw)):
                return None
            return room_for(order, self._snapshot(transaction, free_bytes))

        async with self._keeping:  # one bundle after the other: nothing else holds the room that was found
            needed = await self._journal.transact(look)
            if order is not None and needed is not None and needed[0] <= needed[1]:
                if self._make_room is not None:
                    await self._make_room(needed[0])
                wanted = {artifact.sha256: artifact.size_bytes for artifact in order.artifacts.values()}
                return await self._take_files(path, receipt, wanted, actor)
        why = f": its files need {needed[0]} bytes, this site has room for {needed[1]}" if needed is not None else ""
        detail = f"{receipt.verdict.detail}; what is in the bundle beside it has to come again then{why}"
        return replace(receipt, verdict=replace(receipt.verdict, detail=detail))

    async def _take_files(self, path: Path, receipt: Receipt, wanted: dict[str, int], actor: str) -> Receipt:
        absent = {sha256: size for sha256, size in wanted.items() if not self._artifacts.has(sha256)}
        before, self.arriving = self.arriving, self.arriving | absent.keys()
        try:
            return await self._bring(path, receipt, wanted, absent, actor)
        finally:
            self.arriving -= absent.keys() - before

    async def _bring(
        self, path: Path, receipt: Receipt, wanted: dict[str, int], absent: dict[str, int], actor: str
    ) -> Receipt:
        if absent and self._make_room is not None:
            await self._make_room()

        def take() -> Receipt:
            with read_bundle(path) as bundle:
                found = bundle.extract(absent, self._artifacts)
            refused = tuple(sorted(found.refused.items()))
            return Receipt(receipt.verdict, receipt.job_id, found.stored, found.missing, refused)

        taken = await asyncio.to_thread(take)
        here = [sha256 for sha256 in wanted if sha256 in taken.stored or sha256 not in absent]

        def write_down(transaction: Transaction) -> None:
            for sha256 in here:
                if not transaction.is_stored(sha256):  # nor is one that came right before a power cut
                    body = {"sha256": sha256, "size_bytes": wanted[sha256]}
                    transaction.record(Draft(EventKind.ARTIFACT_STORED, actor, body, job_id=receipt.job_id))

        await self._journal.transact(write_down)
        return taken

    async def _order(self, job_id: str) -> JobOrder:
        return parse_order(await self._journal.transact(lambda transaction: transaction.payload_of(job_id)))


def _record(transaction: Transaction, verdict: Verdict, raw: bytes, actor: str, now: datetime.datetime) -> None:
    if verdict.accepted and verdict.order is not None:
        body = signed_body(raw, verdict.signers)
        transaction.record(Draft(EventKind.JOB_ACCEPTED, actor, body, job_id=verdict.order.job_id))
    else:
        claimed, until = (None, None) if (read := verdict.order) is None else (read.job_id, read.expires_at)
        write_refusal(transaction, EventKind.JOB_REFUSED, verdict, raw, actor, now, claimed, until)


def _park(transaction: Transaction, verdict: Verdict, raw: bytes, actor: str, free_bytes: int) -> Verdict:
    """Keep a signed order until somebody vouches for the clock. Nothing is decided about it.

    What was accepted before, in another spelling, is not kept: nothing could come of it.
    """
    of_payload, order = payload_digest(raw), verdict.order
    assert order is not None  # it was read before the time was looked at
    if not transaction.is_parked(of_payload):
        if transaction.digest_of(order.job_id) is not None:
            return replace(verdict, detail=f"{verdict.detail}; job {order.job_id} is known here, and this is not kept")
        if transaction.parked_count() >= PARKED_MAX:
            detail = f"{verdict.detail}, and {PARKED_MAX} orders wait for that already; send it again"
            return replace(verdict, detail=detail)
        if free_bytes <= RESERVE_BYTES:
            return replace(verdict, detail=f"{verdict.detail}, and the disk has no room to keep it; send it again")
        transaction.record(parked(raw, actor, verdict.signers, verdict.detail))
    return replace(verdict, detail=f"{verdict.detail}: it is kept, and judged as soon as somebody does")


def _job_id(transaction: Transaction, verdict: Verdict) -> str | None:
    if verdict.order is not None:
        return verdict.order.job_id
    known = transaction.verdict_of(verdict.digest)
    return None if known is None else known.job_id


def _envelope_alone(path: Path) -> bytes | None:
    """The bytes of a file that holds an envelope and nothing else; None if it looks like anything else."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read: {error.strerror}") from error
    return raw if raw.lstrip().startswith(b"{") else None


def _envelope_in(path: Path) -> bytes:
    with read_bundle(path) as bundle:
        return bundle.envelope


def _type_of(raw: bytes) -> str:
    """What the envelope claims to carry; empty if it is none."""
    try:
        return parse(raw).payload_type
    except EnvelopeError:
        return ""
