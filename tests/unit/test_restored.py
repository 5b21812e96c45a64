"""A journal that was put back to an older state: under a new id nothing of either history is lost."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.collector import views
from edge.collector.collector import Collector
from edge.collector.schema import FILE_NAME as COLLECTOR_FILE
from edge.errors import IllegalTransitionError
from edge.journal.journal import Journal, parked
from edge.journal.restored import begin_anew
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from edge.uplink.outbox import Outbox
from tests import second_verifier
from tests.helpers.pruning import acknowledge, pruner
from tests.helpers.reporting import (
    SITE,
    alarms_of,
    chain_of,
    collecting,
    copy_database,
    copy_of,
    events_of,
    exchange,
    fact,
    reporting,
)
from tests.journal_kit import accepted, began, ended, envelope, order, ticking

MISSING = "the newest event that must be here is missing"


@contextlib.asynccontextmanager
async def put_back(tmp_path: Path, collector: Collector) -> AsyncIterator[tuple[Journal, Outbox, str]]:
    """The site with its journal as it was after event 3, of which 2 were acknowledged; the centre has 7 by now."""
    path = tmp_path / FILE_NAME
    async with reporting(tmp_path) as (journal, outbox):
        await journal.record([accepted(), began()])
        await exchange(outbox, collector)
        await journal.record([fact("before the backup")])
        copy_database(path, tmp_path / "backup")
        await journal.record([ended("run-1", "SUCCEEDED"), accepted(order("second"))])
        await journal.record([began("run-2", "prn-2", job_id="second"), fact("the last")])
        await exchange(outbox, collector)
        before = journal.ident
        assert len(await copy_of(collector, before)) == 7
    for file in path.parent.glob(f"{FILE_NAME}*"):
        file.unlink()
    for file in (tmp_path / "backup").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    async with reporting(tmp_path) as (journal, outbox):
        yield journal, outbox, before


async def test_both_histories_are_kept_and_the_alarm_names_what_the_site_does_not_know(tmp_path: Path) -> None:
    async with collecting(tmp_path) as collector, put_back(tmp_path, collector) as (journal, outbox, before):
        old = await copy_of(collector, before)
        await journal.record([fact("another fourth event"), fact("and a fifth")])
        for _ in range(3):
            await exchange(outbox, collector)
            outbox.connected()
        assert journal.ident != before
        assert await chain_of(collector, journal.ident) == await events_of(journal)
        assert await copy_of(collector, before) == old, "what happened stays"
        assert [seq for seq, _, _ in await copy_of(collector, journal.ident)] == [4, 5, 6], "kept once"
        alarms = await alarms_of(collector)
        assert set(alarms) == {"restored", "fork"}, "it spoke under the old id before it was told"
        text, count = alarms["restored"]
        assert count == 1
        assert f"journal {before} was put back to an older state, and goes on as this one after event 3" in text
        assert "events 4 to 7 of it happened, and the site does not know of them; runs that began in them: 1" in text
        assert outbox.view()["backlog"] == 0
        (_, raw) = (await collector.positions())[0]
        await outbox.take_ack(raw, 1e6)
        assert (await journal.verify()).problems == ()
        assert second_verifier.verify(tmp_path / FILE_NAME) == (6, "")
        with contextlib.closing(sqlite3.connect(collector.store.path, isolation_level=None)) as connection:
            (site,) = views.document(connection, [SITE])["sites"]
        assert (site["seq"], site["running"], site["journals"]) == (6, 0, 2), "run-1 ended, run-2 is unknown there"


async def test_what_was_told_before_it_was_found_out_is_reported_in_any_order(tmp_path: Path) -> None:
    async with collecting(tmp_path) as collector, put_back(tmp_path, collector) as (journal, outbox, before):
        await journal.transact(lambda transaction: begin_anew(transaction, MISSING, "site"))
        assert journal.ident != before
        with pytest.raises(IllegalTransitionError, match="the newest event that must be here is missing"):
            await journal.record([accepted(order("third")), began("run-3", "prn-3", job_id="third")])
        await journal.record([fact("x" * 300_000), fact()])
        await exchange(outbox, collector)
        assert await chain_of(collector, journal.ident) == await events_of(journal)
        assert set(await alarms_of(collector)) == {"restored"}
        assert (await journal.verify()).problems == ()


async def test_a_journal_that_was_put_back_twice_hangs_together(tmp_path: Path) -> None:
    async with collecting(tmp_path) as collector, put_back(tmp_path, collector) as (journal, outbox, before):
        await journal.transact(lambda transaction: begin_anew(transaction, "for the first time", "site"))
        await journal.record([fact("unreported")])
        second = journal.ident
        await journal.transact(lambda transaction: begin_anew(transaction, "for the second time", "site"))
        await journal.record([fact()])
        await exchange(outbox, collector)
        assert len({before, second, journal.ident}) == 3
        assert await chain_of(collector, journal.ident) == await events_of(journal)
        assert set(await alarms_of(collector)) == {"restored"}
        assert (await journal.verify()).problems == ()
        assert second_verifier.verify(tmp_path / FILE_NAME) == (7, "")


async def test_a_collector_that_never_saw_the_old_id_takes_all_under_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    async with collecting(tmp_path) as collector, put_back(tmp_path, collector) as (journal, outbox, _):
        await journal.transact(lambda transaction: begin_anew(transaction, MISSING, "site"))
        async with collecting(tmp_path / "new") as another:
            await exchange(outbox, another)
            assert await copy_of(another, journal.ident) == await events_of(journal)
            assert await alarms_of(another) == {}


async def test_a_copy_of_before_the_new_id_is_told_although_nothing_of_the_old_id_is_missing(tmp_path: Path) -> None:
    """The same card image is put back twice. The first time was found out at the site, before the centre had heard."""
    async with collecting(tmp_path) as collector:
        async with reporting(tmp_path) as (journal, outbox):
            await journal.record([fact(), fact()])
            await exchange(outbox, collector)
            copy_database(tmp_path / FILE_NAME, tmp_path / "image")
            before = journal.ident
        async with reporting(tmp_path) as (journal, outbox):
            await journal.transact(lambda transaction: begin_anew(transaction, MISSING, "site"))
            await journal.record([fact("under the new id")])
            await exchange(outbox, collector)
            second = journal.ident
            assert set(await alarms_of(collector)) == {"restored"}
        for file in tmp_path.glob(f"{FILE_NAME}*"):
            file.unlink()
        for file in (tmp_path / "image").iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        async with reporting(tmp_path) as (journal, outbox):
            assert journal.ident == before
            await journal.record([fact("of this start")])
            await exchange(outbox, collector)
            assert "the collector has event 4 of this journal" in await journal.transact(Transaction.held)
            assert journal.ident not in (before, second)
            assert await chain_of(collector, journal.ident) == await events_of(journal)
            alarms = await alarms_of(collector)
            assert f"journal {before} goes on, and journal {second} came after it" in alarms["fork"][0]
            query = f"SELECT text FROM alarms WHERE (kind, journal) = ('restored', '{journal.ident}')"
            ((text,),) = await collector.store.write(lambda connection: connection.execute(query).fetchall())
            assert f"journal {second} was put back" in text
            assert "events 3 to 4 of it happened, and the site does not know of them" in text


async def test_orders_that_wait_for_the_time_still_wait_under_the_new_id(tmp_path: Path) -> None:
    """One was judged in what the site does not know any more: there it waits again."""
    waiting = [parked(envelope(order(job_id)), "usb") for job_id in ("A", "B", "C")]
    async with collecting(tmp_path) as collector:
        async with reporting(tmp_path) as (journal, outbox):
            await journal.record([*waiting[:2], fact()])
            copy_database(tmp_path / FILE_NAME, tmp_path / "backup")
            await journal.record([accepted(order("A")), waiting[2]])
            await exchange(outbox, collector)
        for file in tmp_path.glob(f"{FILE_NAME}*"):
            file.unlink()
        for file in (tmp_path / "backup").iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        async with reporting(tmp_path) as (journal, outbox):
            await journal.transact(lambda transaction: begin_anew(transaction, MISSING, "site"))
            await exchange(outbox, collector)
            assert await unjudged(collector) == 2
            await journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, "B")])
            await exchange(outbox, collector, 1e6)
            assert await unjudged(collector) == 1


async def unjudged(collector: Collector) -> int:
    with views.opened(collector.store.path.parent) as connection:
        (site,) = views.document(connection, [SITE])["sites"]
    return int(site["unjudged"])


@pytest.mark.parametrize("pruned", [False, True])
async def test_a_collector_that_was_put_back_to_before_the_new_id_gets_the_rest_at_once(
    tmp_path: Path, pruned: bool
) -> None:
    """Nothing happens at the site, and its connection stays: it hears what the collector has, by the old id."""
    database = tmp_path / COLLECTOR_FILE
    async with reporting(tmp_path) as (journal, outbox):
        async with collecting(tmp_path) as collector:
            await journal.record([fact() for _ in range(6)])
            await exchange(outbox, collector)
            copy_database(database, tmp_path / "backup")
            await journal.record([fact(), fact()])
            await exchange(outbox, collector)
            await journal.transact(lambda transaction: begin_anew(transaction, MISSING, "site"))
            await exchange(outbox, collector)
            if pruned:
                await acknowledge(journal, 5)
                assert await pruner(tmp_path, journal).prune(0) == 4
                outbox.connected()
                await exchange(outbox, collector)
            assert outbox.view()["backlog"] == 0
            whole = await chain_of(collector, journal.ident)
        for file in tmp_path.glob(f"{COLLECTOR_FILE}*"):
            file.unlink()
        for file in (tmp_path / "backup").iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        async with collecting(tmp_path) as collector:
            for _, raw in await collector.positions():
                await outbox.take_ack(raw, 1e6)
            assert outbox.view()["backlog"] == 3
            await exchange(outbox, collector, 1e6)
            assert await chain_of(collector, journal.ident) == whole
            assert set(await alarms_of(collector)) == {"restored"}
            kinds = {json.loads(raw)["kind"] for _, _, raw in await events_of(journal)}
            assert "collector_behind" not in kinds


async def test_a_journal_without_events_has_nobody_to_follow(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
        before = journal.ident
        event = await journal.transact(lambda transaction: begin_anew(transaction, "it should not be empty", "site"))
        assert (journal.ident, event.seq, event.body) == (before, 1, {"reason": "it should not be empty"})


@pytest.mark.parametrize("claim", [None, {"journal": "0" * 32}, {"seq": 1}, {"hash": "ab" * 32}])
async def test_an_id_that_does_not_say_what_it_follows_is_found(
    tmp_path: Path, claim: dict[str, object] | None
) -> None:
    async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
        (_, last) = await journal.record([fact(), fact()])
        body: dict[str, object] = {"reason": "because"}
        if claim is not None:
            body["follows"] = {"journal": journal.ident, "seq": 2, "hash": last.hash} | claim

        await journal.transact(lambda t: t.connection.execute("UPDATE meta SET value = 'f' WHERE key = 'journal'"))
        await journal.record([Draft(EventKind.JOURNAL_HELD, "mallory", body)])
        assert "event 3 is of another journal" in (await journal.verify()).problems[0]
        assert second_verifier.verify(tmp_path / FILE_NAME) == (2, "event 3: journal")
