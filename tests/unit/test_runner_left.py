"""A run that the last daemon left open: when it goes on, when it is stopped; no request for its end is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.driver import (
    At,
    Finished,
    Lost,
    MachineState,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Recovery,
    Run,
    StillRunning,
)
from edge.errors import JournalError
from edge.journal import scribe
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.event import Draft, EventKind
from edge.running import execution
from edge.running import runner as runner_module
from edge.running.recovery import left_runs
from edge.running.runner import Runner
from edge.timefloor import Source
from tests.helpers.fake_driver import SUCCEEDED
from tests.helpers.rig import DEADLINE_S, Rig
from tests.helpers.trust import step_document

CAN_GO_ON = [At({"after": 1}), StillRunning()]


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch) -> None:
    monkeypatch.setattr(runner_module, "RECONNECT_S", (0.01,))
    monkeypatch.setattr(scribe, "RETRY_S", 0.01)
    monkeypatch.setattr(scribe, "LAST_WORDS_S", 0.1)
    monkeypatch.setattr(execution, "AFTER_STOP_S", 0.05)
    monkeypatch.setattr(execution, "DETACH_S", 0.2)


class LeftRig(Rig):
    """A site whose last daemon died in a run; `job_id` is its job, `recovery` what the machine answers."""

    job_id: str
    recovery: Recovery

    async def cancel(self) -> None:
        await self.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, self.job_id)])

    def make_runner(self, left: dict[str, Any]) -> None:
        self.runner = Runner(
            self.equipment,
            self.journal,
            self.artifacts,
            self.authority,
            self.clock,
            self.folder,
            self.folder / "runtime",
            self._changed,
            left.get("prn-1"),
        )


@contextlib.asynccontextmanager
async def left_rig(
    folder: Path, recovery: Recovery, on_restart: str, cancelled: bool = False, limit_s: float | None = None
) -> AsyncIterator[LeftRig]:
    """With the machine not at work yet."""
    async with Journal.open(folder / FILE_NAME, "berlin-1", SystemClock(Source.HOST).stamp) as journal:
        site = LeftRig(folder, journal)
        assignment = await site.assignment(steps=[step_document(on_restart=on_restart)])
        site.job_id, site.recovery = assignment.key.job_id, recovery
        claim = {"attempt": 1, "sha256": site.program_of(assignment).sha256}
        claim |= {} if limit_s is None else {"predicted_s": None, "limit_s": limit_s}
        await journal.record([Draft(EventKind.RUN_BEGAN, "site", claim, site.job_id, 1, "print", "r1", "prn-1")])
        if cancelled:
            await site.cancel()

        async def recover(run: Run) -> Recovery:
            return site.recovery

        def pass_stops_on() -> None:
            for run_id, _, requested in site.ask(lambda snapshot: snapshot.requests()):
                (site.runner.stop if requested.ends_the_run else site.runner.look)(run_id)

        site.script.recover = recover
        site.on_change = pass_stops_on
        site.make_runner(await left_runs(journal, site.artifacts, site.authority, {"prn-1"}))
        yield site


@contextlib.asynccontextmanager
async def at_work(site: LeftRig) -> AsyncIterator[None]:
    serving = asyncio.create_task(site.runner.serve(), name="runner")
    try:
        yield
    finally:
        site.runner.close()
        async with asyncio.timeout(DEADLINE_S):
            await serving


@pytest.mark.parametrize("recovery", CAN_GO_ON)
async def test_a_run_that_can_go_on_goes_on(tmp_path, recovery) -> None:
    async with left_rig(tmp_path, recovery, "resume") as site, at_work(site):
        assert (await site.ended())["outcome"] == "SUCCEEDED"
        assert (len(site.events("run_resumed")), len(site.script.executed)) == (1, 1)
        assert site.script.executed[0].run_id == "r1"


@pytest.mark.parametrize("recovery", CAN_GO_ON)
async def test_a_cancel_from_before_the_daemon_died_stops_the_run(tmp_path, recovery) -> None:
    async with left_rig(tmp_path, recovery, "resume", cancelled=True) as site, at_work(site):
        ended = await site.ended()
        assert (ended["outcome"], site.script.executed, site.script.stops) == ("STOPPED", [], 1)
        assert ended["reason"].endswith("a stop was requested")
        assert site.step(site.job_id)["state"] == "ABORTED"


@pytest.mark.parametrize("recovery", CAN_GO_ON)
async def test_a_cancel_that_comes_while_the_machine_is_asked_stops_the_run(tmp_path, recovery) -> None:
    async with left_rig(tmp_path, recovery, "resume") as site:

        async def recover(run: Run) -> Recovery:
            await site.cancel()
            return recovery

        site.script.recover = recover
        async with at_work(site):
            ended = await site.ended()
        assert (ended["outcome"], site.script.executed, site.script.stops) == ("STOPPED", [], 1)
        assert (site.step(site.job_id)["state"], site.events("run_resumed")) == ("ABORTED", [])


async def test_a_cancel_right_after_the_run_goes_on_stops_it(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        begun = site.script.work_until_stopped()
        async with at_work(site):
            await begun.wait()
            await site.cancel()
            site.on_change()
            assert (await site.ended())["outcome"] == "STOPPED"
        assert (site.step(site.job_id)["state"], site.script.stops) == ("ABORTED", 1)


@pytest.mark.parametrize(("on_restart", "state"), [("hold", "HELD"), ("abort", "ABORTED")])
async def test_what_the_order_says_is_the_reason(tmp_path, on_restart, state) -> None:
    async with left_rig(tmp_path, At({"after": 1}), on_restart) as site, at_work(site):
        ended = await site.ended()
        assert (ended["outcome"], site.step(site.job_id)["state"]) == ("STOPPED", state)
        assert ended["reason"].endswith(f'the order says: on_restart = "{on_restart}"')


async def test_a_daemon_that_is_stopped_meanwhile_makes_the_machine_safe_and_keeps_the_plate_marked(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:

        async def recover(run: Run) -> Recovery:
            site.runner.close()
            return site.recovery

        site.script.recover = recover
        async with at_work(site):
            ended = await site.ended()
        assert (ended["outcome"], ended["motion"], site.script.stops) == ("STOPPED", "possible", 1)
        assert ended["reason"].endswith("the daemon is being stopped")
        assert site.ask(lambda snapshot: snapshot.clearing()) == {"prn-1": "r1"}


async def test_a_stop_of_the_daemon_while_run_resumed_is_written_is_no_clean_plate(tmp_path, monkeypatch) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        transact = site.journal.transact

        async def slow(write: Any) -> Any:
            value = await transact(write)
            if site.events("run_resumed"):
                site.runner.close()
            return value

        monkeypatch.setattr(site.journal, "transact", slow)
        async with at_work(site):
            ended = await site.ended()
        assert (ended["outcome"], ended["motion"], site.script.stops) == ("STOPPED", "possible", 1)
        assert site.ask(lambda snapshot: snapshot.clearing()) == {"prn-1": "r1"}


async def test_a_daemon_that_is_restarted_meanwhile_leaves_the_run_to_its_successor(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:

        async def recover(run: Run) -> Recovery:
            site.runner.close(leave=True)
            return site.recovery

        site.script.recover = recover
        async with asyncio.timeout(DEADLINE_S):
            await site.runner.serve()
        assert (site.events("run_resumed"), site.events("run_ended"), site.script.stops) == ([], [], 0)
        assert [run.run_id for run in await site.journal.open_runs()] == ["r1"]


async def test_a_bug_in_the_stop_is_unknown_and_frees_the_runner(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "hold") as site:

        async def stop() -> None:
            raise RuntimeError("a bug")

        site.script.stop = stop
        async with at_work(site):
            ended = await site.ended()
            assert ended["outcome"] == "UNKNOWN"
            assert "internal error in the driver fake" in ended["reason"]
            await site.until(lambda: site.runner.run_id is None)
        assert site.step(site.job_id)["state"] == "HELD"


async def test_the_machine_takes_no_work_before_the_end_is_durable(tmp_path, monkeypatch) -> None:
    async with left_rig(tmp_path, Finished(SUCCEEDED), "resume") as site:
        record, failures = site.journal.record, []

        async def fail(drafts: Any, expected_revision: int | None = None) -> Any:
            if drafts[0].kind is EventKind.RUN_ENDED and len(failures) < 3:
                failures.append(site.runner.run_id)
                raise JournalError("the disk is full")
            return await record(drafts, expected_revision)

        monkeypatch.setattr(site.journal, "record", fail)
        async with at_work(site):
            assert (await site.ended())["outcome"] == "SUCCEEDED"
        assert failures == ["r1"] * 3


@pytest.mark.parametrize(
    ("lost", "stops", "said"),
    [(Lost("nobody knows"), 1, "and confirmed it"), (Lost("another printer is there", same_machine=False), 0, "there")],
)
async def test_a_machine_that_cannot_say_is_made_safe_and_the_run_stays_unknown(tmp_path, lost, stops, said) -> None:
    async with left_rig(tmp_path, lost, "resume") as site, at_work(site):
        ended = await site.ended()
        assert (ended["outcome"], site.script.stops) == ("UNKNOWN", stops)
        assert ended["reason"].startswith(f"the daemon ended while the run was going on: {lost.reason}")
        assert ended["reason"].endswith(said)


async def test_a_stop_that_is_not_confirmed_is_told_beside_what_is_not_known(tmp_path) -> None:
    async with left_rig(tmp_path, Lost("nobody knows"), "resume") as site:

        async def stop() -> None:
            raise NotConfirmedError("no answer")

        site.script.stop = stop
        async with at_work(site):
            ended = await site.ended()
        assert (ended["outcome"], ended["evidence"]) == ("UNKNOWN", {"stop_confirmed": False})
        assert "its stop was not confirmed: no answer" in ended["reason"]


async def test_a_run_whose_order_is_not_as_signed_does_not_go_on(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        await site.journal.transact(
            lambda t: t.connection.execute("UPDATE orders SET payload = replace(payload, 'resume', 'resume ')")
        )
        assert await left_runs(site.journal, site.artifacts, site.authority, {"prn-1"}) == {}, "cannot be read"
        await site.journal.transact(
            lambda t: t.connection.execute("UPDATE orders SET payload = replace(payload, 'resume ', 'abort')")
        )
        left = await left_runs(site.journal, site.artifacts, site.authority, {"prn-1"})
        assert "not what was signed" in left["prn-1"].forbids


async def test_a_row_that_is_missing_keeps_no_daemon_from_starting(tmp_path, caplog) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        await site.journal.transact(lambda t: t.connection.execute("UPDATE steps SET requested = 'dance'"))
        assert await left_runs(site.journal, site.artifacts, site.authority, {"prn-1"}) == {}
        assert "cannot be recovered" in caplog.text


# Letting go of a run


async def test_a_run_is_let_go_of_and_stays_open(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        begun = site.script.work_until_stopped()

        async def detach() -> None:
            pass

        site.script.detach = detach
        serving = asyncio.create_task(site.runner.serve())
        await begun.wait()
        site.runner.close(leave=True)
        await serving
        assert (site.events("run_ended"), site.script.stops) == ([], 0)


async def test_a_run_that_ends_by_itself_while_it_is_let_go_of_is_recorded(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        begun, last = asyncio.Event(), asyncio.Event()

        async def execute(run: Run) -> Outcome:
            begun.set()
            await last.wait()
            return Outcome(OutcomeKind.SUCCEEDED, SUCCEEDED.motion, "just in time")

        async def detach() -> None:
            last.set()
            await asyncio.Event().wait()

        site.script.execute, site.script.detach = execute, detach
        serving = asyncio.create_task(site.runner.serve())
        await begun.wait()
        site.runner.close(leave=True)
        await serving
        assert (await site.ended())["reason"] == "just in time"


async def test_a_machine_that_never_acknowledges_is_let_go_of_at_the_deadline(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        begun = site.script.work_until_stopped()

        async def detach() -> None:
            await asyncio.Event().wait()

        site.script.detach = detach
        serving = asyncio.create_task(site.runner.serve())
        await begun.wait()
        site.runner.close(leave=True)
        async with asyncio.timeout(DEADLINE_S):
            await serving
        assert (site.events("run_ended"), site.script.stops) == ([], 0)


async def test_a_stop_of_the_daemon_while_a_run_is_let_go_of_stops_it_after_all(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        begun, letting_go = site.script.work_until_stopped(), asyncio.Event()

        async def detach() -> None:
            letting_go.set()
            await asyncio.Event().wait()

        site.script.detach = detach
        serving = asyncio.create_task(site.runner.serve())
        await begun.wait()
        site.runner.close(leave=True)
        await letting_go.wait()
        site.runner.close()
        await serving
        assert ((await site.ended())["outcome"], site.script.stops) == ("STOPPED", 1)


async def test_what_a_machine_carries_on_by_itself_is_left_also_when_the_daemon_just_stops(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        begun = site.script.work_until_stopped()

        async def detach() -> None:
            pass

        site.script.detach, site.script.carries_on = detach, True
        serving = asyncio.create_task(site.runner.serve())
        await begun.wait()
        site.runner.close()
        await serving
        assert (site.events("run_ended"), site.script.stops) == ([], 0)


async def test_a_stop_that_is_asked_for_is_one_also_where_the_machine_carries_on_by_itself(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        begun = site.script.work_until_stopped()

        async def detach() -> None:
            raise AssertionError("nothing is let go of")

        site.script.detach, site.script.carries_on = detach, True
        serving = asyncio.create_task(site.runner.serve())
        await begun.wait()
        assert site.runner.run_id is not None
        site.runner.stop(site.runner.run_id)
        await asyncio.sleep(0)
        site.runner.close()
        await serving
        assert ((await site.ended())["outcome"], site.script.stops) == ("STOPPED", 1)


# A run that was suspended


async def suspend(site: LeftRig, by: str = "request") -> None:
    about = (site.job_id, 1, "print", "r1", "prn-1")
    await site.journal.record(
        [
            Draft(EventKind.HOLD_REQUESTED, "user:ada", {}, site.job_id),
            Draft(EventKind.RUN_SUSPENDED, "site", {"reason": "insert filament", "by": by}, *about),
        ]
    )


@pytest.mark.parametrize("confirmed", [True, False])
async def test_a_run_that_is_held_does_not_go_on_from_where_it_stood(tmp_path, confirmed) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        if confirmed:
            await suspend(site)
        else:
            await site.journal.record([Draft(EventKind.HOLD_REQUESTED, "user:ada", {}, site.job_id)])
        async with at_work(site):
            ended = await site.ended()
        assert (ended["outcome"], site.script.stops, site.script.executed) == ("STOPPED", 1, [])
        assert "only a person lets it go on" in ended["reason"]
        assert (site.step(site.job_id)["state"], site.events("run_resumed")) == ("HELD", [])


async def test_a_suspended_run_that_the_machine_keeps_is_found_again_suspended(tmp_path) -> None:
    async with left_rig(tmp_path, StillRunning(), "resume") as site:
        await suspend(site, by="machine")
        begun = site.script.work_until_stopped()
        async with at_work(site):
            await begun.wait()
            step = site.step(site.job_id)
            assert (step["state"], step["reason"]) == ("SUSPENDED", "insert filament")
            assert len(site.events("run_resumed")) == 1
            await site.journal.record([Draft(EventKind.RELEASE_REQUESTED, "user:ada", {}, site.job_id)])
            site.runner.look("r1")
            await site.until(lambda: site.step(site.job_id)["state"] == "RUNNING")
            assert site.script.asked == ["resume"]


async def test_a_machine_that_was_released_while_nobody_looked_is_written_down(tmp_path) -> None:
    async with left_rig(tmp_path, StillRunning(), "resume") as site:
        await suspend(site)
        begun = site.script.work_until_stopped()

        async def recover(run: Run) -> Recovery:
            site.script.say(MachineState.EXECUTE)
            return site.recovery

        site.script.recover = recover
        async with at_work(site):
            await begun.wait()
            await site.until(lambda: site.events("run_released"))
        assert site.events("run_released")[0]["body"] == {"by": "machine"}


async def test_a_run_that_a_person_released_before_the_daemon_died_goes_on(tmp_path) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        await suspend(site)
        await site.journal.record([Draft(EventKind.RELEASE_REQUESTED, "user:ada", {}, site.job_id)])
        begun = site.script.work_until_stopped()
        async with at_work(site):
            await begun.wait()
            await site.until(lambda: site.step(site.job_id)["state"] == "RUNNING")
        assert site.script.asked == ["resume"]
