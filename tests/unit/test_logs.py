"""The daemon's log at a terminal: one line a fact, and nothing in it that others could command the terminal with."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        with contextlib.suppress(OSError):  # what a full disk has not taken
            handler.close()
    root.setLevel(level)


def test_what_a_machine_says_commands_no_terminal(tmp_path: Path, capsys: Any) -> None:
    logs.set_up(tmp_path)
    logging.getLogger("edge.test").warning("prn-1 says: %s", "\033[2Jdone\r\nerror: all machines are safe")
    assert (
        capsys.readouterr().err
        == "warning: prn-1 says: \N{REPLACEMENT CHARACTER}[2Jdone error: all machines are safe\n"
    )


def test_a_disk_that_takes_no_line_is_told_once_and_without_a_traceback(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "log" / "edge.log"
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    logs.set_up(tmp_path)
    for words in ("first", "second"):
        logging.getLogger("edge.test").warning(words)
    told = f"error: {path} cannot be written, what follows is told here only: No space left on device"
    assert sorted(capsys.readouterr().err.splitlines()) == [told, "warning: first", "warning: second"]
