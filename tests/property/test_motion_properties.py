"""Durations that any planner must give, and extents that do not depend on where a program is cut."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from drivers.analysis import Extent, analyse, position_after
from drivers.motion import DEFAULT_JERK_MM_PER_S, Dynamics, Planner

DYNAMICS = st.sampled_from(
    [
        Dynamics(),
        replace(Dynamics(), jerk_mm_per_s=DEFAULT_JERK_MM_PER_S),
        Dynamics((200.0, 100.0, 12.0, 120.0), (1500.0, 900.0, 500.0, 5000.0), 1000.0, 1250.0, 700.0, deviation_mm=0.05),
    ]
)
DISTANCE = st.one_of(st.just(0.0), st.floats(-50.0, 50.0), st.floats(-0.1, 0.1))
MOVE = st.tuples(DISTANCE, DISTANCE, DISTANCE, st.one_of(st.just(0.0), st.floats(-5.0, 5.0)), st.floats(1.0, 500.0))
MOVES = st.lists(MOVE, max_size=60)
Moves = list[tuple[float, float, float, float, float]]


def seconds(dynamics: Dynamics, moves: Moves) -> float:
    planner = Planner(dynamics)
    before = 0.0
    for move in moves:
        planner.add(*move)
        assert planner.seconds >= before, "time goes back"
        before = planner.seconds
    return planner.stop()


def close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


@given(DYNAMICS, MOVES, MOVES)
def test_a_stop_parts_the_time(dynamics: Dynamics, first: Moves, second: Moves) -> None:
    planner = Planner(dynamics)
    for move in first:
        planner.add(*move)
    planner.stop()
    for move in second:
        planner.add(*move)
    assert close(planner.stop(), seconds(dynamics, first) + seconds(dynamics, second))


@given(DYNAMICS, MOVES)
def test_no_axis_and_no_feed_rate_is_outrun(dynamics: Dynamics, moves: Moves) -> None:
    least = 0.0
    for dx, dy, dz, de, feed in moves:
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        parts = zip((dx, dy, dz, de), dynamics.max_mm_per_s, strict=True)
        least += max(length / feed, *(abs(part) / limit for part, limit in parts)) if length > 1e-6 else 0.0
    assert seconds(dynamics, moves) >= least * (1 - 1e-9)


@given(DYNAMICS, MOVES, st.floats(0.05, 1.0))
def test_slower_never_makes_it_shorter(dynamics: Dynamics, moves: Moves, factor: float) -> None:
    slower = [(dx, dy, dz, de, feed * factor) for dx, dy, dz, de, feed in moves]
    assert seconds(dynamics, slower) >= seconds(dynamics, moves) * (1 - 1e-9)


@given(DYNAMICS, MOVES, st.floats(0.1, 1.0))
def test_weaker_never_makes_it_shorter(dynamics: Dynamics, moves: Moves, factor: float) -> None:
    weaker = replace(
        dynamics,
        print_mm_per_s2=dynamics.print_mm_per_s2 * factor,
        travel_mm_per_s2=dynamics.travel_mm_per_s2 * factor,
        retract_mm_per_s2=dynamics.retract_mm_per_s2 * factor,
    )
    assert seconds(weaker, moves) >= seconds(dynamics, moves) * (1 - 1e-9)


NUMBER = st.integers(-30_000, 30_000).map(lambda thousandths: f"{thousandths / 1000:g}")
WORDS = st.dictionaries(st.sampled_from("XYZEF"), NUMBER, max_size=5).map(
    lambda words: "".join(f" {letter}{value}" for letter, value in sorted(words.items()))
)
COMMANDS = st.lists(
    st.one_of(
        st.builds(lambda code, words: code + words, st.sampled_from(["G0", "G1", "G1", "G92"]), WORDS),
        st.builds(lambda code, words, i: f"{code}{words} I{i} J1", st.sampled_from(["G2", "G3"]), WORDS, NUMBER),
        st.builds(lambda code, words, r: f"{code}{words} R{r}", st.sampled_from(["G2", "G3"]), WORDS, NUMBER),
        st.sampled_from(["G28", "G28 X", "G20", "G21", "G90", "G91", "M82", "M83", "G4 P10", "M400", "G10", "G11"]),
        st.sampled_from(["G17", "G18", "G19", "T1", "M220 S50", "M221 S90", "M205 X8", "M205 J0.02", "G53 G1 X1"]),
        st.sampled_from(["M104 S200", "M73 P1", "G1X1", "G01 Y2", "g1 z3", "G1  X5.", "M117 G1 X9"]),
    ),
    max_size=40,
)

RESET = ["G90", "M82", "G21", "G17", "M400", "G28", "G92 X0 Y0 Z0 E0", "M220 S100", "M221 S100", "T0"]
"""A full stop that also brings back the modes in which every program begins."""


def merged(one: Extent, other: Extent) -> tuple[float | None, float | None]:
    least = [extent.least.value for extent in (one, other) if extent.least]
    greatest = [extent.greatest.value for extent in (one, other) if extent.greatest]
    return min(least, default=None), max(greatest, default=None)


@given(COMMANDS, COMMANDS)
def test_the_extents_of_two_halves_are_those_of_the_whole(first: list[str], second: list[str]) -> None:
    whole = analyse(enumerate([*first, *RESET, *second]))
    parts = analyse(enumerate(first)), analyse(enumerate(second))
    for axis, extent in whole.extents_mm.items():
        assert merged(extent, Extent()) == merged(parts[0].extents_mm[axis], parts[1].extents_mm[axis])


@given(COMMANDS)
def test_any_program_has_a_time_that_is_not_negative_and_a_time_line_up_to_it(commands: list[str]) -> None:
    found = analyse(enumerate(commands))
    assert found.commands == len(commands)
    assert math.isfinite(found.duration_s)
    times = [0.0, *(seconds for _, seconds in found.timeline)]
    assert times == sorted(times)
    if commands:
        assert found.timeline[-1] == (len(commands), found.duration_s)


@given(COMMANDS, COMMANDS, st.booleans())
def test_the_position_needs_no_more_than_the_commands_before_it(
    first: list[str], second: list[str], spread: bool
) -> None:
    # Plain lines and lines with more blanks take two ways through the code, and mean the same.
    written = [command.replace(" ", "  ") if spread else command for command in first]
    assert position_after([*written, *second], len(first)) == position_after(first, len(first))


@given(st.lists(st.text(st.characters(codec="ascii"), max_size=40)))
def test_no_text_is_too_odd_to_be_read(lines: list[str]) -> None:
    commands = [line for line in lines if line.strip()]
    analyse(enumerate(commands))
    position_after(commands, len(commands))


@given(
    st.text("0123456789.-+ XYZEFIJRPS", max_size=400), st.sampled_from(["G1 ", "G2 ", "M205 ", "M201 ", "G92 ", "G4 "])
)
def test_no_number_is_too_long_to_be_read(words: str, code: str) -> None:
    analyse(enumerate([code + words, "G1 X1 Y1", "G2 X5 I2", "G1 X-" + "9" * 400, "G1 X1 E" + "9" * 400]))
