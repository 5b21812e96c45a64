"""The contract of drivers, kept by the OPC UA drivers against a machine tool and a robot that they have never seen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from drivers import opcua as drivers_opcua
from edge.driver import Machine, Program
from edge.testing import Bench, DriverContract
from tests.helpers.nodeopcua import PASSWORD, USER, Peer, node_opcua
from tests.helpers.opcua_trust import trusting, way_in
from tests.helpers.printing import program_at

GOOD = ["G21", "G90", *(f"G1 X{10 + n % 50} Y{20 + n % 30} F6000" for n in range(150)), "M30"]
LONG = ["G21", "G90", *(f"G1 X{10 + 90 * (n % 2)} F3000" for n in range(50_000)), "M30"]
BLOCKS_PER_S = 40
"""So that GOOD takes four seconds, time enough to pause it three times on a slow host, and LONG many minutes."""

MACHINE_PATIENCE_S = 3.0
"""How long a machine that is unplugged is believed to come back."""

PROGRAM_MAX_BYTES = 2_000_000


def _trust(peer: Peer) -> None:
    assert peer.tell("trust")["trusted"]


def written(path: Path, blocks: list[str]) -> Program:
    path.write_text("".join(f"{block}\n" for block in blocks))
    return program_at(path)


@pytest.fixture(autouse=True, scope="module")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server takes seconds to start, so one with each kind of security serves all tests that leave it alive."""
    with contextlib.ExitStack() as stack:
        _OnNodeOpcua.start = lambda secure: stack.enter_context(
            node_opcua(tmp_path_factory.mktemp("peer"), *OPTIONS[secure], "--blocks-per-s", str(BLOCKS_PER_S))
        )
        yield
        _OnNodeOpcua.servers.clear()


OPTIONS = {True: ["--security", "encrypt", "--no-anonymous"], False: ["--security", "none"]}


class _OnNodeOpcua(DriverContract):
    start: ClassVar[Callable[[bool], Peer]]
    servers: ClassVar[dict[bool, Peer]] = {}
    plug_in: Any
    driver: str
    profile: str
    process: str
    machine: str
    browse_name: str
    secure: bool
    patience_s = 40.0

    def bench(self, folder: Path) -> AbstractAsyncContextManager[Bench]:
        return self._bench(folder)

    @asynccontextmanager
    async def _bench(self, folder: Path) -> AsyncIterator[Bench]:
        peer = self._fresh()
        machine = self._machine(peer, folder)
        if self.secure:
            await asyncio.to_thread(trusting, self.plug_in, machine, folder, lambda: _trust(peer))
        yield Bench(
            plugin=self.plug_in,
            machine=machine,
            good=written(folder / "good.nc", GOOD),
            long=written(folder / "long.nc", LONG),
            bad=self._bad(folder),
            expected=GOOD,
            carried_out=lambda: peer.carried_out(self.machine),
            acts=lambda: peer.acts(self.machine),
            unplug=peer.kill,
            process=self.process,
        )

    def _fresh(self) -> Peer:
        peer = self.servers.get(self.secure)
        if peer is None or peer.process.poll() is not None:
            peer = self.servers[self.secure] = type(self).start(self.secure)
        else:
            peer.tell("reset")
        return peer

    def _machine(self, peer: Peer, folder: Path) -> Machine[Any, Any]:
        connection: dict[str, Any] = {
            "endpoint": peer.endpoint,
            "security": "None",
            "machine": self.browse_name,
            "patience_s": MACHINE_PATIENCE_S,
        }
        if self.secure:
            connection |= way_in(folder, USER, PASSWORD)
        return Machine(
            "peer-1",
            self.driver,
            self.profile,
            (self.process,),
            self.plug_in.connection(**connection),
            self.plug_in.limits(**self._limits()),
        )

    def _limits(self) -> dict[str, Any]:
        return {"checked_by": "controller", "program_max_bytes": PROGRAM_MAX_BYTES}

    def _bad(self, folder: Path) -> Program:
        """Longer than the limit allows."""
        return written(folder / "bad.nc", ["G1 X1"] * (PROGRAM_MAX_BYTES // 6 + 1))


class _Mill(_OnNodeOpcua):
    plug_in = drivers_opcua.JOBCONTROL
    driver, profile, process = "opcua-jobcontrol", "machinery-jobs", "mill"
    machine, browse_name = "mill", "Mill"


class _Robot(_OnNodeOpcua):
    plug_in = drivers_opcua.ROBOTICS
    driver, profile, process = "opcua-robotics", "robotics-1.02", "robot.tend"
    machine, browse_name = "robot", "Robot"


@pytest.mark.slow
class TestMillInTheOpen(_Mill):
    secure = False


class TestMillSignedAndEncrypted(_Mill):
    secure = True


@pytest.mark.slow
class TestRobotInTheOpen(_Robot):
    secure = False


class TestRobotSignedAndEncrypted(_Robot):
    secure = True
