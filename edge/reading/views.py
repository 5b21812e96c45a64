"""Read-only questions to the journal, for `edge status` with the daemon alive or dead.

Answers are plain dictionaries, ready for JSON. This module and all it imports stay light: no pydantic, no asyncio, no
aiohttp; an import contract holds it to that.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge.jobstate import JobState, Requested, StepState, job_state
from edge.journal import worktime
from edge.journal.rows import Row, events_of_run, loaded_in, maintenance_of, rows, with_held
from edge.model.event import stamp_text
from edge.model.loaded import Loaded
from edge.reading import attention, readonly


class Snapshot:
    """The journal as it was at one moment."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def summary(self) -> Row:
        """The site, how many events, how many jobs in each state, and how much wants attention."""
        meta = dict(self.connection.execute("SELECT key, value FROM meta").fetchall())
        newest = self._rows("SELECT seq, hash, at_wall FROM events ORDER BY seq DESC LIMIT 1")
        counts = dict.fromkeys((state.value for state in JobState), 0)
        for (states,) in self.connection.execute("SELECT group_concat(DISTINCT state) FROM steps GROUP BY job_id"):
            counts[job_state(StepState(state) for state in states.split(","))] += 1
        counts[JobState.NOT_ALLOWED_TO_START] += self.parked()
        return {
            "site": meta["site"],
            "journal": meta["journal"],
            "last_event": newest[0] if newest else None,
            "jobs": counts,
            "machines": len(self.machines()),
            "attention": len(self.attention()),
        }

    def machines(self) -> list[Row]:
        """Every machine the journal knows, with the run on it and the run that it needs clearing by."""
        return [
            {
                "machine": row["machine"],
                "online": bool(row["online"]),
                "since": row["since"],
                "needs_clearing": row["needs_clearing"],
                "maintenance": out.as_json() if (out := maintenance_of(row)) is not None else None,
                "run": self._run_on(row["machine"]),
            }
            for row in self._rows("SELECT * FROM machines ORDER BY machine")
        ]

    def jobs(self, all: bool = False) -> list[Row]:
        """Jobs that have not ended, or all of them: by priority, due date and acceptance; then the unjudged."""
        chosen = "" if all else "WHERE job_id IN (SELECT job_id FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED'))"
        states = self._states_by_part(chosen)
        rows = self._rows(
            "SELECT job_id, issuer, product, reference, quantity, priority, due_at, not_before, expires_at,"
            " accepted_at, revision, held_by, held_since, held_reason"
            f" FROM orders {chosen} ORDER BY priority DESC, due_at IS NULL, due_at, accepted_seq"
        )
        jobs = [{**with_held(row), "parked": None, **_progress(states[row["job_id"]])} for row in rows]
        chosen = "" if all else "AND given_up IS NULL"
        unjudged = self._rows(
            f"SELECT {_UNJUDGED} FROM parked p WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.job_id = p.job_id)"
            f" {chosen} ORDER BY seq"
        )
        return [*jobs, *map(_unjudged, unjudged)]

    def job(self, job_id: str) -> Row | None:
        """One job with all that is known of it; None if no such order was accepted, nor waits or has waited."""
        found = self._rows("SELECT * FROM orders WHERE job_id = ?", job_id)
        if not found:
            return self._unjudged_job(job_id)
        order = found[0]
        envelope, payload = order.pop("envelope"), json.loads(order.pop("payload"))
        signers = json.loads(order.pop("signers"))
        return {
            **with_held(order),
            "parked": None,
            **_progress(self._states_by_part("WHERE job_id = ?", job_id)[job_id]),
            "order": payload,
            "envelope_bytes": len(envelope),
            "signers": signers,
            "artifacts": self._artifacts(payload),
            "steps": self._rows("SELECT * FROM steps WHERE job_id = ? ORDER BY part, step", job_id),
            "runs": [self._with_overrun(row) for row in self._rows(_RUNS_OF_JOB, job_id)],
            "events": self.events(job_id=job_id),
        }

    def _unjudged_job(self, job_id: str) -> Row | None:
        """The same of an order that waits to be judged, or was given up before."""
        found = self._rows(
            f"SELECT {_UNJUDGED}, seq, digest, envelope FROM parked WHERE job_id = ? ORDER BY given_up LIMIT 1", job_id
        )
        if not found:
            return None
        order = found[0]
        seq, envelope = order.pop("seq"), order.pop("envelope")
        payload = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
        events = self._rows("SELECT raw FROM events WHERE seq = ?", seq)
        return {
            **_unjudged(order),
            "series": payload["series"],
            "sequence": payload["sequence"],
            "accepted_seq": None,
            "order": payload,
            "envelope_bytes": len(envelope),
            "signers": json.loads(events[0]["raw"])["body"]["signers"] if events else [],
            "artifacts": self._artifacts(payload),
            "steps": [],
            "runs": [],
            "events": self.events(job_id=job_id),
        }

    def _artifacts(self, payload: Mapping[str, Any]) -> list[Row]:
        return [
            {"name": name, "sha256": artifact["sha256"], "stored": self._is_stored(artifact["sha256"])}
            for name, artifact in payload.get("artifacts", {}).items()
        ]

    def events(
        self, after_seq: int = 0, limit: int = 1000, machine: str | None = None, job_id: str | None = None
    ) -> list[Row]:
        """Events after `after_seq`, oldest first, at most `limit`; of one machine or one job if named.

        The envelope in a `job_accepted` is left out: it is long, and means nothing to a person.
        """
        wanted = {"after": after_seq, "limit": limit, "machine": machine, "job": job_id}
        conditions = ["seq > :after"]
        conditions += ["machine = :machine"] if machine is not None else []
        conditions += ["job_id = :job"] if job_id is not None else []
        query = f"SELECT hash, raw FROM events WHERE {' AND '.join(conditions)} ORDER BY seq LIMIT :limit"
        return [_readable(raw, digest) for digest, raw in self.connection.execute(query, wanted)]

    def last_events(self, count: int, machine: str | None = None) -> list[Row]:
        """The newest `count` events, oldest first; of one machine if named."""
        chosen = "WHERE machine = :machine" if machine is not None else ""
        query = f"SELECT hash, raw FROM events {chosen} ORDER BY seq DESC LIMIT :count"
        rows = self.connection.execute(query, {"machine": machine, "count": count}).fetchall()
        return [_readable(raw, digest) for digest, raw in reversed(rows)]

    # What the dispatcher plans by

    def startable(self) -> list[Row]:
        """Every step that is allowed to start, with its order."""
        rows = self._rows(
            "SELECT s.job_id, s.part, s.step, s.attempt, o.payload, o.envelope, o.digest, o.accepted_seq, o.revision,"
            " o.held_by, o.held_since, o.held_reason"
            " FROM steps s JOIN orders o USING (job_id) WHERE s.state = ? ORDER BY o.accepted_seq, s.part, s.step",
            StepState.ALLOWED_TO_START,
        )
        return [with_held(row) for row in rows]

    def overdue(self, floor: datetime.datetime) -> list[Row]:
        """Jobs of which nothing can begin any more after `floor`, nothing is at a machine, and nothing is held."""
        return self._rows(
            "SELECT job_id, revision FROM orders WHERE substr(expires_at, 1, 19) < ? AND job_id IN"
            " (SELECT job_id FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED')) AND job_id NOT IN (SELECT job_id"
            " FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED') AND state IN (?, ?, ?)) ORDER BY accepted_seq",
            *(stamp_text(floor)[:19], StepState.RUNNING, StepState.SUSPENDED, StepState.HELD),
        )

    def open_runs(self) -> list[Row]:
        """Every run without an end, its step's state, and what its order says of a restart of the daemon."""
        rows = self._rows(
            "SELECT r.run_id, r.job_id, r.part, r.step, r.machine, s.state, s.requested, o.payload"
            " FROM runs r JOIN orders o USING (job_id)"
            " JOIN steps s ON (s.job_id, s.part, s.step) = (r.job_id, r.part, r.step)"
            " WHERE r.ended_at IS NULL ORDER BY r.began_at"
        )
        return [{**row, "on_restart": _on_restart(row["step"], json.loads(row.pop("payload")))} for row in rows]

    def requests(self) -> list[tuple[str, str, Requested]]:
        """Run, machine and what was asked of it; without what has failed and is not asked again."""
        rows = self._rows(
            "SELECT run_id, machine, requested FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED')"  # the index
            " AND requested != ? AND request_failure IS NULL",
            Requested.NONE,
        )
        return [(row["run_id"], row["machine"], Requested(row["requested"])) for row in rows]

    def suspended(self) -> set[str]:
        """The machines that wait in a run."""
        rows = self._rows(
            "SELECT machine FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED') AND state = ?", StepState.SUSPENDED
        )
        return {row["machine"] for row in rows}

    def going_on(self) -> list[Row]:
        """Each step that runs or waits at a machine and was not asked to stop, with its signed order."""
        return self._rows(
            "SELECT s.job_id, s.machine, o.envelope FROM steps s JOIN orders o USING (job_id)"
            " WHERE s.state NOT IN ('COMPLETED', 'ABORTED') AND s.state IN (?, ?) AND s.requested NOT IN (?, ?)",
            *(StepState.RUNNING, StepState.SUSPENDED, Requested.STOP, Requested.ABORT),
        )

    def root_in_force(self) -> Row | None:
        """The newest trust root that was taken: `version`, `payload_digest` and `envelope`."""
        found = self._rows("SELECT version, payload_digest, envelope FROM roots ORDER BY version DESC LIMIT 1")
        return found[0] if found else None

    def parked(self) -> int:
        """How many orders wait until somebody vouches for the clock."""
        return int(self._rows("SELECT count(*) AS count FROM parked WHERE given_up IS NULL")[0]["count"])

    def journal_held(self) -> str:
        """Why nothing begins before somebody has confirmed this journal; empty if nobody needs to."""
        return str(self._rows("SELECT held FROM standing")[0]["held"] or "")

    def clearing(self) -> dict[str, str | None]:
        """The run, or the token of foreign work, that each machine needs clearing by."""
        return {row["machine"]: row["needs_clearing"] for row in self._rows("SELECT * FROM machines")}

    def out_of_service(self) -> dict[str, str]:
        """Each machine that takes no work until a person says otherwise, and who took it out of service, in words."""
        rows = self._rows("SELECT * FROM machines WHERE maintenance_by IS NOT NULL ORDER BY machine")
        return {row["machine"]: out.in_words for row in rows if (out := maintenance_of(row)) is not None}

    def loaded(self) -> dict[str, dict[str, Loaded]]:
        """What people have said is loaded, by machine and property; `edge.model.loaded` says what counts of it."""
        return loaded_in(self.connection)

    # What people are told

    def attention(self) -> list[Row]:
        """What waits for a person, the most urgent first.

        Each has a `kind`, a `text` for people, the `command` that answers it, and what it is about.
        """
        return attention.attention(self.connection, self.journal_held(), self.parked(), self.out_of_service())

    def notices(self, now: datetime.datetime | None = None) -> list[Row]:
        """What was refused in the last day: nobody here needs to act, but somebody may wonder."""
        return attention.notices(self.connection, now or datetime.datetime.now(datetime.UTC))

    def refusal_counts(self) -> dict[str, dict[str, int]]:
        """How many were refused, ever, by reason: `refusals` that are events, and `unsigned` that are only counted."""
        signed = "SELECT reason, count FROM refused ORDER BY reason"
        counted = "SELECT reason, sum(count) FROM refusals GROUP BY reason ORDER BY reason"
        return {
            "refusals": dict(self.connection.execute(signed).fetchall()),
            "unsigned": dict(self.connection.execute(counted).fetchall()),
        }

    def _run_on(self, machine: str) -> Row | None:
        found = self._rows(
            "SELECT run_id, job_id, part, step, attempt, began_at FROM runs WHERE ended_at IS NULL AND machine = ?",
            machine,
        )
        return self._with_overrun(found[0]) if found else None

    def _with_overrun(self, run: Row) -> Row:
        """A run with what was told of it if it takes too long; null of one that has ended."""
        if run.get("ended_at") is not None:
            return {**run, "overrun": None}
        events = events_of_run(self.connection, run["job_id"], run["run_id"], worktime.MARKS)
        return {**run, "overrun": worktime.overrun_of(events, _now)}

    def _is_stored(self, sha256: str) -> bool:
        return bool(self._rows("SELECT 1 FROM artifacts WHERE sha256 = ?", sha256))

    def _states_by_part(self, chosen: str, *values: object) -> dict[str, dict[int, list[StepState]]]:
        states: dict[str, dict[int, list[StepState]]] = {}
        for job_id, part, state in self.connection.execute(f"SELECT job_id, part, state FROM steps {chosen}", values):
            states.setdefault(job_id, {}).setdefault(part, []).append(StepState(state))
        return states

    def _rows(self, query: str, *values: object) -> list[Row]:
        return rows(self.connection, query, *values)


