"""Old events that the centre has go, so that the journal's file stops growing.

Rules:

    1. An event goes only if the collector has acknowledged it by signature, and never the newest acknowledged one: each
       connection begins with it. Without an uplink nothing goes.
    2. It goes only if it is older than `keep_days`, by a clock that is trusted now and was trusted then; an event of
       another clock goes with the ones around it.
    3. Nothing goes of what happened since the oldest open job was accepted. A job is open until all its steps have
       ended and no machine needs clearing of what it made.
    4. Events go from the oldest on, a few in one transaction: the fold over them is kept (`edge.journal.base`) and they
       are deleted, both or neither. A job of which nothing is left is forgotten with them, once its order has expired;
       its verdict, the window of its series and the ids of commands are not: nothing is ever taken twice.
    5. The folding is done beside the writer, which only writes down what has changed. Between two steps it has ten
       times as long for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge.clock import SystemClock
from edge.errors import EdgeError, JournalError, StaleRevisionError
from edge.journal import base, chain, projection, schema
from edge.journal.chain import Base, Head
from edge.journal.journal import Journal
from edge.journal.transaction import Transaction
from edge.model.event import stamp_text

STEP_EVENTS = 128
STEP_BYTES = 1024 * 1024
"""Of events that go in one transaction; one of them may be larger."""

ROUND_S = 6 * 3600.0
SHARE = 10
"""The writer is left alone for so many times as long as a step took."""

SPARE_PAGES = 1024
"""Free pages that the file keeps for what comes, at least; and at least an eighth of the file."""

VACUUM_PAGES = 256
"""Given back in one transaction."""

CACHE_KIB = 8192
"""Of the fold, so that it needs no disk of its own on most sites."""

_TOUCHED = "touched_"
"""Before the name of a folded table: which of its rows may differ from the twin's."""

T = TypeVar("T")

