"""The site's state for whoever chooses a site: no promise beyond the predictions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from edge.running.planner import CheckResult, CheckState, OpenStep, StepKey
from edge.uplink.snapshot import LISTED, Station, expected, remaining_s, state

LATE = datetime(2030, 1, 1, tzinfo=UTC)
JOB = {"state": "ALLOWED_TO_START", "priority": 50, "due_at": None, "parts": {"open": 1}, "waits": []}


def step(job: str, program: str, seq: int = 0, process: str = "fdm", priority: int = 50) -> OpenStep:
    key = StepKey(job, 1, "print")
    return OpenStep(key, process, {}, program, "a.gcode", True, priority, None, None, LATE, seq)


def suits(duration_s: float | None, *timeline: tuple[int, float]) -> CheckResult:
    return CheckResult(CheckState.SUITS, "", duration_s, timeline)


def seen(name: str, job: str | None = None, state: str = "IDLE", needs_clearing: str | None = None) -> dict[str, Any]:
    run = job and {"job_id": job}
    return {"id": name, "state": state, "run": run, "needs_clearing": needs_clearing, "maintenance": None}


def document(machines: list[dict[str, Any]], *jobs: str) -> dict[str, Any]:
    rows = [{"job_id": job, **JOB} for job in jobs]
    return {"level": 1, "attention": [{"kind": "held"}], "machines": machines, "jobs": rows}


def test_a_site_with_a_running_and_a_free_printer_and_a_mill_that_is_away() -> None:
    stations = [
        Station("prn-1", ["fdm"], {"material": "PLA"}, "aa", 50),
        Station("prn-2", ["fdm"], {}),
        Station("mill-1", ["mill"], {}),
    ]
    machines = [seen("prn-1", "j1", "EXECUTE"), seen("prn-2"), seen("mill-1", state="OFFLINE")]
    checks = {("aa", "prn-1"): suits(100.0, (100, 100.0)), ("bb", "prn-2"): suits(30.0), ("bb", "prn-1"): suits(30.0)}
    waiting = [step("j2", "bb", 1), step("j3", "bb", 2), step("j4", "cc", 3, "mill")]
    found = state(document(machines, "j1", "j2", "j3", "j4"), stations, waiting, checks)
    assert (found["level"], found["attention"], found["queue"]["jobs"]) == (1, ["held"], 4)
    assert [(m["id"], m["free"], m["job"], m["run_ends_in_s"], m["queue_ends_in_s"]) for m in found["machines"]] == [
        ("prn-1", False, "j1", 50, 50),
        ("prn-2", True, None, None, 60),
        ("mill-1", False, None, None, None),
    ]
    assert found["capacity"] == {
        "fdm": {"machines": 2, "online": 2, "free": 1, "free_in_s": 50},
        "mill": {"machines": 1, "online": 0, "free": 0, "free_in_s": None},
    }
    ends = {job["job_id"]: job["ends_in_s"] for job in found["queue"]["listed"]}
    assert ends == {"j1": 50, "j2": 30, "j3": 60, "j4": None}


def test_what_nobody_predicted_is_null() -> None:
    running = seen("prn-1", "j1", "EXECUTE")
    assert remaining_s(Station("prn-1", ["fdm"], {}, None, 5), running, {}) is None
    assert remaining_s(Station("prn-1", ["fdm"], {}, "aa", None), running, {("aa", "prn-1"): suits(9.0)}) is None
    assert remaining_s(Station("prn-1", ["fdm"], {}, "aa", 5), running, {("aa", "prn-1"): suits(None)}) is None
    assert remaining_s(Station("prn-1", ["fdm"], {}, "aa", 5), running, {("aa", "prn-1"): suits(9.0)}) == 9.0
    assert remaining_s(Station("prn-1", ["fdm"], {}), seen("prn-1"), {}) == 0.0
    found = state(document([running], "j1", "j2"), [Station("prn-1", ["fdm"], {})], [step("j2", "aa")], {})
    assert [job["ends_in_s"] for job in found["queue"]["listed"]] == [None, None]
    assert found["capacity"]["fdm"]["free_in_s"] is None


def test_a_machine_that_is_out_of_service_is_no_capacity() -> None:
    out = seen("prn-1") | {"maintenance": {"by": "user:ada", "since": "…", "reason": "made safe"}}
    stations = [Station("prn-1", ["fdm"], {}), Station("prn-2", ["fdm"], {})]
    found = state(document([out, seen("prn-2")]), stations, [], {})
    assert [(m["in_maintenance"], m["free"]) for m in found["machines"]] == [(True, False), (False, True)]
    assert found["capacity"]["fdm"] == {"machines": 2, "online": 1, "free": 1, "free_in_s": 0}


def test_a_machine_that_a_part_lies_on_is_not_free_and_a_long_queue_is_cut() -> None:
    machines = [seen("prn-1", needs_clearing="r1")]
    jobs = [f"j{number}" for number in range(LISTED + 5)]
    found = state(document(machines, *jobs), [Station("prn-1", ["fdm"], {})], [], {})
    assert (found["machines"][0]["needs_clearing"], found["machines"][0]["free"]) == (True, False)
    assert (found["queue"]["jobs"], len(found["queue"]["listed"])) == (LISTED + 5, LISTED)


@given(
    st.lists(st.floats(0, 1000) | st.none(), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.floats(1, 100) | st.none(), st.integers(1, 99)), max_size=8),
)
def test_every_machine_is_expected_to_work_exactly_what_it_is_given(
    left: list[float | None], jobs: list[tuple[int, float | None, int]]
) -> None:
    stations = [Station(f"m{number}", ["fdm"], {}) for number in range(len(left))]
    names = [station.id for station in stations]
    free = dict(zip(names, left, strict=True))
    waiting = [step(f"j{job}", f"p{n}", n, priority=priority) for n, (job, _, priority) in enumerate(jobs)]
    checks = {(f"p{n}", name): suits(duration) for n, (_, duration, _) in enumerate(jobs) for name in names}
    found = expected(stations, free, waiting, checks)
    after = [found[name, ""] for name in names]
    for name in names:
        before_s, after_s = free[name], found[name, ""]
        assert before_s is not None or after_s is None
        assert after_s is None or before_s is None or after_s >= before_s
    if None not in after and None not in left:
        done_s = sum(s for s in after if s is not None) - sum(s for s in left if s is not None)
        assert abs(done_s - sum(duration or 0.0 for _, duration, _ in jobs)) < 1e-6
    for (_, job), end_s in found.items():
        if job and end_s is not None and None not in after:
            assert end_s <= max(s for s in after if s is not None) + 1e-9
