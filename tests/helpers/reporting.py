"""A site that reports and a collector that receives, without a network between them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge.collector.collector import Collector
from edge.collector.schema import FILE_NAME as COLLECTOR_FILE
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from edge.trust import PayloadType, TrustRoot, public_bytes, sign
from edge.uplink import batch
from edge.uplink.outbox import Outbox
from edge.uplink.topics import What, topic
from tests.helpers.trust import keyid, private_key, root_document
from tests.journal_kit import SITE, ticking

SITE_KEY = private_key("site")
COLLECTOR_KEY = private_key("collector")
KEYS = {SITE: (public_bytes(SITE_KEY),)}
AT = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def root() -> TrustRoot:
    """A root whose role `collector` is held by `COLLECTOR_KEY`."""
    document = root_document()
    key = {"name": "collector", "algorithm": "ed25519", "public": public_bytes(COLLECTOR_KEY).hex()}
    document["keys"][keyid("collector")] = key
    document["roles"]["collector"] = {"threshold": 1, "keyids": [keyid("collector")]}
    return TrustRoot.model_validate(document)


ROOT = root()


def fact(text: str = "", machine: str = "prn-1") -> Draft:
    """An event of any size."""
    return Draft(EventKind.MACHINE_ONLINE, "runner", {"text": text}, machine=machine)


@contextlib.asynccontextmanager
async def reporting(folder: Path, **options: Any) -> AsyncIterator[tuple[Journal, Outbox]]:
    """The site's half."""
    async with Journal.open(folder / FILE_NAME, SITE, ticking()) as journal:
        yield journal, await Outbox.open(journal, SITE_KEY, lambda: ROOT, **options)


def collecting(folder: Path, **options: Any) -> contextlib.AbstractAsyncContextManager[Collector]:
    """The centre's half."""
    return Collector.open(folder / COLLECTOR_FILE, KEYS, COLLECTOR_KEY, lambda: AT, **options)


async def events_of(journal: Journal) -> list[tuple[int, str, bytes]]:
    """Number, hash and bytes of every event of the site."""

    def read(transaction: Transaction) -> list[tuple[int, str, bytes]]:
        return transaction.connection.execute("SELECT seq, hash, raw FROM events ORDER BY seq").fetchall()

    return await journal.transact(read)


async def copy_of(collector: Collector, journal: str) -> list[tuple[int, str, bytes]]:
    """The same, as the collector has it."""
    return await collector.store.write(
        lambda connection: connection.execute(
            "SELECT seq, hash, raw FROM events WHERE journal = ? ORDER BY number", (journal,)
        ).fetchall()
    )


async def chain_of(collector: Collector, journal: str) -> list[tuple[int, str, bytes]]:
    """The same, with what the journal has from those that it went on from."""

    def read(connection: sqlite3.Connection) -> list[tuple[int, str, bytes]]:
        found: list[tuple[int, str, bytes]] = []
        ident, last_seq = journal, 2**62
        while ident is not None:
            query = "SELECT seq, hash, raw FROM events WHERE journal = ? AND seq <= ? ORDER BY seq DESC"
            found += connection.execute(query, (ident, last_seq)).fetchall()
            query = "SELECT after_journal, after_seq FROM journals WHERE journal = ?"
            ident, after_seq = connection.execute(query, (ident,)).fetchone() or (None, None)
            last_seq = min(last_seq, after_seq or 0)
        return found[::-1]

    return await collector.store.write(read)


async def exchange(outbox: Outbox, collector: Collector, now_s: float = 0.0) -> None:
    """Everything that the site has to say, and the answers."""
    while envelopes := await outbox.next(now_s):
        for raw in envelopes:
            answer = await collector.take(topic(SITE, What.OUT), raw)
            if answer is not None:
                await outbox.take_ack(answer[1], now_s)
        now_s += 1000.0


async def alarms_of(collector: Collector) -> dict[str, tuple[str, int]]:
    """Text and count of each kind of alarm."""
    rows = await collector.store.write(
        lambda connection: connection.execute("SELECT kind, text, count FROM alarms").fetchall()
    )
    return {kind: (text, count) for kind, text, count in rows}


def acknowledgement(journal: str, seq: int, digest: str, resend: bool = False, key: Any = COLLECTOR_KEY) -> bytes:
    """What a collector would send."""
    payload = batch.ack_payload(SITE, journal, batch.Head(seq, digest), AT, resend)
    return sign(PayloadType.ACK, payload, [key])


def copy_database(path: Path, target: Path) -> None:
    """Database and log as they are on the disk now."""
    target.mkdir(exist_ok=True)
    for name in (path.name, path.name + "-wal"):
        (target / name).unlink(missing_ok=True)
        if path.with_name(name).exists():
            shutil.copyfile(path.with_name(name), target / name)
