"""What pruned events have left: where the chain begins, and every folded table as it was there.

Each folded table has a twin, `base_` and its name, that is the fold over all events up to the base. Folding what is
still here onto the twins gives the folded tables, so `edge verify` and a change of format work on as before; and
pruning means to fold the oldest events onto the twins and to delete them, in one transaction (`edge.journal.prune`).

The twins are there as soon as something was pruned. Light: the views read the base, too.
"""

from __future__ import annotations

import sqlite3

from edge.journal import schema
from edge.journal.chain import WHOLE, Base, Head

PREFIX = "base_"


def read(connection: sqlite3.Connection) -> Base:
    """Where the chain of this journal begins; `WHOLE` if nothing was pruned."""
    row = connection.execute("SELECT seq, hash, journal FROM base").fetchone()
    return WHOLE if row is None else Base(Head(row[0], row[1]), row[2])


def write(connection: sqlite3.Connection, base: Base, at: str) -> None:
    """From now on the chain begins here. `at`: RFC 3339 in UTC."""
    row = (base.head.seq, base.head.hash, base.journal, at)
    connection.execute("INSERT OR REPLACE INTO base VALUES (1, ?, ?, ?, ?)", row)


def make_twins(connection: sqlite3.Connection) -> None:
    """Make the twins where they are missing, empty."""
    for table, keys in schema.DERIVED.items():
        twin = PREFIX + table
        connection.execute(f"CREATE TABLE IF NOT EXISTS {twin} AS SELECT * FROM {table} WHERE 0")
        connection.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {twin}_key ON {twin} ({keys})")


def seed(target: sqlite3.Connection, source: sqlite3.Connection) -> None:
    """Fill the folded tables of `target`, which are as new, from the twins of `source`; both may be one database."""
    target.execute("DELETE FROM standing")  # the one that is not empty when it is new
    for table in schema.DERIVED:  # what refers to others comes after them
        rows = source.execute(f"SELECT * FROM {PREFIX}{table}")
        places = ", ".join("?" * len(rows.description))
        target.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
