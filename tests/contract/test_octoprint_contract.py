"""The contract of drivers, kept by the OctoPrint driver against a simulated OctoPrint as a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from edge.testing import Bench, DriverContract
from tests.helpers.octoprint import SimOctoPrint, machine_at, sim_octoprint
from tests.helpers.printing import commands_in, write_program

GOOD = ["M140 S60", "M104 S215", "G28", *(f"G1 X{10 + i % 50} Y20 F6000" for i in range(60)), "M104 S0", "M140 S0"]
LONG = ["G28", "M104 S200", *(f"G1 X{10 + 90 * (i % 2)} F3000" for i in range(20_000))]
BAD = ["G28", "G1 X20", "G1 X500"]
MOVES = ("G0", "G1", "G28", "M112")


def last_program(server: SimOctoPrint) -> list[str]:
    """What was carried out since the last program of the suite began."""
    done = server.commands()
    begins = [i for i, command in enumerate(done) if command == GOOD[0]]
    return done[begins[-1] :] if begins else []


class TestAtOctoPrint(DriverContract):
    def bench(self, folder: Path) -> AbstractAsyncContextManager[Bench]:
        return self._bench(folder)

    @asynccontextmanager
    async def _bench(self, folder: Path) -> AsyncIterator[Bench]:
        from drivers.octoprint import PLUGIN

        with sim_octoprint(folder, "--rate=30") as server:
            good = write_program(folder / "good.gcode", GOOD)
            yield Bench(
                plugin=PLUGIN,
                machine=machine_at(server.url, folder, patience_s=3.0),
                good=good,
                long=write_program(folder / "long.gcode", LONG),
                bad=write_program(folder / "bad.gcode", BAD),
                expected=commands_in(good.path),
                carried_out=lambda: last_program(server),
                acts=lambda: sum(command.startswith(MOVES) for command in server.commands()),
                unplug=server.kill,
            )
