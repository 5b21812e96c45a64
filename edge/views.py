"""Read-only questions to the journal, for `edge status` with the daemon alive or dead.

Answers are plain dictionaries, ready for JSON. This module and all it imports stay light: no pydantic, no asyncio, no
aiohttp; an import contract holds it to that.

SQLite cannot always open a database with a write-ahead log where the reader may not write beside it (it needs the
index file that only a writer makes). Then `open_readonly` reads a private copy of database and log, if they are small.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge import schema
from edge.errors import EdgeError, JournalError, NoJournalError
from edge.jobstate import JobState, Requested, StepState, job_state
from edge.maintenance import Maintenance, back_command

COPY_LIMIT_BYTES = 256 * 1024 * 1024
COPY_ATTEMPTS = 5  # the daemon may be writing

Row = dict[str, Any]


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
                "maintenance": out.as_json() if (out := _maintenance(row)) is not None else None,
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
        jobs = [{**_with_held(row), "parked": None, **_progress(states[row["job_id"]])} for row in rows]
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
            **_with_held(order),
            "parked": None,
            **_progress(self._states_by_part("WHERE job_id = ?", job_id)[job_id]),
            "order": payload,
            "envelope_bytes": len(envelope),
            "signers": signers,
            "artifacts": self._artifacts(payload),
            "steps": self._rows("SELECT * FROM steps WHERE job_id = ? ORDER BY part, step", job_id),
            "runs": self._rows("SELECT * FROM runs WHERE job_id = ? ORDER BY began_at, run_id", job_id),
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
        return [_with_held(row) for row in rows]

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
        return {row["machine"]: out.in_words for row in rows if (out := _maintenance(row)) is not None}

    # What people are told

    def attention(self) -> list[Row]:
        """What waits for a person, the most urgent first.

        Each has a `kind`, a `text` for people, the `command` that answers it, and what it is about.
        """
        open_steps = self._rows(
            "SELECT s.*, r.outcome FROM steps s LEFT JOIN runs r ON r.run_id = s.run_id"
            " WHERE s.state NOT IN ('COMPLETED', 'ABORTED') AND s.state IN ('RUNNING', 'SUSPENDED', 'HELD')"
            " ORDER BY s.state = 'HELD' DESC, r.outcome = 'UNKNOWN' DESC, s.since"
        )
        found = [item for row in open_steps for item in _of_step(row)]
        if unconfirmed := self.journal_held():
            text = f"nothing begins before somebody confirms this journal: {unconfirmed}"
            found.append({"kind": "journal_held", "text": text, "command": "edge journal confirm"})
        if parked := self.parked():
            text = f"orders that wait until somebody vouches for the clock: {parked}"
            found.append({"kind": "parked", "text": text, "command": "edge time show", "count": parked})
        for row in self._rows(
            "SELECT o.job_id, o.held_by, o.held_since, o.held_reason FROM orders o WHERE o.held_by IS NOT NULL"
            " AND EXISTS (SELECT 1 FROM steps s WHERE s.job_id = o.job_id AND s.state NOT IN ('COMPLETED', 'ABORTED'))"
            " ORDER BY o.held_since"
        ):
            held = _with_held(row)["held"]
            text, command = f"job {row['job_id']} is {held_in_words(held)}", f"edge job release {row['job_id']}"
            about = {"job_id": row["job_id"], "held": held, "since": held["since"]}
            found.append({"kind": "held_job", "text": text, "command": command, **about})
        for machine, words in self.out_of_service().items():
            about = {"command": back_command(machine), "machine": machine}
            found.append({"kind": "maintenance", "text": f"{machine} is {words}; it takes no work", **about})
        for row in self._rows(
            "SELECT m.machine, m.needs_clearing AS run_id, r.job_id, r.ended_at AS since FROM machines m"
            " JOIN runs r ON r.run_id = m.needs_clearing WHERE r.ended_at IS NOT NULL ORDER BY m.machine"
        ):
            text = f"{row['machine']} needs clearing: what job {row['job_id']} made is still on it"
            command = f"edge machine clear {row['machine']}"
            found.append({"kind": "needs_clearing", "text": text, "command": command, **row})
        for row in self._rows(
            "SELECT m.machine, f.token, f.detail, f.began_at AS since FROM machines m"
            " JOIN foreign_work f ON (f.machine, f.token) = (m.machine, m.needs_clearing) ORDER BY m.machine"
        ):
            text = f"{row['machine']} needs clearing: {row.pop('detail')}"
            command = f"edge machine clear {row['machine']}"
            found.append({"kind": "needs_clearing", "text": text, "command": command, **row})
        for row in self._rows(
            "SELECT detail, at AS since FROM verdicts WHERE kind = 'root_refused' AND reason = 'conflict'"
            " AND seq > (SELECT max(accepted_seq) FROM roots) ORDER BY seq"
        ):
            text = f"another trust root was sent, signed by enough of your root keys: {row['detail']}"
            found.append({"kind": "root_conflict", "text": text, "command": "edge root show FILE", **row})
        return found

    def notices(self, now: datetime.datetime | None = None) -> list[Row]:
        """What was refused in the last day: nobody here needs to act, but somebody may wonder."""
        now = now or datetime.datetime.now(datetime.UTC)
        found = []
        since = (now - datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
        for row in self._rows(
            "SELECT job_id, reason, detail, at AS since, kind AS event FROM verdicts"
            " WHERE NOT accepted AND reason NOT IN ('cancelled', 'declined') AND at >= ? ORDER BY seq",
            since,
        ):
            what = _refused(row.pop("event"), row["job_id"])
            detail = f": {row['detail']}" if row["detail"] else ""
            found.append({"kind": "refused", "text": f"{what} was refused, {row['reason']}{detail}", **row})
        for row in self._rows(
            "SELECT reason, sum(count) AS count, max(minute) AS since FROM refusals WHERE minute >= ?"
            " GROUP BY reason ORDER BY reason",
            since,
        ):
            text = f"refused in the last day and only counted, as {row['reason']}: {row['count']}"
            found.append({"kind": "refusals", "text": text, **row})
        return found

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
        return found[0] if found else None

    def _is_stored(self, sha256: str) -> bool:
        return bool(self._rows("SELECT 1 FROM artifacts WHERE sha256 = ?", sha256))

    def _states_by_part(self, chosen: str, *values: object) -> dict[str, dict[int, list[StepState]]]:
        states: dict[str, dict[int, list[StepState]]] = {}
        for job_id, part, state in self.connection.execute(f"SELECT job_id, part, state FROM steps {chosen}", values):
            states.setdefault(job_id, {}).setdefault(part, []).append(StepState(state))
        return states

    def _rows(self, query: str, *values: object) -> list[Row]:
        cursor = self.connection.execute(query, values)
        columns = [column[0] for column in cursor.description]
        return [dict(zip(columns, row, strict=True)) for row in cursor]


@contextlib.contextmanager
def open_readonly(state_dir: Path) -> Iterator[Snapshot]:
    """The journal in `state_dir`, as it is now; needs no permission to write.

    Raises:
        NoJournalError: there is none.
        EdgeError: it may not be read; says which permission is missing.
    """
    path = state_dir / schema.FILE_NAME
    _check_readable(path)
    with contextlib.ExitStack() as stack:
        try:
            connection = _open(path, stack)
        except sqlite3.Error as error:
            if not _may_not_write_beside(error):
                raise JournalError(f"{path} cannot be read: {error}") from error
            connection = _open_copy(path, stack)
        try:
            yield Snapshot(connection)
        except sqlite3.Error as error:
            raise JournalError(f"{path} cannot be read: {error}") from error


def _open(path: Path, stack: contextlib.ExitStack, mode: str = "ro") -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode={mode}"
    connection = stack.enter_context(contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None)))
    connection.execute("BEGIN")
    # The snapshot begins with the first thing read.
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if problem := schema.problem(meta.get("format")):
        raise JournalError(f"{path} {problem}")
    return connection


def _may_not_write_beside(error: sqlite3.Error) -> bool:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)  # without the detail in the upper bits


def _open_copy(path: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    """Database and log, copied to where only we may look, and opened there."""
    import shutil  # rarely needed, and slow to load
    import tempfile

    log = path.with_name(path.name + "-wal")
    private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-")))
    for _ in range(COPY_ATTEMPTS):
        before = _look_at(path, log)
        size_bytes = sum(size for size, *_ in before)
        if size_bytes > COPY_LIMIT_BYTES:
            raise EdgeError(
                f"{path} cannot be read without write permission for {path.parent} while no daemon runs,"
                f" and is too large to copy ({size_bytes} bytes, allowed: {COPY_LIMIT_BYTES})"
            )
        for file in (path, log):
            (private / file.name).unlink(missing_ok=True)
            if file.exists():
                _check_readable(file)
                shutil.copyfile(file, private / file.name)
        if _look_at(path, log) == before:
            return _open(private / path.name, stack, mode="rw")
    raise EdgeError(f"{path} changes faster than it can be copied, and write permission for {path.parent} is missing")


def _look_at(*files: Path) -> list[tuple[int, int, int]]:
    """Size and times: the same before and after means that nobody wrote in between."""
    return [
        (found.st_size, found.st_mtime_ns, found.st_ino) for found in (file.stat() for file in files if file.exists())
    ]


def _check_readable(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        raise NoJournalError(f"there is no journal at {path}; it begins with the first `edge run`") from None
    except NotADirectoryError:
        raise EdgeError(f"{path.parent} is no directory") from None
    except PermissionError:
        raise EdgeError(f"permission to enter {path.parent} is missing") from None
    if not os.access(path, os.R_OK):
        raise EdgeError(f"permission to read {path} is missing; members of its group have it")


def held_in_words(held: Row | None) -> str:
    """Who holds a job, since when and why; empty if nobody does."""
    if held is None:
        return ""
    because = f": {held['reason']}" if held["reason"] else ""
    at = datetime.datetime.fromisoformat(held["since"])
    return f"held by {held['by'].removeprefix('user:')} since {at:%Y-%m-%d %H:%M} UTC{because}"


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


def _maintenance(row: Row) -> Maintenance | None:
    by, since, reason = (row[f"maintenance_{key}"] for key in ("by", "since", "reason"))
    return None if by is None else Maintenance(by, since, reason, bool(row["made_safe"]))


def _with_held(row: Row) -> Row:
    """An order's row with its columns about a hold as one value."""
    by, since, reason = (row.pop(f"held_{key}") for key in ("by", "since", "reason"))
    return {**row, "held": None if by is None else {"by": by, "since": since, "reason": reason}}


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


def _readable(raw: bytes, digest: str) -> Row:
    document = json.loads(raw)
    document["body"].pop("envelope", None)
    return {**document, "hash": digest}


def _refused(event: str, job_id: str | None) -> str:
    """What a refusal is about."""
    match event:
        case "root_refused":
            return "a trust root"
        case "command_refused":
            return f"a command for job {job_id}" if job_id else "a command"
        case _:
            return f"job {job_id}" if job_id else "an order that could not be read"


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
