"""Old events go once the centre has them, and nothing that anybody needs goes with them."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.errors import JournalError
from edge.journal import prune, schema
from edge.journal.journal import Journal
from edge.journal.prune import Bench, Pruner, carrying_out
from edge.journal.restored import begin_anew
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from edge.model.event import ClockTrust, Draft, EventKind, Stamp, stamp_text
from edge.reading import beginning
from edge.reading.views import open_readonly
from tests import second_verifier
from tests.helpers.clock import SetClock
from tests.helpers.pruning import BEGAN, KEEP_DAYS, LATER, acknowledge, hourly, job, pruner, work
from tests.journal_kit import SITE, accepted, began, cleared, ended, online, order

MISSING = "the newest event that must be here is missing"


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / FILE_NAME, SITE, hourly()) as journal:
        yield journal


async def rows(journal: Journal, query: str) -> list[Any]:
    return await journal.transact(lambda transaction: transaction.connection.execute(query).fetchall())


async def begins(journal: Journal) -> int:
    ((seq,),) = await rows(journal, "SELECT min(seq) FROM events")
    return int(seq)


async def jobs(journal: Journal) -> list[str]:
    return [job_id for (job_id,) in await rows(journal, "SELECT job_id FROM orders ORDER BY accepted_seq")]


async def is_sound(journal: Journal, folder: Path) -> None:
    """By its own check, and by one that shares no code with it."""
    report = await journal.verify()
    assert report.problems == ()
    assert second_verifier.verify(folder / FILE_NAME) == (report.events, "")
    assert report.pruned.seq + report.events == journal.last_seq
    assert await begins(journal) == report.pruned.seq + 1


async def test_what_is_old_and_acknowledged_goes_and_the_rest_holds_together(tmp_path: Path, journal: Journal) -> None:
    await work(journal, 400)
    acked = await acknowledge(journal)
    newest = await rows(journal, "SELECT seq, hash, raw FROM events ORDER BY seq DESC LIMIT 1")
    kept = {table: await rows(journal, f"SELECT * FROM {table}") for table in ("standing", "windows", "verdicts")}
    assert await pruner(tmp_path, journal).prune(0) == acked - 1
    await is_sound(journal, tmp_path)
    assert await rows(journal, "SELECT seq, hash, raw FROM events") == newest, "a connection begins with it"
    assert {table: await rows(journal, f"SELECT * FROM {table}") for table in kept} == kept
    await work(journal, 3, first=1000)
    await is_sound(journal, tmp_path)
    assert await pruner(tmp_path, journal).prune(0) == 0, "nobody has acknowledged more"


# What stays


async def test_nothing_goes_that_the_collector_does_not_have(tmp_path: Path, journal: Journal) -> None:
    await work(journal, 20)
    assert await pruner(tmp_path, journal).prune(0) == 0, "no uplink"
    await acknowledge(journal, 30)
    assert await pruner(tmp_path, journal).prune(0) == 29
    await is_sound(journal, tmp_path)


async def test_nothing_goes_by_a_clock_that_nobody_vouches_for(tmp_path: Path, journal: Journal) -> None:
    await work(journal, 20)
    await acknowledge(journal)
    for clock in (SetClock(LATER), SetClock(datetime(2099, 1, 1, tzinfo=UTC))):
        assert await Pruner(journal, tmp_path, clock, KEEP_DAYS).prune(0) == 0


async def test_what_is_young_stays(tmp_path: Path, journal: Journal) -> None:
    for _ in range(48):
        await journal.record([online()])
    await acknowledge(journal)
    a_day_after = BEGAN + timedelta(days=KEEP_DAYS, hours=24, minutes=30)
    assert await pruner(tmp_path, journal, a_day_after - timedelta(days=2)).prune(0) == 0
    assert await pruner(tmp_path, journal, a_day_after).prune(0) == 25
    assert await begins(journal) == 26


async def test_events_of_another_clock_go_with_those_around_them(tmp_path: Path) -> None:
    """Trusted, then a boot in 1970, then trusted; and one by a clock that was set to 2099 and believed."""
    days = iter((0, 1, 2, None, None, 3, 26_000, 4, 200, None, None))

    def stamp() -> Stamp:
        day = next(days)
        at = datetime(1970, 1, 1, tzinfo=UTC) if day is None else BEGAN + timedelta(days=day)
        return Stamp(stamp_text(at), 1.0, "boot-1", ClockTrust.UNKNOWN if day is None else ClockTrust.TRUSTED)

    async with Journal.open(tmp_path / FILE_NAME, SITE, stamp) as journal:
        for _ in range(9):
            await journal.record([online()])
        await acknowledge(journal)
    async with Journal.open(tmp_path / FILE_NAME, SITE, hourly(ClockTrust.UNKNOWN)) as journal:
        assert await pruner(tmp_path, journal).prune(0) == 8
        await is_sound(journal, tmp_path)


async def test_an_open_job_keeps_all_since_it_was_accepted(tmp_path: Path, journal: Journal) -> None:
    await work(journal, 5)
    (event,) = await journal.record([accepted(order("open"))])
    await work(journal, 5, first=100)
    await acknowledge(journal)
    await pruner(tmp_path, journal).prune(0)
    assert await begins(journal) == event.seq
    assert "open" in await jobs(journal)
    await is_sound(journal, tmp_path)


async def test_a_machine_that_needs_clearing_keeps_the_job_that_it_needs_it_by(
    tmp_path: Path, journal: Journal
) -> None:
    await work(journal, 5)
    (event, _, _) = await journal.record(
        [accepted(), began("run-x", "prn-9"), ended("run-x", "SUCCEEDED", machine="prn-9")]
    )
    await work(journal, 5, first=100)
    await acknowledge(journal)
    await pruner(tmp_path, journal).prune(0)
    assert await begins(journal) == event.seq
    with open_readonly(tmp_path) as found:
        assert [item["kind"] for item in found.attention()] == ["needs_clearing"]
    await journal.record([cleared("run-x", "prn-9")])
    await pruner(tmp_path, journal).prune(0)
    assert await begins(journal) > event.seq
    await is_sound(journal, tmp_path)


async def test_a_job_is_forgotten_when_nothing_is_left_of_it_and_its_order_has_expired(
    tmp_path: Path, journal: Journal
) -> None:
    taken, begins_, ends, taken_off = job(1)
    await journal.record([taken, begins_])
    await journal.checkpoint("run-1", {"line": 7})
    await journal.record([ends, taken_off])
    await journal.record([accepted(order("lasting", expires_at="2030-01-01T00:00:00Z"))])
    where = {"job_id": "lasting"}
    await journal.record([began("run-l", **where), ended("run-l", "SUCCEEDED", **where), cleared("run-l")])
    for _ in range(24 * 8):  # until the floor has passed when the first one expires
        await journal.record([online()])
    await acknowledge(journal)
    await pruner(tmp_path, journal).prune(0)
    assert await jobs(journal) == ["lasting"]
    assert await rows(journal, "SELECT * FROM checkpoints") == []
    with open_readonly(tmp_path) as found:
        shown = found.job("lasting")
        assert (shown["signers"], shown["events"]) == (["orders@acme/1"], [])
        assert found.job("job-1") is None
    await is_sound(journal, tmp_path)

    with open_readonly(tmp_path) as found:
        words = beginning.in_words(beginning.pruned(found.connection))
        assert words == f"events before {journal.last_seq} were pruned, last on 2027-06-01; the collector has them"
        for wanted in ("job-1", "JOB-", "b-1"):
            gone = beginning.forgotten(found.connection, wanted)
            assert gone.startswith("job job-1 was accepted as event 1 on 2026-11-21 and has ended; events before")
        for wanted in ("lasting", "job-2", "%", "_"):
            assert beginning.forgotten(found.connection, wanted) == ""
    assert beginning.in_words(None) == ""

    digest = taken.body["digest"]
    known = await journal.transact(lambda transaction: transaction.verdict_of(digest))
    assert known is not None
    assert known.accepted
    assert await journal.transact(lambda transaction: transaction.digest_of("job-1")) == digest, "an id is bound"
    series = order("job-1")["series"]
    assert (await journal.transact(lambda transaction: transaction.window("orders@acme", series))).high == 42


async def test_a_job_across_the_base_stays_until_its_last_event_goes(tmp_path: Path, journal: Journal) -> None:
    await work(journal, 300)
    revision = (await rows(journal, "SELECT revision FROM orders WHERE job_id = 'job-200'"))[0][0]
    await acknowledge(journal, revision)  # so that the event before is the newest that goes
    await pruner(tmp_path, journal).prune(0)
    assert (await jobs(journal))[0] == "job-200"
    await is_sound(journal, tmp_path)
    await acknowledge(journal, revision + 1)
    await pruner(tmp_path, journal).prune(0)
    assert (await jobs(journal))[0] == "job-201"
    await is_sound(journal, tmp_path)


# What happens meanwhile


async def old_job(journal: Journal) -> int:
    await journal.record(list(job(1)))
    for _ in range(24 * 8):
        await journal.record([online()])
    return await acknowledge(journal)


async def test_a_job_about_which_something_is_recorded_meanwhile_is_not_forgotten(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await old_job(journal)
    fold, late = Bench.fold, Draft(EventKind.ARTIFACT_STORED, "x", {"sha256": "ab" * 32, "size_bytes": 7}, "job-1")

    def slowly(bench: Bench, upto: int) -> prune.Step | None:
        step = fold(bench, upto)
        if step is not None and step.forgotten:
            asyncio.run_coroutine_threadsafe(journal.record([late]), loop).result()
        return step

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Bench, "fold", slowly)
    assert await pruner(tmp_path, journal).prune(0) == 0
    assert await begins(journal) == 1, "all of a step or nothing"
    assert await jobs(journal) == ["job-1"]
    monkeypatch.undo()
    await is_sound(journal, tmp_path)
    await pruner(tmp_path, journal).prune(0)
    assert await jobs(journal) == ["job-1"], "its newest event is still here"
    await is_sound(journal, tmp_path)


async def test_a_collector_that_asks_again_meanwhile_stops_it(
    tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    await old_job(journal)
    fold = Bench.fold

    def slowly(bench: Bench, upto: int) -> prune.Step | None:
        asyncio.run_coroutine_threadsafe(acknowledge(journal, 2), loop).result()
        return fold(bench, upto)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Bench, "fold", slowly)
    assert await pruner(tmp_path, journal).prune(0) == 0
    assert await begins(journal) == 1


async def test_a_step_costs_no_more_where_much_was_folded_before(tmp_path: Path, journal: Journal) -> None:
    """Else the first round over years of work takes days. Counted are the instructions of SQLite's machine."""
    for number in range(0, 1000, 2):  # in few transactions
        await journal.record([draft for job_number in (number, number + 1) for draft in job(job_number)])
    upto = await acknowledge(journal) - 1
    count = 0

    def one_more() -> None:
        nonlocal count
        count += 1

    bench, costs = Bench(tmp_path / FILE_NAME), list[int]()
    bench._connection.set_progress_handler(one_more, 100)
    try:
        while (step := bench.fold(upto)) is not None:
            costs.append(count)
            await journal.transact(carrying_out(step, stamp_text(LATER)))
            count = 0
    finally:
        bench.close()
    assert len(costs) > 20
    early, late = sum(costs[10:15]), sum(costs[-7:-2])
    assert late < 1.15 * early, costs


