"""A program that relies on what the one before it left behind: on where the axes stand, or on a mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.analysis import LIFT_MAX_MM, analyse, commands, position_after
from drivers.check import check_program
from drivers.gcode.config import Limits
from drivers.gcode.profile import known, named
from edge.driver import NotAcceptableError
from tests.helpers.printing import write_program

LIMITS = Limits(x_mm=(0, 200), y_mm=(0, 200), z_mm=(-50, 200), nozzle_degc=(0, 260), bed_degc=(0, 100))


def refused(folder: Path, program: list[str]) -> NotAcceptableError:
    with pytest.raises(NotAcceptableError) as caught:
        check_program(write_program(folder / "p.gcode", program), LIMITS, named("marlin-2.1", None))
    return caught.value


def accepted(folder: Path, program: list[str]) -> None:
    check_program(write_program(folder / "p.gcode", program), LIMITS, *known(None).values())


@pytest.mark.parametrize(
    ("program", "line", "axis"),
    [
        (["G1 X10"], 1, "X"),
        (["G90", "G21", "M83", "G1 X10 Y10 Z0.2"], 4, "X"),
        (["G28 X Y", "G1 X10", "G1 Z5"], 3, "Z"),
        (["G28 Z", "G1 Y10"], 2, "Y"),
        (["G28 X0 Z0", "G2 X10 Y10 I5 J0"], 2, "Y"),
        (["G28 X", "G53 G1 Y5"], 2, "Y"),
        (["G92 X0 Y0 Z0", "G1 X10"], 2, "X"),  # a name is no place
        (["G1 Z5"], 1, "Z"),  # down, perhaps: nobody knows
        (["G91", "G1 Z-1"], 2, "Z"),
        (["G91", f"G1 Z{LIFT_MAX_MM + 1}"], 2, "Z"),
        (["G91", *["G1 Z6"] * 2], 3, "Z"),
        (["G91", "G20", "G1 Z1"], 3, "Z"),  # an inch
        (["G91", "G1 X1 Z1"], 2, "X"),
    ],
)
def test_a_move_of_an_axis_that_is_not_homed_is_refused(
    tmp_path: Path, program: list[str], line: int, axis: str
) -> None:
    error = refused(tmp_path, program)
    assert error.what == f"line {line}: {axis}"
    assert str(error).endswith("a move before it is homed, allowed: moves after G28, for nobody knows where it stands")


@pytest.mark.parametrize(
    ("program", "line", "axis"),
    [
        (["G28", "G1 X10", "M84", "G1 X20"], 4, "X"),
        (["G28", "M18 Z", "G1 X10", "G1 Z5"], 4, "Z"),
        (["G28", "M84 X Y", "G28 X", "G1 X5", "G1 Y5"], 5, "Y"),
    ],
)
def test_a_move_after_the_motor_was_released_is_refused(
    tmp_path: Path, program: list[str], line: int, axis: str
) -> None:
    error = refused(tmp_path, program)
    assert (error.what, error.value) == (f"line {line}: {axis}", "a move after its motor was released")


@pytest.mark.parametrize(
    "program",
    [
        ["G28", "G1 X10 Y10 Z1"],
        ["G28 W", "G1 X10 Y10 Z1"],  # Prusa: without levelling
        ["G91", "G1 Z5 F600", "G90", "G28", "G1 X10"],  # a lift before homing, as many slicers' users have it
        ["G92 E0", "G1 E5 F300", "G28"],  # E has no place
        ["G28", "M84 S60", "G1 X10"],  # a time-out, not a release
        ["G28", "M84 E", "G1 X10"],
        ["G28", "G1 X10", "M84"],
        ["M104 S200", "M109 S200"],  # nothing moves
    ],
)
def test_what_slicers_begin_and_end_with_is_taken(tmp_path: Path, program: list[str]) -> None:
    accepted(tmp_path, program)


def test_a_limit_is_told_before_a_missing_homing(tmp_path: Path) -> None:
    error = refused(tmp_path, ["G1 X900"])
    assert (error.value, error.limit) == ("900", "0 to 200")


def test_the_modes_that_the_check_takes_for_granted_are_what_every_profile_sets() -> None:
    """`begin` after a program that left everything otherwise: the analysis of the next one is then right."""
    left = ["G20", "G91", "M83", "G18", "M220 S10", "M221 S10"]
    for name, profile in known(None).items():
        begin = list(profile.macro.begin)
        assert begin, name
        ending = position_after([*left, *begin], len(left) + len(begin))
        assert ending.absolute, name
        assert ending.absolute_e, name
        # Prusa's 8-bit firmware has no inches and no other plane.
        assert not ending.inches or name == "prusa-8bit"
        assert {"M220 S100", "M221 S100"} <= set(begin)
        assert not any(command.startswith(("G0", "G1 ", "G28", "M104", "M140")) for command in begin)


def test_a_program_is_read_as_if_its_modes_were_set() -> None:
    found = analyse(enumerate(commands(["G28", "G1 X100", "G1 X100"]), 1))
    greatest = found.extents_mm["X"].greatest
    assert greatest is not None
    assert (greatest.value, found.unplaced) == (100.0, None)
