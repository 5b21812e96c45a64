"""The reference receiver: verifies what sites report, keeps it, and acknowledges it once it is durable.

Nothing is acknowledged before the commit that holds it, so whatever the collector loses comes again. A message that our
own code stumbles over is alarmed and acknowledged to the broker: one site must not keep all others waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.collector import schema, telemetry
from edge.collector.answers import Answers
from edge.collector.ledger import Alarm, Answer, Ledger
from edge.errors import BatchError, FormatError, JournalError
from edge.journal.chain import EMPTY
from edge.journal.store import Store
from edge.logs import log_bug
from edge.model.fields import time_text
from edge.model.strictjson import load_object, shown
from edge.trust.envelope import PayloadType, sign
from edge.uplink import batch
from edge.uplink.mqtt import RECEIVE_MAXIMUM
from edge.uplink.port import Message, Uplink, UplinkError
from edge.uplink.topics import What, split, topic

log = logging.getLogger("edge.collector")

STATE_MAX_BYTES = 128 * 1024

SILENT_LONG = timedelta(minutes=10)
"""Much more than the minute after which a site says again how it is."""

Keys = Mapping[str, tuple[bytes, ...]]
"""The public keys of each site that reports here."""


def utc_now() -> datetime:
    """The time by this host's clock."""
    return datetime.now(UTC)