async def test_a_step_is_small_also_where_events_are_large(tmp_path: Path, journal: Journal) -> None:
    for _ in range(6):
        await journal.record([Draft(EventKind.MACHINE_ONLINE, "runner", {"text": "x" * 400_000}, machine="prn-1")])
    await acknowledge(journal)
    before = journal.last_seq
    bench = Bench(tmp_path / FILE_NAME)
    step = bench.fold(before - 1)
    bench.close()
    assert step is not None
    assert step.after.head.seq == 2
    assert await pruner(tmp_path, journal).prune(0) == before - 1


# The base is believed as little as the rest


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE base SET hash = 'ab'", "does not follow event"),
        ("UPDATE base SET seq = seq - 1", "is missing"),
        ("UPDATE base SET journal = 'ab'", "is of another journal"),
        ("DELETE FROM base_verdicts WHERE job_id = 'job-1'", "verdicts "),
        ("UPDATE windows SET used = x'00'", "windows .* is not what the events say"),
        ("UPDATE meta SET value = 'paris-1' WHERE key = 'site'", "are those of site"),
    ],
)
async def test_verifying_finds_what_was_changed(tmp_path: Path, journal: Journal, damage: str, words: str) -> None:
    await work(journal, 60)
    await acknowledge(journal, 100)
    assert await pruner(tmp_path, journal).prune(0) == 99
    await is_sound(journal, tmp_path)
    await rows(journal, damage)
    (problem, *_) = (await journal.verify()).problems
    assert re.search(words, problem), problem


