"""What links and servers do in the middle of a run, with simulated machines."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.helpers.opcua import SimServer, sim_server
from tests.helpers.opcua_faults import LinkFaults, TransferFaults

pytestmark = pytest.mark.slow


class _Simulated:
    kind: str

    def served(self, folder: Path, speed: float) -> AbstractContextManager[SimServer]:
        return sim_server(self.kind, "--dir", str(folder / "programs"), speed=speed)


class TestSimulatedMill(_Simulated, LinkFaults, TransferFaults):
    kind = "cnc"


class TestSimulatedRobot(_Simulated, LinkFaults):
    kind = "robot"
