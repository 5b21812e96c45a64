"""Every trust root that the site went by, as a file of its own: a journal that is lost takes no revocation with it.

`N.dsse.json` is version N as it was signed. Nothing here is believed for lying here: what counts is its signatures, and
that it follows the version before (`edge.intake.authority`).
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from edge.errors import JournalError
from edge.files import make_directory, replace_file
from edge.trust.envelope import MAX_ENVELOPE_BYTES

FOLDER_NAME = "roots"

log = logging.getLogger("edge.authority")

_NAME = re.compile(r"([1-9][0-9]{0,8})\.dsse\.json")
_MODE = 0o640
_FOLDER_MODE = 0o750


class RootFolder:
    """The folder `path`, made when something is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, version: int) -> Path:
        """Where this version is, or would be."""
        return self.path / f"{version}.dsse.json"

    def versions(self) -> list[int]:
        """Those that have a file, by its name, in order. Raises `JournalError` if that cannot be looked up."""
        try:
            names = [path.name for path in self.path.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError(f"{self.path}, where trust roots are kept, cannot be read: {error.strerror}") from error
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match is not None)

    def read(self, version: int) -> bytes:
        """What the file has; of one that is too large more than is ever taken, of one that cannot be read nothing."""
        # Nonblocking: a pipe under this name must not keep the site from starting.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self.file(version), flags), "rb") as file:
                return file.read(MAX_ENVELOPE_BYTES + 1) or b""
        except OSError as error:
            log.error("%s cannot be read: %s", self.file(version), error.strerror)
            return b""

    def keep(self, version: int, envelope: bytes) -> None:
        """Have `envelope` as this version, durably.

        Raises:
            JournalError: it cannot be written.
        """
        try:
            make_directory(self.path, mode=_FOLDER_MODE)
            replace_file(self.file(version), envelope, mode=_MODE)
        except OSError as error:
            raise JournalError(f"{self.file(version)} cannot be written: {error.strerror}") from error
