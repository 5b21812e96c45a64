"""Bundles (`.mfjob`): a signed order and its files, in one zip file.

Written by `edge.trust.bundle`. One is refused whole for its shape, by name; a wrong file in a good bundle is refused
alone, by name, and never stored.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge.artifacts.artifacts import SHA256, Artifacts
from edge.errors import ArtifactError, BundleError
from edge.trust.bundle import ENVELOPE_NAME

FOLDER_NAME = "sha256/"  # what `zip -r` adds for the folder itself

MAX_ENVELOPE_BYTES = 1024 * 1024
MAX_MEMBER_BYTES = 2**32 - 1  # bundles are plain zip files, without the 64-bit extensions at their end
MAX_MEMBERS = 1024
MAX_DIRECTORY_BYTES = 1024 * 1024  # of the zip's table of contents, which is read into memory whole

# The last record of a zip file without a comment: PKWARE APPNOTE 6.3.10, 4.3.16.
_END = struct.Struct("<4sHHHHIIH")
_END_SIGNATURE = b"PK\x05\x06"
_LOCATOR_SIGNATURE = b"PK\x06\x07"  # before it, in a 64-bit zip file: APPNOTE 4.3.15
_LOCATOR_BYTES = 20
_ENCRYPTED = 0x1  # general purpose bit 0: APPNOTE 4.4.4

_UNREADABLE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class Extraction:
    """What became of the wanted files of a bundle. `refused` has a sentence for each hash."""

    stored: tuple[str, ...]
    missing: tuple[str, ...]
    refused: Mapping[str, str]


class Bundle:
    """An open .mfjob file whose shape is good. What is in its files is checked when they are taken out."""

    def __init__(self, archive: zipfile.ZipFile, envelope: bytes, members: Mapping[str, zipfile.ZipInfo]) -> None:
        self._archive = archive
        self._members = members
        self.envelope = envelope

    @property
    def hashes(self) -> frozenset[str]:
        """The hashes that it says to have files for."""
        return frozenset(self._members)

    def extract(self, wanted: Mapping[str, int], artifacts: Artifacts) -> Extraction:
        """Store the files whose hashes are in `wanted` (with the size the order declares); all others stay inside."""
        stored, missing, refused = [], [], {}
        for sha256, size_bytes in wanted.items():
            member = self._members.get(sha256)
            if member is None:
                missing.append(sha256)
            elif member.file_size != size_bytes:
                refused[sha256] = f"artifact {sha256} has {member.file_size} bytes in the bundle, not {size_bytes}"
            else:
                try:
                    with self._archive.open(member) as stream:
                        artifacts.store(stream, sha256, size_bytes)
                    stored.append(sha256)
                except ArtifactError as error:
                    refused[sha256] = str(error)
                except _UNREADABLE as error:
                    refused[sha256] = f"artifact {sha256} cannot be unpacked: {error}"
        return Extraction(tuple(stored), tuple(missing), refused)


@contextlib.contextmanager
def read_bundle(path: Path) -> Iterator[Bundle]:
    """Open a bundle and check its shape.

    Raises:
        BundleError: names what is wrong.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            _check_end(path, file)
            archive = stack.enter_context(zipfile.ZipFile(file))
            members = _members(path, archive)
            with archive.open(ENVELOPE_NAME) as member:
                # With a size: without one, all that is packed in there is unpacked, and then cut to what it declares.
                envelope = member.read(MAX_ENVELOPE_BYTES + 1)
        except _UNREADABLE as error:
            raise BundleError(f"{path.name} cannot be read as a zip file: {_reason(error)}") from error
        yield Bundle(archive, envelope, members)


def _reason(error: BaseException) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _check_end(path: Path, file: BinaryIO) -> None:
    """Look at the zip's last record before anybody reads the table of contents that it points to into memory."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LOCATOR_BYTES - _END.size))
    tail = file.read()
    locator, record = tail[: -_END.size], tail[-_END.size :]
    if len(record) < _END.size or not record.startswith(_END_SIGNATURE):
        raise BundleError(f"{path.name} is not a zip file, or has been cut off or added to at its end")
    if locator.startswith(_LOCATOR_SIGNATURE):
        raise BundleError(f"{path.name} is a zip file of the 64-bit kind: a bundle has at most 4 GiB")
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack(record)
    if entries > MAX_MEMBERS or directory_bytes > MAX_DIRECTORY_BYTES:
        raise BundleError(f"{path.name} has {entries} members in {directory_bytes} bytes, allowed: {MAX_MEMBERS}")


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The artifact members by hash, after every member was looked at."""
    names: set[str] = set()
    members = {}
    for member in archive.infolist():
        name = member.orig_filename  # `filename` is what zipfile made of it
        problem = _problem(member, name)
        if name in names:
            problem = "is there twice"
        if problem:
            raise BundleError(f"{path.name}: member '{name[:100]}' {problem}")
        names.add(name)
        if name not in (ENVELOPE_NAME, FOLDER_NAME):
            members[name.removeprefix(FOLDER_NAME)] = member
    if ENVELOPE_NAME not in names:
        raise BundleError(f"{path.name} has no {ENVELOPE_NAME}")
    return members


def _problem(member: zipfile.ZipInfo, name: str) -> str:
    if name.startswith(("/", "\\")) or ":" in name or ".." in re.split(r"[/\\]", name):
        return "leads out of the bundle"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that bundles do not use (only stored and deflated)"
    if name == ENVELOPE_NAME:
        limit = MAX_ENVELOPE_BYTES
    elif name == FOLDER_NAME:
        limit = 0
    elif name.startswith(FOLDER_NAME) and SHA256.fullmatch(name.removeprefix(FOLDER_NAME)):
        limit = MAX_MEMBER_BYTES
    else:
        return f"does not belong into a bundle (only {ENVELOPE_NAME} and {FOLDER_NAME}<hash>)"
    return f"says it has {member.file_size} bytes, allowed: {limit}" if member.file_size > limit else ""
