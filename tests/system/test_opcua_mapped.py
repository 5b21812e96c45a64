"""A controller without companion model, driven by the example profile as it is shipped."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from drivers.opcua import JOBCONTROL
from edge.driver import (
    Driver,
    Finished,
    Lost,
    Machine,
    MachineError,
    MachineState,
    Motion,
    NotAcceptableError,
    OutcomeKind,
    Program,
    Progress,
    Reading,
    Run,
    StateSeen,
    Step,
    StillRunning,
)
from edge.testing import RecordingContext
from tests.helpers.opcua import PROFILES, program_of, until
from tests.helpers.sim import START_S, ready_line

WAIT_S = 30.0
TRIGGERS = ("start", "stop", "pause", "resume")


@dataclass
class Controller:
    process: subprocess.Popen[bytes]
    endpoint: str

    def say(self, line: str) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    @property
    def machine(self) -> Machine[object, object]:
        connection = {"endpoint": self.endpoint, "security": "None", "patience_s": 5.0, "silence_s": 3.0}
        return Machine(
            "old-1",
            "opcua-jobcontrol",
            "example-mapped",
            ("mill",),
            JOBCONTROL.connection.model_validate(connection),
            JOBCONTROL.limits.model_validate({"checked_by": "controller"}),
        )


@pytest.fixture
def controller(request: pytest.FixtureRequest) -> Iterator[Controller]:
    """Its parameter, if there is one, is the type of RunTag."""
    command = [sys.executable, "-m", "tests.helpers.mapped_server", *getattr(request, "param", ())]
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root
    ) as process:
        try:
            yield Controller(process, ready_line(process).split()[2])
        finally:
            process.kill()
            process.wait(START_S)


def run_of(name: str, run_id: str = "run-1", *, begun: bool = False) -> Run:
    step = Step("step-1", "mill", {"controller_program": name})
    return Run(run_id, "job-1", 1, step, 1, {"name": name} if begun else None)


@contextlib.asynccontextmanager
async def opened(controller: Controller, folder: Path) -> AsyncIterator[tuple[Driver, RecordingContext, Program]]:
    context = RecordingContext(folder)
    async with JOBCONTROL.open(controller.machine, context) as driver:
        yield driver, context, program_of(folder / "named.txt", ["what the order carries with it"])


async def test_a_named_program_is_carried_out_and_its_values_are_shown(controller: Controller, tmp_path: Path) -> None:
    async with opened(controller, tmp_path) as (driver, context, program):
        assert driver.identity.firmware == "Mapped 1"
        for number in range(2):
            outcome = await asyncio.wait_for(driver.execute(run_of("run-20", f"r{number}"), program), WAIT_S)
            assert outcome.kind is OutcomeKind.SUCCEEDED
        assert controller.say("starts") == 2
        assert controller.say("ticks") == 40
        loads = [seen for seen in context.of_kind(Reading) if seen.name == "spindle_load"]
        assert loads
        assert loads[-1].unit == "%"


async def test_progress_is_what_the_machine_says_of_this_run_and_nothing_else(
    controller: Controller, tmp_path: Path
) -> None:
    example = (PROFILES / "example-mapped.toml").read_text()
    lines = 'progress = "plc:Line"\nprogress_of = "plc:Lines"\n'
    (tmp_path / "counting.toml").write_text(example.replace("[namespaces]", f"{lines}\n[namespaces]"))
    machine = replace(controller.machine, profile="counting", profiles_dir=tmp_path)
    context = RecordingContext(tmp_path)
    async with JOBCONTROL.open(machine, context) as driver:
        program = program_of(tmp_path / "named.txt", ["what the order carries with it"])
        for number in range(2):
            context.observations.clear()
            outcome = await asyncio.wait_for(driver.execute(run_of("run-60", f"r{number}"), program), WAIT_S)
            assert outcome.kind is OutcomeKind.SUCCEEDED
            told = [progress.share for progress in context.of_kind(Progress)]
            shares = [share for share in told if share is not None]
            assert shares == sorted(shares)
            assert len(set(shares)) > 3, "it is seen to go on"
            assert shares[0] < 0.5, "the end of the last run says nothing of this one"
            assert shares[-1] == 1.0


async def test_without_a_word_of_the_machine_there_is_no_share(controller: Controller, tmp_path: Path) -> None:
    async with opened(controller, tmp_path) as (driver, context, program):
        await asyncio.wait_for(driver.execute(run_of("run-20"), program), WAIT_S)
        assert {progress.share for progress in context.of_kind(Progress)} == {None}


async def test_a_machine_whose_profile_only_watches_is_shown_and_never_started(
    controller: Controller, tmp_path: Path
) -> None:
    example = (PROFILES / "example-mapped.toml").read_text()
    kept = [line for line in example.splitlines() if line.partition(" ")[0] not in TRIGGERS]
    (tmp_path / "watching.toml").write_text("\n".join(kept))
    machine = replace(controller.machine, profile="watching", profiles_dir=tmp_path)
    context = RecordingContext(tmp_path)
    async with opened(controller, tmp_path) as (starter, _, program), JOBCONTROL.open(machine, context) as driver:
        await context.seen(StateSeen, lambda seen: "only watches" in seen.detail, WAIT_S)
        assert context.of_kind(StateSeen)[-1].state is MachineState.STOPPED
        with pytest.raises(MachineError, match="only watches") as caught:
            await asyncio.wait_for(driver.execute(run_of("run-5"), program), WAIT_S)
        assert caught.value.motion is Motion.NONE
        assert controller.say("starts") == 0
        running = asyncio.create_task(starter.execute(run_of("run-60"), program), name="run")
        await context.seen(StateSeen, lambda seen: seen.state is MachineState.EXECUTE, WAIT_S)
        assert (await asyncio.wait_for(running, WAIT_S)).kind is OutcomeKind.SUCCEEDED
        assert controller.say("starts") == 1


async def test_a_program_faster_than_we_look_is_counted(controller: Controller, tmp_path: Path) -> None:
    async with opened(controller, tmp_path) as (driver, _, program):
        outcome = await asyncio.wait_for(driver.execute(run_of("run-1"), program), WAIT_S)
        assert outcome.kind is OutcomeKind.SUCCEEDED


async def test_it_is_paused_resumed_and_stopped(controller: Controller, tmp_path: Path) -> None:
    async with opened(controller, tmp_path) as (driver, context, program):
        running = asyncio.create_task(driver.execute(run_of("run-10000"), program), name="run")
        await until(lambda: controller.say("ticks") > 2, WAIT_S)
        deadline_s = context.clock.mono_s() + WAIT_S
        await driver.pause(deadline_s)
        ticks = controller.say("ticks")
        await asyncio.sleep(0.3)
        assert controller.say("ticks") == ticks
        await driver.resume(deadline_s)
        await until(lambda: controller.say("ticks") > ticks, WAIT_S)
        await driver.stop(deadline_s)
        assert (await running).kind is OutcomeKind.STOPPED


async def test_a_fault_of_the_machine_is_a_failure_and_it_starts_nothing_until_it_is_ready(
    controller: Controller, tmp_path: Path
) -> None:
    async with opened(controller, tmp_path) as (driver, context, program):
        outcome = await asyncio.wait_for(driver.execute(run_of("fail-5"), program), WAIT_S)
        assert outcome.kind is OutcomeKind.FAILED
        with pytest.raises(MachineError, match="made ready first") as caught:
            await asyncio.wait_for(driver.execute(run_of("run-5", "r2"), program), WAIT_S)
        assert caught.value.motion is Motion.NONE
        assert context.of_kind(StateSeen)[-1].state is MachineState.STOPPED


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("mode 0", "not in Automatic"),
        ("estop 1", "emergency stop"),
        ("strange", "the machine says 77: it has to be made ready first"),
    ],
)
async def test_what_must_hold_holds_or_nothing_starts(
    controller: Controller, tmp_path: Path, command: str, words: str
) -> None:
    async with opened(controller, tmp_path) as (driver, context, program):
        controller.say(command)
        await context.seen(StateSeen, lambda seen: seen.state is MachineState.STOPPED and words in seen.detail, WAIT_S)
        with pytest.raises(MachineError, match=words):
            await asyncio.wait_for(driver.execute(run_of("run-5"), program), WAIT_S)
        assert controller.say("starts") == 0


@pytest.mark.parametrize("controller", [(), ("Int16",)], indirect=True, ids=["text", "Int16"])
async def test_the_tag_on_the_controller_finds_a_run_again_and_nothing_else_does(
    controller: Controller, tmp_path: Path
) -> None:
    async with opened(controller, tmp_path) as (driver, context, program):
        running = asyncio.create_task(driver.execute(run_of("run-100"), program), name="run")
        await until(lambda: controller.say("ticks") > 2, WAIT_S)
        await driver.detach()
        checkpoint = context.checkpoints[-1]
        running.cancel()
        await asyncio.wait([running])
    async with opened(controller, tmp_path) as (driver, _, program):
        left = replace(run_of("run-100"), checkpoint=checkpoint)
        assert isinstance(await driver.recover(left, program), StillRunning)
        other = await asyncio.wait_for(driver.recover(run_of("run-100", "another", begun=True), program), WAIT_S)
        assert isinstance(other, Lost)
        outcome = await asyncio.wait_for(driver.execute(left, program, StillRunning()), WAIT_S)
        assert outcome.kind is OutcomeKind.SUCCEEDED
        assert isinstance(await driver.recover(run_of("run-9", "never"), program), Finished)
        controller.say("forget")
        assert isinstance(await asyncio.wait_for(driver.recover(left, program), WAIT_S), Lost)
        assert controller.say("starts") == 1


async def test_a_controller_that_forgets_in_the_middle_is_unknown(controller: Controller, tmp_path: Path) -> None:
    async with opened(controller, tmp_path) as (driver, _, program):
        running = asyncio.create_task(driver.execute(run_of("run-10000"), program), name="run")
        await until(lambda: controller.say("ticks") > 2, WAIT_S)
        controller.say("forget")
        outcome = await asyncio.wait_for(running, WAIT_S)
        assert outcome.kind is OutcomeKind.UNKNOWN


async def test_a_program_that_the_order_does_not_name_is_refused(controller: Controller, tmp_path: Path) -> None:
    async with opened(controller, tmp_path) as (driver, _, program):
        with pytest.raises(NotAcceptableError, match="controller_program"):
            await driver.execute(Run("r", "j", 1, Step("s", "mill"), 1), program)
