"""What a program is found to do."""

from __future__ import annotations

import math

import pytest

from drivers.analysis import Analysis, analyse, code_of, command_on, commands


def found(program: str) -> Analysis:
    return analyse(list(enumerate(commands(program.splitlines()), 1)))


def extent(program: str, axis: str) -> tuple[float, float]:
    reach = found(program).extents_mm[axis]
    assert reach.least is not None
    assert reach.greatest is not None
    return reach.least.value, reach.greatest.value


def test_comments_and_blank_lines_are_no_commands() -> None:
    assert [command_on(line) for line in ("G28 ; home", "; all", "  ", "M117 a b")] == ["G28", "", "", "M117 a b"]
    assert found("G28\n;x\n\nG1 X1\n").commands == 2


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("G1 X10", "G1"),
        ("G1X10Y2", "G1"),
        ("G01 X10", "G1"),
        ("G00", "G0"),
        ("G1\tX10", "G1"),
        ("M862.3 P", "M862.3"),
        ("G1.0 X1", "G1"),
        ("T0", "T0"),
        ("G1.1 X1", "G1"),
        ("M862.30", "M862.30"),
        ("M862.03", "M862.3"),
        ("X10", "X10"),
        ("N5 G1", "N5"),
        ("g1 X1", "G1"),
    ],
)
def test_a_code_is_read_as_the_firmware_reads_it(command: str, code: str) -> None:
    assert code_of(command) == code


@pytest.mark.parametrize("move", ["G1 X30", "G1X30", "G01 X30", "G0 X 30", "G1\tX30", "G1.1 X+30.0", "G1 Y1 X30."])
def test_every_way_to_write_a_move_reaches_as_far(move: str) -> None:
    assert extent(move, "X") == (30, 30)


def test_extents_have_the_axes_that_are_moved_with_the_lines_that_ask() -> None:
    reach = found("G28\nG1 X10\nG1 X-5 Y3\nG1 X7\n").extents_mm
    assert (reach["X"].least.value, reach["X"].least.line) == (-5, 3)  # type: ignore[union-attr]
    assert (reach["X"].greatest.value, reach["X"].greatest.line) == (10, 2)  # type: ignore[union-attr]
    assert reach["Z"].least is None
    assert reach["Z"].greatest is None


def test_relative_moves_add_up_and_g90_ends_them() -> None:
    assert extent("G1 X10\nG91\nG1 X5\nG1 X5\nG90\nG1 X1", "X") == (1, 20)


def test_inches_are_converted_until_g21() -> None:
    assert extent("G20\nG1 X1\nG21\nG1 X2", "X") == (2, 25.4)


def test_homing_ends_at_the_origin_of_the_named_axes_or_of_all() -> None:
    assert extent("G1 X10 Y10\nG28 X\nG91\nG1 X1 Y1", "X") == (1, 10)
    assert extent("G1 X10 Y10\nG28 X\nG91\nG1 X1 Y1", "Y") == (10, 11)
    assert extent("G1 X10 Y10\nG28\nG91\nG1 X1 Y1", "Y") == (1, 10)


def test_a_position_with_another_name_is_the_same_place() -> None:
    assert extent("G1 X100\nG92 X0\nG1 X150", "X") == (100, 250)
    assert extent("G1 X100 Y100\nG92\nG1 Y50", "Y") == (100, 150)
    assert extent("G1 X100\nG92 X0\nG28\nG1 X50", "X") == (50, 100)
    assert extent("G1 X100\nG92 X0\nG2 X20 I10 J0", "X") == (100, 120)


def test_filament_counts_in_both_modes_of_e() -> None:
    assert found("M83\nG1 E2\nG1 E2\nM82\nG92 E0\nG1 E3\nG1 E2").filament_mm == pytest.approx(6)
    assert found("M82\nG91\nG1 E1\nG1 E1").filament_mm == pytest.approx(2)  # G91 takes E along


def test_temperatures_have_their_extremes() -> None:
    seen = found("M104 S215\nM109 R230\nM104 S0\nM109\nM140 S60\nM190 S65")
    assert (seen.nozzle_degc.least.value, seen.nozzle_degc.greatest.value) == (0, 230)  # type: ignore[union-attr]
    assert (seen.bed_degc.least.value, seen.bed_degc.greatest.value) == (60, 65)  # type: ignore[union-attr]


def test_what_does_not_move_or_heat_changes_nothing() -> None:
    seen = found("M117 X500\nT0\nM862.3 P X900")
    assert (seen.commands, seen.duration_s, seen.filament_mm) == (3, 0.0, 0.0)
    assert (seen.extents_mm, seen.nozzle_degc) == (Analysis().extents_mm, Analysis().nozzle_degc)


def test_an_arc_reaches_the_quarters_of_its_circle_that_it_passes() -> None:
    assert extent("G1 X10 Y0\nG3 X-10 I-10", "Y") == (0, 10)
    assert extent("G1 X10 Y0\nG2 X-10 I-10", "Y") == (-10, 0)
    assert extent("G1 X10 Y10\nG2 X10 Y10 I5", "X") == (10, 20)  # a full circle
    assert extent("G1 X0 Y0\nG3 X5 Y5 I0 J5", "Y") == (0, 5)


@pytest.mark.parametrize(
    ("arc", "bulge"),
    [("G3 X10 R5", (0.0, 10.0)), ("G2 X10 R5", (0.0, 10.0)), ("G3 X10 R-6", None), ("G2 X6 Y8 R20", None)],
)
def test_an_arc_by_its_radius(arc: str, bulge: tuple[float, float] | None) -> None:
    low, high = extent(f"G1 X0\n{arc}", "X")
    if bulge:
        assert (low, high) == pytest.approx(bulge)
    assert high - low >= 6


def test_a_negative_radius_takes_the_longer_way() -> None:
    short, long = extent("G1 X0 Y0\nG3 X10 R6", "Y"), extent("G1 X0 Y0\nG3 X10 R-6", "Y")
    assert short[0] == pytest.approx(math.sqrt(11) - 6)
    assert long[0] == pytest.approx(-math.sqrt(11) - 6)


@pytest.mark.parametrize("arc", ["G2 X10", "G2 X10 R0", "G2 X10 R1", "G3 R5"])
def test_an_arc_without_a_circle_counts_as_its_end(arc: str) -> None:
    assert extent(f"G1 X0\n{arc} Y0", "X")[1] in (0, 10)
