"""The OctoPrint driver keeps its contract with the real OctoPrint and its virtual printer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from edge.testing import Bench, DriverContract
from tests.helpers.octoprint import machine_at
from tests.helpers.printing import commands_in, write_program
from tests.helpers.real_octoprint import RealOctoPrint

GOOD = ["M140 S60", "M104 S215", "G28", *(f"G1 X{10 + i % 50} Y20 F6000" for i in range(60)), "M104 S0", "M140 S0"]
LONG = ["G28", "M104 S200", *(f"G1 X{10 + 90 * (i % 2)} F3000" for i in range(20_000))]
BAD = ["G28", "G1 X20", "G1 X500"]
MOVES = ("G0", "G1", "G28", "M112")


def program_in(commands: list[str], expected: list[str]) -> list[str]:
    """Those of the last program, without what OctoPrint says at its end and to note where it stands at a pause."""
    begins = [i for i, command in enumerate(commands) if command == expected[0]]
    return [command for command in commands[begins[-1] :] if command not in ("M400", "M114")] if begins else []


class TestAtTheRealOctoPrint(DriverContract):
    patience_s = 40.0

    @pytest.fixture(autouse=True)
    def _server(self, octoprint: RealOctoPrint) -> None:
        self.server = octoprint

    def bench(self, folder: Path) -> AbstractAsyncContextManager[Bench]:
        return self._bench(folder)

    @asynccontextmanager
    async def _bench(self, folder: Path) -> AsyncIterator[Bench]:
        from drivers.octoprint import PLUGIN

        server = self.server
        server.fresh()
        before = len(server.sent())
        good = write_program(folder / "good.gcode", GOOD)
        expected = commands_in(good.path)
        yield Bench(
            plugin=PLUGIN,
            machine=machine_at(server.url, folder, patience_s=3.0),
            good=good,
            long=write_program(folder / "long.gcode", LONG),
            bad=write_program(folder / "bad.gcode", BAD),
            expected=expected,
            carried_out=lambda: program_in(server.sent()[before:], expected),
            acts=lambda: sum(command.startswith(MOVES) for command in server.sent()[before:]),
            unplug=server.kill,
        )
