"""Files named by what is in them.

Rules:

    1. A file is visible under its name only when it is whole, verified, and on the disk: written beside, hashed while
       written, fsynced, renamed, and the directory fsynced.
    2. Nothing is read past the size that was declared for it; not one byte more is written.
    3. Half files are swept away when the directory is opened for writing, except those of downloads
       (`edge.artifacts.partial`): these go on where they stopped.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, Self

from edge.errors import ArtifactError, WrongHashError
from edge.files import sync_directory

CHUNK_BYTES = 256 * 1024
FILE_MODE = 0o640

_FOLDER = re.compile(r"[0-9a-f]{2}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class Readable(Protocol):
    """Anything to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Artifacts:
    """The content-addressed directory. Blocking: call it from a thread."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.partial = directory / "partial"
        self._incoming = directory / "incoming"
        self._evicted = directory / "evicted"
        self._quarantine = directory / "quarantine"

    @classmethod
    def open(cls, directory: Path) -> Self:
        """For writing: makes the directory and sweeps away half files. One process at a time, as with the journal."""
        artifacts = cls(directory)
        try:
            for folder in (artifacts._incoming, artifacts._evicted, artifacts.partial):
                folder.mkdir(parents=True, exist_ok=True)
            sync_directory(directory)
            sync_directory(directory.parent)
            for left in (*artifacts._incoming.iterdir(), *artifacts._evicted.iterdir()):
                left.unlink()
        except OSError as error:
            raise ArtifactError(f"{directory} cannot be used: {error.strerror}") from error
        return artifacts

    def path(self, sha256: str) -> Path:
        """Where the file with this hash is, or would be."""
        if not SHA256.fullmatch(sha256):
            raise ArtifactError(f"'{sha256[:80]}' is not a SHA-256 in lower-case hexadecimal")
        return self.directory / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the file is there."""
        return self.path(sha256).is_file()

    def verify(self, sha256: str) -> int:
        """Hash the whole file again; its size in bytes.

        Raises:
            ArtifactError: it is not there, cannot be read, or is not what its name says.
        """
        path = self.path(sha256)
        try:
            with path.open("rb") as file:
                found, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        except FileNotFoundError:
            raise ArtifactError(f"artifact {sha256} is not here") from None
        except OSError as error:
            raise ArtifactError(f"artifact {sha256} cannot be read: {error.strerror}") from error
        if found != sha256:
            raise ArtifactError(f"artifact {sha256} has changed on the disk: its hash is {found}")
        return size

    def store(self, stream: Readable, sha256: str, size_bytes: int) -> Path:
        """Keep what `stream` gives under its hash; durable on return. Nothing is read if it is here and good.

        Raises:
            ArtifactError: longer or shorter than `size_bytes`, another hash, or the disk refused; nothing is kept.
        """
        path = self.path(sha256)
        if self._is_good(sha256):
            if path.stat().st_size != size_bytes:
                raise ArtifactError(f"artifact {sha256} has {path.stat().st_size} bytes, not {size_bytes}")
            return path
        half = self._incoming / secrets.token_hex(8)
        try:
            self._receive(stream, sha256, size_bytes, half)
            self._put(half, path)
        except OSError as error:
            raise ArtifactError(f"artifact {sha256} cannot be stored: {error.strerror}") from error
        finally:
            half.unlink(missing_ok=True)
        return path

    def adopt(self, half: Path, sha256: str, size_bytes: int) -> Path:
        """Keep a file that was written beside, by renaming it; durable on return. What is refused stays where it is.

        Raises:
            ArtifactError: it has not `size_bytes`, its hash is another one, or the disk refused.
        """
        path = self.path(sha256)
        try:
            with half.open("rb") as file:
                found, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
                if size != size_bytes:
                    raise ArtifactError(f"artifact {sha256} has {size} bytes, not {size_bytes}")
                if found != sha256:
                    raise WrongHashError(f"artifact {sha256} is not what was sent: its hash is {found}")
                os.fchmod(file.fileno(), FILE_MODE)
                os.fsync(file.fileno())
            self._put(half, path)
        except OSError as error:
            raise ArtifactError(f"artifact {sha256} cannot be stored: {error.strerror}") from error
        return path

    def _put(self, half: Path, path: Path) -> None:
        if not path.parent.is_dir():
            path.parent.mkdir()
            sync_directory(self.directory)
        half.rename(path)
        sync_directory(path.parent)

    def quarantine(self, sha256: str, wrong: Path | None = None, reason: str = "") -> None:
        """Set a damaged file aside, for a person to look at: it is not here any more. Idempotent.

        `wrong` is one that never was here: what a source gave instead of it. The reason is written beside it.

        Raises:
            ArtifactError: the disk refused.
        """
        try:
            self._quarantine.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                (wrong or self.path(sha256)).rename(self._quarantine / sha256)
            if reason:
                (self._quarantine / f"{sha256}.reason.txt").write_text(f"{reason}\n", encoding="utf-8")
        except OSError as error:
            raise ArtifactError(f"artifact {sha256} cannot be set aside: {error.strerror}") from error

    def on_disk(self) -> dict[str, int]:
        """The size of every file that is here, by hash."""
        found = {}
        for folder in self.directory.iterdir():
            if _FOLDER.fullmatch(folder.name) and folder.is_dir():
                for file in folder.iterdir():
                    if SHA256.fullmatch(file.name) and file.is_file():
                        found[file.name] = file.stat().st_size
        return found

    def evict(self, sha256: str) -> None:
        """Take a file away, quickly; `empty` frees its room. Idempotent. Raises `ArtifactError` if the disk refused."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self.path(sha256).rename(self._evicted / sha256)
        except OSError as error:
            raise ArtifactError(f"artifact {sha256} cannot be evicted: {error.strerror}") from error

    def halves(self) -> list[Path]:
        """The files of the downloads that are not done."""
        return list(self.partial.iterdir())

    def empty(self, halves: Iterable[Path], quarantine_bytes: int, quarantine_s: float, now_s: float) -> None:
        """Free the room of what was evicted, of downloads that nobody needs, and of an old or large quarantine.

        `now_s` is seconds since the epoch. Raises `ArtifactError`.
        """
        try:
            for gone in (*self._evicted.iterdir(), *halves):
                gone.unlink(missing_ok=True)
            prune(self._quarantine, quarantine_bytes, quarantine_s, now_s)
        except OSError as error:
            raise ArtifactError(f"{self.directory} cannot be tidied: {error.strerror}") from error

    def free_bytes(self) -> int:
        """What the file system has left for an ordinary user, with what half downloads have of their own room."""
        partial = 0
        for half in self.halves():
            with contextlib.suppress(FileNotFoundError):  # done meanwhile
                partial += half.stat().st_size
        return shutil.disk_usage(self.directory).free + partial

    def _is_good(self, sha256: str) -> bool:
        try:
            self.verify(sha256)
        except ArtifactError:
            return False
        return True

    def _receive(self, stream: Readable, sha256: str, size_bytes: int, half: Path) -> None:
        hasher, left = hashlib.sha256(), size_bytes
        with half.open("xb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            while chunk := stream.read(min(CHUNK_BYTES, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise ArtifactError(f"artifact {sha256} is larger than the {size_bytes} bytes declared for it")
                hasher.update(chunk)
                file.write(chunk)
            if left:
                raise ArtifactError(f"artifact {sha256} ends after {size_bytes - left} of {size_bytes} bytes")
            if hasher.hexdigest() != sha256:
                raise ArtifactError(f"artifact {sha256} is not what was sent: its hash is {hasher.hexdigest()}")
            file.flush()
            os.fsync(file.fileno())


def prune(directory: Path, max_bytes: int, max_age_s: float, now_s: float, max_files: int = 1000) -> None:
    """Remove the oldest files of a directory, until the rest is few, small and young enough. Raises `OSError`.

    Age is since the file was put there (its ctime: a rename sets it on every file system that matters here). A link in
    the place of the directory is not followed: not at the beginning, and not if somebody puts one there meanwhile.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    try:
        with os.scandir(handle) as entries:
            found = [(entry.stat(follow_symlinks=False), entry.name) for entry in entries]
        count = size = 0
        for seen, name in sorted(found, key=lambda item: item[0].st_ctime_ns, reverse=True):
            if stat.S_ISDIR(seen.st_mode):
                continue
            count, size = count + 1, size + seen.st_size
            if count > max_files or size > max_bytes or now_s - seen.st_ctime > max_age_s:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=handle)
                size -= seen.st_size
    finally:
        os.close(handle)
