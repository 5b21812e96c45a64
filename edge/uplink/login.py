"""A user's name and password at the broker. The password is read for each connection, and kept by nobody here."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from edge.uplink.port import Trouble, UplinkError

MAX_BYTES = 65_535
"""Of a password: MQTT 5, section 3.1.3.6."""


@dataclass(frozen=True, slots=True)
class Login:
    """`password_file`: the password is its first line. It may be read by its owner alone."""

    user: str
    password_file: Path


def read_password(path: Path) -> str:
    """The first line of the file, without its end. Raises `UplinkError`, whose text never has any of it."""
    try:
        with path.open("rb") as file:
            # Asked of the open file, so that nobody can put another one in its place in between.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            line = file.readline(MAX_BYTES + 2).rstrip(b"\r\n")
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    if mode & 0o077:
        raise _unusable(path, f"others may read it (mode {mode:04o}); run: chmod 600 {path}")
    if not line:
        raise _unusable(path, "its first line is empty, and must be the password")
    if len(line) > MAX_BYTES:
        raise _unusable(path, f"its first line is longer than {MAX_BYTES} bytes")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise _unusable(path, "its first line is not UTF-8") from None


def _unusable(path: Path, why: str) -> UplinkError:
    return UplinkError(Trouble.CONFIGURATION, f"uplink.password_file: {path}: {why}")
