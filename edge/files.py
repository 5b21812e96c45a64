"""Writing small files so that a power cut leaves the old or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def replace_file(path: Path, content: bytes, *, mode: int = 0o644, owner: os.stat_result | None = None) -> None:
    """`path` has `content`, durably, when this returns; it is `owner`'s, if we may give it away.

    Raises:
        OSError: it has what it had before.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_new(temporary, content, mode=mode)
        if owner is not None:
            give(temporary, owner)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """`path` did not exist and has `content` now, with `mode` from its first moment on.

    Raises:
        FileExistsError: it did.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def give(path: Path, owner: os.stat_result) -> None:
    """`path` gets the user and the group of `owner`; only root may do this, for anybody else nothing is done."""
    with contextlib.suppress(PermissionError):
        os.chown(path, owner.st_uid, owner.st_gid)


def make_directory(path: Path, *, mode: int) -> None:
    """The directory `path` is there, durably; one that is there already keeps its mode. Raises `OSError`."""
    path.mkdir(mode=mode, exist_ok=True)
    sync_directory(path.parent)  # also if it is there: who made it may have been killed before this


def sync_directory(path: Path) -> None:
    """The names in the directory `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
