"""Moves in the fewest bytes, on the wire and off it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.gcode.compact import compact
from drivers.gcode.device import BLOCK_CHARS, program_commands
from drivers.gcode.framing import Wire, program_lines
from drivers.gcode.stream import GcodeStream


@pytest.mark.parametrize(
    ("command", "short"),
    [
        ("G1 X1.5 Y2 E0.031", "G1X1.5Y2E.031"),
        ("G1 X1.500 Y-0.250 F1800", "G1X1.5Y-.25F1800"),
        ("G1 X+1 Y-0.0 Z007", "G1X1Y0Z7"),
        ("G2 X10. Y.0 I-0.50 J00.5 R12", "G2X10Y0I-.5J.5R12"),
        ("G1 X100 E5", "G1X100 E5"),  # not 100e5
        ("G1 X100 E-5", "G1X100 E-5"),
        ("G1 E0 X10", "G1 E0 X10"),  # not hexadecimal
        ("G0 X10", "G0 X10"),
        ("G1 Y0 X1 Z0 Y1", "G1Y0 X1Z0Y1"),
    ],
)
def test_a_move_in_its_shortest_form(command: str, short: str) -> None:
    assert compact(command) == short


@pytest.mark.parametrize(
    "command",
    [
        "G28 X Y",
        "G92 E0.0",
        "G4 P9000",
        "M104 S200.0",
        "M117 G1 X1.0",
        "T0",
        "G10 X1.0",
        "G1",
        "G1 X",
        "G1 X1.0 P1.0",
        "G1 X1.0  Y1.0",
        "G1 X 1.0",
        "G1 x1.0",
        "g1 X1.0",
        "G01 X1.0",
        "G1.1 X1.0",
        "G1 X1.0E",
        "G1 X1e1 Y1.0",
        "G1 X0x1 Y1.0",
        "G1 X{1.0} Y1.0",
        "G1 X1.0 Y2.0*77",
        "G1 X1.0;Y2.0",
        'G1 X1.0 "Y2.0"',
        "G1\tX1.0",
        "G1 X1.0\n",
        "G1 X\u06630 Y1.0",
        "N1 G1 X1.0",
        "G53 G1 X1.0",
    ],
)
def test_anything_else_stays_byte_for_byte(command: str) -> None:
    assert compact(command) == command


def test_a_numbered_move_has_no_blank_behind_its_number_and_all_else_has_one() -> None:
    stream = GcodeStream(Wire(window_bytes=127), 0.0)
    stream.begin(program_lines(["G1X1Y2", "M104 S200"], 7, compact=True), 7, counted=True)
    assert stream.take(0.0) == b"N8G1X1Y2*2\nN9 M104 S200*110\n"


@pytest.mark.parametrize("after", [0, 1, 2, 499, 500, 501, 999, 1000])
def test_a_program_is_read_in_blocks_from_any_command_on(tmp_path: Path, after: int) -> None:
    path = tmp_path / "a.gcode"
    path.write_text("".join(f"; layer {n}\n\nG1 X{n} Y0.50 ; and so on\n" for n in range(1000)))
    assert path.stat().st_size > 3 * BLOCK_CHARS
    assert list(program_commands(path, after)) == [f"G1 X{n} Y0.50" for n in range(after, 1000)]
    assert list(program_commands(path, after, compacted=True)) == [f"G1X{n}Y.5" for n in range(after, 1000)]
