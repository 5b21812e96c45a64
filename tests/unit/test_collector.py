"""The collector: each event once, in order; what is hostile or does not fit is refused and alarmed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.collector import ledger, ndjson, views
from edge.collector.answers import Answers
from edge.collector.collector import Collector
from edge.collector.ledger import Answer
from edge.collector.ndjson import hand_on
from edge.collector.schema import FILE_NAME as COLLECTOR_FILE
from edge.errors import JournalError, NotNowError
from edge.journal.chain import EMPTY, Head
from edge.journal.journal import parked
from edge.model.event import Draft, EventKind
from edge.trust import PayloadType, sign
from edge.trust.envelope import parse
from edge.uplink import batch
from edge.uplink.mqtt import RECEIVE_MAXIMUM
from edge.uplink.port import Message, Trouble, UplinkError
from edge.uplink.topics import What, topic
from tests import second_verifier
from tests.helpers.reporting import (
    AT,
    COLLECTOR_KEY,
    KEYS,
    ROOT,
    SITE,
    SITE_KEY,
    alarms_of,
    collecting,
    copy_of,
    events_of,
    exchange,
    fact,
    reporting,
)
from tests.helpers.trust import private_key
from tests.journal_kit import accepted, began, ended, envelope, order, resolved, ticking

OUT = topic(SITE, What.OUT)
DEADLINE_S = 30.0


async def envelopes(folder: Path, *sizes: int) -> tuple[str, list[bytes], list[tuple[int, str, bytes]]]:
    """A journal with an event of each size, as batches of one event; its id and its events."""
    folder.mkdir(exist_ok=True)
    async with reporting(folder, max_bytes=2048) as (journal, outbox):
        raws = []
        for size in sizes:
            await journal.record([fact("x" * size)])
            outbox._window.next_seq = journal.last_seq
            raws += await outbox.next(0.0)
            outbox._window._flights.clear()
        return journal.ident, raws, await events_of(journal)


async def answer(collector: Collector, raw: bytes, where: str = OUT) -> batch.Ack | None:
    found = await collector.take(where, raw)
    if found is None:
        return None
    assert found[0] == topic(SITE, What.ACK)
    return batch.open_ack(found[1], ROOT)


def head(ack: batch.Ack | None) -> tuple[int, bool]:
    assert ack is not None
    return ack.seq, ack.resend


async def test_events_are_applied_once_and_acknowledged_each_time(tmp_path: Path) -> None:
    ident, (first, second), events = await envelopes(tmp_path / "site", 1, 2)
    async with collecting(tmp_path) as collector:
        assert head(await answer(collector, first)) == (1, False)
        for _ in range(2):
            ack = await answer(collector, second)
            assert head(ack) == (2, False)
            assert ack is not None
            assert (ack.journal, ack.hash, ack.at) == (ident, events[1][1], AT)
        assert head(await answer(collector, first)) == (2, False)
        assert await copy_of(collector, ident) == events
        assert await alarms_of(collector) == {}


async def test_what_comes_before_its_turn_is_parked_and_the_rest_is_asked_for(tmp_path: Path) -> None:
    ident, raws, events = await envelopes(tmp_path / "site", 1, 2, 3, 4000)
    assert len(raws) > 5, "the last event came in pieces"
    async with collecting(tmp_path) as collector:
        for raw in reversed(raws[1:]):
            assert head(await answer(collector, raw)) == (0, True)
        assert head(await answer(collector, raws[0])) == (4, False)
        assert await copy_of(collector, ident) == events
        (left,) = await collector.store.write(lambda c: c.execute("SELECT count(*) FROM parked").fetchone())
        assert left == 0


async def test_pieces_are_joined_and_a_missing_one_is_waited_for(tmp_path: Path) -> None:
    ident, raws, events = await envelopes(tmp_path / "site", 4000)
    async with collecting(tmp_path) as collector:
        for raw in raws[1:]:
            assert await answer(collector, raw) is None
        assert head(await answer(collector, raws[0])) == (1, False)
        assert head(await answer(collector, raws[1])) == (1, False), "a repeat"
        assert await copy_of(collector, ident) == events


async def test_pieces_whose_whole_is_no_event_are_forgotten_and_alarmed(tmp_path: Path) -> None:
    _, raws, _ = await envelopes(tmp_path / "site", 4000)
    payload = json.loads(parse(raws[-1]).payload)
    bad = sign(PayloadType.BATCH, json.dumps(payload | {"events": ["?"]}).encode(), [SITE_KEY])
    async with collecting(tmp_path) as collector:
        for raw in raws[:-1]:
            assert await answer(collector, raw) is None
        assert await answer(collector, bad) is None
        assert "event 1 of the batch" in (await alarms_of(collector))["broken"][0]
        for raw in raws:
            await answer(collector, raw)
        (count,) = await collector.store.write(lambda c: c.execute("SELECT count(*) FROM events").fetchone())
        assert count == 1


async def test_parking_is_bounded_and_what_is_nearest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PARKED_MAX_BYTES", 6000)
    ident, raws, events = await envelopes(tmp_path / "site", *[1000] * 9)
    async with collecting(tmp_path) as collector:
        for raw in reversed(raws[1:]):
            await answer(collector, raw)
        (held,) = await collector.store.write(lambda c: c.execute("SELECT sum(length(payload)) FROM parked").fetchone())
        assert held <= 6000
        seq, missing = head(await answer(collector, raws[0]))
        assert seq > 1
        assert not missing
        for raw in raws:
            await answer(collector, raw)
        assert await copy_of(collector, ident) == events


async def test_parking_is_bounded_also_where_batches_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "PARKED_MAX", 3)
    ident, raws, events = await envelopes(tmp_path / "site", *[1] * 9)
    async with collecting(tmp_path) as collector:
        for raw in reversed(raws[1:]):
            await answer(collector, raw)
        (held,) = await collector.store.write(lambda c: c.execute("SELECT count(*) FROM parked").fetchone())
        assert held == 3
        assert head(await answer(collector, raws[0])) == (4, False), "those that were nearest to their turn"
        for raw in raws:
            await answer(collector, raw)
        assert await copy_of(collector, ident) == events


def begun(journal: str, seq: int = 1) -> bytes:
    """The first batch of a journal that a site has made up; with another number it is signed nonsense."""
    raw, digest = batch.chain.encode(SITE, journal, seq, EMPTY.hash, ticking()(), fact())
    payload = batch.pack(batch.Frame(SITE, journal, EMPTY), [batch.Row(1, digest, raw)]).payloads[0]
    return sign(PayloadType.BATCH, payload, [SITE_KEY])


async def test_a_site_that_makes_up_journals_is_told_of_and_what_is_good_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "JOURNALS_MAX", 5)
    ident, (first, second), events = await envelopes(tmp_path / "site", 1, 2)
    async with collecting(tmp_path) as collector:
        await answer(collector, first)
        for number in range(20):
            ack = await answer(collector, begun(f"{number:032x}"))
            assert (ack is not None) == (number < 4), "what is not taken is not acknowledged"
        (journals,) = await collector.store.write(lambda c: c.execute("SELECT count(*) FROM journals").fetchone())
        assert journals == 5
        assert "has begun 5 journals" in (await alarms_of(collector))["refused"][0]
        await answer(collector, second)
        assert await copy_of(collector, ident) == events


async def test_made_up_names_of_journals_do_not_fill_the_disk_with_alarms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "ALARMS_MAX", 7)
    async with collecting(tmp_path) as collector:
        for number in range(20):
            assert head(await answer(collector, begun(f"{number:032x}", seq=2))) == (0, False)
        rows = await collector.store.write(lambda c: c.execute("SELECT journal, kind, count FROM alarms").fetchall())
        assert len(rows) == 8
        assert ("", "broken", 13) in rows, "what is beyond is counted"


def forged(raw: bytes) -> bytes:
    return sign(PayloadType.BATCH, parse(raw).payload, [private_key("mallory")])


def foreign(raw: bytes) -> bytes:
    return sign(PayloadType.BATCH, parse(raw).payload.replace(b'"berlin-1"', b'"paris-1"'), [SITE_KEY])


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


def changed(raw: bytes) -> bytes:
    document = json.loads(raw)
    document["payload"] = document["payload"].replace("A", "B", 1)
    return json.dumps(document).encode()


@pytest.mark.parametrize("hostile", [forged, foreign, cut, changed])
async def test_a_hostile_batch_is_refused_and_alarmed(tmp_path: Path, hostile: Any) -> None:
    ident, (first, second), events = await envelopes(tmp_path / "site", 1, 2)
    async with collecting(tmp_path) as collector:
        await answer(collector, first)
        for _ in range(3):
            assert await answer(collector, hostile(second)) is None
        ((kind, (text, count)),) = (await alarms_of(collector)).items()
        assert (kind, count) == ("refused", 3)
        assert text
        assert await copy_of(collector, ident) == events[:1]
        assert head(await answer(collector, second)) == (2, False)


async def test_a_batch_in_another_order_is_signed_nonsense(tmp_path: Path) -> None:
    _, (first, second), _ = await envelopes(tmp_path / "site", 1, 2)
    one, two = (json.loads(parse(raw).payload) for raw in (first, second))
    mixed = one | {"last_seq": 2, "hash": two["hash"], "events": [two["events"][0], one["events"][0]]}
    raw = sign(PayloadType.BATCH, json.dumps(mixed).encode(), [SITE_KEY])
    async with collecting(tmp_path) as collector:
        assert head(await answer(collector, raw)) == (0, False)
        assert "event 1 of the batch: its seq is 2" in (await alarms_of(collector))["broken"][0]
        assert second_verifier.verify_batch(raw) == (0, "event 1: own number")


def signed_event(first: tuple[int, str, bytes], ident: str, raw: bytes) -> bytes:
    """A batch with `raw` as the event after `first`, as a site may send it whose key was stolen."""
    made = batch.Row(2, batch.chain.digest(raw), raw)
    payload = batch.pack(batch.Frame(SITE, ident, batch.Head(*first[:2])), [made]).payloads[0]
    return sign(PayloadType.BATCH, payload, [SITE_KEY])


@pytest.mark.parametrize("key", ["job_id", "machine", "kind", "at_wall", "run_id"])
async def test_text_that_no_database_takes_is_signed_nonsense_and_stops_nobody(tmp_path: Path, key: str) -> None:
    ident, (first, second), events = await envelopes(tmp_path / "site", 1, 2)
    raw = json.dumps(json.loads(events[1][2]) | {key: "\ud800"}).encode()
    async with collecting(tmp_path) as collector:
        await answer(collector, first)
        assert head(await answer(collector, signed_event(events[0], ident, raw))) == (1, False)
        assert "half of a surrogate pair" in (await alarms_of(collector))["broken"][0]
        assert head(await answer(collector, second)) == (2, False)


async def test_no_event_becomes_two_lines_of_which_one_speaks_for_another_site(tmp_path: Path) -> None:
    ident, (first, _), events = await envelopes(tmp_path / "site", 1, 2)
    forged = json.dumps({"number": 1, "site": "munich-1", "journal": ident, "seq": 1, "hash": "ab" * 32, "event": {}})
    body = '{"x":\n' + forged + "\n}"
    raw = json.dumps(json.loads(events[1][2]) | {"body": {}}).replace('"body": {}', f'"body": {body}').encode()
    assert json.loads(raw)["body"]["x"]["site"] == "munich-1", "it is good JSON"
    written: list[bytes] = []
    async with collecting(tmp_path) as collector:
        await answer(collector, first)
        await answer(collector, signed_event(events[0], ident, raw))

        def stop_after(lines: bytes) -> None:
            written.append(lines)
            raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            await hand_on(collector, stop_after)
        assert "control character" in (await alarms_of(collector))["broken"][0]
    assert [json.loads(line)["site"] for line in b"".join(written).splitlines()] == [SITE]


async def test_another_history_is_a_fork(tmp_path: Path) -> None:
    ident, raws, events = await envelopes(tmp_path / "site", 1, 2, 3)
    async with collecting(tmp_path) as collector:
        for raw in raws:
            await answer(collector, raw)
        # The same journal, put back to event 1, and gone on otherwise.
        row, head_1 = batch.Row(*events[0]), batch.Head(events[0][0], events[0][1])
        other = json.loads(events[1][2])
        for seq, before in ((2, head_1), (3, batch.Head(2, "ab" * 32))):
            raw = json.dumps(other | {"seq": seq, "prev_hash": before.hash, "actor": "x"}).encode()
            made = batch.Row(seq, batch.chain.digest(raw), raw)
            payload = batch.pack(batch.Frame(SITE, ident, before), [made]).payloads[0]
            assert head(await answer(collector, sign(PayloadType.BATCH, payload, [SITE_KEY]))) == (3, False)
        pieces = batch.pack(
            batch.Frame(SITE, ident, head_1), [batch.Row(2, "cd" * 32, b"x" * 3000)], max_bytes=2048
        ).payloads
        await answer(collector, sign(PayloadType.BATCH, pieces[0], [SITE_KEY]))
        whole = batch.pack(batch.Frame(SITE, ident, EMPTY), [row]).payloads[0]
        assert head(await answer(collector, sign(PayloadType.BATCH, whole, [SITE_KEY]))) == (3, False)
        text, count = (await alarms_of(collector))["fork"]
        assert count == 3
        assert "event 2 is here with the hash" in text
        assert await copy_of(collector, ident) == events


async def test_a_parked_batch_that_does_not_fit_is_a_fork_and_forgotten(tmp_path: Path) -> None:
    ident, (first, second), events = await envelopes(tmp_path / "site", 1, 2)
    raw = json.dumps(json.loads(events[1][2]) | {"prev_hash": "ab" * 32}).encode()
    made = batch.Row(2, batch.chain.digest(raw), raw)
    payload = batch.pack(batch.Frame(SITE, ident, batch.Head(1, "ab" * 32)), [made]).payloads[0]
    async with collecting(tmp_path) as collector:
        assert head(await answer(collector, sign(PayloadType.BATCH, payload, [SITE_KEY]))) == (0, True)
        assert head(await answer(collector, first)) == (1, False)
        assert "fork" in await alarms_of(collector)
        assert head(await answer(collector, second)) == (2, False)
        assert await copy_of(collector, ident) == events


async def test_unknown_sites_raise_one_alarm_however_many_they_are(tmp_path: Path) -> None:
    _, (first,), _ = await envelopes(tmp_path / "site", 1)
    async with collecting(tmp_path) as collector:
        for number in range(5):
            assert await collector.take(topic(f"site-{number}", What.OUT), first) is None
        assert await collector.take("something/else", first) is None
        assert await collector.take(topic(SITE, What.IN), b"{}") is None
        for what in What:
            assert await collector.take(topic(SITE, what), b"") is None, "a question to the broker, nothing for us"
        assert (await alarms_of(collector))["unknown_site"][1] == 5
        (count,) = await collector.store.write(lambda c: c.execute("SELECT count(*) FROM alarms").fetchone())
        assert count == 1


async def test_a_new_journal_of_a_known_site_is_told_and_the_old_one_kept(tmp_path: Path) -> None:
    old, raws, events = await envelopes(tmp_path / "old", 1, 2)
    new, more, later = await envelopes(tmp_path / "new", 3)
    async with collecting(tmp_path) as collector:
        for raw in (*raws, *more):
            await answer(collector, raw)
        assert await copy_of(collector, old) == events
        assert await copy_of(collector, new) == later
        assert old in (await alarms_of(collector))["new_journal"][0]
        assert [batch.open_ack(raw, ROOT).journal for _, raw in await collector.positions()] == [new]
    with views.opened(tmp_path) as connection:
        found = views.document(connection, [SITE, "paris-1"])
    assert found["level"] == views.ATTENTION
    berlin, paris = found["sites"]
    assert (berlin["journal"], berlin["journals"], berlin["seq"]) == (new, 2, 1)
    assert paris["attention"] == ["has not reported yet"]


async def test_an_old_journal_that_goes_on_beside_a_newer_one_is_a_fork_and_kept(tmp_path: Path) -> None:
    """The card of before the site was set up again is back in use."""
    old, raws, events = await envelopes(tmp_path / "old", 1, 2)
    new, more, _ = await envelopes(tmp_path / "new", 3)
    async with collecting(tmp_path) as collector:
        for raw in (raws[0], *more):
            await answer(collector, raw)
        assert "fork" not in await alarms_of(collector)
        assert head(await answer(collector, raws[0])) == (1, False), "a repeat says nothing"
        assert "fork" not in await alarms_of(collector)
        assert head(await answer(collector, raws[1])) == (2, False)
        assert f"journal {old} goes on, and journal {new} came after it" in (await alarms_of(collector))["fork"][0]
        assert await copy_of(collector, old) == events


async def test_runs_are_counted_from_the_events(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox), collecting(tmp_path) as collector:

        async def report(*drafts: Any) -> tuple[int, int]:
            await journal.record(list(drafts))
            for raw in await outbox.next(0.0):
                found = await collector.take(OUT, raw)
                assert found is not None
                await outbox.take_ack(found[1], 0.0)
            with views.opened(tmp_path) as connection:
                (site,) = views.document(connection, [SITE])["sites"]
            return site["running"], site["unknown"]

        assert await report(accepted(), began()) == (1, 0)
        assert await report(ended("run-1", "UNKNOWN")) == (0, 1)
        assert await report(resolved("run-1", "good")) == (0, 0)


async def test_orders_that_wait_for_the_time_are_counted_until_they_are_judged_or_given_up(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox), collecting(tmp_path) as collector:

        async def report(*drafts: Any) -> tuple[int, list[str]]:
            await journal.record(list(drafts))
            for raw in await outbox.next(0.0):
                found = await collector.take(OUT, raw)
                assert found is not None
                await outbox.take_ack(found[1], 0.0)
            with views.opened(tmp_path) as connection:
                (site,) = views.document(connection, [SITE])["sites"]
            return site["unjudged"], site["attention"]

        raws = [envelope(order(job_id)) for job_id in ("A", "B")]
        count, said = await report(*(parked(raw, "usb") for raw in raws))
        assert (count, said) == (2, ["has 2 orders that wait until somebody vouches for its clock"])
        assert (await report(Draft(EventKind.JOB_DECLINED, "user:ada", {}, "A")))[0] == 1
        assert await report(accepted(order("B"))) == (0, [])
        with contextlib.closing(sqlite3.connect(tmp_path / COLLECTOR_FILE)) as connection:
            connection.execute("DROP TABLE unjudged")
            assert views.document(connection, [SITE])["sites"][0]["unjudged"] == 0, "of a collector before that"


async def test_what_a_site_says_of_itself_is_shown(tmp_path: Path) -> None:
    state = {
        "journal": "0" * 32,
        "last_seq": 7,
        "capacity": {"fdm": {"machines": 2, "online": 2, "free": 1}, "mill": "?"},
        "attention": ["needs_clearing"],
    }
    async with collecting(tmp_path) as collector:
        for raw in (sign(PayloadType.STATE, json.dumps(state).encode(), [SITE_KEY]), b"{}"):
            await collector.take(topic(SITE, What.STATE), raw)
        assert await collector.take(topic(SITE, What.LINK), b'{"online": false}') is None
        assert (await alarms_of(collector))["refused"][1] == 1, "a state that nobody has signed"
    with views.opened(tmp_path, "rw") as connection:
        found = views.document(connection, [SITE])
        assert found["level"] == views.UNSAFE
        assert views.clear(connection, "2026-11-21T12:00:00Z") == 1
        assert views.document(connection, [SITE])["level"] == views.ATTENTION
    (site,) = found["sites"]
    assert (site["online"], site["backlog"], site["capacity"]) == (False, 7, {"fdm": [1, 2]})
    assert site["attention"] == ["has not reported yet", "says itself: needs_clearing"]


async def test_a_batch_that_the_site_knows_to_be_here_is_refused_and_alarmed_when_it_is_repeated(
    tmp_path: Path,
) -> None:
    ident, raws, events = await envelopes(tmp_path / "site", 1, 4000, 2, 3)
    assert len(raws) > 4, "the second event came in pieces"

    async def repeated(raw: bytes, again: bool = False) -> int:
        found = await collector.take(OUT, raw, again=again)
        assert found is None or head(batch.open_ack(found[1], ROOT)) == (4, False), "a site may have been put back"
        return int((await alarms_of(collector)).get("repeated", ("", 0))[1])

    def state(minute: int, acked_seq: object, journal: str) -> bytes:
        at = f"2026-11-21T10:0{minute}:00.000Z"
        told = {"journal": journal, "acked_seq": acked_seq, "last_seq": 4, "at": at}
        return sign(PayloadType.STATE, json.dumps(told).encode(), [SITE_KEY])

    async with collecting(tmp_path) as collector:
        for raw in raws:
            await collector.take(OUT, raw)
        assert await repeated(raws[0]) == 0, "the site may not know yet"
        for minute, word in enumerate(((4, "0" * 32), (None, ident), ("4", ident), (3, ident))):
            assert await repeated(raws[0]) == 0, "nothing that it has said by now"
            await collector.take(topic(SITE, What.STATE), state(minute, *word))
        assert await repeated(raws[-2]) == 0, "the newest that it knows to be here it does send again"
        assert await repeated(raws[-1]) == 0
        assert await repeated(raws[0], again=True) == 0, "the broker was not told that it was taken"
        assert await repeated(raws[0]) == 1
        assert await repeated(raws[1]) == 2, "a piece"
        assert set(await alarms_of(collector)) == {"repeated"}
        assert await copy_of(collector, ident) == events


async def test_a_site_that_reported_before_anybody_listened_is_asked_for_its_journal(tmp_path: Path) -> None:
    ident, (first,), events = await envelopes(tmp_path / "site", 1)

    def state(**fields: object) -> bytes:
        return sign(PayloadType.STATE, json.dumps(fields).encode(), [SITE_KEY])

    where = topic(SITE, What.STATE)
    async with collecting(tmp_path) as collector, reporting(tmp_path / "site", max_bytes=2048) as (journal, outbox):
        for nothing in ({}, {"journal": "x"}, {"journal": 1}):
            assert await collector.take(where, state(**nothing)) is None
        assert len(await outbox.next(0.0)) == 1, "lost: the broker knew of nobody who wants it"
        assert await outbox.next(1.0) == []
        asked = await collector.take(where, state(journal=ident))
        assert asked is not None
        assert head(batch.open_ack(asked[1], ROOT)) == (0, True)
        await outbox.take_ack(asked[1], 1.0)
        (again,) = await outbox.next(1.0)
        assert head(await answer(collector, again)) == (1, False)
        assert await copy_of(collector, ident) == events
        for known in (ident, "0" * 32):
            assert await collector.take(where, state(journal=known)) is None, (
                "the batch of a new id says what it follows"
            )
        assert journal.last_seq == 1
    assert again == first


async def test_an_old_word_of_a_site_makes_it_look_no_younger(tmp_path: Path) -> None:
    """A broker gives what is retained at each connection, and may give what it has kept from before."""
    now = [AT]

    def told(last_seq: int, minute: int, journal: str = "0" * 32) -> bytes:
        state = {"journal": journal, "last_seq": last_seq, "at": f"2026-11-21T10:{minute:02}:00.000Z"}
        return sign(PayloadType.STATE, json.dumps(state).encode(), [SITE_KEY])

    async with Collector.open(tmp_path / COLLECTOR_FILE, KEYS, COLLECTOR_KEY, lambda: now[0]) as collector:

        async def shown(what: What, raw: bytes) -> tuple[str, str]:
            now[0] += timedelta(minutes=1)
            await collector.take(topic(SITE, what), raw)
            with views.opened(tmp_path) as connection:
                (site,) = views.document(connection, [SITE])["sites"]
            return site["backlog"], (site["link_at"] if what is What.LINK else site["state_at"])[11:16]

        assert await shown(What.STATE, told(7, 0)) == (7, "12:01")
        assert await shown(What.STATE, told(8, 1)) == (8, "12:02")
        assert await shown(What.STATE, told(8, 1)) == (8, "12:02"), "the same, given again"
        assert await shown(What.STATE, told(7, 0)) == (8, "12:02"), "an old one"
        assert await shown(What.STATE, told(8, 0)) == (8, "12:02"), "an old one of a site where nothing happens"
        assert await shown(What.STATE, told(8, 2)) == (8, "12:06")
        now[0] += timedelta(minutes=10)
        assert await shown(What.STATE, told(8, 2)) == (8, "12:06"), "the same is never news"
        assert await shown(What.STATE, told(8, 1)) == (8, "12:18"), "the site's clock went back, and nothing happens"
        assert await shown(What.STATE, told(9, 1)) == (9, "12:19"), "the site's clock was put right"
        assert await shown(What.STATE, told(1, 0, "1" * 32)) == (1, "12:20"), "another journal"
        assert await shown(What.LINK, b'{"online": false, "at": null}') == (1, "12:21")
        assert await shown(What.LINK, b'{"online": false, "at": null}') == (1, "12:21"), "the last will, retained"
        assert await shown(What.LINK, b'{"online": true, "at": "x"}') == (1, "12:23")
        assert await alarms_of(collector) == {}


async def test_another_database_is_refused(tmp_path: Path) -> None:
    async with reporting(tmp_path):
        pass
    (tmp_path / "journal.sqlite").rename(tmp_path / "collector.sqlite")
    with pytest.raises(JournalError, match=r"has format \d+; this edge reads"):
        async with collecting(tmp_path):
            pass


class Came:
    """A message of a test."""

    def __init__(self, topic: str, payload: bytes) -> None:
        self.topic, self.payload, self.acked, self.again = topic, payload, False, False

    async def ack(self) -> None:
        self.acked = True


class Line:
    """A connection on which some messages come; then it is lost."""

    def __init__(self, *came: Came, refuses: UplinkError | None = None) -> None:
        self.came, self.published, self._refuses = came, list[tuple[str, bytes]](), refuses

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
        if self._refuses is not None:
            raise self._refuses
        self.published.append((topic, payload))

    async def messages(self) -> AsyncIterator[Message]:
        for message in self.came:
            yield message
        raise UplinkError(Trouble.LOST, "the connection was lost")


async def test_a_connection_begins_with_what_is_here_and_each_message_is_answered_and_taken(tmp_path: Path) -> None:
    _, (first, second), _ = await envelopes(tmp_path / "site", 1, 2)
    async with collecting(tmp_path) as collector:
        await answer(collector, first)
        line = Line(Came(OUT, second), Came("nothing", b"?"))
        with pytest.raises(UplinkError):
            await collector.serve(line)
    assert [head(batch.open_ack(raw, ROOT)) for _, raw in line.published] == [(1, True), (2, False)]
    assert all(message.acked for message in line.came)


async def test_an_answer_that_the_broker_does_not_take_keeps_no_other_site_waiting(tmp_path: Path) -> None:
    ident, (first, second), events = await envelopes(tmp_path / "site", 1, 2)
    async with collecting(tmp_path) as collector:
        await answer(collector, first)
        denied = UplinkError(Trouble.DENIED, f"the broker does not let the collector write to {topic(SITE, What.ACK)}")
        line = Line(Came(OUT, second), refuses=denied)
        with pytest.raises(UplinkError, match="the connection was lost"):
            await collector.serve(line)
        assert await copy_of(collector, ident) == events
    assert all(message.acked for message in line.came), "it is here; the site sends it again until it is told so"


async def test_nothing_waits_for_an_answer_to_be_said_and_the_newest_is_said(tmp_path: Path) -> None:
    """A broker that had much waiting says behind all of it that it has taken an answer."""
    ident, raws, events = await envelopes(tmp_path / "site", *[1] * 3 * RECEIVE_MAXIMUM)

    all_taken = asyncio.Event()

    class Last(Came):
        async def ack(self) -> None:
            all_taken.set()
            await super().ack()

    class Slow(Line):
        async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
            await super().publish(topic, payload, retain=retain, sure=sure)
            await all_taken.wait()

    async with asyncio.timeout(DEADLINE_S), collecting(tmp_path) as collector:
        await answer(collector, raws[0])
        line = Slow(*[Came(OUT, raw) for raw in raws[:-1]], Last(OUT, raws[-1]))
        with pytest.raises(UplinkError, match="the connection was lost"):
            await collector.serve(line)
        assert await copy_of(collector, ident) == events
    assert [head(batch.open_ack(raw, ROOT)) for _, raw in line.published] == [(1, True), (len(raws), False)]


async def test_what_asks_for_the_rest_is_not_replaced_by_what_says_the_same_without_asking() -> None:
    said: list[tuple[str, Answer]] = []
    go_on = asyncio.Event()

    async def say(site: str, answer: Answer) -> None:
        await go_on.wait()
        said.append((site, answer))

    one, two = Head(1, "1" * 64), Head(2, "2" * 64)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        answers = Answers(group, say)
        answers.put("berlin-1", Answer("a", one, missing=True))
        answers.put("berlin-1", Answer("a", one))
        answers.put("berlin-1", Answer("b", one, missing=True))
        answers.put("berlin-1", Answer("b", two))
        answers.put("paris-1", Answer("a", one))
        go_on.set()
    assert said == [
        ("berlin-1", Answer("a", one, missing=True)),
        ("berlin-1", Answer("b", two)),
        ("paris-1", Answer("a", one)),
    ]


async def test_messages_share_commits_and_are_taken_and_acknowledged_in_their_order(tmp_path: Path) -> None:
    pairs = RECEIVE_MAXIMUM // 2
    ident, raws, events = await envelopes(tmp_path / "site", *[1] * pairs)
    acked: list[bytes] = []
    is_busy, go_on = threading.Event(), threading.Event()

    class Noted(Came):
        async def ack(self) -> None:
            acked.append(self.payload)

    def busy(_: sqlite3.Connection) -> None:
        is_busy.set()
        assert go_on.wait(DEADLINE_S)

    class Crowded(Line):
        """All of it comes while the writer is at something else."""

        async def messages(self) -> AsyncIterator[Message]:
            for message in self.came:
                yield message
            await asyncio.sleep(0)  # the last one's task begins
            assert len(collector.store._jobs) == len(self.came)
            go_on.set()
            raise UplinkError(Trouble.LOST, "the connection was lost")

    words = [sign(PayloadType.STATE, json.dumps({"number": number}).encode(), [SITE_KEY]) for number in range(pairs)]
    states = [Noted(topic(SITE, What.STATE), word) for word in words]
    came = [one for pair in zip(states, [Noted(OUT, raw) for raw in raws], strict=True) for one in pair]
    line = Crowded(*came)
    async with collecting(tmp_path) as collector:
        await collector.positions()
        before = collector.store.commits
        writing = asyncio.create_task(collector.store.write(busy))
        await asyncio.to_thread(is_busy.wait, DEADLINE_S)
        collector._positions = no_positions  # type: ignore[method-assign]  # it would wait for the writer
        with pytest.raises(UplinkError):
            await collector.serve(line)
        await writing
        assert collector.store.commits - before == 2, "the one that was under way, and one for all that came meanwhile"
        assert await copy_of(collector, ident) == events
        assert await alarms_of(collector) == {}
    assert acked == [one.payload for one in came]
    heads = [head(batch.open_ack(raw, ROOT)) for _, raw in line.published]
    assert heads == [(pairs, False)], "all of it was here before the first answer could be said"


async def no_positions() -> list[tuple[str, Answer]]:
    """Nothing is here yet."""
    return []


async def test_a_message_that_our_own_code_stumbles_over_keeps_no_other_site_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ident, (first, second), events = await envelopes(tmp_path / "site", 1, 2)
    take, bugs = ledger.Ledger.take, [sqlite3.OperationalError("malformed JSON"), UnicodeError(), KeyError("x")]

    def stumble(self: ledger.Ledger, *about: Any) -> Any:
        if bugs:
            raise bugs.pop()
        return take(self, *about)

    monkeypatch.setattr(ledger.Ledger, "take", stumble)
    async with collecting(tmp_path) as collector:
        line = Line(*[Came(OUT, first)] * 4, Came(OUT, second))
        with pytest.raises(UplinkError):
            await collector.serve(line)
        assert await copy_of(collector, ident) == events
        text, count = (await alarms_of(collector))["internal"]
    assert all(message.acked for message in line.came)
    assert count == 3
    (ident,) = re.findall("id [0-9a-f]{8}", text)
    assert ident in caplog.text
    assert "Traceback" in caplog.text


async def test_what_could_not_be_written_down_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (first,), _ = await envelopes(tmp_path / "site", 1)

    def full(self: ledger.Ledger, *about: Any) -> Any:
        raise JournalError("the disk is full")

    monkeypatch.setattr(ledger.Ledger, "take", full)
    async with collecting(tmp_path) as collector:
        line = Line(Came(OUT, first))
        with pytest.raises(JournalError):
            await collector.serve(line)
    assert not line.came[0].acked, "it comes again"


async def test_events_are_handed_on_and_after_a_crash_from_where_it_was(tmp_path: Path) -> None:
    ident, raws, events = await envelopes(tmp_path / "site", 1, 2, 3)
    lines: list[bytes] = []
    async with asyncio.timeout(DEADLINE_S), collecting(tmp_path) as collector:
        for raw in raws[:2]:
            await answer(collector, raw)

        def fail(_: bytes) -> None:
            raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            await hand_on(collector, fail)
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()

        def write(found: bytes) -> None:
            lines.extend(found.splitlines())
            loop.call_soon_threadsafe(arrived.set)

        task = asyncio.create_task(hand_on(collector, write), name="test: hand on")
        try:
            await arrived.wait()
            arrived.clear()
            await answer(collector, raws[2])
            await arrived.wait()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    assert [line.split(b', "event": ', 1)[1][:-1] for line in lines] == [raw for _, _, raw in events]
    found = [json.loads(line) for line in lines]
    assert [(one["number"], one["site"], one["journal"], one["seq"], one["hash"]) for one in found] == [
        (seq, SITE, ident, seq, digest) for seq, digest, _ in events
    ]


async def test_a_disk_that_is_full_when_lines_were_handed_on_hands_none_on_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ndjson, "AGAIN_S", 0.0)
    _, raws, _ = await envelopes(tmp_path / "site", 1, 2)
    fails, kept, keep = 5, asyncio.Event(), ndjson._keep
    lines: list[bytes] = []
    loop = asyncio.get_running_loop()

    def full_for_a_while(connection: sqlite3.Connection, last: int) -> None:
        nonlocal fails
        if fails:
            fails -= 1
            raise NotNowError("the disk is full")
        keep(connection, last)
        loop.call_soon_threadsafe(kept.set)

    monkeypatch.setattr(ndjson, "_keep", full_for_a_while)
    async with asyncio.timeout(DEADLINE_S), collecting(tmp_path) as collector:
        for raw in raws:
            await answer(collector, raw)
        task = asyncio.create_task(hand_on(collector, lambda found: lines.extend(found.splitlines())), name="test")
        await kept.wait()
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
    assert [json.loads(line)["number"] for line in lines] == [1, 2]
    assert sum("nothing is handed on now" in record.getMessage() for record in caplog.records) == 5


async def test_a_database_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    async with reporting(tmp_path) as (journal, outbox):
        async with collecting(tmp_path) as collector:
            await journal.record([fact(), fact()])
            await exchange(outbox, collector)
        with contextlib.closing(sqlite3.connect(tmp_path / COLLECTOR_FILE)) as connection:
            connection.execute("DROP TABLE gaps")
            for column in ("after_journal", "after_seq"):
                connection.execute(f"ALTER TABLE journals DROP COLUMN {column}")
            connection.execute("UPDATE meta SET value = '1' WHERE key = 'format'")
            connection.commit()
        async with collecting(tmp_path) as collector:
            await journal.record([fact()])
            await exchange(outbox, collector, 1000.0)
            assert await copy_of(collector, journal.ident) == await events_of(journal)


async def test_a_database_without_a_later_table_gets_what_its_events_say(tmp_path: Path) -> None:
    """A site of a later version has reported to it."""
    async with reporting(tmp_path) as (journal, outbox):
        async with collecting(tmp_path) as collector:
            await journal.record([parked(envelope(order(job_id)), "usb") for job_id in ("A", "B")])
            await journal.record([accepted(order("A"))])
            await exchange(outbox, collector)
        with contextlib.closing(sqlite3.connect(tmp_path / COLLECTOR_FILE)) as connection:
            for table in ("unjudged", "telemetry", "telemetry_heard"):
                connection.execute(f"DROP TABLE {table}")
            connection.commit()
        async with collecting(tmp_path):
            pass
    with views.opened(tmp_path) as connection:
        assert views.document(connection, [SITE])["sites"][0]["unjudged"] == 1