# Another format


async def test_a_pruned_journal_of_an_older_format_is_folded_anew_from_its_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, format_now = tmp_path / FILE_NAME, schema.FORMAT
    async with Journal.open(path, SITE, hourly()) as journal:
        await work(journal, 60)
        await journal.record([accepted(), began("run-x", "prn-9")])
        await acknowledge(journal, 100)
        await pruner(tmp_path, journal).prune(0)
        before = {table: await rows(journal, f"SELECT * FROM {table}") for table in schema.DERIVED}
    monkeypatch.setattr(schema, "FORMAT", "next")
    monkeypatch.setattr(schema, "FOLDED_ANEW", frozenset({format_now}))
    with pytest.raises(JournalError, match=r"events up to 99 were pruned: .* use the version of edge"):
        async with Journal.open(path, SITE, hourly()):
            pass
    monkeypatch.setattr(schema, "BASE_CHANGES", {format_now: "UPDATE base_orders SET product = 'changed'"})
    async with Journal.open(path, SITE, hourly()) as journal:
        after = {table: await rows(journal, f"SELECT * FROM {table}") for table in schema.DERIVED}
        changed = {"orders"} if ("changed",) in await rows(journal, "SELECT product FROM orders") else set()
        assert {name for name in before if sorted(map(str, before[name])) != sorted(map(str, after[name]))} == changed
        await is_sound(journal, tmp_path)


