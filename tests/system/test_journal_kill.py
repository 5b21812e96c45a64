"""Kill -9, power cuts and full disks: the journal has the old or the new state, and all that was acknowledged."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from tests import second_verifier
from tests.journal_kit import SITE, accepted, began, ended, online, order, root_of_project, step, ticking
from tests.system.journal_writer import WORKERS

KILLS = 20

# The write-ahead log: a header, then frames of a header and a page (SQLite file format, section 4.1).
LOG_HEADER_BYTES, FRAME_HEADER_BYTES, PAGE_BYTES = 32, 24, 4096
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES


def write_until(path: Path, prefix: str, acknowledgements: int | None, *limit: str) -> list[list[str]]:
    """What a writer acknowledged before it was killed after so many acknowledgements, or ended by itself."""
    command = [sys.executable, "-m", "tests.system.journal_writer", str(path), prefix, *limit]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root_of_project()) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.split(" ", 2))
            if len(lines) == acknowledgements:
                process.kill()  # goes on reading: what it said before it died was acknowledged too
    return [line for line in lines if len(line) == 3 and line[2].endswith("\n")]


async def check(path: Path, acknowledged: list[list[str]]) -> int:
    """Everything acknowledged is there; the newest seq."""
    checkpoints: dict[str, int] = {}
    async with Journal.open(path, SITE, ticking()) as journal:
        hashes = dict(await journal.transact(_hashes))
        for what, name, value in acknowledged:
            if what == "event":
                assert hashes[int(name)] == value.strip()
            else:
                checkpoints[name] = int(value)
        for run_id, value in checkpoints.items():
            kept = await journal.checkpoint_of(run_id)
            assert kept in (value, value + 1), "what was acknowledged, or the one that was on its way"
        report = await journal.verify()
        assert report.problems == ()
        assert second_verifier.verify(path) == (journal.last_seq, "")
        return journal.last_seq


def _hashes(transaction: Transaction) -> list[tuple[int, str]]:
    return transaction.connection.execute("SELECT seq, hash FROM events").fetchall()


@pytest.mark.timeout(180)
async def test_a_writer_killed_at_any_moment_leaves_all_that_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    moments = random.Random(20261121)
    newest = 0
    for number in range(KILLS):
        acknowledged = write_until(path, f"k{number}", moments.randint(1, 250))
        seqs = [int(name) for what, name, _ in acknowledged if what == "event"]
        last = await check(path, acknowledged)
        assert last >= max(seqs, default=newest)
        # Each worker has at most one transaction on its way, of at most two events.
        assert last - max(seqs, default=newest) <= 2 * WORKERS
        newest = last
    assert newest > KILLS


async def test_a_writer_that_runs_into_a_full_disk_says_so_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    *acknowledged, (failed, *words) = write_until(path, "full", None, str(1024 * 1024))
    assert failed == "failed"
    assert "cannot be written" in " ".join(words)
    assert len(acknowledged) > 10
    await check(path, acknowledged)


# Power cuts


def copy_to(source: Path, target: Path, log: bytes | None = None, database: bytes | None = None) -> Path:
    """The two files as a power cut would leave them; the index beside them is never on the disk."""
    target.mkdir()
    path = target / source.name
    path.write_bytes(source.read_bytes() if database is None else database)
    path.with_name(path.name + "-wal").write_bytes(log_of(source).read_bytes() if log is None else log)
    return path


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


async def last_seq_of(path: Path) -> int:
    async with Journal.open(path, SITE, ticking()) as journal:
        report = await journal.verify()
        assert report.problems == ()
        return journal.last_seq


def places(before: int, after: int) -> list[int]:
    """Every kind of place in the frames between two sizes of the log."""
    found = {before, after, after - 1}
    for frame in range(before, after, FRAME_BYTES):
        found |= {frame + 1, frame + 8, frame + FRAME_HEADER_BYTES, frame + FRAME_HEADER_BYTES + 1, frame + FRAME_BYTES}
        found |= {frame + FRAME_HEADER_BYTES + 512 * sector for sector in range(1, 8)}
    return sorted(place for place in found if place <= after)


async def test_a_power_cut_while_a_commit_is_written_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    async with Journal.open(path, SITE, ticking()) as journal:
        await journal.record([accepted(order(quantity=20)), online()])
        before = log_of(path).stat().st_size
        assert (before - LOG_HEADER_BYTES) % FRAME_BYTES == 0
        await journal.record([began(), ended("run-1", "SUCCEEDED")])
        log = log_of(path).read_bytes()
        assert len(log) > before + FRAME_BYTES, "a commit of several frames"
        for number, place in enumerate(places(before, len(log))):
            cut_off = copy_to(path, tmp_path / f"cut-{number}", log[:place])
            assert await last_seq_of(cut_off) == (4 if place == len(log) else 2), place
            unwritten = log[:place] + bytes(len(log) - place)  # the size reached the disk, the content did not
            zeroed = copy_to(path, tmp_path / f"zero-{number}", unwritten)
            assert await last_seq_of(zeroed) in ((4,) if place == len(log) else (2, 4)), place
            shutil.rmtree(cut_off.parent)
            shutil.rmtree(zeroed.parent)


async def test_a_power_cut_in_the_middle_of_a_transaction_leaves_the_old_state(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    async with Journal.open(path, SITE, ticking()) as journal:
        await journal.record([online()])

        def cut(transaction: Transaction) -> Path:
            transaction.connection.execute("PRAGMA cache_size=10")  # pages go to the log before the commit
            steps = [step(f"s{number}") for number in range(200)]
            transaction.record(accepted(order(steps=steps, quantity=20)))
            return copy_to(path, tmp_path / "cut")

        before = log_of(path).stat().st_size
        copied = await journal.transact(cut)
        assert log_of(copied).stat().st_size > before
    assert await last_seq_of(copied) == 1
    assert await last_seq_of(path) == 2


async def test_a_power_cut_while_the_log_is_copied_into_the_database_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    async with Journal.open(path, SITE, ticking()) as journal:
        await journal.record([online()])
        for number in range(40):
            await journal.record([accepted(order(f"job-{number}", quantity=20))])
        log, old = log_of(path).read_bytes(), path.read_bytes()
    new = path.read_bytes()
    assert len(new) > len(old)
    moments = random.Random(7)
    for number in range(12):
        pages = [
            (new if moments.random() < 0.5 else old.ljust(len(new), b"\0"))[at : at + PAGE_BYTES]
            for at in range(0, len(new), PAGE_BYTES)
        ]
        half = copy_to(path, tmp_path / f"half-{number}", log, b"".join(pages))
        assert await last_seq_of(half) == 41


async def test_copies_taken_after_each_acknowledgement_have_it(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    async with Journal.open(path, SITE, ticking()) as journal:
        for number in range(60):
            (event,) = await journal.record([accepted(order(f"job-{number}", quantity=100))])
            if number % 6 == 0:
                copied = copy_to(path, tmp_path / f"copy-{number}")
                assert await last_seq_of(copied) == event.seq
        assert path.stat().st_size > PAGE_BYTES, "the log was copied into the database at least once meanwhile"
