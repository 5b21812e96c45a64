"""Which files the open orders name: what room is spoken for, what is to be fetched, and what nobody needs any more.

Answers come from the journal alone, so that every part of the site that asks in one transaction sees the same.
"""

from __future__ import annotations

import base64
import datetime
import json
import logging
import sqlite3
from dataclasses import dataclass

from edge.model.event import EventKind
from edge.timefloor import BEGINNING
from edge.trust import Claims

log = logging.getLogger("edge.needs")

_MOST_NEW = 256
"""Events that are counted one by one; with more of them, everything is counted anew."""

_NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)

_ENDS_NO_ORDER = frozenset(
    {
        EventKind.SITE_STARTED,
        EventKind.SITE_STOPPED,
        EventKind.TIME_ACCEPTED,
        EventKind.TIME_REFUSED,
        EventKind.COMMAND_REFUSED,
        EventKind.ROOT_ACCEPTED,
        EventKind.ROOT_REFUSED,
        EventKind.HOLD_REQUESTED,
        EventKind.RELEASE_REQUESTED,
        EventKind.RUN_SUSPENDED,
        EventKind.RUN_RELEASED,
        EventKind.RUN_OVERRAN,
        EventKind.JOB_ACCEPTED,  # unless it is over already
        EventKind.JOB_PARKED,
        EventKind.JOB_REFUSED,
        EventKind.ARTIFACT_STORED,
        EventKind.RUN_BEGAN,
        EventKind.RUN_RESUMED,
        EventKind.FOREIGN_WORK,
        EventKind.MACHINE_CLEARED,
        EventKind.MACHINE_LOADED,
        EventKind.LOAD_OVERTAKEN,
        EventKind.MAINTENANCE_BEGAN,
        EventKind.MAINTENANCE_ENDED,
        EventKind.MACHINE_ONLINE,
        EventKind.MACHINE_OFFLINE,
        EventKind.CONDITION_ACKNOWLEDGED,
        EventKind.MACHINE_TRUSTED,
    }
)
"""What takes no file from the count. A kind that is not here has everything counted anew, which is always right."""


@dataclass(frozen=True, slots=True)
class Need:
    """A file that an open order names. `until`: the order's latest start, after which nobody needs to fetch it."""

    job_id: str
    name: str
    sha256: str
    size_bytes: int
    sources: tuple[str, ...]
    until: datetime.datetime


