"""Rows of a query as plain dictionaries, and what several views make of the same columns."""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from edge.journal.maintenance import Maintenance
from edge.model.loaded import Loaded

Row = dict[str, Any]


def rows(connection: sqlite3.Connection, query: str, *values: object) -> list[Row]:
    """All rows of a query, each by the names of its columns."""
    cursor = connection.execute(query, values)
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor]


BEGINNING = "run_began"
"""The kind of the first event of a run."""


def events_of_run(connection: sqlite3.Connection, job_id: str, run_id: str, kinds: Sequence[str]) -> list[Row]:
    """The events of some kinds about one run, the oldest first. Those of an open job are never pruned."""
    wanted = f"SELECT raw FROM events WHERE job_id = ? AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY seq DESC"
    found: list[Row] = []
    for (raw,) in connection.execute(wanted, (job_id, *kinds)):
        event = json.loads(raw)
        if event["run_id"] == run_id:
            found.append(event)
            if event["kind"] == BEGINNING:
                break  # a job may have thousands of runs before this one
    return found[::-1]


def with_held(row: Row) -> Row:
    """An order's row with its columns about a hold as one value."""
    by, since, reason = (row.pop(f"held_{key}") for key in ("by", "since", "reason"))
    return {**row, "held": None if by is None else {"by": by, "since": since, "reason": reason}}


def held_in_words(held: Row | None) -> str:
    """Who holds a job, since when and why; empty if nobody does."""
    if held is None:
        return ""
    because = f": {held['reason']}" if held["reason"] else ""
    at = datetime.datetime.fromisoformat(held["since"])
    return f"held by {held['by'].removeprefix('user:')} since {at:%Y-%m-%d %H:%M} UTC{because}"


def maintenance_of(row: Row) -> Maintenance | None:
    """Who took the machine of this row out of service; None while it is in service."""
    by, since, reason = (row[f"maintenance_{key}"] for key in ("by", "since", "reason"))
    return None if by is None else Maintenance(by, since, reason, bool(row["made_safe"]))


def loaded_in(connection: sqlite3.Connection) -> dict[str, dict[str, Loaded]]:
    """What people have said is loaded, by machine and property. What counts of it, `edge.model.loaded` says."""
    found: dict[str, dict[str, Loaded]] = {}
    for row in rows(connection, "SELECT * FROM loaded ORDER BY machine, property"):
        said = Loaded(json.loads(row["value"]), json.loads(row["configured"]), row["loaded_by"], row["since"])
        found.setdefault(row["machine"], {})[row["property"]] = said
    return found
