"""A run that takes too long: told once, by the time at work, and nothing is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.driver import Outcome, Run, StillRunning
from edge.errors import IllegalTransitionError, JournalError
from edge.journal import scribe
from edge.model.event import Draft, EventKind
from edge.running import checker
from edge.running import runner as runner_module
from tests.helpers.fake_driver import SUCCEEDED
from tests.helpers.rig import Rig, SteeredRig, steered_rig, working_rig
from tests.helpers.trust import step_document
from tests.unit.test_dispatch import dispatching
from tests.unit.test_runner_left import at_work, left_rig

HOUR_S = 3600.0
"""Nobody waits for that: the clock is put forward, and the run made to look."""


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch) -> None:
    monkeypatch.setattr(runner_module, "RECONNECT_S", (0.01,))
    monkeypatch.setattr(scribe, "RETRY_S", 0.01)


@pytest.fixture
def forward(monkeypatch) -> Callable[[float], None]:
    """Put the host's clock since boot forward, by so many seconds."""
    real, ahead_s = SystemClock.since_boot_s, [0.0]

    def put(seconds: float) -> None:
        ahead_s[0] += seconds

    monkeypatch.setattr(SystemClock, "since_boot_s", lambda clock: real(clock) + ahead_s[0])
    return put


async def looked(site: Rig) -> None:
    """Whoever was to look at the journal has looked: it serves one after the other."""
    for _ in range(5):
        await site.journal.transact(lambda transaction: None)


def limited(limit_s: float | None) -> list[dict[str, Any]]:
    return [step_document(max_duration_s=limit_s)]


async def pause_and_go_on(site: SteeredRig) -> None:
    """Which makes the run look at the clock."""
    assert (await site.hold())["state"] == "SUSPENDED"
    assert (await site.release())["state"] == "RUNNING"
    await looked(site.site)


def until_it_may_end(site: Rig) -> asyncio.Event:
    """Runs go on until the event is set, and succeed."""
    may_end = asyncio.Event()

    async def execute(run: Run) -> Outcome:
        await may_end.wait()
        return SUCCEEDED

    site.script.execute = execute
    return may_end


