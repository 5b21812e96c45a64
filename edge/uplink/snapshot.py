"""The site's state for an issuer who looks for the nearest site that can take the work. PURE.

What is expected is reckoned from the drivers' predictions, first come first served on the machine that is free first.
It is a help to choose by, no promise; where a driver predicts nothing, it is null.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.running.planner import CheckResult, OpenStep

Checks = Mapping[tuple[str, str], CheckResult]

LISTED = 100
"""Jobs named in the queue; it may hold more, and says how many."""


@dataclass(frozen=True, slots=True)
class Station:
    """A machine. `program` is the SHA-256 of what it carries out, `done` how far that is, in the driver's unit."""

    id: str
    processes: Sequence[str]
    properties: Mapping[str, str | int | float | bool]
    program: str | None = None
    done: int | None = None


def state(
    document: Mapping[str, Any], stations: Sequence[Station], waiting: Sequence[OpenStep], checks: Checks
) -> dict[str, Any]:
    """The payload of ``…/state``, as docs/uplink.md has it; `document` is that of `edge status`."""
    seen = {machine["id"]: machine for machine in document["machines"]}
    left = {station.id: remaining_s(station, seen[station.id], checks) for station in stations}
    ends = expected(stations, left, waiting, checks)
    machines = [_machine(station, seen[station.id], left[station.id], ends) for station in stations]
    return {
        "level": document["level"],
        "attention": [item["kind"] for item in document["attention"]],
        "machines": machines,
        "capacity": _capacity(machines),
        "queue": {
            "jobs": len(document["jobs"]),
            "listed": [_job(job, seen.values(), left, ends) for job in document["jobs"][:LISTED]],
        },
    }


def remaining_s(station: Station, seen: Mapping[str, Any], checks: Checks) -> float | None:
    """How long the machine's run will go on, in seconds: 0.0 if it has none, None if nobody can tell."""
    if seen["run"] is None:
        return 0.0
    result = checks.get((station.program or "", station.id))
    if result is None or result.duration_s is None or station.done is None:
        return None
    return max(0.0, result.duration_s - _passed_s(result.timeline, station.done))


def expected(
    stations: Sequence[Station], left: Mapping[str, float | None], waiting: Sequence[OpenStep], checks: Checks
) -> dict[tuple[str, str], float | None]:
    """Seconds until (machine, "") is free of all that waits, and until (job, step of it that ends last) has ended.

    A key ``(machine, "")`` is a machine, ``("", job)`` a job.
    """
    free: dict[str, float | None] = dict(left)
    ends: dict[tuple[str, str], float | None] = {}
    for step in sorted(waiting, key=lambda step: (-step.priority, step.accepted_seq, step.key)):
        able = [station.id for station in stations if step.process in station.processes]
        at = min(((s, name) for name in able if (s := free[name]) is not None), default=None)
        if at is None:
            ends["", step.key.job_id] = None
            continue
        since_s, name = at
        result = checks.get((step.program, name))
        end_s = None if result is None or result.duration_s is None else since_s + result.duration_s
        free[name] = end_s
        before_s = ends.get(("", step.key.job_id), 0.0)
        ends["", step.key.job_id] = None if end_s is None or before_s is None else max(end_s, before_s)
    return ends | {(name, ""): value for name, value in free.items()}


def _passed_s(timeline: Sequence[tuple[int, float]], done: int) -> float:
    """Seconds of the prediction that have passed at progress `done`, by straight lines between its points."""
    points = [(0, 0.0), *timeline]
    after = bisect.bisect_right(points, done, key=lambda point: point[0])
    if after == len(points):
        return points[-1][1]
    (done_0, at_0), (done_1, at_1) = points[after - 1], points[after]
    return at_0 + (at_1 - at_0) * (done - done_0) / (done_1 - done_0)


def _machine(
    station: Station, seen: Mapping[str, Any], left_s: float | None, ends: Mapping[tuple[str, str], float | None]
) -> dict[str, Any]:
    needs_clearing = seen["needs_clearing"] is not None and seen["run"] is None
    return {
        "id": station.id,
        "processes": list(station.processes),
        "properties": dict(station.properties),
        "state": seen["state"],
        "needs_clearing": needs_clearing,
        "job": seen["run"] and seen["run"]["job_id"],
        "in_maintenance": seen["maintenance"] is not None,
        "free": seen["state"] == "IDLE" and seen["run"] is None and not needs_clearing and seen["maintenance"] is None,
        "run_ends_in_s": _whole(left_s) if seen["run"] else None,
        "queue_ends_in_s": _whole(ends[station.id, ""]),
    }


def _capacity(machines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By process: how many machines do it, how many are free, and when the first of them has done all that waits."""
    found: dict[str, dict[str, Any]] = {}
    for process in sorted({process for machine in machines for process in machine["processes"]}):
        able = [m for m in machines if process in m["processes"] and m["state"] not in ("OFFLINE", "UNKNOWN")]
        able = [m for m in able if not m["in_maintenance"]]
        ends = [m["queue_ends_in_s"] for m in able if m["queue_ends_in_s"] is not None]
        found[process] = {
            "machines": len([m for m in machines if process in m["processes"]]),
            "online": len(able),
            "free": len([m for m in able if m["free"]]),
            "free_in_s": min(ends, default=None),
        }
    return found


def _job(
    job: Mapping[str, Any],
    machines: Any,
    left: Mapping[str, float | None],
    ends: Mapping[tuple[str, str], float | None],
) -> dict[str, Any]:
    runs = [left[m["id"]] for m in machines if m["run"] and m["run"]["job_id"] == job["job_id"]]
    known = [*runs, *([ends["", job["job_id"]]] if ("", job["job_id"]) in ends else [])]
    end_s = None if not known or None in known else max(s for s in known if s is not None)
    return {
        "job_id": job["job_id"],
        "state": job["state"],
        "priority": job["priority"],
        "due_at": job["due_at"],
        "parts": job["parts"],
        "waits": [wait["code"] for wait in job["waits"]][:5],
        "ends_in_s": _whole(end_s),
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)
