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


@pytest.mark.parametrize(("line", "meaning"), MEANINGS, ids=[line for line, _ in MEANINGS])
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
