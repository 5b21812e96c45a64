"""The latest of everything that is seen of a machine, with its age."""

from __future__ import annotations

from edge.driver import (
    Condition,
    Conditions,
    LinkHealth,
    MachineState,
    Message,
    Progress,
    Reading,
    StateSeen,
    Temperature,
)
from edge.running.observed import Observed


def observed() -> tuple[Observed, list[float], list[int]]:
    """An empty memory, its clock, and a list that grows with every change of state."""
    now, changes = [100.0], []
    return Observed(lambda: now[0], lambda: changes.append(1)), now, changes


def test_nothing_is_seen_before_the_machine_was_reached() -> None:
    seen, _, _ = observed()
    assert seen.as_json() == {
        "state": "OFFLINE",
        "detail": "not connected yet",
        "progress": None,
        "temperatures": {},
        "readings": {},
        "conditions": [],
        "link": None,
        "message": None,
    }


def test_the_latest_of_each_kind_and_name_is_kept_with_its_age() -> None:
    seen, now, _ = observed()
    for observation in (
        Temperature("T", 20.0, 0.0),
        Temperature("B", 21.0, 60.0),
        Progress(1, 10),
        LinkHealth(0, 0),
        Message("hello"),
        StateSeen(MachineState.EXECUTE),
        Conditions((Condition("a1", "door", 500, True, False),)),
    ):
        seen.add(observation)
    now[0] += 2.04
    for observation in (Temperature("T", 25.0, 200.0), Progress(3, 10), LinkHealth(2, 1), Reading("load", 31.0, "%")):
        seen.add(observation)
    now[0] += 1.0
    assert seen.as_json() == {
        "state": "EXECUTE",
        "detail": "",
        "progress": {"done": 3, "total": 10, "unit": "commands", "age_s": 1.0},
        "temperatures": {
            "T": {"actual_degc": 25.0, "target_degc": 200.0, "age_s": 1.0},
            "B": {"actual_degc": 21.0, "target_degc": 60.0, "age_s": 3.0},
        },
        "readings": {"load": {"value": 31.0, "unit": "%", "age_s": 1.0}},
        "conditions": [
            {
                "token": "a1",
                "text": "door",
                "severity": 500,
                "active": True,
                "acknowledged": False,
                "refused": "",
                "alone": False,
            }
        ],
        "link": {"resends": 2, "time_outs": 1},
        "message": {"text": "hello", "age_s": 3.0},
    }


def test_only_a_change_of_state_is_told() -> None:
    seen, _, changes = observed()
    seen.add(StateSeen(MachineState.IDLE))
    seen.add(StateSeen(MachineState.IDLE))
    seen.add(Temperature("T", 20.0, 0.0))
    assert len(changes) == 1
    seen.add(StateSeen(MachineState.IDLE, "door open"))
    assert len(changes) == 2


def test_after_a_run_its_progress_is_gone_and_the_temperatures_stay() -> None:
    seen, _, _ = observed()
    seen.add(Progress(1, 10))
    seen.add(Temperature("T", 20.0, 0.0))
    seen.forget_run()
    assert seen.as_json()["progress"] is None
    assert "T" in seen.as_json()["temperatures"]


def test_of_a_machine_that_is_gone_nothing_is_known() -> None:
    seen, _, changes = observed()
    seen.add(StateSeen(MachineState.EXECUTE))
    for observation in (Progress(1, 10), Temperature("T", 20.0, 0.0), LinkHealth(1, 1), Message("hello")):
        seen.add(observation)
    seen.offline("unplugged")
    assert seen.as_json() == {
        "state": "OFFLINE",
        "detail": "unplugged",
        "progress": None,
        "temperatures": {},
        "readings": {},
        "conditions": [],
        "link": None,
        "message": None,
    }
    assert len(changes) == 2