class Collector:
    """The database and the collector's key; made by `Collector.open`."""

    def __init__(self, store: Store, sites: Keys, key: Ed25519PrivateKey, now: Callable[[], datetime]) -> None:
        self.store = store
        self._sites = sites
        self._key = key
        self._now = now
        self.moved = asyncio.Event()
        """Set whenever something may have been applied or told; whoever waits for it clears it."""
        self.told: dict[str, bytes] = {}
        """The newest telemetry of each site that came since somebody took it away: a line of JSON."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, path: Path, sites: Keys, key: Ed25519PrivateKey, now: Callable[[], datetime] = utc_now
    ) -> AsyncIterator[Self]:
        """Open the database at `path`, made if it is not there.

        Raises:
            CorruptJournalError: the file is damaged.
            JournalError: another process has it, or it is of another format.
        """
        async with Store(path) as store:
            await store.write(lambda connection: _prepare(connection, path))
            yield cls(store, sites, key, now)

    async def serve(self, uplink: Uplink) -> None:
        """Take what comes over one connection, until it is lost. Raises `UplinkError`.

        It begins by telling each site how far its journal is here: a site that knows it otherwise sends again. What
        comes is taken in the order in which it came, several messages in one commit: hundreds of sites say something
        each second. No message waits for an answer to be said (`edge.collector.answers`).
        """
        lost: UplinkError | None = None
        room, before = asyncio.Semaphore(RECEIVE_MAXIMUM), None
        try:
            async with asyncio.TaskGroup() as group:
                answers = Answers(group, functools.partial(self._say, uplink))
                for site, answer in await self._positions():
                    answers.put(site, answer)
                try:
                    async for message in uplink.messages():
                        await room.acquire()
                        before = group.create_task(self._deal_with(answers, message, before), name="a site's message")
                        before.add_done_callback(lambda _: room.release())
                except UplinkError as error:
                    lost = error  # what is being written down is finished
        except ExceptionGroup as found:
            others = [error for error in found.exceptions if not isinstance(error, UplinkError)]
            raise (others or found.exceptions)[0] from None
        if lost is not None:
            raise lost

    async def _deal_with(self, answers: Answers, message: Message, before: asyncio.Task[None] | None) -> None:
        """Take one message, and answer it. Acknowledged in the order in which they came: MQTT 5, section 4.6."""
        answer = await self._take_or_put_aside(message)
        if answer is not None:
            answers.put(*answer)
        if before is not None:
            await asyncio.wait([before])
        await message.ack()

    async def _take_or_put_aside(self, message: Message) -> tuple[str, Answer] | None:
        try:
            return await self._take(message.topic, message.payload, again=message.again)
        except JournalError:
            raise  # nobody knows what the disk holds: it comes again
        except Exception as error:  # noqa: BLE001 - one message must not block the rest: logged whole, and alarmed
            text = f"a message of {len(message.payload)} bytes is put aside: internal error ({log_bug(log, error)})"
        named = split(message.topic)
        await self._alarm("" if named is None else named[0], Alarm.INTERNAL, text)
        return None

    async def positions(self) -> list[tuple[str, bytes]]:
        """For each site whose journal is here, what is here of it: an acknowledgement that asks for the rest."""
        return [(site, self._acknowledge(site, answer)) for site, answer in await self._positions()]

    async def _positions(self) -> list[tuple[str, Answer]]:
        now = self._now()
        heads = await self.store.write(lambda connection: Ledger(connection, time_text(now)).heads())
        return [(site, Answer(journal, head, missing=True)) for site, journal, head in heads if site in self._sites]

    async def take(self, where: str, raw: bytes, *, again: bool = False) -> tuple[str, bytes] | None:
        """One message, dealt with durably on return; the topic and the envelope of the answer, if there is one.

        `again`: the broker gives it again, since it was not told that it was taken.
        """
        answer = await self._take(where, raw, again=again)
        return None if answer is None else (topic(answer[0], What.ACK), self._acknowledge(*answer))

    async def _take(self, where: str, raw: bytes, *, again: bool) -> tuple[str, Answer] | None:
        """The same; the site and the answer."""
        named = split(where)
        if named is None or not raw:  # an empty message asks the broker whether the site may write there
            return None
        site, what = named
        if site not in self._sites:
            await self._alarm("", Alarm.UNKNOWN_SITE, f"something came from the site {shown(site)}, which is not known")
            return None
        match what:
            case What.OUT:
                return await self._take_batch(site, raw, again=again)
            case What.STATE:
                return await self._take_state(site, raw)
            case What.LINK:
                await self._take_link(site, raw)
            case What.TELEMETRY:
                await self._take_telemetry(site, raw)
            case What.IN | What.ACK:
                pass
        return None

    async def _take_batch(self, site: str, raw: bytes, *, again: bool) -> tuple[str, Answer] | None:
        try:
            found, payload = batch.open_batch(raw, site, self._sites[site])
        except BatchError as error:
            await self._alarm(site, Alarm.REFUSED, str(error))
            return None
        now = self._now()
        answer = await self.store.write(
            lambda connection: Ledger(connection, time_text(now)).take(found, payload, again)
        )
        self.moved.set()
        return None if answer is None else (site, answer)

    async def _say(self, uplink: Uplink, site: str, answer: Answer) -> None:
        """Answer one site; what the broker does not take for it is no reason to leave all others waiting."""
        try:
            await uplink.publish(topic(site, What.ACK), self._acknowledge(site, answer))
        except UplinkError as error:
            if error.ends_the_connection:
                raise
            log.error("%s", error)

    def _acknowledge(self, site: str, answer: Answer) -> bytes:
        payload = batch.ack_payload(site, answer.journal, answer.head, self._now(), answer.missing)
        return sign(PayloadType.ACK, payload, [self._key])

    async def _take_state(self, site: str, raw: bytes) -> tuple[str, Answer] | None:
        """What a site says of itself, signed. One whose journal is not here at all is asked for it.

        What it sent before anybody listened is lost, and it would be a while before it sends that again.
        """
        try:
            told = batch.opened(raw, PayloadType.STATE, site, self._sites[site])
            document, is_here = await self._keep(site, What.STATE, told)
        except (BatchError, FormatError) as error:
            await self._alarm(site, Alarm.REFUSED, str(error))
            return None
        journal = document.get("journal")
        if is_here or not batch.is_journal_id(journal):
            return None
        return site, Answer(journal, EMPTY, missing=True)

    async def _take_link(self, site: str, raw: bytes) -> None:
        """Whether the site can be heard. It is not signed: the broker publishes the last will."""
        try:
            await self._keep(site, What.LINK, raw)
        except FormatError as error:
            await self._alarm(site, Alarm.REFUSED, str(error))

    async def _keep(self, site: str, what: What, raw: bytes) -> tuple[dict[str, object], bool]:
        """Shown as it came; nothing is decided by it. What the broker gives again is no new word of the site.

        Returns it, and whether any journal of the site is here. Raises `FormatError`.
        """
        document = load_object(raw, what=f"the {what} of a site", max_bytes=STATE_MAX_BYTES)
        text, now = json.dumps(document, ensure_ascii=False), self._now()

        def keep(connection: sqlite3.Connection) -> bool:
            # The column's name is one of two of ours.
            row = connection.execute(f"SELECT {what}, {what}_at FROM sites WHERE site = ?", (site,)).fetchone()
            if row is None or row[0] is None or _is_news(document, json.loads(row[0]), now, row[1]):
                connection.execute(
                    f"INSERT INTO sites (site, {what}, {what}_at) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
                    f" {what} = excluded.{what}, {what}_at = excluded.{what}_at",
                    (site, text, time_text(now)),
                )
            return connection.execute("SELECT 1 FROM journals WHERE site = ?", (site,)).fetchone() is not None

        return document, await self.store.write(keep)

    async def _take_telemetry(self, site: str, raw: bytes) -> None:
        """The newest values of a site, signed as its state is, and no more proven than that."""
        try:
            payload = batch.opened(raw, PayloadType.TELEMETRY, site, self._sites[site])
            found = telemetry.read(payload, site)
        except (BatchError, FormatError) as error:
            await self._alarm(site, Alarm.REFUSED, str(error))
            return
        now = self._now()
        if await self.store.write(lambda connection: telemetry.keep(connection, found, now)):
            line = {"site": site, "came_at": time_text(now), "telemetry": json.loads(payload)}
            self.told[site] = json.dumps(line).encode() + b"\n"
            self.moved.set()

    async def _alarm(self, site: str, kind: Alarm, text: str) -> None:
        log.error("%s: %s: %s", site or "?", kind, text)
        now = time_text(self._now())
        await self.store.write(lambda connection: Ledger(connection, now).alarm(site, "", kind, text))


def _is_news(told: Mapping[str, object], before: Mapping[str, object], now: datetime, before_at: str) -> bool:
    """Whether a state or link was said after the one that came at `before_at`; a journal's events only get more.

    Something else than before is believed if the site has been silent for `SILENT_LONG`: a clock that was wrong once,
    or a thief of the site's key, must not keep the site from being seen for ever.
    """
    seq, seq_before = told.get("last_seq"), before.get("last_seq")
    is_known = told.get("journal") == before.get("journal") and isinstance(seq, int) and isinstance(seq_before, int)
    if not is_known or now - datetime.fromisoformat(before_at) > SILENT_LONG:
        return told != before
    return (seq, str(told.get("at"))) > (seq_before, str(before.get("at")))


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        for statement in schema.TABLES.split(";\n"):
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ('format', ?), ('handed_on', '0')", (schema.FORMAT,))
    try:
        found = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    except sqlite3.OperationalError:
        raise JournalError(f"{path} is a database, but not a collector's") from None
    if found is not None and (changes := schema.CHANGES.get(found[0])) is not None:
        for statement in changes.split(";\n"):
            connection.execute(statement)
        connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (schema.FORMAT,))
    elif found != (schema.FORMAT,):
        raise JournalError(f"{path} has format {found and found[0]}; this edge reads format {schema.FORMAT}")
    _add(connection)


def _add(connection: sqlite3.Connection) -> None:
    """Make the tables that came with a later version, and what the events say that were here before."""
    is_older = not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'unjudged'").fetchone()
    for statement in schema.ADDED.split(";\n"):
        connection.execute(statement)
    if is_older:
        for site, journal in connection.execute("SELECT site, journal FROM journals").fetchall():
            Ledger(connection, "").fold_unjudged(site, journal)
