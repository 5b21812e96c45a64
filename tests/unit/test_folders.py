"""The directory that is cheap to write to and gone at boot: one for each site, and nobody else's."""

from __future__ import annotations

import argparse
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from edge import folders
from edge.cli.site import init
from edge.folders import make_runtime_dir


def test_every_site_has_one_of_its_own_and_finds_it_again(tmp_path: Path) -> None:
    place = {"RUNTIME_DIRECTORY": f"{tmp_path}:/elsewhere"}
    first, second = (make_runtime_dir(tmp_path / name, place) for name in ("a", "b"))
    assert first != second
    assert make_runtime_dir(tmp_path / "a", place) == first
    assert (first.parent, stat.S_IMODE(first.stat().st_mode)) == (tmp_path, 0o700)


def test_without_a_place_of_its_own_it_is_in_memory(tmp_path: Path) -> None:
    directory = make_runtime_dir(tmp_path, {})
    directory.rmdir()
    assert directory.parent == Path("/dev/shm")
    assert make_runtime_dir(tmp_path, {"XDG_RUNTIME_DIR": str(tmp_path)}).parent == tmp_path


def test_one_that_somebody_else_has_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"XDG_RUNTIME_DIR": str(tmp_path)}
    directory = make_runtime_dir(tmp_path, place)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="somebody else has made it"):
        make_runtime_dir(tmp_path, place)
    monkeypatch.undo()
    directory.rmdir()
    directory.symlink_to("/tmp")
    with pytest.raises(PermissionError):
        make_runtime_dir(tmp_path, place)


def test_a_directory_where_a_site_has_run_does_not_become_a_new_one(tmp_path: Path, capsys: Any) -> None:
    """Its journal is lost: nothing is to begin before somebody knows what was done."""
    asked = argparse.Namespace(dir=tmp_path, site="s1", json=True)
    assert init(asked) == 0
    assert folders.is_first_start(tmp_path / "state")
    folders.has_begun(tmp_path / "state")
    (tmp_path / "state" / "artifacts").mkdir()
    (tmp_path / "site.toml").unlink()
    assert init(asked) == 0
    assert not folders.is_first_start(tmp_path / "state")


def test_a_new_site_is_not_taken_for_the_one_that_was_here_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What watched over that one until it was removed goes with it."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    witness = make_runtime_dir(tmp_path / "state") / folders.HEAD
    witness.touch()
    assert init(argparse.Namespace(dir=tmp_path, site="s1", json=True)) == 0
    assert not witness.exists()
    folders.has_begun(tmp_path / "state")
    witness.touch()
    (tmp_path / "state" / "artifacts").mkdir()
    (tmp_path / "site.toml").unlink()
    assert init(argparse.Namespace(dir=tmp_path, site="s1", json=True)) == 0
    assert witness.exists(), "a site has run here"
