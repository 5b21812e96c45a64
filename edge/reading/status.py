"""The one document that says how a site is, made from the journal and, if the daemon lives, from what it sees.

Light: imports neither pydantic nor asyncio. The shape is in docs/json.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from edge.jobstate import JobState
from edge.journal import worktime
from edge.journal.rows import Row
from edge.model.loaded import Loaded, counting
from edge.reading import beginning
from edge.reading.views import Snapshot, with_waits

FINE, ATTENTION, UNSAFE = 0, 1, 2

UNSAFE_KINDS = frozenset({"unknown_run", "unwatched_run", "not_planning"})
"""A machine may be doing something that nobody knows of, or a stop that was asked for may not reach it."""

PATIENT = frozenset(
    {
        "journal",
        "clock",
        "busy",
        "checking",
        "not_before",
        "needs_clearing",
        "maintenance",
        "offline",
        "no_daemon",
        "held",
        "fetching",
    }
)
"""Codes of blockers that need nobody's hand, or that are told of the machine or the site already."""

STUCK = frozenset({"unreadable", "unsigned", "expired", "no_program", "no_machine"})
"""Codes of blockers that keep a step from every machine until somebody does something."""

NO_DAEMON = {"code": "no_daemon", "text": "the daemon is not running", "command": "edge run"}
"""What every open job waits for while nobody plans."""

NOT_WATCHED = {"state": "UNKNOWN", "detail": "the daemon is not running"}
"""What is known of a machine that nobody is connected to."""


