"""One SQLite writer thread with group commit.

Rules:

    1. `write` returns only when what it wrote is on the disk: `synchronous=FULL`, and the COMMIT has returned.
    2. Whatever waits when the writer comes round shares one transaction, and so one fsync. Each function has its own
       savepoint: one that raises is rolled back alone, and its exception reaches its caller only.
    3. A queued function is carried out once, whether or not its caller still waits; a cancelled caller learns by
       looking. Cancelled before it was queued, it is not carried out.
    4. When the shared transaction itself fails, nothing of the group was kept and every caller of it gets the error.
       A full disk, or another program that holds the database, leaves the store usable: that passes. Any other error
       there latches: after a failed write or fsync nobody knows what the disk holds, so every later `write` raises it
       too, until the file is opened (and checked) again.
    5. The queue is bounded; who writes when it is full waits.
    6. One process at a time: an exclusive lock on a file beside the database.
    7. `after_commit` is part of the commit: nobody is told of what was written before it has returned, and what it
       raises is a fault of the disk as in rule 4, although the database has kept the group.
    8. The file is checked when it is opened. Who cannot wait for that with a large one leaves it to `check`, beside
       the writer.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeGuard, TypeVar

from edge.errors import CorruptJournalError, JournalError, NotNowError, StoreClosedError
from edge.files import sync_directory

T = TypeVar("T")

_log = logging.getLogger(__name__)

QUEUE_LIMIT = 256  # functions that wait for the writer; beyond that, callers wait
GROUP_LIMIT = 64  # functions in one transaction
BUSY_TIMEOUT_MS = 5_000  # a reader that recovers the log holds it for moments
JOURNAL_SIZE_LIMIT_BYTES = 16 * 1024 * 1024  # a log that grew once is cut back at the next checkpoint
FILE_MODE = 0o640  # the group may read: `edge status` with the daemon dead

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, *_DAMAGED}
_PASSING = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
_PRIMARY_CODE = 0xFF  # the rest of an extended result code is detail


class _Job(Generic[T]):
    """One queued function; as a context manager, its savepoint, which keeps the function's exception for its caller."""

    def __init__(self, fn: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None) -> None:
        self.fn = fn
        self.then = then
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.connection: sqlite3.Connection
        self.value: T
        self.error: BaseException | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        with self:
            self.value = self.fn(connection)

    def __enter__(self) -> None:
        self.connection.execute("SAVEPOINT job")

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> bool:
        if self.connection.in_transaction:
            if error is not None:
                self.connection.execute("ROLLBACK TO job")
            self.connection.execute("RELEASE job")
        self.error = error
        return True

    def settle(self) -> None:
        """In the event loop: hand the result over."""
        if self.error is None and self.then is not None:
            self.then(self.value)
        if self.future.cancelled():
            if self.error is not None:
                _log.error("a write failed after its caller had gone: %s", self.error)
        elif self.error is None:
            self.future.set_result(self.value)
        elif isinstance(self.error, StopIteration):  # no future takes one
            self.future.set_exception(RuntimeError(f"a write function raised {self.error!r}"))
        else:
            self.future.set_exception(self.error)


