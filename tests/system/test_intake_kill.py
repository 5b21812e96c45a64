"""Killed at every step of a root update, of parking and of a signed time: the old state or the new one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.journal_kit import root_of_project


@pytest.mark.timeout(300)
async def test_killed_at_any_step_a_site_takes_a_root_a_time_and_what_has_waited_once(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.system.intake_killed", tmp_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=root_of_project(),
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    *kills, (last, steps) = [line.split() for line in said.splitlines() if line.startswith(("killed ", "done "))]
    assert (last, len(kills)) == ("done", int(steps)), said
    assert len(kills) > 15
