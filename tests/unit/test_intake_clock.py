"""A site whose clock nobody vouches for: what it takes, what waits, and how it comes to know the time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.artifacts import keeper
from edge.intake import intake
from edge.intake.intake import Intake
from edge.intake.nonce import FILE_NAME as NONCE_FILE
from edge.intake.nonce import FRESH_S, NonceFile
from edge.intake.spool import Spool
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from edge.model.fields import time_text
from edge.timefloor import AHEAD_MAX, ANSWER_MAX_S, BEGINNING, Known, Source
from edge.trust import PayloadType
from edge.trust.signedtime import time_bytes
from tests import second_verifier
from tests.helpers.clock import IN_1970, IN_2099, SetClock
from tests.helpers.rig import Rig
from tests.helpers.trust import OPERATOR, Ceremony

TIME_KEY = "time@acme"
DAY = timedelta(days=1)


def right() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


class Post(Rig):
    """A rig with a clock that the test sets, and holders of a time key and an operator's."""

    clock: SetClock

    def __init__(self, folder: Path, journal: Journal, clock: SetClock) -> None:
        super().__init__(folder, journal)
        self.clock = clock
        self.ceremony = Ceremony(operators=(OPERATOR,), times=(TIME_KEY,))
        self.authority.root = self.ceremony.root
        self.nonce = NonceFile.open(folder, clock)
        self.intake = Intake(journal, self.artifacts, self.authority, frozenset({"fdm"}), clock, nonce=self.nonce)

    def signed(self, **fields: Any) -> bytes:
        return self.ceremony.sign(json.dumps(self.order(**fields)).encode())

    async def send(self, raw: bytes) -> Any:
        return (await self.intake.envelope(raw, "user:ada")).verdict

    def answer(self, at: datetime, *signers: str, nonce: str = "") -> bytes:
        payload = time_bytes(at, nonce or self.nonce.to_show().value)
        return self.ceremony.sign(payload, signers or (TIME_KEY,), PayloadType.TIME)

    async def tell(self, at: datetime, *signers: str, nonce: str = "") -> Any:
        return await self.intake.take(self.answer(at, *signers, nonce=nonce), "user:ada")

    def accepted(self) -> list[str]:
        return [event["job_id"] for event in self.events("job_accepted")]

    def parked(self) -> int:
        return int(self.ask(lambda snapshot: snapshot.parked()))

    async def floor(self) -> datetime:
        """What the journal knows."""
        return (await self.journal.transact(lambda transaction: transaction.known_time())).floor

    async def sound(self) -> None:
        """The journal is whole, and what it says follows from its events."""
        assert (await self.journal.verify()).problems == ()
        assert second_verifier.verify(self.folder / FILE_NAME) == (self.journal.last_seq, "")


@contextlib.asynccontextmanager
async def post(folder: Path, clock: SetClock) -> AsyncIterator[Post]:
    """As the daemon starts: the journal says what is known of the time."""
    async with Journal.open(folder / FILE_NAME, "berlin-1", clock.stamp) as journal:
        clock.learn(await journal.transact(lambda transaction: transaction.known_time()))
        yield Post(folder, journal, clock)


WRONG = [
    pytest.param(SetClock(IN_1970, synchronized=True), id="1970"),
    pytest.param(SetClock(IN_2099, synchronized=True), id="2099, by forged network time"),
    pytest.param(SetClock(), id="right, but nobody vouches"),
    pytest.param(SetClock(synchronized=True, source=Source.SIGNED), id="signed times only"),
]


@pytest.mark.parametrize("clock", WRONG)
async def test_with_a_wrong_clock_valid_orders_wait_and_expired_ones_do_not_come_to_life(tmp_path, clock) -> None:
    clock = SetClock(clock.at, synchronized=clock.synchronized, source=clock.source)
    long_ago = {"issued_at": time_text(BEGINNING - 9 * DAY), "expires_at": time_text(BEGINNING - DAY)}
    lately = {"issued_at": time_text(right() - 9 * DAY), "expires_at": time_text(right() - DAY)}
    async with post(tmp_path, clock) as site:
        valid, recent = site.signed(), site.signed(**lately)
        assert (await site.send(site.signed(**long_ago))).reason == "expired", "the floor has passed it"
        for raw in (valid, recent, valid):
            verdict = await site.send(raw)
            assert (verdict.reason, verdict.repeated) == ("clock_untrusted", False)
            assert "it is kept" in verdict.detail
        assert (site.accepted(), site.parked(), len(site.events("job_refused"))) == ([], 2, 1)
        assert await site.floor() == BEGINNING
        assert await site.intake.judge_parked() == 0
        assert (await site.tell(right())).accepted, "which judges what has waited"
        assert (len(site.accepted()), site.parked()) == (1, 0)
        assert [event["body"]["reason"] for event in site.events("job_refused")] == ["expired", "expired"]
        assert (await site.send(valid)).repeated
        await site.sound()


