"""Machines on node-opcua that are not as the specifications have them: understood all the same, or refused in words.

One server has all of them, each odd in its own way, and counts its namespaces the other way round, after a foreign one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drivers.opcua import start
from edge.driver import (
    Driver,
    Machine,
    MachineError,
    MachineState,
    Motion,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Progress,
    Run,
    StateSeen,
    Step,
)
from edge.testing import RecordingContext
from tests.helpers.nodeopcua import Peer, node_opcua
from tests.helpers.opcua import PROFILES, plugin_of, program_of, until

WAIT_S = 40.0
BLOCKS = ["G21 G90", *(f"G1 X{10 + n % 7} F3000" for n in range(15)), "M30"]
LONG = ["G21 G90", *(f"G1 X{10 + n % 7} F3000" for n in range(2000)), "M30"]
QUICK, SLOW = 100.0, 4.0
"""Blocks per second."""

NAME = {"cnc": "Mill", "robot": "Robot"}
DRIVER = {"cnc": ("opcua-jobcontrol", "machinery-jobs"), "robot": ("opcua-robotics", "robotics-1.02")}
NUMBERS = ('"bits"', '"number"')
STALE = "starts-late reason-of-ends-only"
"""A robot that says yes to Start before it moves, and whose last transition always is the end of a program."""


@dataclass(frozen=True)
class Case:
    """A machine and what is odd of it; what its profile has otherwise; `words`: why no run begins, if none does."""

    kind: str
    odd: str = ""
    words: str = ""
    profile: tuple[str, str] = ("", "")
    program: str = ""

    @property
    def id(self) -> str:
        return " ".join(filter(None, [NAME[self.kind], self.odd, self.profile[1], self.program]))


UNDERSTOOD = [
    Case("cnc"),
    Case("robot"),
    # The bare number 0 says nothing, and 1 is a yes: then what the machine has of the order decides.
    Case("cnc", "status-as-number"),
    Case("cnc", "status-as-number", profile=NUMBERS),
    Case("cnc", "status-as-text"),
    Case("cnc", "list-as-text"),
    Case("cnc", "response-as-text"),
    Case("cnc", "unknown-states"),
    Case("robot", "unknown-states"),
    Case("cnc", "without-StoreAndStart without-Clear without-Cancel without-RevokeStart without-Update"),
    Case("cnc", "without-Store without-RequestJobResponseByJobOrderID"),
    Case("cnc", "without-JobOrderList"),
    Case("cnc", "without-MoveOrCopy", profile=("in_place = false", "in_place = true")),
    Case("robot", STALE),
    Case("robot", "without-UnloadProgram without-StandDown"),
    Case("robot", "without-UnloadProgram without-UnloadByName"),
]
REFUSED = [
    Case("cnc", "", "the machine says: it cannot take the order (status 16)", program="nowhere.nc"),
    Case("cnc", "status-as-number", "the machine says: an error (status 4)", program="nowhere.nc"),
    Case("cnc", "status-as-number", "the machine answers with the status 4", profile=NUMBERS, program="nowhere.nc"),
    Case("cnc", "mode-as-text", "the machine is not in Automatic, as far as is known: it says 'Automatic'"),
    Case("cnc", "without-StoreAndStart without-Start", "neither StoreAndStart nor Store and Start: it takes no orders"),
    Case("cnc", "without-Stop without-Abort", "neither Stop nor Abort: what it begins could not be ended"),
    Case(
        "cnc",
        "without-JobOrderList without-RequestJobResponseByJobOrderID",
        "neither a list of its orders nor responses: nobody could ask for a run",
    ),
    Case("cnc", "without-MoveOrCopy", "no method MoveOrCopy; the profile may say files.in_place = true"),
    Case("robot", "status-as-text", "GetReady: the robot answers with '0', which is no number"),
    Case("robot", "program-as-number", "TaskProgramName is 0, which is no text"),
    Case(
        "robot", "mode-as-text", "the robot is not in automatic mode, as far as is known: it says 'AUTOMATIC_EXTERNAL'"
    ),
    Case("robot", "stops-as-text", "emergency stop, as far as is known: it says 'no'"),
    Case("robot", "without-LoadByName", "the robot has no method LoadByName"),
    Case("robot", "without-GetReady", "Start: the robot answers with the status 1"),
    Case("robot", "without-Stop", "the robot has no method Stop: it can be watched, and not started"),
    Case("robot", "without-Start without-Stop", "no operations (Robotics 1.01): it can be watched, and not started"),
]
NOBODY_KNOWS = Case("cnc", "list-as-text response-as-text")

CASES = [*UNDERSTOOD, *REFUSED, NOBODY_KNOWS]
ODD = {kind: list(dict.fromkeys(case.odd for case in CASES if case.kind == kind)) for kind in NAME}
"""The machines that the server has, each by what is odd of it."""


def browse_name(kind: str, odd: str) -> str:
    number = ODD[kind].index(odd) + 1
    return NAME[kind] + (str(number) if number > 1 else "")


@dataclass
class OddMachine:
    """One machine of the server."""

    peer: Peer
    kind: str
    odd: str

    def opened(self, context: RecordingContext, case: Case | None = None) -> AbstractAsyncContextManager[Driver]:
        """A driver for it."""
        plugin, (driver, profile), profiles_dir = plugin_of(self.kind), DRIVER[self.kind], None
        if case is not None and case.profile[0]:
            text = (PROFILES / f"{profile}.toml").read_text()
            assert case.profile[0] in text
            (context.state_dir / "other.toml").write_text(text.replace(*case.profile))
            profile, profiles_dir = "other", context.state_dir
        name = browse_name(self.kind, self.odd)
        way = {"endpoint": self.peer.endpoint, "security": "None", "machine": name, "patience_s": 3.0}
        limits = plugin.limits.model_validate({"checked_by": "controller"})
        machine: Machine[Any, Any] = Machine(
            "odd-1",
            driver,
            profile,
            ("any",),
            plugin.connection.model_validate(way),
            limits,
            profiles_dir=profiles_dir,
        )
        opened: AbstractAsyncContextManager[Driver] = plugin.open(machine, context)
        return opened

    def instructions(self) -> list[str]:
        return self.peer.carried_out(browse_name(self.kind, self.odd).lower())

    def starts(self) -> int:
        return self.peer.starts(browse_name(self.kind, self.odd).lower())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    options = ["--mills", str(len(ODD["cnc"])), "--robots", str(len(ODD["robot"])), "--namespaces-reversed"]
    for kind, machines in ODD.items():
        for odd in machines:
            options += [f"--odd={browse_name(kind, odd)}={each}" for each in odd.split()]
    with node_opcua(tmp_path_factory.mktemp("peer"), "--security", "none", *options) as peer:
        yield peer


@pytest.fixture
def peer(server: Peer) -> Peer:
    server.tell("reset")
    server.tell("speed", blocks_per_s=QUICK)
    return server


def run_of(case: Case, run_id: str = "run-1") -> Run:
    named = {"controller_program": case.program} if case.program else {}
    return Run(run_id, "job-1", 1, Step("step-1", "any", named), 1)


@pytest.mark.parametrize("case", UNDERSTOOD, ids=lambda case: case.id)
async def test_what_is_odd_and_decides_nothing_keeps_no_run_from_its_end(
    peer: Peer, case: Case, tmp_path: Path
) -> None:
    machine, program = OddMachine(peer, case.kind, case.odd), program_of(tmp_path / "good.nc", BLOCKS)
    async with asyncio.timeout(WAIT_S), machine.opened(RecordingContext(tmp_path), case) as driver:
        outcome = await driver.execute(run_of(case), program)
    assert (outcome.kind, outcome.reason) == (OutcomeKind.SUCCEEDED, "")
    assert machine.instructions() == BLOCKS
    assert machine.starts() == 1


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
async def test_what_is_odd_and_decides_is_refused_in_words_before_anything_moves(
    peer: Peer, case: Case, tmp_path: Path
) -> None:
    machine, program = OddMachine(peer, case.kind, case.odd), program_of(tmp_path / "good.nc", BLOCKS)
    with pytest.raises(MachineError, match=re.escape(case.words)) as caught:
        async with asyncio.timeout(WAIT_S), machine.opened(RecordingContext(tmp_path), case) as driver:
            await driver.execute(run_of(case), program)
    assert caught.value.motion is Motion.NONE
    assert machine.starts() == 0


async def test_a_yes_that_is_read_as_a_no_is_held_against_what_the_machine_has_of_the_order(
    peer: Peer, tmp_path: Path
) -> None:
    """Bit 0, no error, is error 1 to who asks for numbers. Whoever believed that would have the order started again."""
    case = Case("cnc", profile=NUMBERS)
    machine, program = OddMachine(peer, case.kind, case.odd), program_of(tmp_path / "good.nc", BLOCKS)
    async with asyncio.timeout(WAIT_S), machine.opened(RecordingContext(tmp_path), case) as driver:
        (end,) = await asyncio.gather(driver.execute(run_of(case), program), return_exceptions=True)
    orders = peer.tell("orders")["orders"]
    if isinstance(end, MachineError):  # it was asked before it had begun, and the order was taken back
        assert (end.motion, machine.starts(), orders) == (Motion.NONE, 0, [])
        return
    assert isinstance(end, Outcome)
    assert (end.motion, machine.starts(), len(orders)) == (Motion.POSSIBLE, 1, 1)
    if end.kind is not OutcomeKind.SUCCEEDED:  # it began just as it was to be taken back, and was ended for that
        assert (end.kind, "the order is Aborted" in end.reason) == (OutcomeKind.FAILED, True)
        assert orders[0]["done"] < len(BLOCKS)


async def test_a_run_that_the_machine_tells_of_in_a_way_that_nobody_understands_is_unknown(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "BEGIN_S", 1.0)
    case = NOBODY_KNOWS
    machine, program = OddMachine(peer, case.kind, case.odd), program_of(tmp_path / "good.nc", BLOCKS)
    async with asyncio.timeout(WAIT_S), machine.opened(RecordingContext(tmp_path)) as driver:
        with pytest.raises(NotConfirmedError, match="the machine knows nothing of it: its job response is '") as caught:
            await driver.execute(run_of(case), program)
    assert caught.value.motion is Motion.POSSIBLE
    assert machine.starts() == 1


async def test_what_a_robot_says_of_the_end_of_another_program_is_not_taken_for_this_one(
    peer: Peer, tmp_path: Path
) -> None:
    machine, context = OddMachine(peer, "robot", STALE), RecordingContext(tmp_path)

    async def carried_out(driver: Driver, number: int) -> None:
        blocks, told = [*BLOCKS, f"M{number}"], len(context.of_kind(Progress))
        program = program_of(tmp_path / f"{number}.txt", blocks)
        peer.tell("speed", blocks_per_s=0.1)
        running = asyncio.create_task(driver.execute(run_of(Case("robot"), f"run-{number}"), program), name="run")
        # The driver has to see it at work: of a program that has ended before, nobody could say whose end it is.
        await until(lambda: len(context.of_kind(Progress)) > told, WAIT_S)
        peer.tell("speed", blocks_per_s=QUICK)
        assert ((await running).kind, machine.starts()) == (OutcomeKind.SUCCEEDED, number)
        assert machine.instructions() == blocks

    async with asyncio.timeout(WAIT_S), machine.opened(context) as driver:
        for number in (1, 2):
            await carried_out(driver, number)


@pytest.mark.parametrize("kind", list(NAME))
async def test_a_run_in_a_state_that_is_not_understood_is_stopped_when_a_person_asks(
    peer: Peer, kind: str, tmp_path: Path
) -> None:
    peer.tell("speed", blocks_per_s=SLOW)
    machine, context = OddMachine(peer, kind, "unknown-states"), RecordingContext(tmp_path)
    program = program_of(tmp_path / "long.nc", LONG)
    async with asyncio.timeout(WAIT_S), machine.opened(context) as driver:
        running = asyncio.create_task(driver.execute(run_of(Case(kind)), program), name="run")
        await until(lambda: len(machine.instructions()) >= 3, WAIT_S)
        await driver.stop(context.clock.mono_s() + WAIT_S)
        assert (await running).kind is OutcomeKind.STOPPED
        done = machine.instructions()
        await asyncio.sleep(3 / SLOW)
        assert machine.instructions() == done, "it stands"
        assert machine.starts() == 1


@pytest.mark.parametrize("kind", list(NAME))
async def test_a_machine_in_a_state_that_is_not_understood_is_not_free_for_the_next_run(
    peer: Peer, kind: str, tmp_path: Path
) -> None:
    peer.tell("speed", blocks_per_s=SLOW)
    machine, program = OddMachine(peer, kind, "unknown-states"), program_of(tmp_path / "long.nc", LONG)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    async with asyncio.timeout(WAIT_S):
        async with machine.opened(RecordingContext(tmp_path / "one")) as driver:
            running = asyncio.create_task(driver.execute(run_of(Case(kind)), program), name="run")
            await until(lambda: len(machine.instructions()) >= 3, WAIT_S)
            await driver.detach()
            running.cancel()
            await asyncio.wait([running])
        context = RecordingContext(tmp_path / "other")
        async with machine.opened(context) as driver:
            await context.seen(StateSeen, lambda seen: seen.state is not MachineState.OFFLINE, WAIT_S)
            assert context.of_kind(StateSeen)[-1].state is MachineState.EXECUTE
            assert "not understood" in context.of_kind(StateSeen)[-1].detail
            with pytest.raises(MachineError, match="not understood") as caught:
                await driver.execute(run_of(Case(kind), "run-2"), program)
            assert caught.value.motion is Motion.NONE
            assert machine.starts() == 1
            peer.tell("speed", blocks_per_s=100 * QUICK)
            await until(lambda: context.of_kind(StateSeen)[-1].state is MachineState.IDLE, WAIT_S)
            assert MachineState.IDLE not in [seen.state for seen in context.of_kind(StateSeen)[:-1]]
