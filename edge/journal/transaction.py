"""One transaction on the journal: what may be asked in it, and how an event is recorded.

The newest event and the journal's id are read from the database, not from memory: a group that was rolled back leaves
no trace.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from edge.errors import IllegalTransitionError, Motion, StaleRevisionError
from edge.jobstate import Requested, StepState
from edge.journal import chain, forgetting, projection, worktime
from edge.journal.fold import machines, standing
from edge.journal.maintenance import Maintenance
from edge.journal.rows import Row, events_of_run, loaded_in
from edge.model.event import Draft, Event, EventKind, Stamp, stamp_text
from edge.model.loaded import Loaded
from edge.replay import ReplayWindow
from edge.timefloor import Known

COMES_AGAIN = frozenset(
    {
        EventKind.JOB_ACCEPTED,
        EventKind.JOB_PARKED,
        EventKind.JOB_REFUSED,
        EventKind.ROOT_REFUSED,
        EventKind.TIME_REFUSED,
        EventKind.COMMAND_REFUSED,
        EventKind.ARTIFACT_STORED,
        EventKind.ARTIFACT_LOST,
        EventKind.ARTIFACT_EVICTED,
        EventKind.MACHINE_ONLINE,
        EventKind.MACHINE_OFFLINE,
    }
)
"""What only came in or was seen: a journal without it is poorer and does nothing twice. There is a lot of it."""

REFUSAL_ROWS = 10_000
"""Counts of refusals that are kept by the minute; what is older is one sum for each reason."""


@dataclass(frozen=True, slots=True)
class KnownVerdict:
    """What was decided about these very bytes before."""

    accepted: bool
    reason: str
    detail: str
    job_id: str | None
    seq: int


@dataclass(frozen=True, slots=True)
class KnownRoot:
    """A trust root as it was taken. `payload_digest` is the SHA-256 of its signed payload, in hexadecimal."""

    version: int
    payload_digest: str
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a step stands, what was asked of it and is not confirmed, and why asking has failed, if it has."""

    state: StepState
    requested: Requested
    failure: str | None

    @property
    def is_held_back(self) -> bool:
        """Whether a person's release is missing for the machine to go on."""
        if self.requested is Requested.PAUSE:
            return True
        return self.state is StepState.SUSPENDED and self.requested is not Requested.RESUME


