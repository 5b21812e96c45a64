"""Which files the open orders name: what room is spoken for, what is to be fetched, and what nobody needs any more.

Answers come from the journal alone, so that every part of the site that asks in one transaction sees the same.
"""

from __future__ import annotations

import datetime
import json
import logging
import sqlite3
from dataclasses import dataclass

from edge.trust import Claims

log = logging.getLogger("edge.needs")


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

    def of_open_orders(self, connection: sqlite3.Connection) -> list[Need]:
        """Every file of every order that has not ended, in the order of acceptance; a file may be there several times.

        `connection` is to a journal.
        """
        rows = connection.execute(
            "SELECT job_id FROM orders WHERE job_id IN"
            " (SELECT job_id FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED')) ORDER BY accepted_seq"
        ).fetchall()
        self._known = {job_id: self._known.get(job_id) or _needs_of(connection, job_id) for (job_id,) in rows}
        return [need for needs in self._known.values() for need in needs]

    def claims(self, connection: sqlite3.Connection) -> Claims:
        """What the open orders and the stored files take, for `trust.admit`."""
        held = {need.sha256: need.size_bytes for need in self.of_open_orders(connection)}
        stored = stored_files(connection)
        return Claims(
            held=held,
            missing_bytes=sum(size for sha256, size in held.items() if sha256 not in stored),
            idle_bytes=sum(size for sha256, size in stored.items() if sha256 not in held),
        )


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


def _needs_of(connection: sqlite3.Connection, job_id: str) -> tuple[Need, ...]:
    (payload,) = connection.execute("SELECT payload FROM orders WHERE job_id = ?", (job_id,)).fetchone()
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
