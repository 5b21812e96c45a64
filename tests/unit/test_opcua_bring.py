"""A pause or a resume is asked for until it is seen; what comes of it is told in words."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from drivers.opcua import JOBCONTROL
from drivers.opcua.driver import OpcUaDriver
from drivers.opcua.equipment import Phase, Seen, Work, ended
from drivers.opcua.session import Session
from drivers.opcua.sight import Sight
from drivers.opcua.words import RefusedError
from edge.driver import Machine, NotConfirmedError, OutcomeKind, Run, Step
from edge.testing import RecordingContext

HELD, DONE = Seen(Phase.HELD), ended(OutcomeKind.SUCCEEDED, "", {})


class Held:
    """A machine in the middle of a run. `then`: what it says once it was asked to go on; `refuses`: why not."""

    def __init__(self, then: Seen = HELD, refuses: str = "") -> None:
        self.then, self.refuses = then, refuses
        self.asked = 0
        self.going: Work | None = Work(Run("run-1", "job-1", 1, Step("step-1", "any"), 1), "edge-run-1", begun=True)
        self.seen = HELD
        self.session = self.equipment = self
        self.failure = self.link = None
        self.count = 0

    async def ask(self, _work: Work) -> Seen:
        self.seen = self.then if self.asked else HELD
        return self.seen

    async def news(self, _count: int, _within_s: float) -> None:
        await asyncio.sleep(0.01)

    async def acknowledge_all(self, _link: object) -> None:
        if self.refuses:
            raise RefusedError(self.refuses, "BadUserAccessDenied")

    async def resume(self, _link: object, _work: Work) -> None:
        self.asked += 1


def driver_of(machine: Held, context: RecordingContext) -> OpcUaDriver:
    way = JOBCONTROL.connection.model_validate({"endpoint": "opc.tcp://127.0.0.1:1/", "security": "None"})
    limits = JOBCONTROL.limits.model_validate({"checked_by": "controller"})
    driver = OpcUaDriver(Machine("m-1", "opcua-jobcontrol", "auto", ("mill",), way, limits), context, {})
    driver.sight, driver.session = cast(Sight, machine), cast(Session, machine)
    return driver


async def test_a_run_that_went_on_and_has_succeeded_before_anybody_looked_was_resumed(tmp_path: Path) -> None:
    context, machine = RecordingContext(tmp_path), Held(then=DONE)
    await driver_of(machine, context).resume(context.clock.mono_s() + 10.0)
    assert machine.asked == 1


@pytest.mark.parametrize("kind", [OutcomeKind.STOPPED, OutcomeKind.FAILED, OutcomeKind.UNKNOWN])
async def test_a_run_that_has_ended_otherwise_was_not(tmp_path: Path, kind: OutcomeKind) -> None:
    context, machine = RecordingContext(tmp_path), Held(then=ended(kind, "", {}))
    with pytest.raises(NotConfirmedError, match="over before the machine could resume it"):
        await driver_of(machine, context).resume(context.clock.mono_s() + 10.0)


async def test_why_a_machine_does_not_go_on_is_told_to_who_asked(tmp_path: Path) -> None:
    context, machine = RecordingContext(tmp_path), Held(refuses="the machine does not let this user acknowledge")
    with pytest.raises(NotConfirmedError, match="did not resume in time: the machine does not let this user"):
        await driver_of(machine, context).resume(context.clock.mono_s() + 0.3)
    assert machine.asked == 0