class Store:
    """The database at `path`; an async context manager. All methods belong to one event loop."""

    def __init__(self, path: Path, queue_limit: int = QUEUE_LIMIT, check_at_open_bytes: int | None = None) -> None:
        self.path = path
        self.checked = False
        """Whether the file was found sound since it was opened; a file of up to `check_at_open_bytes` is at once."""
        self._check_at_open_bytes = check_at_open_bytes
        self._slots = asyncio.Semaphore(queue_limit)
        self._jobs: collections.deque[_Job[Any]] = collections.deque()
        self._wake = threading.Condition()
        self._closing = False
        self._fault: JournalError | None = None
        self.commits = 0  # since it was opened; written by the writer alone
        self.trouble = ""
        """Why the newest transaction was not kept; empty if it was. Written by the writer alone."""
        self.after_commit: Callable[[sqlite3.Connection], None] = lambda connection: None
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._opened: asyncio.Future[None]
        self._ended: asyncio.Future[None]

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Take the lock, check the file (made if it is not there), start the writer.

        Raises:
            CorruptJournalError: the file is damaged or no database.
            JournalError: another process has it, or it cannot be opened.
        """
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, name=f"store {self.path.name}")
        self._thread.start()
        try:
            await self._opened
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Carry out what is queued, copy the log into the database, let go of the file. Idempotent."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.shield(self._ended)
            self._thread.join()

    async def check(self) -> None:
        """Check the file if `open` has left that out, beside the writer. Cancelling it ends it at once.

        Raises:
            CorruptJournalError: the file is damaged.
            JournalError: it cannot be read.
        """
        if self.checked:
            return
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)) as reader:
            checking = asyncio.create_task(asyncio.to_thread(_check, reader, self.path), name="check the database")
            try:
                await asyncio.shield(checking)
            except sqlite3.Error as error:
                raise _in_words(self.path, error) from error
            except asyncio.CancelledError:
                reader.interrupt()
                with contextlib.suppress(sqlite3.Error):
                    await checking
                raise
        self.checked = True

    async def write(self, fn: Callable[[sqlite3.Connection], T], then: Callable[[T], None] | None = None) -> T:
        """Run `fn` in the writer thread inside a savepoint; its value, once that is durable.

        `fn` must not begin or end a transaction. `then` is called in the event loop with the value once it is durable,
        even if the caller has gone.

        Raises:
            StoreClosedError: nothing was written.
            JournalError: the transaction failed; nothing was written.
            whatever `fn` raises; nothing was written.
        """
        await self._slots.acquire()
        job = _Job(fn, then)
        with self._wake:
            if self._closing:
                self._slots.release()
                raise StoreClosedError(f"{self.path} is closed")
            self._jobs.append(job)
            self._wake.notify()
        return await job.future

    # From here on: the writer thread.

    def _main(self) -> None:
        unsettled: list[_Job[Any]] = []
        try:
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(locked(self.path))
                    connection = stack.enter_context(contextlib.closing(_connect(self.path)))
                    if self._check_at_open_bytes is None or self.path.stat().st_size <= self._check_at_open_bytes:
                        _check(connection, self.path)
                        self.checked = True
                except (JournalError, sqlite3.Error, OSError) as error:
                    self._call(_set_exception, self._opened, _in_words(self.path, error))
                    return
                self._call(_set_result, self._opened)
                while group := self._take():
                    unsettled = group
                    self._commit(connection, group)
                    self._settle(group)
                    unsettled = []
                _checkpoint(connection)
        finally:
            # Normally nobody is left. After a bug in this class nobody may wait for ever.
            with self._wake:
                self._closing = True
                unsettled.extend(self._jobs)
                self._jobs.clear()
            ended = StoreClosedError(f"the writer of {self.path} has ended")
            for job in unsettled:
                job.error = _again(ended)
            self._settle(unsettled)
            self._call(_set_exception, self._opened, ended)
            self._call(_set_result, self._ended)

    def _take(self) -> list[_Job[Any]]:
        """What shares the next transaction; empty when the store closes and nothing is left."""
        with self._wake:
            self._wake.wait_for(lambda: self._jobs or self._closing)
            return [self._jobs.popleft() for _ in range(min(len(self._jobs), GROUP_LIMIT))]

    def _commit(self, connection: sqlite3.Connection, group: list[_Job[Any]]) -> None:
        fault = self._fault
        if fault is None:
            try:
                connection.execute("BEGIN IMMEDIATE")
                for job in group:
                    job.run(connection)
                    if _is_the_disk(job.error):
                        raise job.error
                    if not connection.in_transaction:
                        raise JournalError("a write function ended the transaction") from job.error
                connection.execute("COMMIT")
                self.commits += 1
                self.trouble = ""
                self._follow_up(connection, group)
                return
            except (JournalError, sqlite3.Error) as error:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):  # the error that counts is the first one
                        connection.execute("ROLLBACK")
                fault = _in_words(self.path, error)
                self.trouble = str(fault)
                if _code(error) not in _PASSING:
                    self._latch(fault)
        for job in group:
            job.error = _again(fault)

    def _follow_up(self, connection: sqlite3.Connection, group: list[_Job[Any]]) -> None:
        """What belongs to a commit that has returned. If it fails, nobody may act on what the database has kept."""
        try:
            self.after_commit(connection)
        except (JournalError, sqlite3.Error) as error:
            fault = _in_words(self.path, error)
            self._latch(fault)
            for job in group:
                job.error = _again(fault)

    def _latch(self, fault: JournalError) -> None:
        self._fault = fault
        self.trouble = f"{fault}; nothing more is written until a restart"
        _log.critical("%s", self.trouble)

    def _settle(self, group: list[_Job[Any]]) -> None:
        def settle() -> None:
            for job in group:
                self._slots.release()
                job.settle()

        self._call(settle)

    def _call(self, fn: Callable[..., None], *args: object) -> None:
        # The loop may be closed already, if nobody closed the store: then nobody waits either.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(fn, *args)


def _set_result(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _set_exception(future: asyncio.Future[None], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def lock_of(path: Path) -> Path:
    """The lock file of the database at `path`."""
    return path.with_name(path.name + ".lock")


@contextlib.contextmanager
def locked(path: Path, holder: str = "") -> Iterator[None]:
    """Hold the lock file, whose text is the holder's process id, and what it does if it is no daemon.

    Raises `JournalError` if somebody else has it.
    """
    lock = lock_of(path)
    with lock.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read(120).strip()
            raise JournalError(
                f"{path} is in use by another process{f' ({other})' if other else ''}; one daemon has it at a time"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}{f', {holder}' if holder else ''}\n")
        file.flush()
        yield


def _connect(path: Path) -> sqlite3.Connection:
    _prepare_file(path)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "auto_vacuum=INCREMENTAL",  # of a new file; an older one reuses its room, and gets no smaller
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "wal_autocheckpoint=1000",
            f"journal_size_limit={JOURNAL_SIZE_LIMIT_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `CorruptJournalError` if the file does not hold together."""
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise CorruptJournalError(f"{path} is damaged: {found}")


