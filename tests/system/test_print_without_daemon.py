"""Whole prints through the real driver, on a simulated printer in a process of its own. No daemon takes part."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import signal
import time
from pathlib import Path

import pytest

from drivers.gcode import PLUGIN
from drivers.gcode.config import Printer
from edge.driver import (
    Capability,
    ConnectError,
    IdentityError,
    LinkHealth,
    LinkLostError,
    MachineError,
    MachineState,
    Message,
    Motion,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Program,
    Progress,
    StateSeen,
    Temperature,
)
from edge.testing import RecordingContext
from tests.helpers.printing import (
    FINAL,
    RUN,
    bench_machine,
    commands_in,
    impatient_profile,
    program_at,
    program_of,
    write_program,
)
from tests.helpers.sim import SimPrinter, sim_printer

ROOT = Path(__file__).parent.parent.parent
TINY = program_at(ROOT / "edge" / "demo" / "tiny.gcode")
BRACKET = program_at(ROOT / "tests" / "programs" / "bracket.gcode")
BRACKET_MAX_S = 110.0
PATIENCE_S = 60.0

SWITCHED_OFF = "it was switched off, and has confirmed it"
STOP_SAFE = ["M104 S0", "M140 S0", "M107"]
STOP_PARK = ["G91", "G1 Z10 F600", "G90"]


async def carry_out(
    machine: Printer, program: Program, context: RecordingContext, within_s: float = PATIENCE_S
) -> Outcome:
    async with asyncio.timeout(within_s), PLUGIN.open(machine, context) as driver:
        return await driver.execute(RUN, program)


def targets(context: RecordingContext) -> dict[str, float]:
    return {seen.name: seen.target_degc for seen in context.of_kind(Temperature)}


# -- to the end


@pytest.mark.parametrize("tcp", [False, True], ids=["pty", "tcp"])
async def test_a_whole_print_is_carried_out_command_by_command(tmp_path: Path, tcp: bool) -> None:
    context = RecordingContext(tmp_path)
    with sim_printer(tmp_path, tcp=tcp) as printer:
        outcome = await carry_out(bench_machine(printer), TINY, context)
        expected = commands_in(TINY.path)
        assert printer.program() == [*expected, FINAL]
    assert outcome.kind is OutcomeKind.SUCCEEDED
    assert outcome.evidence["commands"] == len(expected)
    assert outcome.evidence["resends"] == 0
    assert context.of_kind(Progress)[-1] == Progress(len(expected), len(expected))


async def test_a_long_print_is_exact_and_fast(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    # Not faster: the printer reports its temperatures every 2 s of its own time.
    with sim_printer(tmp_path, speed=1000.0) as printer:
        started_s = time.monotonic()
        outcome = await carry_out(bench_machine(printer), BRACKET, context, BRACKET_MAX_S)
        took_s = time.monotonic() - started_s
        expected = commands_in(BRACKET.path)
        assert len(expected) == 63_343
        assert program_of(printer) == expected
    assert outcome.kind is OutcomeKind.SUCCEEDED
    assert took_s < BRACKET_MAX_S


@pytest.mark.parametrize(
    "faults",
    [
        ["corrupt=0.01"],
        ["corrupt=0.01", "no-ok-after-resend"],
        ["drop-ok=700"],
        ["drop-ok=1"],
    ],
    ids=",".join,
)
async def test_a_bad_link_costs_time_and_no_command(tmp_path: Path, faults: list[str]) -> None:
    context = RecordingContext(tmp_path)
    options = [option for fault in faults for option in ("--fault", fault)]
    profiles = impatient_profile(tmp_path, busy_interval_s=0.1, silence_s=20.0)
    with sim_printer(tmp_path, *options, "--seed", "3") as printer:
        outcome = await carry_out(bench_machine(printer, profiles), TINY, context)
        assert program_of(printer) == commands_in(TINY.path)
    assert outcome.kind is OutcomeKind.SUCCEEDED
    health = context.of_kind(LinkHealth)[-1]
    assert (health.resends > 0) == (faults[0] == "corrupt=0.01")
    assert health.time_outs > 0 or faults[0] == "corrupt=0.01"
    told = [seen.detail for seen in context.of_kind(StateSeen) if "keeps erring" in seen.detail]
    assert len(told) == (faults[0] == "corrupt=0.01"), "once is enough"


@pytest.mark.parametrize("tcp", [False, True], ids=["pty", "tcp"])
async def test_a_board_that_resets_when_its_port_is_opened_prints(tmp_path: Path, tcp: bool) -> None:
    with sim_printer(tmp_path, "--reset-on-open", tcp=tcp) as printer:
        outcome = await carry_out(bench_machine(printer), TINY, RecordingContext(tmp_path))
        assert program_of(printer) == commands_in(TINY.path)
    assert outcome.kind is OutcomeKind.SUCCEEDED


async def test_advanced_ok_and_no_emergency_parser_print(tmp_path: Path) -> None:
    with sim_printer(tmp_path, "--advanced-ok", "--no-emergency-parser") as printer:
        outcome = await carry_out(bench_machine(printer), TINY, RecordingContext(tmp_path))
        assert program_of(printer) == commands_in(TINY.path)
    assert outcome.kind is OutcomeKind.SUCCEEDED


async def test_a_counter_left_by_another_print_and_half_a_line_do_not_matter(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    profiles = impatient_profile(tmp_path, busy_interval_s=0.1, silence_s=20.0)
    with sim_printer(tmp_path, tcp=True) as printer:
        machine = bench_machine(printer, profiles)
        await carry_out(machine, TINY, context)
        host, _, port = printer.place.removeprefix("tcp://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"N1864 G1 X")
        writer.close()
        await writer.wait_closed()
        outcome = await carry_out(machine, TINY, context)
        assert program_of(printer) == commands_in(TINY.path)
    assert outcome.kind is OutcomeKind.SUCCEEDED


async def test_a_printer_that_is_busy_with_what_another_host_asked_is_waited_for(tmp_path: Path) -> None:
    with sim_printer(tmp_path, tcp=True, speed=100.0) as printer:
        host, _, port = printer.place.removeprefix("tcp://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"M109 S215\nM105\n")
        assert b" /215.00 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
        program = write_program(tmp_path / "short.gcode", ["G28", "G1 X10", "G1 X20 E1"])
        outcome = await carry_out(bench_machine(printer), program, RecordingContext(tmp_path))
        assert program_of(printer) == commands_in(program.path)
    assert outcome.kind is OutcomeKind.SUCCEEDED


# -- failures


async def test_a_program_that_is_gone_moves_nothing(tmp_path: Path) -> None:
    program = write_program(tmp_path / "short.gcode", ["G28"])
    program.path.unlink()
    with (
        sim_printer(tmp_path) as printer,
        pytest.raises(MachineError, match=r"short\.gcode cannot be read: No such file") as caught,
    ):
        await carry_out(bench_machine(printer), program, RecordingContext(tmp_path))
    assert caught.value.motion is Motion.NONE


async def failure(printer: SimPrinter, folder: Path, program: Program = TINY) -> MachineError:
    """How a print fails; what was carried out until then is the beginning of the program."""
    profiles = impatient_profile(folder, busy_interval_s=0.1, silence_s=0.5)
    with pytest.raises(MachineError) as caught:
        await carry_out(bench_machine(printer, profiles), program, RecordingContext(folder))
    assert caught.value.motion is Motion.POSSIBLE
    done = program_of(printer)
    assert done == commands_in(program.path)[: len(done)]
    return caught.value


async def test_a_board_that_restarts_in_mid_print_fails_the_run(tmp_path: Path) -> None:
    with sim_printer(tmp_path, "--fault", "die-after=500") as printer:
        error = await failure(printer, tmp_path)
    assert str(error) == "the printer has restarted"
    assert not isinstance(error, NotConfirmedError)


async def test_a_firmware_that_stops_itself_fails_the_run_in_its_own_words(tmp_path: Path) -> None:
    with sim_printer(tmp_path, "--fault", "halt-after=500") as printer:
        error = await failure(printer, tmp_path)
    assert str(error).startswith("the printer stopped itself: ")
    assert not isinstance(error, NotConfirmedError)


async def test_a_firmware_that_falls_silent_is_one_that_cannot_be_reached(tmp_path: Path) -> None:
    with sim_printer(tmp_path, "--fault", "silent-after=500") as printer:
        error = await failure(printer, tmp_path)
    assert isinstance(error, LinkLostError)
    assert re.fullmatch(r"the printer has said nothing for \d+ s", str(error))


@pytest.mark.parametrize("tcp", [False, True], ids=["one in flight", "window"])
async def test_a_printer_that_was_frozen_for_longer_than_is_allowed_goes_on_when_it_answers(
    tmp_path: Path, tcp: bool
) -> None:
    silence_s = 1.5
    program = write_program(tmp_path / "program.gcode", ["G28", *["G1 X10 F6000", "G1 X50"] * 500])
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    impatient_profile(profiles, busy_interval_s=0.5, silence_s=silence_s)
    context = RecordingContext(tmp_path)
    with sim_printer(tmp_path, tcp=tcp, speed=100.0) as printer:
        async with asyncio.timeout(PATIENCE_S), PLUGIN.open(bench_machine(printer, profiles), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            try:
                await context.seen(Progress, lambda seen: seen.done >= 100, PATIENCE_S)
                told = len(context.of_kind(StateSeen))
                printer.process.send_signal(signal.SIGSTOP)
                await context.seen(StateSeen, lambda seen: "said nothing for" in seen.detail, PATIENCE_S)
                printer.process.send_signal(signal.SIGCONT)
                await context.seen(Message, lambda seen: "speaks again" in seen.text, PATIENCE_S)
                assert {seen.state for seen in context.of_kind(StateSeen)[told:]} == {MachineState.EXECUTE}
                assert context.of_kind(StateSeen)[-1].detail == ""
                outcome = await running
            finally:
                running.cancel()
                await asyncio.wait([running])
        assert outcome.kind is OutcomeKind.SUCCEEDED
        assert program_of(printer) == commands_in(program.path)


async def test_an_extrusion_that_is_too_cold_fails_the_run(tmp_path: Path) -> None:
    program = write_program(tmp_path / "cold.gcode", ["G28", "G1 X10 E5 F600", "G1 X20"])
    with sim_printer(tmp_path) as printer:
        error = await failure(printer, tmp_path, program)
    assert str(error) == f"the firmware did not carry out a command: cold extrusion prevented; {SWITCHED_OFF}"


async def test_a_command_that_the_firmware_does_not_know_fails_the_run(tmp_path: Path) -> None:
    program = write_program(tmp_path / "odd.gcode", ["G28", "G999 X1", "G1 X20"])
    with sim_printer(tmp_path) as printer:
        error = await failure(printer, tmp_path, program)
    assert str(error) == f'the firmware does not know the command "G999 X1"; {SWITCHED_OFF}'


async def test_another_firmware_than_configured_is_refused(tmp_path: Path) -> None:
    profiles = impatient_profile(tmp_path, 2.0, 20.0)
    other = (profiles / "marlin-2.1.toml").read_text().replace("'^Marlin ", "'^Prusa ")
    (profiles / "prusa.toml").write_text(other)
    with sim_printer(tmp_path) as printer, pytest.raises(IdentityError, match="which profile 'prusa' does not fit"):
        await carry_out(bench_machine(printer, profiles, "prusa"), TINY, RecordingContext(tmp_path))


async def test_a_port_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with sim_printer(tmp_path) as printer:
        machine = bench_machine(printer)
    gone = machine.connection.model_copy(update={"port": str(tmp_path / "printer")})
    machine = dataclasses.replace(machine, connection=gone)
    with pytest.raises(ConnectError, match="does not exist"):
        await carry_out(machine, TINY, RecordingContext(tmp_path))


# -- stop


async def stopped(printer: SimPrinter, folder: Path, first: str, within_s: float = PATIENCE_S) -> list[str]:
    """Stop a print that blocks in `first`; what the printer did for the stop."""
    program = write_program(folder / "program.gcode", ["G28", "M140 S60", first, *["G1 X1 F600", "G1 X2"] * 50])
    context = RecordingContext(folder)
    async with asyncio.timeout(PATIENCE_S), PLUGIN.open(bench_machine(printer), context) as driver:
        running = asyncio.create_task(driver.execute(RUN, program), name="run")
        await context.seen(Progress, lambda progress: progress.done >= 2, PATIENCE_S)
        await driver.stop(context.clock.mono_s() + within_s)
        outcome = await running
    assert outcome.kind is OutcomeKind.STOPPED
    assert not any(targets(context).values())
    return printer.macros()


@pytest.mark.parametrize("first", ["M109 S215", "M190 S100", "M0", "G4 P5000", "M400"])
async def test_a_stop_ends_a_command_that_blocks_or_waits_for_its_end(tmp_path: Path, first: str) -> None:
    with sim_printer(tmp_path, speed=50.0) as printer:
        assert await stopped(printer, tmp_path, first) == [*STOP_SAFE, *STOP_PARK, FINAL]


@pytest.mark.parametrize(("share", "seed"), [("0.1", "11"), ("0.3", "23"), ("0.3", "24")])
async def test_a_stop_on_a_bad_link_is_carried_out_exactly_once(tmp_path: Path, share: str, seed: str) -> None:
    with sim_printer(tmp_path, "--fault", f"corrupt={share}", "--seed", seed, speed=500.0) as printer:
        program = write_program(tmp_path / "program.gcode", ["G28", "M140 S60", *["G1 X1 F600", "G1 X2"] * 500])
        context = RecordingContext(tmp_path)
        profiles = impatient_profile(tmp_path, busy_interval_s=0.1, silence_s=20.0)
        machine = bench_machine(printer, profiles)
        async with asyncio.timeout(PATIENCE_S), PLUGIN.open(machine, context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            await context.seen(Progress, lambda progress: progress.done >= 20, PATIENCE_S)
            await driver.stop(context.clock.mono_s() + PATIENCE_S)
            assert (await running).kind is OutcomeKind.STOPPED
        assert printer.macros() == [*STOP_SAFE, *STOP_PARK, FINAL]


async def test_a_stop_that_cannot_be_confirmed_in_time_says_so(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", ["G28", "G4 S100000", "G1 X1"])
    context = RecordingContext(tmp_path)
    with sim_printer(tmp_path) as printer:
        async with asyncio.timeout(PATIENCE_S), PLUGIN.open(bench_machine(printer), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            await context.seen(Progress, lambda progress: progress.done >= 1, PATIENCE_S)
            with pytest.raises(NotConfirmedError, match="did not confirm the stop in time"):
                await driver.stop(context.clock.mono_s() + 0.1)
            with pytest.raises(NotConfirmedError, match="did not confirm the stop in time"):
                await driver.stop(context.clock.mono_s() + 0.1)
            await driver.abort()
            with pytest.raises(MachineError, match="aborted with M112"):
                await running
            with pytest.raises(MachineError, match="aborted with M112"):
                await driver.execute(RUN, program)


async def test_an_idle_printer_is_stopped_without_moving(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    with sim_printer(tmp_path) as printer:
        async with asyncio.timeout(PATIENCE_S), PLUGIN.open(bench_machine(printer), context) as driver:
            for _ in range(2):
                await driver.stop(context.clock.mono_s() + PATIENCE_S)
        assert printer.macros() == [*STOP_SAFE, FINAL] * 2
        assert not any(text.startswith("G1") for _, text in printer.commands())


async def test_without_emergency_parser_nothing_of_the_program_follows_an_abort(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", ["G28", *["G1 X50 F600", "G1 X100"] * 500])
    context = RecordingContext(tmp_path)
    with sim_printer(tmp_path, "--no-emergency-parser", tcp=True, speed=200.0) as printer:
        async with asyncio.timeout(PATIENCE_S), PLUGIN.open(bench_machine(printer), context) as driver:
            assert Capability.ABORT_AT_ONCE not in driver.capabilities
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            await context.seen(Progress, lambda progress: progress.done >= 20, PATIENCE_S)
            await driver.abort()
            with pytest.raises(MachineError, match="aborted"):
                await running
            sent = len(context.wire)
            await context.seen(Message, lambda message: "M112 Shutdown" in message.text, PATIENCE_S)
            assert [data for way, data in context.wire[sent:] if way == ">"] == []
        assert printer.log.read_text().endswith("\t!\thalt\n")


async def test_a_printer_with_another_uuid_than_configured_is_refused(tmp_path: Path) -> None:
    mine, other = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
    with sim_printer(tmp_path, "--uuid", other) as printer:
        machine = bench_machine(printer)
        wanted = dataclasses.replace(machine, connection=machine.connection.model_copy(update={"uuid": mine}))
        with pytest.raises(IdentityError, match=f"the printer's UUID is {other}, must be {mine}"):
            async with PLUGIN.open(wanted, RecordingContext(tmp_path)):
                pass
        fitting = dataclasses.replace(machine, connection=machine.connection.model_copy(update={"uuid": other}))
        async with PLUGIN.open(fitting, RecordingContext(tmp_path)) as driver:
            assert driver.identity.serial == other
