"""The look-ahead planner against sums done by hand, and arcs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from drivers.motion import ARC_SEGMENTS_MAX, BUFFER_MOVES, MIN_MM_PER_S, Arc, Dynamics, Planner

FAST = Dynamics(
    max_mm_per_s=(500.0, 500.0, 500.0, 500.0),
    max_mm_per_s2=(1000.0, 1000.0, 1000.0, 1000.0),
    print_mm_per_s2=1000.0,
    retract_mm_per_s2=1000.0,
    travel_mm_per_s2=1000.0,
)
JERK = replace(FAST, jerk_mm_per_s=(10.0, 10.0, 1.0, 5.0))


def seconds(dynamics: Dynamics, *moves: tuple[float, float, float, float, float]) -> float:
    planner = Planner(dynamics)
    for move in moves:
        planner.add(*move)
    return planner.stop()


def test_one_move_is_a_trapezoid_between_rest_and_rest() -> None:
    assert seconds(FAST, (100.0, 0.0, 0.0, 0.0, 100.0)) == pytest.approx(1.1, rel=1e-3)


def test_a_short_move_is_a_triangle() -> None:
    assert seconds(FAST, (1.0, 0.0, 0.0, 0.0, 500.0)) == pytest.approx(2.0 * math.sqrt(1.0 / 1000.0), rel=1e-2)


@pytest.mark.parametrize("dynamics", [FAST, JERK])
def test_moves_in_one_line_are_as_fast_as_one(dynamics: Dynamics) -> None:
    whole = seconds(dynamics, (100.0, 0.0, 0.0, 0.0, 100.0))
    assert seconds(dynamics, *[(10.0, 0.0, 0.0, 0.0, 100.0)] * 10) == pytest.approx(whole, rel=1e-6)


def test_a_right_angle_is_passed_at_the_speed_of_the_jerk() -> None:
    # Each axis may jump by 10 mm/s: the corner is passed at 10. At the start, too, the axis jumps to 10 at once.
    both = seconds(JERK, (100.0, 0.0, 0.0, 0.0, 100.0), (0.0, 100.0, 0.0, 0.0, 100.0))
    first = 0.09 + 0.09 + (100.0 - 2 * (100.0**2 - 10.0**2) / 2000.0) / 100.0
    last = 0.09 + 0.1 + (100.0 - (100.0**2 - 10.0**2) / 2000.0 - 5.0) / 100.0
    assert both == pytest.approx(first + last, rel=1e-3)


@pytest.mark.parametrize(
    ("move", "after"), [((0.0, 0.0, 10.0, 0.0), 1.0), ((0.0, 0.0, 0.0, 10.0), 5.0), ((0.0, 10.0, 0.0, 0.0), 10.0)]
)
def test_each_axis_has_its_jerk(move: tuple[float, float, float, float], after: float) -> None:
    accelerated = (100.0 - after) / 1000.0
    length = 10.0 - (100.0**2 - after**2) / 2000.0 - 5.0
    assert seconds(JERK, (*move, 100.0)) == pytest.approx(accelerated + 0.1 + length / 100.0, rel=1e-3)


def test_a_slower_move_is_entered_at_its_own_speed() -> None:
    fast_then_slow = seconds(JERK, (100.0, 0.0, 0.0, 0.0, 100.0), (100.0, 0.0, 0.0, 0.0, 50.0))
    slow_then_fast = seconds(JERK, (100.0, 0.0, 0.0, 0.0, 50.0), (100.0, 0.0, 0.0, 0.0, 100.0))
    assert fast_then_slow == pytest.approx(slow_then_fast, abs=0.02)
    assert fast_then_slow < seconds(JERK, (100.0, 0.0, 0.0, 0.0, 100.0)) + seconds(JERK, (100.0, 0.0, 0.0, 0.0, 50.0))


def test_a_corner_costs_more_the_sharper_it_is_and_a_reversal_is_a_stop() -> None:
    def two(angle: float) -> float:
        second = (10.0 * math.cos(angle), 10.0 * math.sin(angle), 0.0, 0.0, 100.0)
        return seconds(FAST, (10.0, 0.0, 0.0, 0.0, 100.0), second)

    times = [two(math.radians(degrees)) for degrees in (0, 10, 45, 90, 135, 180)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(2 * seconds(FAST, (10.0, 0.0, 0.0, 0.0, 100.0)), rel=1e-3)


def test_junction_deviation_is_a_circle_at_the_weaker_axis_acceleration() -> None:
    # A right angle: v² = a·d·s/(1-s), s = sin 45°; a from the axes' limits along the diagonal.
    weak = replace(FAST, max_mm_per_s2=(1000.0, 500.0, 1000.0, 1000.0), deviation_mm=0.1)
    half = math.sqrt(0.5)
    junction = math.sqrt(500.0 / half * 0.1 * half / (1.0 - half))
    first = 0.2 + (100.0 - junction) / 500.0 + (100.0 - 10.0 - (100.0**2 - junction**2) / 1000.0) / 100.0
    last = 0.1 + (100.0 - junction) / 1000.0 + (100.0 - 5.0 - (100.0**2 - junction**2) / 2000.0) / 100.0
    both = seconds(weak, (0.0, 100.0, 0.0, 0.0, 100.0), (100.0, 0.0, 0.0, 0.0, 100.0))
    assert both == pytest.approx(first + last, rel=1e-3)


def test_extrusion_is_part_of_the_angle() -> None:
    stop_and_go = seconds(FAST, (10.0, 0.0, 0.0, 10.0, 50.0), (10.0, 0.0, 0.0, -10.0, 50.0))
    assert stop_and_go > seconds(FAST, (10.0, 0.0, 0.0, 10.0, 50.0), (10.0, 0.0, 0.0, 10.0, 50.0))


@pytest.mark.parametrize("axis", range(4))
def test_each_axis_limits_the_speed_of_the_whole_move(axis: int) -> None:
    limits = [500.0] * 4
    limits[axis] = 10.0
    slow = replace(FAST, max_mm_per_s=(limits[0], limits[1], limits[2], limits[3]))
    move = [0.0, 0.0, 0.0, 0.0]
    move[axis] = 100.0
    assert seconds(slow, (move[0], move[1], move[2], move[3], 400.0)) == pytest.approx(10.01, rel=1e-3)


@pytest.mark.parametrize("axis", range(4))
def test_each_axis_limits_the_acceleration_of_the_whole_move(axis: int) -> None:
    limits = [1000.0] * 4
    limits[axis] = 100.0
    weak = replace(FAST, max_mm_per_s2=(limits[0], limits[1], limits[2], limits[3]))
    move = [0.0, 0.0, 0.0, 0.0]
    move[axis] = 100.0
    assert seconds(weak, (move[0], move[1], move[2], move[3], 50.0)) == pytest.approx(2.5, rel=1e-2)


def test_printing_travel_and_retraction_accelerate_each_in_their_way() -> None:
    own = replace(FAST, print_mm_per_s2=100.0, travel_mm_per_s2=500.0, retract_mm_per_s2=250.0)
    # Half a second of ramps at 100 mm/s² and 50 mm/s, each end.
    assert seconds(own, (100.0, 0.0, 0.0, 1.0, 50.0)) == pytest.approx(2.5, rel=1e-2)
    assert seconds(own, (100.0, 0.0, 0.0, 0.0, 50.0)) == pytest.approx(2.1, rel=1e-2)
    assert seconds(own, (0.0, 0.0, 0.0, 100.0, 50.0)) == pytest.approx(2.2, rel=1e-2)


def test_the_least_speeds_of_m205() -> None:
    least = replace(FAST, min_print_mm_per_s=20.0, min_travel_mm_per_s=50.0)
    assert seconds(least, (100.0, 0.0, 0.0, 1.0, 1.0)) == pytest.approx(5.02, rel=1e-2)
    assert seconds(least, (100.0, 0.0, 0.0, 0.0, 1.0)) == pytest.approx(2.05, rel=1e-2)


def test_limits_of_nothing_and_below_still_have_an_end() -> None:
    none = (0.0, -1.0, 0.0, 0.0)
    stuck = Dynamics(none, none, 0.0, -1.0, 0.0, -1.0, -1.0, (-5.0, -5.0, -5.0, -5.0), 0.0)
    assert seconds(stuck, (1.0, 1.0, 0.0, 0.0, -5.0)) == pytest.approx(math.sqrt(2.0) / MIN_MM_PER_S, rel=0.05)
    bent = replace(FAST, deviation_mm=-1.0)
    assert seconds(bent, (1.0, 0.0, 0.0, 0.0, 10.0), (0.0, 1.0, 0.0, 0.0, 10.0)) > 0.0


def test_nothing_takes_no_time() -> None:
    assert seconds(FAST, (0.0, 0.0, 0.0, 0.0, 100.0), (1e-9, 0.0, 0.0, 0.0, 100.0)) == 0.0
    assert Planner(FAST).stop() == 0.0


def test_a_wait_is_a_stop_and_never_negative() -> None:
    planner = Planner(FAST)
    planner.add(100.0, 0.0, 0.0, 0.0, 100.0)
    planner.wait(2.0)
    planner.wait(-2.0)
    planner.add(100.0, 0.0, 0.0, 0.0, 100.0)
    assert planner.stop() == pytest.approx(2 * 1.1 + 2.0, rel=1e-3)


def test_seconds_count_moves_that_have_left_the_buffer() -> None:
    planner = Planner(FAST)
    for _ in range(BUFFER_MOVES - 1):
        planner.add(10.0, 0.0, 0.0, 0.0, 100.0)
    assert planner.seconds == 0.0
    planner.add(10.0, 0.0, 0.0, 0.0, 100.0)
    assert 0.1 < planner.seconds < 0.2


def test_a_buffer_of_short_moves_must_always_be_able_to_stop_within_itself() -> None:
    planner = Planner(FAST)
    for _ in range(10_000):
        planner.add(0.01, 0.0, 0.0, 0.0, 500.0)
    fastest = math.sqrt(2 * 1000.0 * 0.01 * BUFFER_MOVES)
    assert planner.stop() > 100.0 / fastest


def test_new_limits_are_for_the_moves_that_follow() -> None:
    planner = Planner(FAST)
    planner.add(100.0, 0.0, 0.0, 0.0, 100.0)
    planner.use(replace(FAST, max_mm_per_s=(10.0, 10.0, 10.0, 10.0)))
    assert planner.dynamics.max_mm_per_s[0] == 10.0
    planner.add(100.0, 0.0, 0.0, 0.0, 100.0)
    assert planner.stop() == pytest.approx(11.1, rel=1e-2)


def arc(
    end: tuple[float, float], offset: tuple[float, float], radius: float = 0.0, turns: int = 0, *, clockwise: bool
) -> Arc:
    found = Arc.between((0.0, 0.0), end, offset, radius, turns, clockwise=clockwise)
    assert found is not None
    return found


@pytest.mark.parametrize(("clockwise", "quarters"), [(False, 1), (True, 3)])
def test_an_arc_goes_its_way_round(clockwise: bool, quarters: int) -> None:
    found = arc((10.0, 10.0), (0.0, 10.0), clockwise=clockwise)
    assert abs(found.sweep) == pytest.approx(quarters * math.pi / 2)
    assert sum(math.hypot(*step) for step in found.chords()) == pytest.approx(quarters * 5 * math.pi, rel=1e-3)


@pytest.mark.parametrize("clockwise", [False, True])
@pytest.mark.parametrize("end", [(10.0, 0.0), (3.0, 4.0), (0.0, -7.0)])
def test_chords_end_where_the_arc_ends(clockwise: bool, end: tuple[float, float]) -> None:
    chords = arc(end, (0.0, 0.0), 20.0, clockwise=clockwise).chords()
    assert sum(x for x, _ in chords) == pytest.approx(end[0])
    assert sum(y for _, y in chords) == pytest.approx(end[1])


def test_the_same_place_again_is_a_circle_and_turns_come_on_top() -> None:
    assert arc((0.0, 0.0), (5.0, 0.0), clockwise=True).sweep == pytest.approx(-math.tau)
    assert arc((0.0, 0.0), (5.0, 0.0), turns=2, clockwise=False).sweep == pytest.approx(3 * math.tau)
    # As far off the circle's centre, in the same direction: once round, too.
    assert arc((1.0, 0.0), (5.0, 0.0), turns=-3, clockwise=False).sweep == pytest.approx(math.tau)


def test_a_circle_reaches_out_to_all_four_sides() -> None:
    reached = {(axis, round(value, 6)) for axis, value in arc((0.0, 0.0), (5.0, 0.0), clockwise=False).outmost()}
    assert reached == {(0, 10.0), (0, 0.0), (1, 5.0), (1, -5.0)}


def test_radius_form() -> None:
    assert arc((10.0, 0.0), (0.0, 0.0), 10.0, clockwise=True).sweep == pytest.approx(-math.pi / 3)
    assert arc((10.0, 0.0), (0.0, 0.0), -10.0, clockwise=True).sweep == pytest.approx(-5 * math.pi / 3)
    assert arc((10.0, 0.0), (0.0, 0.0), 10.0, clockwise=False).sweep == pytest.approx(math.pi / 3)
    assert arc((10.0, 0.0), (0.0, 0.0), 1.0, clockwise=True).radius == pytest.approx(5.0)


def test_no_centre_is_no_arc() -> None:
    assert Arc.between((0.0, 0.0), (10.0, 0.0), (0.0, 0.0), 0.0, 0, clockwise=True) is None
    assert Arc.between((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), 5.0, 0, clockwise=True) is None


def test_an_arc_of_any_length_has_a_bounded_number_of_chords() -> None:
    assert len(arc((0.0, 0.0), (1e6, 0.0), turns=1_000_000, clockwise=True).chords()) == ARC_SEGMENTS_MAX
