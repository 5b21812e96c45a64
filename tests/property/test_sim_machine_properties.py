"""The simulated mill and robot: time may pass in any steps, and arcs begin and end where they should."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from hil_sim.cnc.action import ProgramError
from hil_sim.cnc.mill import Mill
from hil_sim.cnc.program import Interpreter
from hil_sim.robot.cell import BUILT_IN, READY_S, Cell

STEPS_S = st.lists(st.floats(0.0, 7.0), max_size=30)
LINES = st.sampled_from(
    [
        "G53 G1 X100 F600",
        "G53 G0 X0 Y0",
        "G91 G1 X5 Y5 F900",
        "G90",
        "G4 P2.5",
        "T1 M6",
        "S5000 M3",
        "M5",
        "G0 X10 Y0 Z0\nG3 X0 Y10 I-10 F500",
        "G0 X0 Y0 Z5\nG81 X10 Y10 Z-1 R1 F200",
        "G80",
    ]
)


def times(steps_s: list[float], end_s: float) -> list[float]:
    at_s, found = 0.0, []
    for step_s in steps_s:
        at_s += step_s
        found.append(min(at_s, end_s))
    return [*found, end_s]


@given(st.lists(LINES, max_size=12), STEPS_S, STEPS_S)
def test_what_the_mill_does_does_not_depend_on_how_often_it_is_looked_at(
    lines: list[str], one: list[float], other: list[float]
) -> None:
    seen = []
    for steps_s in (one, other):
        log: list[tuple[float, str, str]] = []
        mill = Mill(lambda at_s, line, text, log=log: log.append((round(at_s, 6), line, text)))
        mill.start("p", [*"\n".join(lines).splitlines(), "M30"], 0.0)
        for now_s in times(steps_s, 60.0):
            mill.advance(now_s)
        seen.append((log, mill.state, [round(mm, 6) for mm in mill.position()]))
    assert seen[0] == seen[1]


@given(STEPS_S, STEPS_S, st.sampled_from(sorted(BUILT_IN)))
def test_what_the_robot_does_does_not_depend_on_how_often_it_is_looked_at(
    one: list[float], other: list[float], program: str
) -> None:
    seen = []
    for steps_s in (one, other):
        log: list[tuple[float, str, str]] = []
        cell = Cell(lambda at_s, line, text, log=log: log.append((round(at_s, 6), line, text)))
        cell.get_ready(0.0)
        cell.advance(READY_S)
        cell.load("p", BUILT_IN[program], READY_S)
        cell.start(READY_S)
        for now_s in times(steps_s, 15.0):
            cell.advance(max(now_s, READY_S))
        seen.append((log, cell.task, [round(each, 6) for each in cell.axes_deg()], dict(cell.stations)))
    assert seen[0] == seen[1]


@given(
    st.floats(1.0, 40.0),
    st.floats(0.0, math.tau),
    st.floats(0.01, math.tau - 0.01),
    st.sampled_from(["G2", "G3"]),
    st.sampled_from(["G17", "G18", "G19"]),
)
def test_arcs_begin_and_end_where_they_should(
    radius_mm: float, from_rad: float, turn_rad: float, code: str, plane: str
) -> None:
    first, second = {"G17": "XY", "G18": "ZX", "G19": "YZ"}[plane]
    to_rad = from_rad + (turn_rad if code == "G3" else -turn_rad)
    centre = {"X": 100.0, "Y": 100.0, "Z": 50.0}
    start, end = dict(centre), dict(centre)
    for place, angle_rad in ((start, from_rad), (end, to_rad)):
        place[first] += radius_mm * math.cos(angle_rad)
        place[second] += radius_mm * math.sin(angle_rad)
    words = " ".join(f"{letter}{mm:.9f}" for letter, mm in end.items())
    offsets = {"X": "I", "Y": "J", "Z": "K"}
    middle = " ".join(f"{offsets[letter]}{centre[letter] - start[letter]:.9f}" for letter in (first, second))
    goto = " ".join(f"{letter}{mm:.9f}" for letter, mm in start.items())
    made = list(Interpreter().actions([f"G0 {goto}", f"{plane} {code} {words} {middle} F1000", "M30"]))[1]
    for at, place in ((0.0, made.start), (1.0, made.end)):
        assert all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(made.position(at), place, strict=True))
    assert math.isclose(made.path_mm, radius_mm * turn_rad, rel_tol=1e-4, abs_tol=1e-4)


@given(st.text(alphabet="GMXYZIJKRFSTHPQLN0123456789.-+ ()%;/", max_size=40))
def test_any_line_is_done_or_refused(line: str) -> None:
    try:
        made = list(Interpreter().actions([line, "M30"]))
    except ProgramError:
        return
    assert made[-1].ends
    assert all(each.duration_s >= 0.0 for each in made)