class Needs:
    """Remembers what each open order names, so that asking costs no parsing. One thread at a time."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Need, ...]] = {}
        self._parked: dict[int, tuple[Need, ...]] = {}
        self._over: set[str] = set()  # jobs that are open and of which nothing begins any more
        self._floor = BEGINNING  # what had certainly passed when that was found out
        self._next = _NEVER  # when the next one of them is over, if nothing of it has begun by then
        self._tally = _Tally()
        self._counted = (0, "")  # the event up to which the tally goes, and its hash

    def of_open_orders(self, connection: sqlite3.Connection) -> list[Need]:
        """Every file of every order that needs it, in the order of acceptance; a file may be there several times.

        An order that has not ended does, until its latest start has certainly passed; and as long as it is at a
        machine. One that is held after that keeps no file: nothing of it can begin any more. `connection` is to a
        journal.
        """
        rows = connection.execute(
            "SELECT job_id, job_id IN (SELECT job_id FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED')"
            " AND state IN ('RUNNING', 'SUSPENDED')) FROM orders WHERE job_id IN"
            " (SELECT job_id FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED')) ORDER BY accepted_seq"
        ).fetchall()
        self._known = {job_id: self._known.get(job_id) or _needs_of(connection, job_id) for job_id, _ in rows}
        waiting = {
            job_id: needs[0].until
            for job_id, at_a_machine in rows
            if not at_a_machine and (needs := self._known[job_id])
        }
        self._floor = _floor(connection)
        self._over = {job_id for job_id, until in waiting.items() if until < self._floor}
        self._next = min((until for until in waiting.values() if until >= self._floor), default=_NEVER)
        return [need for job_id, needs in self._known.items() if job_id not in self._over for need in needs]

    def of_parked_orders(self, connection: sqlite3.Connection) -> dict[str, int]:
        """The size of every file that an order names which waits to be judged, by hash. Nothing is fetched for it."""
        rows = connection.execute("SELECT seq FROM parked WHERE given_up IS NULL").fetchall()
        self._parked = {seq: self._parked.get(seq) or _needs_of_parked(connection, seq) for (seq,) in rows}
        return {need.sha256: need.size_bytes for needs in self._parked.values() for need in needs}

    def claims(self, connection: sqlite3.Connection) -> Claims:
        """What the open orders and the stored files take, for `trust.admit`; good until the transaction ends.

        Hundreds of orders may come in a second while thousands are open, so only what is new in the journal is looked
        at, unless something happened that may have ended an order.
        """
        if not self._catch_up(connection):
            self._tally = _Tally()
            for sha256, size_bytes in stored_files(connection).items():
                self._tally.stored_now(sha256, size_bytes)
            for need in self.of_open_orders(connection):
                self._tally.needed_now(need)
            for sha256, size_bytes in self.of_parked_orders(connection).items():
                self._tally.waited_for_now(sha256, size_bytes)
        newest = connection.execute("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        self._counted = newest or (0, "")
        tally = self._tally
        return Claims(tally.held, tally.held_bytes, tally.missing_bytes, tally.idle_bytes)

    def _catch_up(self, connection: sqlite3.Connection) -> bool:
        """Count what was recorded since; whether that could be done."""
        seq, digest = self._counted
        # A transaction that was rolled back leaves its numbers to other events.
        if connection.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone() != (digest,):
            return False
        query = "SELECT kind, job_id, raw FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        found = connection.execute(query, (seq, _MOST_NEW + 1)).fetchall()
        if len(found) > _MOST_NEW or any(kind not in _ENDS_NO_ORDER for kind, _, _ in found):
            return False
        if self._tally.waits and any(kind == EventKind.JOB_REFUSED for kind, _, _ in found):
            return False  # it may have been one that waited
        if any(kind == EventKind.RUN_BEGAN and job_id in self._over for kind, job_id, _ in found):
            return False  # at the last moment
        for kind, job_id, raw in found:
            if kind == EventKind.JOB_ACCEPTED:
                for need in _needs_of(connection, job_id):
                    self._tally.needed_now(need)
                    self._next = min(self._next, need.until)
            elif kind == EventKind.JOB_PARKED:
                for sha256, size_bytes in self.of_parked_orders(connection).items():
                    self._tally.waited_for_now(sha256, size_bytes)
            elif kind == EventKind.ARTIFACT_STORED:
                body = json.loads(raw)["body"]
                self._tally.stored_now(body["sha256"], body["size_bytes"])
        return self._floor <= _floor(connection) <= self._next


class _Tally:
    """The sums of `Claims`, kept while files are needed and stored.

    A file that only an order names which waits to be judged is held once it is here, and missing to nobody before.
    """

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.held_bytes = self.missing_bytes = self.idle_bytes = 0
        self._stored: dict[str, int] = {}
        self._waited_for: dict[str, int] = {}

    @property
    def waits(self) -> bool:
        """Whether an order waits to be judged."""
        return bool(self._waited_for)

    def waited_for_now(self, sha256: str, size_bytes: int) -> None:
        """An order that waits to be judged names this file."""
        self._waited_for[sha256] = size_bytes
        if sha256 in self._stored and sha256 not in self.held:
            self.held[sha256] = size_bytes
            self.held_bytes += size_bytes
            self.idle_bytes -= self._stored[sha256]

    def needed_now(self, need: Need) -> None:
        """An open order names this file."""
        if need.sha256 in self.held:
            return
        self.held[need.sha256] = need.size_bytes
        self.held_bytes += need.size_bytes
        if need.sha256 in self._stored:
            self.idle_bytes -= self._stored[need.sha256]
        else:
            self.missing_bytes += need.size_bytes

    def stored_now(self, sha256: str, size_bytes: int) -> None:
        """This file is here."""
        if sha256 in self._stored:
            return
        self._stored[sha256] = size_bytes
        if sha256 in self.held:
            self.missing_bytes -= self.held[sha256]
        elif sha256 in self._waited_for:
            self.held[sha256] = self._waited_for[sha256]
            self.held_bytes += self._waited_for[sha256]
        else:
            self.idle_bytes += size_bytes


def stored_files(connection: sqlite3.Connection) -> dict[str, int]:
    """The size of each file that the journal says is here, by hash."""
    return dict(connection.execute("SELECT sha256, size_bytes FROM artifacts").fetchall())


def last_used(connection: sqlite3.Connection) -> dict[str, int]:
    """The newest event about any order that names a file, by hash. Reads every order: for rare questions only."""
    rows = connection.execute(
        "SELECT json_extract(file.value, '$.sha256'), max(orders.revision)"
        " FROM orders, json_each(orders.payload, '$.artifacts') AS file GROUP BY 1"
    )
    return dict(rows.fetchall())


def _floor(connection: sqlite3.Connection) -> datetime.datetime:
    """What has certainly passed."""
    (found,) = connection.execute("SELECT floor FROM standing").fetchone()
    return BEGINNING if found is None else datetime.datetime.fromisoformat(found)


def _needs_of(connection: sqlite3.Connection, job_id: str) -> tuple[Need, ...]:
    (payload,) = connection.execute("SELECT payload FROM orders WHERE job_id = ?", (job_id,)).fetchone()
    return _read(job_id, payload)


def _needs_of_parked(connection: sqlite3.Connection, seq: int) -> tuple[Need, ...]:
    query = "SELECT job_id, envelope FROM parked WHERE seq = ?"
    job_id, envelope = connection.execute(query, (seq,)).fetchone()
    return _read(job_id, base64.b64decode(json.loads(envelope)["payload"]))


def _read(job_id: str, payload: str | bytes) -> tuple[Need, ...]:
    try:
        order = json.loads(payload)
        until = datetime.datetime.fromisoformat(order["expires_at"])
        return tuple(
            Need(job_id, name, file["sha256"], file["size_bytes"], tuple(file.get("sources", ())), until)
            for name, file in order["artifacts"].items()
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # it was good when it was accepted
        log.error("the order of job %s cannot be read any more: %r", job_id, error)
        return ()
