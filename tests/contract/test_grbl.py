"""The contract of drivers, kept by the driver for grbl against simulated routers as processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from edge.testing import Bench, DriverContract
from tests.helpers.printing import commands_in, write_program
from tests.helpers.routing import bench_router, sim_router

GOOD = [
    "G90 G21",
    "G0 Z5",
    "M3 S12000",
    "G0 X10 Y10",
    "G1 Z-0.5 F300",
    *(f"X{10 + 50 * (i % 2)} Y{20 + i % 30} F400" for i in range(150)),
    "G2 X70 Y49 I5 J0",
    "G4 P0.1",
    "G0 Z5",
    "M5",
]
LONG = ["G0 Z5", *(f"G1 X{10 + 90 * (i % 2)} F3000" for i in range(20_000))]
BAD = ["G0 X0", "G0 X500"]
SPEED = 500.0
"""So that LONG takes a minute."""


class _OverAWire(DriverContract):
    tcp: bool
    plain: bool = False

    def bench(self, folder: Path) -> AbstractAsyncContextManager[Bench]:
        return self._bench(folder)

    @asynccontextmanager
    async def _bench(self, folder: Path) -> AsyncIterator[Bench]:
        with sim_router(folder, "--g54", "20,30,40", tcp=self.tcp, speed=SPEED, plain=self.plain) as router:
            from drivers.gcode import PLUGIN

            def unplug() -> None:
                router.process.kill()
                router.process.wait()

            good = write_program(folder / "good.nc", GOOD)
            yield Bench(
                plugin=PLUGIN,
                machine=bench_router(router),
                good=good,
                long=write_program(folder / "long.nc", LONG),
                bad=write_program(folder / "bad.nc", BAD),
                expected=commands_in(good.path),
                carried_out=router.program,
                acts=router.moves,
                unplug=unplug,
                process="mill",
            )


class TestPlainGrblOverAPseudoTerminal(_OverAWire):
    """grbl 1.1: a buffer of 128 bytes, lines of 79, and lines behind a refused one are carried out."""

    tcp = False
    plain = True


class TestGrblHalOverTcp(_OverAWire):
    tcp = True