# Room


def pages(journal: Journal) -> Any:
    def read(transaction: Transaction) -> tuple[int, int]:
        found = [
            transaction.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "auto_vacuum")
        ]
        return found[0], found[1]

    return journal.transact(read)


async def much(journal: Journal, count: int = 400) -> None:
    for _ in range(count // 40):
        draft = Draft(EventKind.MACHINE_ONLINE, "runner", {"text": "x" * 50_000}, machine="prn-1")
        await journal.record([draft] * 40)
    await acknowledge(journal)


async def test_the_file_gets_smaller(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    async with Journal.open(path, SITE, hourly()) as journal:
        await much(journal)
        before, mode = await pages(journal)
        assert mode == 2
        await pruner(tmp_path, journal).prune(0)
        after, _ = await pages(journal)
        assert after < before / 3
        assert after > prune.SPARE_PAGES / 2, "some room is kept for what comes"
        await is_sound(journal, tmp_path)
    assert path.stat().st_size == after * 4096


async def test_a_file_of_an_older_edge_stops_growing(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # writes the file's first page, as it was without auto_vacuum
    async with Journal.open(path, SITE, hourly()) as journal:
        await much(journal)
        before, mode = await pages(journal)
        assert mode == 0
        await pruner(tmp_path, journal).prune(0)
        await much(journal, 200)
        assert (await pages(journal))[0] <= before + 100
        await is_sound(journal, tmp_path)


# With new ids


async def test_a_new_id_goes_with_the_events_before_it(tmp_path: Path, journal: Journal) -> None:
    await work(journal, 10)
    event = await journal.transact(lambda transaction: begin_anew(transaction, MISSING, "site"))
    await work_confirmed(journal)
    await acknowledge(journal, event.seq)  # the newest that goes is the last one of the old id
    await pruner(tmp_path, journal).prune(0)
    assert await begins(journal) == event.seq
    await is_sound(journal, tmp_path)
    await acknowledge(journal)
    await pruner(tmp_path, journal).prune(0)
    await is_sound(journal, tmp_path)
    assert len(await rows(journal, "SELECT * FROM branches")) == 1


async def work_confirmed(journal: Journal) -> None:
    await journal.record([Draft(EventKind.JOURNAL_CONFIRMED, "user:ada", {"reason": "looked"})])
    await work(journal, 10, first=500)


# The task


async def test_what_is_in_the_way_is_told(tmp_path: Path, journal: Journal) -> None:
    await work(journal, 5)
    await acknowledge(journal)
    await rows(journal, "UPDATE events SET raw = CAST(replace(raw, 'prn-0', 'prn-9') AS BLOB) WHERE seq = 2")
    one = pruner(tmp_path, journal)
    await one.attempt()
    assert one.trouble == "old events cannot be pruned: event 3 does not follow event 2: see `edge verify`"
    assert await begins(journal) == 1
    await acknowledge(journal, 2)
    await one.attempt()
    assert one.trouble == ""
    with pytest.raises(JournalError, match="cannot be read"):
        Bench(tmp_path / "missing.sqlite").fold(1)
