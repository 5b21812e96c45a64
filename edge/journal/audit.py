"""Whether a journal holds together: its file, its chain, and its projections. Needs no daemon.

The projections are checked by folding every event again into an empty database and comparing the tables, row by row.
Where older events were pruned, chain and fold begin with the base that they have left (`edge.journal.base`). What
cannot be folded from events (checkpoints, counts of refusals) is not compared.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.errors import EdgeError, JournalError
from edge.journal import base, chain, projection, schema


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `problems` are sentences; none means that all holds together.

    `events` are those that are here and fit; `pruned` is the newest that is not, `Head(0, …)` if all are.
    """

    site: str
    journal: str
    events: int
    head: chain.Head
    problems: tuple[str, ...]
    pruned: chain.Head = chain.EMPTY

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def audit_file(path: Path) -> Report:
    """`audit` of the file at `path`, opened for reading.

    Raises:
        JournalError: it cannot be read at all.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise JournalError(f"{path} cannot be opened: {error}") from error
    with contextlib.closing(connection):
        return audit(connection)


def audit(connection: sqlite3.Connection) -> Report:
    """Check the file, walk the chain, fold again and compare; all in one snapshot of the database.

    Raises:
        JournalError: it cannot be read at all.
    """
    try:
        if not connection.in_transaction:
            connection.execute("BEGIN")
        with connection:  # ends it
            return _audit(connection)
    except sqlite3.Error as error:
        raise JournalError(f"the journal cannot be read: {error}") from error


def _audit(connection: sqlite3.Connection) -> Report:
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if problem := schema.problem(meta.get("format")):
        raise JournalError(f"the journal {problem}")
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    problems = [] if found == "ok" else [f"the file is damaged: {found}"]
    begins = base.read(connection)
    verdict = chain.verify(_rows(connection), base=begins)
    if verdict.problem:
        problems.append(verdict.problem)
    elif verdict.journal not in (None, meta["journal"]):
        problems.append(f"the events are those of journal {verdict.journal}, the file says {meta['journal']}")
    else:
        problems += _compare(connection, begins, meta["site"])
    return Report(meta["site"], meta["journal"], verdict.count, verdict.head, tuple(problems), begins.head)


def _rows(connection: sqlite3.Connection) -> Iterator[chain.Row]:
    for seq, digest, raw in connection.execute("SELECT seq, hash, raw FROM events ORDER BY seq"):
        yield chain.Row(seq, digest, raw)


def _compare(connection: sqlite3.Connection, begins: chain.Base, site: str) -> list[str]:
    problems = []
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as again:
        again.executescript(schema.TABLES)
        again.execute("BEGIN")
        if begins != chain.WHOLE:
            base.seed(again, connection)
        for row in _rows(connection):
            event = chain.decode(row.raw)
            if row.seq == begins.head.seq + 1 and event.site != site:  # the chain says that all others are like it
                problems.append(f"the events are those of site {event.site}")
            kept = connection.execute(
                "SELECT kind, job_id, machine, at_wall FROM events WHERE seq = ?", (row.seq,)
            ).fetchone()
            if kept != (event.kind, event.job_id, event.machine, event.at_wall):
                problems.append(f"event {row.seq}: the columns beside its bytes say something else")
            try:
                projection.apply(again, event)
            except EdgeError as error:
                return [*problems, f"event {row.seq} cannot have happened: {error}"]
        for table in schema.DERIVED:
            problems += _compare_table(table, connection, again)
    return problems


def _compare_table(table: str, kept: sqlite3.Connection, folded: sqlite3.Connection) -> list[str]:
    """The first difference of one table, in words."""
    query = f"SELECT * FROM {table} ORDER BY {schema.DERIVED[table]}"
    cursor = kept.execute(query)
    columns = [column[0] for column in cursor.description]
    keys = schema.DERIVED[table].split(", ")
    for here, there in itertools.zip_longest(cursor, folded.execute(query)):
        if here == there:
            continue
        row = dict(zip(columns, here or there, strict=True))
        name = f"{table} {'/'.join(str(row[key]) for key in keys)}"
        if here is None:
            return [f"{name} is missing"]
        if there is None:
            return [f"{name} is there, and no event says so"]
        differing = [column for column, a, b in zip(columns, here, there, strict=True) if a != b]
        return [f"{name}: {', '.join(differing)} is not what the events say"]
    return []
