"""Who may order work here: the site's trust root, and whether an accepted order still stands under it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from edge.errors import ConfigError, TrustError
from edge.model.fields import time_text
from edge.trust import JobOrder, TrustRoot, load_root, verify_order

NOT_AS_SIGNED = "what the journal's tables say of the order is not what was signed; `edge verify` says more"


class Authority:
    """The trust root as it was when the daemon started."""

    def __init__(self, root: TrustRoot) -> None:
        self.root = root
        self._verdicts: dict[tuple[str, int], str] = {}

    @classmethod
    def load(cls, path: Path) -> Authority:
        """Read and verify the root that site.toml names. Raises `ConfigError`."""
        try:
            return cls(load_root(path.read_bytes()))
        except OSError as error:
            expected = "make one with `edge root new`, or copy your organisation's"
            raise ConfigError(path, "", f"the trust root cannot be read: {error.strerror}", expected) from error
        except TrustError as error:
            raise ConfigError(path, "", f"no usable trust root: {error}") from error

    def verified(self, envelope: bytes, now: datetime) -> JobOrder:
        """The order that was signed, if work on it may begin at `now`. Raises `TrustError`."""
        verdict = verify_order(envelope, self.root)
        if verdict.order is None or not verdict.accepted:
            raise TrustError(verdict.detail)
        if stale := self._stale(verdict.order, now):
            raise TrustError(stale)
        return verdict.order

    def refusal(self, envelope: bytes, order: JobOrder) -> str:
        """Why `order` is not what the signatures stand for under the current root; empty if it is. Not of the time."""
        verdict = verify_order(envelope, self.root)
        if not verdict.accepted:
            return verdict.detail
        return "" if verdict.order == order else NOT_AS_SIGNED

    def known_refusal(self, digest: str, envelope: bytes, order: JobOrder, now: datetime) -> str:
        """Why work on `order` may not begin at `now`; empty if it may.

        What the signatures say is remembered by envelope and version of the root: good enough for planning, not for a
        claim. The time is looked at anew.
        """
        key = (digest, self.root.version)
        if key not in self._verdicts:
            self._verdicts[key] = self.refusal(envelope, order)
        return self._verdicts[key] or self._stale(order, now)

    def _stale(self, order: JobOrder, now: datetime) -> str:
        """Why the root is too old for the order."""
        if order.root_version_min > self.root.version:
            return f"the order needs version {order.root_version_min} of the trust root, this is {self.root.version}"
        if self.root.expires_at is not None and now >= self.root.expires_at:
            return f"this site's trust root expired at {time_text(self.root.expires_at)}, it needs a newer one"
        return ""