@contextlib.contextmanager
def open_readonly(state_dir: Path) -> Iterator[Snapshot]:
    """The journal in `state_dir`, as it is now; needs no permission to write.

    Raises:
        NoJournalError: there is none.
        EdgeError: it may not be read; says which permission is missing.
    """
    with readonly.connected(state_dir) as connection:
        yield Snapshot(connection)


def _now() -> worktime.Moment:
    from edge.clock import SystemClock  # rarely needed, and slow to load

    return worktime.now_by(SystemClock().stamp())


_RUNS_OF_JOB = "SELECT * FROM runs WHERE job_id = ? ORDER BY began_at, run_id"

_UNJUDGED = (
    "job_id, issuer, product, reference, quantity, priority, due_at, not_before, expires_at, revision, parked_at,"
    " given_up"
)


def _unjudged(row: Row) -> Row:
    """The row of a job that an order would be which waits to be judged, or was given up before."""
    since, given_up = row.pop("parked_at"), row.pop("given_up")
    state = JobState.NOT_ALLOWED_TO_START if given_up is None else JobState.ABORTED
    closed, open_ = (0, row["quantity"]) if given_up is None else (row["quantity"], 0)
    return {
        **row,
        "accepted_at": None,
        "held": None,
        "parked": {"since": since, "reason": "clock_untrusted" if given_up is None else given_up},
        "state": state.value,
        "parts": {"good": 0, "scrapped": closed, "open": open_},
    }


