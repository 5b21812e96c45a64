"""Signed time: what a key holder says the time is, in answer to a nonce of the site. PURE.

The payload of an envelope of type `time`, a JSON object:

    at       RFC 3339 UTC with Z: the time when it was signed
    nonce    32 lower-case hexadecimal digits that the site has made up, so that yesterday's answer is of no use today

The checks, in this order; the first that fails gives the reason:

    1. size                                            too_large
    2. the envelope's form                             malformed
    3. its payload type                                bad_type
    4. distinct keys of the role `time` that signed    revoked_key, threshold
    5. the form of the payload                         malformed
    6. the nonce                                       replayed

An answer that enough keys of the role `operator` have signed as well may also lower the floor: no single role can.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import ValidationError

from edge.errors import FormatError
from edge.model.fields import StrictModel, UtcTime, matching, problem_of, time_text
from edge.trust.admit import Reason
from edge.trust.envelope import MAX_ENVELOPE_BYTES, Envelope, PayloadType
from edge.trust.opening import RefusalError, enough_signers, names_of, opened
from edge.trust.root import Role, TrustRoot

NONCE_BYTES = 16

Nonce = Annotated[str, matching(r"[0-9a-f]{32}", "32 lower-case hexadecimal digits")]


class TimeStatement(StrictModel):
    """What is signed."""

    at: UtcTime
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class TimeVerdict:
    """What becomes of a signed time.

    `reason` is None if and only if it is accepted; then `at` is there, and `nonce` is what it answers. `repairs`:
    operators have signed it too.
    `signed`: enough keys have signed for the verdict to become an event. `repeated` is never so: a nonce is used once.
    """

    reason: Reason | None
    detail: str
    digest: str
    at: datetime | None = None
    signers: tuple[str, ...] = ()
    signed: bool = False
    repairs: bool = False
    repeated: bool = False
    nonce: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it counts."""
        return self.reason is None


def time_bytes(at: datetime, nonce: str) -> bytes:
    """The bytes to sign. Raises `FormatError`."""
    try:
        statement = TimeStatement(at=at, nonce=nonce)
    except ValidationError as error:
        raise FormatError(problem_of(error, "the signed time")) from error
    return json.dumps(statement.model_dump(mode="json")).encode()


def judge_time(raw: bytes, root: TrustRoot, nonces: Collection[str]) -> TimeVerdict:
    """The verdict on `raw`, which must answer one of `nonces`. Raises nothing, whatever the bytes are."""
    digest = hashlib.sha256(raw).hexdigest()
    try:
        envelope = opened(raw, PayloadType.TIME)
        signers = names_of(enough_signers(envelope, root, Role.TIME))
    except RefusalError as refusal:
        return TimeVerdict(Reason(refusal.reason), refusal.detail, digest)
    try:
        statement = TimeStatement.read(envelope.payload, what="the signed time", max_bytes=MAX_ENVELOPE_BYTES)
    except FormatError as error:
        return TimeVerdict(Reason.MALFORMED, str(error), digest, signers=signers, signed=True)
    if statement.nonce not in nonces:
        detail = "it answers no nonce that this site waits for: each is good for one answer, for a day and until the"
        detail += " host is booted; `edge time show` has a new one"
        return TimeVerdict(Reason.REPLAYED, detail, digest, signers=signers, signed=True)
    told = f"it was {time_text(statement.at)} when {', '.join(signers)} signed"
    return TimeVerdict(
        None, told, digest, statement.at, signers, True, _operators_signed(envelope, root), nonce=statement.nonce
    )


def _operators_signed(envelope: Envelope, root: TrustRoot) -> bool:
    threshold = root.threshold(Role.OPERATOR)
    return threshold is not None and len(root.verify(Role.OPERATOR, envelope)) >= threshold
