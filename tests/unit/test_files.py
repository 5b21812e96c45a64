"""Small files are replaced whole or not at all."""

from __future__ import annotations

import stat

import pytest

from edge.files import replace_file, write_new


def test_a_file_is_replaced_with_its_mode(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    replace_file(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_replacement_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "directory"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["directory"]


def test_a_new_file_is_never_an_old_one(tmp_path):
    path = tmp_path / "a.key"
    write_new(path, b"first", mode=0o600)
    with pytest.raises(FileExistsError):
        write_new(path, b"second", mode=0o600)
    assert path.read_bytes() == b"first"
