"""RS-274 as the simulated mill reads it: where the tool goes, how far, and how long it takes."""

from __future__ import annotations

import math

import pytest

from hil_sim.cnc.action import Action, ProgramError
from hil_sim.cnc.program import HOME, RAPID_MM_PER_MIN, TOOL_CHANGE_S, Interpreter

G54 = (50.0, 50.0, -300.0)


def run(program: str, lengths_mm: dict[int, float] | None = None) -> list[Action]:
    """All actions of a program that ends well; M30 is added."""
    return list(Interpreter(HOME, lengths_mm).actions([*program.splitlines(), "M30"]))


def moves(program: str, lengths_mm: dict[int, float] | None = None) -> list[Action]:
    return [each for each in run(program, lengths_mm) if each.path_mm > 0.0]


def refused(program: str) -> str:
    with pytest.raises(ProgramError) as caught:
        run(program)
    return str(caught.value)


def test_a_straight_cut_takes_its_length_over_its_feed() -> None:
    cut = moves("G0 X0 Y0 Z0\nG1 X30 Y40 F600")[-1]
    assert cut.path_mm == pytest.approx(50.0)
    assert cut.duration_s == pytest.approx(5.0)
    assert cut.end == pytest.approx((80.0, 90.0, -300.0))


def test_a_rapid_has_the_machine_s_own_speed_and_no_override() -> None:
    rapid = moves("G53 G0 X200")[0]
    assert rapid.duration_s == pytest.approx(200.0 / RAPID_MM_PER_MIN * 60.0)
    assert (rapid.rapid, rapid.feed_mm_per_min) == (True, 0.0)


def test_inches_count_for_axes_and_feed() -> None:
    cut = moves("G0 X0 Y0 Z0\nG20 G1 X1 F10")[-1]
    assert cut.path_mm == pytest.approx(25.4)
    assert cut.duration_s == pytest.approx(6.0)


def test_incremental_moves_add_up() -> None:
    last = moves("G0 X0 Y0 Z0\nG91 G1 X10 F100\nX10 Y5")[-1]
    assert last.end == pytest.approx((70.0, 55.0, -300.0))


@pytest.mark.parametrize(("system", "x_mm"), [("G54", 50.0), ("G55", 250.0), ("G59", 0.0)])
def test_work_offsets_shift_the_zero(system: str, x_mm: float) -> None:
    assert moves(f"G0 {system} X10")[-1].end[0] == pytest.approx(x_mm + 10.0)


def test_g53_is_the_machine_s_place_for_one_line() -> None:
    made = moves("G53 G0 X10\nX10")
    assert [each.end[0] for each in made] == pytest.approx([10.0, 60.0])


@pytest.mark.parametrize(
    ("arc", "length_mm", "middle"),
    [
        ("G3 X0 Y10 I-10 J0", 5.0 * math.pi, (10.0 * math.sqrt(0.5), 10.0 * math.sqrt(0.5))),
        ("G2 X0 Y10 I-10 J0", 15.0 * math.pi, (-10.0 * math.sqrt(0.5), -10.0 * math.sqrt(0.5))),
        ("G3 X10 Y0 I-10 J0", 20.0 * math.pi, (-10.0, 0.0)),
        ("G2 X10 Y0 I-10 J0", 20.0 * math.pi, (-10.0, 0.0)),
        ("G3 X0 Y10 R10", 5.0 * math.pi, (10.0 * math.sqrt(0.5), 10.0 * math.sqrt(0.5))),
        ("G3 X0 Y10 R-10", 15.0 * math.pi, (10.0 + 10.0 * math.sqrt(0.5), 10.0 + 10.0 * math.sqrt(0.5))),
        ("G2 X0 Y10 R10", 5.0 * math.pi, (10.0 - 10.0 * math.sqrt(0.5), 10.0 - 10.0 * math.sqrt(0.5))),
    ],
)
def test_arcs_have_the_length_of_their_angle(arc: str, length_mm: float, middle: tuple[float, float]) -> None:
    made = moves(f"G0 X10 Y0 Z0\n{arc} F600")[-1]
    assert made.path_mm == pytest.approx(length_mm)
    assert made.duration_s == pytest.approx(length_mm / 10.0)
    x, y, _ = made.position(0.5)
    assert (x - G54[0], y - G54[1]) == pytest.approx(middle)


def test_a_helix_is_longer_by_what_it_goes_down() -> None:
    made = moves("G0 X10 Y0 Z10\nG3 X10 Y0 Z0 I-10 F600")[-1]
    assert made.path_mm == pytest.approx(math.hypot(20.0 * math.pi, 10.0))
    assert made.position(0.5)[2] == pytest.approx(-295.0)


def test_in_g19_the_turn_is_from_y_to_z() -> None:
    made = moves("G0 X0 Y10 Z0\nG19 G3 Y0 Z10 J-10 K0 F600")[-1]
    assert made.path_mm == pytest.approx(5.0 * math.pi)
    root = 10.0 * math.sqrt(0.5)
    assert [a - b for a, b in zip(made.position(0.5), G54, strict=True)] == pytest.approx([0.0, root, root])


def test_in_g18_the_turn_is_from_z_to_x() -> None:
    made = moves("G0 X0 Y0 Z10\nG18 G3 X10 Z0 I0 K-10 F600")[-1]
    assert made.path_mm == pytest.approx(5.0 * math.pi)
    root = 10.0 * math.sqrt(0.5)
    assert [a - b for a, b in zip(made.position(0.5), G54, strict=True)] == pytest.approx([root, 0.0, root])


