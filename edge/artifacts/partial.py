"""A download that is not done: its bytes so far, and a note of where they came from. Survives a restart.

Rules:

    1. The bytes are worth what the hash of the whole file says in the end, and nothing before. So nothing here needs
       to be durable, and a prefix may go on with another source's bytes: both promise the same content.
    2. When a source begins anew, the old bytes go before the new note is written: a note never vouches for bytes of
       another version.
"""

from __future__ import annotations

import json
import os
import secrets

from edge.artifacts.artifacts import Artifacts
from edge.errors import ArtifactError

MAX_NOTE_BYTES = 8192


class Partial:
    """The half file of one artifact. Blocking: call it from a thread."""

    def __init__(self, artifacts: Artifacts, sha256: str) -> None:
        self.path = artifacts.partial / sha256
        self._note = artifacts.partial / f"{sha256}.json"

    def size(self) -> int:
        """How many bytes are here."""
        try:
            return self.path.lstat().st_size
        except FileNotFoundError:
            return 0

    def etag_of(self, url: str) -> str:
        """The strong ETag under which `url` gave the bytes that are here; empty if it gave none, or they are mixed."""
        try:
            note = json.loads(self._note.read_bytes()[:MAX_NOTE_BYTES])
        except (OSError, ValueError):
            return ""  # without a note nothing is claimed of the bytes
        etag = note.get("etag") if isinstance(note, dict) and note.get("url") == url else ""
        return etag if isinstance(etag, str) else ""

    def begin(self, url: str, etag: str) -> None:
        """From the first byte on, what `url` gives now. Raises `ArtifactError` if the disk refuses."""
        self.discard()
        temporary = self._note.with_suffix(f".{secrets.token_hex(4)}")
        try:
            temporary.write_text(json.dumps({"url": url, "etag": etag}), encoding="utf-8")
            temporary.replace(self._note)
            self.path.touch()
        except OSError as error:
            raise ArtifactError(f"{self._note} cannot be written: {error.strerror}") from error

    def append(self, content: bytes) -> None:
        """Write on at the end. Raises `ArtifactError` if the disk refuses."""
        try:
            with self.path.open("ab") as file:
                file.write(content)
        except OSError as error:
            raise ArtifactError(f"{self.path} cannot be written: {error.strerror}") from error

    def sync(self) -> None:
        """Make what is here last over a power cut, as far as the disk likes: it saves work, and nothing depends on it.

        Raises `ArtifactError` if the disk refuses.
        """
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except FileNotFoundError:
            return
        except OSError as error:
            raise ArtifactError(f"{self.path} cannot be written: {error.strerror}") from error

    def discard(self) -> None:
        """Nothing is here any more. Raises `ArtifactError` if the disk refuses."""
        try:
            self._note.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise ArtifactError(f"{self.path} cannot be removed: {error.strerror}") from error
