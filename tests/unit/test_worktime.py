"""How long a run may be at work and has been, by the events about it."""

from __future__ import annotations

from typing import Any

import pytest

from edge.journal import worktime
from edge.journal.worktime import Moment, limit_of, worked_s
from edge.model.event import ClockTrust, EventKind, Stamp


def at(kind: str, mono_s: float, boot: str = "a", wall: str = "10:00:00", clock: str = "trusted") -> dict[str, Any]:
    stamped = {"at_wall": f"2026-11-21T{wall}.000Z", "at_mono_ms": int(1000 * mono_s), "boot_id": boot, "clock": clock}
    return {"kind": kind, "body": {"limit_s": 60, "predicted_s": None}, **stamped}


def now(mono_s: float, boot: str = "a", wall: str = "10:00:00", clock: str = "trusted") -> Moment:
    return worktime.moment_of(at("", mono_s, boot, wall, clock))


@pytest.mark.parametrize(
    ("allowed_s", "predicted_s", "limit_s"),
    [
        (60, 7200.0, 60),  # the order's word, also if it is shorter than what is predicted
        (0.5, None, 0.5),  # and where nobody can tell, as with limits = {checked_by = "controller"}
        (None, 3600.0, 1.5 * 3600 + 900),
        (None, 0.0, 900.0),
        (None, None, None),
    ],
)
def test_the_order_counts_then_the_prediction_and_without_both_nothing(allowed_s, predicted_s, limit_s) -> None:
    assert limit_of(allowed_s, predicted_s) == limit_s


BEGAN = at("run_began", 100)
WORKED = {
    "nothing is known of it": ([], now(200), 0),
    "it goes on": ([BEGAN], now(160.5), 60.5),
    "it was paused, and goes on": ([BEGAN, at("run_suspended", 110), at("run_released", 9110)], now(9130), 30),
    "it waits": ([BEGAN, at("run_suspended", 110)], now(9110), 10),
    "it says twice why it waits": ([BEGAN, at("run_suspended", 110), at("run_suspended", 500)], now(900), 10),
    "it went on after the daemon was away": ([BEGAN, at("run_resumed", 150)], now(160), 60),
    "it is found again, and still waits": ([BEGAN, at("run_suspended", 110), at("run_resumed", 150)], now(900), 10),
    "it was told before": ([BEGAN, at("run_overran", 160)], now(170), 70),
    "it has ended": ([BEGAN, at("run_ended", 130)], now(900), 30),
    "the host was booted, and its clock vouched for": (
        [BEGAN, at("run_resumed", 20, "b", "11:00:00")],
        now(30, "b", "12:00:00"),
        3610,  # the wall clock tells only what no other can
    ),
    "the host was booted, and nobody vouches for its clock now": (
        [BEGAN, at("run_resumed", 20, "b", "23:00:00", "unknown")],
        now(30, "b", "23:00:10", "unknown"),
        10,
    ),
    "the host was booted, and nobody vouched for its clock before": (
        [at("run_began", 100, clock="floor"), at("run_resumed", 20, "b", "23:00:00")],
        now(30, "b", "23:00:10"),
        10,
    ),
    "the wall clock was set back by who vouches for it": (
        [BEGAN, at("run_resumed", 20, "b", "09:00:00")],
        now(30, "b", "09:00:10"),
        10,
    ),
    "the wall clock jumps within a boot": ([BEGAN], now(130, wall="23:59:59"), 30),
}


@pytest.mark.parametrize(("events", "until", "expected_s"), WORKED.values(), ids=WORKED)
def test_the_time_at_work_is_without_pauses_and_by_the_clock_that_can_tell(events, until, expected_s) -> None:
    assert worked_s(events, until) == expected_s


@pytest.mark.parametrize(
    ("kinds", "works"),
    [
        ((), False),
        (("run_began",), True),
        (("run_began", "run_suspended"), False),
        (("run_began", "run_suspended", "run_resumed"), False),
        (("run_began", "run_suspended", "run_released", "run_overran"), True),
        (("run_began", "run_ended"), False),
    ],
)
def test_the_time_stands_still_while_a_run_is_suspended(kinds, works) -> None:
    assert worktime.is_at_work([at(kind, 1) for kind in kinds]) is works


def test_what_was_told_is_told_with_the_time_until_now_and_in_words() -> None:
    assert worktime.overrun_of([BEGAN], lambda: now(9999)) is None
    told = at("run_overran", 160, wall="10:01:00") | {"body": {"limit_s": 10800, "predicted_s": 6600.0, "worked_s": 1}}
    found = worktime.overrun_of([BEGAN, told], lambda: now(100 + 4 * 3600 + 300))
    since = "2026-11-21T10:01:00.000Z"
    assert found == {"since": since, "worked_s": 14700.0, "limit_s": 10800, "predicted_s": 6600.0}
    assert worktime.in_words(found) == (
        "has been at work for 4 h 05 min, longer than its limit of 3 h 00 min (110 min predicted)"
    )
    few = {"worked_s": 61.2, "limit_s": 60, "predicted_s": None}
    assert worktime.in_words(few) == "has been at work for 61 s, longer than its limit of 60 s"


def test_a_stamp_is_a_moment() -> None:
    for trust in ClockTrust:
        stamp = Stamp("2026-11-21T10:00:00.000Z", 1.5, "a", trust)
        assert worktime.now_by(stamp) == Moment("2026-11-21T10:00:00.000Z", 1500, "a", trust is ClockTrust.TRUSTED)


def test_the_marks_are_kinds_of_events() -> None:
    assert set(worktime.MARKS) <= set(EventKind)
    assert set(worktime.MARKS) > set(worktime._WORKS)
    assert worktime.TOLD == EventKind.RUN_OVERRAN