log = logging.getLogger("edge.journal.prune")


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one twin: rows that go, by their key, and rows that come or take another's place."""

    table: str
    gone: list[tuple[Any, ...]]
    new: list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction. `forgotten`: jobs, and the revision that each must still have."""

    before: Base
    after: Base
    changes: list[Change]
    forgotten: list[tuple[str, int]]


class Pruner:
    """The task that prunes. `trouble` says why it cannot; empty while that goes well."""

    def __init__(self, journal: Journal, state_dir: Path, clock: SystemClock, keep_days: int) -> None:
        self._journal = journal
        self._path = state_dir / schema.FILE_NAME
        self._clock = clock
        self._keep = datetime.timedelta(days=keep_days)
        self.trouble = ""

    async def serve(self) -> None:
        """A round every six hours, until cancelled."""
        await self._journal.until_sound()
        while True:
            await self.attempt()
            await asyncio.sleep(ROUND_S)

    async def attempt(self) -> None:
        """One round. What keeps it from succeeding is told in `trouble`."""
        try:
            await self.prune()
        except (EdgeError, OSError) as error:
            trouble = f"old events cannot be pruned: {error}"
            if trouble != self.trouble:
                log.error("%s; trying again", trouble)
            self.trouble = trouble
        else:
            self.trouble = ""

    async def prune(self, share: float = SHARE) -> int:
        """One round; how many events went. Raises `EdgeError` if it cannot go on."""
        loop, count = asyncio.get_running_loop(), 0
        now = self._clock.now()
        if not now.trusted:
            return 0
        upto = await asyncio.to_thread(last_to_go, self._path, now.wall, self._keep)
        if upto:
            bench = Bench(self._path)
            try:
                while (step := await _to_its_end(lambda: bench.fold(upto))) is not None:
                    began_s, at = loop.time(), stamp_text(self._clock.now().wall)
                    try:
                        await self._journal.transact(carrying_out(step, at))
                    except StaleRevisionError as error:
                        log.info("%s; the next round prunes it", error)
                        break
                    count += step.after.head.seq - step.before.head.seq
                    await asyncio.sleep(share * (loop.time() - began_s))
            finally:
                bench.close()
        if count:
            log.info("%d old events were pruned, up to event %d; the collector has them", count, upto)
        while True:
            began_s = loop.time()
            if not await self._journal.transact(_give_back):
                return count
            await asyncio.sleep(share * (loop.time() - began_s))


async def _to_its_end(fn: Callable[[], T]) -> T:
    """Run `fn` in a thread; who is cancelled meanwhile waits for its end: it holds what is closed afterwards."""
    work = asyncio.create_task(asyncio.to_thread(fn), name="fold old events")
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def last_to_go(path: Path, now: datetime.datetime, keep: datetime.timedelta) -> int:
    """The number of the newest event that may go; 0 if none may."""
    with _opened(path) as connection:
        begins = base.read(connection).head.seq
        (acked,) = connection.execute("SELECT coalesce(max(seq), 0) FROM uplink").fetchone()
        (opened,) = connection.execute(
            "SELECT min(accepted_seq) FROM orders WHERE job_id IN ("
            " SELECT job_id FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED')"
            " UNION SELECT job_id FROM machines JOIN runs ON run_id = needs_clearing)"
        ).fetchone()
        limit = min(acked, acked if opened is None else opened) - 1
        wanted = {"begins": begins, "limit": limit, "cutoff": stamp_text(now - keep), "now": stamp_text(now)}
        trusted = "seq > :begins AND seq <= :limit AND json_extract(CAST(raw AS TEXT), '$.clock') = 'trusted'"
        young = connection.execute(
            f"SELECT seq FROM events WHERE {trusted} AND at_wall BETWEEN :cutoff AND :now ORDER BY seq LIMIT 1", wanted
        ).fetchone()
        if young is not None:
            wanted["limit"] = young[0] - 1
        old = connection.execute(
            f"SELECT seq FROM events WHERE {trusted} AND at_wall < :cutoff ORDER BY seq DESC LIMIT 1", wanted
        ).fetchone()
        return 0 if old is None else int(old[0])


class Bench:
    """The fold up to the base, in a database of its own, with the journal beside it for reading. In any one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # An empty name is a file of SQLite's own that nobody else sees. Its tables hide the journal's.
        self._connection = sqlite3.connect("", uri=True, isolation_level=None, check_same_thread=False)
        self._begins: Base | None = None

    def close(self) -> None:
        """Give the database away."""
        self._connection.close()

    def fold(self, upto: int) -> Step | None:
        """Fold the next events up to `upto`; what follows from that, which has to be carried out before the next call.

        None if there are no more. Raises `JournalError`.
        """
        connection = self._connection
        with _in_words(self._path):
            before = self._begins or self._fill()
            last, room = before, STEP_BYTES
            query = "SELECT raw FROM journal.events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
            with contextlib.closing(connection.execute(query, (before.head.seq, upto, STEP_EVENTS))) as rows:
                for (raw,) in rows:
                    if room < len(raw) and last != before:
                        break
                    room -= len(raw)
                    event = chain.decode(raw)
                    if event.prev_hash != last.head.hash:
                        raise JournalError(
                            f"event {event.seq} does not follow event {last.head.seq}: see `edge verify`"
                        )
                    projection.apply(connection, event)
                    last = Base(Head(event.seq, event.hash), event.journal)
            if last == before:
                return None
            forgotten = self._forget(last.head.seq)
            changes = [self._change(before, table, keys) for table, keys in schema.DERIVED.items()]
            self._begins = last
        return Step(before, last, [change for change in changes if change.gone or change.new], forgotten)

    def _fill(self) -> Base:
        """Take the twins over; where they end."""
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size={-CACHE_KIB}"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._connection.executescript(schema.FOLDED_TABLES)
        self._connection.execute("ATTACH ? AS journal", (f"{self._path.absolute().as_uri()}?mode=ro",))
        found = base.read(self._connection)
        if found != chain.WHOLE:
            base.seed(self._connection, self._connection)
        self._watch()
        return found

    def _forget(self, upto: int) -> list[tuple[str, int]]:
        """The jobs that have ended and expired, and of which nothing newer is known. Their rows go here."""
        connection = self._connection
        found = connection.execute(
            "SELECT o.job_id, o.revision FROM main.orders o JOIN journal.orders live USING (job_id)"
            " WHERE live.revision = o.revision AND o.revision <= ?"
            " AND substr(o.expires_at, 1, 19) < (SELECT substr(floor, 1, 19) FROM main.standing)"
            " AND NOT EXISTS (SELECT 1 FROM main.steps s WHERE s.job_id = o.job_id"
            "                 AND s.state NOT IN ('COMPLETED', 'ABORTED'))"
            " AND NOT EXISTS (SELECT 1 FROM journal.machines m JOIN journal.runs r ON r.run_id = m.needs_clearing"
            "                 WHERE r.job_id = o.job_id)",
            (upto,),
        ).fetchall()
        for table in ("runs", "steps", "orders"):
            connection.executemany(f"DELETE FROM main.{table} WHERE job_id = ?", [(job_id,) for job_id, _ in found])
        return found

    def _change(self, before: Base, table: str, keys: str) -> Change:
        connection, twin, touched = self._connection, f"journal.{base.PREFIX}{table}", f"{_TOUCHED}{table}"
        if before == chain.WHOLE:
            found = Change(table, [], connection.execute(f"SELECT * FROM main.{table}").fetchall())
        else:
            among = f"WHERE ({keys}) IN (SELECT {keys} FROM {touched})"
            query = f"SELECT {keys} FROM {touched} EXCEPT SELECT {keys} FROM main.{table} {among}"
            gone = connection.execute(query).fetchall()
            query = f"SELECT * FROM main.{table} {among} EXCEPT SELECT * FROM {twin} {among}"
            found = Change(table, gone, connection.execute(query).fetchall())
        connection.execute(f"DELETE FROM {touched}")
        return found

    def _watch(self) -> None:
        """Note which rows are touched from now on: comparing whole tables at each step takes days with many events."""
        self._connection.execute("PRAGMA recursive_triggers=ON").fetchall()  # also for rows that another one replaces
        for table, keys in schema.DERIVED.items():
            touched = f"{_TOUCHED}{table}"
            # A row may stand here several times: how a conflict is to end is for the outer statement to say.
            self._connection.execute(f"CREATE TABLE {touched} ({keys})")
            for what, rows in {"INSERT": ["NEW"], "UPDATE": ["OLD", "NEW"], "DELETE": ["OLD"]}.items():
                notes = "; ".join(
                    f"INSERT INTO {touched} VALUES ({', '.join(f'{row}.{key}' for key in keys.split(', '))})"
                    for row in rows
                )
                self._connection.execute(f"CREATE TRIGGER {touched}_{what} AFTER {what} ON {table} BEGIN {notes}; END")
        # Most orders that are here have not expired by then.
        self._connection.execute("CREATE INDEX by_expiry ON orders (substr(expires_at, 1, 19))")


