"""Whether the journal has all that is known to have happened here; and what the next start will know of it.

Two *witnesses* say which event the journal must have (`edge.journal.headfile`): a file beside it, and one in the
runtime directory, which a copy of the state directory does not bring back before the host is booted.

Rules:

    1. They say so before anything follows from the event: nothing moves while the one beside the journal is behind its
       `run_began`.
    2. A journal without the event that a witness names is an old copy, or another one. It goes on under a new id
       (`edge.journal.restored`) and is held: open runs are UNKNOWN, and nothing begins before a person has confirmed.
    3. While a journal is held, the witnesses stay as they are: the right file that is put back needs no confirmation.
    4. A witness beside the journal that is missing or damaged holds it, if it ever had one: nobody can tell then. A
       journal of an older edge had none.
    5. What had certainly passed when the witness was written has passed, whatever journal is here now.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edge.errors import JournalError
from edge.folders import HEAD
from edge.journal import base
from edge.journal.headfile import UNKNOWN, HeadFile, Promise
from edge.journal.journal import Journal
from edge.journal.restored import begin_anew
from edge.journal.transaction import Transaction, head, ident_of
from edge.model.event import Draft, EventKind

ACTOR = "site"

NEW_JOURNAL = "it is new, so orders that were carried out before, if there were any, are not known here"

CANNOT_TELL = "nobody can tell whether this journal is an old copy"

MEANING = (
    "Orders that this file shows as waiting may have been carried out, and what people decided since is not in it;"
    " put the right file back, or confirm once somebody knows what was done"
)

_KEPT = "head_kept"
"""The row of the table `meta` that says that this journal has had a witness beside it."""

log = logging.getLogger("edge.journal")


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why this journal may not be all that happened. `about` stays the same from start to start, `found` need not.

    `found` is what shows that it is not; empty if nobody can tell.
    """

    about: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.about}{self.found}. {MEANING}"


class Witnesses:
    """Both files; to be closed after the journal."""

    def __init__(self, state_dir: Path, runtime_dir: Path, boot_id: str) -> None:
        self._beside = HeadFile(state_dir / HEAD)
        self._of_this_boot = HeadFile(runtime_dir / HEAD, durable=False)
        self._boot_id = boot_id
        self.have_watched = False
        """Whether one of them was written since the host was booted: no copy of the state directory hides that."""

    async def look_back(self, journal: Journal, *, is_first_start: bool) -> str:
        """Hold a journal that may not be all that happened; why it is held, empty if it is not.

        `is_first_start`: somebody has just set up a site here, and nothing was done before.
        """
        self._beside.read()
        self._of_this_boot.read()
        promise = self._of_this_boot.promise
        self.have_watched = promise is not None and promise.boot_id == self._boot_id

        def look(transaction: Transaction) -> tuple[str, bool]:
            doubt = self._doubt(transaction, is_first_start)
            held = transaction.held()
            if doubt is None or held.startswith(doubt.about):
                return held, False
            if doubt.found:
                begin_anew(transaction, str(doubt), ACTOR, self._floor())
            else:
                transaction.record(Draft(EventKind.JOURNAL_HELD, ACTOR, {"reason": str(doubt), **self._floor()}))
            return str(doubt), True

        held, is_news = await journal.transact(look)
        if is_news:
            log.warning("nothing begins before somebody says `edge journal confirm`: %s", held)
        return held

    def keep(self, connection: sqlite3.Connection) -> None:
        """Name the newest event from now on, unless the journal is held. In the writer's thread, after a commit.

        Raises:
            JournalError: the file beside the journal cannot be written.
        """
        floor, held = connection.execute("SELECT floor, held FROM standing").fetchone()
        if held is not None:
            return
        newest = head(connection)
        promise = Promise(0, ident_of(connection), newest.seq, newest.hash, self._boot_id, floor or UNKNOWN)
        self._beside.write(promise)
        try:
            self._of_this_boot.write(promise)
        except JournalError as error:  # the second witness: the first one has it
            log.warning("%s", error)

    async def kept(self, journal: Journal) -> None:
        """Write down that this journal has a witness beside it, which must not be missing from now on."""

        def write(transaction: Transaction) -> None:
            if self._beside.promise is not None and not transaction.held() and not _was_kept(transaction.connection):
                transaction.connection.execute("INSERT INTO meta VALUES (?, '1')", (_KEPT,))

        await journal.transact(write)

    def close(self) -> None:
        """Let go of the files."""
        self._beside.close()
        self._of_this_boot.close()

    def _doubt(self, transaction: Transaction, is_first_start: bool) -> Doubt | None:
        connection = transaction.connection
        if (doubt := unlike(connection, self._beside)) is not None:
            return doubt
        if (promise := self._of_this_boot.promise) is not None:
            doubt = missing(connection, promise, self._of_this_boot.path)
        if doubt is None and head(connection).seq == 0 and not is_first_start:
            return Doubt(NEW_JOURNAL)
        return doubt

    def _floor(self) -> dict[str, str]:
        floors = [file.promise.floor for file in (self._beside, self._of_this_boot) if file.promise is not None]
        known = [floor for floor in floors if floor != UNKNOWN]
        return {"floor": max(known)} if known else {}


def unlike(connection: sqlite3.Connection, beside: HeadFile) -> Doubt | None:
    """Why this journal does not fit the head file beside it; None if it does, or never had one."""
    if beside.promise is not None:
        return missing(connection, beside.promise, beside.path)
    if beside.problem:
        return Doubt(f"{beside.path} {beside.problem}: {CANNOT_TELL}")
    return Doubt(f"{beside.path} is gone: {CANNOT_TELL}") if _was_kept(connection) else None


def missing(connection: sqlite3.Connection, promise: Promise, path: Path) -> Doubt | None:
    """Why this journal is not the one that has the promised event; None if it has it, or had it and has pruned it."""
    if _had(connection, promise):
        return None
    about = f"{path} says that event {promise.seq} of journal {promise.journal[:8]} was recorded here"
    last, journal = head(connection).seq, ident_of(connection)
    if last >= promise.seq:
        return Doubt(about, ", and this file has another event there: it went on from an old copy")
    if journal != promise.journal:
        return Doubt(about, f", and this is journal {journal[:8]}")
    return Doubt(about, f", and this file ends with event {last}: it is an old copy")


def _had(connection: sqlite3.Connection, promise: Promise) -> bool:
    """The hash says it, under whichever id the journal goes on; of what was pruned, the id that it then had does."""
    pruned = base.read(connection).head
    if 0 < promise.seq < pruned.seq:
        query = "SELECT 1 FROM branches WHERE before = ? AND first_seq > ?"
        went_on = connection.execute(query, (promise.journal, promise.seq)).fetchone() is not None
        return went_on or promise.journal == ident_of(connection)
    if promise.seq == pruned.seq:
        return promise.hash == pruned.hash
    row = connection.execute("SELECT hash FROM events WHERE seq = ?", (promise.seq,)).fetchone()
    return row is not None and row[0] == promise.hash


def _was_kept(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM meta WHERE key = ?", (_KEPT,)).fetchone())
