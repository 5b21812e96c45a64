"""What links and servers do in the middle of a run, with simulated machines, in the open and behind secure channels."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from edge.driver import MachineState, StateSeen
from tests.helpers.opcua import SimServer, sim_server, until
from tests.helpers.opcua_faults import RIGHT_S, AlarmFaults, LinkFaults, TransferFaults, stopped, under_way
from tests.helpers.opcua_secure_faults import SpentKeys

pytestmark = pytest.mark.slow


class _Simulated:
    kind: str
    secure = False

    def served(self, folder: Path, speed: float) -> AbstractContextManager[SimServer]:
        pki = folder / "theirs" if self.secure else None
        return sim_server(self.kind, "--dir", str(folder / "programs"), speed=speed, pki=pki)


class TestSimulatedMill(_Simulated, LinkFaults, AlarmFaults, TransferFaults):
    kind = "cnc"


class TestSimulatedRobot(_Simulated, LinkFaults):
    kind = "robot"


class TestSecureSimulatedMill(_Simulated, SpentKeys, AlarmFaults, TransferFaults):
    kind = "cnc"
    secure = True

    async def test_a_server_that_trusts_us_no_more_says_so_and_goes_on_once_it_does(self, tmp_path: Path) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                ours = server.trusted.read_bytes()
                server.trusted.unlink()
                server.say("drop")
                await until(lambda: "does not trust our" in at.context.of_kind(StateSeen)[-1].detail, RIGHT_S)
                server.trusted.write_bytes(ours)
                await at.becomes(MachineState.EXECUTE)
                await stopped(at)


class TestSecureSimulatedRobot(_Simulated, SpentKeys):
    kind = "robot"
    secure = True
