"""What is asked of signed bytes at every door: their size, form and type, then enough keys of a role. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from edge.errors import EnvelopeError
from edge.model.strictjson import shown
from edge.trust.envelope import MAX_ENVELOPE_BYTES, Envelope, PayloadType, parse
from edge.trust.root import Role, RootKey, TrustRoot


class RefusalError(Exception):
    """Ends the checks of one door, which makes a verdict of it; never leaves `edge.trust`.

    `reason` is a word of that door's own enumeration; those that are given here have the same words in each.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def opened(raw: bytes, kind: PayloadType) -> Envelope:
    """The envelope that `raw` is, with a payload of this kind; no signature is verified.

    Raises:
        RefusalError: too_large, malformed or bad_type.
    """
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise RefusalError("too_large", f"the envelope has {len(raw)} bytes, at most {MAX_ENVELOPE_BYTES} are allowed")
    try:
        envelope = parse(raw)
    except EnvelopeError as error:
        raise RefusalError("malformed", str(error)) from error
    if envelope.payload_type != kind:
        raise RefusalError("bad_type", f"the payload type is {shown(envelope.payload_type)}, must be '{kind}'")
    return envelope


def enough_signers(envelope: Envelope, root: TrustRoot, role: Role) -> frozenset[RootKey]:
    """The keys of `role` that signed and count, at least its threshold.

    Raises:
        RefusalError: revoked_key if revoked keys would have made up the number, else threshold.
    """
    threshold = root.threshold(role)
    if threshold is None:
        raise RefusalError("threshold", f"the trust root gives nobody the role '{role}'")
    signers = root.signers(role, envelope)
    valid = frozenset(key for key in signers if key.keyid not in root.revoked)
    if len(valid) >= threshold:
        return valid
    found = f"{len(valid)} valid signatures of the role '{role}', needs {threshold}"
    if len(signers) >= threshold:
        raise RefusalError("revoked_key", f"{found}; revoked: {', '.join(names_of(signers - valid))}")
    raise RefusalError("threshold", found)


def names_of(keys: Iterable[RootKey]) -> tuple[str, ...]:
    """Whose keys they are, each name once, sorted."""
    return tuple(sorted({key.name for key in keys}))
