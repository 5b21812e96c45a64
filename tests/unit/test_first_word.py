"""The first start since the boot waits for the collector, and not for ever."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.collector.collector import Collector
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from edge.uplink.firstword import FirstWord
from edge.uplink.outbox import Outbox
from tests.helpers.reporting import acknowledgement, collecting, events_of, fact, reporting
from tests.unit.test_outbox import DEADLINE_S, Wire, now_s, sending

LONG_S = 3600.0


@contextlib.asynccontextmanager
async def waiting(word: FirstWord) -> AsyncIterator[None]:
    task = asyncio.create_task(word.serve(), name="test: first word")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class Changed:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.event.wait()


async def answer(wire: Wire, collector: Collector, outbox: Outbox) -> None:
    """What the site publishes goes to the collector, and its answers come back."""
    while True:
        found = await collector.take("mf/v1/berlin-1/out", await wire.published.get())
        if found is not None:
            await outbox.take_ack(found[1], now_s())


async def test_what_this_start_recorded_has_to_be_acknowledged(tmp_path: Path) -> None:
    changed = Changed()
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact() for _ in range(5)])
        hashes = {seq: digest for seq, digest, _ in await events_of(journal)}
        word = FirstWord(outbox, journal.last_seq, LONG_S, changed.event.set)
        async with waiting(word):
            for seq in (3, 4):  # what the broker had kept from before
                await outbox.take_ack(acknowledgement(journal.ident, seq, hashes[seq]), now_s())
                await asyncio.sleep(0)
                assert "the centre has not said whether this journal is the newest" in word.waits_for
            await outbox.take_ack(acknowledgement(journal.ident, 5, hashes[5]), now_s())
            await changed.wait()
            assert word.waits_for == ""


async def test_a_collector_that_knows_more_ends_the_wait_and_holds_the_journal(tmp_path: Path) -> None:
    changed = Changed()
    async with collecting(tmp_path) as collector:
        async with reporting(tmp_path) as (journal, outbox):
            await journal.record([fact() for _ in range(5)])
        (tmp_path / "old").mkdir()
        shutil.copyfile(tmp_path / FILE_NAME, tmp_path / "old" / FILE_NAME)
        for folder in (tmp_path, tmp_path / "old"):
            async with reporting(folder) as (journal, outbox):
                await journal.record([fact("after"), fact("more")] if folder == tmp_path else [fact("another")])
                word = FirstWord(outbox, journal.last_seq, LONG_S, changed.event.set)
                wire = Wire()
                answering = asyncio.create_task(answer(wire, collector, outbox), name="test: answer")
                async with waiting(word), sending(outbox, wire):
                    await changed.wait()
                answering.cancel()
                await asyncio.wait([answering])
                changed.event.clear()
                held = await journal.transact(Transaction.held)
                assert bool(held) is (folder != tmp_path)


@pytest.mark.parametrize(("wait_s", "waits"), [(0.0, False), (0.05, True)])
async def test_a_network_that_is_down_stops_no_site(tmp_path: Path, wait_s: float, waits: bool) -> None:
    changed = Changed()
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact()])
        word = FirstWord(outbox, journal.last_seq, wait_s, changed.event.set)
        assert bool(word.waits_for) is waits
        async with waiting(word):
            if waits:
                await changed.wait()
        assert word.waits_for == ""
