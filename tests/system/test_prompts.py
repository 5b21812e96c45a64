"""A printer that waits for a person, or whose people press its buttons, while a program is carried out."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from test_pause import PATIENCE_S, SPEED, printing

from drivers.gcode import PLUGIN
from drivers.gcode.replies import Action
from edge.driver import MachineState, Message, NotAcceptableError, NotConfirmedError, OutcomeKind, StateSeen
from edge.testing.context import RecordingContext
from tests.helpers.printing import RUN, bench_machine, impatient_profile, program_of, write_program
from tests.helpers.sim import SimPrinter, sim_printer

HOMED = ["G28", "G90", "G1 X10 F6000"]
MOVES = ["G1 X50.5", "G1 X10.5"] * 100


def answers(printer: SimPrinter) -> list[str]:
    """What the printer was told to go on with, and has heard."""
    return [text for number, text in printer.commands() if number == "-" and text[:4] in ("M876", "M108")]


@pytest.mark.parametrize("command", ["M0", "M1 Change the plate", "M600"])
@pytest.mark.parametrize("option", ["", "--no-prompts"])
async def test_a_question_of_the_printer_is_answered_by_resume(tmp_path: Path, command: str, option: str) -> None:
    commands = [*HOMED, command, *MOVES]
    async with printing(tmp_path, commands, *([option] if option else [])) as run:
        words = {"M0": "Click please", "M1": "Change the plate", "M6": "Insert filament"}[command[:2]]
        await run.told(MachineState.HELD, words)
        await run.driver.pause(run.deadline_s())  # it stands already
        await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == commands
        assert answers(run.printer) == ["M108" if option else "M876 S0"]


async def test_two_questions_are_two_answers(tmp_path: Path) -> None:
    commands = [*HOMED, "M0 first", "M0 second", *MOVES]
    async with printing(tmp_path, commands) as run:
        await run.told(MachineState.HELD, "first")
        await asyncio.gather(*(run.driver.resume(run.deadline_s()) for _ in range(3)))
        await run.told(MachineState.HELD, "second")
        await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == commands


@pytest.mark.parametrize("option", ["", "--no-prompts"])
async def test_an_answer_that_gets_lost_is_given_again(tmp_path: Path, option: str) -> None:
    commands = [*HOMED, "M0 first", "M0 second", *MOVES]
    options = ["--fault", "lose-answers=2", *([option] if option else [])]
    async with printing(tmp_path, commands, *options) as run:
        await run.told(MachineState.HELD, "first")
        await run.driver.resume(run.deadline_s())
        await run.told(MachineState.HELD, "second")
        assert answers(run.printer) == ["M108" if option else "M876 S0"], "none of them answers the next question"
        await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == commands
        assert len(answers(run.printer)) == 2


async def test_answers_that_all_get_lost_are_told_and_the_next_word_of_a_person_tries_again(tmp_path: Path) -> None:
    commands = [*HOMED, "M0 first", *MOVES]
    async with printing(tmp_path, commands, "--fault", "lose-answers=4") as run:
        await run.told(MachineState.HELD, "first")
        with pytest.raises(NotConfirmedError, match=r"was told 3 times to go on, and still waits: .*push the button"):
            await run.driver.resume(run.deadline_s())
        assert run.context.of_kind(StateSeen)[-1].state is MachineState.HELD
        await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == commands


async def test_a_second_question_in_the_same_command_is_for_a_person_again(tmp_path: Path) -> None:
    commands = [*HOMED, "M600", *MOVES]
    async with printing(tmp_path, commands, "--asks-for-more") as run:
        await run.told(MachineState.HELD, "Nozzle Parked")
        with pytest.raises(NotConfirmedError, match="has taken the answer, and asks once more: Paused"):
            await run.driver.resume(run.deadline_s())
        await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == commands
        assert answers(run.printer) == ["M876 S0", "M876 S1"]


async def test_a_person_who_answers_at_the_machine_needs_no_release(tmp_path: Path) -> None:
    # A second of the printer's time is 5 ms: long enough to see it held, and it goes on by itself.
    commands = [*HOMED, "M0 S60", *MOVES]
    async with printing(tmp_path, commands, "--no-emergency-parser") as run:
        await run.told(MachineState.HELD)
        with pytest.raises(NotAcceptableError, match="push the button at the printer"):
            await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == commands


async def test_hours_of_waiting_for_a_person_are_no_silence(tmp_path: Path) -> None:
    async with printing(tmp_path, [*HOMED, "M0 S7200", *MOVES], speed=7200) as run:
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED


async def test_a_firmware_without_busy_messages_may_be_silent_while_it_waits_for_a_person(tmp_path: Path) -> None:
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    silence_s = 2.0
    impatient_profile(profiles, 0.0, silence_s)
    program = write_program(tmp_path / "program.gcode", [*HOMED, "M600", *MOVES])
    with sim_printer(tmp_path, speed=SPEED) as printer:
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer, profiles), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            await context.seen(StateSeen, lambda seen: "Nozzle Parked" in seen.detail, PATIENCE_S)
            printer.process.send_signal(signal.SIGSTOP)
            finished, _ = await asyncio.wait([running], timeout=1.5 * silence_s)
            assert not finished
            printer.process.send_signal(signal.SIGCONT)
            await driver.resume(context.clock.mono_s() + PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                assert (await running).kind is OutcomeKind.SUCCEEDED


async def test_a_run_out_holds_the_run_until_the_filament_is_changed(tmp_path: Path) -> None:
    commands = [*HOMED, *MOVES]
    async with printing(tmp_path, commands, "--fault", "run-out-after=50") as run:
        await run.told(MachineState.HELD, "the filament has run out")
        await run.told(MachineState.HELD, "Nozzle Parked")
        await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == commands


async def test_pause_and_resume_at_the_display_are_those_of_the_host(tmp_path: Path) -> None:
    commands = [*HOMED, *MOVES]
    async with printing(tmp_path, commands, "--fault", "pause-after=50") as run:
        await run.told(MachineState.HELD, "paused by a person at the printer")
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == commands


async def test_who_paused_from_here_is_not_overruled_at_the_display(tmp_path: Path) -> None:
    async with printing(tmp_path, [*HOMED, *MOVES], "--fault", "pause-after=50") as run:
        await run.told(MachineState.HELD, "paused by a person at the printer")
        await run.driver.pause(run.deadline_s())
        await run.context.seen(Message, lambda seen: "asks to go on; release" in seen.text, PATIENCE_S)
        assert run.context.of_kind(StateSeen)[-1].state is MachineState.HELD
        await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED


async def test_a_run_out_that_is_left_to_the_host_is_a_pause(tmp_path: Path) -> None:
    async with printing(tmp_path, [*HOMED, *MOVES]) as run:
        await run.reached(20)
        run.driver._heard(Action("pause filament_runout 0"))  # type: ignore[attr-defined]
        await run.told(MachineState.HELD, "paused by the printer: the filament has run out")
        await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED


async def test_a_cancel_at_the_display_is_a_stop(tmp_path: Path) -> None:
    async with printing(tmp_path, [*HOMED, *MOVES], "--fault", "cancel-after=50") as run:
        outcome = await run.outcome()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.STOPPED, "stopped by a person at the printer")
        assert {"M104 S0", "M140 S0"} <= set(run.printer.macros())


async def test_a_stop_ends_a_question(tmp_path: Path) -> None:
    async with printing(tmp_path, [*HOMED, "M0", *MOVES]) as run:
        await run.told(MachineState.HELD)
        await run.driver.stop(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.STOPPED


async def test_a_stop_that_nobody_at_the_printer_lets_through_is_not_confirmed(tmp_path: Path) -> None:
    async with printing(tmp_path, [*HOMED, "M0", *MOVES], "--no-emergency-parser") as run:
        await run.told(MachineState.HELD)
        with pytest.raises(NotConfirmedError):
            await run.driver.stop(run.deadline_s(0.3))
        run.printer.process.kill()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([run.running])
