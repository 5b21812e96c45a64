"""Programs read for grbl, against a simulated controller: what is lawful is carried out, and ends where it was said."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.gcode.grbl_program import FRAMES, HOME, PREAMBLE, Law, UnlawfulError, lines_of, read
from hil_sim.grbl.firmware import Options
from tests.helpers.grbl_rig import GrblRig

NUMBERS = st.integers(-300, 300).map(lambda tenths: f"{tenths / 10:g}")
AXES = st.lists(st.tuples(st.sampled_from("XYZ"), NUMBERS), min_size=1, max_size=3).map(
    lambda words: " ".join(f"{letter}{number}" for letter, number in words)
)
MODES = ("G20", "G21", "G90", "G91", "G54", "G55", "G0", "G1 F600", "G53", "G80", "M3 S100", "M5", "M8", "G94", "")
LINES = st.one_of(
    st.tuples(st.lists(st.sampled_from(MODES), max_size=3).map(" ".join), AXES).map(" ".join),
    st.lists(st.sampled_from(MODES), max_size=3).map(" ".join),
    st.builds(lambda i, x: f"G2 X{x} I{i} F500", NUMBERS, NUMBERS),
    st.builds(lambda x, r: f"G3 X{x} R{r}", NUMBERS, NUMBERS),
    st.sampled_from(["(note) G4 P0.1", "M0", "x1.5y-2", "G0 X1 (a) Y2 ; b", "M30", "G92 X0", "G28", HOME]),
)
G54_MM = (10.0, -20.0, 5.0)


@given(st.lists(LINES, max_size=12))
def test_a_lawful_program_is_carried_out_and_ends_where_it_was_said_to(program: list[str]) -> None:
    program = ["G0 X0 Y0 Z0", *program]
    try:
        found = read(lines_of(program), Law(79))
    except UnlawfulError as error:
        program = program[: error.line - 1]  # up to there it is lawful
        found = read(lines_of(program), Law(79))
    rig = GrblRig(Options(g54_mm=G54_MM, size_mm=(1e6, 1e6, 1e6)))
    said = rig.send(f"{PREAMBLE}\n")
    for _, text in lines_of(program):
        said += rig.send(f"{text}\n") + rig.wait(3600.0)
        if rig.state() == "Hold:0":
            said += rig.send("~") + rig.wait(1.0)
    assert said.count("ok") == found.lines + 1, said
    assert not [line for line in said if line.startswith(("error", "ALARM"))]
    fields = dict(part.split(":", 1) for part in rig.send("?")[0].strip("<>").split("|")[1:])
    for i, axis in enumerate("XYZ"):
        zero_mm = {"G54": G54_MM[i]}.get(found.end[axis].frame, 0.0) if axis in found.end else 0.0
        expected_mm = found.end[axis].mm + zero_mm if axis in found.end else 0.0
        assert float(fields["MPos"].split(",")[i]) == pytest.approx(expected_mm, abs=0.001)


@given(st.lists(st.one_of(st.text(), st.text(alphabet="GMXYZIJKRFSTPN0123456789.-+ ()"), LINES), max_size=8))
def test_any_text_is_read_or_refused_with_its_line(program: list[str]) -> None:
    lines = [line for text in program for line in text.splitlines()]
    refusal = None
    try:
        found = read(lines_of(lines), Law(79))
    except UnlawfulError as error:
        refusal = error
    if refusal is not None:
        assert 1 <= refusal.line <= len(lines)
        assert refusal.value
        assert refusal.limit
    else:
        assert math.isfinite(found.duration_s)
        assert {place.frame for place in found.end.values()} <= set(FRAMES)
        assert set(found.extents_mm) <= set(FRAMES)
