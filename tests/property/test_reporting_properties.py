"""Loss, doubling, other orders, and both sides dying at any step: in the end the copy is the journal."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.collector.collector import Collector
from edge.collector.schema import FILE_NAME as COLLECTOR_FILE
from edge.journal import Journal
from edge.schema import FILE_NAME
from edge.uplink.outbox import Outbox
from edge.uplink.topics import What, topic
from edge.uplink.window import RESEND_MAX_S, WINDOW
from tests.helpers.reporting import SITE, alarms_of, chain_of, collecting, copy_database, events_of, fact, reporting

MAX_BYTES = 2048  # small batches, so that there are many; what is larger than 1.5 kB goes in pieces

index = st.integers(0, 30)
step = st.one_of(
    st.tuples(st.just("record"), st.lists(st.integers(0, 3000), min_size=1, max_size=12)),
    st.tuples(st.just("send"), st.sampled_from((0, 1, 40))),
    st.tuples(st.just("exchange"), st.integers(1, 4)),
    st.tuples(st.sampled_from(("batch", "double batch", "lose batch", "power cut at the collector")), index),
    st.tuples(st.sampled_from(("ack", "double ack", "lose ack")), index),
    st.tuples(st.sampled_from(("reconnect", "site dies", "collector dies")), st.just(0)),
    st.tuples(st.sampled_from(("collector backed up", "collector put back")), st.just(0)),
    st.tuples(st.sampled_from(("site backed up", "site put back")), st.just(0)),
)
steps = st.lists(step, min_size=10, max_size=60)


class World:
    """Both sides, what is under way between them, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_s = 1000.0
        self.batches: list[bytes] = []
        self.acks: list[bytes] = []
        self.journal: Journal
        self.outbox: Outbox
        self.collector: Collector
        self.was_put_back = False
        self._site = contextlib.AsyncExitStack()
        self._centre = contextlib.AsyncExitStack()

    async def open(self) -> None:
        self.journal, self.outbox = await self._site.enter_async_context(reporting(self.folder, max_bytes=MAX_BYTES))
        self.collector = await self._centre.enter_async_context(collecting(self.folder))

    async def close(self) -> None:
        await self._site.aclose()
        await self._centre.aclose()

    async def do(self, what: str, value: object) -> None:
        match what, value:
            case "record", list(sizes):
                await self.journal.record([fact("x" * size) for size in sizes])
            case "send", int(passed_s):
                self.now_s += passed_s
                self.batches += await self.outbox.next(self.now_s)
                assert self.outbox.view()["in_flight"] <= WINDOW
            case "exchange", int(count):  # all goes well for a while
                for _ in range(count):
                    self.batches += await self.outbox.next(self.now_s)
                    while self.batches or self.acks:
                        await self.do("batch", 0)
                        await self.do("ack", 0)
            case (("batch" | "double batch" | "lose batch"), int(index)) if self.batches:
                raw = self.batches.pop(index % len(self.batches))
                self.batches += [raw] if what == "double batch" else []
                if what != "lose batch":
                    await self.deliver(raw)
            case (("ack" | "double ack" | "lose ack"), int(index)) if self.acks:
                raw = self.acks.pop(index % len(self.acks))
                self.acks += [raw] if what == "double ack" else []
                if what != "lose ack":
                    await self.outbox.take_ack(raw, self.now_s)
            case "reconnect", _:
                self.outbox.connected()
                self.acks += [raw for _, raw in await self.collector.positions()]
            case "site dies", _:
                await self._site.aclose()
                self.journal, self.outbox = await self._site.enter_async_context(
                    reporting(self.folder, max_bytes=MAX_BYTES)
                )
            case "collector dies", _:
                await self._centre.aclose()
                self.collector = await self._centre.enter_async_context(collecting(self.folder))
            case "power cut at the collector", int(index) if self.batches:
                self.backup("before")
                raw = self.batches.pop(index % len(self.batches))
                await self.collector.take(topic(SITE, What.OUT), raw)  # nobody gets the answer
                await self.put_back("before")
            case "collector backed up", _:
                self.backup("backup")
            case "site backed up", _:
                copy_database(self.folder / FILE_NAME, self.folder / "site backup")
            case "site put back", _ if (self.folder / "site backup").exists():
                await self.put_site_back()
            case "collector put back", _ if (self.folder / "backup").exists():
                await self.put_back("backup")
            case _:
                pass

    async def deliver(self, raw: bytes) -> None:
        answer = await self.collector.take(topic(SITE, What.OUT), raw)
        if answer is not None:
            assert answer[0] == topic(SITE, What.ACK)
            self.acks.append(answer[1])

    def backup(self, name: str) -> None:
        copy_database(self.folder / COLLECTOR_FILE, self.folder / name)

    async def put_back(self, name: str) -> None:
        await self._centre.aclose()
        (self.folder / f"{COLLECTOR_FILE}-wal").unlink(missing_ok=True)
        copied = (self.folder / name).iterdir()
        for file in list(copied):
            (self.folder / file.name).write_bytes(file.read_bytes())
        self.collector = await self._centre.enter_async_context(collecting(self.folder))

    async def put_site_back(self) -> None:
        await self._site.aclose()
        (self.folder / f"{FILE_NAME}-wal").unlink(missing_ok=True)
        for file in list((self.folder / "site backup").iterdir()):
            (self.folder / file.name).write_bytes(file.read_bytes())
        self.journal, self.outbox = await self._site.enter_async_context(reporting(self.folder, max_bytes=MAX_BYTES))
        self.was_put_back = True

    async def settle(self, reconnected: bool) -> None:
        """From now on nothing is lost, over a new connection or the one there is; and one more thing happens."""
        if reconnected:
            self.outbox.connected()
        await self.journal.record([fact("the last")])
        for _ in range(400):
            while self.batches or self.acks:
                await self.do("batch", 0)
                await self.do("ack", 0)
            if self.outbox.view()["backlog"] == 0 and await self.is_copied():
                return
            await self.do("send", 1)
            if not self.batches:
                self.now_s += RESEND_MAX_S

    async def is_copied(self) -> bool:
        return await chain_of(self.collector, self.journal.ident) == await events_of(self.journal)


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans())
def test_in_the_end_the_copy_is_the_journal_byte_for_byte(plan: list[tuple[str, object]], reconnected: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_carry_out(plan, reconnected, Path(directory)))


async def _carry_out(plan: list[tuple[str, object]], reconnected: bool, folder: Path) -> None:
    world = World(folder)
    await world.open()
    try:
        await world.do("record", [10, 3000, 10])
        for what, value in plan:
            await world.do(what, value)
        await world.settle(reconnected)
        assert await world.is_copied()
        assert world.outbox.view()["backlog"] == 0
        assert (await world.journal.verify()).problems == ()
        assert not world.outbox.stopped
        if world.was_put_back:  # what is under way may be of an id that was put back, too
            assert set(await alarms_of(world.collector)) <= {"fork", "restored", "new_journal"}
        else:
            assert await alarms_of(world.collector) == {}
            assert not world.outbox.view()["refused_acks"]
        await world.do("site dies", 0)
        assert world.outbox.view()["backlog"] == 0, "the mark is durable"
    finally:
        await world.close()
