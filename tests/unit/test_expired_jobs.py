"""An accepted order whose latest start has certainly passed: it ends by itself, and takes no room any more."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.artifacts.needs import Needs
from edge.cli.jobs import reasons
from edge.clock import SystemClock
from edge.driver import Motion, Outcome, OutcomeKind, Run
from edge.errors import IllegalTransitionError
from edge.journal.journal import Journal
from edge.journal.prune import last_to_go
from edge.journal.schema import FILE_NAME
from edge.model.event import Draft, EventKind, stamp_text
from edge.model.fields import time_text
from edge.running.dispatch import MOST_EXPIRED
from edge.running.planner import Code
from edge.timefloor import Known, Source
from edge.trust import Claims
from tests.helpers.clock import IN_1970, SetClock
from tests.helpers.pruning import BEGAN, acknowledge, hourly, work
from tests.helpers.rig import Rig
from tests.journal_kit import accepted, order, ticking
from tests.unit.test_dispatch import code, dispatching
from tests.unit.test_intake_clock import DAY, post, right

JOB = "job-forgotten"
LATE = "2026-11-29T10:00:00.000Z"
"""After orders of the kit expire."""


@pytest.fixture
def later(monkeypatch) -> Any:
    """Sets every clock of the host forward."""
    shift, wall = [timedelta()], SystemClock.wall
    monkeypatch.setattr(SystemClock, "wall", lambda self: wall(self) + shift[0])

    def go_on(days: float) -> None:
        shift[0] += timedelta(days=days)

    return go_on


def expired(job_id: str = JOB, floor: str = LATE) -> Draft:
    return Draft(EventKind.JOB_EXPIRED, "site", {"floor": floor}, job_id)


async def claims(site: Rig) -> Claims:
    return await site.journal.transact(lambda transaction: Needs().claims(transaction.connection))


def of_job(site: Rig, job_id: str) -> dict[str, Any]:
    return {"waits": [], **site.ask(lambda snapshot: snapshot.job(job_id))}


@pytest.mark.parametrize("held", [False, True])
async def test_an_order_that_nothing_began_of_in_time_ends_once_and_says_why(tmp_path, later, held: bool) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, _):
        receipt = await site.submit(files=False)
        job_id = str(receipt.job_id)
        if held:
            await site.journal.record([Draft(EventKind.HOLD_REQUESTED, "user:ada", {}, job_id)])
        await site.until(lambda: code(dispatcher, job_id) is not None)
        later(8)
        dispatcher.wake()
        await site.until(lambda: site.events("job_expired"))
        found = of_job(site, job_id)
        order = receipt.verdict.order
        assert order is not None
        why = f"it was to start before {order.expires_at:%Y-%m-%d %H:%M UTC}"
        assert (found["state"], found["steps"][0]["reason"]) == ("ABORTED", why)
        assert [line.strip() for line in reasons(found)] == [f"step print is ABORTED: {why}"]
        (notice,) = site.ask(lambda snapshot: snapshot.notices(site.clock.wall()))
        assert (notice["kind"], notice["text"]) == ("expired", f"job {job_id} has ended: {why}")
        assert await claims(site) == Claims()
        await site.until(lambda: not dispatcher.waits)
        assert len(site.events("job_expired")) == 1


async def test_nothing_ends_by_a_clock_that_nobody_vouches_for(tmp_path, later) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, _):
        job_id = str((await site.submit(files=False)).job_id)
        site.clock.source = Source.SIGNED
        later(8)
        dispatcher.wake()
        await site.until(lambda: code(dispatcher, job_id) is Code.CLOCK)
        assert site.events("job_expired") == []
        site.clock.learn(Known(site.clock.wall()))  # as by a signed time that came late
        dispatcher.wake()
        await site.until(lambda: site.events("job_expired"))


async def test_what_runs_goes_on_and_what_is_held_waits_for_a_person_without_its_files(tmp_path, later) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, _):
        begun = site.script.work_until_stopped()
        job_id = str((await site.submit()).job_id)
        await begun.wait()
        later(8)
        other = str((await site.submit(b"another\n", files=False, expires_at=time_text(right() + 9 * DAY))).job_id)
        await site.until(lambda: code(dispatcher, other) is not None)
        assert (await claims(site)).held.keys() >= {hashlib.sha256(b"another\n").hexdigest()}
        assert len((await claims(site)).held) == 2, "the machine reads its program"
        site.runner.stop(site.ask(lambda snapshot: snapshot.open_runs())[0]["run_id"])
        await site.ended()
        await site.until(lambda: site.step(job_id)["state"] == "HELD")
        assert len((await claims(site)).held) == 1
        dispatcher.wake()
        await site.until(lambda: code(dispatcher, other) is Code.NO_PROGRAM)
        assert site.events("job_expired") == []


async def test_a_retry_of_an_order_that_has_expired_ends_it(tmp_path, later) -> None:
    async with dispatching(tmp_path) as (site, _, _):

        async def fails(run: Run) -> Outcome:
            return Outcome(OutcomeKind.FAILED, Motion.POSSIBLE, "the nozzle is blocked")

        site.script.execute = fails
        steps = [{"id": "print", "process": "fdm", "program": "body.gcode", "max_attempts": 2}]
        job_id = str((await site.submit(steps=steps)).job_id)
        await site.until(lambda: site.step(job_id)["state"] == "HELD")
        later(8)
        where = site.step(job_id)
        word = Draft(
            EventKind.RUN_RESOLVED, "user:ada", {"resolution": "retry"}, job_id, 1, "print", where["run_id"], "prn-1"
        )
        await site.journal.record([word])
        await site.until(lambda: site.events("job_expired"))
        assert site.step(job_id)["state"] == "ABORTED"
        assert len(site.events("run_began")) == 1


async def test_nothing_ends_by_a_journal_that_may_miss_a_run(tmp_path, later) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, _):
        job_id = str((await site.submit(files=False)).job_id)
        await site.journal.record([Draft(EventKind.JOURNAL_HELD, "site", {"reason": "it is an old copy"})])
        later(8)
        dispatcher.wake()
        await site.until(lambda: any(b.code is Code.EXPIRED for found in dispatcher.waits.values() for b in found))
        assert site.events("job_expired") == []
        with pytest.raises(IllegalTransitionError, match="before somebody confirms this journal"):
            await site.journal.record([expired(job_id, stamp_text(site.clock.wall()))])
        await site.journal.record([Draft(EventKind.JOURNAL_CONFIRMED, "user:ada", {"reason": "it is an old copy"})])
        await site.until(lambda: site.events("job_expired"))


async def test_a_site_that_was_switched_off_for_long_ends_all_that_has_expired(tmp_path, later, monkeypatch) -> None:
    monkeypatch.setattr("edge.running.dispatch.MOST_EXPIRED", 3)
    assert MOST_EXPIRED > 3
    async with dispatching(tmp_path) as (site, dispatcher, _):
        for number in range(8):
            await site.submit(b"program %d\n" % number, files=False)
        later(8)
        dispatcher.wake()
        await site.until(lambda: len(site.events("job_expired")) == 8)


async def test_the_fold_takes_it_only_after_the_latest_start(tmp_path) -> None:
    async with Journal.open(tmp_path / FILE_NAME, "berlin-1", ticking()) as journal:
        await journal.record([accepted(order(JOB))])
        with pytest.raises(
            IllegalTransitionError, match="may start before 2026-11-28T10:00:00Z, and only 2026-11-28T09"
        ):
            await journal.record([expired(floor="2026-11-28T09:59:59.999Z")])
        with pytest.raises(IllegalTransitionError, match="not known here"):
            await journal.record([expired("job-unheard-of")])
        await journal.record([expired()])
        with pytest.raises(IllegalTransitionError, match="has ended"):
            await journal.record([expired()])
        assert (await journal.verify()).problems == ()


async def test_a_forgotten_order_does_not_keep_old_events(tmp_path) -> None:
    async with Journal.open(tmp_path / FILE_NAME, "berlin-1", hourly()) as journal:
        await journal.record([accepted(order(JOB, expires_at=time_text(BEGAN + timedelta(days=5))))])
        await work(journal, 40)
        now, keep = BEGAN + timedelta(days=400), timedelta(days=90)
        await acknowledge(journal)
        assert last_to_go(tmp_path / FILE_NAME, now, keep) == 0
        await journal.record([expired(floor=stamp_text(BEGAN + timedelta(days=6)))])
        last = await acknowledge(journal)
        assert last_to_go(tmp_path / FILE_NAME, now, keep) == last - 1


async def test_orders_that_nobody_does_take_no_room_for_ever(tmp_path) -> None:
    """Also before each has its end: a person may have to see to that first."""
    async with Journal.open(tmp_path / FILE_NAME, "berlin-1", hourly()) as journal:
        needs, most = Needs(), 0
        for day in range(15):
            now = BEGAN + timedelta(days=day)
            file = {"sha256": f"{day:064x}", "size_bytes": 40_000_000, "media_type": "text/x.gcode"}
            draft = accepted(order(f"job-{day}", expires_at=time_text(now + 5 * DAY), artifacts={"body.gcode": file}))
            await journal.record([draft])
            for _ in range(22):  # each takes an hour, as the order and the question do
                await journal.record([Draft(EventKind.SITE_STARTED, "site", {})])
            found = await journal.transact(lambda transaction: needs.claims(transaction.connection))
            most = max(most, found.held_bytes)
        assert most <= 7 * 40_000_000


async def test_an_order_that_waits_for_the_time_is_refused_once_it_has_certainly_expired(tmp_path: Path) -> None:
    async with post(tmp_path, SetClock(IN_1970)) as site:
        soon, late = (
            site.signed(expires_at=time_text(right() + DAY)),
            site.signed(expires_at=time_text(right() + 3 * DAY)),
        )
        for raw in (soon, late):
            assert (await site.send(raw)).reason == "clock_untrusted"
        assert await site.intake.judge_parked() == 0
        site.clock.learn(Known(right() + 2 * DAY))  # as by a new trust root
        assert not site.clock.now().trusted
        assert await site.intake.judge_parked() == 1
        assert [event["body"]["reason"] for event in site.events("job_refused")] == ["expired"]
        assert site.parked() == 1
        assert datetime.now(UTC) < right() + 2 * DAY
