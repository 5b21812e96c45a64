"""Killed at every step from an order's acceptance to its program: the old state or the new one, never between."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from pathlib import Path

import pytest

from edge.artifacts.download import WRITE_BYTES
from tests.helpers.files import file_server
from tests.helpers.rig import rig
from tests.journal_kit import root_of_project

CONTENT = random.Random(3).randbytes(3 * WRITE_BYTES)


@pytest.mark.timeout(300)
async def test_killed_at_any_step_of_accept_and_fetch_the_site_has_the_old_or_the_new_state(tmp_path: Path) -> None:
    async with file_server(tmp_path) as server:
        url = server.put("body.gcode", CONTENT)
        async with rig(tmp_path) as made:
            sha256 = hashlib.sha256(CONTENT).hexdigest()
            file = {"sha256": sha256, "size_bytes": len(CONTENT), "media_type": "text/x.gcode", "sources": [url]}
            made.bundle(CONTENT, files=False, artifacts={"body.gcode": file}).rename(tmp_path / "order.mfjob")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.system.fetch_killed", tmp_path, server.ca, str(len(CONTENT))),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=root_of_project(),
        )
        said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    told = [line.split() for line in said.splitlines()]  # and what it says of the bytes that a power cut has spoilt
    *kills, (last, steps) = [words for words in told if words[0] in ("killed", "done")]
    assert last == "done", said
    assert len(kills) == int(steps), said
    assert len(kills) > 15
    assert any(asked.range for asked in server.asked), "some of them went on with a half file"
