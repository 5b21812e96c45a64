"""Recording a wire: nothing is missing, the files stay small, and a disk that fails costs the recording alone."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.driver import Wire
from edge.running import recording
from edge.running.recording import Recorder, nobody
from edge.transcript import parse
from tests.helpers.rig import DEADLINE_S

WIRE = Wire("/dev/ttyUSB0, 250000 baud")


def recorder_in(folder: Path, wire: Wire = WIRE) -> Recorder:
    return Recorder(folder, "prn-1", wire, SystemClock())


async def until(condition: Callable[[], object]) -> None:
    """Look again and again until it holds: nobody is told of what the thread has written."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def lines(path: Path) -> list[bytes]:
    """What went out, by the text of all parts."""
    return [line for part in parse(path.read_text()) for line in part.sent.splitlines()]


async def test_what_crosses_is_in_the_file_soon_and_all_of_it_at_the_end(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    path = tmp_path / "wire" / "prn-1.txt"
    async with recorder.at_work():
        record = recorder.begin()
        record(">", b"M105\n")
        record("<", b"ok T:20.0\no")
        await until(path.exists)
        await until(lambda: path.read_text().endswith("< o\\\n"))  # nobody waits for the rest for ever
        record("<", b"k")
    (part,) = parse(path.read_text())
    assert part.name.endswith("Z prn-1 /dev/ttyUSB0, 250000 baud")
    assert (part.sent, part.came) == (b"M105\n", b"ok T:20.0\nok")
    assert recorder.trouble == ""


async def test_each_connection_is_a_part_also_in_the_file_of_the_last_daemon(tmp_path: Path) -> None:
    for count in range(2):
        recorder = recorder_in(tmp_path)
        async with recorder.at_work():
            recorder.begin()
            for _ in range(2):
                recorder.begin()(">", b"M115 %d\n" % count)
    parts = parse(recorder.path.read_text())
    assert [part.sent for part in parts] == [b"M115 0\n"] * 2 + [b"M115 1\n"] * 2


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (b"== a\n> M105\n< o", b"== a\n> M105\n"),
        (b"== a\n> M105\n", b"== a\n> M105\n"),
        (b"\x00" * 9000, b"\x00" * 808),
    ],
)
async def test_the_beginning_of_a_line_that_a_killed_daemon_left_is_taken_away(
    tmp_path: Path, left: bytes, kept: bytes
) -> None:
    recorder = recorder_in(tmp_path)
    recorder.path.parent.mkdir()
    recorder.path.write_bytes(left)
    async with recorder.at_work():
        pass
    assert recorder.path.read_bytes() == kept


async def test_there_are_two_files_of_a_bounded_size_and_each_can_be_read_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recording, "FILE_BYTES", 4000)
    monkeypatch.setattr(recording, "BATCH_PIECES", 7)
    recorder = recorder_in(tmp_path)
    older = recorder.path.with_name("prn-1.txt.1")
    record = recorder.begin()
    sent = [b"N%d G1 X%d" % (number, number) for number in range(1500)]
    for line in sent[:1400]:
        record(">", line + b"\n")
    async with recorder.at_work():
        record = recorder.begin()
        for line in sent[1400:]:
            record(">", line + b"\n")
    assert sorted(path.name for path in recorder.path.parent.iterdir()) == ["prn-1.txt", "prn-1.txt.1"]
    for path in (older, recorder.path):
        assert path.stat().st_size <= 4000
        assert path.read_text().startswith("== ")
    kept = lines(older) + lines(recorder.path)
    assert kept == sent[-len(kept) :], "the newest lines, all of them, in order"
    assert older.stat().st_size > 3500
    first, *_ = parse(older.read_text())
    assert first.name.endswith(f"Z prn-1 {WIRE.place} (goes on)")


async def test_the_time_of_day_is_told_now_and_then_where_anything_crosses(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recording, "TIME_EVERY_S", 0.0)
    recorder = recorder_in(tmp_path)
    async with recorder.at_work():
        record = recorder.begin()
        record(">", b"M105\n")
        await until(recorder.path.exists)
        record("<", b"ok\n")
    assert re.fullmatch(r"== .*\n# 2\S+Z\n(~ \S+\n)?> M105\n# 2\S+Z\n~ \S+\n< ok\n", recorder.path.read_text())


async def test_a_file_that_somebody_takes_away_is_begun_anew(tmp_path: Path) -> None:
    recorder = recorder_in(tmp_path)
    async with recorder.at_work():
        record = recorder.begin()
        record(">", b"M105\n")
        await until(recorder.path.exists)
        recorder.path.unlink()
        record(">", b"M114\n")
    (part,) = parse(recorder.path.read_text())
    assert (part.sent, part.name.endswith("(goes on)")) == (b"M114\n", True)


def _full(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to("/dev/full")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_full, "No space left on device"),
        (lambda path: path.parent.write_text("in the way"), "File exists"),
        (lambda path: path.mkdir(parents=True), "Is a directory"),
    ],
)
async def test_a_disk_that_fails_ends_the_recording_and_is_said_once(tmp_path, caplog, spoil, why) -> None:
    recorder = recorder_in(tmp_path)
    spoil(recorder.path)
    with caplog.at_level(logging.WARNING):
        async with recorder.at_work():
            record = recorder.begin()
            record(">", b"M105\n")
            await until(lambda: recorder.trouble)
            record(">", b"M105\n")
            assert recorder.begin() is nobody
    assert recorder.trouble == f"what crosses the wire of prn-1 is not recorded any more: {recorder.path}: {why}"
    assert [said.getMessage() for said in caplog.records] == [recorder.trouble]
    assert not recorder._pieces, "nothing is kept for a file that is not written any more"


async def test_what_is_kept_free_for_the_journal_is_not_taken(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recording, "RESERVE_BYTES", 2**62)
    recorder = recorder_in(tmp_path)
    async with recorder.at_work():
        recorder.begin()(">", b"M105\n")
    assert f"bytes are free, and {2**62} are kept for the journal" in recorder.trouble
    assert not recorder.path.exists()


async def test_a_bug_ends_the_recording_and_nothing_else(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(recording.shutil, "disk_usage", lambda path: None)
    recorder = recorder_in(tmp_path)
    async with recorder.at_work():
        recorder.begin()(">", b"M105\n")
    assert "internal error (id " in recorder.trouble


async def test_for_a_disk_that_is_too_slow_bytes_are_missed_and_the_file_says_where(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recording, "HELD_PIECES", 6)
    recorder = recorder_in(tmp_path)
    record = recorder.begin()
    for number in range(3):  # nobody writes yet
        record(">", b"%d\n" % number)
    record("<", b"ok T:2")
    record("<", b"0.0 /0.0\nok T:2")  # what comes now is missed
    recorder.begin()
    async with recorder.at_work():
        await until(lambda: recorder.path.exists() and not recorder._deaf)
        record("<", b"17\n")
    text = recorder.path.read_text()
    gap = text.index("< ok T:2\\\n# bytes are missing here: the disk was too slow\n== ")
    assert text.index("< ok T:20.0 /0.0\n") < gap < text.index("< 17\n")
    assert recorder.trouble == ""
