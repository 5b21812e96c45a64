"""A backlog of weeks: what the outbox holds at any moment is one batch."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.uplink.batch import BATCH_MAX_BYTES
from edge.uplink.port import Message
from edge.uplink.window import WINDOW
from tests.helpers.reporting import alarms_of, collecting, copy_of, events_of, fact, reporting

BACKLOG = 100_000


class Centre:
    """A connection at whose end the collector answers; only every `WINDOW`th answer arrives."""

    def __init__(self, outbox, collector) -> None:
        self.outbox, self.collector = outbox, collector
        self.most_bytes = self.batches = 0
        self.done = asyncio.Event()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.most_bytes, self.batches = max(self.most_bytes, self.outbox.held_bytes), self.batches + 1
        answer = await self.collector.take(topic, payload)
        assert answer is not None
        assert self.outbox.view()["in_flight"] <= WINDOW
        self.answer = answer[1]
        if self.outbox.view()["in_flight"] == WINDOW or self.outbox.view()["backlog"] < BACKLOG // 100:
            await self.outbox.take_ack(self.answer, asyncio.get_running_loop().time())
        if not self.outbox.view()["backlog"]:
            self.done.set()

    def messages(self) -> AsyncIterator[Message]:
        raise NotImplementedError


@pytest.mark.timeout(300)
async def test_a_large_backlog_is_never_in_memory(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox), collecting(tmp_path) as collector:
        for _ in range(BACKLOG // 1000):
            await journal.record([fact()] * 1000)
        centre = Centre(outbox, collector)
        task = asyncio.create_task(outbox.send(centre), name="test: send")
        try:
            async with asyncio.timeout(240):
                await centre.done.wait()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert centre.most_bytes <= BATCH_MAX_BYTES * 4 / 3 + 1024
        assert centre.batches < BACKLOG / 100
        (count,) = await collector.store.write(_count)
        assert count == BACKLOG


LOSSY = 10_000


class Forgetful(Centre):
    """A broker that takes everything, and loses one message in ten, either way."""

    def __init__(self, outbox, collector) -> None:
        super().__init__(outbox, collector)
        self.chance = random.Random(20261121)
        self.lost = 0

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.batches += 1
        if self._loses():
            return
        answer = await self.collector.take(topic, payload)
        if answer is not None and not self._loses():
            await self.outbox.take_ack(answer[1], asyncio.get_running_loop().time())
        if not self.outbox.view()["backlog"]:
            self.done.set()

    def _loses(self) -> bool:
        lost = self.chance.random() < 0.1
        self.lost += lost
        return lost


@pytest.mark.timeout(180)
async def test_a_broker_that_acknowledges_and_forgets_costs_time_and_nothing_else(tmp_path: Path) -> None:
    async with reporting(tmp_path, resend_s=0.2, max_bytes=16 * 1024) as (journal, outbox):
        for _ in range(LOSSY // 1000):
            await journal.record([fact()] * 1000)
        async with collecting(tmp_path) as collector:
            centre = Forgetful(outbox, collector)
            task = asyncio.create_task(outbox.send(centre), name="test: send")
            try:
                async with asyncio.timeout(150):
                    await centre.done.wait()
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            assert centre.lost > 20
            assert await copy_of(collector, journal.ident) == await events_of(journal)
            assert await alarms_of(collector) == {}


def _count(connection: sqlite3.Connection) -> tuple[int]:
    return connection.execute("SELECT count(*) FROM events").fetchone()
