"""The daemon's log at a terminal: one line a fact, and nothing in it that others could command the terminal with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from edge import logs


def test_what_a_machine_says_commands_no_terminal(tmp_path: Path, capsys: Any) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        logs.set_up(tmp_path)
        logging.getLogger("edge.test").warning("prn-1 says: %s", "\033[2Jdone\r\nerror: all machines are safe")
    finally:
        for handler in [handler for handler in root.handlers if handler not in before]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
    assert (
        capsys.readouterr().err
        == "warning: prn-1 says: \N{REPLACEMENT CHARACTER}[2Jdone error: all machines are safe\n"
    )
