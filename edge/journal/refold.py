"""What a newer edge does with a journal of an older format: the folded tables are made anew from what is kept."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge.errors import JournalError
from edge.journal import base, chain, projection, schema


def fold_anew(connection: sqlite3.Connection, path: Path, before: str) -> None:
    """Make every folded table again, as this edge has them; what is kept stays as it is.

    `before` is the file's format. Raises `JournalError` for a file that was pruned and whose base cannot be read.
    """
    pruned = base.read(connection).head.seq
    if pruned and before not in schema.BASE_CHANGES:
        raise JournalError(
            f"{path} has format {before}, and its events up to {pruned} were pruned: this edge cannot make its tables"
            " anew; use the version of edge that it was used with"
        )
    checkpoints = connection.execute("SELECT run_id, value FROM checkpoints").fetchall()
    connection.execute("DELETE FROM checkpoints")  # they refer to runs
    for table in ("runs", "steps", *(name for name in schema.DERIVED if name not in ("runs", "steps"))):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in schema.statements(schema.TABLES):
        connection.execute(statement)
    if pruned:
        for statement in schema.statements(schema.BASE_CHANGES[before]):
            connection.execute(statement)
        base.make_twins(connection)
        base.seed(connection, connection)
    for (raw,) in connection.execute("SELECT raw FROM events ORDER BY seq"):
        projection.apply(connection, chain.decode(raw))
    connection.executemany("INSERT INTO checkpoints VALUES (?, ?)", checkpoints)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (schema.FORMAT,))
