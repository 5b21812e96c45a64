"""The driver for grbl against a simulated router as a process: what a person does at it, and what goes wrong."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drivers import link
from drivers.gcode import PLUGIN
from drivers.gcode.grbl_driver import make_safe
from drivers.gcode.grbl_replies import Status
from edge.driver import (
    Capability,
    ConnectError,
    Driver,
    Finished,
    IdentityError,
    Lost,
    MachineError,
    MachineState,
    Message,
    Motion,
    NotAcceptableError,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Program,
    Progress,
    Run,
    StateSeen,
    Step,
)
from edge.testing import RecordingContext
from tests.helpers.opcua import until
from tests.helpers.printing import program_at, write_program
from tests.helpers.routing import LIMITS, SimRouter, bench_router, sim_router

PLATE = Path(__file__).parent.parent / "programs" / "plate.nc"
RUN = Run("run-1", "job-1", 1, Step("mill", "mill"), 1)
LONG = ["G0 X10 Y10 Z5", "M3 S1000", *(f"G1 X{10 + 90 * (i % 2)} F3000" for i in range(2000))]
DEADLINE_S = 20.0


@asynccontextmanager
async def opened(router: SimRouter, folder: Path, **fields: Any) -> AsyncIterator[tuple[Driver, RecordingContext]]:
    context = RecordingContext(folder)
    async with asyncio.timeout(60.0), PLUGIN.open(replace(bench_router(router), **fields), context) as driver:
        yield driver, context


async def begun(driver: Driver, context: RecordingContext, folder: Path, lines: list[str]) -> asyncio.Task[Outcome]:
    """A program of which some lines are acknowledged."""
    task = asyncio.create_task(driver.execute(RUN, write_program(folder / "program.nc", lines)), name="run")
    await context.seen(Progress, lambda progress: progress.done > 3, DEADLINE_S)
    return task


async def state(context: RecordingContext, wanted: MachineState, words: str = "") -> str:
    """Wait for a state, told after everything that was told before; its words."""
    context.observations.clear()
    await context.seen(StateSeen, lambda seen: seen.state is wanted and words in seen.detail, DEADLINE_S)
    return next(s.detail for s in reversed(context.of_kind(StateSeen)) if s.state is wanted and words in s.detail)


async def carried_out(router: SimRouter, count: int) -> None:
    """Wait until so many blocks were."""
    await until(lambda: len(router.blocks()) >= count, DEADLINE_S)


def soon(context: RecordingContext) -> float:
    return context.clock.mono_s() + DEADLINE_S


# -- to the end


async def test_a_plate_is_milled_and_its_pause_asks_what_the_program_says(tmp_path: Path) -> None:
    with sim_router(tmp_path, "--g54", "100,50,20", "--work-position", speed=50.0) as router:
        async with opened(router, tmp_path) as (driver, context):
            assert driver.capabilities == {Capability.PAUSE, Capability.ABORT_AT_ONCE}
            assert (driver.identity.firmware, driver.identity.version) == ("GrblHAL", "1.1f.20260817")
            task = asyncio.create_task(driver.execute(RUN, program_at(PLATE)), name="run")
            words = await state(context, MachineState.HELD)
            assert words == "the program waits: turn the plate, then release; its motors are released after 25 ms ($1)"
            await driver.resume(soon(context))
            outcome = await task
            assert outcome.kind is OutcomeKind.SUCCEEDED
            assert outcome.evidence == {"commands": 34, "position_mm": {"X": 130.0, "Y": 70.0, "Z": 35.0}}
            assert context.of_kind(Progress)[-1] == Progress(34, 34)
            assert router.program()[-1] == "M30"
            await state(context, MachineState.IDLE)


async def test_a_lost_ok_is_no_success(tmp_path: Path) -> None:
    """Answers are counted: the one that is missing at the end may be that of any line."""
    with sim_router(tmp_path, "--fault", "drop-ok=60", speed=5000.0) as router:
        (tmp_path / "impatient").mkdir()
        shipped = (Path(__file__).parents[2] / "firmware_profiles" / "grblhal.toml").read_text()
        impatient = shipped.replace("silence_s = 20.0", "silence_s = 4.0")
        (tmp_path / "impatient" / "grblhal.toml").write_text(impatient)
        async with opened(router, tmp_path, profiles_dir=tmp_path / "impatient") as (driver, _):
            with pytest.raises(NotConfirmedError, match="idle and has not answered"):
                await driver.execute(RUN, write_program(tmp_path / "p.nc", ["G0 X1 Y1 Z1", *(["G0 X2", "G0 X1"] * 50)]))


# -- what must be so before the start


async def test_a_machine_that_is_not_homed_or_locked_takes_no_work(tmp_path: Path) -> None:
    program = write_program(tmp_path / "p.nc", ["G0 X1"])
    for option, words in ((), "not homed"), (("--locked",), "needs homing ($H), or unlocking ($X)"):
        with sim_router(tmp_path, *option, homed=False) as router:
            async with opened(router, tmp_path) as (driver, context):
                assert words in await state(context, MachineState.STOPPED)
                with pytest.raises(MachineError, match="cannot begin") as caught:
                    await driver.execute(RUN, program)
                assert caught.value.motion is Motion.NONE
                assert router.moves() == 0


async def test_where_the_site_says_so_a_program_homes_the_locked_machine_itself(tmp_path: Path) -> None:
    limits = LIMITS.model_copy(update={"homing": "program"})
    with sim_router(tmp_path, "--locked", homed=False) as router:
        async with opened(router, tmp_path, limits=limits) as (driver, context):
            await state(context, MachineState.IDLE)
            outcome = await driver.execute(RUN, write_program(tmp_path / "p.nc", ["$H", "G0 X10 Y20"]))
            assert outcome.kind is OutcomeKind.SUCCEEDED
            assert context.of_kind(Progress)[-1] == Progress(2, 2)
            assert router.blocks()[0] == "$H"
            assert outcome.evidence["position_mm"] == {"X": 10.0, "Y": 20.0, "Z": 0.0}


async def test_a_work_zero_that_takes_the_program_out_of_limits_is_refused_before_motion(tmp_path: Path) -> None:
    program = write_program(tmp_path / "p.nc", ["G0 X1", "G0 X100"])
    with sim_router(tmp_path, "--g54", "250,0,0") as router:
        async with opened(router, tmp_path) as (driver, _):
            with pytest.raises(NotAcceptableError, match=r"line 2: X in machine coordinates, with G54 at 250 mm: 350"):
                await driver.execute(RUN, program)
            assert router.moves() == 0


@pytest.mark.parametrize("reset", [(), ("--reset-on-open",)])
async def test_auto_does_not_try_grbl_and_says_what_to_name(tmp_path: Path, reset: tuple[str, ...]) -> None:
    with sim_router(tmp_path, *reset) as router:
        with pytest.raises(ConnectError, match="name the profile, 'grbl' or 'grblhal'"):
            async with opened(router, tmp_path, profile="auto"):
                pass
        with pytest.raises(IdentityError, match="which profile 'grbl' does not fit"):
            async with opened(router, tmp_path, profile="grbl"):
                pass
        wrong = bench_router(router).connection.model_copy(update={"uuid": "mill-7"})
        with pytest.raises(IdentityError, match="must be mill-7"):
            async with opened(router, tmp_path, connection=wrong):
                pass


async def test_what_does_not_speak_grbl_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.gcode.grbl_contact.HANDSHAKE_S", 0.3)
    with sim_router(tmp_path) as router:
        router.press_hold()
        await asyncio.to_thread(router.log.exists)
        with pytest.raises(ConnectError, match=r"held \(<Hold:0.*release or reset it at the machine"):
            async with opened(router, tmp_path):
                pass
        context = RecordingContext(tmp_path)
        assert "spindle" in await make_safe(bench_router(router), context, soon(context))
        async with opened(router, tmp_path) as (_, context):
            await state(context, MachineState.IDLE)


# -- hold and release


async def test_a_pause_is_confirmed_and_nothing_is_carried_out_until_the_resume(tmp_path: Path) -> None:
    with sim_router(tmp_path, speed=20.0) as router:
        async with opened(router, tmp_path) as (driver, context):
            with pytest.raises(NotAcceptableError):
                await driver.pause(soon(context))
            task = await begun(driver, context, tmp_path, [*LONG[:60], "G0 X50"])
            await asyncio.gather(driver.pause(soon(context)), driver.pause(soon(context)))
            stood = router.blocks()
            await state(context, MachineState.HELD, "held")
            await driver.pause(soon(context))
            assert router.blocks() == stood
            with pytest.raises(NotConfirmedError):
                await driver.resume(context.clock.mono_s())
            await driver.resume(soon(context))
            await driver.resume(soon(context))
            outcome = await task
            assert outcome.kind is OutcomeKind.SUCCEEDED
            assert router.program() == [*LONG[:60], "G0 X50"]


async def test_a_held_run_can_be_stopped(tmp_path: Path) -> None:
    with sim_router(tmp_path, speed=20.0) as router:
        async with opened(router, tmp_path) as (driver, context):
            task = await begun(driver, context, tmp_path, LONG)
            await driver.pause(soon(context))
            acts = router.moves()
            await driver.stop(soon(context))
            assert (await task).kind is OutcomeKind.STOPPED
            assert router.moves() == acts
            with pytest.raises(NotAcceptableError):
                await driver.resume(soon(context))
            assert not any(alarm.startswith("alarm") for alarm in router.happened())


async def test_a_resume_does_not_let_a_machine_go_on_that_is_being_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sim_router(tmp_path, speed=20.0) as router:
        async with opened(router, tmp_path) as (driver, context):
            task = await begun(driver, context, tmp_path, LONG)
            await driver.pause(soon(context))
            acts = router.moves()
            session = driver._session  # type: ignore[attr-defined]
            look, stopping = session.look, list[asyncio.Task[None]]()

            async def look_as_a_stop_begins() -> Status:
                status: Status = await look()
                monkeypatch.undo()
                stopping.append(asyncio.create_task(driver.stop(soon(context)), name="stop"))
                async with asyncio.timeout(DEADLINE_S):
                    while not session.stream.halting:  # noqa: ASYNC110 - nothing announces it
                        await asyncio.sleep(0)
                return status

            monkeypatch.setattr(session, "look", look_as_a_stop_begins)
            with pytest.raises(NotConfirmedError, match="no resume any more"):
                await driver.resume(soon(context))
            await stopping[0]
            assert (await task).kind is OutcomeKind.STOPPED
            assert router.moves() == acts
            assert not any(alarm.startswith("alarm") for alarm in router.happened())


async def test_a_person_holds_at_the_machine_and_lets_it_go_on(tmp_path: Path) -> None:
    with sim_router(tmp_path, speed=20.0) as router:
        async with opened(router, tmp_path) as (driver, context):
            task = await begun(driver, context, tmp_path, LONG[:60])
            router.press_hold()
            await state(context, MachineState.HELD, "held")
            router.press_hold()
            await state(context, MachineState.EXECUTE)
            assert (await task).kind is OutcomeKind.SUCCEEDED


# -- what goes wrong


async def test_a_limit_switch_ends_the_run_in_words_and_the_machine_is_locked(tmp_path: Path) -> None:
    with sim_router(tmp_path, "--fault", "alarm-after=40") as router:
        async with opened(router, tmp_path) as (driver, context):
            with pytest.raises(MachineError, match=r"ALARM:1 \(a limit switch was hit") as caught:
                await driver.execute(RUN, write_program(tmp_path / "p.nc", LONG))
            assert caught.value.motion is Motion.POSSIBLE
            assert any("limit switch" in message.text for message in context.of_kind(Message))
            assert isinstance(await driver.lost(), MachineError)
            with pytest.raises(NotConfirmedError):
                await driver.stop(soon(context))
        async with opened(router, tmp_path) as (driver, context):
            assert "locked by an alarm" in await state(context, MachineState.STOPPED)
            await driver.stop(soon(context))  # spindle and coolant: off by the reset, locked or not


@pytest.mark.parametrize("plain", [False, True])
async def test_a_refused_line_stops_the_machine_and_is_named(tmp_path: Path, plain: bool) -> None:
    """G18 is lawful for grbl, and the simulated one does not have it."""
    with sim_router(tmp_path, plain=plain) as router:
        async with opened(router, tmp_path) as (driver, _):
            with pytest.raises(MachineError, match=r"line 4 \(G18\) was refused: error:20"):
                await driver.execute(RUN, write_program(tmp_path / "p.nc", [*LONG[:3], "G18", *LONG[3:]]))
            assert router.happened().count("boot") == 2, "a reset empties what is behind the refused line"


@pytest.mark.parametrize("fault", ["die-after=40", ""])
async def test_a_reset_in_mid_program_ends_the_run(tmp_path: Path, fault: str) -> None:
    with sim_router(tmp_path, *(("--fault", fault) if fault else ()), speed=20.0 if not fault else 500.0) as router:
        async with opened(router, tmp_path) as (driver, context):
            task = await begun(driver, context, tmp_path, LONG)
            if not fault:
                router.reset()
            with pytest.raises(MachineError, match="the controller has restarted") as caught:
                await task
            assert caught.value.motion is Motion.POSSIBLE


async def test_a_controller_that_falls_silent_leaves_the_run_unknown(tmp_path: Path) -> None:
    with sim_router(tmp_path, "--fault", "silent-after=40") as router:
        (tmp_path / "impatient").mkdir()
        shipped = (Path(__file__).parents[2] / "firmware_profiles" / "grblhal.toml").read_text()
        (tmp_path / "impatient" / "grblhal.toml").write_text(shipped.replace("silence_s = 20.0", "silence_s = 1.5"))
        async with opened(router, tmp_path, profiles_dir=tmp_path / "impatient") as (driver, _):
            with pytest.raises(NotConfirmedError, match="nothing was heard for"):
                await driver.execute(RUN, write_program(tmp_path / "p.nc", LONG))


async def test_an_abort_in_motion_is_a_reset_and_the_machine_is_locked_after_it(tmp_path: Path) -> None:
    with sim_router(tmp_path, speed=20.0) as router:
        async with opened(router, tmp_path) as (driver, context):
            task = await begun(driver, context, tmp_path, LONG)
            await driver.abort()
            with pytest.raises(MachineError, match="reset in motion"):
                await task
        assert context.of_kind(StateSeen)[-1] == StateSeen(MachineState.ABORTED, "reset, it confirmed")
        async with opened(router, tmp_path) as (_, context):
            assert "locked by an alarm" in await state(context, MachineState.STOPPED)
        assert "alarm 3" in router.happened()


async def test_an_abort_that_nothing_confirms_is_left_to_the_emergency_stop(tmp_path: Path) -> None:
    with sim_router(tmp_path, "--fault", "silent-after=40") as router:
        async with opened(router, tmp_path) as (driver, context):
            task = await begun(driver, context, tmp_path, LONG)
            await carried_out(router, 40)
            await driver.abort()
            await driver.abort()
            assert context.of_kind(StateSeen)[-1] == StateSeen(MachineState.ABORTED, "not confirmed yet")
            with pytest.raises(MachineError, match="reset in motion"):
                await task
    words = "NOT confirmed: use the emergency stop of the machine"
    assert context.of_kind(StateSeen)[-1] == StateSeen(MachineState.ABORTED, words)


async def test_the_last_resort_of_an_abort_is_a_reset_by_dtr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sim_router(tmp_path, "--fault", "silent-after=40") as router:

        def set_dtr(self: link.Link, raised: bool) -> bool:
            """What a pseudo-terminal has no line for."""
            if raised:
                router.process.send_signal(signal.SIGUSR1)
            return True

        monkeypatch.setattr(link.Link, "set_dtr", set_dtr)
        async with opened(router, tmp_path) as (driver, context):
            task = await begun(driver, context, tmp_path, LONG)
            await carried_out(router, 40)
            await driver.abort()
            await asyncio.wait([task])
    assert context.of_kind(StateSeen)[-1] == StateSeen(MachineState.ABORTED, "reset by its DTR line")


async def test_a_program_that_cannot_be_read_or_resumed_moves_nothing(tmp_path: Path) -> None:
    gone = Program("gone.nc", tmp_path / "gone.nc", "", 1)
    with sim_router(tmp_path) as router:
        async with opened(router, tmp_path) as (driver, _):
            with pytest.raises(MachineError, match="cannot be read"):
                await driver.execute(RUN, gone)
            assert isinstance(await driver.recover(RUN, gone), Finished)
            lost = await driver.recover(replace(RUN, checkpoint={"format": 1, "lines": 2}), gone)
            assert isinstance(lost, Lost)
            assert "cannot be asked how far it came" in lost.reason


async def test_what_a_dead_host_left_is_carried_out_before_the_controller_is_asked(tmp_path: Path) -> None:
    with sim_router(tmp_path, tcp=True, speed=20.0) as router:
        host, _, port = router.place.removeprefix("tcp://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"G0 Z5\n" + b"G1 X90 F3000\nG1 X10\n" * 15 + b"G1 X5")
        await reader.readuntil(b"ok")
        writer.close()
        await writer.wait_closed()
        async with opened(router, tmp_path) as (driver, context):
            await state(context, MachineState.IDLE)
            assert driver.identity.firmware == "GrblHAL"
            assert "G1 X5" not in router.blocks(), "half a line is spoiled, not carried out"
