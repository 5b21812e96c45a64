"""The contract of drivers, kept by the OPC UA drivers against simulated machines as processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from edge.testing import Bench, DriverContract
from tests.helpers.opcua import SimServer, machine_of, plugin_of, program_of, sim_server, trust_each_other

MILL_GOOD = ["G21 G90", *(f"G1 X{10 + i % 7} Y{10 + i % 5} F3000" for i in range(40)), "M30"]
MILL_LONG = ["G21 G90", *(f"G1 X{10 + 100 * (i % 2)} F3000" for i in range(2000)), "M30"]
MILL_BAD = ["G21 G90", "G1 X20 F3000", "G1 X900", "M30"]
MILL_LIMITS = {"checked_by": "edge", "x_mm": [0, 500], "y_mm": [0, 400], "z_mm": [-400, 0]}
ROBOT_GOOD = ["move printer", *("wait 0.5" for _ in range(20)), "move tray", "move home"]
ROBOT_LONG = ["move printer", "wait 0.2", *("wait 0.5" for _ in range(4000))]
ROBOT_BAD = ["move printer"] * 10_000
ROBOT_LIMITS = {"checked_by": "controller", "program_max_bytes": 100_000}
SPEED = 5.0
"""So that the good programs take one or two seconds, in which a pause finds them."""


@pytest.fixture(autouse=True, scope="module")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server takes seconds to start, so one of each kind and security serves all tests that leave it alive."""
    with contextlib.ExitStack() as stack:

        def start(kind: str, secure: bool) -> SimServer:
            pki = tmp_path_factory.mktemp("theirs") if secure else None
            return stack.enter_context(sim_server(kind, speed=SPEED, pki=pki))

        _Behind.start = start
        yield
        _Behind.servers.clear()


class _Behind(DriverContract):
    start: ClassVar[Callable[[str, bool], SimServer]]
    servers: ClassVar[dict[tuple[str, bool], SimServer]] = {}
    kind: str
    secure = False
    stillness_s = 0.3
    patience_s = 40.0

    def bench(self, folder: Path) -> AbstractAsyncContextManager[Bench]:
        return self._bench(folder)

    def _fresh(self) -> SimServer:
        which = (self.kind, self.secure)
        server = self.servers.get(which)
        if server is None or server.process.poll() is not None:
            server = self.servers[which] = type(self).start(*which)
        else:
            server.say("wipe")
        return server

    @asynccontextmanager
    async def _bench(self, folder: Path) -> AsyncIterator[Bench]:
        server, mill = self._fresh(), self.kind == "cnc"
        machine = machine_of(server, limits=MILL_LIMITS if mill else ROBOT_LIMITS)
        await asyncio.to_thread(trust_each_other, server, machine, folder)
        good = MILL_GOOD if mill else ROBOT_GOOD

        def acts() -> int:
            return sum(number != "!" for number, _ in server.log()) + server.starts()

        yield Bench(
            plugin=plugin_of(self.kind),
            machine=machine,
            good=program_of(folder / "good.nc", good),
            long=program_of(folder / "long.nc", MILL_LONG if mill else ROBOT_LONG),
            bad=program_of(folder / "bad.nc", MILL_BAD if mill else ROBOT_BAD),
            expected=good,
            carried_out=server.instructions,
            acts=acts,
            unplug=server.kill,
            process="mill" if mill else "robot.tend",
        )


class TestMill(_Behind):
    kind = "cnc"


@pytest.mark.slow  # every commit has it at node-opcua: `make peers`
class TestRobot(_Behind):
    kind = "robot"


@pytest.mark.slow
class TestSecureMill(_Behind):
    kind = "cnc"
    secure = True


@pytest.mark.slow
class TestSecureRobot(_Behind):
    kind = "robot"
    secure = True
