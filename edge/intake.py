"""Bytes from anywhere -> `trust.admit` -> the journal. Idempotent: the same bytes again change nothing.

Rules

1. The verdict, its event, the replay mark and the job's id become durable in one transaction, and only then does the
   sender get an answer.
2. Files are taken out of a bundle only after its order is accepted, and only those that the order names. So nobody
   without a valid signature can fill the disk.
3. A bundle whose order was accepted before still brings the files that are missing.
4. An order is accepted only if there is room for what it may bring beside what earlier orders may bring.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from edge.artifacts import Artifacts, read_bundle
from edge.authority import Authority
from edge.clock import SystemClock
from edge.errors import BundleError
from edge.journal import Journal, Transaction
from edge.keeper import RESERVE_BYTES
from edge.model.event import Draft, EventKind
from edge.needs import Needs
from edge.trust import Claims, JobOrder, Now, Reason, ReplayWindow, Snapshot, Verdict, admit, parse_order
from edge.trust.admit import MAX_BYTES
from edge.trust.envelope import MAX_ENVELOPE_BYTES


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of what was sent in. `refused` maps a file's hash to the reason why it was not taken."""

    verdict: Verdict
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
        make_room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._journal = journal
        self._artifacts = artifacts
        self._authority = authority
        self._processes = processes
        self._clock = clock
        self._free_bytes = free_bytes or artifacts.free_bytes
        self._max_bytes = max_bytes
        self._make_room = make_room
        self._needs = Needs()  # asked in the journal's writer only
        self.arriving: frozenset[str] = frozenset()  # hashes that bundles bring at this moment

    async def envelope(self, raw: bytes, actor: str) -> Receipt:
        """Judge one signed order and record the verdict."""
        free_bytes, now = self._free_bytes(), self._clock.wall()

        def judge(transaction: Transaction) -> Receipt:
            snapshot = Snapshot(
                site=self._journal.site,
                root=self._authority.root,
                processes=self._processes,
                free_bytes=free_bytes,
                reserve_bytes=RESERVE_BYTES,
                ledger=_Ledger(transaction, self._needs),
                max_bytes=self._max_bytes,
            )
            verdict = admit(raw, snapshot, Now(now))
            if not verdict.repeated:
                _record(transaction, verdict, raw, actor, now)
            return Receipt(verdict, _job_id(transaction, verdict))

        return await self._journal.transact(judge)

    async def file(self, path: Path, actor: str) -> Receipt:
        """Judge what is in a file: an envelope alone, or a bundle. Raises `BundleError` if it is neither."""
        raw = await asyncio.to_thread(_envelope_alone, path)
        return await (self.bundle(path, actor) if raw is None else self.envelope(raw, actor))

    async def bundle(self, path: Path, actor: str) -> Receipt:
        """Judge the order in a bundle, and take the files that it names. Raises `BundleError`."""
        raw = await asyncio.to_thread(_envelope_in, path)
        receipt = await self.envelope(raw, actor)
        if not receipt.verdict.accepted or receipt.job_id is None:
            return receipt
        order = receipt.verdict.order or await self._order(receipt.job_id)
        wanted = {artifact.sha256: artifact.size_bytes for artifact in order.artifacts.values()}
        return await self._take_files(path, receipt, wanted, actor)

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
    if not verdict.signed:
        reason = str(verdict.reason)
        transaction.count_refusal(reason, now.strftime("%Y-%m-%dT%H:%MZ"))
    elif verdict.accepted and verdict.order is not None:
        body = {
            "digest": verdict.digest,
            "envelope": base64.b64encode(raw).decode("ascii"),
            "signers": list(verdict.signers),
        }
        transaction.record(Draft(EventKind.JOB_ACCEPTED, actor, body, job_id=verdict.order.job_id))
    else:
        body = {
            "digest": verdict.digest,
            "reason": str(verdict.reason),
            "detail": verdict.detail,
            "signers": list(verdict.signers),
        }
        claimed = verdict.order.job_id if verdict.order is not None else None
        transaction.record(Draft(EventKind.JOB_REFUSED, actor, body, job_id=claimed))


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
