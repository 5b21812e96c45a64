"""The contract of drivers, kept by the G-code driver against simulated printers as processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from edge.testing import Bench, DriverContract
from tests.helpers.printing import bench_machine, commands_in, program_of, write_program
from tests.helpers.sim import sim_printer

GOOD = [
    "M140 S60",
    "M104 S215",
    "G28",
    "M109 S215",
    *(f"G1 X{10 + i % 50} Y{20 + i % 30} E{i / 100:.2f} F6000" for i in range(150)),
    "M104 S0",
    "M140 S0",
]
LONG = ["G28", *(f"G1 X{10 + 90 * (i % 2)} F3000" for i in range(20_000))]
BAD = ["G28", "G1 X20", "G1 X500"]
SPEED = 500.0
"""So that LONG takes a minute, and what is queued when it is stopped a tenth of a second."""

MOVES = ("G0", "G1", "G2", "G3", "G28", "M112")


class _OverAWire(DriverContract):
    tcp: bool

    def bench(self, folder: Path) -> AbstractAsyncContextManager[Bench]:
        return self._bench(folder)

    @asynccontextmanager
    async def _bench(self, folder: Path) -> AsyncIterator[Bench]:
        with sim_printer(folder, tcp=self.tcp, speed=SPEED) as printer:
            from drivers.gcode import PLUGIN

            def acts() -> int:
                return sum(text.startswith(MOVES) for _, text in printer.commands())

            def unplug() -> None:
                printer.process.kill()
                printer.process.wait()

            good = write_program(folder / "good.gcode", GOOD)
            yield Bench(
                plugin=PLUGIN,
                machine=bench_machine(printer),
                good=good,
                long=write_program(folder / "long.gcode", LONG),
                bad=write_program(folder / "bad.gcode", BAD),
                expected=commands_in(good.path),
                carried_out=lambda: program_of(printer),
                acts=acts,
                unplug=unplug,
            )


class TestOverAPseudoTerminal(_OverAWire):
    tcp = False


class TestOverTcp(_OverAWire):
    tcp = True
