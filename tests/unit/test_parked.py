"""Orders that wait until somebody vouches for the clock: told once, shown, given up by name, and with their files."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.artifacts.keeper import RESERVE_BYTES, Keeper
from edge.errors import IllegalTransitionError, UsageError
from edge.intake import intake as intake_module
from edge.intake.door import Remote
from edge.intake.intake import Intake
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.event import Draft, EventKind
from edge.model.fields import time_text
from edge.serving.site import Site
from edge.serving.steering import Steering
from edge.trust import PayloadType, new_job_id
from tests.helpers.clock import IN_1970, SetClock
from tests.helpers.trust import OPERATOR, command_document
from tests.journal_kit import SITE, envelope, order, ticking
from tests.unit.test_intake_clock import DAY, Post, post, right

MACHINES = {"prn-1": frozenset({"fdm"})}


def steering(site: Post) -> Steering:
    """As the API has it."""
    serving = Site.__new__(Site)
    serving._state_dir = site.folder
    serving._waits = dict  # type: ignore[method-assign]
    return Steering(site.journal, {}, serving.job)


def found(site: Post, job_id: str) -> Any:
    return site.ask(lambda snapshot: snapshot.job(job_id))


def command(site: Post, verb: str, job_id: str, **fields: Any) -> bytes:
    now = right()
    asked = {
        "command_id": new_job_id(now),
        "issued_at": time_text(now),
        "expires_at": time_text(now + timedelta(minutes=5)),
        "verb": verb,
        "job_id": job_id,
    }
    return site.ceremony.sign(
        json.dumps(command_document(**(asked | fields))).encode(), (OPERATOR,), PayloadType.COMMAND
    )


def let_in(site: Post, max_bytes: int = 10**9, free: int = 10**12, room: Any = None) -> None:
    site.intake = Intake(
        site.journal,
        site.artifacts,
        site.authority,
        frozenset({"fdm"}),
        site.clock,
        lambda: free,
        max_bytes,
        room,
        Remote(MACHINES),
        site.nonce,
    )


async def test_that_it_waits_is_one_event_also_over_a_restart_and_in_other_spellings(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        raw = site.signed()
        for again in (raw, raw, raw + b" "):
            assert (await site.send(again)).reason == "clock_untrusted"
        (event,) = site.events("job_parked")
        assert (event["actor"], event["body"]["reason"]) == ("user:ada", "clock_untrusted")
        assert event["body"]["signers"] == ["orders@acme"]
        job_id = event["job_id"]
    async with post(tmp_path, SetClock(IN_1970)) as site:
        await site.send(raw)
        assert (len(site.events("job_parked")), site.parked()) == (1, 1)
        assert (await site.tell(right())).accepted
        assert site.accepted() == [job_id]
        assert (site.parked(), found(site, job_id)["parked"]) == (0, None)
        await site.sound()


async def test_it_is_shown_among_the_jobs_with_what_it_waits_for(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        await site.send(site.signed(reference="PO-7", quantity=2))
        (row,) = site.ask(lambda snapshot: snapshot.jobs())
        assert (row["state"], row["reference"], row["parts"]["open"]) == ("NOT_ALLOWED_TO_START", "PO-7", 2)
        assert (row["accepted_at"], row["parked"]["reason"]) == (None, "clock_untrusted")
        assert site.ask(lambda snapshot: snapshot.summary())["jobs"]["NOT_ALLOWED_TO_START"] == 1
        (item,) = site.ask(lambda snapshot: snapshot.attention())
        assert (item["kind"], item["count"]) == ("parked", 1)
        job = await steering(site)._look(row["job_id"])
        assert [(wait["code"], wait["command"]) for wait in job["waits"]] == [("clock", "edge time show")]
        assert job["revision"] == site.events("job_parked")[0]["seq"]
        assert job.keys() >= {"order", "signers", "artifacts", "steps", "runs", "events", "envelope_bytes"}


@pytest.mark.parametrize(("verb", "word"), [("cancel", "cancelled"), ("decline", "declined")])
@pytest.mark.parametrize("who", ["a person here", "the centre"])
async def test_it_can_be_given_up_and_its_bytes_and_its_id_stay_so(tmp_path, verb, word, who) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        let_in(site)
        raw = site.signed()
        job_id = (await site.send(raw)).order.job_id
        if who == "the centre":
            other = command(site, verb, job_id, if_revision=99)
            assert (await site.intake.take(other, "mqtt")).reason == "stale"
            assert (await site.intake.take(command(site, verb, job_id), "mqtt")).accepted, "it needs no clock"
            actor, kinds = f"key:{OPERATOR}", ["job_parked", "command_refused", "command_accepted"]
        else:
            for _ in range(2):  # the second changes nothing
                row = await getattr(steering(site), verb)(job_id, "user:ada", "not wanted")
            assert (row["state"], row["parked"]["reason"], row["waits"]) == ("ABORTED", word, [])
            actor, kinds = "user:ada", ["job_parked"]
        events = found(site, job_id)["events"]
        assert [event["kind"] for event in events][: len(kinds)] == kinds
        assert [(e["kind"], e["actor"]) for e in events][len(kinds) :] == [
            ("cancel_requested" if verb == "cancel" else "job_declined", actor)
        ]
        again = await site.send(raw)
        assert (again.accepted, again.reason, again.repeated) == (False, word, True)
        assert "before it was judged: not wanted" in again.detail
        assert (site.parked(), site.ask(lambda snapshot: snapshot.jobs())) == (0, [])
        notices = site.ask(lambda snapshot: snapshot.notices(right() - 365 * DAY))
        assert [notice["reason"] for notice in notices] == (["stale"] if who == "the centre" else [])
        assert (await site.send(raw + b" ")).reason == word, "in another spelling, too"
    async with post(tmp_path, SetClock(synchronized=True)) as site:
        assert await site.intake.judge_parked() == 0
        assert (await site.send(raw)).reason == word
        assert (await site.send(raw + b" ")).reason == word
        assert (await site.send(site.signed(job_id=job_id, sequence=77))).reason == "conflict"
        assert site.accepted() == []
        late = command(site, verb, job_id)
        let_in(site)
        verdict = await site.intake.take(late, "mqtt")
        assert (verdict.reason, f"is {word} here" in verdict.detail) == ("not_possible", True)
        await site.sound()


async def test_the_centre_can_do_no_more_than_that_without_a_clock(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        let_in(site)
        job_id = site.events("job_parked")[0]["job_id"] if await site.send(site.signed()) else ""
        for verb in ("hold", "release", "retry", "scrap"):
            verdict = await site.intake.take(command(site, verb, job_id, if_revision=1), "mqtt")
            assert verdict.reason == "clock_untrusted"
        unknown = command(site, "cancel", "01J9ZK3V5Q8M2N4P6R7S9T0W1Z")
        assert (await site.intake.take(unknown, "mqtt")).reason == "clock_untrusted"
        assert site.parked() == 1
        for call in ("hold", "release"):
            with pytest.raises(IllegalTransitionError, match="it can be cancelled or declined"):
                await getattr(steering(site), call)(job_id, "user:ada", "")
        with pytest.raises(UsageError, match="there is no job"):
            await steering(site).cancel("01J9ZK3V5Q8M2N4P6R7S9T0W1Z", "user:ada", "")


async def test_a_command_whose_time_has_certainly_passed_gives_nothing_up(tmp_path) -> None:
    async with post(tmp_path, SetClock(synchronized=True)) as site:
        await site.journal.record([Draft(EventKind.MACHINE_ONLINE, "site", {"identity": {}}, machine="prn-1")])
    async with post(tmp_path, SetClock(IN_1970)) as site:
        let_in(site)
        verdict = await site.send(site.signed())
        before = time_text(right() - timedelta(minutes=9)), time_text(right() - timedelta(minutes=1))
        old = command(site, "cancel", verdict.order.job_id, issued_at=before[0], expires_at=before[1])
        assert (await site.intake.take(old, "mqtt")).reason == "expired"
        assert site.parked() == 1


async def test_a_journal_that_may_miss_a_run_declines_no_order_that_waits_either(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        await site.journal.record([Draft(EventKind.JOURNAL_HELD, "site", {"reason": "it is new"})])
        job_id = (await site.send(site.signed())).order.job_id
        with pytest.raises(IllegalTransitionError, match="may miss a run"):
            await steering(site).decline(job_id, "user:ada", "")
        assert site.parked() == 1


async def test_what_is_known_here_is_not_kept_again(tmp_path) -> None:
    """A copy in another spelling takes no place, and is no event, however often the clock comes and goes."""
    async with post(tmp_path, SetClock(synchronized=True)) as site:
        done, refused = site.signed(), site.signed(steps=[])
        assert (await site.send(done)).accepted
        assert (await site.send(refused)).reason == "malformed"
    async with post(tmp_path, SetClock(IN_1970)) as site:
        before = site.journal.last_seq
        for number in range(1, 5):
            verdict = await site.send(done + b" " * number)
            assert (verdict.reason, "this is not kept" in verdict.detail) == ("clock_untrusted", True)
        assert (site.parked(), site.journal.last_seq) == (0, before)


async def test_a_stranger_with_the_payload_cannot_end_its_waiting(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        payload = json.dumps(site.order()).encode()
        await site.send(site.ceremony.sign(payload))
        site.clock.at, site.clock.synchronized = None, True
        assert (await site.send(site.ceremony.sign(payload, signers=("stranger",)))).reason == "threshold"
        assert (site.parked(), site.events("job_refused")) == (1, [])
        assert await site.intake.judge_parked() == 1
        assert len(site.accepted()) == 1


async def test_nothing_is_kept_on_a_disk_that_is_full(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        let_in(site, free=RESERVE_BYTES)
        verdict = await site.send(site.signed())
        assert ("the disk has no room to keep it" in verdict.detail, site.parked()) == (True, 0)


# Its files


async def test_the_files_of_its_bundle_are_kept_and_it_starts_without_them_coming_again(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        path = site.bundle(b"G1 X1\n")
        receipt = await site.intake.bundle(path, "usb")
        assert (receipt.verdict.reason, len(receipt.stored), receipt.missing) == ("clock_untrusted", 1, ())
        assert "come again" not in receipt.verdict.detail
        path.unlink()
        (artifact,) = found(site, str(receipt.job_id))["artifacts"]
        assert artifact["stored"]
        keeper = Keeper(site.journal, tmp_path, site.artifacts, site.clock, 0)
        await keeper.make_room()
        assert site.artifacts.has(receipt.stored[0]), "nobody takes away what it needs"
    async with post(tmp_path, SetClock(IN_1970)) as site:
        assert (await site.tell(right())).accepted
        assert site.accepted() == [receipt.job_id]
        assert found(site, str(receipt.job_id))["artifacts"][0]["stored"]
        await site.sound()


async def test_a_file_that_has_just_come_for_it_is_not_taken_away_before_that_is_written_down(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        content = b"G1 X1\n"
        await site.send(site.ceremony.sign(json.dumps(site.order(content)).encode()))
        here, idle = hashlib.sha256(content).hexdigest(), hashlib.sha256(b"other").hexdigest()
        site.artifacts.store(io.BytesIO(content), here, len(content))
        site.artifacts.store(io.BytesIO(b"other"), idle, 5)
        await Keeper(site.journal, tmp_path, site.artifacts, site.clock, 0).make_room()
        assert site.artifacts.on_disk() == {here: len(content)}


async def test_its_files_go_when_it_is_given_up_and_their_room_is_needed(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        receipt = await site.intake.bundle(site.bundle(b"G1 X1\n"), "usb")
        await steering(site).decline(str(receipt.job_id), "user:ada", "")
        await Keeper(site.journal, tmp_path, site.artifacts, site.clock, 0).make_room()
        assert not site.artifacts.has(receipt.stored[0])
        assert len(site.events("artifact_evicted")) == 1


async def test_files_that_have_no_room_come_again_and_take_none_from_what_is_promised(tmp_path) -> None:
    async with post(tmp_path, SetClock(synchronized=True)) as site:
        promised = await site.submit(b"a" * 600, files=False)
        assert promised.verdict.accepted
        idle = await site.submit(b"b" * 300)
        await site.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, idle.job_id)])
    async with post(tmp_path, SetClock(IN_1970)) as site:
        site._sequence = 10
        keeper = Keeper(site.journal, tmp_path, site.artifacts, site.clock, 1000, lambda: 10**12)
        let_in(site, 1000, room=keeper.make_room)
        first = await site.intake.bundle(site.bundle(b"c" * 300), "usb")
        assert (len(first.stored), site.artifacts.has(idle.stored[0])) == (1, False), "what is idle gives way at once"
        second = await site.intake.bundle(site.bundle(b"d" * 300), "usb")
        assert (second.stored, site.parked()) == ((), 2)
        assert "has to come again then: its files need 300 bytes, this site has room for 100" in second.verdict.detail
        await keeper.make_room()
        assert keeper.trouble == ""
        assert site.artifacts.has(first.stored[0])
        await site.sound()


async def test_a_bundle_of_an_order_that_is_not_kept_leaves_nothing_here(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(intake_module, "PARKED_MAX", 0)
    async with post(tmp_path, SetClock(IN_1970)) as site:
        receipt = await site.intake.bundle(site.bundle(), "usb")
        assert (receipt.stored, site.artifacts.on_disk()) == ((), {})
        assert "has to come again" in receipt.verdict.detail


# A journal in which that was no event


async def test_what_waited_in_an_older_journal_waits_on_and_becomes_an_event(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    async with Journal.open(path, SITE, ticking()):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE parked")
        connection.execute(
            "CREATE TABLE parked (seq INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, envelope BLOB NOT NULL,"
            " actor TEXT NOT NULL) STRICT"
        )
        raws = [envelope(order(job_id)) for job_id in ("01J9ZK3V5Q8M2N4P6R7S9T0W1X", "01J9ZK3V5Q8M2N4P6R7S9T0W1Y")]
        for raw in raws:
            connection.execute("INSERT INTO parked (digest, envelope, actor) VALUES (hex(?), ?, 'usb')", (raw, raw))
        connection.execute("UPDATE meta SET value = '3' WHERE key = 'format'")
    connection.close()
    for _ in range(2):
        async with Journal.open(path, SITE, ticking()) as journal:
            assert journal.last_seq == 2
            first = await journal.transact(lambda transaction: transaction.next_parked())
            assert first == (1, raws[0], "usb")
            assert (await journal.verify()).problems == ()
