"""How long a refusal is remembered, so that what was refused cannot fill the disk. Part of the fold.

Rules:

    1. The same bytes get the same verdict at least until what they say has expired for certain, by the floor of the
       time, and for `KEPT` after that.
    2. From then on nothing can come of them: they have expired. But a floor that forged network time has raised can be
       lowered again, so the `KEPT_COUNT` that expire last are remembered all the same.
    3. What goes beyond both is forgotten. Bytes like these are counted and are no event any more, so that whoever has a
       copy cannot fill the journal with it.
    4. Of refusals that have no time to expire (they could not be read, or are a root or a time), the newest
       `KEPT_COUNT` are remembered.
    5. An order that was given up before it was judged is remembered as a refusal is, and its id with it.
    6. Accepted orders and commands are not forgotten here.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from edge.model.event import stamp_text

KEPT = timedelta(days=30)
KEPT_COUNT = 10_000


def is_over(connection: sqlite3.Connection, expires_at: datetime | None) -> bool:
    """Whether what expires then is not worth an event any more."""
    if expires_at is None or (at := stamp_text(expires_at)) >= _before(connection):
        return False
    kept = _last_kept(connection)
    return kept is not None and at <= kept[0]


def forget(connection: sqlite3.Connection) -> None:
    """Forget what may be forgotten now."""
    _forget_over(connection)
    connection.execute(
        "DELETE FROM verdicts WHERE NOT accepted AND expires_at IS NULL AND seq <= (SELECT seq FROM verdicts"
        " WHERE NOT accepted AND expires_at IS NULL ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (KEPT_COUNT,),
    )


def _forget_over(connection: sqlite3.Connection) -> None:
    before = _before(connection)
    (first,) = connection.execute("SELECT min(expires_at) FROM verdicts WHERE NOT accepted").fetchone()
    if first is None or first >= before or (kept := _last_kept(connection)) is None:
        return
    connection.execute("DELETE FROM verdicts WHERE NOT accepted AND (expires_at, seq) < (?, ?)", min((before, 0), kept))
    connection.execute("DELETE FROM parked WHERE given_up IS NOT NULL AND digest NOT IN (SELECT digest FROM verdicts)")


def _before(connection: sqlite3.Connection) -> str:
    """What expired before this may be forgotten. As events have times; empty while nothing is known of the time."""
    (floor,) = connection.execute("SELECT floor FROM standing").fetchone()
    return "" if floor is None else stamp_text(max(datetime.fromisoformat(floor), _FIRST) - KEPT)


def _last_kept(connection: sqlite3.Connection) -> tuple[str, int] | None:
    """When the last of those expires that are remembered by number, and its seq; None while they are fewer."""
    found: tuple[str, int] | None = connection.execute(
        "SELECT expires_at, seq FROM verdicts WHERE NOT accepted AND expires_at IS NOT NULL"
        " ORDER BY expires_at DESC, seq DESC LIMIT 1 OFFSET ?",
        (KEPT_COUNT - 1,),
    ).fetchone()
    return found


_FIRST = datetime(1970, 1, 1, tzinfo=UTC) + KEPT
