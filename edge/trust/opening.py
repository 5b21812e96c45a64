"""What is asked of signed bytes at every door: their size, form and type, then enough keys of a role; and of orders and
commands alike, whether they are for this site, under a root in force, and of now. PURE.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from edge.errors import EnvelopeError
from edge.model.fields import time_text
from edge.model.strictjson import shown
from edge.timefloor import Now
from edge.trust.envelope import MAX_ENVELOPE_BYTES, Envelope, PayloadType, parse
from edge.trust.root import Role, RootKey, TrustRoot

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far an issuer's clock may be ahead of ours."""


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


def check_site(what: str, site: str, here: str) -> None:
    """Raises `RefusalError` wrong_site. `what` is ``the order`` or ``the command``, here and below."""
    if site != here:
        raise RefusalError("wrong_site", f"{what} is for site {site}, this is {here}")


def check_root_date(root: TrustRoot, now: Now) -> None:
    """Raises `RefusalError` stale_root for a root that has expired."""
    if root.expires_at is not None and now.passed(root.expires_at):
        detail = f"this site's trust root expired at {time_text(root.expires_at)}, it needs a newer one"
        raise RefusalError("stale_root", detail)


def check_not_over(what: str, expires_at: datetime, now: Now) -> None:
    """Raises `RefusalError` expired."""
    if now.passed(expires_at):
        raise RefusalError("expired", f"{what} expired at {time_text(expires_at)}, it is {time_text(now.wall)}")


def check_not_ahead(what: str, issued_at: datetime, now: Now) -> None:
    """Raises `RefusalError` not_yet_valid. Only while the clock is trusted."""
    if issued_at - now.wall > CLOCK_TOLERANCE:
        raise RefusalError("not_yet_valid", f"{what} is issued at {time_text(issued_at)}, it is {time_text(now.wall)}")


def names_of(keys: Iterable[RootKey]) -> tuple[str, ...]:
    """Whose keys they are, each name once, sorted."""
    return tuple(sorted({key.name for key in keys}))
