"""What links and servers do in the middle of a run, with machines on node-opcua."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from drivers.opcua.client import SESSION_S
from edge.driver import MachineState, StateSeen
from tests.helpers.nodeopcua import NodeMachine
from tests.helpers.opcua import until
from tests.helpers.opcua_faults import RIGHT_S, AlarmFaults, LinkFaults, TransferFaults, stopped, under_way
from tests.helpers.opcua_secure_faults import SecureFaults


class _OnNodeOpcua:
    kind: str
    secure = False
    machine: ClassVar[NodeMachine]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """It takes seconds to start, so one serves all tests: each finds it as new."""
        cls.machine = NodeMachine(cls.kind, tmp_path_factory.mktemp("server"), secure=cls.secure)
        try:
            yield
        finally:
            cls.machine.kill()

    @contextmanager
    def served(self, folder: Path, speed: float) -> Iterator[NodeMachine]:
        self.machine.as_new(2 * speed)
        try:
            yield self.machine
        finally:
            self.machine.thaw()


class TestMillOnNodeOpcua(_OnNodeOpcua, LinkFaults, AlarmFaults):
    kind = "cnc"


class TestRobotOnNodeOpcua(_OnNodeOpcua, LinkFaults):
    kind = "robot"


@pytest.mark.slow
class TestSecureMillOnNodeOpcua(_OnNodeOpcua, SecureFaults, AlarmFaults):
    kind = "cnc"
    secure = True


@pytest.mark.slow
class TestSecureRobotOnNodeOpcua(_OnNodeOpcua, SecureFaults):
    kind = "robot"
    secure = True


@pytest.mark.slow
class TestTransferToNodeOpcua(_OnNodeOpcua, TransferFaults):
    """Half a minute of it is the server's time-out for the session that was cut."""

    kind = "cnc"


@pytest.mark.slow
class TestSessionsOfNodeOpcua(_OnNodeOpcua):
    kind = "cnc"

    async def test_a_table_full_of_our_own_lost_session_is_shown_and_over_with_the_servers_time_out(
        self, tmp_path: Path
    ) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                server.peer.tell("sessions", limit=1)
                server.peer.tell("drop")
                await until(lambda: "no free session" in at.context.of_kind(StateSeen)[-1].detail, RIGHT_S)
                full_s = time.monotonic()
                await at.becomes(MachineState.EXECUTE, SESSION_S + RIGHT_S)
                assert time.monotonic() - full_s > SESSION_S / 2, "it was the time-out that made room"
                await stopped(at)


@pytest.mark.slow
class TestSessionsOfSecureNodeOpcua(TestSessionsOfNodeOpcua):
    secure = True


@pytest.mark.slow
class TestTransferToSecureNodeOpcua(TestTransferToNodeOpcua):
    secure = True