async def test_a_run_over_its_limit_is_told_once_and_goes_on_to_its_end(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        may_end = until_it_may_end(site)
        await site.offer(await site.assignment(steps=limited(0.05)))
        await site.until(lambda: site.events("run_overran"))
        (told,) = site.events("run_overran")
        assert (told["actor"], told["machine"], told["part"], told["step"]) == ("site", "prn-1", 1, "print")
        assert told["run_id"] == site.events("run_began")[0]["run_id"]
        worked_s, detail = told["body"].pop("worked_s"), told["body"].pop("detail")
        assert "longer than its limit of 0 s" in detail
        assert 0.04 < worked_s < 10
        assert told["body"] == {"limit_s": 0.05, "predicted_s": None}
        assert site.step(told["job_id"])["state"] == "RUNNING"
        may_end.set()
        assert (await site.ended())["outcome"] == "SUCCEEDED"
        assert (len(site.events("run_overran")), site.script.stops, site.script.aborts) == (1, 0, 0)


async def test_a_pause_does_not_count_and_the_time_before_and_after_it_does(tmp_path, forward) -> None:
    async with steered_rig(tmp_path, limited(HOUR_S)) as site:
        forward(HOUR_S / 2)
        await site.hold()
        forward(10 * HOUR_S)  # the spool is looked at tomorrow
        await site.release()
        await looked(site.site)
        assert site.site.events("run_overran") == []
        forward(HOUR_S / 3)
        await pause_and_go_on(site)
        assert site.site.events("run_overran") == []
        forward(HOUR_S / 3)
        await pause_and_go_on(site)
        (told,) = site.site.events("run_overran")
        assert HOUR_S < told["body"]["worked_s"] < 1.2 * HOUR_S
        forward(HOUR_S)
        await pause_and_go_on(site)
        assert len(site.site.events("run_overran")) == 1


async def test_a_run_that_is_paused_when_its_limit_would_pass_is_not_told_of(tmp_path) -> None:
    async with steered_rig(tmp_path, limited(HOUR_S)) as site:
        execution = site.site.runner._execution
        assert execution is not None
        await site.hold()
        await looked(site.site)
        assert await site.site.journal.transact(execution._overrun._tell) == float("inf")


async def test_without_a_limit_nobody_waits(tmp_path, forward) -> None:
    async with steered_rig(tmp_path, limited(None)) as site:
        (began,) = site.site.events("run_began")
        assert (began["body"]["predicted_s"], began["body"]["limit_s"]) == (None, None)
        forward(100 * HOUR_S)
        await pause_and_go_on(site)
        assert site.site.events("run_overran") == []


async def test_the_limit_comes_from_the_drivers_prediction_where_the_order_says_nothing(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, _):
        await site.submit()
        assert (await site.ended())["outcome"] == "SUCCEEDED"
        (began,) = site.events("run_began")
        assert (began["body"]["predicted_s"], began["body"]["limit_s"]) == (12.0, 1.5 * 12 + 900)


async def test_the_orders_word_stands_beside_the_prediction(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, _):
        await site.submit(steps=limited(7200))
        assert (await site.ended())["outcome"] == "SUCCEEDED"
        (began,) = site.events("run_began")
        assert (began["body"]["predicted_s"], began["body"]["limit_s"]) == (12.0, 7200)


@pytest.mark.parametrize("duration_s", [float("nan"), float("inf"), -1.0])
def test_a_prediction_that_no_clock_reaches_is_none(duration_s) -> None:
    assert checker._in_numbers(duration_s) is None


# Away and back


async def test_a_limit_that_passed_while_the_daemon_was_down_is_told_when_the_run_goes_on(tmp_path, forward) -> None:
    async with left_rig(tmp_path, StillRunning(), "resume", limit_s=HOUR_S) as site:
        may_end = until_it_may_end(site)
        forward(2 * HOUR_S)
        async with at_work(site):
            await site.until(lambda: site.events("run_overran"))
            may_end.set()
            assert (await site.ended())["outcome"] == "SUCCEEDED"
        kinds = [event["kind"] for event in site.ask(lambda snapshot: snapshot.events(job_id=site.job_id))]
        assert kinds[-3:] == ["run_resumed", "run_overran", "run_ended"]


async def test_what_was_told_is_not_told_again_by_the_next_daemon(tmp_path, forward) -> None:
    async with left_rig(tmp_path, StillRunning(), "resume", limit_s=HOUR_S) as site:
        may_end = until_it_may_end(site)
        about = (site.job_id, 1, "print", "r1", "prn-1")
        told = {"worked_s": 3601.0, "limit_s": HOUR_S, "predicted_s": None}
        await site.journal.record([Draft(EventKind.RUN_OVERRAN, "site", told, *about)])
        forward(2 * HOUR_S)
        async with at_work(site):
            await site.until(lambda: site.events("run_resumed"))
            await looked(site)
            may_end.set()
            await site.ended()
        assert len(site.events("run_overran")) == 1


async def test_a_run_that_an_older_edge_began_has_no_limit(tmp_path, forward) -> None:
    async with left_rig(tmp_path, StillRunning(), "resume") as site:
        assert "limit_s" not in site.events("run_began")[0]["body"]
        may_end = until_it_may_end(site)
        forward(100 * HOUR_S)
        async with at_work(site):
            await site.until(lambda: site.events("run_resumed"))
            await looked(site)
            may_end.set()
            assert (await site.ended())["outcome"] == "SUCCEEDED"
        assert site.events("run_overran") == []


# The journal


async def test_it_is_told_when_the_journal_takes_it_again(tmp_path, monkeypatch) -> None:
    async with steered_rig(tmp_path, limited(0.3)) as site:
        transact, failures = site.site.journal.transact, []

        async def full(fn: Any) -> Any:
            if getattr(fn, "__name__", "") == "_tell" and len(failures) < 3:
                failures.append(1)
                raise JournalError("the disk is full")
            return await transact(fn)

        monkeypatch.setattr(site.site.journal, "transact", full)
        await site.site.until(lambda: site.site.events("run_overran"))
        assert len(failures) == 3
        assert (await site.cancel())["state"] == "ABORTED"


async def test_nothing_is_told_of_a_run_that_has_ended(tmp_path) -> None:
    async with steered_rig(tmp_path, limited(HOUR_S)) as site:
        execution = site.site.runner._execution
        assert execution is not None
        await site.cancel()
        (began,) = site.site.events("run_began")
        assert await site.site.journal.transact(execution._overrun._tell) is None
        told = {"worked_s": 1.0, "limit_s": 1.0, "predicted_s": None}
        about = (site.job_id, 1, "print", began["run_id"], "prn-1")
        with pytest.raises(IllegalTransitionError, match="has ended"):
            await site.site.journal.record([Draft(EventKind.RUN_OVERRAN, "site", told, *about)])