def document(
    snapshot: Snapshot,
    configured: Sequence[Row],
    daemon: Mapping[str, Any] | None,
    live: Mapping[str, Mapping[str, Any]],
    waits: Mapping[str, Sequence[Mapping[str, str]]],
    trouble: str = "",
    storage: Sequence[str] = (),
    uplink: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """How the site is.

    `configured` are the machines of site.toml, `live` what is seen of each, `waits` by job; `trouble` says why nothing
    is planned, `storage` what keeps files from coming in or being kept. `uplink` is how the connection to the centre
    is, with what of it wants a person; None without one.
    """
    known, loaded = {row["machine"]: row for row in snapshot.machines()}, snapshot.loaded()
    machines = [
        _machine(row, known.get(row["id"]), live.get(row["id"], NOT_WATCHED), loaded.get(row["id"], {}))
        for row in configured
    ]
    jobs = [with_waits(row, waits.get(row["job_id"], [])) for row in snapshot.jobs()]
    attention = [
        *_not_planning(trouble),
        *_clock(daemon, snapshot.parked()),
        *_unwatched(machines, daemon),
        *snapshot.attention(),
        *_overrun(machines, daemon, snapshot.suspended()),
        *_no_daemon(daemon),
        *({"kind": "storage", "text": text, "command": ""} for text in storage),
        *({"kind": "uplink", "text": text, "command": ""} for text in (uplink or {}).get("attention", ())),
        *_hot(machines),
        *_unfit(machines, daemon, snapshot.suspended()),
        *_conditions(machines),
        *_stuck(jobs),
    ]
    summary = snapshot.summary()
    return {
        "site": summary["site"],
        "journal": summary["journal"],
        "last_event": summary["last_event"],
        "pruned": beginning.pruned(snapshot.connection),
        "daemon": daemon,
        "level": level(attention),
        "attention": attention,
        "notices": snapshot.notices(),
        "machines": machines,
        "jobs": jobs,
        "job_counts": summary["jobs"],
        "uplink": uplink,
    }


def without_journal(site: str, configured: Sequence[Row]) -> dict[str, Any]:
    """The same document of a site that has never run."""
    return {
        "site": site,
        "journal": None,
        "last_event": None,
        "pruned": None,
        "daemon": None,
        "level": ATTENTION,
        "attention": [{"kind": "never_ran", "text": "this site has not run yet", "command": "edge run"}],
        "notices": [],
        "machines": [_machine(row, None, NOT_WATCHED, {}) for row in configured],
        "jobs": [],
        "job_counts": dict.fromkeys((state.value for state in JobState), 0),
        "uplink": None,
    }


def level(attention: Sequence[Mapping[str, Any]]) -> int:
    """The exit code of `edge status`: 0 fine, 1 needs attention, 2 unsafe."""
    if any(item["kind"] in UNSAFE_KINDS for item in attention):
        return UNSAFE
    return ATTENTION if attention else FINE


def loaded_row(machine: Mapping[str, Any]) -> Row:
    """What counts of a machine, of its row in the document, and the job that goes on there meanwhile."""
    job = machine["run"] and machine["run"]["job_id"]
    return {"machine": machine["id"], "properties": machine["properties"], "job": job}


def _machine(configured: Row, known: Row | None, live: Mapping[str, Any], loaded: Mapping[str, Loaded]) -> Row:
    properties = counting(configured["properties"], loaded)
    empty: Row = {"identity": None, "progress": None, "temperatures": {}, "readings": {}, "link": None, "message": None}
    empty["conditions"] = []
    return {
        **configured,
        "properties": {name: one.as_json() for name, one in properties.items()},
        **empty,
        **live,
        "run": known and known["run"],
        "needs_clearing": known and known["needs_clearing"],
        "maintenance": known and known["maintenance"],
    }


def _clock(daemon: Mapping[str, Any] | None, parked: int) -> list[Row]:
    if daemon is None or daemon["clock"]["trust"] == "trusted":
        return []
    text = f"nobody vouches for this site's clock, and what needs the time waits: {daemon['clock']['detail']}"
    if parked:
        text += f"; orders that wait to be judged: {parked}"
    return [{"kind": "clock", "text": text, "command": "edge time show"}]


def _unwatched(machines: Sequence[Row], daemon: Mapping[str, Any] | None) -> list[Row]:
    """Runs that nobody looks at: the daemon is dead, or the machine cannot be reached."""
    found = []
    for machine in machines:
        if not machine["run"] or (daemon is not None and machine["state"] != "OFFLINE"):
            continue
        job = machine["run"]["job_id"]
        because = f": {machine['detail']}" if machine["detail"] else ""
        text, command = (
            (f"{machine['id']} was running job {job} when the daemon ended", "edge run")
            if daemon is None
            else (f"{machine['id']} runs job {job}, and cannot be reached{because}", "")
        )
        found.append(
            {"kind": "unwatched_run", "text": text, "command": command, "machine": machine["id"], **machine["run"]}
        )
    return found


def _overrun(machines: Sequence[Row], daemon: Mapping[str, Any] | None, suspended: Collection[str]) -> list[Row]:
    """Runs that take longer than they may; not of one that is suspended, or that nobody looks at: that is told."""
    return [
        {
            "kind": "overrun",
            "text": f"job {run['job_id']}, part {run['part']}, step {run['step']}: its run on {m['id']}"
            f" {worktime.in_words(run['overrun'])}; nothing is stopped by itself: look at the machine",
            "command": f"edge why {run['job_id']}",
            "machine": m["id"],
            **run,
        }
        for m in machines
        if (run := m["run"]) and run["overrun"] and m["id"] not in suspended
        if daemon is not None and m["state"] != "OFFLINE"
    ]


def _not_planning(trouble: str) -> list[Row]:
    text = f"nothing is planned, and no stop is passed on: {trouble}"
    return [{"kind": "not_planning", "text": text, "command": ""}] if trouble else []


def _no_daemon(daemon: Mapping[str, Any] | None) -> list[Row]:
    return [] if daemon is not None else [{"kind": "no_daemon", "text": NO_DAEMON["text"], "command": "edge run"}]


def _hot(machines: Sequence[Row]) -> list[Row]:
    """Machines that heat for no run: left so by a daemon that was killed, or by a person at the machine."""
    found = []
    for m in machines:
        heaters = [
            f"{name} to {t['target_degc']:.0f} degC" for name, t in m["temperatures"].items() if t["target_degc"]
        ]
        if heaters and m["state"] != "EXECUTE" and not m["run"]:
            text = f"{m['id']} heats {', '.join(heaters)}, and no run is going on; switch it off there, or from here"
            command = f"edge make-safe {m['id']}"
            found.append({"kind": "heating", "text": text, "command": command, "machine": m["id"]})
    return found


def _unfit(machines: Sequence[Row], daemon: Mapping[str, Any] | None, suspended: Collection[str]) -> list[Row]:
    """Machines that take no work, and do not come round by themselves or by clearing, or say something of their run.

    One that is held in a run that is `suspended` is told with its job, and one that is out of reach in a run with that.
    """
    return [
        {
            "kind": "offline" if m["state"] == "OFFLINE" else "machine",
            "text": f"{m['id']} is {m['state']}" + (f": {m['detail']}" if m["detail"] else ""),
            "command": "",
            "machine": m["id"],
        }
        for m in machines
        if daemon is not None and m["state"] != "IDLE"
        if m["state"] != "EXECUTE" or (m["run"] and m["detail"])
        if m["state"] != "OFFLINE" or not m["run"]
        if m["state"] != "HELD" or m["id"] not in suspended
    ]


def _conditions(machines: Sequence[Row]) -> list[Row]:
    """What machines want somebody to take note of."""
    return [
        {
            "kind": "condition",
            "text": f"{m['id']}: {one['text']}, {'still there' if one['active'] else 'over'}, and not acknowledged"
            + (f"; {one['refused']}" if one["refused"] else ""),
            "command": "" if one["refused"] else f"edge machine acknowledge {m['id']} {one['token']}",
            "machine": m["id"],
        }
        for m in machines
        for one in m["conditions"]
        if not one["acknowledged"]
    ]


def _stuck(jobs: Sequence[Row]) -> list[Row]:
    """Jobs that will not start by themselves."""
    return [
        {
            "kind": "waiting",
            "text": f"job {job['job_id']} waits: {job['waits'][0]['text']}",
            "command": job["waits"][0]["command"],
            "job_id": job["job_id"],
        }
        for job in jobs
        if job["waits"] and _stands(wait["code"] for wait in job["waits"])
    ]


def _stands(codes: Iterable[str]) -> bool:
    found = set(codes)
    return bool(found & STUCK) or not found & PATIENT
