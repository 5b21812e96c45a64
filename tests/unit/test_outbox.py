"""The outbox at a connection: resumes, waits, sends again, believes only the collector, holds little."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.journal import Journal, Transaction
from edge.uplink.outbox import Outbox
from edge.uplink.port import Message, Trouble, UplinkError
from edge.uplink.topics import What, topic
from tests.helpers.reporting import (
    SITE,
    acknowledgement,
    collecting,
    copy_of,
    events_of,
    fact,
    reporting,
)
from tests.helpers.trust import private_key

DEADLINE_S = 60.0


class Wire:
    """A connection that keeps what is published; `lose` drops that many first, `fail` ends it after that many."""

    def __init__(self, fail: int | None = None) -> None:
        self.published: asyncio.Queue[bytes] = asyncio.Queue()
        self._left = fail

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
        if self._left == 0:
            raise UplinkError(Trouble.LOST, "the connection was lost")
        if self._left is not None:
            self._left -= 1
        await self.published.put(payload)

    def messages(self) -> AsyncIterator[Message]:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def sending(outbox: Outbox, wire: Wire) -> AsyncIterator[None]:
    task = asyncio.create_task(outbox.send(wire), name="test: send")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def head_of(journal: Journal) -> tuple[int, str]:
    seq, digest, _ = (await events_of(journal))[-1]
    return seq, digest


async def test_events_are_sent_as_they_happen_and_the_mark_is_durable(tmp_path: Path) -> None:
    async with asyncio.timeout(DEADLINE_S):
        async with reporting(tmp_path) as (journal, outbox), collecting(tmp_path) as collector:
            wire = Wire()
            async with sending(outbox, wire):
                for number in range(3):
                    await journal.record([fact(str(number))])
                    answer = await collector.take(topic(SITE, What.OUT), await wire.published.get())
                    assert answer is not None
                    assert outbox.waiting_s(now_s() + 5) >= 5
                    await outbox.take_ack(answer[1], now_s())
                    assert outbox.waiting_s(now_s() + 5) == 0
            assert await copy_of(collector, journal.ident) == await events_of(journal)
            assert outbox.view()["backlog"] == 0
        async with reporting(tmp_path) as (journal, outbox):
            assert outbox.view() == {
                "last_seq": 3,
                "acked_seq": 3,
                "acked_at": "2026-11-21T12:00:00Z",
                "backlog": 0,
                "in_flight": 0,
                "stopped": "",
                "refused_acks": 0,
                "refusal": "",
            }


async def test_without_an_acknowledgement_everything_comes_again(tmp_path: Path) -> None:
    async with asyncio.timeout(DEADLINE_S), reporting(tmp_path, resend_s=0.05) as (journal, outbox):
        await journal.record([fact()])
        wire = Wire()
        async with sending(outbox, wire):
            first, again = await wire.published.get(), await wire.published.get()
        assert first == again


async def test_a_lost_connection_is_told_and_the_next_begins_at_the_mark(tmp_path: Path) -> None:
    async with asyncio.timeout(DEADLINE_S), reporting(tmp_path) as (journal, outbox):
        await journal.record([fact()])
        with pytest.raises(UplinkError):
            await outbox.send(Wire(fail=0))
        assert outbox.held_bytes == 0
        wire = Wire()
        async with sending(outbox, wire):
            assert await wire.published.get()


@pytest.mark.parametrize("what", ["forged", "no envelope", "other journal", "stale"])
async def test_what_cannot_be_believed_changes_nothing(tmp_path: Path, what: str) -> None:
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact(), fact()])
        seq, digest = await head_of(journal)
        await outbox.take_ack(acknowledgement(journal.ident, seq, digest), 0.0)
        before = outbox.view()
        first = (await events_of(journal))[0]
        raw = {
            "forged": acknowledgement(journal.ident, 1, first[1], resend=True, key=private_key("mallory")),
            "no envelope": b"hello",
            "other journal": acknowledgement("0" * 32, seq, digest),
            "stale": acknowledgement(journal.ident, 1, first[1]),
        }[what]
        await outbox.take_ack(raw, 0.0)
        after = outbox.view()
        if what == "stale":  # signed, true, and overtaken
            assert after == before
        else:
            assert after.pop("refused_acks") == 1
            assert after.pop("refusal")
            assert after == {name: before[name] for name in after}


async def test_the_collector_may_ask_for_what_it_had_acknowledged(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact(), fact()])
        events = await events_of(journal)
        await outbox.take_ack(acknowledgement(journal.ident, 2, events[1][1]), 0.0)
        await outbox.take_ack(acknowledgement(journal.ident, 1, events[0][1], resend=True), 0.0)
        assert outbox.view()["acked_seq"] == 1
        assert len(await outbox.next(0.0)) == 1


@pytest.mark.parametrize("ahead", [True, False])
async def test_a_journal_that_was_put_back_is_held_and_reports_no_more(tmp_path: Path, ahead: bool) -> None:
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact(), fact()])
        seq = 9 if ahead else 1
        for _ in range(2):
            await outbox.take_ack(acknowledgement(journal.ident, seq, "ab" * 32), 0.0)
        assert f"the collector has event {seq} of this journal" in outbox.behind
        assert outbox.stopped == outbox.behind
        assert await outbox.next(0.0) == []
        assert outbox.behind == await journal.transact(lambda transaction: transaction.held())
        assert journal.last_seq == 3, "told once"
    async with reporting(tmp_path) as (journal, outbox):
        assert outbox.behind, "and not forgotten"


async def test_an_event_that_cannot_be_reported_is_said(tmp_path: Path) -> None:
    async with reporting(tmp_path, max_bytes=1024) as (journal, outbox):
        await journal.record([fact("x" * 50_000)])
        assert await outbox.next(0.0) == []
        assert "event 1 has 50" in outbox.stopped


async def test_a_gap_in_the_middle_is_said(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact(), fact(), fact()])

        def lose(transaction: Transaction) -> None:
            transaction.connection.execute("DELETE FROM events WHERE seq = 2")

        await journal.transact(lose)
        assert await outbox.next(0.0) == []
        assert "event 2 is not in the journal" in outbox.stopped


async def test_a_gap_in_the_journal_is_said(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact(), fact(), fact()])
        await outbox.take_ack(acknowledgement(journal.ident, 2, (await events_of(journal))[1][1]), 0.0)

        def lose(transaction: Transaction) -> None:
            transaction.connection.execute("DELETE FROM events WHERE seq = 1")

        await journal.transact(lose)
        outbox.connected()
        assert await outbox.next(0.0) == []
        assert "event 1 is not in the journal" in outbox.stopped
