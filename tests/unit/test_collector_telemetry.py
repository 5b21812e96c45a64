"""What the collector keeps of newest values: one a key, beside the facts, and what is missing of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.collector import telemetry, views
from edge.collector.collector import Collector
from edge.collector.ndjson import hand_on
from edge.collector.schema import FILE_NAME
from edge.collector.telemetry import MAX_KEYS
from edge.trust import PayloadType, sign
from edge.uplink.telemetry import Telemetry
from edge.uplink.topics import What, topic
from tests.helpers.reporting import COLLECTOR_KEY, KEYS, SITE, SITE_KEY, alarms_of, copy_of, fact, reporting
from tests.helpers.trust import private_key
from tests.unit.test_telemetry import Clock

VALUES = topic(SITE, What.TELEMETRY)
AT = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
DEADLINE_S = 30.0


class Bench:
    """A site's telemetry, and a collector whose clock stands until a test sets it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = AT
        self.clock = Clock()
        self.site = self.daemon()

    def daemon(self) -> Telemetry:
        """One start of the site's daemon."""
        return Telemetry(SITE, lambda raw: sign(PayloadType.TELEMETRY, raw, [SITE_KEY]), self.clock, 10.0)

    def collector(self) -> contextlib.AbstractAsyncContextManager[Collector]:
        return Collector.open(self.folder / FILE_NAME, KEYS, COLLECTOR_KEY, lambda: self.now)

    async def tell(self, collector: Collector, site: Telemetry | None = None, **values: Any) -> bytes:
        """The site sends these."""
        site = site or self.site
        for key, value in values.items():
            site.put(key, value, "degC")
        raw = site.take()
        assert raw is not None
        assert await collector.take(VALUES, raw) is None, "nothing is acknowledged that is no fact"
        return raw

    def shown(self) -> Any:
        with views.opened(self.folder) as connection:
            return views.document(connection, [SITE])["sites"][0]["telemetry"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_the_newest_of_each_key_is_kept_with_its_age_by_the_collectors_clock(bench: Bench) -> None:
    async with bench.collector() as collector:
        assert bench.shown() is None
        bench.site.put("T", 200.0, "degC")
        bench.site.put("T", 201.0, "degC")
        bench.clock.passed_s += 4
        await bench.tell(collector, B=60)
        bench.now += timedelta(seconds=10)
        await bench.tell(collector, B=61)
        found = bench.shown()
        assert found["values"] == {
            "T": {"value": 201.0, "unit": "degC", "seen_at": "2026-11-21T11:59:56Z", "skipped": 1},
            "B": {"value": 61, "unit": "degC", "seen_at": "2026-11-21T12:00:10Z", "skipped": 0},
        }
        assert (found["number"], found["lost"], found["skipped"], found["gap"]) == (2, 0, 1, None)
        assert await alarms_of(collector) == {}


async def test_it_is_never_among_the_facts(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    async with reporting(tmp_path / "site") as (journal, outbox), bench.collector() as collector:
        await journal.record([fact()])
        (batch,) = await outbox.next(0.0)
        await collector.take(topic(SITE, What.OUT), batch)
        before = await copy_of(collector, journal.ident)
        raw = await bench.tell(collector, T=200.0)
        assert await collector.take(topic(SITE, What.OUT), raw) is None, "signed by the site, and no batch"
        assert "batch" in (await alarms_of(collector))["refused"][0]
        assert await copy_of(collector, journal.ident) == before
        assert await collector.take(VALUES, batch) is None, "and a batch is no telemetry"
        assert (await alarms_of(collector))["refused"][1] == 2
        assert bench.shown()["number"] == 1


async def test_lost_messages_and_gaps_are_shown_and_what_is_old_says_nothing(bench: Bench) -> None:
    async with bench.collector() as collector:
        first = await bench.tell(collector, T=1)
        bench.site.put("T", 2)
        bench.site.take()  # lost on the way
        bench.now += timedelta(seconds=60)
        await bench.tell(collector, T=3)
        assert bench.shown()["lost"] == 1
        assert bench.shown()["gap"] == {
            "from": "2026-11-21T12:00:00Z",
            "to": "2026-11-21T12:01:00Z",
            "over_s": None,
            "why": ["lost"],
        }
        await collector.take(VALUES, first)  # again, and late
        assert (bench.shown()["values"]["T"]["value"], bench.shown()["number"]) == (3, 3)
        bench.site.put("T", 4)
        bench.site.held_up("facts")
        await bench.tell(collector)
        assert (bench.shown()["gap"]["why"], bench.shown()["lost"]) == (["facts"], 1)


async def test_what_is_gone_is_gone_and_a_restart_forgets_all(bench: Bench) -> None:
    async with bench.collector() as collector:
        await bench.tell(collector, **{"a/T": 1, "a/B": 2, "b/T": 3})
        bench.site.gone("a/")
        await bench.tell(collector)
        assert list(bench.shown()["values"]) == ["b/T"]
        await bench.tell(collector, bench.daemon(), **{"a/T": 7})
        found = bench.shown()
        assert (list(found["values"]), found["number"], found["lost"], found["skipped"]) == (["a/T"], 1, 0, 0)


async def test_the_table_is_bounded(bench: Bench) -> None:
    async with bench.collector() as collector:
        for number in range(1, 4):
            document = message(number) | {"values": {f"{number}-{key}": value(1) for key in range(MAX_KEYS // 2)}}
            await collector.take(VALUES, signed(document))
        found = bench.shown()
        assert len(found["values"]) == MAX_KEYS
        assert {key[0] for key in found["values"]} == {"2", "3"}, "the oldest go first"
        assert await alarms_of(collector) == {}


def value(of: Any) -> dict[str, Any]:
    return {"value": of, "unit": "", "age_s": 0, "skipped": 0}


def message(number: int = 1) -> dict[str, Any]:
    of = {"site": SITE, "run": "ab" * 8, "number": number, "at": "2026-11-21T12:00:00Z", "clock": "trusted"}
    return of | {"values": {"T": value(1)}, "skipped": 0, "dropped": 0, "gap": None}


def signed(document: object, kind: PayloadType = PayloadType.TELEMETRY, key: str = "site") -> bytes:
    return sign(kind, json.dumps(document).encode(), [private_key(key)])


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (json.dumps(message()).encode(), "payload"),
        (signed(message(), key="collector"), "no key of site berlin-1 has signed this"),
        (signed(message(), PayloadType.STATE), "telemetry"),
        (signed(message() | {"site": "paris-1"}), "is of site paris-1"),
        (signed([1]), "must be a JSON object"),
        (signed({"site": SITE}), "telemetry"),
        (signed(message() | {"number": 0}), "number"),
        (signed(message() | {"values": {"T": value([1])}}), "value"),
        (signed(message() | {"values": {"T": value(True)}}), "value"),
        (signed(message() | {"values": {"T": value("x" * 300)}}), "value"),
        (signed(message() | {"values": {"T": value(1) | {"age_s": -1}}}), "age_s"),
        (signed(message() | {"values": {str(key): value(1) for key in range(MAX_KEYS + 1)}}), "telemetry"),
        (signed(message() | {"more": "x" * 70_000}), "bytes"),
    ],
)
async def test_what_is_forged_or_formless_is_refused_and_alarmed(bench: Bench, raw: bytes, words: str) -> None:
    async with bench.collector() as collector:
        assert await collector.take(VALUES, raw) is None
        text, count = (await alarms_of(collector))["refused"]
        assert (count, words in text) == (1, True), text
        assert bench.shown() is None


async def test_a_site_of_a_later_version_may_say_more(bench: Bench) -> None:
    async with bench.collector() as collector:
        await collector.take(VALUES, signed(message() | {"more": 1, "values": {"T": value(1) | {"more": 1}}}))
        assert bench.shown()["values"]["T"]["value"] == 1


async def test_a_database_of_an_earlier_version_is_read_and_gets_the_tables(bench: Bench) -> None:
    async with bench.collector():
        pass
    with contextlib.closing(sqlite3.connect(bench.folder / FILE_NAME)) as connection:
        connection.executescript("DROP TABLE telemetry; DROP TABLE telemetry_heard;")
    assert bench.shown() is None
    async with bench.collector() as collector:
        await bench.tell(collector, T=1)
    assert bench.shown()["number"] == 1


# Handing on


class Lines:
    """What was written; `slow` keeps the writer until it is set."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []
        self._loop = asyncio.get_running_loop()
        self.came = asyncio.Event()

    def write(self, raw: bytes) -> None:
        self.found += [json.loads(line) for line in raw.splitlines()]
        self._loop.call_soon_threadsafe(self.came.set)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self.came.clear()
                await self.came.wait()


@contextlib.asynccontextmanager
async def handing_on(collector: Collector, lines: Lines, **options: Any) -> Any:
    task = asyncio.create_task(hand_on(collector, lines.write, **options), name="test: hand on")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_it_is_handed_on_when_asked_for_behind_the_facts_and_never_as_one(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    lines = Lines()
    async with reporting(tmp_path / "site") as (journal, outbox), bench.collector() as collector:
        for degc in (1, 2):
            await bench.tell(collector, T=degc)
        await journal.record([fact(), fact()])
        for raw in await outbox.next(0.0):
            await collector.take(topic(SITE, What.OUT), raw)
        async with handing_on(collector, lines, telemetry=True):
            await lines.until(lambda: len(lines.found) == 3)
    *facts, told = lines.found
    assert [sorted(line) for line in facts] == [["event", "hash", "journal", "number", "seq", "site"]] * 2
    assert sorted(told) == ["came_at", "site", "telemetry"]
    assert (told["telemetry"]["number"], told["telemetry"]["values"]["T"]["value"]) == (2, 2), (
        "the newest for a slow reader"
    )


async def test_it_is_not_handed_on_unless_it_is_asked_for(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    lines = Lines()
    async with reporting(tmp_path / "site") as (journal, outbox), bench.collector() as collector:
        await bench.tell(collector, T=1)
        async with handing_on(collector, lines):
            await journal.record([fact()])
            for raw in await outbox.next(0.0):
                await collector.take(topic(SITE, What.OUT), raw)
            await lines.until(lambda: lines.found)
        assert ["event" in line for line in lines.found] == [True]


def test_the_bounds_of_both_ends_fit() -> None:
    from edge.uplink import telemetry as ours

    assert ours.MAX_KEYS == telemetry.MAX_KEYS
    assert 2 * ours.MAX_BYTES < telemetry.MAX_BYTES
    assert max(ours.KEY_CHARACTERS, ours.TEXT_CHARACTERS) <= 256
