"""What links and servers do in the middle of a run, with machines on node-opcua."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from tests.helpers.nodeopcua import NodeMachine
from tests.helpers.opcua_faults import LinkFaults, TransferFaults


class _OnNodeOpcua:
    kind: str
    machine: ClassVar[NodeMachine]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """It takes seconds to start, so one serves all tests: each finds it as new."""
        cls.machine = NodeMachine(cls.kind, tmp_path_factory.mktemp("server"))
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


class TestMillOnNodeOpcua(_OnNodeOpcua, LinkFaults):
    kind = "cnc"


class TestRobotOnNodeOpcua(_OnNodeOpcua, LinkFaults):
    kind = "robot"


@pytest.mark.slow
class TestTransferToNodeOpcua(_OnNodeOpcua, TransferFaults):
    """Half a minute of it is the server's time-out for the session that was cut."""

    kind = "cnc"
