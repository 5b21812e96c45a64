"""Loss, doubling, other orders, and both sides dying at any step: in the end the copy is the journal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.collector.collector import Collector
from edge.collector.schema import FILE_NAME as COLLECTOR_FILE
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.trust import PayloadType, sign
from edge.uplink.outbox import Outbox
from edge.uplink.topics import What, topic
from edge.uplink.window import RESEND_MAX_S, WINDOW
from tests.helpers.pruning import pruner
from tests.helpers.reporting import (
    SITE,
    SITE_KEY,
    alarms_of,
    chain_of,
    collecting,
    copy_database,
    events_of,
    fact,
    reporting,
)

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
    st.tuples(st.sampled_from(("site backed up", "site put back", "old events are pruned")), st.just(0)),
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
        self.collector_was_put_back = False
        self.pruned: set[bytes] = set()
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
                await self.collector_connects()
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
                self.collector_was_put_back = True
            case "old events are pruned", _:
                before = await events_of(self.journal)
                await pruner(self.folder, self.journal).prune(0)
                self.pruned |= {raw for _, _, raw in before} - {raw for _, _, raw in await events_of(self.journal)}
            case _:
                pass

    async def collector_connects(self) -> None:
        """It says what it has, and the broker hands it the state that the site has left there."""
        self.acks += [raw for _, raw in await self.collector.positions()]
        view = self.outbox.view()
        state = json.dumps(
            {"journal": self.journal.ident} | {key: view[key] for key in ("last_seq", "acked_seq")}
        ).encode()
        answer = await self.collector.take(topic(SITE, What.STATE), sign(PayloadType.STATE, state, [SITE_KEY]))
        self.acks += [] if answer is None else [answer[1]]

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

    async def settle(self, how: str) -> None:
        """From now on nothing is lost, and one more thing happens; or nothing but that the collector connects."""
        if how == "the collector connects":
            await self.collector_connects()
        else:
            await self.journal.record([fact("the last")])
        if how == "the site connects":
            self.outbox.connected()
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
        """What was pruned here may be there, or lost there, too."""
        copied, here = await chain_of(self.collector, self.journal.ident), await events_of(self.journal)
        return copied[-len(here) :] == here and (bool(self.pruned) or len(copied) == len(here))


@settings(max_examples=60, deadline=None)
@example([("collector backed up", 0), ("exchange", 1), ("collector put back", 0)], "the collector connects")
@given(steps, st.sampled_from(("the site connects", "the collector connects", "nobody connects")))
def test_in_the_end_the_copy_is_the_journal_byte_for_byte(plan: list[tuple[str, object]], how: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_carry_out(plan, how, Path(directory)))


async def rows(collector: Collector, query: str) -> list[tuple[Any, ...]]:
    return await collector.store.write(lambda connection: connection.execute(query).fetchall())


async def _carry_out(plan: list[tuple[str, object]], how: str, folder: Path) -> None:
    world = World(folder)
    await world.open()
    try:
        await world.do("record", [10, 3000, 10])
        for what, value in plan:
            await world.do(what, value)
        await world.settle(how)
        assert await world.is_copied()
        assert world.outbox.view()["backlog"] == 0
        assert (await world.journal.verify()).problems == ()
        assert not world.outbox.stopped
        alarms = set(await alarms_of(world.collector)) - {"repeated"}  # this carrier keeps no order
        if world.pruned and world.collector_was_put_back:
            alarms -= {"lost"}
        else:
            assert world.pruned <= {raw for (raw,) in await rows(world.collector, "SELECT raw FROM events")}
        if world.was_put_back:  # what is under way may be of an id that was put back, too
            assert alarms <= {"fork", "restored", "new_journal"}
        else:
            assert alarms == set()
            assert not world.outbox.view()["refused_acks"]
            assert await rows(world.collector, "SELECT hash FROM events GROUP BY hash HAVING count(*) > 1") == []
        await world.do("site dies", 0)
        assert world.outbox.view()["backlog"] == 0, "the mark is durable"
    finally:
        await world.close()
