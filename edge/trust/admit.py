"""Whether a site takes a job order. Pure: bytes, what the site knows, and the time go in; a verdict comes out.

The checks, in this order; the first that fails gives the reason:

    1. size                                            too_large
    2. the envelope's form                             malformed
    3. its payload type                                bad_type
    4. the same bytes were judged before               that verdict again
    5. distinct issuer keys that signed                revoked_key, threshold
    6. the order's form                                malformed
    7. the signers' right to this issuer and work      threshold
    8. the same payload was refused before             that reason again
    9. the site                                        wrong_site
   10. the trust root: new enough, not expired         stale_root
   11. the time                                        expired, clock_untrusted, not_yet_valid
   12. the sequence number, then the job's id          replayed, conflict
   13. what this site can do                           unsupported
   14. room for the artifacts                          storage_full

What follows from a verdict:

    - Whoever signed an order may count on its verdict: it is final for these bytes, be it a refusal, since the issuer
      may have given the work to another site in the meantime. To try again is to sign another payload: whoever has a
      copy can spell its envelope anew (a blank, the order of the signatures). Only what was refused for its signers may
      come again with more of them.
    - A refusal binds nothing: it moves no replay mark and takes no job id.
    - `clock_untrusted` is the exception: nothing is decided, nothing is kept of it as a verdict, and the same bytes are
      judged anew once somebody vouches for the clock. If it is cancelled or declined meanwhile, that is its verdict,
      and its id stays taken.
    - `not_before` in the future is no reason to refuse. A site that is off line takes tomorrow's order today; the
      planner waits.
    - Only a `signed` verdict becomes an event. Bytes that nobody with a right to sign has signed are counted, so that
      garbage cannot fill the journal. Signatures of revoked keys are such: whoever stole the key could go on.

Deciding is all that happens here: an accepted order exists when the caller has committed it.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from edge.errors import FormatError
from edge.model.fields import time_text
from edge.model.order import JobOrder, parse_order
from edge.replay import ReplayWindow
from edge.timefloor import Now
from edge.trust.envelope import Envelope, PayloadType
from edge.trust.opening import (
    RefusalError,
    check_not_ahead,
    check_not_over,
    check_root_date,
    check_site,
    enough_signers,
    names_of,
    opened,
)
from edge.trust.root import Role, RootKey, TrustRoot

MAX_BYTES = 2**63  # no limit but the disk


class Reason(enum.StrEnum):
    """Why an order was refused. The last two were said by somebody before it was judged."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    BAD_TYPE = "bad_type"
    THRESHOLD = "threshold"
    REVOKED_KEY = "revoked_key"
    WRONG_SITE = "wrong_site"
    STALE_ROOT = "stale_root"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    CLOCK_UNTRUSTED = "clock_untrusted"
    REPLAYED = "replayed"
    CONFLICT = "conflict"
    UNSUPPORTED = "unsupported"
    STORAGE_FULL = "storage_full"
    CANCELLED = "cancelled"
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of some bytes.

    `reason` is None if and only if `accepted`. `detail` is a sentence for a person. `digest` is the SHA-256 of the
    whole envelope, in hexadecimal. `order` is there once it could be read (a stored verdict may come back without).
    `signers` are the names of the keys that count, sorted. `signed` says whether enough keys signed for the verdict to
    become an event; `repeated` that these bytes were judged before, so that nothing is to be done.
    """

    accepted: bool
    reason: Reason | None
    detail: str
    digest: str
    order: JobOrder | None = None
    signers: tuple[str, ...] = ()
    signed: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Claims:
    """What room is spoken for: what an order is accepted for, it must be able to get.

    `held` has the size of every file that an open order names, by hash, and `held_bytes` is their sum; `missing_bytes`
    are those of them that have not come yet. `idle_bytes` are files that are here and that no open order names: they
    give way.
    """

    held: Mapping[str, int] = field(default_factory=dict)
    held_bytes: int = 0
    missing_bytes: int = 0
    idle_bytes: int = 0


class Ledger(Protocol):
    """What the site remembers of earlier orders; answers from committed state only."""

    def verdict_of(self, digest: str) -> Verdict | None:
        """The verdict on the envelope with this digest, if it was a signed one."""
        ...

    def refusal_of(self, payload_digest: str) -> tuple[Reason, str] | None:
        """Reason and detail with which an order with this payload was refused, unless it was for its signers."""
        ...

    def window(self, issuer: str, series: str) -> ReplayWindow:
        """The numbers used in this series; `ReplayWindow()` if it has not begun."""
        ...

    def digest_of(self, job_id: str) -> str | None:
        """The digest of the accepted envelope that holds this job id."""
        ...

    def claims(self) -> Claims:
        """What the orders that were accepted and have not ended may still take."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a site knows when it judges.

    `free_bytes` less `reserve_bytes` is what the disk has for artifacts; all of them together may have `max_bytes`.
    """

    site: str
    root: TrustRoot
    processes: frozenset[str]
    free_bytes: int
    reserve_bytes: int
    ledger: Ledger
    max_bytes: int = MAX_BYTES


@dataclass(slots=True)
class _Case:
    """What is known so far about the bytes under judgement."""

    digest: str
    order: JobOrder | None = None
    signers: tuple[str, ...] = ()
    signed: bool = False

    def accepted(self, detail: str) -> Verdict:
        return Verdict(True, None, detail, self.digest, self.order, self.signers, self.signed)

    def refused(self, refusal: RefusalError) -> Verdict:
        reason = Reason(refusal.reason)
        return Verdict(False, reason, refusal.detail, self.digest, self.order, self.signers, self.signed)


def admit(raw: bytes, snapshot: Snapshot, now: Now) -> Verdict:
    """The verdict on `raw`. Raises nothing, whatever the bytes are."""
    case = _Case(hashlib.sha256(raw).hexdigest())
    try:
        envelope = opened(raw, PayloadType.JOB)
        known = snapshot.ledger.verdict_of(case.digest)
        if known is not None:
            return replace(known, repeated=True)
        order = _signed_order(envelope, snapshot.root, case)
        if refusal := snapshot.ledger.refusal_of(hashlib.sha256(envelope.payload).hexdigest()):
            raise RefusalError(*refusal)
        _check_addressee(order, snapshot, now)
        _check_time(order, now)
        _check_replay(order, snapshot.ledger)
        _check_supported(order, snapshot.processes)
        _check_room(order, snapshot)
    except RefusalError as refusal:
        return case.refused(refusal)
    return case.accepted(f"order {order.job_id} for {order.product} is accepted")


def verify_order(raw: bytes, root: TrustRoot) -> Verdict:
    """Whether `root` lets the signers of `raw` give this order: checks 1, 2, 3, 5, 6 and 7, of no particular site.

    Raises nothing.
    """
    case = _Case(hashlib.sha256(raw).hexdigest())
    try:
        order = _signed_order(opened(raw, PayloadType.JOB), root, case)
    except RefusalError as refusal:
        return case.refused(refusal)
    return case.accepted(f"order {order.job_id} is signed by {', '.join(case.signers)}")


def _signed_order(envelope: Envelope, root: TrustRoot, case: _Case) -> JobOrder:
    signers = enough_signers(envelope, root, Role.ISSUER)
    case.signed = True
    case.signers = names_of(signers)
    try:
        order = parse_order(envelope.payload)
    except FormatError as error:
        raise RefusalError(Reason.MALFORMED, str(error)) from error
    case.order = order
    _check_authority(order, signers, root)
    return order


def _check_authority(order: JobOrder, signers: frozenset[RootKey], root: TrustRoot) -> None:
    names = names_of(signers)
    if order.issuer not in names:
        raise RefusalError(Reason.THRESHOLD, f"the order is issued by {order.issuer}, but signed by {', '.join(names)}")
    threshold = root.roles[Role.ISSUER].threshold
    allowed = sum(key.may_sign(order) for key in signers)
    if allowed < threshold:
        processes = ", ".join(sorted(order.processes))
        raise RefusalError(
            Reason.THRESHOLD,
            f"{allowed} of the keys that signed may order {processes} at {order.site}, needs {threshold}",
        )


def _check_addressee(order: JobOrder, snapshot: Snapshot, now: Now) -> None:
    check_site("the order", order.site, snapshot.site)
    root = snapshot.root
    if order.root_version_min > root.version:
        raise RefusalError(
            Reason.STALE_ROOT,
            f"the order needs version {order.root_version_min} of the trust root, this site has {root.version}",
        )
    check_root_date(root, now)


def _check_time(order: JobOrder, now: Now) -> None:
    check_not_over("the order", order.expires_at, now)
    if not now.trusted:
        raise RefusalError(
            Reason.CLOCK_UNTRUSTED,
            f"the order expires at {time_text(order.expires_at)}, and nobody vouches for this site's clock",
        )
    check_not_ahead("the order", order.issued_at, now)


def _check_replay(order: JobOrder, ledger: Ledger) -> None:
    window = ledger.window(order.issuer, order.series)
    if not window.check(order.sequence):
        raise RefusalError(
            Reason.REPLAYED,
            f"number {order.sequence} of {order.issuer} was used before or is too old, the highest is {window.high}",
        )
    holder = ledger.digest_of(order.job_id)
    if holder is not None:
        raise RefusalError(Reason.CONFLICT, f"job {order.job_id} is known here as another order ({holder[:12]}…)")


def _check_supported(order: JobOrder, processes: frozenset[str]) -> None:
    missing = order.processes - processes
    if missing:
        raise RefusalError(Reason.UNSUPPORTED, f"no machine of this site does {', '.join(sorted(missing))}")
    if order.quantity > 1 or len(order.steps) > 1:
        raise RefusalError(
            Reason.UNSUPPORTED,
            f"the order has {len(order.steps)} steps and quantity {order.quantity}, "
            "this version does orders of one step and one part",
        )
    if any(step.quality or step.holds for step in order.steps):
        raise RefusalError(
            Reason.UNSUPPORTED, "the order asks for quality checks or hold points, which this version cannot do yet"
        )


def room_for(order: JobOrder, snapshot: Snapshot) -> tuple[int, int]:
    """How many bytes the artifacts of an order need beside what is here, and how many this site has room for."""
    claims = snapshot.ledger.claims()
    files = {artifact.sha256: artifact.size_bytes for artifact in order.artifacts.values()}
    # What another open order names already has its room. A file that is here and idle gives way, and so is new here.
    more = sum(size for sha256, size in files.items() if claims.held.get(sha256) != size)
    on_disk = snapshot.free_bytes - snapshot.reserve_bytes - claims.missing_bytes + claims.idle_bytes
    return more, max(0, min(on_disk, snapshot.max_bytes - claims.held_bytes))


def _check_room(order: JobOrder, snapshot: Snapshot) -> None:
    more, room = room_for(order, snapshot)
    # Even without a new file an order brings facts, and the reserve is for those of the orders that are here.
    if more > room or snapshot.free_bytes + snapshot.ledger.claims().idle_bytes <= snapshot.reserve_bytes:
        raise RefusalError(Reason.STORAGE_FULL, f"the artifacts need {more} bytes, this site has room for {room}")
