"""One machine at work: what is written down, when, and what becomes of everything a driver can do."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from datetime import UTC, datetime

import pytest

from edge.driver import (
    ConnectError,
    IdentityError,
    MachineError,
    MachineState,
    Motion,
    NotAcceptableError,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    ProtocolError,
    Run,
    StateSeen,
)
from edge.errors import CorruptJournalError, JournalError
from edge.journal import scribe
from edge.model.event import Draft, EventKind
from edge.running import execution
from edge.running import runner as runner_module
from edge.trust import TrustRoot
from tests.helpers.fake_driver import SUCCEEDED
from tests.helpers.rig import rig, working_rig
from tests.helpers.trust import root_document


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch) -> None:
    monkeypatch.setattr(runner_module, "RECONNECT_S", (0.01,))
    monkeypatch.setattr(scribe, "RETRY_S", 0.01)
    monkeypatch.setattr("edge.running.claim.CLAIM_RETRY_S", 0.01)
    monkeypatch.setattr(scribe, "LAST_WORDS_S", 0.1)
    monkeypatch.setattr(execution, "AFTER_STOP_S", 0.05)


async def test_run_began_is_durable_before_the_driver_is_called(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        seen = []

        async def execute(run: Run) -> Outcome:
            (began,) = site.events("run_began")
            seen.append((began["run_id"] == run.run_id, site.ask(lambda s: s.clearing()) == {"prn-1": run.run_id}))
            return SUCCEEDED

        site.script.execute = execute
        assert (await site.carry_out())["outcome"] == "SUCCEEDED"
        assert seen == [(True, True)]


@pytest.mark.parametrize(
    ("error", "outcome", "motion"),
    [
        (NotAcceptableError("line 7 X", 900, 200, "mm"), "FAILED", "none"),
        (ConnectError("gone"), "FAILED", "none"),
        (IdentityError("another"), "FAILED", "none"),
        (ProtocolError("what?"), "FAILED", "possible"),
        (MachineError("jammed"), "FAILED", "possible"),
        (MachineError("jammed", Motion.NONE), "FAILED", "none"),
        (NotConfirmedError("silent"), "UNKNOWN", "possible"),
        (NotConfirmedError("silent", Motion.NONE), "UNKNOWN", "possible"),
        (JournalError("a checkpoint could not be kept"), "UNKNOWN", "possible"),
    ],
)
async def test_what_a_driver_raises_becomes_the_outcome(tmp_path, error, outcome, motion) -> None:
    async with working_rig(tmp_path) as site:

        async def execute(run: Run) -> Outcome:
            raise error

        site.script.execute = execute
        ended = await site.carry_out()
        assert (ended["outcome"], ended["motion"]) == (outcome, motion)
        assert str(error) in ended["reason"]
        (event,) = site.events("run_ended")
        assert site.step(event["job_id"])["state"] == "HELD"
        # A machine on which nothing can have moved needs no clearing.
        cleared = outcome == "FAILED" and motion == "none"
        assert (site.ask(lambda s: s.clearing())["prn-1"] is None) is cleared


def _nothing(run: Run) -> object:
    return None


def _no_json(run: Run) -> object:
    return Outcome(OutcomeKind.SUCCEEDED, Motion.POSSIBLE, "done", {"raw": b"\x00"})  # type: ignore[dict-item]


def _no_number(run: Run) -> object:
    return Outcome(OutcomeKind.SUCCEEDED, Motion.POSSIBLE, "done", {"degc": float("nan")})


def _bug(run: Run) -> object:
    return {}["no such key"]


@pytest.mark.parametrize("behave", [_bug, _nothing, _no_json, _no_number])
async def test_a_drivers_bug_ends_the_run_as_unknown_and_the_machine_goes_on(tmp_path, caplog, behave) -> None:
    async with working_rig(tmp_path) as site:
        good = site.script.execute

        async def execute(run: Run) -> Outcome:
            return behave(run)

        site.script.execute = execute
        ended = await site.carry_out()
        assert (ended["outcome"], ended["motion"]) == ("UNKNOWN", "possible")
        found = re.search(r"internal error in the driver fake \(id (\w{8})\)", ended["reason"])
        assert found is not None
        (logged,) = [record for record in caplog.records if record.exc_info]
        assert found[1] in logged.getMessage()

        (event,) = site.events("run_ended")
        await site.journal.record(
            [Draft(EventKind.MACHINE_CLEARED, "user:ada", {"run_id": event["run_id"]}, machine="prn-1")]
        )
        site.script.execute = good
        assert (await site.carry_out())["outcome"] == "SUCCEEDED"


async def test_a_stop_that_is_confirmed_ends_the_run_as_stopped(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        begun = site.script.work_until_stopped()
        await site.offer(await site.assignment())
        await begun.wait()
        site.runner.stop("another run")
        assert site.script.stops == 0
        run_id = site.script.executed[0].run_id
        site.runner.stop(run_id)
        site.runner.stop(run_id)
        ended = await site.ended()
        assert (ended["outcome"], ended["motion"], site.script.stops) == ("STOPPED", "possible", 1)
        site.runner.stop(run_id)  # it has ended: nothing is left to stop
        assert site.script.stops == 1


async def _not_confirmed() -> None:
    raise NotConfirmedError("no answer to the stop")


async def _stumble() -> None:
    raise KeyError("stumble")


async def _confirm_and_go_on() -> None:
    """What a driver must not do."""


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        (_not_confirmed, "no answer to the stop"),
        (_stumble, "internal error in the driver fake"),
        (_confirm_and_go_on, "confirmed the stop, and yet the run went on"),
    ],
)
async def test_a_stop_that_is_not_confirmed_ends_the_run_as_unknown(tmp_path, stop, reason) -> None:
    async with working_rig(tmp_path) as site:
        begun = site.script.work_until_stopped()
        site.script.stop = stop
        await site.offer(await site.assignment())
        await begun.wait()
        site.runner.stop(site.script.executed[0].run_id)
        ended = await site.ended()
        assert (ended["outcome"], ended["motion"]) == ("UNKNOWN", "possible")
        assert reason in ended["reason"]


async def test_a_stop_requested_between_the_claim_and_the_drivers_start_reaches_it(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        site.script.work_until_stopped()

        def as_the_dispatcher() -> None:
            for run_id, _, requested in site.ask(lambda snapshot: snapshot.requests()):
                (site.runner.stop if requested.ends_the_run else site.runner.look)(run_id)

        record = site.journal.record

        async def record_and_cancel(drafts, *more):
            events = await record(drafts, *more)
            if drafts[0].kind is EventKind.RUN_BEGAN:
                await record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, drafts[0].job_id)])
            return events

        site.on_change = as_the_dispatcher
        site.journal.record = record_and_cancel
        ended = await site.carry_out()
        assert (ended["outcome"], site.script.stops) == ("STOPPED", 1)
        (event,) = site.events("run_ended")
        assert site.step(event["job_id"])["state"] == "ABORTED"


async def test_a_connection_lost_in_a_run_ends_it_and_is_made_again(tmp_path) -> None:
    async with working_rig(tmp_path) as site:

        async def execute(run: Run) -> Outcome:
            site.script.lose("unplugged")
            raise NotConfirmedError("the link broke")

        site.script.execute = execute
        assert (await site.carry_out())["outcome"] == "UNKNOWN"
        await site.until(lambda: len(site.events("machine_online")) == 2)
        (offline,) = site.events("machine_offline")
        assert offline["body"] == {"reason": "unplugged"}
        assert (site.script.opened, site.script.closed) == (2, 1)
        assert site.runner.seen.state is MachineState.IDLE


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectError("nobody there"), "nobody there"),
        (OSError(13, "denied"), "denied"),
        (ValueError("x"), "internal error"),
    ],
)
async def test_a_machine_that_cannot_be_opened_is_offline_until_it_can_and_that_is_told_once(
    tmp_path, error, reason
) -> None:
    async with rig(tmp_path) as site:
        attempts = []

        async def opening() -> None:
            attempts.append(site.runner.seen)
            if len(attempts) < 4:
                raise error

        site.script.open = opening
        serving = asyncio.create_task(site.runner.serve())
        await site.until(lambda: site.events("machine_online"))
        (offline,) = site.events("machine_offline")
        assert reason in offline["body"]["reason"]
        assert all(seen.state is MachineState.OFFLINE for seen in attempts)
        site.runner.close()
        await serving


async def test_a_damaged_program_is_set_aside_and_not_started(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        assignment = await site.assignment()
        site.program_of(assignment).path.chmod(0o640)
        site.program_of(assignment).path.write_bytes(b"G1 X0\n")
        await site.offer(assignment)
        await site.until(lambda: site.events("artifact_lost"))
        (lost,) = site.events("artifact_lost")
        assert lost["job_id"] == assignment.key.job_id
        assert lost["body"]["sha256"] == site.program_of(assignment).sha256
        assert not site.artifacts.has(site.program_of(assignment).sha256)
        assert (tmp_path / "artifacts" / "quarantine" / site.program_of(assignment).sha256).read_bytes() == b"G1 X0\n"
        assert (site.script.executed, site.events("run_began")) == ([], [])
        assert (await site.carry_out())["outcome"] == "SUCCEEDED", "the machine is free for the next"


async def test_a_damaged_program_that_cannot_be_set_aside_is_not_started_either(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        assignment = await site.assignment()
        site.program_of(assignment).path.write_bytes(b"G1 X0\n")
        (tmp_path / "artifacts" / "quarantine").write_text("in the way")
        await site.offer(assignment)
        await site.until(lambda: site.runner.claimed is None)
        assert (site.script.executed, site.events("run_began")) == ([], [])


async def test_a_stale_revision_is_not_started(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        assignment = await site.assignment()
        await site.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, assignment.key.job_id)])
        await site.offer(assignment)
        await site.until(lambda: site.runner.claimed is None)
        assert (site.script.executed, site.events("run_began")) == ([], [])


async def test_an_order_that_expired_between_plan_and_claim_is_not_started(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        assignment = await site.assignment()
        site.clock.wall = lambda: assignment.order.expires_at  # type: ignore[method-assign]
        await site.offer(assignment)
        await site.until(lambda: site.runner.claimed is None)
        assert (site.script.executed, site.events("run_began")) == ([], [])


async def test_an_order_whose_key_was_revoked_is_not_started(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        assignment = await site.assignment()
        site.authority.root = TrustRoot.model_validate(root_document(revoked=("orders@acme",)))
        await site.offer(assignment)
        await site.until(lambda: site.runner.claimed is None)
        assert (site.script.executed, site.events("run_began")) == ([], [])


async def test_an_order_is_not_started_under_a_root_that_has_expired_since(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        assignment = await site.assignment()
        site.authority.root = site.authority.root.model_copy(update={"expires_at": datetime.now(UTC)})
        await site.offer(assignment)
        await site.until(lambda: site.runner.claimed is None)
        assert (site.script.executed, site.events("run_began")) == ([], [])


async def test_only_what_was_signed_is_carried_out_whatever_the_tables_say(tmp_path, caplog) -> None:
    async with working_rig(tmp_path) as site:
        assignment = await site.assignment()
        (step,) = assignment.order.steps
        altered = step.model_copy(update={"parameters": {"nozzle_degc": 400}})
        order = assignment.order.model_copy(update={"steps": (altered,)})
        await site.offer(dataclasses.replace(assignment, order=order))
        await site.until(lambda: site.runner.claimed is None)
        assert (site.script.executed, site.events("run_began")) == ([], [])
        assert "not what was signed" in caplog.text


async def test_a_checkpoint_is_kept_as_soon_as_the_journal_takes_it(tmp_path, monkeypatch) -> None:
    async with working_rig(tmp_path) as site:
        kept, failures = site.journal.checkpoint, []

        async def keep(run_id: str, value: object) -> None:
            if len(failures) < 3:
                failures.append(value)
                raise JournalError("the disk is full")
            await kept(run_id, value)

        async def execute(run: Run) -> Outcome:
            assert site.script.context is not None
            await site.script.context.checkpoint({"line": 7})
            return SUCCEEDED

        monkeypatch.setattr(site.journal, "checkpoint", keep)
        site.script.execute = execute
        assert (await site.carry_out())["outcome"] == "SUCCEEDED"
        assert await site.journal.checkpoint_of(site.script.executed[0].run_id) == {"line": 7}


async def test_a_machine_that_needs_clearing_is_not_started_whatever_the_plan_says(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        await site.carry_out()
        await site.offer(await site.assignment())
        await site.until(lambda: site.runner.claimed is None)
        assert len(site.script.executed) == 1


async def test_the_end_of_a_run_is_recorded_as_soon_as_the_journal_takes_it(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        record, failures, seen = site.journal.record, [], []

        async def failing(drafts, *more):
            if drafts[0].kind is EventKind.RUN_ENDED and len(failures) < 3:
                failures.append(drafts)
                seen.append((site.runner.seen, site.runner.claimed))
                raise JournalError("the disk is full")
            return await record(drafts, *more)

        site.journal.record = failing
        assert (await site.carry_out())["outcome"] == "SUCCEEDED"
        assert seen[-1][0] == StateSeen(MachineState.STOPPED, "the journal cannot be written: the disk is full")
        assert seen[-1][1] is not None, "it takes nothing else meanwhile"
        await site.until(lambda: site.runner.seen.state is MachineState.IDLE)


async def test_a_claim_waits_for_the_journal_and_nothing_starts_before(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        record, failures = site.journal.record, []

        async def failing(drafts, *more):
            if drafts[0].kind is EventKind.RUN_BEGAN and len(failures) < 3:
                failures.append(len(site.script.executed))
                raise JournalError("the disk is full")
            return await record(drafts, *more)

        site.journal.record = failing
        assert (await site.carry_out())["outcome"] == "SUCCEEDED"
        assert failures == [0, 0, 0]


async def test_a_closing_runner_gives_a_dead_journal_up_and_leaves_the_run_open_for_the_next_start(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        record = site.journal.record

        async def failing(drafts, *more):
            if drafts[0].kind is EventKind.RUN_ENDED:
                raise CorruptJournalError("damaged")
            return await record(drafts, *more)

        site.journal.record = failing
        begun = site.script.work_until_stopped()
        await site.offer(await site.assignment())
        await begun.wait()
        site.runner.close()
        await site.until(lambda: site.script.closed)
        assert [run.run_id for run in await site.journal.open_runs()] == [site.script.executed[0].run_id]


async def test_close_stops_the_run_and_returns_when_its_end_is_recorded(tmp_path) -> None:
    async with rig(tmp_path) as site:
        serving = asyncio.create_task(site.runner.serve())
        begun = site.script.work_until_stopped()
        await site.offer(await site.assignment())
        await begun.wait()
        site.runner.close()
        await serving
        (ended,) = site.events("run_ended")
        assert ended["body"]["outcome"] == "STOPPED"
        assert site.step(ended["job_id"])["state"] == "HELD"
        assert site.script.closed == 1


async def test_close_right_after_the_claim_starts_nothing_and_says_so(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        record = site.journal.record

        async def record_and_close(drafts, *more):
            events = await record(drafts, *more)
            if drafts[0].kind is EventKind.RUN_BEGAN:
                site.runner.close()
            return events

        site.journal.record = record_and_close
        ended = await site.carry_out()
        assert (ended["outcome"], ended["motion"], site.script.executed) == ("STOPPED", "none", [])
        assert site.ask(lambda snapshot: snapshot.clearing()) == {"prn-1": None}


async def test_close_does_not_wait_for_a_machine_that_does_not_answer(tmp_path) -> None:
    async with rig(tmp_path) as site:
        opening = asyncio.Event()

        async def never() -> None:
            opening.set()
            await asyncio.Event().wait()

        site.script.open = never
        serving = asyncio.create_task(site.runner.serve())
        await opening.wait()
        site.runner.close()
        async with asyncio.timeout(1.0):
            await serving
        assert site.events("machine_offline") == []


async def test_checkpoints_belong_to_the_run_that_is_going_on(tmp_path) -> None:
    async with working_rig(tmp_path) as site:

        async def execute(run: Run) -> Outcome:
            assert site.script.context is not None
            await site.script.context.checkpoint({"line": 7})
            return SUCCEEDED

        site.script.execute = execute
        await site.carry_out()
        assert await site.journal.checkpoint_of(site.script.executed[0].run_id) == {"line": 7}
        with pytest.raises(RuntimeError, match="belongs to a run"):
            await site.runner.checkpoint(8)


async def test_a_busy_machine_takes_no_second_offer(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        begun = site.script.work_until_stopped()
        await site.offer(await site.assignment())
        await begun.wait()
        assert site.runner.offer(await site.assignment()) is False
        run_id = site.script.executed[0].run_id
        assert site.runner.view(None).busy_with == run_id


async def test_nothing_begins_before_the_journal_was_checked(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("edge.journal.journal.CHECK_AT_OPEN_BYTES", -1)
    async with rig(tmp_path) as site:
        assignment = await site.assignment()
        serving = asyncio.create_task(site.runner.serve(), name="test: serve")
        try:
            await site.until(lambda: site.events("machine_online"))
            assert not site.runner.offer(assignment)
            await site.journal.check()
            await site.until(lambda: site.runner.offer(assignment))
            await site.until(lambda: site.events("run_began"))
        finally:
            site.runner.close()
            await serving


async def test_a_runner_that_waits_for_the_check_can_be_closed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("edge.journal.journal.CHECK_AT_OPEN_BYTES", -1)
    async with rig(tmp_path) as site:
        serving = asyncio.create_task(site.runner.serve(), name="test: serve")
        await site.until(lambda: site.events("machine_online"))
        site.runner.close()
        async with asyncio.timeout(10):
            await serving
