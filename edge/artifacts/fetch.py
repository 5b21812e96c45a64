"""Fetches the files that open orders name and that are not here, from the sources that the orders give.

Rules:

    1. The journal is the only memory: every look reads what is open and what is missing. Half files are kept on the
       disk and gone on with after a restart.
    2. A file is tried from one source after the other, then again after a pause, for as long as an order that names it
       is open and may still start. Pauses grow, with full jitter, so that a hundred sites do not come back together.
    3. A file that is not what its hash says is set aside, and the next source is asked from the first byte. If it began
       with bytes that were here before, that is the same source: it has given a part only, perhaps a good one.
    4. At most `AT_ONCE` files at a time, and `AT_ONCE_FROM_HOST` from one host: one that is slow on purpose cannot keep
       the files of the others from coming.
    5. A failed attempt is told (`edge why`, `edge status`, the log when it is a new one) and not recorded: it would
       fill the journal.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from edge.artifacts.artifacts import Artifacts
from edge.artifacts.download import WINDOW_S, download, host_of, open_session
from edge.artifacts.keeper import RESERVE_BYTES
from edge.artifacts.needs import Need, Needs, stored_files
from edge.artifacts.partial import Partial
from edge.clock import SystemClock
from edge.errors import ArtifactError, EdgeError, FetchError, WrongHashError
from edge.journal.journal import Journal
from edge.journal.transaction import Transaction
from edge.logs import log_bug
from edge.model.event import Draft, EventKind
from edge.reading import views

ACTOR = "site"

AT_ONCE = 4
AT_ONCE_FROM_HOST = 2
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 300.0
LOOK_AGAIN_S = 30.0
"""An order expires, or a file is lost, without anything being recorded."""

LOOK_PAUSE_S = 0.2
"""Between two looks: orders may come in hundreds a second."""

LOOK_SHARE = 20.0
"""The pause is at least so many times as long as the look, which takes longer the more orders are open."""

TELL_S = 2.0
"""Between two words about how far a download has come."""

log = logging.getLogger("edge.artifacts.fetch")


@dataclass(slots=True)
class Story:
    """How it goes with one file, for people."""

    size_bytes: int
    done_bytes: int = 0
    host: str = ""  # empty: it waits for its turn
    error: str = ""  # why the last attempt failed
    failing: bool = False  # every source has failed since bytes came last

    def __str__(self) -> str:
        share = f"{100 * self.done_bytes // self.size_bytes} %" if self.size_bytes else "0 bytes"
        where = f"{share} from {self.host}" if self.host else f"{share}, waiting for its turn"
        return where + (f"; last error: {self.error}" if self.error else "")


@dataclass(slots=True)
class _Job:
    """A file that is being fetched. `needs` are the orders' wishes for it, renewed at every look.

    `tries` are the sources that they give. One of them may say another size of the file than the others, and be wrong.
    """

    needs: list[Need]
    story: Story
    task: asyncio.Task[None] | None = None
    tries: list[tuple[str, Need]] = field(default_factory=list)

    def renew(self, needs: list[Need]) -> None:
        found: dict[tuple[str, int], Need] = {}
        for need in needs:
            for source in need.sources:
                found.setdefault((source, need.size_bytes), need)
        self.needs, self.tries = needs, [(source, need) for (source, _), need in found.items()]


class Fetcher:
    """The task that fetches. `trouble` says why nothing is fetched at all; empty while that goes well."""

    def __init__(
        self,
        journal: Journal,
        state_dir: Path,
        artifacts: Artifacts,
        clock: SystemClock,
        context: ssl.SSLContext,
        *,
        arriving: Callable[[], Collection[str]] = frozenset,
        make_room: Callable[[], Awaitable[None]] | None = None,
        on_change: Callable[[], None] = lambda: None,
        window_s: float = WINDOW_S,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._journal = journal
        self._state_dir = state_dir
        self._artifacts = artifacts
        self._clock = clock
        self._context = context
        self._arriving = arriving
        self._make_room = make_room
        self._on_change = on_change
        self._window_s = window_s
        self._first_pause_s = first_pause_s
        self._needs = Needs()
        self._jobs: dict[str, _Job] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._from_host: dict[str, asyncio.Semaphore] = collections.defaultdict(
            lambda: asyncio.Semaphore(AT_ONCE_FROM_HOST)
        )
        self._told_s = 0.0
        self.trouble = ""

    def story(self, sha256: str) -> Story | None:
        """How it goes with this file; None if nobody fetches it."""
        job = self._jobs.get(sha256)
        return None if job is None else job.story

    async def serve(self) -> None:
        """Fetch what is missing, until cancelled."""
        async with open_session(self._context) as session:
            try:
                while True:
                    seen = self._journal.last_seq
                    again_s, began_s = LOOK_AGAIN_S, self._clock.mono_s()
                    try:
                        if await self._look(session):
                            again_s = 1.0
                        self.trouble = ""
                    except EdgeError as error:
                        if str(error) != self.trouble:
                            log.error("nothing is fetched: %s; trying again", error)
                        self.trouble = str(error)
                        again_s = 1.0
                    took_s = self._clock.mono_s() - began_s
                    await asyncio.sleep(max(LOOK_PAUSE_S, LOOK_SHARE * took_s))
                    await self._journal.wait_beyond(seen, asyncio.get_running_loop().time() + again_s)
            finally:
                await self._drop(list(self._jobs))

    async def _look(self, session: aiohttp.ClientSession) -> bool:
        """Begin what is missing, end what nobody needs; whether something is missing that a bundle may be bringing."""
        missing = await asyncio.to_thread(self._missing)
        arriving = set(self._arriving()) & missing.keys()
        await self._drop([sha256 for sha256 in self._jobs if sha256 not in missing or sha256 in arriving])
        for sha256, needs in missing.items():
            if sha256 in arriving:
                continue
            job = self._jobs.get(sha256)
            if job is None:
                story = Story(needs[0].size_bytes, Partial(self._artifacts, sha256).size())
                job = self._jobs[sha256] = _Job(needs, story)
            job.renew(needs)
            if job.task is not None and job.task.done():
                if (error := job.task.exception()) is not None:
                    job.story.error, job.story.failing = f"internal error ({log_bug(log, error)})", True
                job.task = None
            if job.task is None:
                job.task = asyncio.create_task(self._fetch(session, sha256, job), name=f"fetch {sha256[:12]}")
        return bool(arriving)

    def _missing(self) -> dict[str, list[Need]]:
        """What is not here, or not written down as here, and can be got or is there already."""
        now = self._clock.now()
        with views.open_readonly(self._state_dir) as snapshot:
            needs = self._needs.of_open_orders(snapshot.connection)
            stored = stored_files(snapshot.connection)
        missing: dict[str, list[Need]] = {}
        for need in needs:
            here = self._artifacts.has(need.sha256)
            if (here and need.sha256 not in stored) or (not here and need.sources and not now.passed(need.until)):
                missing.setdefault(need.sha256, []).append(need)
        return missing

    async def _drop(self, hashes: list[str]) -> None:
        tasks = [job.task for sha256 in hashes if (job := self._jobs.pop(sha256)).task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
            self._on_change()

    async def _fetch(self, session: aiohttp.ClientSession, sha256: str, job: _Job) -> None:
        """One source after the other, for ever; returns when the file is here and written down."""
        pause_s = self._first_pause_s
        while True:
            before = job.story.done_bytes
            for source, need in job.tries or [("", job.needs[0])]:
                try:
                    await self._attempt(session, source, need, job)
                except EdgeError as error:  # of the source, the disk, or a journal that takes nothing now
                    self._failed(job, str(error))
                else:
                    return
            if job.story.done_bytes > before:
                pause_s = self._first_pause_s
            else:
                job.story.failing = True
            job.story.host = ""
            self._tell(now=True)
            await asyncio.sleep(random.uniform(0.0, pause_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _attempt(self, session: aiohttp.ClientSession, source: str, need: Need, job: _Job) -> None:
        size_bytes = need.size_bytes
        if not self._artifacts.has(need.sha256):
            host = host_of(source)
            async with self._from_host[host], self._at_once:
                job.story.host, job.story.size_bytes = host, size_bytes
                if self._make_room is not None:
                    await self._make_room()
                await self._download(session, source, need, job)
        elif need.sha256 in self._arriving():
            raise FetchError("a bundle is bringing it")
        else:
            size_bytes = await self._verify(need.sha256)
        await self._journal.transact(lambda transaction: _write_down(transaction, need, size_bytes))

    async def _verify(self, sha256: str) -> int:
        """What is here without being written down came right before a power cut, and may have been spoilt by it."""
        try:
            return await asyncio.to_thread(self._artifacts.verify, sha256)
        except ArtifactError as error:
            await asyncio.to_thread(self._artifacts.quarantine, sha256, None, str(error))
            raise

    async def _download(self, session: aiohttp.ClientSession, source: str, need: Need, job: _Job) -> None:
        partial = Partial(self._artifacts, need.sha256)
        room = await asyncio.to_thread(self._artifacts.free_bytes) - RESERVE_BYTES - self._spoken_for(job)
        if room < need.size_bytes:
            raise ArtifactError(f"the disk has room for {max(0, room)} bytes, the file needs {need.size_bytes}")

        def on_bytes(done: int) -> None:
            if done > job.story.done_bytes:
                job.story.failing = False
            job.story.done_bytes = done
            self._tell()

        while not await self._adopted(session, source, need, job, partial, on_bytes):
            pass

    async def _adopted(
        self,
        session: aiohttp.ClientSession,
        source: str,
        need: Need,
        job: _Job,
        partial: Partial,
        on_bytes: Callable[[int], None],
    ) -> bool:
        """Get the rest; False if the whole is another file, and its beginning was here before. Raises `FetchError`."""
        before = await asyncio.to_thread(partial.size)
        await download(session, source, partial, need.size_bytes, on_bytes, self._window_s)
        try:
            await asyncio.to_thread(self._artifacts.adopt, partial.path, need.sha256, need.size_bytes)
        except WrongHashError as error:
            host = host_of(source)
            who = f"what {host} gave after the {before} bytes that were here is" if before else f"{host} gave"
            reason = f"{who} another file: {error}"
            await asyncio.to_thread(self._artifacts.quarantine, need.sha256, partial.path, reason)
            await asyncio.to_thread(partial.discard)
            job.story.done_bytes = 0
            if before:
                log.warning("%s: %s; it is asked for all of it", need.name, reason)
                return False
            raise FetchError(reason) from error
        await asyncio.to_thread(partial.discard)
        return True

    def _spoken_for(self, job: _Job) -> int:
        """What the other downloads take of the room: those under way all of it, the others what they have so far."""
        others = [other.story for other in self._jobs.values() if other is not job]
        return sum(story.size_bytes if story.host else story.done_bytes for story in others)

    def _failed(self, job: _Job, reason: str) -> None:
        if reason != job.story.error:
            log.warning("%s: %s; trying again", job.needs[0].name, reason)
        job.story.error = reason
        self._tell(now=True)

    def _tell(self, *, now: bool = False) -> None:
        """Whoever shows it may look again."""
        if now or self._clock.mono_s() - self._told_s >= TELL_S:
            self._told_s = self._clock.mono_s()
            self._on_change()


def _write_down(transaction: Transaction, need: Need, size_bytes: int) -> None:
    if not transaction.is_stored(need.sha256):
        body = {"sha256": need.sha256, "size_bytes": size_bytes}
        transaction.record(Draft(EventKind.ARTIFACT_STORED, ACTOR, body, job_id=need.job_id))
