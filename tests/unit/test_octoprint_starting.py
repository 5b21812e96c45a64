"""A print that OctoPrint has told about has begun, whatever became of OctoPrint since."""

from __future__ import annotations

import asyncio
from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from drivers.octoprint import api
from drivers.octoprint.going import Going
from drivers.octoprint.starting import BEGIN_S, Starting
from edge.driver import MachineError, Motion, NotConfirmedError

PATH = "edge/run-1.gcode"


class Killed:
    """An OctoPrint that is killed right after it was asked for a print, and comes back knowing nothing of it."""

    def __init__(self, going: Going, told_bytes: int) -> None:
        self.count = 0
        self.now_s = 0.0
        self._going, self._told_bytes = going, told_bytes
        self._was_cut = False

    def mono_s(self) -> float:
        return self.now_s

    async def start(self, path: str) -> None:
        assert path == PATH

    def check(self) -> None:
        """It is looked for, and not given up."""

    async def refresh(self) -> api.Job:
        if not self._was_cut:
            self._was_cut = True
            self._going.came_to(self._told_bytes)
            raise MachineError("the connection was cut", Motion.POSSIBLE)
        return api.Job("Operational")

    async def find(self, path: str) -> None:
        """Its file is there, without a record."""

    async def news(self, count: int, patience_s: float) -> None:
        self.now_s += patience_s
        await asyncio.sleep(0)


@pytest.mark.parametrize("told_bytes", [30, 0])
async def test_what_has_told_of_its_progress_has_begun(told_bytes: int) -> None:
    going = Going(PATH, "edge", array("Q", [10, 20, 30]))
    server: Any = Killed(going, told_bytes)
    context: Any = SimpleNamespace(clock=server)
    starting = Starting(1, server, server, context)
    if told_bytes:
        await starting._begin(going)
        assert server.now_s < BEGIN_S
    else:
        with pytest.raises(NotConfirmedError, match="has not begun it for 30 s"):
            await starting._begin(going)
