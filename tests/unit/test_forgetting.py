"""Refusals are remembered as long as anything could come of them, and the tables that do so stay small."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from edge.journal import forgetting, transaction
from edge.model.event import Draft, EventKind
from edge.model.fields import time_text
from edge.trust import PayloadType
from tests.helpers.clock import IN_1970, SetClock
from tests.helpers.rig import Rig
from tests.helpers.trust import OPERATOR
from tests.unit.test_intake_clock import TIME_KEY, Post, post, right
from tests.unit.test_parked import command, let_in, steering

DAY = timedelta(days=1)


def of_another_site(site: Post, expires_at: datetime) -> bytes:
    return site.signed(site="paris-1", issued_at=time_text(expires_at - DAY), expires_at=time_text(expires_at))


def remembered(site: Rig) -> int:
    query = "SELECT count(*) FROM verdicts WHERE NOT accepted"
    return int(site.ask(lambda snapshot: snapshot.connection.execute(query).fetchone()[0]))


def refusals(site: Rig) -> dict[str, int]:
    query = "SELECT reason, sum(count) FROM refusals GROUP BY reason"
    return dict(site.ask(lambda snapshot: snapshot.connection.execute(query).fetchall()))


async def test_a_refusal_is_remembered_until_its_bytes_have_been_over_for_long_and_counted_from_then_on(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(forgetting, "KEPT_COUNT", 3)
    now = datetime.now(UTC).replace(microsecond=0)
    soon = now + 2 * DAY
    async with post(tmp_path, SetClock(now, synchronized=True)) as site:
        raw, other = of_another_site(site, soon), of_another_site(site, now + 900 * DAY)
        for again in (raw, other, raw):
            assert (await site.send(again)).reason == "wrong_site"
        assert (len(site.events("job_refused")), remembered(site)) == (2, 2)
        site.clock.at = soon + forgetting.KEPT - timedelta(hours=1)
        await site.send(of_another_site(site, now + 800 * DAY))
        verdict = await site.send(raw)
        assert (verdict.repeated, remembered(site)) == (True, 3), "it has expired, and is still the same"
        assert (await site.send(raw + b" ")).reason == "wrong_site"
        assert len(site.events("job_refused")) == 3, "and so is its payload"
        assert refusals(site) == {"wrong_site": 1}
        site.clock.at = soon + forgetting.KEPT + timedelta(hours=1)
        await site.send(of_another_site(site, now + 700 * DAY))
        assert remembered(site) == 3
        for number in range(20):
            assert not (await site.send(raw + b" " * number)).repeated
        assert (len(site.events("job_refused")), remembered(site)) == (4, 3), "who has a copy cannot fill the journal"
        assert refusals(site) == {"wrong_site": 21}
        assert (await site.send(other)).repeated
        assert site.ask(lambda snapshot: snapshot.refusal_counts())["refusals"] == {"wrong_site": 4}, "never less"
        await site.sound()


async def test_a_floor_that_was_forged_and_repaired_brings_nothing_back(tmp_path) -> None:
    """What was refused or declined in between may be made at another site by now."""
    now = right()
    async with post(tmp_path, SetClock(IN_1970)) as site:
        let_in(site)
        declined, waiting = site.signed(), site.signed()
        for raw in (declined, waiting):
            assert (await site.send(raw)).reason == "clock_untrusted"
        job_id = site.events("job_parked")[0]["job_id"]
        await steering(site).decline(job_id, "user:ada", "")
        site.clock.at, site.clock.synchronized = now + 90 * DAY, True
        assert await site.intake.judge_parked() == 1
        refused = site.signed()
        assert (await site.send(refused)).reason == "expired"
        assert len(site.events("job_refused")) == 2, "the centre knows of both"
        site.clock.at, site.clock.synchronized = now, False
        assert (await site.tell(now, TIME_KEY, OPERATOR)).repairs
        assert site.clock.now().trusted
        for raw, word in ((declined, "declined"), (waiting, "expired"), (refused, "expired")):
            assert ((await site.send(raw)).reason, (await site.send(raw + b" ")).reason) == (word, word)
        assert (await site.send(site.signed(job_id=job_id))).reason == "conflict"
        assert site.accepted() == []
        await site.sound()


async def test_who_has_copies_that_were_forgotten_cannot_fill_the_journal(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(forgetting, "KEPT_COUNT", 3)
    now = right()
    async with post(tmp_path, SetClock(now, synchronized=True)) as site:
        old = [of_another_site(site, now - 90 * DAY) for _ in range(5)]
        for raw in old:
            await site.send(raw)
        assert (len(site.events("job_refused")), remembered(site)) == (3, 3)
        for days in (700, 800, 900):
            await site.send(of_another_site(site, now + days * DAY))
        assert remembered(site) == 3
        before = site.journal.last_seq
        for raw in old * 3:
            assert (await site.send(raw)).reason == "wrong_site"
        assert site.journal.last_seq == before
        await site.sound()


async def test_while_nobody_knows_the_time_nothing_is_forgotten(tmp_path) -> None:
    """The floor counts, not the host's clock."""
    now = datetime.now(UTC).replace(microsecond=0)
    async with post(tmp_path, SetClock(now, synchronized=True)) as site:
        await site.send(of_another_site(site, now + DAY))
        site.clock.at, site.clock.synchronized = now + 365 * DAY, False
        await site.send(of_another_site(site, now + 2 * DAY))
        assert remembered(site) == 2


