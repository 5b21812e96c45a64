"""Killed, and the power cut, at every step between a run's beginning, its witnesses and its motion."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.journal_kit import root_of_project


@pytest.mark.timeout(300)
async def test_no_power_cut_holds_a_site_and_no_motion_is_forgotten(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.system.head_killed", tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=root_of_project(),
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    *kills, (last, steps) = [line.split() for line in said.splitlines() if line.startswith(("killed ", "done "))]
    assert (last, len(kills)) == ("done", int(steps)), said
    assert len(kills) > 60
