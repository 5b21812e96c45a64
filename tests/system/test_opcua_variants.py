"""Servers that are not as the specifications have them: understood all the same, or refused in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.driver import Capability, IdentityError, MachineError, MachineState, Motion, OutcomeKind, Run, StateSeen, Step
from edge.testing import RecordingContext
from tests.helpers.opcua import PROFILES, machine_of, plugin_of, program_of, sim_server, until
from tests.helpers.proxy import network

pytestmark = pytest.mark.slow

WAIT_S = 40.0
GOOD = {
    "cnc": ["G21 G90", *(f"G1 X{10 + i % 7} Y10 F3000" for i in range(20)), "M30"],
    "robot": ["move printer", *("wait 1" for _ in range(5)), "move home"],
}
both = pytest.mark.parametrize("kind", ["cnc", "robot"])


async def carried_out(folder: Path, kind: str, *options: str, **more: object) -> tuple[OutcomeKind | None, str, int]:
    """How one run ends: its outcome or None for an error, the reason, and how often something was started."""
    with sim_server(kind, *options, speed=5.0) as server:
        context = RecordingContext(folder)
        program = program_of(folder / "good.nc", GOOD[kind])
        async with plugin_of(kind).open(machine_of(server, **more), context) as driver:
            run = Run("run-1", "job-1", 1, Step("step-1", "any"), 1)
            try:
                outcome = await asyncio.wait_for(driver.execute(run, program), WAIT_S)
            except MachineError as error:
                if error.motion is Motion.NONE:
                    assert server.starts() == 0
                return None, str(error), server.starts()
            if outcome.kind is OutcomeKind.SUCCEEDED:
                assert server.instructions() == GOOD[kind]
            return outcome.kind, outcome.reason, server.starts()


@both
async def test_namespaces_in_another_order_change_nothing(tmp_path: Path, kind: str) -> None:
    kind_of_end, reason, starts = await carried_out(tmp_path, kind, "--variant", "namespaces-reversed")
    assert (kind_of_end, starts) == (OutcomeKind.SUCCEEDED, 1), reason


@both
async def test_two_servers_with_other_namespaces_are_used_side_by_side(tmp_path: Path, kind: str) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    ends = await asyncio.gather(
        carried_out(tmp_path / "one", kind), carried_out(tmp_path / "other", kind, "--variant", "namespaces-reversed")
    )
    assert [end[0] for end in ends] == [OutcomeKind.SUCCEEDED] * 2, ends


async def test_bare_numbers_as_statuses_are_no_reason_to_start_twice(tmp_path: Path) -> None:
    """With the wrong setting the 0 says nothing, and the list of orders decides; with the right one it is a yes."""
    end = await carried_out(tmp_path, "cnc", "--variant", "bare-status")
    assert (end[0], end[2]) == (OutcomeKind.SUCCEEDED, 1), end
    profile = (PROFILES / "machinery-jobs.toml").read_text().replace('"bits"', '"number"')
    (tmp_path / "bare.toml").write_text(profile)
    end = await carried_out(tmp_path, "cnc", "--variant", "bare-status", profile="bare", profiles_dir=tmp_path)
    assert (end[0], end[2]) == (OutcomeKind.SUCCEEDED, 1), end


async def test_a_yes_that_is_read_as_a_no_is_held_against_what_the_machine_does(tmp_path: Path) -> None:
    """With the wrong setting bit 0, no error, is error 1. Whoever believed that would have the order started again."""
    profile = (PROFILES / "machinery-jobs.toml").read_text().replace('"bits"', '"number"')
    (tmp_path / "wrong.toml").write_text(profile)
    end = await carried_out(tmp_path, "cnc", profile="wrong", profiles_dir=tmp_path)
    assert (end[0], end[2]) == (OutcomeKind.SUCCEEDED, 1), end


class _Panel(RecordingContext):
    """Somebody presses a key at the machine right before it is asked to start."""

    def __init__(self, folder: Path, press: Callable[[], None]) -> None:
        super().__init__(folder)
        self._press = press

    async def checkpoint(self, value: Any) -> None:
        await super().checkpoint(value)
        self._press()


async def test_a_program_of_ours_that_is_started_at_the_panel_is_not_called_never_started(tmp_path: Path) -> None:
    with sim_server("robot", speed=5.0) as server:
        context = _Panel(tmp_path, lambda: server.say("start"))
        program = program_of(tmp_path / "good.nc", GOOD["robot"])
        async with plugin_of("robot").open(machine_of(server), context) as driver:
            outcome = await asyncio.wait_for(
                driver.execute(Run("run-1", "job-1", 1, Step("step-1", "any"), 1), program), WAIT_S
            )
            assert (outcome.kind, server.starts()) == (OutcomeKind.SUCCEEDED, 1)


async def test_a_link_that_is_lost_while_a_program_of_the_robots_own_is_started_leaves_it_unknown(
    tmp_path: Path,
) -> None:
    with sim_server("robot", speed=5.0) as server:
        port = int(server.endpoint.rstrip("/").rpartition(":")[2])
        with network(port) as between:
            server.endpoint = f"opc.tcp://127.0.0.1:{between.port}/"
            context = _Panel(tmp_path, between.deafen)
            async with plugin_of("robot").open(machine_of(server, patience_s=60.0), context) as driver:
                run = Run("run-1", "job-1", 1, Step("step-1", "any", {"controller_program": "wait"}), 1)
                running = asyncio.create_task(driver.execute(run, program_of(tmp_path / "x.txt", ["x"])), name="run")
                await until(lambda: server.starts() == 1, WAIT_S)
                between.drop()
                outcome = await asyncio.wait_for(running, WAIT_S)
                assert (outcome.kind, server.starts()) == (OutcomeKind.UNKNOWN, 1)
                assert "nothing proves" in outcome.reason


async def test_a_server_that_cannot_rename_is_refused_in_words_at_once(tmp_path: Path) -> None:
    with sim_server("cnc", "--without", "MoveOrCopy") as server:
        with pytest.raises(IdentityError, match="no method MoveOrCopy; the profile may say"):
            async with (
                asyncio.timeout(WAIT_S),
                plugin_of("cnc").open(machine_of(server), RecordingContext(tmp_path)),
            ):
                pass
        profile = (PROFILES / "machinery-jobs.toml").read_text().replace("in_place = false", "in_place = true")
        (tmp_path / "in-place.toml").write_text(profile)
    end = await carried_out(tmp_path, "cnc", "--without", "MoveOrCopy", profile="in-place", profiles_dir=tmp_path)
    assert (end[0], end[2]) == (OutcomeKind.SUCCEEDED, 1), end


@both
async def test_wrong_data_types_are_never_a_success_that_was_none(tmp_path: Path, kind: str) -> None:
    end, reason, starts = await carried_out(tmp_path, kind, "--variant", "wrong-types")
    assert starts <= 1
    assert end in (None, OutcomeKind.UNKNOWN, OutcomeKind.SUCCEEDED)
    assert end is OutcomeKind.SUCCEEDED or reason


@both
async def test_states_that_are_not_in_the_specification_end_nothing_too_early(tmp_path: Path, kind: str) -> None:
    end, reason, starts = await carried_out(tmp_path, kind, "--variant", "unknown-states")
    assert starts <= 1
    assert end in (OutcomeKind.SUCCEEDED, OutcomeKind.UNKNOWN), reason


@pytest.mark.parametrize("method", ["StoreAndStart", "Store", "RequestJobResponseByJobOrderID", "Clear", "Cancel"])
async def test_optional_methods_that_are_missing_are_done_without(tmp_path: Path, method: str) -> None:
    end = await carried_out(tmp_path, "cnc", "--without", method)
    assert (end[0], end[2]) == (OutcomeKind.SUCCEEDED, 1), end


async def test_what_cannot_be_paused_says_so_and_what_cannot_be_stopped_is_refused(tmp_path: Path) -> None:
    with sim_server("cnc", "--without", "Pause") as server:
        async with plugin_of("cnc").open(machine_of(server), RecordingContext(tmp_path)) as driver:
            assert Capability.PAUSE not in driver.capabilities
    with (
        sim_server("cnc", "--without", "Stop", "--without", "Abort") as server,
        pytest.raises(IdentityError, match="neither Stop nor Abort"),
    ):
        async with plugin_of("cnc").open(machine_of(server), RecordingContext(tmp_path)):
            pass


async def test_a_robot_without_operations_is_watched_and_never_started(tmp_path: Path) -> None:
    with sim_server("robot", "--robotics-1.01") as server:
        context = RecordingContext(tmp_path)
        profile = (PROFILES / "robotics-1.02.toml").read_text()
        (tmp_path / "old.toml").write_text(profile.replace('programs = "either"', 'programs = "named"'))
        machine = machine_of(server, profile="old", profiles_dir=tmp_path)
        async with plugin_of("robot").open(machine, context) as driver:
            await context.seen(StateSeen, lambda seen: "Robotics 1.01" in seen.detail, WAIT_S)
            run = Run("run-1", "job-1", 1, Step("step-1", "any", {"controller_program": "wait"}), 1)
            with pytest.raises(MachineError, match=r"Robotics 1\.01") as caught:
                await driver.execute(run, program_of(tmp_path / "x.txt", ["x"]))
            assert caught.value.motion is Motion.NONE


@pytest.mark.parametrize(
    ("kind", "fault", "words"),
    [
        ("cnc", "mode=Setup", "not in Automatic"),
        ("cnc", "alarm=coolant is low", "coolant is low"),
        ("robot", "estop=on", "emergency stop"),
        ("robot", "protective-stop=on", "protective stop"),
        ("robot", "mode=MANUAL_REDUCED_SPEED", "not in automatic mode"),
    ],
)
async def test_what_must_hold_holds_or_nothing_starts(tmp_path: Path, kind: str, fault: str, words: str) -> None:
    with sim_server(kind, speed=5.0) as server:
        context = RecordingContext(tmp_path)
        async with plugin_of(kind).open(machine_of(server), context) as driver:
            server.say(fault)
            await context.seen(
                StateSeen, lambda seen: seen.state is MachineState.STOPPED and words in seen.detail, WAIT_S
            )
            run = Run("run-1", "job-1", 1, Step("step-1", "any"), 1)
            with pytest.raises(MachineError, match=words) as caught:
                await asyncio.wait_for(driver.execute(run, program_of(tmp_path / "x.nc", GOOD[kind])), WAIT_S)
            assert caught.value.motion is Motion.NONE
            assert server.starts() == 0


@pytest.mark.parametrize(("fault", "reset"), [("estop", True), ("protective-stop", False)])
async def test_a_safety_stop_holds_the_run_until_a_person_lets_it_go_on(
    tmp_path: Path, fault: str, reset: bool
) -> None:
    with sim_server("robot", speed=5.0) as server:
        context = RecordingContext(tmp_path)
        program = program_of(tmp_path / "x.nc", ["move printer", *("wait 0.5" for _ in range(60)), "move home"])
        async with plugin_of("robot").open(machine_of(server), context) as driver:
            running = asyncio.create_task(
                driver.execute(Run("run-1", "job-1", 1, Step("step-1", "any"), 1), program), name="run"
            )
            await until(lambda: len(server.instructions()) > 3, WAIT_S)
            server.say(f"{fault}=on")
            await context.seen(StateSeen, lambda seen: seen.state is MachineState.HELD, WAIT_S)
            server.say(f"{fault}=off")
            server.say("reset")
            done = len(server.instructions())
            await asyncio.sleep(1.0)
            assert len(server.instructions()) == done, "a reset alone restarts nothing"
            assert not running.done()
            await driver.resume(context.clock.mono_s() + WAIT_S)
            assert (await asyncio.wait_for(running, WAIT_S)).kind is OutcomeKind.SUCCEEDED