async def test_a_synchronized_kernel_frees_what_has_waited_in_the_order_in_which_it_came(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        raws = [site.signed(sequence=number, priority=10 * number) for number in (5, 9, 2, 7)]
        for raw in raws:
            await site.send(raw)
        site.clock.at, site.clock.synchronized = None, True
        assert await site.intake.judge_parked() == 4
        numbers = [site.ask(lambda snapshot, job=job: snapshot.job(job))["sequence"] for job in site.accepted()]
        assert numbers == [5, 9, 2, 7]
        actors = {event["actor"] for event in site.events("job_accepted")}
        assert actors == {"user:ada"}, "who brought it"


async def test_so_many_wait_and_no_more_and_other_spellings_take_no_place(tmp_path, monkeypatch) -> None:
    assert intake.PARKED_MAX == 1000
    monkeypatch.setattr(intake, "PARKED_MAX", 3)
    async with post(tmp_path, SetClock(IN_1970)) as site:
        raws = [site.signed() for _ in range(4)]
        for number in range(20):
            assert "it is kept" in (await site.send(raws[0] + b" " * number)).detail
        assert site.parked() == 1
        for raw in raws[1:3]:
            assert "it is kept" in (await site.send(raw)).detail
        full = await site.send(raws[3])
        assert (full.reason, "3 orders wait for that already; send it again" in full.detail) == (
            "clock_untrusted",
            True,
        )
        assert (site.parked(), site.journal.last_seq) == (3, 3), "nothing was decided"
        await site.tell(right())
        assert (len(site.accepted()), (await site.send(raws[3])).accepted) == (3, True)


async def test_a_stranger_cannot_have_anything_kept(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        for raw in (site.ceremony.sign(b"{}", signers=("stranger",)), b"garbage", site.signed(site="paris-1")):
            await site.send(raw)
        assert site.parked() == 0


async def test_a_power_cut_while_what_has_waited_is_judged_decides_nothing_twice(tmp_path, monkeypatch) -> None:
    following = Transaction.next_parked

    def cut(transaction: Transaction, after: int = 0, over: datetime | None = None) -> Any:
        if after:
            raise KeyboardInterrupt
        return following(transaction, after, over)

    async with post(tmp_path, SetClock(IN_1970)) as site:
        for _ in range(3):
            await site.send(site.signed())
        site.clock.at, site.clock.synchronized = None, True
        with monkeypatch.context() as patched:
            patched.setattr(Transaction, "next_parked", cut)
            with pytest.raises(KeyboardInterrupt):
                await site.intake.judge_parked()
        assert (len(site.accepted()), site.parked()) == (1, 2), "its verdict ends its waiting, in one transaction"
    async with post(tmp_path, SetClock(synchronized=True)) as site:
        assert await site.intake.judge_parked() == 2
        assert (len(site.accepted()), site.parked()) == (3, 0)
        assert len(set(site.accepted())) == 3
        await site.sound()


async def test_what_has_waited_is_judged_by_the_root_of_that_time(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        await site.send(site.signed())
        site.authority.root = Ceremony(issuers=("other@acme",), times=(TIME_KEY,)).root
        assert (await site.tell(right())).accepted
        assert (site.accepted(), site.parked()) == ([], 0)
        (parked,), (refused,) = site.events("job_parked"), site.events("job_refused")
        assert (refused["job_id"], refused["body"]["reason"]) == (parked["job_id"], "threshold")
        assert refused["body"]["signers"] == [], "nobody may sign it by now; but it was told that it waits"
        await site.sound()


# The floor


async def record(site: Post) -> None:
    await site.journal.record([Draft(EventKind.MACHINE_ONLINE, "site", {"identity": {}}, machine="prn-1")])


async def test_the_floor_outlives_a_restart_and_only_rises(tmp_path) -> None:
    async with post(tmp_path, SetClock(synchronized=True)) as site:
        before = right() - timedelta(seconds=1)
        await record(site)
        floor = await site.floor()
        assert before <= floor <= right() + timedelta(seconds=2)
    clock = SetClock(IN_1970, synchronized=True)
    async with post(tmp_path, clock) as site:
        await record(site)
        assert (await site.floor(), clock.now().wall, clock.now().trust) == (floor, floor, "floor")
        (first, second) = (event["clock"] for event in site.events("machine_online"))
        assert (first, second) == ("trusted", "floor")
        gone = site.signed(issued_at=time_text(floor - 9 * DAY), expires_at=time_text(floor - timedelta(seconds=2)))
        assert (await site.send(gone)).reason == "expired", "known for sure in 1970, too"
    async with post(tmp_path, SetClock(IN_2099, synchronized=True)) as site:
        await record(site)
        assert await site.floor() == floor, "what nobody vouches for raises nothing"
        await site.sound()


@pytest.mark.parametrize("minutes", [1, 4, 6, 600])
async def test_a_host_that_is_behind_the_floor_by_minutes_is_a_correction_by_more_it_is_wrong(
    tmp_path, minutes
) -> None:
    async with post(tmp_path, SetClock(right(), synchronized=True)) as site:
        await record(site)
        floor = await site.floor()
        site.clock.at = right() - timedelta(minutes=minutes)
        await record(site)
        assert (await site.floor(), site.clock.now().trusted) == (floor, minutes <= 5)
        site.clock.at = floor + timedelta(seconds=1)
        assert site.clock.now().trusted, "and it is right again as soon as it has caught up"


async def test_two_roles_repair_a_floor_that_forged_network_time_has_raised_and_one_does_not(tmp_path) -> None:
    forged = BEGINNING + AHEAD_MAX - DAY
    async with post(tmp_path, SetClock(forged, synchronized=True)) as site:
        await record(site)
        assert await site.floor() == forged
        waiting = site.signed()
        assert (await site.send(site.signed(sequence=900))).reason == "expired", "a forged clock can refuse, not begin"
        one = await site.tell(right())
        assert (one.accepted, one.repairs, await site.floor()) == (True, False, forged)
        assert "only operators beside it lower that" in one.detail
        assert (await site.tell(right(), OPERATOR)).reason == "threshold"
        at = right()
        two = await site.tell(at, TIME_KEY, OPERATOR)
        assert (two.accepted, two.repairs) == (True, True)
        assert at <= await site.floor() < at + timedelta(minutes=1)
        assert site.clock.now().trusted
        assert abs(site.clock.now().wall - right()) < timedelta(minutes=1), "whatever the host says"
        await record(site)
        assert (await site.send(waiting)).accepted
        assert await site.floor() < at + timedelta(minutes=1)
        await site.sound()


async def test_what_is_on_its_way_while_a_repair_is_judged_does_not_undo_it(tmp_path) -> None:
    forged = BEGINNING + AHEAD_MAX - DAY
    async with post(tmp_path, SetClock(forged, synchronized=True)) as site:
        await record(site)
        site.nonce.to_show()
        stamped_before = site.clock.stamp()
        assert (await site.tell(right(), TIME_KEY, OPERATOR)).repairs
        stamp, site.journal._stamp = site.journal._stamp, lambda: stamped_before
        await record(site)
        site.journal._stamp = stamp
        assert await site.floor() < right() + DAY
        await site.sound()


# Nonces


async def test_a_nonce_is_good_for_one_answer_whatever_becomes_of_its_file(tmp_path) -> None:
    clock = SetClock(IN_1970)
    async with post(tmp_path, clock) as site:
        earlier = site.nonce.to_show().value
        assert site.nonce.to_show().value == earlier, "asking twice spoils nothing"
        file = (tmp_path / NONCE_FILE).read_bytes()
        raw = site.answer(right(), nonce=earlier)
        assert (await site.intake.take(raw, "usb")).accepted
        for again in (raw, raw + b"\n", site.answer(right(), TIME_KEY, OPERATOR, nonce=earlier)):
            assert (await site.intake.take(again, "usb")).reason == "replayed"
        (tmp_path / NONCE_FILE).write_bytes(file)
        signed = await site.floor()
    async with post(tmp_path, SetClock(IN_1970, boot_id=clock.boot_id)) as site:  # the daemon was killed
        assert site.clock.now().trusted, "a signed time vouches until the host is booted"
        raw = site.answer(right() - DAY, TIME_KEY, OPERATOR, nonce=earlier)
        assert (await site.intake.take(raw, "usb")).reason == "replayed"
        assert await site.floor() >= signed
    async with post(tmp_path, SetClock(IN_1970)) as site:  # the host was
        assert not site.clock.now().trusted
        assert (await site.tell(right(), nonce=earlier)).reason == "replayed"
        await site.sound()


async def test_an_older_nonce_that_somebody_carries_stays_good_for_a_day(tmp_path, monkeypatch) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        carried = site.nonce.to_show().value
        began_s = site.clock.since_boot_s()
        monkeypatch.setattr(site.clock, "since_boot_s", lambda: began_s + FRESH_S + 1)
        assert site.nonce.to_show().value != carried, "what is shown is fresh: its age is how wrong the answer may be"
        monkeypatch.setattr(site.clock, "since_boot_s", lambda: began_s + ANSWER_MAX_S + FRESH_S)
        assert (await site.tell(right(), nonce=carried)).reason == "replayed"
        monkeypatch.setattr(site.clock, "since_boot_s", lambda: began_s + 3600)
        before = right()
        assert (await site.tell(before, nonce=carried)).accepted
        assert site.clock.now().wall >= before + timedelta(hours=1), "nothing runs too late"
        assert await site.floor() < before + timedelta(minutes=1), "and nothing is said to have passed that has not"


def test_a_file_of_nonces_that_cannot_be_read_is_as_good_as_none(tmp_path) -> None:
    for content in (b"", b"[1]", b'{"value": 1}', b"[{}]", b"\xff"):
        (tmp_path / NONCE_FILE).write_bytes(content)
        assert NonceFile.open(tmp_path, SetClock()).waiting() == ()


# What an untrusted clock must not destroy


async def test_a_bundle_in_the_spool_directory_stays_until_it_can_be_judged(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_2099)) as site:
        spool = Spool(tmp_path / "spool", site.intake.file, site.clock, settle_s=0.0)
        (tmp_path / "spool").mkdir()
        site.bundle().rename(tmp_path / "spool" / "order.mfjob")
        old = tmp_path / "spool" / "refused"
        old.mkdir()
        (old / "yesterday.mfjob").touch()
        for _ in range(3):
            await spool.round()
        assert (tmp_path / "spool" / "order.mfjob").exists()
        assert (old / "yesterday.mfjob").exists(), "nothing is old by a clock that nobody vouches for"
        site.clock.at, site.clock.synchronized = None, True
        await site.intake.judge_parked()
        await spool.round()
        assert not (tmp_path / "spool" / "order.mfjob").exists()
        (job_id,) = site.accepted()
        assert site.ask(lambda snapshot: snapshot.job(job_id))["artifacts"][0]["stored"]


async def test_damaged_files_are_kept_while_nobody_knows_how_old_they_are(tmp_path) -> None:
    async with post(tmp_path, SetClock(IN_2099)) as site:
        await site.journal.transact(lambda transaction: None)
        kept = site.artifacts.directory / "quarantine"
        kept.mkdir(exist_ok=True)
        (kept / "damaged").touch()
        await keeper.Keeper(site.journal, tmp_path, site.artifacts, site.clock, 10**9).make_room()
        assert (kept / "damaged").exists()


async def test_the_kernel_may_refuse_to_be_asked(monkeypatch) -> None:
    from edge import clock

    class Library:
        adjtimex = staticmethod(lambda buffer: -1)

    for library in (Library(), object()):
        monkeypatch.setattr(clock.ctypes, "CDLL", lambda name, library=library: library)
        assert clock.synchronized() is False
    assert SetClock().known == Known(BEGINNING)
