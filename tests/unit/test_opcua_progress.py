"""How much of a program is done, as the machine says: which of its words are about this run, and which are not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from asyncua import ua

from drivers.opcua import JOBCONTROL
from drivers.opcua.client import Link
from drivers.opcua.mapped import MappedMachine
from drivers.opcua.profile import MappedProfile, candidates
from edge.driver import Machine
from edge.testing import RecordingContext

LINES = 60


class Controller:
    """It stands at a line of its program."""

    line = 0

    async def read(self, nodes: Sequence[ua.NodeId]) -> list[ua.DataValue]:
        found = {1: self.line, 2: LINES}
        return [ua.DataValue(ua.Variant(found[cast(int, node.Identifier)], ua.VariantType.Int32)) for node in nodes]


def mill(tmp_path: Path) -> MappedMachine:
    way = JOBCONTROL.connection.model_validate({"endpoint": "opc.tcp://127.0.0.1:1/", "security": "None"})
    limits = JOBCONTROL.limits.model_validate({"checked_by": "controller"})
    machine: Machine[Any, Any] = Machine("old-1", "opcua-jobcontrol", "example-mapped", ("mill",), way, limits)
    profile = cast(MappedProfile, candidates("example-mapped", ("opcua-mapped",), None)["example-mapped"])
    profile = profile.model_copy(update={"progress": "plc:Line", "progress_of": "plc:Lines"})
    made = MappedMachine(machine, "example-mapped", profile, RecordingContext(tmp_path))
    made._nodes = {"progress": ua.NodeId(1), "progress of": ua.NodeId(2)}
    return made


async def test_what_the_machine_still_says_of_the_run_before_is_no_progress_of_this_one(tmp_path: Path) -> None:
    machine, controller = mill(tmp_path), Controller()
    told: list[float | None] = []
    for _ in range(2):
        machine.begins()
        # What the subscription brings of the last run's end comes late, when this one has begun.
        machine.saw(machine._nodes["progress"], ua.DataValue(ua.Variant(LINES, ua.VariantType.Int32)))
        for line in (controller.line, 15, 30, LINES):
            controller.line = line
            told.append(await machine.progress(cast(Link, controller)))
    assert told == [None, 0.25, 0.5, 1.0] * 2
