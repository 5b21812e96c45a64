"""Where the journal begins, and what became of what was before, in words. Light, as the views are."""

from __future__ import annotations

import datetime
import sqlite3
from typing import Any


def pruned(connection: sqlite3.Connection) -> dict[str, Any] | None:
    """The newest event that was pruned, and when; None if all are here."""
    row = connection.execute("SELECT seq, at FROM base").fetchone()
    return None if row is None else {"seq": row[0], "at": row[1]}


def in_words(found: dict[str, Any] | None) -> str:
    """What `pruned` says; empty if all events are here."""
    if found is None:
        return ""
    at = datetime.datetime.fromisoformat(found["at"])
    return f"events before {found['seq'] + 1} were pruned, last on {at:%Y-%m-%d}; the collector has them"


def forgotten(connection: sqlite3.Connection, wanted: str) -> str:
    """What is left of a job whose id is, begins or ends with `wanted`, and that was pruned; empty if nothing is."""
    pattern = wanted.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    row = connection.execute(
        "SELECT job_id, seq, at FROM verdicts WHERE kind = 'job_accepted' AND job_id NOT IN (SELECT job_id FROM orders)"
        " AND (job_id LIKE ? || '%' ESCAPE '\\' OR job_id LIKE '%' || ? ESCAPE '\\') ORDER BY seq DESC LIMIT 1",
        (pattern, pattern),
    ).fetchone()
    if row is None:
        return ""
    job_id, seq, at = row
    return (
        f"job {job_id} was accepted as event {seq} on {at[:10]} and has ended; {in_words(pruned(connection))},"
        " and with them what became of it"
    )
