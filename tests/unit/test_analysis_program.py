"""What whole programs do: units, modes, arcs, counts, time, the position by name, and the check that stands on it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from sim_rig import Rig

from drivers import analysis
from drivers.analysis import Analysis, Unknowable, analyse, command_on, commands, position_after
from drivers.check import check_program
from drivers.gcode.config import Limits
from drivers.gcode.profile import Forbidden, Profile, named
from drivers.motion import Dynamics
from edge.driver import NotAcceptableError, Prediction, Program

ROOT = Path(__file__).resolve().parents[2]
SLICED = [ROOT / "edge" / "demo" / "tiny.gcode", ROOT / "tests" / "programs" / "bracket.gcode"]
PLAIN = Dynamics(
    (500.0, 500.0, 500.0, 500.0), (1000.0, 1000.0, 1000.0, 1000.0), 1000.0, 1000.0, 1000.0, deviation_mm=0.02
)


def read(text: str, dynamics: Dynamics | None = PLAIN) -> Analysis:
    lines = [line.strip() for line in text.split("/")]
    return analyse(enumerate(lines, 1), dynamics)


def span(found: Analysis, axis: str) -> tuple[float, float]:
    extent = found.extents_mm[axis]
    assert extent.least is not None
    assert extent.greatest is not None
    return pytest.approx(extent.least.value), pytest.approx(extent.greatest.value)


# -- extents


def test_extents_name_the_lines_that_ask_for_them() -> None:
    found = read("G28/G1 X10 Y5 F600/G1 X-3/G1 X7 Z0.2")
    x = found.extents_mm["X"]
    assert x.least == analysis.Extreme(-3.0, 3)
    assert x.greatest == analysis.Extreme(10.0, 2)
    assert found.extents_mm["Z"].least == found.extents_mm["Z"].greatest == analysis.Extreme(0.2, 4)


def test_an_axis_that_is_not_moved_has_no_extent() -> None:
    assert read("G1 X1").extents_mm["Y"].least is None


@pytest.mark.parametrize(
    "line", ["G1 X1.5", "G01X1.5", "G1  X1.5", "g1 x1.5", "G1 X+1.5", "G1 F100 X1.50", "G 1 X 1.5"]
)
def test_a_move_may_be_written_in_many_ways(line: str) -> None:
    assert span(read(line), "X") == (1.5, 1.5)


def test_inches_and_relative_moves() -> None:
    found = read("G20/G1 X1/G91/G1 X1 Y-1 Z2/G21/G1 X1")
    assert span(found, "X") == (25.4, 51.8)
    assert span(found, "Y") == (-25.4, -25.4)
    assert span(found, "Z") == (50.8, 50.8)


def test_g92_renames_the_place_and_the_machine_has_its_own_coordinates() -> None:
    found = read("G28/G1 X100 Y100 Z1/G92 X0 Y10 Z0/G1 X150 Y10/G91/G1 Y5 Z1")
    assert span(found, "X") == (100, 250)
    assert span(found, "Y") == (100, 105)
    assert span(found, "Z") == (1, 2)


def test_homing_goes_by_the_machine_s_own_names() -> None:
    found = read("G1 X100 Y100 Z10/G92 X0 Y0 Z0/G28 X/G1 X20 Y20")
    assert span(found, "X") == (20, 100)
    assert span(found, "Y") == (100, 120)
    assert span(read("G1 X5 Y5 Z5/G28 Y Z/G91/G1 X1 Y1 Z1"), "X") == (5, 6)


def test_an_arc_reaches_further_than_its_ends() -> None:
    found = read("G1 X10 Y10/G3 X10 Y30 I0 J10")
    assert span(found, "X") == (10, 20)
    assert span(found, "Y") == (10, 30)
    assert span(read("G92 X5/G1 X10 Y10/G2 X10 Y30 R10"), "X") == (-5, 5)


def test_an_arc_in_another_plane() -> None:
    found = read("G18/G1 X10 Z10/G2 X10 Z10 I5 K0")
    assert span(found, "X") == (10, 20)
    assert span(found, "Z") == (5, 15)
    assert span(read("G19/G1 Y10 Z10/G3 Y10 Z10 J5"), "Z") == (5, 15)
    assert span(read("G18/G17/G1 X10 Y10/G3 X10 Y10 I5"), "Y") == (5, 15)


def test_an_arc_without_a_circle_is_taken_as_a_straight_move() -> None:
    assert span(read("G2 X10 Y0"), "X") == (10, 10)
    assert read("G2 X10 Y0 F6000").duration_s == read("G1 X10 Y0 F6000").duration_s


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("G28/G55/G1 X1/G56", "G55", 2),
        ("G59.1", "G59.1", 1),
        ("G1 X10/G92 X0/G54", "G54", 3),
        ("G1 X10/G92 X0/G28", "G28", 3),
        ("G1 X10/G92 Y5/G53 G1 X10", "G53", 3),
        ("G1 Z10/G92 Z0/G53", "G53", 3),
        ("G92", "G92", 1),
        ("G92.1", "G92.1", 1),
        ("G53 G5 X10", "G5", 1),
        ("G10 L2 P1 X5", "G10", 1),
        ("M149 F", "M149", 1),
    ],
)
def test_what_only_the_machine_knows_is_said(text: str, code: str, line: int) -> None:
    assert read(text).unknowable == Unknowable(code, line)


def test_the_coordinates_in_force_at_the_start_are_the_machine_s() -> None:
    found = read("G54/G53 G1 X20/G53 G53 G1 X-5/G53/G1 X7")
    assert found.unknowable is None
    assert span(found, "X") == (-5, 20)


# -- heat, feed, filament, layers, counts


def test_heaters() -> None:
    found = read("M104 S200/M109 R215/M140 S60/M190 S65/M141 S40/M191 S45/M104 S0/M140/M109 S0")
    assert found.nozzle_degc.greatest == analysis.Extreme(215.0, 2)
    assert found.nozzle_degc.least == analysis.Extreme(0.0, 7)
    assert found.bed_degc.greatest == analysis.Extreme(65.0, 4)
    assert found.chamber_degc.greatest == analysis.Extreme(45.0, 6)
    assert found.heat_waits == 3


def test_heating_by_other_names() -> None:
    found = read("M303 E0 S210/M303 E-1 S70/M303 E-2 S30/G10 P0 S220 R150")
    assert found.nozzle_degc.greatest == analysis.Extreme(220.0, 4)
    assert found.nozzle_degc.least == analysis.Extreme(150.0, 4)
    assert found.bed_degc.greatest == analysis.Extreme(70.0, 2)
    assert found.chamber_degc.greatest == analysis.Extreme(30.0, 3)


def test_the_greatest_feed_rate_and_one_that_is_none() -> None:
    found = read("G1 F1200 X1/G1 X2 F7800/G1 F0/G20/G1 X1 F10")
    assert found.feed_mm_per_min.greatest == analysis.Extreme(7800.0, 2)
    assert found.feed_mm_per_min.least == analysis.Extreme(254.0, 5)


def test_filament_is_what_is_pushed_less_what_is_taken_back() -> None:
    assert read("G1 X10 E5/G1 E3/G92 E0/M83/G1 E2/G1 X20 E1").filament_mm == pytest.approx(6.0)
    assert read("M83/G91/M82/G1 E2/G1 E4/M221 S50/M221/G1 E8").filament_mm == pytest.approx(6.0)


def test_layers_are_heights_in_which_a_level_move_extrudes() -> None:
    found = read(
        "M83/G1 Z5/G1 Z0.2/G1 X1 E1/G1 Z0.6/G1 X2/G1 Z0.2/G1 Y3 E1/G1 E2/G1 Z0.4/G1 X1 E1/G1 X2 E-1/G3 X4 I1 E1"
    )
    assert found.layers_mm == [0.2, 0.4]
    assert read("M83/G1 X1 Z1 E1/G1 X2 Z2 E1").layers_mm == [], "a spiral"
    assert read("M83/G1 Z2/G92 Z0/G1 X1 E1/G18/G2 X5 I2 E1").layers_mm == [2.0]


def test_layers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "LAYERS_MAX", 2)
    assert read("M83/G1 X1 E1/G1 Z1/G1 X2 E1/G1 Z2/G1 X3 E1").layers_mm == [0.0, 1.0]


def test_what_depends_on_the_day_is_counted_and_takes_no_time() -> None:
    found = read("G28/G29/T0/T1/T1/T0/G10/G10/G11/G11/M73 P5 R1/M117 G1 X500 E5")
    assert (found.probings, found.tool_changes, found.retractions) == (2, 2, 1)
    assert read("G28/M109 S200/T1/M600/M0").duration_s == 0.0
    assert found.extents_mm["X"].least is None


# -- time

BACK_AND_FORTH = "G1 X100 F6000/G1 X0"


def test_no_program_takes_no_time() -> None:
    found = analyse([])
    assert (found.commands, found.duration_s, found.timeline) == (0, 0.0, ())


def test_a_move_and_a_dwell() -> None:
    assert read("G1 X100 F6000").duration_s == pytest.approx(1.1, rel=1e-3)
    assert read("G1 X100 F6000/G4 S2/G4 P500/G4/G4 S-1").duration_s == pytest.approx(3.6, rel=1e-3)


@pytest.mark.parametrize("stop", ["M400", "G4 P0", "M109 S200", "M600", "T1", "G28 Z"])
def test_what_waits_is_a_stop(stop: str) -> None:
    through = read("G1 X50 F6000/G1 X100").duration_s
    assert read(f"G1 X50 F6000/{stop}/G1 X100").duration_s == pytest.approx(through + 0.1, rel=1e-3)


def test_the_speed_factor_is_kept_and_taken_back() -> None:
    slow = "G1 X100 F6000"
    assert read(f"M220 S50/{slow}").duration_s == pytest.approx(2.05, rel=1e-3)
    assert read(f"M220 B S50/M220 R/{slow}").duration_s == read(slow).duration_s
    assert read(f"M220/{slow}").duration_s == read(slow).duration_s


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ("M203 X50 Y60", replace(PLAIN, max_mm_per_s=(50.0, 60.0, 500.0, 500.0))),
        ("M201 X100 E9", replace(PLAIN, max_mm_per_s2=(100.0, 1000.0, 1000.0, 9.0))),
        ("M204 S200", replace(PLAIN, travel_mm_per_s2=200.0, print_mm_per_s2=200.0)),
        ("M204 P100 T300 R50", replace(PLAIN, print_mm_per_s2=100.0, travel_mm_per_s2=300.0, retract_mm_per_s2=50.0)),
        ("M205 X8 E2", replace(PLAIN, jerk_mm_per_s=(8.0, 10.0, 0.3, 2.0))),
        ("M205 X8/M205 Z1", replace(PLAIN, jerk_mm_per_s=(8.0, 10.0, 1.0, 5.0))),
        ("M205 X8/M205 J0.1", replace(PLAIN, deviation_mm=0.1)),
        ("M205 S120 T150", replace(PLAIN, min_print_mm_per_s=120.0, min_travel_mm_per_s=150.0)),
        ("G20/M203 X2/G21", replace(PLAIN, max_mm_per_s=(50.8, 500.0, 500.0, 500.0))),
    ],
)
def test_a_program_sets_the_machine_s_limits(setting: str, same: Dynamics) -> None:
    moves = "G1 X100 F6000/G1 X100 Y50 E5/G1 E2/G1 X0 Y20 Z10"
    assert read(f"{setting}/{moves}").duration_s == read(moves, same).duration_s


def test_firmware_retraction_takes_its_time() -> None:
    assert read("G10/M400/G11").duration_s == pytest.approx(3 / 45 + 3 / 8, rel=0.2)
    assert read("M207 S10 F600/M208 S5 F300/G10/M400/G11").duration_s == pytest.approx(1 + 3, rel=0.02)
    assert read("M207/M208/G10/M400/G11").duration_s == read("G10/M400/G11").duration_s


def test_an_arc_takes_the_time_of_its_way() -> None:
    # A helix of a turn and a half; slow enough for no corner to matter.
    found = read("G1 X0 F60/G3 X20 Y0 I10 J0 Z4 E3 P1")
    assert found.duration_s == pytest.approx(3 * 3.1416 * 10, rel=0.01)
    assert found.filament_mm == 3.0


@pytest.mark.parametrize("count", [1, 5, analysis.TIMELINE_POINTS, 4321])
def test_the_time_line_is_short_and_ends_with_the_whole(count: int) -> None:
    found = analyse((n, f"G1 X{n % 2 * 10} F600") for n in range(count))
    assert min(count, analysis.TIMELINE_POINTS // 2) <= len(found.timeline) <= analysis.TIMELINE_POINTS
    assert found.timeline[-1] == (count, found.duration_s)
    assert list(found.timeline) == sorted(set(found.timeline))
    for done, seconds in found.timeline:
        assert seconds <= found.duration_s * done / count + 1e-6, "what is in the buffer is not done"


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    return [(n, command) for n, line in enumerate(path.read_text().splitlines(), 1) if (command := command_on(line))]


@pytest.mark.parametrize("path", SLICED, ids=lambda path: path.stem)
def test_the_duration_is_what_the_slicer_says(path: Path) -> None:
    said = re.search(r"estimated printing time \(normal mode\) = (.+)", path.read_text())
    assert said is not None
    units = {"h": 3600, "m": 60, "s": 1}
    slicer_s = sum(int(part[:-1]) * units[part[-1]] for part in said[1].split())
    assert analyse(numbered_lines(path)).duration_s == pytest.approx(slicer_s, rel=0.05)


@pytest.mark.parametrize("path", SLICED, ids=lambda path: path.stem)
def test_the_duration_is_what_the_simulated_printer_takes(path: Path) -> None:
    rig = Rig()
    waited_s = 0.0
    for command in [*commands(path.read_text().splitlines()), "M400"]:
        began_s = rig.now_s
        answer = rig.firmware.feed(f"{command}\n".encode(), rig.now_s)
        while b"ok" not in answer:
            wakeup_s = rig.firmware.next_wakeup_s()
            assert wakeup_s is not None
            rig.now_s = max(rig.now_s, wakeup_s)
            answer += rig.firmware.advance(rig.now_s)
        if command.startswith(("M109", "M190", "G28")):
            waited_s += rig.now_s - began_s
    assert analyse(numbered_lines(path)).duration_s == pytest.approx(rig.now_s - waited_s, rel=0.05)


# -- the position by name


def where(text: str, n: int | None = None) -> tuple[float | None, float | None, float | None, float | None]:
    lines = text.split("/")
    found = position_after(lines, len(lines) if n is None else n)
    return found.x_mm, found.y_mm, found.z_mm, found.e_mm


def test_nothing_is_known_before_the_program_says_it() -> None:
    found = position_after([], 0)
    assert (found.x_mm, found.y_mm, found.z_mm, found.e_mm, found.feed_mm_per_min) == (None,) * 5
    assert (found.absolute, found.absolute_e, found.inches) == (True, True, False)


def test_the_position_after_any_command() -> None:
    text = "G28/G92 E0/G1 X10 Y20 F3000/G1 Z0.2/M83/G1 X11 E0.5/G1 E0.25/G20/G91/G1 X1 F10"
    assert where(text, 0) == where(text, 1) == (None, None, None, None)
    assert where(text, 2) == (None, None, None, 0.0)
    assert where(text, 3) == (10.0, 20.0, None, 0.0)
    assert where(text, 7) == (11.0, 20.0, 0.2, 0.75)
    assert where(text) == (pytest.approx(36.4), 20.0, 0.2, 0.75)
    after = position_after(text.split("/"), 10)
    assert (after.feed_mm_per_min, after.absolute, after.absolute_e, after.inches) == (254.0, False, False, True)


def test_relative_moves_from_nowhere_lead_nowhere() -> None:
    assert where("G91/G1 X10 Y1 Z1 E1") == (None, None, None, None)
    assert where("G91/G1 X10/G92 X5/G1 X1") == (6.0, None, None, None)


KNOWN = "G1 X1 Y2 Z3 E4"


@pytest.mark.parametrize("lost", ["G28", "G28 X", "G29", "G27", "G42", "G55", "G53", "G53 G1 X5", "G2 X1", "M206 X1"])
def test_what_only_the_machine_knows_loses_the_place(lost: str) -> None:
    assert where(f"{KNOWN}/{lost}")[:3] == (None, None, None)
    assert where(f"{KNOWN}/{lost}/G1 X9 Y8 Z7")[:3] == (9.0, 8.0, 7.0)


@pytest.mark.parametrize("lost", ["T1", "M600", "G92", "M701"])
def test_some_lose_the_filament_too(lost: str) -> None:
    assert where(f"{KNOWN}/{lost}") == (None, None, None, None)


@pytest.mark.parametrize("kept", ["M104 S200", "G4 P1", "G10", "G11", "M220 S50", "G21", "G17", "M84", "M117 X5"])
def test_others_leave_it(kept: str) -> None:
    assert where(f"{KNOWN}/{kept}") == (1.0, 2.0, 3.0, 4.0)


def test_an_arc_ends_where_it_says() -> None:
    assert where(f"{KNOWN}/G2 X5 Y6 I2 E5") == (5.0, 6.0, 3.0, 5.0)


def test_a_program_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="has 2 commands, not 3"):
        position_after(["G28", "G1 X1"], 3)


def test_words_that_are_no_code_are_read_and_do_nothing() -> None:
    assert analysis.code_of("hello world") == "hello"
    assert read("hello X5").extents_mm["X"].least is None


# -- the check that stands on it

LIMITS = Limits(x_mm=(0, 220), y_mm=(0, 220), z_mm=(0, 250), nozzle_degc=(0, 260), bed_degc=(0, 100))


@pytest.fixture
def profile() -> Profile:
    return named("marlin-2.1", None)


def check(path: Path, text: str, *profiles: Profile) -> Prediction:
    path.write_text(text.replace("/", "\n"))
    return check_program(Program("part.gcode", path, "", path.stat().st_size), LIMITS, *profiles)


def test_a_prediction_has_time_facts_and_a_time_line(tmp_path: Path, profile: Profile) -> None:
    found = check(tmp_path / "p", "G28/M109 S200/T1/M83/G1 X100 Y0 F6000/G1 Z1/G1 X0 E5/G10/G11", profile)
    assert found.duration_s is not None
    assert found.duration_s > 2.0
    assert found.timeline[-1] == (9, found.duration_s)
    assert found.facts == {
        "commands": 9, "layers": 1, "filament_mm": 5.0, "x_min_mm": 0.0, "x_max_mm": 100.0, "y_min_mm": 0.0,
        "y_max_mm": 0.0, "z_min_mm": 1.0, "z_max_mm": 1.0, "nozzle_max_degc": 200.0, "feed_max_mm_per_min": 6000.0,
        "probings": 1, "heat_waits": 1, "tool_changes": 1, "firmware_retractions": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("; only words", ["part.gcode", "0 commands"]),
        ("G28/G1 X221", ["line 2", "X", "221", "0 to 220", "mm"]),
        ("G28/G01X221", ["line 2", "X", "221"]),
        ("G28/G1 X200/G92 X0/G1 X150", ["line 4", "X", "350"]),
        ("M104 S300", ["line 1", "nozzle", "300", "degC"]),
        ("M140 S101", ["line 1", "bed", "101", "degC"]),
        ("M141 S40", ["line 1", "chamber", "40", "degC"]),
        ("G28/G55", ["line 2", "G55"]),
        ("G28/M0500", ["line 2", "M500", "settings"]),
        ("G28/G53 M500", ["line 2", "M500"]),
        ("G28/M110N5", ["line 2", "M110"]),
        ("G28/g1 x5", ["line 2", "g1 x5"]),
        ("G28/G53 X5", ["line 2", "G53 X5"]),
        ("G28/G53G1 X500", ["line 2", "X", "500"]),
        ("G28/G90 G1 X500", ["line 2", "one command"]),
        ("G28/G1 X5 G91", ["line 2", "one command"]),
        ("M104 S200 G1 X500", ["line 1", "one command"]),
        ("T0 G1 X500", ["line 1", "one command"]),
        ("G28/M117 größer", ["line 2", "ASCII"]),
        ("G28/M117 " + "x" * 96, ["line 2", "length", "bytes"]),
    ],
)
def test_a_refusal_names_the_line_the_value_and_the_limit(
    tmp_path: Path, profile: Profile, text: str, words: list[str]
) -> None:
    with pytest.raises(NotAcceptableError) as refused:
        check(tmp_path / "p", text, profile)
    assert all(word in str(refused.value) for word in words)


@pytest.mark.parametrize("line", ["M117 G1 X500", "M118 E1 G1 done", 'M862.3 P "MK3"', "M73 P1 R90", "G53 G1 X5"])
def test_words_for_people_are_no_second_command(tmp_path: Path, profile: Profile, line: str) -> None:
    assert check(tmp_path / "p", f"G28/{line}", profile).facts["commands"] == 2


def test_a_program_must_suit_every_profile(tmp_path: Path, profile: Profile) -> None:
    rules = profile.program.model_copy(update={"forbidden": (Forbidden(command="M420", reason="bends the bed"),)})
    other = profile.model_copy(update={"program": rules})
    check(tmp_path / "p", "G28/M420 S1", profile)
    for code in ("M420", "M500"):
        with pytest.raises(NotAcceptableError, match=code):
            check(tmp_path / "p", f"G28/{code}", profile, other)
