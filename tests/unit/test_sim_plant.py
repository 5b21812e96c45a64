"""Heaters, moves and the scaled clock."""

from __future__ import annotations

import pytest

from hil_sim.clock import MAX_DEBT_S, ScaledClock
from hil_sim.plant import FULL_POWER, PLANNER_MOVES, Axes, Heater


def test_a_heater_follows_the_same_curve_in_any_steps() -> None:
    one, many = Heater(350.0, 92.0, 260.0), Heater(350.0, 92.0, 260.0)
    one.set_target(200.0, 0.0)
    many.set_target(200.0, 0.0)
    for step in range(1, 401):
        many.degc(step / 10.0)
    assert one.degc(40.0) == pytest.approx(many.degc(40.0))


def test_a_heater_holds_its_target_and_cools_to_ambient() -> None:
    heater = Heater(350.0, 92.0, 260.0)
    heater.set_target(200.0, 0.0)
    assert heater.power(0.0) == FULL_POWER
    assert heater.degc(500.0) == 200.0
    assert 0 < heater.power(500.0) < FULL_POWER
    heater.set_target(0.0, 500.0)
    assert heater.power(500.0) == 0
    assert heater.degc(5000.0) == pytest.approx(20.0, abs=0.1)


def test_a_target_above_the_limit_is_cut() -> None:
    heater = Heater(350.0, 92.0, 260.0)
    heater.set_target(999.0, 0.0)
    assert heater.target_degc == 260.0


def test_a_single_move_is_a_trapezoid_that_starts_from_rest() -> None:
    axes = Axes()
    axes.limits.travel_mm_per_s2 = 1000.0
    axes.add_move((100.0, 0.0, 0.0, 0.0), 100.0, now_s=0.0)
    assert axes.idle_at_s(0.0) == pytest.approx(1.05)


def test_moves_in_a_line_join_without_stopping_and_corners_cost_time() -> None:
    straight, corner = Axes(), Axes()
    for axes, second in ((straight, (20.0, 0.0, 0.0, 0.0)), (corner, (10.0, 10.0, 0.0, 0.0))):
        axes.limits.travel_mm_per_s2 = 1000.0
        axes.add_move((10.0, 0.0, 0.0, 0.0), 50.0, now_s=0.0)
        axes.add_move(second, 50.0, now_s=0.0)
    assert straight.idle_at_s(0.0) == pytest.approx(0.4 + 0.025)
    assert corner.idle_at_s(0.0) == pytest.approx(0.4 + 3 * 0.025)


def test_the_slowest_axis_sets_the_speed() -> None:
    axes = Axes()
    axes.add_move((0.0, 0.0, 50.0, 0.0), 1000.0, now_s=0.0)
    assert axes.idle_at_s(0.0) > 10.0


def test_the_planner_fills_and_empties() -> None:
    axes = Axes()
    for i in range(PLANNER_MOVES):
        axes.add_move((float(i + 1), 0.0, 0.0, 0.0), 1.0, now_s=0.0)
    assert axes.moves_free(0.0) == 0
    assert axes.room_at_s(0.0) == pytest.approx(1.0, abs=0.01)
    assert axes.moves_free(100.0) == PLANNER_MOVES


def test_stop_stays_where_the_tool_is() -> None:
    axes = Axes()
    axes.add_move((100.0, 0.0, 0.0, 0.0), 10.0, now_s=0.0)
    axes.stop(5.0)
    assert axes.planned[0] == pytest.approx(50.0, abs=0.5)
    assert axes.idle_at_s(5.0) == 5.0


def test_the_clock_jumps_over_short_waits_and_never_far_ahead() -> None:
    real_s = 0.0
    clock = ScaledClock(1000.0, lambda: real_s)
    assert clock.wait_s(0.4) == 0.0
    assert clock.now_s() == 0.4
    assert clock.wait_s(0.9) == 0.0
    assert clock.wait_s(1.5) == pytest.approx(0.0015)
    assert clock.now_s() <= MAX_DEBT_S * 1000.0
    real_s = 0.0005
    assert clock.now_s() == 0.9
    real_s = 0.002
    assert clock.now_s() == 2.0
