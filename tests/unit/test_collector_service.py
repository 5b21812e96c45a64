"""The collector's connections: what of them is said."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.collector import ndjson, service
from edge.uplink.attempts import FLAPS
from edge.uplink.port import Trouble, Uplink, UplinkError
from edge.uplink.topics import What, topic
from tests.helpers.memory_uplink import MemoryMessage, MemoryUplink
from tests.helpers.reporting import collecting, copy_of, events_of, fact, reporting

DEADLINE_S = 30.0


async def test_a_connection_that_is_lost_again_and_again_is_told_once_and_why_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "PAUSE_S", 0.0)
    caplog.set_level(logging.INFO, "edge.collector")
    enough, count = asyncio.Event(), 0

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Uplink]:
        nonlocal count
        count += 1
        if count == 50:
            enough.set()
        if count == 30:  # the broker is away for a moment
            raise UplinkError(Trouble.UNREACHABLE, "nobody answers")
        uplink = MemoryUplink()
        asyncio.get_running_loop().call_soon(uplink.cut)
        yield uplink

    async with asyncio.timeout(DEADLINE_S), collecting(tmp_path) as collector:
        task = asyncio.create_task(service._keep_serving(collector, connect), name="test: serve")
        await enough.wait()
        task.cancel()
        await asyncio.wait([task])
    said = [record.getMessage() for record in caplog.records]
    assert any("another client connects under the collector's name" in line for line in said)
    assert sum(line == "connected" for line in said) <= 2 * FLAPS
    assert len(said) <= 2 * (FLAPS + 2) + 1


async def test_a_disk_that_is_full_for_a_while_ends_nothing_and_what_came_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "PAUSE_S", 0.0)
    monkeypatch.setattr(ndjson, "AGAIN_S", 0.0)
    (tmp_path / "site").mkdir()
    async with reporting(tmp_path / "site") as (journal, outbox):
        await journal.record([fact("x" * 20_000)])
        (raw,) = await outbox.next(0.0)
        events = await events_of(journal)
    lines: list[bytes] = []
    messages: list[MemoryMessage] = []
    handed_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def write(found: bytes) -> None:
        lines.extend(found.splitlines())
        loop.call_soon_threadsafe(handed_on.set)

    async with asyncio.timeout(DEADLINE_S), collecting(tmp_path) as collector:

        async def limit(pages: int) -> None:
            await collector.store.write(lambda c: c.execute(f"PRAGMA max_page_count={pages}").fetchall())

        @contextlib.asynccontextmanager
        async def connect() -> AsyncIterator[Uplink]:
            if len(messages) == 2:  # somebody has made room
                await limit(100_000)
            uplink = MemoryUplink()
            messages.extend(uplink.come(topic(journal.site, What.OUT), raw))
            yield uplink

        await limit(1)  # it grows no more
        work = [service._keep_serving(collector, connect), ndjson.hand_on(collector, write)]
        tasks = [asyncio.create_task(one, name="test: serve") for one in work]
        await handed_on.wait()
        for task in tasks:
            assert not task.done()
            task.cancel()
        await asyncio.wait(tasks)
        assert await copy_of(collector, journal.ident) == events
    assert [message.acked for message in messages] == [False, False, True]
    assert len(lines) == len(events)
    assert any("the disk is full" in record.getMessage() for record in caplog.records)
