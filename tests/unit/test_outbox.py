"""The outbox at a connection: resumes, waits, sends again, believes only the collector, holds little."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.collector import views as collector_views
from edge.collector.collector import Collector
from edge.collector.schema import FILE_NAME as COLLECTOR_FILE
from edge.journal.journal import Journal, parked
from edge.journal.prune import Pruner
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from edge.model.event import Draft
from edge.trust.envelope import parse
from edge.uplink.outbox import Outbox
from edge.uplink.port import Message, Trouble, UplinkError
from edge.uplink.topics import What, topic
from edge.uplink.window import RESEND_S
from tests import second_verifier
from tests.helpers.clock import SetClock
from tests.helpers.pruning import job
from tests.helpers.reporting import (
    SITE,
    acknowledgement,
    alarms_of,
    collecting,
    copy_database,
    copy_of,
    events_of,
    exchange,
    fact,
    reporting,
)
from tests.helpers.trust import private_key
from tests.journal_kit import cancelled, envelope, order

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


async def test_what_takes_longer_on_the_line_than_anybody_waits_for_an_answer_is_not_sent_again(tmp_path: Path) -> None:
    resend_s = 1.0

    class Slow(Wire):
        async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
            await asyncio.sleep(1.1 * resend_s)
            await super().publish(topic, payload)

    wire = Slow()
    async with asyncio.timeout(DEADLINE_S), reporting(tmp_path, resend_s=resend_s) as (journal, outbox):
        await journal.record([fact()])
        digest = (await events_of(journal))[0][1]
        async with sending(outbox, wire):
            await wire.published.get()
            await outbox.take_ack(acknowledgement(journal.ident, 1, digest), asyncio.get_running_loop().time())
            await journal.record([fact()])
            assert b'"first_seq":2' in parse(await wire.published.get()).payload


async def test_a_broker_that_takes_no_message_of_that_size_gets_smaller_ones(tmp_path: Path) -> None:
    class Narrow(Wire):
        max_bytes = 60_000

        async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
            if len(payload) > self.max_bytes:
                raise UplinkError(Trouble.TOO_LARGE, f"a message has {len(payload)} bytes")
            await super().publish(topic, payload)

    wire = Narrow()
    async with asyncio.timeout(DEADLINE_S), reporting(tmp_path) as (journal, outbox), collecting(tmp_path) as collector:
        await journal.record([fact("x" * 1000) for _ in range(200)])
        await journal.record([fact("x" * 350_000)])  # an order of 256 KiB
        async with sending(outbox, wire):
            while outbox.backlog:
                answer = await collector.take(topic(SITE, What.OUT), await wire.published.get())
                if answer is not None:
                    await outbox.take_ack(answer[1], asyncio.get_running_loop().time())
        assert await copy_of(collector, journal.ident) == await events_of(journal)
        wire.max_bytes = 1000
        await journal.record([fact("x" * 1000)])
        with pytest.raises(UplinkError, match="a message has"):
            await outbox.send(wire)


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
async def test_a_journal_that_was_put_back_is_held_and_goes_on_under_a_new_id(tmp_path: Path, ahead: bool) -> None:
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact(), fact()])
        before, last = journal.ident, (await events_of(journal))[-1]
        seq = 9 if ahead else 1
        for _ in range(2):
            await outbox.take_ack(acknowledgement(before, seq, "ab" * 32), 0.0)
        held = await journal.transact(lambda transaction: transaction.held())
        assert f"the collector has event {seq} of this journal" in held
        assert journal.last_seq == 3, "told once"
        after = journal.ident
        assert after != before
        told = json.loads((await events_of(journal))[-1][2])
        assert (told["journal"], told["kind"], told["prev_hash"]) == (after, "journal_held", last[1])
        assert told["body"]["follows"] == {"journal": before, "seq": 2, "hash": last[1]}
        assert not outbox.stopped
        assert outbox.view()["refused_acks"] == 0, "what is said of the old id is no news, and no fault"
        assert (await journal.verify()).problems == ()
        assert second_verifier.verify(tmp_path / FILE_NAME) == (3, "")
    async with reporting(tmp_path) as (journal, outbox):
        assert journal.ident == after, "and not forgotten"
        (raw,) = await outbox.next(0.0)
        assert second_verifier.verify_batch(raw) == (3, "")


async def test_an_event_that_cannot_be_reported_is_said(tmp_path: Path) -> None:
    async with reporting(tmp_path, max_bytes=1024) as (journal, outbox):
        await journal.record([fact("x" * 50_000)])
        assert await outbox.next(0.0) == []
        assert "event 1 has 50" in outbox.stopped


async def test_no_text_of_a_machine_is_so_long_that_nothing_is_reported_any_more(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox), collecting(tmp_path) as collector:
        for text in ("\0", "é\U0001f600", "x"):
            await journal.record([fact(text * 5_000_000)])
            await journal.record([fact(text * (1_000_000 // len(json.dumps(text, ensure_ascii=False).encode())))])
        await exchange(outbox, collector)
        assert outbox.stopped == ""
        assert await copy_of(collector, journal.ident) == await events_of(journal)


async def test_a_gap_in_the_middle_is_said(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact(), fact(), fact()])

        def lose(transaction: Transaction) -> None:
            transaction.connection.execute("DELETE FROM events WHERE seq = 2")

        await journal.transact(lose)
        assert await outbox.next(0.0) == []
        assert "event 2 is not in the journal" in outbox.stopped


async def test_what_can_go_no_further_does_not_come_back_for_what_is_under_way(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([fact(), fact()])
        assert await outbox.next(0.0)
        assert outbox.due_at == RESEND_S
        await journal.record([fact(), fact()])

        def lose(transaction: Transaction) -> None:
            transaction.connection.execute("DELETE FROM events WHERE seq = 3")

        await journal.transact(lose)
        assert await outbox.next(1.0) == []
        assert outbox.stopped
        assert outbox.due_at is None, "it would come back at once, again and again, and log each time"


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


# What was pruned


async def pruned(
    folder: Path, collector: Collector, backup: int, journal: Journal, outbox: Outbox, then: Sequence[Draft] = ()
) -> None:
    """The collector has all and is copied after `backup` events; then what it has is pruned but for the newest."""
    await journal.record([fact(str(number)) for number in range(backup)])
    await exchange(outbox, collector)
    copy_database(folder / COLLECTOR_FILE, folder / "backup")
    await journal.record([*then, *(fact(str(number)) for number in range(10))])
    await exchange(outbox, collector)
    clock = SetClock(datetime(2027, 6, 1, tzinfo=UTC), synchronized=True)
    assert await Pruner(journal, folder, clock, keep_days=90).prune(0) == journal.last_seq - 1


async def test_after_pruning_a_connection_begins_as_before(tmp_path: Path) -> None:
    async with collecting(tmp_path) as collector:
        async with reporting(tmp_path) as (journal, outbox):
            await pruned(tmp_path, collector, 4, journal, outbox)
        async with reporting(tmp_path) as (journal, outbox):
            (again,) = await outbox.next(0.0)
            assert second_verifier.verify_batch(again) == (1, "")
            await journal.record([fact()])
            await exchange(outbox, collector, 1000.0)
            assert len(await copy_of(collector, journal.ident)) == 15
            assert outbox.view()["backlog"] == 0
        assert await alarms_of(collector) == {}


@pytest.mark.parametrize("backup", [4, 0])
async def test_a_collector_that_lost_what_was_pruned_gets_the_rest_and_both_sides_say_so(
    tmp_path: Path, backup: int
) -> None:
    """Put back to a backup, or begun anew on an empty disk."""
    async with reporting(tmp_path) as (journal, outbox):
        async with collecting(tmp_path) as collector:
            await pruned(tmp_path, collector, backup or 4, journal, outbox)
        for file in tmp_path.glob(f"{COLLECTOR_FILE}*"):
            file.unlink()
        if backup:
            for file in (tmp_path / "backup").iterdir():
                (tmp_path / file.name).write_bytes(file.read_bytes())
        async with collecting(tmp_path) as collector:
            outbox.connected()
            for _, raw in await collector.positions():
                await outbox.take_ack(raw, 0.0)
            if not outbox.attention():  # an empty collector asks when it sees that something is missing
                for raw in await outbox.next(0.0):
                    answer = await collector.take(topic(SITE, What.OUT), raw)
                    assert answer is not None
                    await outbox.take_ack(answer[1], 0.0)
            told = outbox.attention()
            assert f"asks for events {backup + 1} to 13" in told[0]
            assert "pruned here and cannot be sent again" in told[0]
            assert not outbox.stopped
            await journal.record([fact()])
            await exchange(outbox, collector, 1000.0)
            have = await copy_of(collector, journal.ident)
            assert have == (await events_of(journal) if not backup else [*have[:backup], *await events_of(journal)])
            text, count = (await alarms_of(collector))["lost"]
            assert f"events {backup + 1} to 13 were lost here, and the site has pruned them" in text
            assert count == 1
            assert set(await alarms_of(collector)) == {"lost"}
            assert outbox.attention() == [], "the collector goes on, and keeps its alarm"
            assert outbox.view()["backlog"] == 0
            events = [json.loads(raw) for _, _, raw in await events_of(journal)]
            (kept,) = [event["body"] for event in events if event["kind"] == "collector_behind"]
            assert kept["seq"] == backup
            with contextlib.closing(sqlite3.connect(collector.store.path, isolation_level=None)) as connection:
                (site,) = collector_views.document(connection, [SITE])["sites"]
            assert site["lost"] == [[backup + 1, 13]]
            assert f"events {backup + 1} to 13 are lost here" in site["attention"][0]
        assert (await journal.verify()).problems == ()


async def test_an_old_question_that_is_asked_again_and_again_does_not_fill_the_journal(tmp_path: Path) -> None:
    """A broker has kept what the collector once signed, and gives it to the site after each acknowledgement."""
    async with reporting(tmp_path) as (journal, outbox), collecting(tmp_path) as collector:
        await pruned(tmp_path, collector, 4, journal, outbox)
        old = acknowledgement(journal.ident, 2, (await copy_of(collector, journal.ident))[1][1], resend=True)
        for number in range(20):
            await outbox.take_ack(old, number * 10_000.0)
            assert "asks for events 3 to 13" in outbox.attention()[0]
            await exchange(outbox, collector, number * 10_000.0)
            assert outbox.attention() == []
        kinds = [json.loads(raw)["kind"] for _, _, raw in await events_of(journal)]
        assert kinds.count("collector_behind") == 1
        assert len(await copy_of(collector, journal.ident)) == journal.last_seq
        assert await alarms_of(collector) == {}


async def test_what_ended_in_events_that_are_lost_is_not_open_for_ever(tmp_path: Path) -> None:
    """The site has pruned them, so the job is over: of an open one it keeps all."""
    taken, begins, ends, taken_off = job(1)
    async with reporting(tmp_path) as (journal, outbox):
        async with collecting(tmp_path) as collector:
            await journal.record([taken, begins, parked(envelope(order("waits")), "usb")])
            await pruned(tmp_path, collector, 1, journal, outbox, [ends, taken_off, cancelled("waits")])
        for file in (tmp_path / "backup").iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        async with collecting(tmp_path) as collector:
            with collector_views.opened(tmp_path) as connection:
                (site,) = collector_views.document(connection, [SITE])["sites"]
            assert (site["running"], site["unjudged"]) == (1, 1)
            for _, raw in await collector.positions():
                await outbox.take_ack(raw, 0.0)
            await exchange(outbox, collector, 1000.0)
            with collector_views.opened(tmp_path) as connection:
                (site,) = collector_views.document(connection, [SITE])["sites"]
            assert len(site["lost"]) == 1
            assert (site["running"], site["unjudged"]) == (0, 0)
