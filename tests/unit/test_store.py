"""One writer thread, group commit, and what its callers may rely on."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import CorruptJournalError, JournalError, StoreClosedError
from edge.journal.store import Store


def add(value: int) -> Callable[[sqlite3.Connection], int]:
    def fn(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?)", (value,))
        return value

    return fn


def all_rows(connection: sqlite3.Connection) -> list[int]:
    return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY rowid")]


def on_disk(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return all_rows(connection)
    finally:
        connection.close()


async def make_table(store: Store) -> None:
    await store.write(lambda connection: connection.execute("CREATE TABLE t (n INTEGER UNIQUE) STRICT").close())


async def held(store: Store) -> tuple[threading.Event, asyncio.Task[None]]:
    """Keep the writer busy until the event is set; whatever is written meanwhile waits."""
    reached, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def fn(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(reached.set)
        release.wait(60)

    task = asyncio.create_task(store.write(fn))
    await reached.wait()
    return release, task


async def start_all(*writes: object) -> None:
    """Let each task run up to where it waits."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_a_function_returns_comes_back_once_it_is_on_the_disk(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite") as store:
        await make_table(store)
        assert await store.write(add(7)) == 7
        assert on_disk(tmp_path / "s.sqlite") == [7]


async def test_the_file_is_opened_as_durability_needs_it(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite") as store:

        def pragma(name: str) -> Callable[[sqlite3.Connection], object]:
            return lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]

        assert await store.write(pragma("journal_mode")) == "wal"
        assert await store.write(pragma("synchronous")) == 2
        assert await store.write(pragma("foreign_keys")) == 1
        assert await store.write(pragma("busy_timeout")) > 0  # type: ignore[operator]
    assert stat.S_IMODE((tmp_path / "s.sqlite").stat().st_mode) == 0o640