def carrying_out(step: Step, at: str) -> Callable[[Transaction], None]:
    """What the writer does for a step. `at`: RFC 3339 in UTC. Raises `StaleRevisionError`, and nothing is done."""

    def write(transaction: Transaction) -> None:
        connection = transaction.connection
        (acked,) = connection.execute("SELECT coalesce(max(seq), 0) FROM uplink").fetchone()
        if base.read(connection) != step.before or acked <= step.after.head.seq:
            raise StaleRevisionError("the collector has lost what it had acknowledged")
        if step.before == chain.WHOLE:
            base.make_twins(connection)
        for change in step.changes:
            _write_down(connection, change)
        for job in step.forgotten:
            _forget(connection, job)
        connection.execute("DELETE FROM events WHERE seq <= ?", (step.after.head.seq,))
        base.write(connection, step.after, at)

    return write


def _write_down(connection: sqlite3.Connection, change: Change) -> None:
    twin, keys = base.PREFIX + change.table, schema.DERIVED[change.table].split(", ")
    where = " AND ".join(f"{key} = ?" for key in keys)
    connection.executemany(f"DELETE FROM {twin} WHERE {where}", change.gone)
    if change.new:
        places = ", ".join("?" * len(change.new[0]))
        connection.executemany(f"INSERT OR REPLACE INTO {twin} VALUES ({places})", change.new)


def _forget(connection: sqlite3.Connection, job: tuple[str, int]) -> None:
    (job_id, _) = job
    connection.execute("DELETE FROM checkpoints WHERE run_id IN (SELECT run_id FROM runs WHERE job_id = ?)", (job_id,))
    connection.execute("DELETE FROM runs WHERE job_id = ?", (job_id,))
    connection.execute("DELETE FROM steps WHERE job_id = ?", (job_id,))
    if connection.execute("DELETE FROM orders WHERE (job_id, revision) = (?, ?)", job).rowcount != 1:
        raise StaleRevisionError(f"job {job_id} has changed meanwhile")


def _give_back(transaction: Transaction) -> bool:
    """Give some free pages back to the disk; whether there are more."""
    connection = transaction.connection

    def pragma(name: str) -> int:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    free, pages = pragma("freelist_count"), pragma("page_count")
    if pragma("auto_vacuum") == 0 or free <= max(SPARE_PAGES, pages // 8):
        return False
    connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    address = f"{path.absolute().as_uri()}?mode=ro"
    with _in_words(path), contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        yield connection


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"{path} cannot be read: {error}") from error
