"""Between journal and machines: nothing that is wrong with one order or one program stops the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge import daemon
from edge.errors import FormatError, JournalError
from edge.intake.intake import Receipt
from edge.model.event import Draft, EventKind
from edge.reading import views
from edge.running import checker as checker_module
from edge.running import dispatch
from edge.running.checker import Checker
from edge.running.dispatch import Dispatcher
from edge.running.planner import CheckState, Code
from edge.trust import parse_order
from tests.helpers.fake_driver import succeed
from tests.helpers.rig import DEADLINE_S, Rig, rig
from tests.helpers.trust import PROGRAM, step_document


@contextlib.asynccontextmanager
async def dispatching(folder: Path) -> AsyncIterator[tuple[Rig, Dispatcher, Checker]]:
    """A site whose machine gets its work from a dispatcher."""
    async with rig(folder) as site:
        checker = Checker(lambda: made.wake())
        runners = {"prn-1": site.runner}
        made = Dispatcher(
            site.journal, folder, site.artifacts, site.authority, checker, site.clock, [site.equipment], runners
        )
        site.on_change = made.wake
        planning = asyncio.create_task(daemon._keep_going(made, "planning"))
        serving = asyncio.create_task(site.runner.serve())
        try:
            yield site, made, checker
        finally:
            planning.cancel()
            site.runner.close()
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.wait([planning, serving])
                await checker.close()


def code(dispatcher: Dispatcher, job_id: str) -> Code | None:
    """Why a job waits, first of all."""
    return next((blockers[0].code for key, blockers in dispatcher.waits.items() if key.job_id == job_id), None)


async def clear(site: Rig) -> None:
    (run_id,) = site.ask(lambda snapshot: snapshot.clearing()).values()
    await site.journal.record([Draft(EventKind.MACHINE_CLEARED, "user:ada", {"run_id": run_id}, machine="prn-1")])


async def test_a_submitted_job_is_checked_claimed_and_carried_out(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, checker):
        receipt = await site.submit()
        assert (await site.ended())["outcome"] == "SUCCEEDED"
        assert code(dispatcher, receipt.job_id) is None
        (sha256,) = receipt.stored
        assert checker.results[sha256, "prn-1"].state is CheckState.SUITS


async def test_an_accepted_order_waits_from_the_moment_the_root_expires(tmp_path) -> None:
    async with rig(tmp_path) as site:
        raw = json.dumps(site.order()).encode()
        signed, order, now = site.ceremony.sign(raw), parse_order(raw), site.clock.now()
        assert site.authority.known_refusal("digest", signed, order, now) == ""
        site.authority.root = site.authority.root.model_copy(update={"expires_at": now.wall})
        refused = site.authority.known_refusal("digest", signed, order, now)
        assert refused.startswith("this site's trust root expired at")
        altered = order.model_copy(update={"priority": 99})
        assert "not what was signed" in site.authority.refusal(signed, altered)


async def test_an_order_that_no_longer_parses_waits_alone(tmp_path, monkeypatch) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, _):
        parse = dispatch.parse_order

        def fussy(payload: bytes):
            if b"old-fashioned" in payload:
                raise FormatError("the order: holds is an unknown field")
            return parse(payload)

        monkeypatch.setattr(dispatch, "parse_order", fussy)
        old = await site.submit(product="old-fashioned")
        assert (await site.submit()).verdict.accepted
        assert (await site.ended())["outcome"] == "SUCCEEDED"
        assert code(dispatcher, old.job_id) is Code.UNREADABLE
        (blockers,) = [blockers for key, blockers in dispatcher.waits.items() if key.job_id == old.job_id]
        assert blockers[0].command == f"edge job cancel {old.job_id}"
        assert dispatcher.trouble == ""
        await site.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, old.job_id)])
        await site.until(lambda: code(dispatcher, old.job_id) is None)


async def test_one_slow_look_keeps_what_comes_next_waiting_for_a_bounded_time(tmp_path, monkeypatch) -> None:
    plan = dispatch.plan

    def slowly(*args):
        time.sleep(0.6)  # a host that is busy; in a thread
        return plan(*args)

    monkeypatch.setattr(dispatch, "plan", slowly)
    async with dispatching(tmp_path) as (site, dispatcher, _):
        await site.submit()
        await site.until(lambda: dispatcher.open)
        assert dispatcher._plan_from_s - site.clock.mono_s() <= dispatch.LONGEST_PAUSE_S


async def test_a_journal_that_cannot_be_read_is_told_and_read_again(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(dispatch, "RETRY_S", 0.01)
    async with dispatching(tmp_path) as (site, dispatcher, _):
        failures = []

        def failing(folder: Path):
            if len(failures) < 3:
                failures.append(dispatcher.trouble)
                raise JournalError("the disk has gone")
            return views_open(folder)

        views_open = views.open_readonly
        monkeypatch.setattr(views, "open_readonly", failing)
        dispatcher.wake()
        await site.until(lambda: len(failures) == 3)
        assert failures[1:] == ["the disk has gone"] * 2
        assert len([r for r in caplog.records if "the disk has gone" in r.getMessage()]) == 1, "told once"
        await site.until(lambda: dispatcher.trouble == "")


async def test_a_bug_in_planning_is_told_and_planning_begins_anew(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(daemon, "PLAN_AGAIN_S", 0.01)
    async with dispatching(tmp_path) as (site, dispatcher, _):
        plan, told = dispatch.plan, []

        def stumbling(*args):
            if len(told) < 2:
                told.append(dispatcher.trouble)
                raise ZeroDivisionError
            return plan(*args)

        monkeypatch.setattr(dispatch, "plan", stumbling)
        await site.submit()
        assert (await site.ended())["outcome"] == "SUCCEEDED"
        assert told[1].startswith("internal error (id ")
        assert [record for record in caplog.records if record.exc_info]
        assert dispatcher.trouble == ""


@pytest.mark.parametrize("steps", range(8))
async def test_planning_ends_when_it_is_told_to_in_the_middle_of_a_change(tmp_path, monkeypatch, steps: int) -> None:
    async with rig(tmp_path) as site:
        checker = Checker(lambda: None)
        planner = Dispatcher(site.journal, tmp_path, site.artifacts, site.authority, checker, site.clock, [], {})
        planned = asyncio.Event()

        async def one_round() -> None:
            planned.set()

        monkeypatch.setattr(planner, "_round", one_round)
        serving = asyncio.create_task(planner.serve())
        await planned.wait()
        for _ in range(5):
            await asyncio.sleep(0)  # until it waits for a change
        planner.wake()
        for _ in range(steps):
            await asyncio.sleep(0)
        serving.cancel()
        done, _ = await asyncio.wait([serving], timeout=1.0)
        serving.cancel()
        assert done


async def test_a_cancelled_run_is_stopped(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, _):
        begun = site.script.work_until_stopped()
        receipt = await site.submit()
        await begun.wait()
        await site.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, receipt.job_id)])
        assert (await site.ended())["outcome"] == "STOPPED"


async def test_a_program_that_the_driver_refuses_or_stumbles_over_is_not_started(tmp_path, caplog) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, checker):
        refused = await site.submit(b"refuse\n")
        stumbled = await site.submit(b"stumble\n")
        await site.until(lambda: code(dispatcher, stumbled.job_id) is code(dispatcher, refused.job_id) is Code.REFUSED)
        reasons = {result.reason for result in checker.results.values()}
        assert "line 1 X: 900 mm, allowed: 200 mm" in reasons
        assert any("internal error in the driver fake (id " in reason for reason in reasons)
        assert site.script.executed == []


async def test_a_program_damaged_before_its_check_is_set_aside_and_comes_again(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, checker):
        program = PROGRAM + b"; another\n"
        waiting = await site.submit(program, files=False)
        await site.until(lambda: code(dispatcher, waiting.job_id) is Code.NO_PROGRAM)
        order = waiting.verdict.order
        assert order is not None
        sha256 = order.artifacts["body.gcode"].sha256
        path = site.artifacts.path(sha256)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"refuse\n")
        dispatcher.wake()
        await site.until(lambda: site.events("artifact_lost"))
        await site.until(lambda: code(dispatcher, waiting.job_id) is Code.NO_PROGRAM)
        assert (sha256, "prn-1") not in checker.results, "what was found about other bytes counts for nothing"
        path.write_bytes(program)
        dispatcher.wake()
        assert (await site.ended())["outcome"] == "SUCCEEDED"


async def test_steps_wait_in_the_order_of_their_urgency(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, _):
        begun = site.script.work_until_stopped()
        first = await site.submit()
        await begun.wait()
        low = await site.submit(priority=10)
        high = await site.submit(priority=90)
        unfit = await site.submit(priority=99, steps=[step_document(requires={"material": "PETG"})])
        await site.until(lambda: code(dispatcher, unfit.job_id) is Code.UNMET)
        site.runner.stop(site.script.executed[0].run_id)
        await site.ended()
        site.script.execute = succeed
        await clear(site)
        await site.ended(2)
        assert [run.job_id for run in site.script.executed] == [first.job_id, high.job_id]
        await clear(site)
        await site.ended(3)
        assert site.script.executed[2].job_id == low.job_id


# The worker process


async def test_a_killed_worker_is_replaced_for_the_next_program(tmp_path, monkeypatch) -> None:
    async with dispatching(tmp_path) as (site, _, checker):
        await site.submit()
        await site.ended()
        (worker,) = checker._pool._processes.values()
        monkeypatch.setattr(checker_module, "AGAIN_S", 0.01)
        monkeypatch.setattr(checker_module, "check", _die)
        killed = await site.submit(b"G28\n")
        await site.until(lambda: found(checker, killed) is CheckState.REFUSED)
        monkeypatch.undo()
        good = await site.submit(b"G28 X\n")
        await site.until(lambda: found(checker, good) is CheckState.SUITS)
        assert worker.exitcode is not None


def found(checker: Checker, receipt: Receipt) -> CheckState | None:
    """What the check of a job's program has come to."""
    result = checker.results.get((receipt.stored[0], "prn-1"))
    return result and result.state


def _die(*args: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def test_a_worker_leaves_ctrl_c_to_the_daemon(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, checker):
        await site.submit()
        await site.ended()
        (worker,) = checker._pool._processes.values()
        os.kill(worker.pid, signal.SIGINT)
        await clear(site)
        await site.submit(b"G28\n")
        assert (await site.ended(2))["outcome"] == "SUCCEEDED"
        assert worker.is_alive()


async def test_checks_of_orders_that_have_ended_are_forgotten(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, checker):
        await site.submit()
        await site.ended()
        await clear(site)
        other = await site.submit(b"another program\n")
        await site.until(lambda: len(site.events("run_ended")) == 2)
        await clear(site)
        await site.until(lambda: [sha256 for sha256, _ in checker.results] == list(other.stored))
