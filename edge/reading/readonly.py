"""The one moment of a journal that a reader sees, opened beside the daemon or without it, and never written to.

SQLite cannot always open a database with a write-ahead log where the reader may not write beside it (it needs the
index file that only a writer makes). Then a private copy of database and log is read, if they are small.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge.errors import EdgeError, JournalError, NoJournalError
from edge.journal import schema

COPY_LIMIT_BYTES = 256 * 1024 * 1024
COPY_ATTEMPTS = 5  # the daemon may be writing


@contextlib.contextmanager
def connected(state_dir: Path) -> Iterator[sqlite3.Connection]:
    """The journal in `state_dir`, as it is now; needs no permission to write.

    Raises:
        NoJournalError: there is none.
        EdgeError: it may not be read; says which permission is missing.
    """
    path = state_dir / schema.FILE_NAME
    _check_readable(path)
    with contextlib.ExitStack() as stack:
        try:
            connection = _open(path, stack)
        except sqlite3.Error as error:
            if not _may_not_write_beside(error):
                raise JournalError(f"{path} cannot be read: {error}") from error
            connection = _open_copy(path, stack)
        try:
            yield connection
        except sqlite3.Error as error:
            raise JournalError(f"{path} cannot be read: {error}") from error


def _open(path: Path, stack: contextlib.ExitStack, mode: str = "ro") -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = stack.enter_context(contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None)))
    connection.execute("BEGIN")
    # The snapshot begins with the first thing read.
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if problem := schema.problem(meta.get("format")):
        raise JournalError(f"{path} {problem}")
    return connection


def _may_not_write_beside(error: sqlite3.Error) -> bool:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)  # without the detail in the upper bits


def _open_copy(path: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    """Database and log, copied to where only we may look, and opened there."""
    import shutil  # rarely needed, and slow to load
    import tempfile

    log = path.with_name(path.name + "-wal")
    private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-")))
    for _ in range(COPY_ATTEMPTS):
        before = _look_at(path, log)
        size_bytes = sum(size for size, *_ in before)
        if size_bytes > COPY_LIMIT_BYTES:
            raise EdgeError(
                f"{path} cannot be read without write permission for {path.parent} while no daemon runs,"
                f" and is too large to copy ({size_bytes} bytes, allowed: {COPY_LIMIT_BYTES})"
            )
        for file in (path, log):
            (private / file.name).unlink(missing_ok=True)
            if file.exists():
                _check_readable(file)
                shutil.copyfile(file, private / file.name)
        if _look_at(path, log) == before:
            return _open(private / path.name, stack, mode="rw")
    raise EdgeError(f"{path} changes faster than it can be copied, and write permission for {path.parent} is missing")


def _look_at(*files: Path) -> list[tuple[int, int, int]]:
    """Size and times: the same before and after means that nobody wrote in between."""
    return [
        (found.st_size, found.st_mtime_ns, found.st_ino) for found in (file.stat() for file in files if file.exists())
    ]


def _check_readable(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        raise NoJournalError(f"there is no journal at {path}; it begins with the first `edge run`") from None
    except NotADirectoryError:
        raise EdgeError(f"{path.parent} is no directory") from None
    except PermissionError:
        raise EdgeError(f"permission to enter {path.parent} is missing; members of its group have it") from None
    if not os.access(path, os.R_OK):
        raise EdgeError(f"permission to read {path} is missing; members of its group have it")
