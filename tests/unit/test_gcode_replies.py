"""What each line of a Marlin-like firmware means."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.gcode.replies import (
    LINE_MAX_BYTES,
    Action,
    Boot,
    Busy,
    Fatal,
    LineError,
    LineSplitter,
    NotDone,
    Ok,
    Position,
    Reply,
    Resend,
    Temperatures,
    Text,
    UnknownCommand,
    parse,
)

TRANSCRIPT = Path(__file__).parent.parent / "transcripts" / "marlin-2.1.2.1.txt"


def said() -> list[str]:
    """Every line that the real firmware sent, with numbers where the transcript leaves them out."""
    lines = [line.split(" ", 1) for line in TRANSCRIPT.read_text().splitlines() if line.startswith("<")]
    return [text.replace("...", "0.00") for _, text in lines]


MEANINGS: list[tuple[str, list[Reply]]] = [
    ("ok", [Ok()]),
    ("ok P15 B3", [Ok()]),
    ("ok N309 P0 B1", [Ok(309)]),
    (
        "ok T:19.37 /0.00 B:19.37 /60.00 @:0 B@:0",
        [Temperatures({"T": (19.37, 0.0), "B": (19.37, 60.0)}), Ok()],
    ),
    (
        " T:199.80 /200.00 B:19.37 /0.00 @:64 B@:0 W:?",
        [Temperatures({"T": (199.8, 200.0), "B": (19.37, 0.0)})],
    ),
    ("ok T:21.30/ 0.00 B:21.30/ 0.00 @:64", [Temperatures({"T": (21.3, 0.0), "B": (21.3, 0.0)}), Ok()]),
    ("T0:-15.00 /0.00 T1:20 /0 C:30 /40", [Temperatures({"T0": (-15, 0), "T1": (20, 0), "C": (30, 40)})]),
    (
        "X:10.00 Y:-2.00 Z:0.30 E:1.00 Count X:800 Y:0 Z:120",
        [Position({"X": 10.0, "Y": -2.0, "Z": 0.3, "E": 1.0})],
    ),
    ("ok X:10.00 Y:2.00 Z:0.30 E:1.00", [Position({"X": 10.0, "Y": 2.0, "Z": 0.3, "E": 1.0}), Ok()]),
    ("X:10.00 Y:2.00", [Text("X:10.00 Y:2.00")]),
    ("Resend: 2", [Resend(2)]),
    ("Resend:2", [Resend(2)]),
    ("Resend: N2", [Resend(2)]),
    ("rs 2", [Resend(2)]),
    ("Error:checksum mismatch, Last Line: 1", [LineError("Error:checksum mismatch, Last Line: 1", 1)]),
    (
        "Error:Line Number is not Last Line Number+1, Last Line: 5634",
        [LineError("Error:Line Number is not Last Line Number+1, Last Line: 5634", 5634)],
    ),
    (
        "Error:No Checksum with line number, Last Line: 1",
        [LineError("Error:No Checksum with line number, Last Line: 1", 1)],
    ),
    ("Error: expected line 2 got 9", [LineError("Error: expected line 2 got 9", None)]),
    ("Error: Missing checksum", [LineError("Error: Missing checksum", None)]),
    ("Error:Printer halted. kill() called!", [Fatal("Printer halted. kill() called!")]),
    ("Error:Thermal Runaway, system stopped! Heater_ID: 0", [Fatal("Thermal Runaway, system stopped! Heater_ID: 0")]),
    ("!! Move out of range", [Fatal("Move out of range")]),
    ('echo:Unknown command: "m105"', [UnknownCommand("m105")]),
    ('echo:Unknown command: ""', [UnknownCommand("")]),
    ("echo:busy: processing", [Busy("processing")]),
    ("busy: paused for user", [Busy("paused for user")]),
    ("echo: cold extrusion prevented", [NotDone("cold extrusion prevented")]),
    ("echo:Home XY first", [NotDone("Home XY first")]),
    ("start", [Boot()]),
    ("//action:prompt_begin M0 Stop", [Action("prompt_begin M0 Stop")]),
    ("echo:Click please", [Text("echo:Click please")]),
    ("wait", [Text("wait")]),
    ("okay", [Text("okay")]),
    ("FIRMWARE_NAME:Marlin 2.1.2.1", [Text("FIRMWARE_NAME:Marlin 2.1.2.1")]),
]


OTHERS: list[tuple[str, list[Reply]]] = [
    # Prusa-Firmware 3.14, Firmware/: cmdqueue.cpp, messages.cpp, Marlin_main.cpp, planner.cpp, temperature.cpp
    ("Unknown G code: G17", [UnknownCommand("G17")]),
    ("Unknown M code: M555 X1", [UnknownCommand("M555 X1")]),
    (
        "Error:No Line Number with checksum, Last Line: 7",
        [LineError("Error:No Line Number with checksum, Last Line: 7", 7)],
    ),
    ("Full RX Buffer", [LineError("Full RX Buffer", None)]),
    ("RX timeout", [LineError("RX timeout", None)]),
    ("echo:Home X/Y before Z", [NotDone("Home X/Y before Z")]),
    ("echo: too long extrusion prevented", [NotDone("too long extrusion prevented")]),
    ("busy: paused for input", [Busy("paused for input")]),
    (
        "Error:Printer stopped due to errors. Supervision required.",
        [Fatal("Printer stopped due to errors. Supervision required.")],
    ),
    ("Error:No thermistors - no temperature", [Fatal("No thermistors - no temperature")]),
    # Prusa-Firmware-Buddy 6.3.0, lib/Marlin/Marlin/src: core/language.h, gcode/queue.cpp, feature/pause.cpp
    (
        "Printer stopped due to errors. Fix the error and use M999 to restart."
        " (Temperature is reset. Set it after restarting)",
        [
            Fatal(
                "Printer stopped due to errors. Fix the error and use M999 to restart."
                " (Temperature is reset. Set it after restarting)"
            )
        ],
    ),
    ("echo:Hotend too cold", [NotDone("Hotend too cold")]),
    ("Error:?J out of range (0.01 to 0.3)", [Fatal("?J out of range (0.01 to 0.3)")]),
    ("echo:M104 Invalid extruder 3", [NotDone("M104 Invalid extruder 3")]),
    ("?Z value out of range.", [NotDone("?Z value out of range.")]),
    # RepRapFirmware 3.5.3, src/GCodes/: GCodes.cpp (HandleReplyPreserveResult), GCodes2.cpp; src/Platform/Platform.cpp
    ("Error: M555: Command is not supported", [UnknownCommand("M555")]),
    ("Warning: G17: Command is not supported", [UnknownCommand("G17")]),
    ("Error: G29: Command is not supported in machine mode FFF", [UnknownCommand("G29")]),
    ("Error: Bad command: %12 G1 X1", [UnknownCommand("%12 G1 X1")]),
    ("Error: G1: insufficient axes homed", [NotDone("G1: insufficient axes homed")]),
    ("Error: M106: Bad or missing parameter", [NotDone("M106: Bad or missing parameter")]),
    ("Error: G1: Machine is halted", [Fatal("G1: Machine is halted")]),
    ("Error: CRC32 checksum doesn't match", [Fatal("CRC32 checksum doesn't match")]),
    (
        "ok T:21.3 /0.0 T0:21.3 /0.0 B:20.9 /60.0",
        [Temperatures({"T": (21.3, 0.0), "T0": (21.3, 0.0), "B": (20.9, 60.0)}), Ok()],
    ),
    ("Warning: Heater 0 appears to be over-powered", [Text("Warning: Heater 0 appears to be over-powered")]),
    # Smoothieware bb41e992, src/modules/: communication/GcodeDispatch.cpp, robot/Robot.cpp,
    # tools/temperaturecontrol/TemperatureControl.cpp; src/main.cpp
    ("rs N4", [Resend(4)]),
    ("!!", [Fatal("it is halted")]),
    ("Entering Alarm/Halt state", [Fatal("Entering Alarm/Halt state")]),
    ("ok - ignored", [UnknownCommand(""), Ok()]),
    ("ok - Invalid G53", [NotDone("Invalid G53"), Ok()]),
    (
        "ok Emergency Stop Requested - reset or M999 required to exit HALT state",
        [Fatal("Emergency Stop Requested - reset or M999 required to exit HALT state")],
    ),
    (
        "Error: Soft Endstop X was exceeded - reset or $X or M999 required",
        [Fatal("Soft Endstop X was exceeded - reset or $X or M999 required")],
    ),
    (
        "Error: Soft Endstop X was exceeded - entire move ignored",
        [NotDone("Soft Endstop X was exceeded - entire move ignored")],
    ),
    ("HALT asserted - reset or M999 required", [Fatal("HALT asserted - reset or M999 required")]),
    (
        "Temperature reading is unreliable on T HALT asserted - reset or M999 required",
        [Fatal("Temperature reading is unreliable on T HALT asserted - reset or M999 required")],
    ),
    (
        "ERROR: MINTEMP or MAXTEMP triggered on T. Check your temperature sensors!",
        [Fatal("MINTEMP or MAXTEMP triggered on T. Check your temperature sensors!")],
    ),
    ("error: LinearDelta illegal move. HALTED", [Fatal("LinearDelta illegal move. HALTED")]),
    ("Error: unknown", [Fatal("unknown")]),
    ("Smoothie Running @100MHz", [Boot()]),
    (
        "ok C: X:10.0000 Y:2.0000 Z:0.3000 E:1.0000",
        [Position({"X": 10.0, "Y": 2.0, "Z": 0.3, "E": 1.0}), Ok()],
    ),
    ("T:20.1 /200.0 @255", [Temperatures({"T": (20.1, 200.0)})]),
    # What nobody knows
    ("Error in something new", [Fatal("in something new")]),
    ("ERROR", [Fatal("it is halted")]),
    ("errors: 0", [Text("errors: 0")]),
]


@pytest.mark.parametrize(("line", "meaning"), [*MEANINGS, *OTHERS], ids=[line for line, _ in [*MEANINGS, *OTHERS]])
def test_a_line_means(line: str, meaning: list[Reply]) -> None:
    assert parse(line) == meaning
    assert parse(f"{line} ") == meaning


@pytest.mark.parametrize("line", sorted(set(said())))
def test_what_the_real_firmware_said_is_understood(line: str) -> None:
    expected: dict[str, type[object]] = {
        "ok": Ok,
        "start": Boot,
        "Resend:": Resend,
        "Error:Printer": Fatal,
        "Error:": LineError,
        "//action:": Action,
        "echo:busy:": Busy,
        "echo:Unknown": UnknownCommand,
        "echo: cold": NotDone,
        " T:": Temperatures,
        "X:": Position,
    }
    kind = next((kind for prefix, kind in expected.items() if line.startswith(prefix)), Text)
    assert isinstance(parse(line)[-1], kind)


SAID = "".join(f"{line}\r\n" for line in said())


def test_lines_are_whole_only_at_their_end() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"o") == []
    assert splitter.feed(b"k\r") == []
    assert splitter.feed(b"\nok") == ["ok"]
    assert splitter.feed(b"\n\n \nok T:1 /0\n") == ["ok", "ok T:1 /0"]


@given(st.lists(st.integers(1, len(SAID)), max_size=20))
def test_any_split_of_the_bytes_gives_the_same_lines(cuts: list[int]) -> None:
    splitter = LineSplitter()
    edges = sorted({0, *cuts, len(SAID)})
    pieces = [SAID[a:b].encode() for a, b in itertools.pairwise(edges)]
    assert [line for piece in pieces for line in splitter.feed(piece)] == [line.strip() for line in said()]


def test_line_noise_is_dropped_and_a_line_without_end_does_not_grow() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"\0\xff\xfeok\0\n") == ["ok"]
    for _ in range(100):
        assert splitter.feed(b"x" * 100) == []
    (line,) = splitter.feed(b"\n")
    assert len(line) <= LINE_MAX_BYTES


@given(st.text(max_size=60))
def test_any_text_means_something(line: str) -> None:
    assert parse(line)


@pytest.mark.parametrize("line", ["//action:paused filament_runout 0", "// action:paused filament_runout 0"])
def test_actions_with_and_without_a_blank(line: str) -> None:
    assert parse(line) == [Action("paused filament_runout 0")]
