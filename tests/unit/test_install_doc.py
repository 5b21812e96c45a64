"""docs/install.md: the unit is one that systemd can read, and lets the guard live."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOC = Path(__file__).parents[2] / "docs" / "install.md"


def unit() -> str:
    found = re.search(r"<!-- unit -->\n```ini\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_unit_lets_the_guard_live() -> None:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(unit())
    service = parser["Service"]
    assert (service["KillMode"], service["RuntimeDirectoryPreserve"]) == ("process", "yes")
    assert service["ExecStart"].endswith(" run")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "edge.service"
    file.write_text(unit().replace("/opt/edge/bin/edge", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
