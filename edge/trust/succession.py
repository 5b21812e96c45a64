"""How a site comes from one trust root to the next. Pure.

Rules:

    1. The next root has the next version and the same name, and is signed by the thresholds of both. Never back, never
       over a gap: several versions are given one after the other.
    2. The same payload again is no news, whoever has signed it meanwhile.
    3. The same version with another payload is a conflict: root keys have signed two things. It is refused, and if
       enough of the site's root keys have signed it, it is told until a newer root comes.
    4. Only what enough of the site's root keys have signed becomes an event; the rest is counted.

The checks, in this order; the first that fails gives the reason:

    1. size                                            too_large
    2. the envelope's form                             malformed
    3. its payload type                                bad_type
    4. the payload is that of the current root         accepted, repeated
    5. root keys of the current root that signed       threshold
    6. the root's form                                 malformed
    7. the version                                     rollback, conflict, gap
    8. the name, the new root's own threshold          not_successor
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass

from edge.errors import RootError
from edge.trust.envelope import PayloadType, parse
from edge.trust.opening import RefusalError, names_of, opened
from edge.trust.root import Role, TrustRoot, read_root, verify_successor


class RootReason(enum.StrEnum):
    """Why a trust root was refused."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    BAD_TYPE = "bad_type"
    THRESHOLD = "threshold"
    ROLLBACK = "rollback"
    CONFLICT = "conflict"
    GAP = "gap"
    NOT_SUCCESSOR = "not_successor"


@dataclass(frozen=True, slots=True)
class CurrentRoot:
    """The root that a site goes by. `payload_digest` is the SHA-256 of its signed payload, in hexadecimal."""

    root: TrustRoot
    payload_digest: str


@dataclass(frozen=True, slots=True)
class RootVerdict:
    """What becomes of some bytes; `reason` is None if and only if `accepted`.

    `digest` is the SHA-256 of the envelope, `payload_digest` that of the payload (empty if it was not read). `root` is
    there if it is accepted. `signed`: enough root keys of the current root have signed. `repeated`: it is the current
    root already.
    """

    accepted: bool
    reason: RootReason | None
    detail: str
    digest: str
    payload_digest: str = ""
    root: TrustRoot | None = None
    signers: tuple[str, ...] = ()
    signed: bool = False
    repeated: bool = False


def payload_digest(raw: bytes) -> str:
    """The SHA-256 of the payload of an envelope, in hexadecimal. Raises `EnvelopeError`."""
    return hashlib.sha256(parse(raw).payload).hexdigest()


def judge_root(raw: bytes, current: CurrentRoot) -> RootVerdict:
    """The verdict on `raw` at a site that goes by `current`. Raises nothing, whatever the bytes are."""
    digest = hashlib.sha256(raw).hexdigest()
    try:
        envelope = opened(raw, PayloadType.ROOT)
    except RefusalError as refusal:
        return RootVerdict(False, RootReason(refusal.reason), refusal.detail, digest)
    old = current.root
    of_payload = hashlib.sha256(envelope.payload).hexdigest()
    if of_payload == current.payload_digest:
        detail = f"version {old.version} of the trust root is in force here"
        return RootVerdict(True, None, detail, digest, of_payload, old, repeated=True)
    signers = old.verify(Role.ROOT, envelope)
    threshold = old.roles[Role.ROOT].threshold
    if len(signers) < threshold:
        detail = f"{len(signers)} valid signatures of the root keys of version {old.version}, needs {threshold}"
        return RootVerdict(False, RootReason.THRESHOLD, detail, digest, of_payload)
    names = names_of(signers)

    def refused(reason: RootReason, detail: str) -> RootVerdict:
        return RootVerdict(False, reason, detail, digest, of_payload, signers=names, signed=True)

    try:
        version = read_root(raw)[0].version
    except RootError as error:
        return refused(RootReason.MALFORMED, str(error))
    if version < old.version:
        return refused(
            RootReason.ROLLBACK, f"it has version {version}, this site is at {old.version} and never goes back"
        )
    if version == old.version:
        detail = f"it has version {version}, as the one in force here, and says something else: two were signed"
        return refused(RootReason.CONFLICT, detail)
    if version > old.version + 1:
        return refused(RootReason.GAP, f"it has version {version}, this site needs {old.version + 1} first")
    try:
        root = verify_successor(old, raw)
    except RootError as error:
        return refused(RootReason.NOT_SUCCESSOR, str(error))
    detail = f"version {root.version} of the trust root is accepted"
    return RootVerdict(True, None, detail, digest, of_payload, root, names, signed=True)
