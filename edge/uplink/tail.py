"""The journal's tail, as the outbox asks for it: read in pieces, and how far the centre has it.

`uplink` (in `edge.journal.schema`) is no fold over events: what the centre has is nothing that happened here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from edge.errors import BatchError
from edge.journal import base
from edge.journal.chain import EMPTY, Head, Row
from edge.journal.transaction import Transaction, head, ident_of
from edge.uplink.batch import Frame, Origin


@dataclass(frozen=True, slots=True)
class Mark:
    """What the collector has acknowledged, and when by its clock.

    `behind` says what the collector has lost and cannot get from here any more; empty if all is well.
    """

    acked: Head = EMPTY
    at: str | None = None
    behind: str = ""


def read_mark(transaction: Transaction) -> Mark:
    """The mark that was written last."""
    row = transaction.connection.execute("SELECT seq, hash, at, behind FROM uplink").fetchone()
    return Mark() if row is None else Mark(Head(row[0], row[1]), row[2], row[3])


def write_mark(transaction: Transaction, mark: Mark) -> None:
    """Keep the mark."""
    row = (mark.acked.seq, mark.acked.hash, mark.at, mark.behind)
    transaction.connection.execute("INSERT OR REPLACE INTO uplink VALUES (1, ?, ?, ?, ?)", row)


def newest(transaction: Transaction) -> Head:
    """The newest event."""
    return head(transaction.connection)


def at(transaction: Transaction, seq: int) -> Head | None:
    """The event with this number, be it the newest that was pruned; `EMPTY` for 0, None if there is none."""
    if seq == 0:
        return EMPTY
    if seq == (pruned := base.read(transaction.connection).head).seq:
        return pruned
    row = transaction.connection.execute("SELECT seq, hash FROM events WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else Head(*row)


def has_recent(transaction: Transaction, kind: str, count: int) -> bool:
    """Whether one of the newest `count` events is of this kind."""
    query = "SELECT 1 FROM events WHERE seq > ? AND kind = ? LIMIT 1"
    return transaction.connection.execute(query, (newest(transaction).seq - count, kind)).fetchone() is not None


def frame(transaction: Transaction, site: str, before: Head) -> Frame:
    """What a batch that begins after `before` says beside its events.

    That what is before was pruned is said to a collector that has asked for it, and so has lost it.
    """
    connection = transaction.connection
    row = connection.execute("SELECT first_seq, before FROM branches ORDER BY first_seq DESC LIMIT 1").fetchone()
    follows = None
    if row is not None and before.seq < row[0] and (last := at(transaction, row[0] - 1)) is not None:
        follows = Origin(journal=row[1], seq=last.seq, hash=last.hash)
    pruned = base.read(connection).head
    begins = pruned.seq > 0 and before == pruned and read_mark(transaction).acked.seq <= pruned.seq
    return Frame(site, ident_of(connection), before, follows, begins)


def was_called(transaction: Transaction, ident: str) -> bool:
    """Whether this journal went under this id before it was put back to an older state."""
    return bool(transaction.connection.execute("SELECT 1 FROM branches WHERE before = ?", (ident,)).fetchone())


def rows(transaction: Transaction, first_seq: int) -> Iterator[Row]:
    """The events from `first_seq` on, one by one: no more is read than is asked for.

    Raises:
        BatchError: one is missing.
    """
    found: sqlite3.Cursor = transaction.connection.execute(
        "SELECT seq, hash, raw FROM events WHERE seq >= ? ORDER BY seq", (first_seq,)
    )
    for due, (seq, digest, raw) in enumerate(found, first_seq):
        if seq != due:
            raise BatchError(f"event {due} is not in the journal, so event {seq} cannot be sent")
        yield Row(seq, digest, raw)
