"""Bundles: an order and its programs in one file, for a network share or a stick.

A `.mfjob` file is a zip archive of exactly

    job.dsse.json       the envelope
    sha256/<hex>        one file for each artifact, named by its hash

written uncompressed and with a fixed date, so that the same order makes the same bytes. A reader refuses any other
name, a name that stands twice, and an entry that is larger than the order says.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from edge.errors import BundleError
from edge.files import sync_directory
from edge.model.order import MAX_ARTIFACTS, JobOrder
from edge.trust.envelope import MAX_ENVELOPE_BYTES

ENVELOPE_NAME = "job.dsse.json"
_ARTIFACT_NAME = re.compile(r"sha256/([0-9a-f]{64})")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip archive can say
_CHUNK_BYTES = 1024 * 1024
# What reading a damaged or hostile archive can raise, beside BadZipFile.
_ZIP_ERRORS = (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, EOFError, ValueError, zlib.error)
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def write_bundle(path: Path, envelope: bytes, files: Mapping[str, Path]) -> None:
    """Write `envelope` and `files` (by SHA-256) to `path`, replacing what is there in one step.

    Raises:
        BundleError: a file has another hash than its name, or something cannot be read or written.
    """

    def fill(archive: zipfile.ZipFile) -> None:
        for digest, file in sorted(files.items()):
            with file.open("rb") as source:
                _add(archive, digest, source, file)

    _write(path, envelope, fill)


def replace_envelope(path: Path, envelope: bytes) -> None:
    """The bundle `path` with another envelope over the same files: what a second key holder leaves behind.

    Raises:
        BundleError: it is no bundle, or a file in it has another hash than its name.
    """

    def fill(archive: zipfile.ZipFile) -> None:
        with zipfile.ZipFile(path) as old:
            for name in sorted(_entries(old).keys() - {ENVELOPE_NAME}):
                with old.open(name) as source:
                    _add(archive, name.removeprefix("sha256/"), source, path)

    _write(path, envelope, fill)


def _write(path: Path, envelope: bytes, fill: Callable[[zipfile.ZipFile], None]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(_entry(ENVELOPE_NAME), envelope)
                fill(archive)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error}") from error
    except _ZIP_ERRORS as error:
        raise BundleError(f"{path} is no bundle: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    return entry


def _add(archive: zipfile.ZipFile, digest: str, source: IO[bytes], origin: Path) -> None:
    seen = hashlib.sha256()
    with archive.open(_entry(f"sha256/{digest}"), "w", force_zip64=True) as target:
        while chunk := source.read(_CHUNK_BYTES):
            seen.update(chunk)
            target.write(chunk)
    if seen.hexdigest() != digest:
        raise BundleError(f"{origin} has changed since the order was made; make the order again")


def read_envelope(path: Path) -> bytes:
    """The envelope in the bundle `path`, not verified.

    Raises:
        BundleError: it is no bundle.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if ENVELOPE_NAME not in _entries(archive):
                raise BundleError(f"{path} is no bundle: it has no {ENVELOPE_NAME}")
            with archive.open(ENVELOPE_NAME) as entry:
                raw = entry.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except _ZIP_ERRORS as error:
        raise BundleError(f"{path} is no bundle: {error}") from error
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise BundleError(f"{path} is no bundle: its {ENVELOPE_NAME} has more than {MAX_ENVELOPE_BYTES} bytes")
    return raw


def check_files(path: Path, order: JobOrder) -> dict[str, str | None]:
    """For each artifact of `order`, what is wrong with it in the bundle `path`; None if nothing is.

    Raises:
        BundleError: it is no bundle, or carries what the order does not name.
    """
    wanted = {artifact.sha256: artifact.size_bytes for artifact in order.artifacts.values()}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive)
            for name in entries.keys() - {ENVELOPE_NAME} - {f"sha256/{digest}" for digest in wanted}:
                raise BundleError(f"{path} carries {name}, which the order does not name")
            problems = {
                digest: _problem(archive, entries.get(f"sha256/{digest}"), digest, size)
                for digest, size in wanted.items()
            }
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except _ZIP_ERRORS as error:
        raise BundleError(f"{path} is no bundle: {error}") from error
    return {name: problems[artifact.sha256] for name, artifact in order.artifacts.items()}


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > MAX_ARTIFACTS + 1:
        raise BundleError(f"{archive.filename} has {len(infos)} entries, at most {MAX_ARTIFACTS + 1} are allowed")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename
        if name in entries or (name != ENVELOPE_NAME and _ARTIFACT_NAME.fullmatch(name) is None):
            raise BundleError(
                f"{archive.filename} carries {name[:80]!r}, must carry {ENVELOPE_NAME} and sha256/<hash>, each once"
            )
        if info.compress_type not in _COMPRESSIONS:
            raise BundleError(f"{archive.filename} has {name} in a compression other than 'stored' and 'deflated'")
        entries[name] = info
    return entries


def _problem(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, digest: str, size_bytes: int) -> str | None:
    if info is None:
        return "is not in the bundle"
    seen, count = hashlib.sha256(), 0
    with archive.open(info) as entry:
        # Never more than the order says, whatever the archive claims or unpacks to.
        while count <= size_bytes and (chunk := entry.read(min(_CHUNK_BYTES, size_bytes + 1 - count))):
            seen.update(chunk)
            count += len(chunk)
    if count != size_bytes:
        more = "more than " if count > size_bytes else ""
        return f"has {more}{min(count, size_bytes)} bytes, must have {size_bytes}"
    if seen.hexdigest() != digest:
        return f"has the hash {seen.hexdigest()[:12]}…, must have {digest[:12]}…"
    return None
