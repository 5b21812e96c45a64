"""The head file: one of two records is always whole, and says what was written last."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import JournalError
from edge.folders import HEAD
from edge.journal.headfile import SLOT_BYTES, SLOTS, HeadFile, Promise, parse
from tests.journal_kit import root_of_project

JOURNAL = "5f0c9e4a1d2b3c4d5e6f708192a3b4c5"
HASH = "6831690f5a94217465f1e4476c6983407f58d0c7071b69b628543e57e83edab3"
VECTOR = Promise(7, JOURNAL, 1, HASH, "b7c1d2e3-0000-4000-8000-000000000001", "2026-11-21T10:00:00.000Z")


def promise(seq: int) -> Promise:
    return Promise(0, JOURNAL, seq, HASH, "boot-1")


def reread(path: Path) -> HeadFile:
    file = HeadFile(path)
    file.read()
    return file


def said(path: Path) -> int | None:
    found = reread(path).promise
    return None if found is None else found.seq


def test_the_record_is_as_documented() -> None:
    text = (root_of_project() / "docs" / "journal.md").read_text()
    match = re.search(r"<!-- head vector -->\n```text\n(.*?)\n```", text, re.DOTALL)
    assert match is not None
    line = match[1].encode()
    record = line.ljust(SLOT_BYTES - 1) + b"\n"
    assert VECTOR.record() == record
    assert parse(record) == VECTOR


def test_what_was_written_last_is_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / HEAD
    file = HeadFile(path)
    file.read()
    assert (file.promise, file.problem) == (None, "")
    for seq in (3, 9, 4, 12):  # a new journal begins with small numbers
        file.write(promise(seq))
        assert said(path) == seq
        assert path.stat().st_size == SLOTS * SLOT_BYTES
    file.close()
    file.close()
    again = reread(path)
    again.write(promise(13))
    assert (said(path), path.stat().st_mode & 0o777) == (13, 0o640)
    again.close()


def test_a_write_that_is_cut_anywhere_leaves_the_old_or_the_new_promise(tmp_path: Path) -> None:
    path, cut = tmp_path / HEAD, tmp_path / "cut"
    file = HeadFile(path)
    for seq in range(1, 5):
        file.write(promise(seq))
    before = path.read_bytes()
    file.write(promise(5))
    after = path.read_bytes()
    file.close()
    changed = [at for at in range(len(after)) if before[at] != after[at]]
    for at in [0, *changed, *(place + 1 for place in changed), len(after)]:
        for half in (after[:at] + before[at:], before[:at] + after[at:]):
            cut.write_bytes(half)
            assert said(cut) in (4, 5), at
    cut.write_bytes(after)
    assert said(cut) == 5


@given(st.integers(0, SLOTS * SLOT_BYTES - 1), st.integers(1, 255))
def test_a_byte_that_changed_costs_one_record_at_most_and_changes_none(at: int, by: int) -> None:
    raw = bytearray(dataclasses.replace(VECTOR, number=8, seq=2).record() + VECTOR.record())
    raw[at] ^= by
    found = parse(bytes(raw))
    assert found is not None
    assert found.seq == (1 if at < SLOT_BYTES else 2)


@given(st.binary(max_size=SLOTS * SLOT_BYTES + 10))
def test_other_bytes_say_nothing(raw: bytes) -> None:
    assert parse(raw) is None


@pytest.mark.parametrize(
    "raw", [b"", b" " * SLOT_BYTES, VECTOR.record()[:-1], VECTOR.record().replace(b"v1 7 ", b"v1 8 "), b"\xff" * 9000]
)
def test_a_file_without_a_whole_record_is_damaged_and_not_missing(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / HEAD
    path.write_bytes(raw)
    file = reread(path)
    assert (file.promise, file.problem) == (None, "is damaged")
    file.write(promise(3))
    assert (said(path), file.problem) == (3, "")


def test_a_date_that_is_none_is_damage() -> None:
    assert parse(dataclasses.replace(VECTOR, floor="2026-13-41T10:00:00.000Z").record()) is None


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(VECTOR.record())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    for name, why in (("link", "symbolic links"), ("folder", "directory")):
        file = reread(tmp_path / name)
        assert file.promise is None
        assert why in file.problem


def test_a_disk_that_does_not_take_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gone" / HEAD
    path.parent.mkdir()
    file = HeadFile(path)
    file.write(promise(1))
    monkeypatch.setattr(os, "pwrite", lambda descriptor, raw, at: len(raw) - 1)
    with pytest.raises(JournalError, match="a part of it only"):
        file.write(promise(2))
    file.close()
    shutil.rmtree(path.parent)
    with pytest.raises(JournalError, match=r"journal\.head cannot be written: No such file"):
        file.write(promise(2))