def with_waits(row: Row, waits: Sequence[Mapping[str, str]]) -> Row:
    """A job with what it waits for: `waits`, unless it is still to be judged."""
    if row["parked"] is None or row["state"] == JobState.ABORTED:
        return {**row, "waits": list(waits)}
    text = "it was not judged yet: nobody vouches for this site's clock, and it may start before " + row["expires_at"]
    return {**row, "waits": [{"code": "clock", "text": text, "command": "edge time show", "step": ""}]}


def _readable(raw: bytes, digest: str) -> Row:
    document = json.loads(raw)
    document["body"].pop("envelope", None)
    return {**document, "hash": digest}


def _on_restart(step_id: str, order: Mapping[str, Any]) -> str:
    return next((str(step.get("on_restart", "hold")) for step in order["steps"] if step["id"] == step_id), "hold")


def _progress(parts: Mapping[int, list[StepState]]) -> Row:
    """The job's state, and how many of its parts are good, scrapped and still open."""
    count = {"good": 0, "scrapped": 0, "open": 0}
    for states in parts.values():
        if not all(state.ended for state in states):
            count["open"] += 1
        elif StepState.ABORTED in states:
            count["scrapped"] += 1
        else:
            count["good"] += 1
    return {"state": job_state(state for states in parts.values() for state in states).value, "parts": count}
