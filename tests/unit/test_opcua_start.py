"""The one request that starts a run: what is concluded from its answer, and from a first link that cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

import drivers.opcua.session
from drivers.opcua.config import Connection
from drivers.opcua.equipment import Phase, Seen, Work
from drivers.opcua.pki import Pki
from drivers.opcua.session import Session
from drivers.opcua.sight import Sight
from drivers.opcua.start import Start
from drivers.opcua.words import LinkError, RefusedError
from edge.driver import MachineError, Motion, Run, Step
from edge.testing import RecordingContext

NO = RefusedError("the machine says no", "ReturnStatus")


class Machine:
    """Answers a start with `answer`, and afterwards what it knows of the run with `says`, the last one for good."""

    def __init__(self, answer: MachineError | None, *says: Seen | None) -> None:
        self.answer = answer
        self.says = list(says)
        self.calls: list[str] = []
        self.session = self.equipment = self
        self.link = None
        self.count = 0

    async def ask(self, _work: Work) -> Seen | None:
        return self.says.pop(0) if len(self.says) > 1 else self.says[0]

    def check(self, _motion: Motion = Motion.POSSIBLE) -> None:
        """It never fails."""

    async def news(self, _count: int, _within_s: float) -> None:
        await asyncio.sleep(0)

    async def catch_up(self, _link: object) -> None:
        """Nothing is new."""

    def busy_with(self, _work: Work) -> str:
        return ""

    def unprepared(self, _work: Work) -> str:
        return ""

    def refusal(self) -> str:
        return ""

    async def look(self, _link: object, work: Work) -> Seen:
        return Seen(Phase.WAITING if work.begun else Phase.ABSENT)

    async def tidy(self, _link: object, _keep: str) -> None:
        self.calls.append("tidy")

    async def prepare(self, _link: object, _work: Work) -> None:
        self.calls.append("prepare")

    async def begin(self, _link: object, _work: Work) -> None:
        self.calls.append("begin")
        if self.answer is not None:
            raise self.answer

    async def stop(self, _link: object, _work: Work, _seen: Seen) -> None:
        self.calls.append("stop")


async def begun(machine: Machine, folder: Path) -> bool:
    work = Work(Run("run-1", "job-1", 1, Step("step-1", "any"), 1), "edge-run-1")
    start = Start(cast(Sight, machine), RecordingContext(folder))
    return await asyncio.wait_for(start.start(work, None), 10.0)


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.HELD, Phase.ENDED])
async def test_a_no_of_a_machine_that_carries_the_run_out_is_a_start(tmp_path: Path, phase: Phase) -> None:
    machine = Machine(NO, None, Seen(phase))
    assert await begun(machine, tmp_path)
    assert machine.calls == ["tidy", "prepare", "begin"]


async def test_a_no_counts_if_the_machine_knows_nothing_of_the_run(tmp_path: Path) -> None:
    machine = Machine(NO, Seen(Phase.ABSENT))
    with pytest.raises(MachineError, match="has not started: the machine says no") as caught:
        await begun(machine, tmp_path)
    assert caught.value.motion is Motion.NONE
    assert machine.calls.count("begin") == 1


async def test_what_was_refused_and_waits_is_taken_back(tmp_path: Path) -> None:
    machine = Machine(NO, Seen(Phase.WAITING), Seen(Phase.ABSENT))
    with pytest.raises(MachineError, match="has not started") as caught:
        await begun(machine, tmp_path)
    assert caught.value.motion is Motion.NONE
    assert machine.calls == ["tidy", "prepare", "begin", "stop"]
    machine = Machine(NO, Seen(Phase.WAITING), Seen(Phase.RUNNING))
    assert await begun(machine, tmp_path), "it began before it could be taken back"


async def test_a_lost_answer_is_looked_up_and_not_asked_for_again(tmp_path: Path) -> None:
    machine = Machine(LinkError("no answer in time"), None, Seen(Phase.ABSENT), Seen(Phase.RUNNING))
    assert await begun(machine, tmp_path)
    assert machine.calls.count("begin") == 1


async def test_a_first_link_on_which_the_driver_cannot_be_at_home_is_an_error_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Open:
        async def renew(self) -> None:
            await asyncio.Event().wait()

    @contextlib.asynccontextmanager
    async def connected(*_: object) -> AsyncIterator[Open]:
        yield Open()

    async def attach(_link: object) -> Any:
        raise MachineError("the server is strange", Motion.NONE)

    monkeypatch.setattr(drivers.opcua.session, "connected", connected)
    way = Connection(endpoint="opc.tcp://127.0.0.1:1/", security="None")
    context = RecordingContext(tmp_path)
    unused = dict.fromkeys(("saw", "unwatched", "out_of_sight", "told"), lambda *_: None)
    session = Session("m-1", way, Pki(tmp_path), context.clock, attach, **unused)
    running = asyncio.create_task(session.run())
    with pytest.raises(MachineError, match="the server is strange"):
        await asyncio.wait_for(session.ready(), 10.0)
    await asyncio.wait_for(running, 10.0)
