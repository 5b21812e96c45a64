"""An abort, and what is told of it: the printer's own word, a reset, or that only a hand can help now."""

from __future__ import annotations

import asyncio
import os
import pty
import tty
from pathlib import Path

import pytest
from test_pause import COLD, PATIENCE_S, printing

from drivers import link
from drivers.gcode import PLUGIN
from drivers.gcode.config import Connection
from drivers.gcode.driver import GcodeDriver
from drivers.gcode.failing import SAFE_S
from edge.driver import Capability, Machine, MachineError, MachineState, Motion, NotAcceptableError, StateSeen
from edge.testing.context import RecordingContext
from tests.helpers.printing import LIMITS, RUN, bench_machine, write_program
from tests.helpers.sim import SimPrinter, sim_printer

HUNG = 30
"""Commands of a program that a printer with the fault `silent-after=40` acknowledges: ten come before it."""
HALTED = "halted, it confirmed"
NOT_CONFIRMED = "NOT confirmed: use the emergency stop of the machine"


def halted(printer: SimPrinter) -> bool:
    return printer.log.read_text().splitlines()[-1].endswith("\t!\thalt")


def last_words(context: RecordingContext) -> StateSeen:
    return context.of_kind(StateSeen)[-1]


@pytest.mark.parametrize("option", [[], ["--no-emergency-parser"]], ids=["at once", "as read"])
@pytest.mark.parametrize(
    "commands", [COLD, ["G28", "M109 S215"], ["G28", "G4 S3600"]], ids=["moving", "heating", "waiting"]
)
async def test_an_abort_halts_the_printer_and_it_says_so(
    tmp_path: Path, commands: list[str], option: list[str]
) -> None:
    async with printing(tmp_path, commands, *option, speed=20) as run:
        await run.reached(1)
        assert (Capability.ABORT_AT_ONCE in run.driver.capabilities) == (not option)
        await run.driver.abort()
        await run.driver.abort()
        with pytest.raises(MachineError, match="aborted with M112") as caught:
            await run.outcome()
        assert caught.value.motion is Motion.POSSIBLE
        await run.told(MachineState.ABORTED, HALTED)
        assert halted(run.printer)
    assert last_words(run.context) == StateSeen(MachineState.ABORTED, HALTED)


@pytest.mark.parametrize("tcp", [False, True], ids=["pty", "tcp"])
async def test_a_printer_that_does_not_answer_is_left_to_the_emergency_stop(tmp_path: Path, tcp: bool) -> None:
    async with printing(tmp_path, COLD, "--fault", "silent-after=40", tcp=tcp) as run:
        await run.reached(HUNG)
        await run.driver.abort()
        await run.told(MachineState.ABORTED, NOT_CONFIRMED)


async def test_the_last_resort_is_a_reset_by_dtr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[bool] = []
    async with printing(tmp_path, COLD, "--fault", "silent-after=40") as run:

        def set_dtr(self: link.Link, raised: bool) -> bool:
            """What a pseudo-terminal has no line for."""
            lines.append(raised)
            if raised:
                run.printer.reset()
            return True

        monkeypatch.setattr(link.Link, "set_dtr", set_dtr)
        await run.reached(HUNG)
        await run.driver.abort()
    assert last_words(run.context) == StateSeen(MachineState.ABORTED, "reset by its DTR line")
    assert lines == [False, True]


async def test_an_abort_ends_the_switching_off_of_a_run_that_has_failed(tmp_path: Path) -> None:
    commands = ["G28", "G1 X200 F300", "G1 E5"]  # too cold, while the move has 40 s to go
    async with printing(tmp_path, commands, speed=1.0) as run:
        async with asyncio.timeout(PATIENCE_S):
            while "M107" not in run.printer.macros():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await run.driver.abort()
        words = "cold extrusion prevented; and it has not confirmed that it is switched off"
        with pytest.raises(MachineError, match=words):
            async with asyncio.timeout(SAFE_S / 3):
                await run.running
        await run.told(MachineState.ABORTED, HALTED)
        assert halted(run.printer)


async def test_leaving_waits_for_what_becomes_of_an_abort(tmp_path: Path) -> None:
    with sim_printer(tmp_path) as printer:
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            await driver.abort()
        assert last_words(context) == StateSeen(MachineState.ABORTED, HALTED)


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"Error:Printer halted. kill() called!\n", HALTED), (b"Error:something else\nok\n", NOT_CONFIRMED)],
)
async def test_a_printer_that_has_not_said_who_it_is_can_be_aborted(tmp_path: Path, answer: bytes, words: str) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    context = RecordingContext(tmp_path)
    driver = GcodeDriver(Machine("p1", "gcode", "auto", ("fdm",), Connection(port=os.ttyname(slave)), LIMITS), context)
    await driver.abort()  # not even connected
    connecting = asyncio.create_task(driver.connect(), name="connect")
    try:
        await asyncio.to_thread(os.read, master, 1)  # it has begun to ask
        await driver.abort()
        assert context.wire[-1] == (">", b"\nM108\nM410\nM112\n")
        os.write(master, answer)
        with pytest.raises(MachineError):
            await connecting
        await context.seen(StateSeen, lambda seen: seen.detail == words, PATIENCE_S)
    finally:
        await driver.close()
        os.close(slave)
        os.close(master)


async def test_a_printer_without_thermal_protection_starts_nothing(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", COLD[:5])
    with sim_printer(tmp_path, "--no-thermal-protection") as printer:
        context = RecordingContext(tmp_path)
        machine = bench_machine(printer)
        async with PLUGIN.open(machine, context) as driver:
            assert last_words(context).state is MachineState.STOPPED
            assert "unprotected_heaters = true" in last_words(context).detail
            with pytest.raises(NotAcceptableError, match="thermal protection"):
                await driver.execute(RUN, program)
            await driver.stop(context.clock.mono_s() + PATIENCE_S)
            assert last_words(context).state is MachineState.STOPPED
        assert not printer.program()
        willing = machine.connection.model_copy(update={"unprotected_heaters": True})
        async with PLUGIN.open(Machine("p1", "gcode", "marlin-2.1", ("fdm",), willing, LIMITS), context) as driver:
            assert last_words(context).state is MachineState.IDLE
            await driver.execute(RUN, program)
        profiles = tmp_path / "profiles"
        profiles.mkdir()
        shipped = Path(__file__).parent.parent.parent / "firmware_profiles" / "marlin-2.1.toml"
        text = shipped.read_text().replace('thermal_protection = "reported"', 'thermal_protection = "built-in"')
        (profiles / "marlin-2.1.toml").write_text(text)
        async with PLUGIN.open(bench_machine(printer, profiles), context):
            assert last_words(context).state is MachineState.IDLE
