"""How long a refusal is remembered, so that what was refused cannot fill the disk. Part of the fold.

Rules:

    1. The same bytes get the same verdict at least until what they say has expired for certain, by the floor of the
       time, and for `KEPT` after that.
    2. From then on nothing can come of them: they have expired. They are counted and are no event any more, so that
       whoever has a copy cannot fill the journal with it.
    3. Of refusals that have no time to expire (they could not be read, or are a root or a time), the newest
       `KEPT_COUNT` are remembered.
    4. Accepted orders and commands are not forgotten here.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from edge.model.event import stamp_text

KEPT = timedelta(days=30)
KEPT_COUNT = 10_000


def limit(connection: sqlite3.Connection) -> str:
    """What expired before this is not remembered. As events have times; empty while nothing is known of the time."""
    (floor,) = connection.execute("SELECT floor FROM standing").fetchone()
    return "" if floor is None else stamp_text(max(datetime.fromisoformat(floor), _FIRST) - KEPT)


def is_over(connection: sqlite3.Connection, expires_at: datetime | None) -> bool:
    """Whether what expires then is not worth an event any more."""
    return expires_at is not None and stamp_text(expires_at) < limit(connection)


def forget(connection: sqlite3.Connection) -> None:
    """Forget what may be forgotten now."""
    before = limit(connection)
    connection.execute("DELETE FROM verdicts WHERE NOT accepted AND expires_at < ?", (before,))
    connection.execute("DELETE FROM parked WHERE given_up IS NOT NULL AND expires_at < ?", (before,))
    connection.execute(
        "DELETE FROM verdicts WHERE NOT accepted AND expires_at IS NULL AND seq <= (SELECT seq FROM verdicts"
        " WHERE NOT accepted AND expires_at IS NULL ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (KEPT_COUNT,),
    )


_FIRST = datetime(1970, 1, 1, tzinfo=UTC) + KEPT
