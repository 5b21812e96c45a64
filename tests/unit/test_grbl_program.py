"""What grbl would make of a program, and what it is held against before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.gcode import PLUGIN
from drivers.gcode.config import Connection, Limits, Printer
from drivers.gcode.grbl_check import hold_places
from drivers.gcode.grbl_program import (
    MACHINE,
    Found,
    Law,
    Place,
    UnlawfulError,
    comments_on,
    lines_of,
    read,
    waits_at,
)
from edge.driver import DriverError, Machine, NotAcceptableError, Prediction, Program, Step

PLATE = Path(__file__).parent.parent / "programs" / "plate.nc"
LIMITS = Limits(x_mm=(-300, 0), y_mm=(-200, 0), z_mm=(-80, 0))
LAW = Law(79)


def found_in(text: str, law: Law = LAW) -> Found:
    return read(lines_of(text.splitlines()), law)


def refused(text: str, law: Law = LAW) -> UnlawfulError:
    with pytest.raises(UnlawfulError) as caught:
        found_in(text, law)
    assert str(caught.value) == f"{caught.value.value}; must be {caught.value.limit}"
    return caught.value


def router(profile: str = "grbl", limits: Limits = LIMITS) -> Printer:
    return Machine("m1", "gcode", profile, ("mill",), Connection(url="tcp://127.0.0.1:1"), limits)


def checked(folder: Path, text: str, profile: str = "grbl", limits: Limits = LIMITS) -> Prediction:
    path = folder / "program.nc"
    path.write_text(text)
    program = Program("program.nc", path, "", path.stat().st_size)
    return PLUGIN.check(router(profile, limits), Step("mill", "mill"), program)


def extent(found: Found, frame: str, axis: str) -> tuple[float, float]:
    seen = found.extents_mm[frame][axis]
    assert seen.least is not None
    assert seen.greatest is not None
    return seen.least.value, seen.greatest.value


# -- reading


def test_a_program_is_read_as_grbl_reads_it() -> None:
    found = found_in(PLATE.read_text())
    assert found.lines == 34
    assert extent(found, "G54", "X") == pytest.approx((0, 60))
    assert extent(found, "G54", "Y") == pytest.approx((0, 40))
    assert extent(found, "G54", "Z") == (-1.5, 15)
    assert found.end == {"X": Place("G54", 30), "Y": Place("G54", 20), "Z": Place("G54", 15)}
    assert (found.pauses, found.tool_changes) == (1, 0)
    assert found.rpm.greatest is not None
    assert found.rpm.greatest.value == 12000
    assert found.feed_mm_per_min.greatest is not None
    assert found.feed_mm_per_min.greatest.value == 900
    assert {"M30", "G3", "M0"} <= found.codes
    assert found.timeline[-1] == (34, found.duration_s)
    assert found.timeline[0][0] == 1
    assert 25 < found.duration_s < 60


def test_comments_blanks_and_tape_marks_are_no_lines() -> None:
    text = "%\n(a) G0 X1 (b) Y2 ; c (d\n\n ( alone )\n;\nG0 X(in between)3\n%\n"
    assert list(lines_of(text.splitlines())) == [(2, "G0 X1  Y2"), (6, "G0 X3")]
    assert comments_on("M0 (turn it) ; now ( ) ") == "turn it now (  )".replace(" (  )", " ( )")
    assert comments_on("G0 X1") == ""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("M0", "M0"),
        ("m 01", "M1"),
        ("G0X1M6T2", "M6"),
        ("M00", "M0"),
        ("M30", ""),
        ("M61", ""),
        ("M10", ""),
        ("M5", ""),
    ],
)
def test_where_a_program_waits_for_a_person(text: str, code: str) -> None:
    assert waits_at(text) == code


def test_modes_last_units_count_and_a_relative_move_goes_from_where_the_program_is() -> None:
    found = found_in("G20 G0 X1 Y2\nG21\nX10\nG91\nX5 Y-0.8\nG90 G1 Y3 F100\n")
    assert found.end == {"X": Place("G54", 15), "Y": Place("G54", 3)}
    assert extent(found, "G54", "Y") == pytest.approx((3, 50.8))


def test_each_coordinate_system_has_places_of_its_own() -> None:
    found = found_in("G0 X1\nG55 X2\nG53 G0 Z-1\nG91\nZ-2\nG90 G59 G0 X7\n")
    assert found.end == {"X": Place("G59", 7), "Z": Place(MACHINE, -3)}
    assert {frame: extent(found, frame, axis) for frame, axis in (("G54", "X"), ("G55", "X"), (MACHINE, "Z"))} == {
        "G54": (1, 1),
        "G55": (2, 2),
        MACHINE: (-3, -1),
    }
    assert extent(found_in("G91\nG53 G1 X5 F100\nX1\n"), MACHINE, "X") == (5, 6), "G53 is never relative"


def test_an_arc_reaches_out_to_its_quarters_in_every_plane() -> None:
    assert extent(found_in("G0 X0 Y0\nG2 X10 Y0 I5 J0 F100\n"), "G54", "Y") == pytest.approx((0, 5))
    assert extent(found_in("G0 X0 Y0\nG3 X10 R5 F100\n"), "G54", "Y") == pytest.approx((-5, 0))
    assert extent(found_in("G0 X0 Y0 Z0\nG18 G2 X10 Z0 I5 F100\n"), "G54", "Z") == pytest.approx((-5, 0))
    assert extent(found_in("G0 X0 Y0 Z0\nG19 G2 Y10 Z0 J5 F100\nG17 G1 X3"), "G54", "Z")[0] == pytest.approx(0)
    whole = found_in("G0 X0 Y0\nG2 X0 Y0 I5 F100\n")
    assert extent(whole, "G54", "Y") == pytest.approx((-5, 5))
    assert whole.duration_s == pytest.approx(31.4 / 100 * 60, rel=0.01)


def test_a_dwell_is_in_seconds_and_inverse_time_says_how_long_a_move_takes() -> None:
    assert found_in("G4 P2.5\n").duration_s == 2.5
    assert found_in("G0 X0\nG93 G1 X10 F2\nX20 F4\nG94 G1 X21 F100").duration_s == pytest.approx(45, abs=1.0)
    assert "F of its own" in refused("G93 G1 X1 F2\nX2").limit
    assert "feed rate" in refused("G93 G1 X1 F2\nG94\nX2").limit
    assert found_in("G0 X0 Y0\nG93\nG2 X10 I5 F2").duration_s == pytest.approx(30, abs=0.5)


def test_a_long_program_has_a_bounded_time_line() -> None:
    found = found_in("G1 X0 F1000\n" + "G1 X10\nG1 X0\n" * 400)
    assert 100 <= len(found.timeline) <= 201
    assert found.timeline[-1] == (801, found.duration_s)
    assert found_in("").timeline == ()


@pytest.mark.parametrize(
    ("text", "line", "value", "limit"),
    [
        ("X10", 1, "X without a motion", "G0, G1"),
        ("G0 X1\nG80\nX10", 3, "X without a motion", "G0, G1"),
        ("G1 X10", 1, "G1", "with a feed rate"),
        ("G1 X10 F0", 1, "F0", "above 0"),
        ("G0 G1 X1", 1, "G0 and G1", "one command for the motion"),
        ("G54 G55", 1, "G54 and G55", "one command for the coordinate system"),
        ("G0 X1 X2", 1, "'G0 X1 X2'", "each letter once"),
        ("G0 X", 1, "'G0 X'", "letters, each with a number"),
        ("G0 X1.2.3", 1, "'G0 X1.2.3'", "letters, each with a number"),
        ("/G0 X1", 1, "'/G0 X1'", "letters, each with a number"),
        ("#1=5", 1, "'#1=5'", "letters, each with a number"),
        ("G0 X1*50", 1, "'G0 X1*50'", "letters, each with a number"),
        ("N10 G0 X1", 1, "'N10 G0 X1'", "without a number"),
        ("G0 A5", 1, "A in 'G0 A5'", "words that grbl has"),
        ("G0 X1 P5", 1, "P in 'G0 X1 P5'", "words that a command of the line uses"),
        ("$H", 1, "'$H'", "no $ command"),
        ("G0 X1\n$X", 2, "'$X'", "no $ command"),
        ("G0 X1!", 1, "'G0 X1!'", "a line of plain G-code"),
        ("G0 X1\n\n?", 3, "'?'", "a line of plain G-code"),
        ("G0 Xü", 1, "'G0 Xü'", "a line of plain G-code"),
        ("G28", 1, "G28", "only the machine knows"),
        ("G38.2 Z-5 F10", 1, "G38.2", "only the machine knows"),
        ("G92 X0", 1, "G92", "the work zero"),
        ("G10 L20 P1 X0", 1, "G10", "the work zero"),
        ("G43.1 Z1", 1, "G43.1", "the work zero"),
        ("G5 X1", 1, "G5", "a command that grbl 1.1 has"),
        ("M104 S200", 1, "M104", "a command that grbl 1.1 has"),
        ("M6 T1", 1, "M6", "no tool change"),
        ("T1.5", 1, "T1.5", "a whole number"),
        ("T-1", 1, "T-1", "a whole number"),
        ("M3", 1, "M3", "an S before"),
        ("S-1", 1, "S-1", "0 or more"),
        ("G91 G0 X5", 1, "X by G91", "an absolute move of X"),
        ("G53 G2 X1 I1", 1, "G53 with G2", "G0 or G1 only"),
        ("G53", 1, "G53", "with the axes"),
        ("G2", 1, "G2", "with the axes"),
        ("G4", 1, "'G4'", "alone on its line"),
        ("G4 P1 X1", 1, "'G4 P1 X1'", "alone on its line"),
        ("G4 P-1", 1, "'G4 P-1'", "alone on its line"),
        ("G0 X0\nM30\nG0 X1", 3, "'G0 X1'", "nothing behind M30"),
        ("G2 X1 I1 F100", 1, "G2", "before an arc"),
        ("G0 X0 Y0\nG55\nG2 X1 I1 F100", 3, "G2", "before an arc"),
        ("G0 X0 Y0 Z0\nG2 Z1 I1 F100", 2, "G2", "an arc in G17 with X or Y"),
        ("G0 X0 Y0\nG2 X1 F100", 2, "G2", "an arc with I, J or R"),
        ("G0 X0 Y0\nG2 X1 K1 F100", 2, "G2", "an arc with I, J or R"),
        ("G0 X0 Y0\nG2 X0 Y0 R5 F100", 2, "R5 mm", "a radius"),
        ("G0 X0 Y0\nG2 X10 R4.9 F100", 2, "R4.9 mm", "a radius that reaches over 10 mm"),
        ("G0 X0 Y0\nG2 X0 Y0 I0 F100", 2, "G2", "an arc with a radius"),
        ("G0 X0 Y0\nG2 X10 I5.1 F100", 2, "an arc whose end is 0.200 mm off", "at most"),
        ("G0 X0 Y0\nG2 X2000 I1001 F100", 2, "an arc whose end is 2.000 mm off", "at most"),
        (f"G0 X1{' ' * 75}Y1", 1, "82 characters", "at most 79"),
    ],
)
def test_what_grbl_would_refuse_or_nobody_can_tell_is_refused_before(
    text: str, line: int, value: str, limit: str
) -> None:
    error = refused(text)
    assert (error.line, error.value.startswith(value)) == (line, True), error.value
    assert limit in error.limit


def test_what_needs_somebodys_word_has_it_from_the_profile() -> None:
    assert found_in("T1 M6\n", Law(79, allowed=frozenset({"M6"}))).tool_changes == 1
    assert refused("M8", Law(79, {"M8": "floods the cellar"})).limit == "never in a program, for it floods the cellar"


def test_a_program_that_homes_says_so_first_and_only_where_the_site_wants_it() -> None:
    found = found_in("(home)\n$h\nG0 X1\n", Law(79, homes=True))
    assert (found.lines, found.end) == (2, {"X": Place("G54", 1)})
    assert "$H on the first line" in refused("G0 X1\n", Law(79, homes=True)).limit
    assert "no $ command" in refused("$H\n$H\n", Law(79, homes=True)).limit


# -- limits


def test_a_sample_program_suits_both_profiles_and_its_facts_are_told(tmp_path: Path) -> None:
    for profile in ("grbl", "grblhal"):
        facts = checked(tmp_path, PLATE.read_text(), profile).facts
        assert (facts["commands"], facts["g54_x_max_mm"], facts["pauses"]) == (34, 60, 1)
        assert facts["speed_max_rpm"] == 12000
        assert "tool_changes" not in facts
    assert checked(tmp_path, "G4 P1\n").duration_s == 1.0


@pytest.mark.parametrize(
    ("text", "what", "value", "limit", "unit"),
    [
        ("G0 X0\nG0 X301\n", "lines 1 and 2: size in X", "301", "at most 300", "mm"),
        ("G53 G0 Z1\n", "line 1: Z in machine coordinates", "1", "-80 to 0", "mm"),
        ("\n(c)\n", "program.nc", "0 commands", "at least one", ""),
        ("G0 X1\nG10 L2 X0\n", "line 2", "G10", "never in a program, for it changes the stored work offsets", ""),
        ("G28.1\n", "line 1", "G28.1", "never in a program, for it changes a stored position", ""),
    ],
)
def test_offline_only_what_fits_nowhere_is_refused(
    tmp_path: Path, text: str, what: str, value: str, limit: str, unit: str
) -> None:
    with pytest.raises(NotAcceptableError) as caught:
        checked(tmp_path, text)
    error = caught.value
    assert (error.what, str(error.value), str(error.limit), error.unit) == (what, value, limit, unit)


def test_at_the_start_every_place_is_held_against_the_offsets_that_the_controller_tells() -> None:
    found = found_in("G0 X0 Y0\nG0 X100\nG53 G0 Z-1\nG55 X-10\n")
    offsets_mm = {"G54": (-300.0, -200.0, 0.0), "G55": (0.0, 0.0, 0.0)}
    hold_places(found, LIMITS, offsets_mm)
    with pytest.raises(NotAcceptableError) as caught:
        hold_places(found, LIMITS, offsets_mm | {"G54": (-99.0, -200.0, 0.0)})
    assert str(caught.value) == ("line 2: X in machine coordinates, with G54 at -99 mm: 1 mm, allowed: -300 to 0 mm")
    with pytest.raises(NotAcceptableError, match="G55"):
        hold_places(found, LIMITS, {"G54": (-300.0, -200.0, 0.0)})


def test_homing_by_program_is_for_grbl_only(tmp_path: Path) -> None:
    limits = LIMITS.model_copy(update={"homing": "program"})
    assert checked(tmp_path, "$H\nG0 X1\n", limits=limits).facts["commands"] == 2
    with pytest.raises(DriverError, match="for profiles of the grbl dialect"):
        PLUGIN.preflight(router("auto", limits))
    PLUGIN.preflight(router("grbl", limits))


def test_every_dialects_profiles_are_listed() -> None:
    assert {"grbl", "grblhal", "marlin-2.1"} <= {profile.name for profile in PLUGIN.profiles(None)}
