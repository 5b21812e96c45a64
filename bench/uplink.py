"""How fast a backlog is replayed: outbox, signature, collector and its durable commits, in one process, no network."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.clock import SystemClock
from edge.collector.collector import Collector
from edge.journal.journal import Journal
from edge.model.event import Draft, EventKind
from edge.trust import TrustRoot, keyid_of, public_bytes
from edge.uplink.outbox import Outbox
from edge.uplink.port import Message

SITE = "bench-1"
EVENTS = 10_000
ROUNDS = 3
BODY = {"outcome": "SUCCEEDED", "motion": "possible", "reason": "as the printer says", "text": "x" * 200}


class _Centre:
    """A connection whose other end is the collector; every answer arrives."""

    def __init__(self, outbox: Outbox, collector: Collector) -> None:
        self.outbox, self.collector = outbox, collector
        self.done = asyncio.Event()
        self.batches = self.sent_bytes = 0

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
        self.batches, self.sent_bytes = self.batches + 1, self.sent_bytes + len(payload)
        answer = await self.collector.take(topic, payload)
        if answer is not None:
            await self.outbox.take_ack(answer[1], asyncio.get_running_loop().time())
        if not self.outbox.view()["backlog"]:
            self.done.set()

    def messages(self) -> AsyncIterator[Message]:
        raise NotImplementedError("the outbox asks for none: what comes in is the service's to read")


def report() -> list[str]:
    """Measure; the table, line by line."""
    rates, batches, sent = [], 0, 0
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
            seconds, batches, sent = asyncio.run(_replay(Path(folder)))
        rates.append(EVENTS / seconds)
    return [
        f"uplink: a backlog of {EVENTS} events, {ROUNDS} times, in one process without a network",
        "",
        f"  {'EVENTS/s':<12}{statistics.median(rates):>10.0f}   slowest {min(rates):.0f}, fastest {max(rates):.0f}",
        f"  {'BATCHES':<12}{batches:>10}   {EVENTS / batches:.0f} events each",
        f"  {'BYTES/EVENT':<12}{sent / EVENTS:>10.0f}   as sent, with signature and base64",
    ]


async def _replay(folder: Path) -> tuple[float, int, int]:
    site_key, centre_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    root = _root(public_bytes(centre_key))
    async with (
        Journal.open(folder / "journal.sqlite", SITE, SystemClock().stamp) as journal,
        Collector.open(folder / "collector.sqlite", {SITE: (public_bytes(site_key),)}, centre_key) as collector,
    ):
        for _ in range(EVENTS // 1000):
            await journal.record([Draft(EventKind.MACHINE_ONLINE, "bench", BODY, machine="prn-1")] * 1000)
        outbox = await Outbox.open(journal, site_key, lambda: root)
        centre = _Centre(outbox, collector)
        began_s = time.perf_counter()
        sending = asyncio.create_task(outbox.send(centre), name="bench: send")
        await centre.done.wait()
        seconds = time.perf_counter() - began_s
        sending.cancel()
        await asyncio.wait([sending])
    return seconds, centre.batches, centre.sent_bytes


def _root(public: bytes) -> TrustRoot:
    keyid = keyid_of(public)
    role = {"threshold": 1, "keyids": [keyid]}
    return TrustRoot.model_validate(
        {
            "version": 1,
            "name": "Bench",
            "issued_at": "2026-01-01T00:00:00Z",
            "expires_at": None,
            "keys": {keyid: {"name": "bench", "public": public.hex()}},
            "roles": {"root": role, "collector": role},
        }
    )
