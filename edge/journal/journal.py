"""All events of the site: recorded, chained and folded into projections in one transaction.

Rules:

    1. An event and what it changes are durable together, or neither is. Whoever gets an `Event` back may act on it.
    2. Several drafts in one `record`, and everything in one `transact`, are one transaction.
    3. A job's revision is the seq of its newest event. Who decides from what he read passes it as
       `expected_revision`, and is refused if somebody was faster.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from edge.errors import IllegalTransitionError, JournalError
from edge.journal import schema
from edge.journal.audit import Report, audit_file
from edge.journal.refold import fold_anew
from edge.journal.store import Store
from edge.journal.transaction import Transaction, head, ident_of
from edge.model.event import Draft, Event, EventKind, Stamp, signed_body

T = TypeVar("T")

log = logging.getLogger("edge.journal")

CHECK_AT_OPEN_BYTES = 32 * 1024 * 1024
"""A second from a slow SD card. A larger file is checked while the daemon is up already, and before anything begins."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has begun and has no end."""

    run_id: str
    job_id: str
    part: int
    step: str
    attempt: int
    machine: str
    began_at: str


class Journal:
    """The journal of one site; made by `Journal.open`."""

    def __init__(self, store: Store, site: str, ident: str, last_seq: int, stamp: Callable[[], Stamp]) -> None:
        self.site = site
        self.ident = ident
        self._store = store
        self._stamp = stamp
        self._last_seq = last_seq
        self._moved = asyncio.Event()
        self._bound = False  # by the group that is being written; the writer's
        self._sound = asyncio.Event()
        if store.checked:
            self._sound.set()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, path: Path, site: str, stamp: Callable[[], Stamp]) -> AsyncIterator[Self]:
        """Open the journal of `site` at `path`, made if it is not there; closing it writes out what is queued.

        `stamp` is called in the event loop, once for each transaction.

        Raises:
            CorruptJournalError: the file is damaged. A large file is not checked here but by `check`.
            JournalError: it is another site's, another version's, or another process has it.
        """
        async with Store(path, check_at_open_bytes=CHECK_AT_OPEN_BYTES) as store:
            ident, last_seq = await store.write(lambda connection: _identify(connection, path, site, stamp))
            yield cls(store, site, ident, last_seq, stamp)

    @property
    def commits(self) -> int:
        """How many transactions were made durable since the journal was opened."""
        return self._store.commits

    @property
    def trouble(self) -> str:
        """Why nothing can be written now, as of the newest attempt; empty if it could."""
        return self._store.trouble

    @property
    def last_seq(self) -> int:
        """The number of the newest durable event; 0 if there is none."""
        return self._last_seq

    @property
    def is_sound(self) -> bool:
        """Whether the whole file was checked since it was opened."""
        return self._sound.is_set()

    async def check(self) -> None:
        """Check a large file. Raises `CorruptJournalError` if it is damaged."""
        await self._store.check()
        self._sound.set()

    async def until_sound(self) -> None:
        """Wait until the file was checked, and found sound."""
        await self._sound.wait()

    async def transact(self, fn: Callable[[Transaction], T]) -> T:
        """Run `fn` in the writer thread; its value, once what it did is durable. If it raises, nothing was done.

        A cancelled caller does not stop a transaction that is queued already.
        """
        stamp = self._stamp()

        def run(connection: sqlite3.Connection) -> tuple[T, int, str]:
            transaction = Transaction(connection, self.site, stamp)
            value = fn(transaction)
            self._bound |= transaction.binding
            return value, head(connection).seq, ident_of(connection)

        value, _, _ = await self._store.write(run, then=self._advance)
        return value

    def bind(self, keep: Callable[[sqlite3.Connection], None]) -> None:
        """Call `keep` in the writer thread after each commit with a binding event, before anybody is told of it.

        If it raises `JournalError`, nothing more is written until the journal is opened again.
        """

        def after_commit(connection: sqlite3.Connection) -> None:
            bound, self._bound = self._bound, False
            if bound:
                keep(connection)

        self._store.after_commit = after_commit

    async def record(
        self,
        drafts: Sequence[Draft],
        expected_revision: int | None = None,
        expect: Callable[[Transaction], None] = lambda transaction: None,
    ) -> list[Event]:
        """Record `drafts` in one transaction; with `expected_revision` they are about one job.

        `expect` looks first, in the same transaction, and raises if something else is not as it was.

        Raises:
            StaleRevisionError: the job has moved on, or `expect` says that something else has.
            IllegalTransitionError: a draft does not fit what is there; none was recorded.
        """

        def run(transaction: Transaction) -> list[Event]:
            if expected_revision is not None:
                (job_id,) = {draft.job_id for draft in drafts}
                transaction.expect_revision(str(job_id), expected_revision)
            expect(transaction)
            return [transaction.record(draft) for draft in drafts]

        return await self.transact(run)

    async def checkpoint(self, run_id: str, value: Any) -> None:
        """Keep JSON for a run, over what was kept before. Durable on return; no event.

        Raises:
            IllegalTransitionError: no such run has begun.
        """
        text = json.dumps(value, allow_nan=False)

        def run(connection: sqlite3.Connection) -> None:
            try:
                connection.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (run_id, text))
            except sqlite3.IntegrityError:
                raise IllegalTransitionError(f"run {run_id} has not begun: there is nothing to keep for it") from None

        await self._store.write(run)

    async def checkpoint_of(self, run_id: str) -> Any:
        """What was kept for a run last; None if nothing was."""

        def run(connection: sqlite3.Connection) -> Any:
            row = connection.execute("SELECT value FROM checkpoints WHERE run_id = ?", (run_id,)).fetchone()
            return None if row is None else json.loads(row[0])

        return await self._store.write(run)

    async def open_runs(self) -> list[OpenRun]:
        """Runs without an end. Right after opening, these are what the last daemon left behind."""

        def run(connection: sqlite3.Connection) -> list[OpenRun]:
            rows = connection.execute(
                "SELECT run_id, job_id, part, step, attempt, machine, began_at FROM runs"
                " WHERE ended_at IS NULL ORDER BY began_at, run_id"
            )
            return [OpenRun(*row) for row in rows]

        return await self._store.write(run)

    async def wait_beyond(self, seq: int, deadline: float | None = None) -> int:
        """Wait for an event newer than `seq`; the number of the newest, which is not newer if `deadline` passed.

        `deadline` is a time of the running loop's clock.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while self._last_seq <= seq:
                    await self._moved.wait()
        return self._last_seq

    async def verify(self) -> Report:
        """Walk the chain, fold all events again and compare. Works beside the writer, on what is durable now."""
        return await asyncio.to_thread(audit_file, self._store.path)

    def _advance(self, result: tuple[object, int, str]) -> None:
        _, seq, self.ident = result
        if seq > self._last_seq:
            self._last_seq = seq
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()


def _identify(connection: sqlite3.Connection, path: Path, site: str, stamp: Callable[[], Stamp]) -> tuple[str, int]:
    """The journal's id, given when the file is made, and its newest seq."""
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        for statement in schema.statements(schema.TABLES):
            connection.execute(statement)
        fresh = {"format": schema.FORMAT, "site": site, "journal": secrets.token_hex(16)}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", fresh.items())
    try:
        meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    except sqlite3.OperationalError:
        raise JournalError(f"{path} is a database, but no journal") from None
    anew = meta.get("format") in schema.FOLDED_ANEW
    if not anew and (problem := schema.problem(meta.get("format"))):
        raise JournalError(f"{path} {problem}")
    if meta["site"] != site:
        raise JournalError(f"{path} is the journal of site '{meta['site']}', not of '{site}'")
    for statement in schema.statements(schema.UPLINK_TABLES):
        connection.execute(statement)
    if anew:
        waiting = _parked_before(connection)
        fold_anew(connection, path, meta["format"])
        for envelope, actor in waiting:
            Transaction(connection, site, stamp()).record(parked(envelope, actor))
        log.info("%s had format %s; its tables are made anew from its events", path, meta["format"])
    return meta["journal"], head(connection).seq


def parked(envelope: bytes, actor: str, signers: Sequence[str] = (), detail: str = "") -> Draft:
    """The event of an order that cannot be judged before somebody vouches for the clock. It was read before."""
    body = {
        **signed_body(envelope, signers),
        "reason": "clock_untrusted",
        "detail": detail,
    }
    order = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    return Draft(EventKind.JOB_PARKED, actor, body, job_id=order["job_id"])


def _parked_before(connection: sqlite3.Connection) -> list[tuple[bytes, str]]:
    """Orders that waited in a journal of a format in which that was no event."""
    columns = [row[1] for row in connection.execute("PRAGMA table_info(parked)")]
    if "actor" not in columns or "job_id" in columns:
        return []
    return connection.execute("SELECT envelope, actor FROM parked ORDER BY seq").fetchall()
