"""Who may order work here: the site's trust root, and whether an accepted order still stands under it."""

from __future__ import annotations

from pathlib import Path

from edge.errors import ConfigError, TrustError
from edge.trust import TrustRoot, load_root, verify_order


class Authority:
    """The current trust root."""

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

    def refusal(self, envelope: bytes) -> str:
        """Why the order's signatures do not count under the current root; empty while they do."""
        verdict = verify_order(envelope, self.root)
        return "" if verdict.accepted else verdict.detail

    def known_refusal(self, digest: str, envelope: bytes) -> str:
        """`refusal`, remembered by envelope and version of the root. Good enough for planning, not for a claim."""
        key = (digest, self.root.version)
        if key not in self._verdicts:
            self._verdicts[key] = self.refusal(envelope)
        return self._verdicts[key]
