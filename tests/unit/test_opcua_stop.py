"""A stop brings the machine to rest; how the run ended is what the machine has said of it, whoever has heard that."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from drivers.opcua import ROBOTICS
from drivers.opcua.driver import OpcUaDriver
from drivers.opcua.equipment import Equipment, Phase, Seen, Work, ended
from drivers.opcua.session import Session
from drivers.opcua.start import LOOK_S
from edge.driver import Machine, MachineState, OutcomeKind, Run, Step, StillRunning
from edge.testing import RecordingContext
from tests.helpers.opcua import program_of

WAIT_S = 10.0


class Robot:
    """Once it is at rest it knows nothing of the run any more: its program was unloaded.

    It is the session as well, and tells no news to who watches the run before it is at rest.
    """

    def __init__(self) -> None:
        self.profile = SimpleNamespace(tells_progress=False)
        self.alarms = SimpleNamespace(open=(), take_in=self.catch_up)
        self.failure = self.link = None
        self.count, self.in_sight = 0, True
        self.watched, self.asked, self.at_rest = asyncio.Event(), False, asyncio.Event()

    async def look(self, _link: object, work: Work) -> Seen:
        if self.at_rest.is_set():
            return Seen(Phase.ABSENT)
        return ended(OutcomeKind.STOPPED, "stopped on request", {}) if self.asked else Seen(Phase.RUNNING)

    async def stop(self, _link: object, _work: Work, _seen: Seen) -> None:
        self.asked = True

    async def rest(self, _link: object, _work: Work) -> bool:
        self.at_rest.set()
        return True

    async def catch_up(self, _link: object) -> None: ...

    async def news(self, _count: int, within_s: float) -> None:
        if within_s == LOOK_S:
            self.watched.set()
            await self.at_rest.wait()
        await asyncio.sleep(0.01)

    def program_name(self, *_: object) -> tuple[str, bool]:
        return "edge-run-1", True

    def state(self, *_: object) -> tuple[MachineState, str]:
        return MachineState.EXECUTE, ""

    def busy_with(self, _work: object) -> str:
        return ""

    def begins(self) -> None: ...

    async def progress(self, _link: object) -> None: ...

    def tell(self) -> None: ...


async def test_a_run_whose_program_was_unloaded_by_its_stop_is_stopped_and_not_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.opcua.driver.GONE_S", 0.0)
    way = ROBOTICS.connection.model_validate({"endpoint": "opc.tcp://127.0.0.1:1/", "security": "None"})
    limits = ROBOTICS.limits.model_validate({"checked_by": "controller"})
    machine: Machine[Any, Any] = Machine("r-1", "opcua-robotics", "auto", ("robot.tend",), way, limits)
    context, robot = RecordingContext(tmp_path), Robot()
    driver = OpcUaDriver(machine, context, {})
    driver.session = driver.sight.session = cast(Session, robot)
    driver.sight._found = cast(Equipment, robot)
    run, program = Run("run-1", "job-1", 1, Step("step-1", "any"), 1), program_of(tmp_path / "x.txt", ["x"])
    running = asyncio.create_task(driver.execute(run, program, StillRunning()), name="run")
    await asyncio.wait_for(robot.watched.wait(), WAIT_S)
    await driver.stop(context.clock.mono_s() + WAIT_S)
    outcome = await asyncio.wait_for(running, WAIT_S)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.STOPPED, "stopped on request")
