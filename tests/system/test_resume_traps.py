"""What must never be taken for the place where a print stands; the driver alone, against a real simulated printer."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from importlib import resources
from pathlib import Path

import pytest

from drivers.gcode import PLUGIN
from drivers.gcode.driver import MODES_BASE
from edge.driver import (
    At,
    Capability,
    Driver,
    Finished,
    Json,
    Lost,
    Motion,
    NotConfirmedError,
    OutcomeKind,
    Program,
    Progress,
    Run,
    Temperature,
)
from edge.testing.context import RecordingContext
from tests.helpers.printing import RUN, bench_machine, write_program
from tests.helpers.sim import SimPrinter, sim_printer

PATIENCE_S = 60.0
SHORT = ["G28", "G90", "G1 X10 F6000", "G1 X20"]
LONG = ["G28", "G90", *["G1 X50 F6000", "G1 X10"] * 400]


def left_by(context: RecordingContext, checkpoint: Json) -> Run:
    """The run as edge hands it on after a crash."""
    return dataclasses.replace(RUN, checkpoint=json.loads(json.dumps(checkpoint)))


async def killed(printer: SimPrinter, folder: Path, program: Program, commands: int) -> Run:
    """Print, and let go of the line in the middle, as a kill does; what the next daemon finds."""
    context = RecordingContext(folder)
    async with PLUGIN.open(bench_machine(printer), context) as driver:
        running = asyncio.create_task(driver.execute(RUN, program), name="run")
        await context.seen(Progress, lambda seen: seen.done >= commands, PATIENCE_S)
        await driver.detach()
        running.cancel()
        await asyncio.wait([running])
    return left_by(context, context.checkpoints[-1])


async def recovered(driver: Driver, run: Run, program: Program) -> At:
    found = await driver.recover(run, program)
    assert isinstance(found, At), found
    return found


async def test_the_counter_of_the_program_before_is_never_taken_for_this_one(tmp_path: Path) -> None:
    first = write_program(tmp_path / "first.gcode", SHORT)
    second = write_program(tmp_path / "second.gcode", [*SHORT, *SHORT])

    class Dying(RecordingContext):
        """Dies when it is to write down the first reservation."""

        async def checkpoint(self, value: Json) -> None:
            raise asyncio.CancelledError

    with sim_printer(tmp_path) as printer:
        async with PLUGIN.open(bench_machine(printer), RecordingContext(tmp_path)) as driver:
            assert (await driver.execute(RUN, first)).kind is OutcomeKind.SUCCEEDED
        context = Dying(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, second), name="run")
            await context.seen(Progress, lambda seen: seen.done == 0, PATIENCE_S)
            running.cancel()
            await asyncio.wait([running])
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            found = await driver.recover(left_by(context, None), second)
            assert isinstance(found, Finished)
            assert (found.outcome.kind, found.outcome.motion) == (OutcomeKind.FAILED, Motion.NONE)


async def test_a_stop_leaves_a_counter_that_is_no_programs(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)
    with sim_printer(tmp_path, speed=100.0) as printer:
        run = await killed(printer, tmp_path, program, 20)
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            await recovered(driver, run, program)
            await driver.stop(context.clock.mono_s() + PATIENCE_S)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            found = await driver.recover(run, program)
            assert isinstance(found, Lost)
            assert "counts line 9000000" in found.reason


async def test_a_printer_that_was_moved_between_recover_and_execute_does_not_go_on(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)
    with sim_printer(tmp_path, speed=100.0) as printer:
        run = await killed(printer, tmp_path, program, 20)
        before = len(printer.program())
        async with PLUGIN.open(bench_machine(printer), RecordingContext(tmp_path)) as driver:
            found = await recovered(driver, run, program)
            await driver._session.ask("G1 X77")  # type: ignore[attr-defined]  # a hand at the printer's own display
            with pytest.raises(NotConfirmedError, match=r"the print cannot go on: X is at 77 mm"):
                await driver.execute(run, program, found)
        assert len(printer.program()) == before


async def test_a_print_goes_on_after_a_detach_and_ends_exactly(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)
    with sim_printer(tmp_path, speed=100.0) as printer:
        run = await killed(printer, tmp_path, program, 20)
        async with PLUGIN.open(bench_machine(printer), RecordingContext(tmp_path)) as driver:
            found = await recovered(driver, run, program)
            assert (await driver.execute(run, program, found)).kind is OutcomeKind.SUCCEEDED
        assert printer.program() == [*LONG, "M400"]


async def test_a_print_that_is_left_before_its_first_command_has_not_begun(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)

    class Leaving(RecordingContext):
        """The run is to be left while its first reservation is written down."""

        async def checkpoint(self, value: Json) -> None:
            await super().checkpoint(value)
            if len(self.checkpoints) == 1:
                leaving.append(asyncio.create_task(driver.detach(), name="detach"))
                await asyncio.sleep(0)

    leaving: list[asyncio.Task[None]] = []
    with sim_printer(tmp_path, speed=100.0) as printer:
        context = Leaving(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            await context.seen(Progress, lambda seen: seen.done == 0, PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                while not leaving:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0)
                await leaving[0]
            running.cancel()
            await asyncio.wait([running])
        assert printer.program() == []
        async with PLUGIN.open(bench_machine(printer), RecordingContext(tmp_path)) as driver:
            found = await driver.recover(left_by(context, context.checkpoints[-1]), program)
        assert isinstance(found, Finished), found
        assert (found.outcome.kind, found.outcome.motion) == (OutcomeKind.FAILED, Motion.NONE)


async def test_a_print_that_is_left_while_its_modes_are_set_has_not_begun(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)
    with sim_printer(tmp_path, speed=100.0) as printer:
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            stream = driver._session.stream  # type: ignore[attr-defined]
            async with asyncio.timeout(PATIENCE_S):
                while stream.acked <= MODES_BASE:  # noqa: ASYNC110 - nothing announces it
                    await asyncio.sleep(0)
                await driver.detach()
            running.cancel()
            await asyncio.wait([running])
        assert printer.program() == []
        assert context.checkpoints == []
        async with PLUGIN.open(bench_machine(printer), RecordingContext(tmp_path)) as driver:
            found = await driver.recover(left_by(context, None), program)
            assert isinstance(found, Finished), found
            assert (found.outcome.kind, found.outcome.motion) == (OutcomeKind.FAILED, Motion.NONE)
            assert (await driver.execute(RUN, program)).kind is OutcomeKind.SUCCEEDED
        assert printer.program() == [*LONG, "M400"]


async def test_a_heartbeat_that_cannot_be_written_ends_no_print(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)
    with sim_printer(tmp_path, speed=500.0) as printer:
        context = RecordingContext(tmp_path)
        context.runtime_dir = tmp_path / "gone"
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            assert (await driver.execute(RUN, program)).kind is OutcomeKind.SUCCEEDED


HOT = ["G28", "G90", "M104 S215", "M109 S215", *["G1 X50 F6000", "G1 X10"] * 400]


@pytest.mark.parametrize(
    ("meddling", "words"),
    [
        ("M104 S0", "heater T has the target 0 degC, it must be 215 degC"),
        ("G1 X77", "X is at 77 mm"),
        ("N5000 M110 N5000*125", "the printer counts line 5000, it must be"),
    ],
)
async def test_what_others_did_to_the_printer_ends_the_print(tmp_path: Path, meddling: str, words: str) -> None:
    program = write_program(tmp_path / "program.gcode", HOT)
    with sim_printer(tmp_path, speed=100.0) as printer:
        run = await killed(printer, tmp_path, program, 20)
        async with PLUGIN.open(bench_machine(printer), RecordingContext(tmp_path)) as driver:
            await driver._session.ask(meddling)  # type: ignore[attr-defined]  # a hand at the printer's own display
            found = await driver.recover(run, program)
            assert isinstance(found, Lost)
            assert words in found.reason
            assert found.same_machine


async def test_a_heater_that_was_off_for_a_while_ends_the_print(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", HOT)
    with sim_printer(tmp_path, speed=100.0) as printer:
        run = await killed(printer, tmp_path, program, 20)
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            await driver._session.ask("M104 S0")  # type: ignore[attr-defined]
            await context.seen(Temperature, lambda seen: seen.name == "T" and seen.actual_degc < 100.0, PATIENCE_S)
            await driver._session.ask("M104 S215")  # type: ignore[attr-defined]
            found = await driver.recover(run, program)
            assert isinstance(found, Lost)
            assert "heater T has cooled" in found.reason


async def test_another_printer_on_the_port_is_left_alone(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)
    with sim_printer(tmp_path, speed=100.0) as printer:
        run = await killed(printer, tmp_path, program, 20)
    with sim_printer(tmp_path, "--uuid", "00000000-0000-4000-8000-000000000002") as other:
        async with PLUGIN.open(bench_machine(other), RecordingContext(tmp_path)) as driver:
            found = await driver.recover(run, program)
            assert isinstance(found, Lost)
            assert ("another printer is there" in found.reason, found.same_machine) == (True, False)


async def test_a_firmware_that_cannot_be_asked_proves_nothing(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)
    with sim_printer(tmp_path, speed=100.0) as printer:
        run = await killed(printer, tmp_path, program, 20)
        machine = bench_machine(printer, profile="generic")
        async with PLUGIN.open(machine, RecordingContext(tmp_path)) as driver:
            assert not driver.capabilities & {Capability.DETACH, Capability.PAUSE}
            found = await driver.recover(run, program)
            assert isinstance(found, Lost)
            assert "cannot be asked how far it came" in found.reason


async def test_a_gap_in_which_motors_may_have_been_released_ends_the_print(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    shipped = resources.files("firmware_profiles").joinpath("marlin-2.1.toml").read_text()
    (profiles / "marlin-2.1.toml").write_text(shipped.replace("resume_gap_max_s = 60.0", "resume_gap_max_s = 0.001"))
    with sim_printer(tmp_path, speed=100.0) as printer:
        run = await killed(printer, tmp_path, program, 20)
        async with PLUGIN.open(bench_machine(printer, profiles), RecordingContext(tmp_path)) as driver:
            found = await driver.recover(run, program)
            assert isinstance(found, Lost)
            assert "the pause was" in found.reason


async def test_a_printer_that_was_reset_or_is_cold_does_not_go_on(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", LONG)
    with sim_printer(tmp_path, speed=100.0) as printer:
        run = await killed(printer, tmp_path, program, 20)
        printer.reset()
        async with PLUGIN.open(bench_machine(printer), RecordingContext(tmp_path)) as driver:
            found = await driver.recover(run, program)
            assert isinstance(found, Lost)
            assert "reset in between" in found.reason