class Transaction:
    """What a function given to `Journal.transact` may do. Lives in the writer thread, for one call."""

    def __init__(self, connection: sqlite3.Connection, site: str, stamp: Stamp) -> None:
        self.connection = connection
        self._site = site
        self._stamp = stamp
        self.binding = False
        """Whether an event was recorded that no copy of this journal may be without; `COMES_AGAIN` has the others."""

    def record(self, draft: Draft) -> Event:
        """Number, chain and apply one event.

        Raises:
            IllegalTransitionError: it does not fit what is there.
            ValueError, TypeError: its body is not JSON.
        """
        last = head(self.connection)
        journal = ident_of(self.connection)
        raw, _ = chain.encode(self._site, journal, last.seq + 1, last.hash, self._stamp, draft)
        event = chain.decode(raw)
        with _all_or_nothing(self.connection):
            projection.apply(self.connection, event)
            self.connection.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                (event.seq, event.hash, raw, event.kind, event.job_id, event.machine, event.at_wall),
            )
        self.binding |= event.kind not in COMES_AGAIN
        return event

    def verdict_of(self, digest: str) -> KnownVerdict | None:
        """What was decided about the signed bytes with this digest."""
        row = self.connection.execute(
            "SELECT accepted, reason, detail, job_id, seq FROM verdicts WHERE digest = ?", (digest,)
        ).fetchone()
        return None if row is None else KnownVerdict(bool(row[0]), *row[1:])

    def was_refused(self, payload_digest: str, reason: str) -> bool:
        """Whether an envelope with this payload was refused for this reason."""
        query = "SELECT 1 FROM verdicts WHERE payload_digest = ? AND reason = ? AND NOT accepted"
        return bool(self.connection.execute(query, (payload_digest, reason)).fetchone())

    def refusal_of(self, payload_digest: str, kinds: Collection[EventKind]) -> tuple[str, str] | None:
        """Reason and detail of the first refusal of a payload, in events of `kinds`, that was not for its signers."""
        query = (
            "SELECT kind, reason, detail FROM verdicts WHERE payload_digest = ? AND NOT accepted"
            " AND reason NOT IN ('threshold', 'revoked_key', 'malformed') ORDER BY seq"
        )
        found = self.connection.execute(query, (payload_digest,))
        return next(((reason, detail) for kind, reason, detail in found if kind in kinds), None)

    def window(self, issuer: str, series: str) -> ReplayWindow:
        """The sequence numbers of a series that were accepted."""
        row = self.connection.execute(
            "SELECT used FROM windows WHERE (issuer, series) = (?, ?)", (issuer, series)
        ).fetchone()
        return ReplayWindow() if row is None else ReplayWindow.from_bytes(row[0])

    def payload_of(self, job_id: str) -> bytes:
        """The accepted order as its issuer signed it. Raises `IllegalTransitionError` if there is none."""
        row = self.connection.execute("SELECT payload FROM orders WHERE job_id = ?", (job_id,)).fetchone()
        if row is None:
            raise IllegalTransitionError(f"job {job_id} is not known here")
        return str(row[0]).encode()

    def envelope_of(self, job_id: str) -> bytes:
        """The accepted order as it came, with its signatures. Raises `IllegalTransitionError` if there is none."""
        row = self.connection.execute("SELECT envelope FROM orders WHERE job_id = ?", (job_id,)).fetchone()
        if row is None:
            raise IllegalTransitionError(f"job {job_id} is not known here")
        return bytes(row[0])

    def standing_of(self, job_id: str, part: int, step: str) -> Standing:
        """Where a step stands. Raises `IllegalTransitionError` if there is none."""
        row = self.connection.execute(
            "SELECT state, requested, request_failure FROM steps WHERE (job_id, part, step) = (?, ?, ?)",
            (job_id, part, step),
        ).fetchone()
        if row is None:
            raise IllegalTransitionError(f"step {job_id}/{part}/{step} is not known here")
        return Standing(StepState(row[0]), Requested(row[1]), row[2])

    def time_of_run(self, job_id: str, run_id: str) -> tuple[list[Row], worktime.Moment]:
        """The events that its time is counted by, and now."""
        return events_of_run(self.connection, job_id, run_id, worktime.MARKS), worktime.now_by(self._stamp)

    def root_in_force(self) -> KnownRoot | None:
        """The newest trust root that was taken; None if the journal has none."""
        row = self.connection.execute(
            "SELECT version, payload_digest, envelope FROM roots ORDER BY version DESC LIMIT 1"
        ).fetchone()
        return None if row is None else KnownRoot(*row)

    def known_time(self) -> Known:
        """What is known of the time."""
        return standing.known_time(self.connection)

    def held(self) -> str:
        """Why nothing begins before a person has confirmed this journal; empty if nobody needs to."""
        (found,) = self.connection.execute("SELECT held FROM standing").fetchone()
        return str(found or "")

    def is_parked(self, payload_digest: str) -> bool:
        """Whether an order with this payload waits to be judged."""
        query = "SELECT 1 FROM parked WHERE payload_digest = ? AND given_up IS NULL"
        return bool(self.connection.execute(query, (payload_digest,)).fetchone())

    def parked_as(self, digest: str) -> str | None:
        """The job of the order that waits to be judged, if its envelope has this digest."""
        query = "SELECT job_id FROM parked WHERE digest = ? AND given_up IS NULL"
        row = self.connection.execute(query, (digest,)).fetchone()
        return None if row is None else row[0]

    def parked_count(self) -> int:
        """How many orders wait to be judged."""
        return int(self.connection.execute("SELECT count(*) FROM parked WHERE given_up IS NULL").fetchone()[0])

    def next_parked(self, after: int = 0, over: datetime | None = None) -> tuple[int, bytes, str] | None:
        """Number, bytes and actor of what has waited longest of those that came after number `after`.

        With `over`, of those that have expired by then.
        """
        row = self.connection.execute(
            "SELECT seq, envelope, actor FROM parked WHERE given_up IS NULL AND seq > ?"
            " AND (expires_at <= ? OR ? IS NULL) ORDER BY seq LIMIT 1",
            (after, *2 * (None if over is None else stamp_text(over),)),
        ).fetchone()
        return None if row is None else (row[0], bytes(row[1]), row[2])

    def unjudged(self, job_id: str) -> tuple[bytes, bool] | None:
        """An order of this name that never became a job: its envelope, and whether it still waits to be judged."""
        row = self.connection.execute(
            "SELECT envelope, given_up IS NULL FROM parked WHERE job_id = ? ORDER BY given_up LIMIT 1", (job_id,)
        ).fetchone()
        return None if row is None else (bytes(row[0]), bool(row[1]))

    def roots(self) -> list[bytes]:
        """Every trust root that the site went by, as it was signed; the newest last."""
        return [bytes(row[0]) for row in self.connection.execute("SELECT envelope FROM roots ORDER BY version")]

    def is_command_used(self, command_id: str) -> bool:
        """Whether a command with this id was accepted."""
        return bool(self.connection.execute("SELECT 1 FROM commands WHERE command_id = ?", (command_id,)).fetchone())

    def runs_of(self, job_id: str) -> frozenset[str]:
        """The newest run of each step of a job that has had one."""
        query = "SELECT run_id FROM steps WHERE job_id = ? AND run_id IS NOT NULL"
        return frozenset(run_id for (run_id,) in self.connection.execute(query, (job_id,)))

    def has_moved(self, job_id: str) -> bool:
        """Whether anything can have moved in any run of a job, also in one that a later attempt has followed."""
        query = "SELECT 1 FROM runs WHERE job_id = ? AND motion IS NOT ?"
        return bool(self.connection.execute(query, (job_id, Motion.NONE)).fetchone())

    def needs_clearing(self, machine: str) -> str | None:
        """The run, or the token of foreign work, that may have left something on the machine."""
        row = self.connection.execute("SELECT needs_clearing FROM machines WHERE machine = ?", (machine,)).fetchone()
        return None if row is None else row[0]

    def maintenance(self, machine: str) -> Maintenance | None:
        """Who took the machine out of service; None while it is in service."""
        return machines.maintenance(self.connection, machine)

    def loaded(self, machine: str) -> dict[str, Loaded]:
        """What people have said is loaded in the machine, by property."""
        return loaded_in(self.connection).get(machine, {})

    def knows_foreign_work(self, machine: str, token: str) -> bool:
        """Whether this piece of work was written down."""
        query = "SELECT 1 FROM foreign_work WHERE (machine, token) = (?, ?)"
        return bool(self.connection.execute(query, (machine, token)).fetchone())

    def all_or_nothing(self) -> contextlib.AbstractContextManager[None]:
        """Events recorded in this block are recorded all, or none if it raises; the transaction goes on."""
        return _all_or_nothing(self.connection)

    def digest_of(self, job_id: str) -> str | None:
        """The digest of the order that has this id: one that was accepted, or given up before it was judged.

        An accepted order may be forgotten; its id is bound for ever.
        """
        row = self.connection.execute(
            "SELECT digest FROM verdicts WHERE job_id = :job AND kind = 'job_accepted' UNION ALL"
            " SELECT digest FROM parked WHERE job_id = :job AND given_up IS NOT NULL",
            {"job": job_id},
        ).fetchone()
        return None if row is None else row[0]

    def is_stored(self, sha256: str) -> bool:
        """Whether this file was written down as here."""
        return bool(self.connection.execute("SELECT 1 FROM artifacts WHERE sha256 = ?", (sha256,)).fetchone())

    def is_job(self, job_id: str) -> bool:
        """Whether an order of this name was accepted."""
        return bool(self.connection.execute("SELECT 1 FROM orders WHERE job_id = ?", (job_id,)).fetchone())

    def revision(self, job_id: str) -> int | None:
        """The seq of the newest event about the job; None if no such order was accepted, nor waits or has waited."""
        row = self.connection.execute(
            "SELECT revision FROM orders WHERE job_id = :job UNION ALL SELECT revision FROM parked WHERE job_id = :job",
            {"job": job_id},
        ).fetchone()
        return None if row is None else row[0]

    def expect_revision(self, job_id: str, revision: int) -> None:
        """Go on only if nothing was recorded about the job since the caller looked.

        Raises:
            StaleRevisionError: something was, or no such order was accepted.
        """
        found = self.revision(job_id)
        if found != revision:
            raise StaleRevisionError(f"job {job_id} is at revision {found}, not {revision}; look again")

    def count_refusal(self, reason: str, minute: str) -> None:
        """Count bytes that are worth no event. `minute` is RFC 3339 in UTC, cut after the minute."""
        (count,) = self.connection.execute(
            "INSERT INTO refusals VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count",
            (minute, reason),
        ).fetchone()
        if count > 1:
            return
        query = "SELECT minute FROM refusals ORDER BY minute DESC LIMIT 1 OFFSET ?"
        for (oldest,) in self.connection.execute(query, (REFUSAL_ROWS,)).fetchall():
            self.connection.execute(
                "INSERT INTO refusals SELECT '', reason, sum(count) FROM refusals WHERE minute <= ? GROUP BY reason"
                " ON CONFLICT DO UPDATE SET count = excluded.count",
                (oldest,),
            )
            self.connection.execute("DELETE FROM refusals WHERE minute != '' AND minute <= ?", (oldest,))

    def is_over(self, expires_at: datetime | None) -> bool:
        """Whether what expires then has been over for so long that it is no event any more."""
        return forgetting.is_over(self.connection, expires_at)


@contextlib.contextmanager
def _all_or_nothing(connection: sqlite3.Connection) -> Iterator[None]:
    """So that a function may catch what `record` raises and go on."""
    connection.execute("SAVEPOINT event")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # unless SQLite gave the whole transaction up
            connection.execute("ROLLBACK TO event")
            connection.execute("RELEASE event")
        raise
    connection.execute("RELEASE event")


def head(connection: sqlite3.Connection) -> chain.Head:
    """The newest event."""
    row = connection.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return chain.EMPTY if row is None else chain.Head(*row)


def ident_of(connection: sqlite3.Connection) -> str:
    """The id that the journal goes under now."""
    (found,) = connection.execute("SELECT value FROM meta WHERE key = 'journal'").fetchone()
    return str(found)