async def test_a_command_is_forgotten_likewise(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(forgetting, "KEPT_COUNT", 2)
    now = datetime.now(UTC).replace(microsecond=0)
    async with post(tmp_path, SetClock(now, synchronized=True)) as site:
        let_in(site)
        raw = command(site, "cancel", "01J9ZK3V5Q8M2N4P6R7S9T0W1Z")
        assert (await site.intake.take(raw, "mqtt")).reason == "unknown"
        site.clock.at = now + forgetting.KEPT + DAY
        assert (await site.intake.take(raw, "mqtt")).repeated
        await site.intake.take(command(site, "cancel", "01J9ZK3V5Q8M2N4P6R7S9T0W1Z", reason="again"), "mqtt")
        before = site.journal.last_seq
        await site.send(of_another_site(site, now + 90 * DAY))
        verdict = await site.intake.take(raw, "mqtt")
        assert (verdict.reason, verdict.repeated, site.journal.last_seq) == ("expired", False, before + 1)
        await site.sound()


async def test_what_has_no_time_to_expire_is_remembered_by_number(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(forgetting, "KEPT_COUNT", 3)
    async with post(tmp_path, SetClock(synchronized=True)) as site:
        raws = [site.ceremony.sign(json.dumps({"colour": number}).encode()) for number in range(5)]
        for raw in raws:
            assert (await site.send(raw)).reason == "malformed"
        assert remembered(site) == 3
        assert [(await site.send(raw)).repeated for raw in raws[2:]] == [True] * 3
        assert not (await site.send(raws[0])).repeated
        nonce = site.nonce.to_show().value
        old = site.ceremony.sign(json.dumps({"at": "x", "nonce": nonce}).encode(), (TIME_KEY,), PayloadType.TIME)
        assert (await site.intake.take(old, "usb")).reason == "malformed"
        assert remembered(site) == 3
        await site.sound()


async def test_the_id_of_an_order_that_was_given_up_is_free_when_its_bytes_are_long_over(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(forgetting, "KEPT_COUNT", 2)
    now = datetime.now(UTC).replace(microsecond=0)
    async with post(tmp_path, SetClock(now)) as site:
        raw = site.signed()
        job_id = (await site.send(raw)).order.job_id
        await steering(site).decline(job_id, "user:ada", "")
        site.clock.synchronized = True
        for days, kept in ((36, True), (38, False)):
            site.clock.at = now + days * DAY
            # The floor rises with this, and the next refusal looks.
            await site.journal.record([Draft(EventKind.MACHINE_ONLINE, "site", {"identity": {}}, machine="prn-1")])
            await site.send(of_another_site(site, now + 900 * DAY))
            assert (site.ask(lambda snapshot: snapshot.job(job_id)) is not None) is kept
        assert (await site.send(raw)).reason == "expired"
        await site.sound()


async def test_counts_by_the_minute_become_one_sum_and_none_is_lost(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(transaction, "REFUSAL_ROWS", 10)

    async with post(tmp_path, SetClock(synchronized=True)) as site:

        def count(transaction: Any) -> int:
            for minute in range(60):
                for reason in ("malformed", "threshold", "malformed"):
                    transaction.count_refusal(reason, f"2026-11-21T10:{minute:02}Z")
            return int(transaction.connection.execute("SELECT count(*) FROM refusals").fetchone()[0])

        assert await site.journal.transact(count) <= 10 + 2
        assert refusals(site) == {"malformed": 120, "threshold": 60}
        assert site.ask(lambda snapshot: snapshot.refusal_counts())["unsigned"] == {"malformed": 120, "threshold": 60}
