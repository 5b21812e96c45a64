"""What people are told without asking: what waits for one of them, and what was refused.

Like `edge.reading.views`, which asks this, it stays light.
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Iterator, Mapping

from edge.jobstate import Requested, StepState
from edge.journal.maintenance import back_command
from edge.journal.rows import Row, held_in_words, rows, with_held


def attention(connection: sqlite3.Connection, held: str, parked: int, out_of_service: Mapping[str, str]) -> list[Row]:
    """What waits for a person, the most urgent first.

    Each has a `kind`, a `text` for people, the `command` that answers it, and what it is about. `held` is why the
    journal is not gone by, `parked` how many orders wait to be judged, `out_of_service` who took each machine out.
    """
    return [
        *_steps(connection),
        *_site(held, parked),
        *_held_jobs(connection),
        *_machines(out_of_service),
        *_uncleared(connection),
        *_other_roots(connection),
    ]


def notices(connection: sqlite3.Connection, now: datetime.datetime) -> list[Row]:
    """What was refused or ended by itself in the day before `now`: nobody needs to act, but somebody may wonder."""
    found = []
    since = (now - datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    for row in rows(
        connection,
        "SELECT job_id, reason, detail, at AS since, kind AS event FROM verdicts"
        " WHERE NOT accepted AND reason NOT IN ('cancelled', 'declined') AND at >= ? ORDER BY seq",
        since,
    ):
        what = _refused(row.pop("event"), row["job_id"])
        detail = f": {row['detail']}" if row["detail"] else ""
        found.append({"kind": "refused", "text": f"{what} was refused, {row['reason']}{detail}", **row})
    for row in rows(
        connection,
        "SELECT reason, sum(count) AS count, max(minute) AS since FROM refusals WHERE minute >= ?"
        " GROUP BY reason ORDER BY reason",
        since,
    ):
        text = f"refused in the last day and only counted, as {row['reason']}: {row['count']}"
        found.append({"kind": "refusals", "text": text, **row})
    for row in rows(
        connection,
        "SELECT DISTINCT job_id, reason, since FROM steps WHERE state = 'ABORTED' AND since >= ? AND EXISTS"
        " (SELECT 1 FROM events e WHERE e.job_id = steps.job_id AND e.kind = 'job_expired' AND e.at_wall = steps.since)"
        " ORDER BY since, job_id",
        since,
    ):
        found.append({"kind": "expired", "text": f"job {row['job_id']} has ended: {row['reason']}", **row})
    return found


def _steps(connection: sqlite3.Connection) -> Iterator[Row]:
    for row in rows(
        connection,
        "SELECT s.*, r.outcome FROM steps s LEFT JOIN runs r ON r.run_id = s.run_id"
        " WHERE s.state NOT IN ('COMPLETED', 'ABORTED') AND s.state IN ('RUNNING', 'SUSPENDED', 'HELD')"
        " ORDER BY s.state = 'HELD' DESC, r.outcome = 'UNKNOWN' DESC, s.since",
    ):
        yield from _of_step(row)


def _of_step(row: Row) -> Iterator[Row]:
    """What a step whose run is open or in doubt wants of a person."""
    job_id, machine = row["job_id"], row["machine"]
    where = f"job {job_id}, part {row['part']}, step {row['step']}"
    about = {key: row[key] for key in ("job_id", "part", "step", "run_id", "machine", "reason", "since")}
    because = f": {row['reason']}" if row["reason"] else ""
    if row["state"] == StepState.HELD:
        unknown = row["outcome"] == "UNKNOWN"
        text = f"nobody knows what became of its run on {machine}" if unknown else "is held"
        kind, colon = ("unknown_run", ":") if unknown else ("held", "")
        yield {"kind": kind, "text": f"{where}{colon} {text}{because}", "command": f"edge why {job_id}", **about}
    elif row["suspended_by"] == "machine":
        text = f"{where}: {machine} waits for a person{because}"
        yield {"kind": "suspended", "text": text, "command": f"edge job release {job_id}", **about}
    if row["request_failure"]:
        running = row["state"] == StepState.RUNNING
        if row["requested"] == Requested.NONE:  # withdrawn
            text, verb = f"{where} {'goes on' if running else 'stays suspended'}", "hold" if running else "release"
        else:
            text = f"{where} was asked to {row['requested']}, not confirmed"
            verb = "hold" if row["requested"] == Requested.PAUSE else "release"
        text += f": {row['request_failure']}"
        yield {"kind": "request_failed", "text": text, "command": f"edge job {verb} {job_id}", **about}


def _site(held: str, parked: int) -> Iterator[Row]:
    if held:
        text = f"nothing begins before somebody confirms this journal: {held}"
        yield {"kind": "journal_held", "text": text, "command": "edge journal confirm"}
    if parked:
        text = f"orders that wait until somebody vouches for the clock: {parked}"
        yield {"kind": "parked", "text": text, "command": "edge time show", "count": parked}


def _held_jobs(connection: sqlite3.Connection) -> Iterator[Row]:
    for row in rows(
        connection,
        "SELECT o.job_id, o.held_by, o.held_since, o.held_reason FROM orders o WHERE o.held_by IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM steps s WHERE s.job_id = o.job_id AND s.state NOT IN ('COMPLETED', 'ABORTED'))"
        " ORDER BY o.held_since",
    ):
        job_id, held = row["job_id"], with_held(row)["held"]
        text, command = f"job {job_id} is {held_in_words(held)}", f"edge job release {job_id}"
        about = {"job_id": job_id, "held": held, "since": held["since"]}
        yield {"kind": "held_job", "text": text, "command": command, **about}


def _machines(out_of_service: Mapping[str, str]) -> Iterator[Row]:
    for machine, words in out_of_service.items():
        about = {"command": back_command(machine), "machine": machine}
        yield {"kind": "maintenance", "text": f"{machine} is {words}; it takes no work", **about}


def _uncleared(connection: sqlite3.Connection) -> Iterator[Row]:
    """Machines that may still have something on them: of our runs that have ended, then of work that was not ours."""
    ours = rows(
        connection,
        "SELECT m.machine, m.needs_clearing AS run_id, r.job_id, r.ended_at AS since FROM machines m"
        " JOIN runs r ON r.run_id = m.needs_clearing WHERE r.ended_at IS NOT NULL ORDER BY m.machine",
    )
    foreign = rows(
        connection,
        "SELECT m.machine, f.token, f.detail, f.began_at AS since FROM machines m"
        " JOIN foreign_work f ON (f.machine, f.token) = (m.machine, m.needs_clearing) ORDER BY m.machine",
    )
    for row in (*ours, *foreign):
        machine = row["machine"]
        why = row.pop("detail") if "detail" in row else f"what job {row['job_id']} made is still on it"
        about = {"text": f"{machine} needs clearing: {why}", "command": f"edge machine clear {machine}"}
        yield {"kind": "needs_clearing", **about, **row}


def _other_roots(connection: sqlite3.Connection) -> Iterator[Row]:
    for row in rows(
        connection,
        "SELECT detail, at AS since FROM verdicts WHERE kind = 'root_refused' AND reason = 'conflict'"
        " AND seq > (SELECT max(accepted_seq) FROM roots) ORDER BY seq",
    ):
        text = f"another trust root was sent, signed by enough of your root keys: {row['detail']}"
        yield {"kind": "root_conflict", "text": text, "command": "edge root show FILE", **row}


def _refused(event: str, job_id: str | None) -> str:
    """What a refusal is about."""
    match event:
        case "root_refused":
            return "a trust root"
        case "time_refused":
            return "a signed time"
        case "command_refused":
            return f"a command for job {job_id}" if job_id else "a command"
        case _:
            return f"job {job_id}" if job_id else "an order that could not be read"
