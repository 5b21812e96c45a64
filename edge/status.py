"""The one document that says how a site is, made from the journal and, if the daemon lives, from what it sees.

Light: imports neither pydantic nor asyncio. The shape is in docs/json.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge.views import Row, Snapshot

FINE, ATTENTION, UNSAFE = 0, 1, 2

UNSAFE_KINDS = frozenset({"unknown_run", "unwatched_run"})
"""A machine may be doing something that nobody knows of."""

PATIENT = frozenset({"busy", "checking", "not_before", "needs_clearing", "offline"})
"""Codes of blockers that need nobody's hand, or that are told of the machine already."""

NOT_WATCHED = {"state": "UNKNOWN", "detail": "the daemon is not running"}
"""What is known of a machine that nobody is connected to."""


def document(
    snapshot: Snapshot,
    configured: Sequence[Row],
    daemon: Mapping[str, Any] | None,
    live: Mapping[str, Mapping[str, Any]],
    waits: Mapping[str, Sequence[Mapping[str, str]]],
) -> dict[str, Any]:
    """How the site is. `configured` are the machines of site.toml, `live` what is seen of each, `waits` by job."""
    known = {row["machine"]: row for row in snapshot.machines()}
    machines = [_machine(row, known.get(row["id"]), live.get(row["id"], NOT_WATCHED)) for row in configured]
    jobs = [{**row, "waits": list(waits.get(row["job_id"], []))} for row in snapshot.jobs()]
    attention = [*_unwatched(machines, daemon), *snapshot.attention(), *_offline(machines, daemon), *_stuck(jobs)]
    summary = snapshot.summary()
    return {
        "site": summary["site"],
        "journal": summary["journal"],
        "last_event": summary["last_event"],
        "daemon": daemon,
        "level": level(attention, daemon),
        "attention": attention,
        "notices": snapshot.notices(),
        "machines": machines,
        "jobs": jobs,
        "job_counts": summary["jobs"],
    }


def level(attention: Sequence[Mapping[str, Any]], daemon: Mapping[str, Any] | None) -> int:
    """The exit code of `edge status`: 0 fine, 1 needs attention, 2 unsafe."""
    if any(item["kind"] in UNSAFE_KINDS for item in attention):
        return UNSAFE
    return ATTENTION if attention or daemon is None else FINE


def _machine(configured: Row, known: Row | None, live: Mapping[str, Any]) -> Row:
    empty: Row = {"identity": None, "progress": None, "temperatures": {}, "link": None, "message": None}
    return {
        **configured,
        **empty,
        **live,
        "run": known and known["run"],
        "needs_clearing": known and known["needs_clearing"],
    }


def _unwatched(machines: Sequence[Row], daemon: Mapping[str, Any] | None) -> list[Row]:
    if daemon is not None:
        return []
    return [
        {
            "kind": "unwatched_run",
            "text": f"{machine['id']} was running job {machine['run']['job_id']} when the daemon ended",
            "command": "edge run",
            "machine": machine["id"],
            **machine["run"],
        }
        for machine in machines
        if machine["run"]
    ]


def _offline(machines: Sequence[Row], daemon: Mapping[str, Any] | None) -> list[Row]:
    return [
        {"kind": "offline", "text": f"{m['id']} is offline: {m['detail']}", "command": "", "machine": m["id"]}
        for m in machines
        if daemon is not None and m["state"] == "OFFLINE"
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
        if job["waits"] and not any(wait["code"] in PATIENT for wait in job["waits"])
    ]