def _prepare_file(path: Path) -> None:
    """Make the file if it is not there, with its mode and its directory's group; make its name durable."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(file, FILE_MODE)
        with contextlib.suppress(PermissionError):  # not ours to give away: a setgid directory has done it already
            os.fchown(file, -1, path.parent.stat().st_gid)
    finally:
        os.close(file)
    sync_directory(path.parent)


def _checkpoint(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.Error as error:
        _log.warning("the log was not copied into the database (%s); it is complete and used at the next start", error)


def _is_the_disk(error: BaseException | None) -> TypeGuard[sqlite3.Error]:
    """Whether a function failed for a reason that the whole transaction shares."""
    return isinstance(error, sqlite3.Error) and _code(error) in _DISK


def _code(error: BaseException) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)  # absent where Python itself raises
    return code & _PRIMARY_CODE


def _in_words(path: Path, error: BaseException) -> JournalError:
    if isinstance(error, JournalError):
        return error
    if _code(error) == sqlite3.SQLITE_FULL:
        return NotNowError(f"{path} cannot grow, the disk is full; nothing of this was kept")
    if _code(error) == sqlite3.SQLITE_BUSY:
        return NotNowError(f"{path} is held by another program; nothing of this was kept")
    if _code(error) in _DAMAGED:
        return CorruptJournalError(f"{path} is damaged: {error}")
    if isinstance(error, OSError):
        return JournalError(f"{path} cannot be opened: {error.strerror}")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return JournalError(f"{path} cannot be written: {error} ({name}); nothing of this was kept")


def _again(fault: JournalError) -> JournalError:
    """The same error for one more caller, who gets a traceback of his own."""
    return type(fault)(*fault.args)