def test_an_arc_whose_end_is_elsewhere_is_refused() -> None:
    assert "line 2: the end is not on the arc" in refused("G0 X10 Y0 Z0\nG2 X0 Y20 I-10 F100")
    assert "no arc of R1 mm" in refused("G0 X10 Y0 Z0\nG2 X0 Y10 R1 F100")


def test_drilling_goes_down_with_feed_and_up_with_speed() -> None:
    made = moves("G0 X0 Y0 Z20\nG98 G81 X10 Y10 Z-5 R2 F100\nX20\nG80")
    cuts = [each for each in made if not each.rapid]
    assert [each.end[0] for each in cuts] == pytest.approx([60.0, 70.0])
    assert [each.path_mm for each in cuts] == pytest.approx([7.0, 7.0])
    assert made[-1].end[2] == pytest.approx(-280.0), "G98 goes back up to where it began"


def test_g99_stays_at_the_retract_plane_and_g82_waits() -> None:
    made = run("G0 X0 Y0 Z20\nG99 G82 X10 Y10 Z-5 R2 P1.5 F100")
    assert next(each.duration_s for each in made if each.path_mm == 0.0) == pytest.approx(1.5)
    assert [each for each in made if each.path_mm > 0.0][-1].end[2] == pytest.approx(-298.0)


def test_pecks_reach_the_bottom_in_steps_and_clear_the_chips() -> None:
    made = moves("G0 X0 Y0 Z20\nG83 X10 Y10 Z-10 R0 Q4 F100")
    cuts = [each.end[2] + 300.0 for each in made if not each.rapid]
    assert cuts == pytest.approx([-4.0, -8.0, -10.0])
    assert sum(1 for each in made if each.rapid and each.end[2] == pytest.approx(-300.0)) >= 3


@pytest.mark.parametrize(
    ("cycle", "why"),
    [("G81 X1 Z-1", "needs R above Z"), ("G83 X1 Z-1 R1", "peck"), ("G81 X1 Z1 R-1", "needs R above Z")],
)
def test_cycles_that_are_not_whole_are_refused(cycle: str, why: str) -> None:
    assert why in refused(f"F100\n{cycle}")


def test_a_tool_change_takes_its_time_and_names_the_tool() -> None:
    change = next(each for each in run("T3\nM6") if each.tool is not None)
    assert (change.tool, change.duration_s) == (3, TOOL_CHANGE_S)


def test_tool_length_is_added_from_g43_to_g49() -> None:
    made = moves("T2 M6\nG43 H2 G0 Z10\nG49 Z20", {2: 75.0})
    assert [each.end[2] for each in made] == pytest.approx([-215.0, -280.0])


def test_spindle_and_coolant() -> None:
    made = run("S8000 M3\nM8\nM9\nM4\nM5")
    assert [each.rpm for each in made if each.rpm is not None] == [8000.0, -8000.0, 0.0, 0.0]
    assert [each.coolant for each in made if each.coolant is not None] == [True, False, False]


def test_g28_goes_home_over_a_place_in_between() -> None:
    made = moves("G0 X100 Y100 Z10\nG28 Z50")
    assert [each.end[2] for each in made[-2:]] == pytest.approx([-250.0, 0.0])
    assert made[-1].end[:2] == pytest.approx((150.0, 150.0)), "only the axes that are named"


def test_a_programmed_stop_and_the_end() -> None:
    made = run("M0\nM1")
    assert [each.stops for each in made] == [True, False, False]
    assert made[-1].ends


def test_each_line_is_told_once_and_comments_are_none() -> None:
    made = run("%\nO1000 (a part)\n\n(nothing)\nN10 G0 X0 ; first\nG81 X1 Z-1 R1 F100")
    assert [(each.line, each.text) for each in made if each.text] == [
        (2, "O1000 (a part)"),
        (5, "N10 G0 X0 ; first"),
        (6, "G81 X1 Z-1 R1 F100"),
        (7, "M30"),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("G1 X10", "no feed rate"),
        ("G0 X451", "X 501.000 mm is outside of 0 to 500 mm"),
        ("G0 Z-101", "Z -401.000 mm is outside"),
        ("G0 X445 Y100 Z0\nG2 X445 Y50 I0 J-25 F100", "X 5"),
        ("G5 X1", "G5 is not known"),
        ("M98 P100", "M98 is not known"),
        ("G0 G1 X1", "exclude each other"),
        ("G0 X1 X2", "X stands twice"),
        ("G0 X[1+2]", "cannot read"),
        ("#1=5", "cannot read"),
        ("G0 B5", "no word begins with B"),
        ("S99999 M3", "more than 24000 rpm"),
        ("G4 X5", "G4 needs its seconds as P"),
        ("G80\nX5", "after G80"),
        ("G81 X1 Z-1 R1 L99999 F100", "more than 10000 holes"),
        ("G83 X1 Z-1 R1 Q0.00001 F100", "more than 10000 holes"),
    ],
)
def test_what_cannot_be_done_names_line_and_reason(line: str, why: str) -> None:
    assert why in refused(line)


def test_a_program_without_an_end_is_cut_short() -> None:
    interpreter = Interpreter()
    with pytest.raises(ProgramError, match="has no end"):
        list(interpreter.actions(["G0 X1"]))
