"""How long a run may be at work, and how long it has been, by the events about it. PURE.

Rules

1. The order's ``max_duration_s`` counts; without one what the driver's check predicted, with a margin. Where there is
   neither, nobody can say that a run takes too long.
2. The time in which a run is suspended does not count, whoever has paused it: a print that waits overnight for a person
   is not slow. All else does, also that in which the daemon or the connection was away: the machine may have worked.
3. Within one boot of the host its clock since boot counts. From one boot to another only the wall clock can tell, and
   only if it was trusted at both ends; otherwise that piece counts as nothing. So a run is never said to have taken
   longer than it has.

Light: the views ask it. Events are as `json.loads` gives them.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # slow to load
    from edge.model.event import Stamp

TOLD = "run_overran"
"""The kind of event that says of a run that it has been at work for longer than its limit."""

MARKS = ("run_began", "run_resumed", "run_suspended", "run_released", TOLD, "run_ended")
"""Kinds of events by which the time of a run is counted."""

_WORKS = {"run_began": True, "run_released": True, "run_suspended": False, "run_ended": False}
"""What each says of the time from then on; after the others it goes on as before."""

SHARE, MARGIN_S = 1.5, 15 * 60.0
"""Predictions know neither how long a machine heats nor what it does between two commands."""


class Moment(NamedTuple):
    """One moment by the clocks of the host, as events have it: RFC 3339 in UTC, and its clock since boot `boot_id`."""

    at_wall: str
    at_mono_ms: int
    boot_id: str
    trusted: bool


def limit_of(allowed_s: float | None, predicted_s: float | None) -> float | None:
    """After how many seconds at work a run takes too long: `allowed_s` is the order's word. None if nobody can say."""
    if allowed_s is not None or predicted_s is None:
        return allowed_s
    return SHARE * predicted_s + MARGIN_S


def now_by(stamp: Stamp) -> Moment:
    """The moment of a stamp."""
    return Moment(stamp.at_wall, stamp.at_mono_ms, stamp.boot_id, stamp.clock == "trusted")


def moment_of(event: Mapping[str, Any]) -> Moment:
    """When an event was recorded."""
    return Moment(event["at_wall"], event["at_mono_ms"], event["boot_id"], event["clock"] == "trusted")


def worked_s(events: Sequence[Mapping[str, Any]], now: Moment) -> float:
    """How long a run has been at work, in seconds; `events` are those of `MARKS` about it, the oldest first."""
    total_s, works, before = 0.0, False, now
    for event in events:
        at = moment_of(event)
        total_s += _passed_s(before, at) if works else 0.0
        works, before = _WORKS.get(event["kind"], works), at
    return total_s + (_passed_s(before, now) if works else 0.0)


def is_at_work(events: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the run's time goes on: not while it is suspended, and not when it has ended."""
    said = [_WORKS[event["kind"]] for event in events if event["kind"] in _WORKS]
    return bool(said) and said[-1]


def overrun_of(events: Sequence[Mapping[str, Any]], now: Callable[[], Moment]) -> dict[str, Any] | None:
    """What was told of a run that takes too long, and how long it has been at work by now; None if nothing was."""
    told = next((event for event in events if event["kind"] == TOLD), None)
    if told is None:
        return None
    limits = {name: told["body"][name] for name in ("limit_s", "predicted_s")}
    return {"since": told["at_wall"], "worked_s": round(worked_s(events, now()), 1), **limits}


def in_words(overrun: Mapping[str, Any]) -> str:
    """What `overrun_of` says, after the name of the run."""
    predicted_s = overrun["predicted_s"]
    predicted = "" if predicted_s is None else f" ({_in_hours(predicted_s)} predicted)"
    limit = _in_hours(overrun["limit_s"])
    return f"has been at work for {_in_hours(overrun['worked_s'])}, longer than its limit of {limit}{predicted}"


def _passed_s(before: Moment, after: Moment) -> float:
    if before.boot_id == after.boot_id:
        return max(0, after.at_mono_ms - before.at_mono_ms) / 1000
    if not (before.trusted and after.trusted):
        return 0.0
    first, then = (datetime.datetime.fromisoformat(moment.at_wall) for moment in (before, after))
    return max(0.0, (then - first).total_seconds())


def _in_hours(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02} min"