async def test_a_function_that_raises_is_rolled_back_alone(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite") as store:
        await make_table(store)
        release, busy = await held(store)

        def bad(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT INTO t VALUES (99)")
            raise LookupError("no such thing")

        writes = [asyncio.create_task(store.write(fn)) for fn in (add(1), bad, add(2))]
        await start_all(*writes)
        release.set()
        results = await asyncio.gather(*writes, return_exceptions=True)
        await busy
        assert results[0::2] == [1, 2]
        assert isinstance(results[1], LookupError)
        assert on_disk(store.path) == [1, 2]


async def test_a_function_that_runs_out_of_an_iterator_does_not_hang_its_caller(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite") as store:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await store.write(lambda connection: next(iter(())))


async def test_those_who_wait_together_share_one_commit(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite") as store:
        await make_table(store)
        begun: list[str] = []
        await store.write(
            lambda connection: connection.set_trace_callback(
                lambda text: begun.append(text) if "BEGIN" in text else None
            )
        )
        release, busy = await held(store)
        writes = [asyncio.create_task(store.write(add(n))) for n in range(50)]
        await start_all(*writes)
        release.set()
        await asyncio.gather(busy, *writes)
        assert len(begun) == 2, "one for the function that kept the writer busy, one for all others"
        assert on_disk(store.path) == list(range(50))


async def test_a_cancelled_caller_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite") as store:
        await make_table(store)
        release, busy = await held(store)
        told: list[int] = []
        gone = asyncio.create_task(store.write(add(1), then=told.append))
        stays = asyncio.create_task(store.write(add(2)))
        await start_all(gone, stays)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        release.set()
        await asyncio.gather(busy, stays)
        assert on_disk(store.path) == [1, 2]
        assert told == [1]


async def test_an_error_whose_caller_has_gone_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Store(tmp_path / "s.sqlite") as store:
        await make_table(store)
        await store.write(add(1))
        release, busy = await held(store)
        gone = asyncio.create_task(store.write(add(1)))
        await start_all(gone)
        gone.cancel()
        release.set()
        await busy
    assert "UNIQUE" in caplog.text


async def test_who_writes_while_the_queue_is_full_waits(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite", queue_limit=2) as store:
        await make_table(store)
        release, busy = await held(store)
        queued = asyncio.create_task(store.write(add(1)))
        waiting = asyncio.create_task(store.write(add(2)))
        await start_all(queued, waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set()
        await asyncio.gather(busy, queued)
        assert await store.write(add(3)) == 3, "a caller that was cancelled in the queue gave its place back"
        assert on_disk(store.path) == [1, 3]


async def test_closing_carries_out_what_is_queued_and_refuses_what_comes_later(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite", queue_limit=2)
    async with store:
        await make_table(store)
        release, busy = await held(store)
        queued, late = (asyncio.create_task(store.write(add(n))) for n in (1, 2))
        await start_all(queued, late)
        closing = asyncio.create_task(store.close())
        await start_all()
        release.set()
        await asyncio.gather(busy, closing)
        assert await queued == 1
        with pytest.raises(StoreClosedError):
            await late
        with pytest.raises(StoreClosedError):
            await store.write(add(3))
    assert on_disk(store.path) == [1]
    assert not store.path.with_name("s.sqlite-wal").exists(), "the log was copied into the database"


async def test_a_second_daemon_is_told_who_has_the_file(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite"):
        with pytest.raises(JournalError, match=r"in use by another process \(\d+\)"):
            await Store(tmp_path / "s.sqlite").open()
    async with Store(tmp_path / "s.sqlite"):
        pass


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_bytes(b"hello" * 1000)
    with pytest.raises(CorruptJournalError, match="damaged"):
        await Store(tmp_path / "s.sqlite").open()


async def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with Store(path) as store:
        await make_table(store)
        await store.write(lambda connection: [add(n)(connection) for n in range(5000)])
    content = bytearray(path.read_bytes())
    content[-4096 * 3 :] = b"\xa5" * 4096 * 3
    path.write_bytes(content)
    with pytest.raises(CorruptJournalError, match="damaged"):
        await Store(path).open()


async def test_a_file_that_is_not_checked_when_it_is_opened_is_checked_beside_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with Store(path) as store:
        assert store.checked
        await make_table(store)
        await store.write(lambda connection: [add(n)(connection) for n in range(5000)])
    async with Store(path, check_at_open_bytes=path.stat().st_size) as store:
        assert store.checked
    async with Store(path, check_at_open_bytes=path.stat().st_size - 1) as store:
        assert not store.checked
        await asyncio.gather(store.check(), store.write(add(5001)))
        assert store.checked
    content = bytearray(path.read_bytes())
    content[-4096 * 3 :] = b"\xa5" * 4096 * 3
    path.write_bytes(content)
    async with Store(path, check_at_open_bytes=0) as store:
        with pytest.raises(CorruptJournalError, match="damaged"):
            await store.check()
        assert not store.checked


async def test_a_check_that_is_cancelled_ends_and_proves_nothing(tmp_path: Path, monkeypatch) -> None:
    begun = threading.Event()

    def long(connection: sqlite3.Connection, path: Path) -> None:
        connection.create_function("begun", 0, begun.set)
        endless = "WITH RECURSIVE n (i) AS (SELECT begun() UNION ALL SELECT 1 FROM n) SELECT count(*) FROM n"
        connection.execute(endless).fetchall()

    monkeypatch.setattr("edge.journal.store._check", long)
    async with Store(tmp_path / "s.sqlite", check_at_open_bytes=-1) as store:
        checking = asyncio.create_task(store.check(), name="test: check")
        assert await asyncio.to_thread(begun.wait, 20)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        assert not store.checked


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be opened: No such file"):
        await Store(tmp_path / "no" / "s.sqlite").open()


async def test_a_full_disk_fails_the_group_keeps_what_was_there_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite") as store:
        await make_table(store)
        await store.write(add(1))
        await store.write(lambda connection: connection.execute("PRAGMA max_page_count=3").fetchall())
        with pytest.raises(JournalError, match="disk is full"):
            await store.write(lambda connection: [add(n)(connection) for n in range(2, 5000)])
        assert store.trouble == f"{store.path} cannot grow, the disk is full; nothing of this was kept"
        assert await store.write(all_rows) == [1]
        assert store.trouble == ""
        await store.write(lambda connection: connection.execute("PRAGMA max_page_count=100000").fetchall())
        await store.write(add(2))
        assert on_disk(store.path) == [1, 2]


async def test_a_failed_write_latches_until_the_file_is_opened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.sqlite"
    async with Store(path) as store:
        await make_table(store)
        await store.write(add(1))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = path.with_name("s.sqlite-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, before[1]))
        try:
            with pytest.raises(JournalError, match="IOERR"):
                await store.write(lambda connection: [add(n)(connection) for n in range(2, 5000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, previous)
        with pytest.raises(JournalError, match="IOERR"):
            await store.write(add(2))
        assert store.trouble.endswith("nothing more is written until a restart")
    assert "until a restart" in caplog.text
    async with Store(path) as store:
        assert await store.write(all_rows) == [1]
        await store.write(add(2))


async def test_another_program_that_holds_the_database_passes(tmp_path: Path) -> None:
    async with Store(tmp_path / "s.sqlite") as store:
        await make_table(store)
        await store.write(lambda connection: connection.execute("PRAGMA busy_timeout=1").fetchall())
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="held by another program"):
            await store.write(add(1))
        other.close()
        assert await store.write(add(2)) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is meant to be seen
async def test_a_bug_in_the_writer_leaves_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError

    async with Store(tmp_path / "s.sqlite") as store:
        monkeypatch.setattr(store, "_commit", bug)
        with pytest.raises(StoreClosedError, match="has ended"):
            await store.write(add(1))
        with pytest.raises(StoreClosedError):
            await store.write(add(2))


async def test_a_reader_that_holds_the_log_at_the_end_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with Store(path) as store:
        await make_table(store)
        await store.write(add(1))
        reader = sqlite3.connect(path)
        reader.execute("BEGIN")
        assert all_rows(reader) == [1]
        await store.write(add(2))
        await store.write(lambda connection: connection.execute("PRAGMA busy_timeout=1").fetchall())
    reader.close()
    assert on_disk(path) == [1, 2]


async def test_a_function_that_ends_the_transaction_is_our_bug_and_latches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Store(tmp_path / "s.sqlite") as store:
        await make_table(store)
        with pytest.raises(JournalError, match="ended the transaction"):
            await store.write(lambda connection: connection.execute("COMMIT").close())
        with pytest.raises(JournalError, match="ended the transaction"):
            await store.write(add(1))
    assert "until a restart" in caplog.text


async def test_what_follows_a_commit_is_a_part_of_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is told before it has returned; if it fails, nobody acts, and nothing more is written."""
    path = tmp_path / "s.sqlite"
    async with Store(path) as store:
        await make_table(store)
        seen: list[list[int]] = []
        store.after_commit = lambda connection: seen.append(on_disk(path))
        assert await store.write(add(1)) == 1
        assert seen == [[1]]
        busy = sqlite3.OperationalError("database is locked")
        busy.sqlite_errorcode = sqlite3.SQLITE_BUSY  # no reason to try again: the group is kept

        def fail(connection: sqlite3.Connection) -> None:
            raise busy

        store.after_commit = fail
        with pytest.raises(JournalError, match="held by another program"):
            await store.write(add(2))
        store.after_commit = lambda connection: None
        with pytest.raises(JournalError, match="held by another program"):
            await store.write(add(3))
        assert "until a restart" in caplog.text
    assert on_disk(path) == [1, 2]
