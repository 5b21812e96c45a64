"""What the driver for grbl makes of states that no simulator shows: a controller that says what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drivers.gcode import PLUGIN
from drivers.gcode.config import Connection, Limits
from edge.driver import (
    Driver,
    Machine,
    MachineError,
    MachineState,
    Motion,
    NotAcceptableError,
    Outcome,
    OutcomeKind,
    Run,
    StateSeen,
    Step,
)
from edge.testing import RecordingContext
from tests.helpers.printing import write_program

LIMITS = Limits(x_mm=(-300, 0), y_mm=(-200, 0), z_mm=(-80, 0))
RUN = Run("run-1", "job-1", 1, Step("mill", "mill"), 1)
DEADLINE_S = 20.0


class Scripted:
    """grbl 1.1 on TCP, as far as its words go: it answers what it is told to, and never moves."""

    def __init__(self) -> None:
        self.report = "<Idle|MPos:-10.000,-20.000,-5.000|FS:0,0|WCO:-10.000,-20.000,-5.000>"
        self.settings = ["$1=255", "$13=0", "$22=1"]
        self.offsets = ["[G54:-10.000,-20.000,-5.000]", "[G92:0.000,0.000,0.000]", "[TLO:0.000]"]
        self.lines: list[str] = []
        self.real_time: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = ""
        while data := await reader.read(1024):
            for char in data.decode("latin-1"):
                if char == "?":
                    writer.write(f"{self.report}\r\n".encode())
                elif char in "!~\x18":
                    self.real_time.append(char)
                    if char == "\x18":
                        writer.write(b"\r\nGrbl 1.1h ['$' for help]\r\n")
                elif char != "\n":
                    line += char
                else:
                    self.lines.append(line)
                    writer.write("".join(f"{text}\r\n" for text in self._answer(line)).encode())
                    line = ""
        writer.close()

    def _answer(self, line: str) -> list[str]:
        match line:
            case "$I":
                return ["[VER:1.1h.20190830:mill-7]", "[OPT:V,15,128]", "ok"]
            case "$$":
                return [*self.settings, "ok"]
            case "$#":
                return [*self.offsets, "ok"]
            case _:
                return ["ok"]


@asynccontextmanager
async def opened(controller: Scripted, folder: Path) -> AsyncIterator[tuple[Driver, RecordingContext]]:
    server = await asyncio.start_server(controller.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    machine = Machine("m1", "gcode", "grbl", ("mill",), Connection(url=f"tcp://127.0.0.1:{port}"), LIMITS)
    context = RecordingContext(folder)
    async with server, asyncio.timeout(60.0), PLUGIN.open(machine, context) as driver:
        yield driver, context


async def carried_out(driver: Driver, folder: Path, *lines: str) -> Outcome:
    return await driver.execute(RUN, write_program(folder / "p.nc", list(lines)))


async def told(context: RecordingContext, state: MachineState) -> str:
    context.observations.clear()
    await context.seen(StateSeen, lambda seen: seen.state is state, DEADLINE_S)
    return next(seen.detail for seen in context.of_kind(StateSeen) if seen.state is state)


@pytest.mark.parametrize(
    ("report", "state", "words"),
    [
        ("Idle", MachineState.IDLE, ""),
        ("Hold:0", MachineState.HELD, "held"),
        ("Hold:1", MachineState.EXECUTE, "comes to a hold, and not by an order"),
        ("Run", MachineState.EXECUTE, "moves, and not by an order"),
        ("Jog", MachineState.EXECUTE, "is jogged, and not by an order"),
        ("Home", MachineState.EXECUTE, "homes, and not by an order"),
        ("Door:0", MachineState.HELD, "the safety door was opened"),
        ("Door:1", MachineState.HELD, "the safety door is open"),
        ("Door:2", MachineState.EXECUTE, "comes to a hold, and not by an order"),
        ("Alarm", MachineState.STOPPED, "locked by an alarm: needs homing ($H), or unlocking ($X)"),
        ("Check", MachineState.STOPPED, "in check mode, in which nothing moves"),
        ("Sleep", MachineState.STOPPED, "it says Sleep"),
        ("Tool", MachineState.HELD, "held"),
    ],
)
async def test_each_state_has_its_words_and_only_idle_takes_work(
    tmp_path: Path, report: str, state: MachineState, words: str
) -> None:
    controller = Scripted()
    async with opened(controller, tmp_path) as (driver, context):
        assert driver.identity.serial == "mill-7"
        controller.report = controller.report.replace("Idle", report)
        assert (await told(context, state)).startswith(words)
        if report != "Idle":
            with pytest.raises(MachineError, match="cannot begin") as caught:
                await carried_out(driver, tmp_path, "G0 X0")
            assert caught.value.motion is Motion.NONE
            assert "G0 X0" not in controller.lines


async def test_success_needs_the_place_where_the_program_ends(tmp_path: Path) -> None:
    controller = Scripted()
    async with opened(controller, tmp_path) as (driver, _):
        outcome = await carried_out(driver, tmp_path, "G0 X0 Y0 Z0.04")
        assert outcome.kind is OutcomeKind.SUCCEEDED
        with pytest.raises(MachineError, match=r"X is at -10 mm in machine coordinates, the program ends at -9\.9 mm"):
            await carried_out(driver, tmp_path, "G0 X0.1")
        assert (await carried_out(driver, tmp_path, "G53 G0 X-10", "G4 P0.1")).kind is OutcomeKind.SUCCEEDED


async def test_reports_in_inches_and_in_work_coordinates_are_the_same_place(tmp_path: Path) -> None:
    controller = Scripted()
    controller.settings[1] = "$13=1"
    controller.report = "<Idle|WPos:1.0000,0.0000,0.0000|FS:0,0|WCO:-2.0000,-1.0000,0.0000>"
    controller.offsets[0] = "[G54:-2.0000,-1.0000,0.0000]"
    async with opened(controller, tmp_path) as (driver, _):
        outcome = await carried_out(driver, tmp_path, "G20 G0 X1")
        assert outcome.evidence["position_mm"] == {"X": -25.4, "Y": -25.4, "Z": 0.0}


async def test_a_shift_by_g92_counts_and_a_tool_length_must_not_be_set(tmp_path: Path) -> None:
    controller = Scripted()
    async with opened(controller, tmp_path) as (driver, _):
        controller.offsets[1] = "[G92:20.000,0.000,0.000]"
        with pytest.raises(NotAcceptableError, match="G54 at 10 mm"):
            await carried_out(driver, tmp_path, "G0 X0")
        controller.offsets[1:] = ["[G92:0.000,0.000,0.000]", "[TLO:1.500]"]
        with pytest.raises(MachineError, match="tool length"):
            await carried_out(driver, tmp_path, "G0 X0")
        controller.offsets[2] = "[TLO:0.000]"
        with pytest.raises(NotAcceptableError, match="mist"):
            await carried_out(driver, tmp_path, "M7")
        for damaged in ("[G54:-10.000]", "[G54:-10.0", "[G54:-10.0,1..2,0]"):
            controller.offsets[0] = damaged
            with pytest.raises(MachineError, match="is not understood") as caught:
                await carried_out(driver, tmp_path, "G0 X0")
            assert caught.value.motion is Motion.NONE
        assert "G0 X0" not in controller.lines


async def test_a_stop_at_rest_resets_and_says_spindle_and_coolant_again(tmp_path: Path) -> None:
    controller = Scripted()
    async with opened(controller, tmp_path) as (driver, context):
        controller.report = controller.report.replace("Idle", "Hold:0")
        await driver.stop(context.clock.mono_s() + DEADLINE_S)
        assert controller.real_time == ["!", "\x18"]
        assert controller.lines[-2:] == ["M5", "M9"]
