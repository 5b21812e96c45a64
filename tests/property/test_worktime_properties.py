"""Any life of a run: its time at work and its pauses together are the time since it began, however it is cut."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.journal.worktime import MARKS, moment_of, worked_s

turns = st.lists(st.tuples(st.sampled_from(MARKS[1:]), st.integers(0, 10**7), st.booleans()), max_size=20)


def lived(turns: list[tuple[str, int, bool]]) -> list[dict[str, Any]]:
    """A run that began at 0; each turn comes so many milliseconds after the one before, or after a boot."""
    events, at_ms, boot = [("run_began", 0, 0)], 0, 0
    for kind, passed_ms, boots in turns:
        boot, at_ms = (boot + 1, 0) if boots else (boot, at_ms + passed_ms)
        events.append((kind, at_ms, boot))
    wall = {"at_wall": "2026-11-21T10:00:00.000Z", "clock": "unknown"}
    return [{"kind": kind, "at_mono_ms": ms, "boot_id": str(boot), **wall} for kind, ms, boot in events]


@given(turns, st.integers(0, 10**7))
def test_no_run_has_worked_for_longer_than_it_is_there(turns, last_ms) -> None:
    events = lived(turns)
    now = moment_of(events[-1])
    now = now._replace(at_mono_ms=now.at_mono_ms + last_ms)
    there_s = (sum(ms for _, ms, boots in turns if not boots) + last_ms) / 1000
    assert 0 <= worked_s(events, now) <= there_s + 1e-6
    if not {"run_suspended", "run_ended"} & {kind for kind, _, _ in turns}:
        assert abs(worked_s(events, now) - there_s) < 1e-6


@given(turns, st.integers(0, 10**7), st.integers(0, 20))
def test_it_does_not_matter_how_often_somebody_asks(turns, last_ms, place) -> None:
    events = lived(turns)
    place = min(place, len(events) - 1)
    between = {**events[place], "kind": "run_resumed"}
    now = moment_of(events[-1])
    now = now._replace(at_mono_ms=now.at_mono_ms + last_ms)
    asked = [*events[: place + 1], between, *events[place + 1 :]]
    assert abs(worked_s(asked, now) - worked_s(events, now)) < 1e-6
