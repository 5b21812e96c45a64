"""A held print is resumed as if nothing had been; the driver alone, against a simulated printer as a process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import pytest

from drivers.gcode import PLUGIN, holding, resting
from drivers.gcode.driver import MODES_BASE
from edge.demo.meaning import as_meant
from edge.driver import (
    Capability,
    Driver,
    LinkLostError,
    Lost,
    MachineState,
    Motion,
    NotAcceptableError,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Program,
    Progress,
    StateSeen,
    Temperature,
)
from edge.testing.context import RecordingContext
from tests.helpers.printing import RUN, bench_machine, impatient_profile, program_of, write_program
from tests.helpers.sim import SimPrinter, sim_printer

PATIENCE_S = 60.0
SPEED = 200.0
SEED = 20261122

HEAT = ["M140 S60", "M104 S215", "G28", "M190 S60", "M109 S215"]
ABSOLUTE = [
    *HEAT,
    "G92 E0",
    *(f"G1 X{10 + i % 50} Y{20 + i % 30}.125 Z0.3 E{i / 100:.3f} F{3000 + i}" for i in range(400)),
]
RELATIVE = [
    *HEAT,
    "G90",
    "M83",
    "G1 X10.123 Y10.456 Z0.287 F3000",
    "G91",
    *["G1 X0.1 E0.01 F900", "G1 X-0.1 E0.01"] * 200,
]
COLD = ["G28", "G90", *["G1 X50.5 F6000", "G1 X10.5"] * 200]
PARKED = ["M83", "G1 E-1 F2100", "G91", "G1 Z5 F600", "G90", "M400"]


@dataclasses.dataclass
class Print:
    """A print under way."""

    driver: Driver
    context: RecordingContext
    running: asyncio.Task[Outcome]
    printer: SimPrinter

    def deadline_s(self, within_s: float = PATIENCE_S) -> float:
        return self.context.clock.mono_s() + within_s

    async def reached(self, commands: int) -> None:
        await self.context.seen(Progress, lambda seen: seen.done >= commands, PATIENCE_S)

    async def told(self, state: MachineState, words: str = "") -> None:
        await self.context.seen(StateSeen, lambda seen: seen.state is state and words in seen.detail, PATIENCE_S)

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(PATIENCE_S):
            return await self.running


def tuned(printer: SimPrinter, **connection: object):
    machine = bench_machine(printer)
    return dataclasses.replace(machine, connection=machine.connection.model_copy(update=connection))


@asynccontextmanager
async def printing(
    folder: Path, commands: list[str], *options: str, speed: float = SPEED, tcp: bool = False, **connection: object
) -> AsyncIterator[Print]:
    program = write_program(folder / "program.gcode", commands)
    with sim_printer(folder, *options, speed=speed, tcp=tcp) as printer:
        context = RecordingContext(folder)
        async with PLUGIN.open(tuned(printer, **connection), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            try:
                yield Print(driver, context, running, printer)
            finally:
                running.cancel()
                await asyncio.wait([running])


def states(context: RecordingContext) -> list[MachineState]:
    """In order, without repeats."""
    seen = [observation.state for observation in context.of_kind(StateSeen)]
    return [state for index, state in enumerate(seen) if index == 0 or seen[index - 1] is not state]


@pytest.mark.parametrize("commands", [ABSOLUTE, RELATIVE], ids=["absolute", "relative"])
@pytest.mark.parametrize("tcp", [False, True], ids=["one in flight", "window"])
async def test_a_print_that_was_paused_several_times_is_carried_out_exactly(
    tmp_path: Path, commands: list[str], tcp: bool
) -> None:
    async with printing(tmp_path, commands, tcp=tcp) as run:
        assert Capability.PAUSE in run.driver.capabilities
        for moment in (20, 90, 150):
            await run.reached(moment)
            await run.driver.pause(run.deadline_s())
            done = run.printer.program()
            await run.driver.pause(run.deadline_s())  # it is paused
            assert run.context.of_kind(StateSeen)[-1] == StateSeen(MachineState.HELD, "paused on request")
            assert run.printer.program() == done
            await run.driver.resume(run.deadline_s())
            await run.driver.resume(run.deadline_s())  # it goes on
        outcome = await run.outcome()
        assert (outcome.kind, outcome.reason) == (OutcomeKind.SUCCEEDED, f"all {len(commands)} commands carried out")
        assert program_of(run.printer) == [as_meant(command) for command in commands]
        assert states(run.context)[1:] == [
            MachineState.EXECUTE,
            *[MachineState.HELD, MachineState.EXECUTE] * 3,
            MachineState.IDLE,
        ]


async def test_position_extruder_feed_and_modes_are_as_before(tmp_path: Path) -> None:
    async with printing(tmp_path, RELATIVE) as run:
        await run.reached(50)
        await run.driver.pause(run.deadline_s())
        number = len(run.printer.program())
        pairs = (number - 9) // 2  # of moves there and back
        x_mm, e_mm = ("10.223", 0.01 * (number - 9)) if number % 2 == 0 else ("10.123", 0.02 * pairs)
        await run.driver.resume(run.deadline_s())
        macros = run.printer.macros()
        assert macros[1:7] == PARKED
        assert macros[7:] == [
            *("G90", f"G1 X{x_mm} Y10.456 F6000", "G1 Z0.287 F600", "M83", "G1 E1 F2100"),
            *(f"G92 E{e_mm:.2f}".rstrip("0").rstrip("."), "G1 F900", "G91", "M83", "M400"),
        ]
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED


async def test_a_pause_while_it_heats_holds_when_it_is_warm(tmp_path: Path) -> None:
    async with printing(tmp_path, ABSOLUTE, speed=40) as run:
        await run.reached(3)
        with pytest.raises(NotConfirmedError, match="held as soon as"):
            await run.driver.pause(run.deadline_s(0.2))
        await run.told(MachineState.HELD)
        assert run.printer.program() == HEAT[: len(run.printer.program())]
        await run.driver.resume(run.deadline_s())
        await run.reached(30)


async def test_a_cold_nozzle_is_not_asked_to_move_filament(tmp_path: Path) -> None:
    async with printing(tmp_path, COLD) as run:
        await run.reached(20)
        await run.driver.pause(run.deadline_s())
        await run.driver.resume(run.deadline_s())
        assert not [text for text in run.printer.macros() if text.startswith("G1") and "E" in text]
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == COLD


async def test_a_noisy_line_changes_nothing(tmp_path: Path) -> None:
    async with printing(tmp_path, ABSOLUTE, "--fault", "corrupt=0.01", "--seed", "7", speed=2000) as run:
        for moment in (30, 120, 200):
            await run.reached(moment)
            await run.driver.pause(run.deadline_s())
            await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == [as_meant(command) for command in ABSOLUTE]


@pytest.mark.parametrize("reports", [True, False], ids=["it reports by itself", "it is asked"])
async def test_what_a_held_print_is_asked_cannot_arrive_as_another_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: bool
) -> None:
    """One flipped bit makes M107 of M105: the fan would be off for the rest of the part, and nobody would know."""
    monkeypatch.setattr(resting, "POLL_S", 0.05)
    monkeypatch.setattr(holding, "LOOK_S", 0.05)
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    shipped = resources.files("firmware_profiles").joinpath("marlin-2.1.toml").read_text()
    silent = shipped.replace('report_temperatures = "M155 S2"', 'report_temperatures = ""')
    (profiles / "marlin-2.1.toml").write_text(shipped if reports else silent)
    program = write_program(tmp_path / "program.gcode", ABSOLUTE)
    with sim_printer(tmp_path, speed=SPEED) as printer:
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer, profiles), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            run = Print(driver, context, running, printer)
            await run.reached(30)
            await driver.pause(run.deadline_s())
            held = len(context.of_kind(Temperature))
            await context.seen(Temperature, lambda seen: len(context.of_kind(Temperature)) > held + 12, PATIENCE_S)
            await driver.resume(run.deadline_s())
            assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
    rows = printer.commands()
    numbers = [number for number, _ in rows]
    begun, ended = numbers.index("1"), numbers.index(str(len(ABSOLUTE) + 1))
    assert [text for number, text in rows[begun:ended] if number == "-"] == []
    asked = [text for number, text in rows[begun:ended] if text == "M105"]
    assert len(asked) >= 2 + 3 * (not reports)
    assert program_of(printer) == [as_meant(command) for command in ABSOLUTE]


async def test_held_for_long_the_nozzle_cools_and_is_warm_again_before_it_goes_on(tmp_path: Path) -> None:
    async with printing(tmp_path, ABSOLUTE, standby_after_s=0.1) as run:
        await run.reached(30)
        await run.driver.pause(run.deadline_s())
        await run.told(MachineState.HELD, "cools to 150")
        assert run.printer.macros()[-1] == "M104 S150"
        await run.driver.resume(run.deadline_s())
        assert run.printer.macros()[8:12] == ["M140 S60", "M104 S215", "M190 S60", "M109 S215"]
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == [as_meant(command) for command in ABSOLUTE]


@pytest.mark.parametrize("tcp", [False, True], ids=["one in flight", "window"])
async def test_whoever_pauses_and_resumes_at_whatever_moment_changes_nothing(tmp_path: Path, tcp: bool) -> None:
    moments = random.Random(SEED)
    async with printing(tmp_path, ABSOLUTE, tcp=tcp, standby_after_s=0.02) as run:
        await run.reached(len(HEAT))
        for _ in range(25):
            ask = moments.choice((run.driver.pause, run.driver.resume))
            # What is not confirmed in time stays asked for.
            with contextlib.suppress(NotConfirmedError, NotAcceptableError):
                await ask(run.deadline_s(moments.choice((0.0, 0.001, 0.01, 0.05))))
        with contextlib.suppress(NotAcceptableError):
            await run.driver.resume(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED
        assert program_of(run.printer) == [as_meant(command) for command in ABSOLUTE]
        assert any(text.startswith("G92") for text in run.printer.macros()), "it was held at least once"


async def test_a_held_print_can_be_stopped_and_the_next_one_starts_afresh(tmp_path: Path) -> None:
    async with printing(tmp_path, ABSOLUTE) as run:
        await run.reached(30)
        await run.driver.pause(run.deadline_s())
        await run.driver.stop(run.deadline_s())
        outcome = await run.outcome()
        assert outcome.kind is OutcomeKind.STOPPED
        assert outcome.evidence["commands"] == len(program_of(run.printer)), "of the program, none of the driver's own"
        assert {"M104 S0", "M140 S0"} <= set(run.printer.macros())
        with pytest.raises(NotAcceptableError, match="while a run is carried out"):
            await run.driver.resume(run.deadline_s())
        short = write_program(tmp_path / "short.gcode", ["G28", "G1 X10"])
        assert (await run.driver.execute(RUN, short)).kind is OutcomeKind.SUCCEEDED


async def test_a_pause_while_the_modes_are_set_holds_before_the_first_command(tmp_path: Path) -> None:
    async with printing(tmp_path, ABSOLUTE) as run:
        stream = run.driver._session.stream  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE_S):
            while stream._pulled <= MODES_BASE:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0)
        assert stream._source is not None, "not all of the modes are sent yet"
        await run.driver.pause(run.deadline_s())
        await run.driver.resume(run.deadline_s())
        outcome = await run.outcome()
        assert outcome.kind is OutcomeKind.SUCCEEDED, outcome.reason
        assert program_of(run.printer) == [as_meant(command) for command in ABSOLUTE]


async def test_a_stop_passes_a_pause_that_is_not_there_yet(tmp_path: Path) -> None:
    async with printing(tmp_path, ABSOLUTE, speed=20) as run:
        await run.reached(3)
        pausing = asyncio.create_task(run.driver.pause(run.deadline_s()), name="pause")
        await asyncio.sleep(0)
        await run.driver.stop(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.STOPPED
        with pytest.raises(NotConfirmedError, match="stopped instead"):
            await pausing


async def test_an_abort_ends_a_held_print(tmp_path: Path) -> None:
    async with printing(tmp_path, ABSOLUTE) as run:
        await run.reached(30)
        await run.driver.pause(run.deadline_s())
        await run.driver.abort()
        await asyncio.wait([run.running])
        await run.told(MachineState.ABORTED, "halted, it confirmed")
        with pytest.raises(Exception, match="aborted with M112"):
            await run.driver.resume(run.deadline_s())


async def test_pausing_what_does_not_run_is_refused(tmp_path: Path) -> None:
    with sim_printer(tmp_path) as printer:
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            for ask in (driver.pause, driver.resume):
                with pytest.raises(NotAcceptableError, match="while a run is carried out"):
                    await ask(context.clock.mono_s() + PATIENCE_S)


async def test_a_run_that_ends_first_is_not_held(tmp_path: Path) -> None:
    async with printing(tmp_path, ["G28", "G1 X200 F600"], speed=20) as run:
        await run.reached(2)  # what is left is to wait for the move
        with pytest.raises(NotAcceptableError, match="before its end"):
            await run.driver.pause(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.SUCCEEDED


async def test_a_printer_that_stands_elsewhere_when_paused_is_made_safe(tmp_path: Path) -> None:
    clamped = [*COLD[:20], "G1 X500", *["G4 P100"] * 200]
    async with printing(tmp_path, clamped) as run:
        await run.reached(25)
        with pytest.raises(NotConfirmedError, match="X is at 200 mm, the program has brought it to 500 mm"):
            await run.driver.pause(run.deadline_s())
        with pytest.raises(Exception, match="was to be held after command") as caught:
            await run.outcome()
        assert caught.value.motion is Motion.POSSIBLE  # type: ignore[attr-defined]
        assert "M104 S0" in run.printer.macros()


async def test_a_link_that_breaks_while_held_ends_the_run(tmp_path: Path) -> None:
    async with printing(tmp_path, ABSOLUTE) as run:
        await run.reached(30)
        await run.driver.pause(run.deadline_s())
        run.printer.process.send_signal(signal.SIGKILL)
        with pytest.raises(NotConfirmedError, match="link to the machine broke"):
            await run.outcome()


async def test_a_printer_that_falls_silent_while_held_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "LOOK_S", 0.1)
    (tmp_path / "profiles").mkdir()
    profiles = impatient_profile(tmp_path / "profiles", busy_interval_s=0.1, silence_s=0.5)
    program = write_program(tmp_path / "program.gcode", ABSOLUTE)
    with sim_printer(tmp_path, speed=SPEED) as printer:
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer, profiles), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            run = Print(driver, context, running, printer)
            await run.reached(30)
            await driver.pause(run.deadline_s())
            printer.process.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(LinkLostError, match="has said nothing for"):
                    await run.outcome()
            finally:
                printer.process.send_signal(signal.SIGCONT)


async def test_a_held_print_is_not_left_standing(tmp_path: Path) -> None:
    async with printing(tmp_path, ABSOLUTE) as run:
        await run.reached(30)
        await run.driver.pause(run.deadline_s())
        with pytest.raises(Exception, match="a held print stands aside"):
            await run.driver.detach()


async def test_a_daemon_that_dies_while_a_print_is_held_has_lost_it(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", ABSOLUTE)
    with sim_printer(tmp_path, speed=SPEED) as printer:
        run = await held_and_killed(printer, tmp_path, program)
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            found = await driver.recover(run, program)
            assert isinstance(found, Lost)
            assert "the print was held" in found.reason
            await driver.stop(context.clock.mono_s() + PATIENCE_S)
        assert "M104 S0" in printer.macros()


async def held_and_killed(printer: SimPrinter, folder: Path, program: Program):
    """Print, pause, and drop the line as a kill does; the run as edge hands it on."""
    context = RecordingContext(folder)
    async with PLUGIN.open(bench_machine(printer), context) as driver:
        running = asyncio.create_task(driver.execute(RUN, program), name="run")
        await context.seen(Progress, lambda seen: seen.done >= 30, PATIENCE_S)
        await driver.pause(context.clock.mono_s() + PATIENCE_S)
        driver._session.link_lost("killed")  # type: ignore[attr-defined]  # so that nobody can stop it
        await asyncio.wait([running])
        assert isinstance(running.exception(), NotConfirmedError)
    return dataclasses.replace(RUN, checkpoint=json.loads(json.dumps(context.checkpoints[-1])))


UNHOMED = ["M104 S200", *["G4 P300"] * 200, "G28", "G1 X50.5 F6000", "G1 X10.5"]


async def test_a_pause_before_homing_moves_nothing(tmp_path: Path) -> None:
    async with printing(tmp_path, UNHOMED, standby_after_s=0.1) as run:
        await run.reached(20)
        await run.driver.pause(run.deadline_s())
        await run.told(MachineState.HELD, "it has not moved aside, for its axes are not homed")
        await run.told(MachineState.HELD, "the nozzle cools")
        await run.driver.resume(run.deadline_s())
        outcome = await run.outcome()
        assert outcome.kind is OutcomeKind.SUCCEEDED, outcome.reason
        assert program_of(run.printer) == UNHOMED
        assert set(run.printer.macros()) == {"M400", "M104 S150", "M104 S200", "M109 S200"}


async def test_a_stop_before_homing_moves_nothing(tmp_path: Path) -> None:
    async with printing(tmp_path, UNHOMED) as run:
        await run.reached(20)
        await run.driver.stop(run.deadline_s())
        assert (await run.outcome()).kind is OutcomeKind.STOPPED
        assert run.printer.macros() == ["M104 S0", "M140 S0", "M107", "M400"]
