"""What was decided about signed bytes, for as long as the same bytes may come again (`edge.journal.forgetting`)."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from edge.journal.forgetting import forget
from edge.model.event import Event, stamp_text


def verdict(connection: sqlite3.Connection, event: Event, accepted: bool) -> None:
    body, reason = event.body, event.body.get("reason", "")
    expires_at = body.get("expires_at")
    connection.execute(
        "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            body["digest"],
            body.get("payload_digest"),
            accepted,
            reason,
            body.get("detail", ""),
            event.job_id,
            event.seq,
            event.kind,
            event.at_wall,
            None if expires_at is None else stamp_text(datetime.fromisoformat(expires_at)),
        ),
    )
    if not accepted:
        query = "INSERT INTO refused VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1"
        connection.execute(query, (reason,))
        forget(connection)


def forget_verdict(connection: sqlite3.Connection, event: Event) -> None:
    """A root that came too early is judged anew when it comes again."""
    connection.execute("DELETE FROM verdicts WHERE digest = ?", (event.body["digest"],))
