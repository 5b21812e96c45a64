"""A run that is paused, that waits by itself, and goes on: what is asked, what is confirmed, what is written down."""

from __future__ import annotations

import asyncio

import pytest

from edge.driver import MachineState, NotAcceptableError, NotConfirmedError, Outcome, Run
from edge.errors import JournalError
from edge.journal import scribe
from edge.model.event import EventKind
from edge.running import execution
from edge.running import runner as runner_module
from tests.helpers.fake_driver import SUCCEEDED
from tests.helpers.rig import DEADLINE_S, SteeredRig, steered_rig


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch) -> None:
    monkeypatch.setattr(runner_module, "RECONNECT_S", (0.01,))
    monkeypatch.setattr(scribe, "RETRY_S", 0.01)
    monkeypatch.setattr(scribe, "LAST_WORDS_S", 0.1)
    monkeypatch.setattr(execution, "AFTER_STOP_S", 0.05)


def body(site: SteeredRig, kind: str) -> dict[str, object]:
    (event,) = site.site.events(kind)
    found: dict[str, object] = event["body"]
    return found


async def all_is_read(site: SteeredRig) -> None:
    """Whoever was to look at the journal has looked: it serves one after the other."""
    for _ in range(5):
        await site.site.journal.transact(lambda transaction: None)


# As asked


async def test_a_hold_suspends_the_run_when_the_machine_has_confirmed_and_not_before(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        asked, may = asyncio.Event(), asyncio.Event()

        async def pause() -> None:
            asked.set()
            await may.wait()

        site.script.pause = pause
        step = await site.hold(wait_s=0)
        await asked.wait()
        assert (step["state"], step["requested"]) == ("RUNNING", "pause")
        assert site.kinds() == ["hold_requested"]
        may.set()
        await site.until_step(state="SUSPENDED", requested="none", suspended_by="request")
        assert site.kinds() == ["hold_requested", "run_suspended"]
        assert body(site, "run_suspended") == {"reason": "paused as asked", "by": "request"}
        (hold,) = site.site.events("hold_requested")
        assert (hold["actor"], hold["body"]) == ("user:ada", {"reason": "the spool looks wrong"})


async def test_a_release_lets_the_run_go_on_and_both_are_idempotent(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        for _ in range(3):
            assert (await site.hold())["state"] == "SUSPENDED"
        assert (site.script.asked, site.kinds()) == (["pause"], ["hold_requested", "run_suspended"])
        for _ in range(3):
            assert (await site.release())["state"] == "RUNNING"
        assert site.script.asked == ["pause", "resume"]
        assert site.kinds()[2:] == ["release_requested", "run_released"]
        assert body(site, "run_released") == {"by": "request"}
        assert (await site.cancel())["state"] == "ABORTED"


async def test_a_run_may_end_while_it_is_suspended(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        await site.hold()
        assert (await site.cancel())["state"] == "ABORTED"
        assert site.kinds()[2:] == ["cancel_requested", "run_ended"]
        assert site.script.stops == 1


async def test_a_stop_does_not_wait_for_a_pause_that_is_under_way(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        asked = asyncio.Event()

        async def pause() -> None:
            asked.set()
            await asyncio.Event().wait()

        site.script.pause = pause
        await site.hold(wait_s=0)
        await asked.wait()
        assert (await site.cancel())["state"] == "ABORTED"
        assert site.kinds() == ["hold_requested", "cancel_requested", "run_ended"]


async def test_a_pause_that_is_not_confirmed_ends_nothing_and_can_be_asked_again(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        good = site.script.pause

        async def silent() -> None:
            raise NotConfirmedError("no answer to the pause")

        site.script.pause = silent
        step = await site.hold()
        assert (step["state"], step["requested"]) == ("RUNNING", "pause")
        assert "no answer to the pause" in step["request_failure"]
        attention = site.site.ask(lambda snapshot: snapshot.attention())
        (item,) = [item for item in attention if item["kind"] == "request_failed"]
        assert item["command"] == f"edge job hold {site.job_id}"
        assert "no answer to the pause" in item["text"]
        site.site.runner.look(step["run_id"])
        await all_is_read(site)
        assert site.script.asked == ["pause"], "nobody has asked again"
        site.script.pause = good
        step = await site.hold()
        assert (step["state"], step["request_failure"]) == ("SUSPENDED", None)
        assert site.script.asked == ["pause", "pause"]


async def test_a_resume_that_is_refused_is_withdrawn_and_the_sentence_is_kept(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        await site.hold()

        async def refuse() -> None:
            raise NotAcceptableError("resume", "asked", "the button at the printer")

        site.script.resume = refuse
        step = await site.release()
        assert (step["state"], step["requested"]) == ("SUSPENDED", "none")
        assert "the button at the printer" in step["request_failure"]
        assert body(site, "request_failed")["withdrawn"] is True
        site.script.say(MachineState.EXECUTE)  # somebody has pushed it
        await site.until_step(state="RUNNING", request_failure=None)
        assert body(site, "run_released") == {"by": "machine"}


async def test_a_bug_in_a_pause_is_told_and_ends_nothing(tmp_path, caplog) -> None:
    async with steered_rig(tmp_path) as site:

        async def stumble() -> None:
            raise KeyError("stumble")

        site.script.pause = stumble
        step = await site.hold()
        assert (step["state"], step["requested"]) == ("RUNNING", "pause")
        assert "internal error in the driver fake" in step["request_failure"]
        assert (await site.cancel())["state"] == "ABORTED"


async def test_a_hold_that_is_taken_back_while_the_machine_pauses_lets_it_go_on(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        asked, may = asyncio.Event(), asyncio.Event()

        async def pause() -> None:
            asked.set()
            await may.wait()

        site.script.pause = pause
        await site.hold(wait_s=0)
        await asked.wait()
        await site.release(wait_s=0)
        may.set()
        await site.until_step(state="RUNNING", requested="none")
        assert site.script.asked == ["pause", "resume"]
        assert site.kinds() == ["hold_requested", "release_requested", "run_suspended", "run_released"]


async def test_a_hold_between_the_claim_and_the_drivers_start_reaches_it(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        # The first run is stopped; the second job is held in the transaction right behind its claim.
        await site.cancel()
        run_id = site.script.executed[0].run_id
        await site.site.journal.record(
            [scribe.Draft(EventKind.MACHINE_CLEARED, "user:ada", {"run_id": run_id}, machine="prn-1")]
        )
        record = site.site.journal.record

        async def record_and_hold(drafts, *more):
            events = await record(drafts, *more)
            if drafts[0].kind is EventKind.RUN_BEGAN:
                await record([scribe.Draft(EventKind.HOLD_REQUESTED, "user:ada", {}, drafts[0].job_id)])
            return events

        site.site.journal.record = record_and_hold
        site.script.work_until_stopped()
        assignment = await site.site.assignment()
        site.job_id = assignment.key.job_id
        await site.site.offer(assignment)
        await site.until_step(state="SUSPENDED")
        assert site.kinds() == ["hold_requested", "run_suspended"]


async def test_what_was_confirmed_is_written_down_as_soon_as_the_journal_takes_it(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        record, failures = site.site.journal.record, []

        async def failing(drafts, expected_revision=None):
            if drafts[0].kind is EventKind.RUN_SUSPENDED and len(failures) < 3:
                failures.append(drafts)
                raise JournalError("the disk is full")
            return await record(drafts, expected_revision)

        site.site.journal.record = failing
        assert (await site.hold())["state"] == "SUSPENDED"
        assert (len(failures), site.script.asked) == (3, ["pause"])


# By itself


async def test_a_machine_that_holds_by_itself_is_written_down_with_what_it_says(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        for _ in range(3):
            site.script.say(MachineState.HELD, "insert filament")
        await site.until_step(state="SUSPENDED", suspended_by="machine", reason="insert filament")
        (item,) = site.site.ask(lambda snapshot: snapshot.attention())
        assert (item["kind"], item["command"]) == ("suspended", f"edge job release {site.job_id}")
        assert "insert filament" in item["text"]
        site.script.say(MachineState.EXECUTE)
        await site.until_step(state="RUNNING", suspended_by=None)
        assert site.kinds() == ["run_suspended", "run_released"]
        assert body(site, "run_released") == {"by": "machine"}


async def test_a_release_answers_the_machine_and_only_what_the_person_has_seen(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:

        async def resume() -> None:
            site.script.say(MachineState.EXECUTE)
            site.script.say(MachineState.HELD, "remove the old filament")

        site.script.resume = resume
        site.script.say(MachineState.HELD, "insert filament")
        await site.until_step(state="SUSPENDED")
        await site.release()
        await site.until_step(state="SUSPENDED", reason="remove the old filament")
        assert site.kinds() == ["run_suspended", "release_requested", "run_released", "run_suspended"]
        assert site.script.asked == ["resume"], "what it asks now was not answered"


async def test_a_new_prompt_takes_a_release_with_it_that_did_not_reach_the_machine(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        first = asyncio.Event()

        async def silent() -> None:
            first.set()
            raise NotConfirmedError("no answer")

        site.script.resume = silent
        site.script.say(MachineState.HELD, "insert filament")
        await site.until_step(state="SUSPENDED")
        assert (await site.release())["requested"] == "resume"
        site.script.say(MachineState.HELD, "the nozzle is clogged")
        await site.until_step(reason="the nozzle is clogged", requested="none", request_failure=None)
        assert site.script.asked == ["resume"]


async def test_a_machine_that_holds_instead_of_confirming_a_pause_is_suspended_by_itself(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:

        async def pause() -> None:
            site.script.say(MachineState.HELD, "no filament")
            raise NotConfirmedError("it does not park")

        site.script.pause = pause
        await site.hold()
        await site.until_step(state="SUSPENDED", suspended_by="machine", reason="no filament", requested="none")


async def test_what_a_machine_says_on_its_way_to_a_pause_is_no_news(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:

        async def pause() -> None:
            site.script.say(MachineState.HELD, "about to park")
            site.script.say(MachineState.EXECUTE)  # the way there

        site.script.pause = pause
        step = await site.hold()
        await all_is_read(site)
        site.script.say(MachineState.HELD, "still parked")
        await all_is_read(site)
        assert (await site.release())["state"] == "RUNNING"
        assert step["suspended_by"] == "request"
        assert site.kinds() == ["hold_requested", "run_suspended", "release_requested", "run_released"]


async def test_a_run_that_ends_while_it_is_paused_ends(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        await site.cancel()
        finish, asked = asyncio.Event(), asyncio.Event()
        run_id = site.script.executed[0].run_id
        await site.site.journal.record(
            [scribe.Draft(EventKind.MACHINE_CLEARED, "user:ada", {"run_id": run_id}, machine="prn-1")]
        )

        async def execute(run: Run) -> Outcome:
            await finish.wait()
            return SUCCEEDED

        async def pause() -> None:
            asked.set()
            await asyncio.Event().wait()

        site.script.execute, site.script.pause = execute, pause
        assignment = await site.site.assignment()
        site.job_id = assignment.key.job_id
        await site.site.offer(assignment)
        await site.site.until(lambda: len(site.script.executed) == 2)
        await site.hold(wait_s=0)
        await asked.wait()
        finish.set()
        await site.site.ended(2)
        assert site.site.step(site.job_id)["state"] == "COMPLETED"


# The daemon


async def test_closing_stops_a_suspended_run_also_when_others_are_left_standing(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:

        async def detach() -> None:
            raise AssertionError("it is not where its program says")

        site.script.detach = detach
        await site.hold()
        site.site.runner.close(leave=True)
        async with asyncio.timeout(DEADLINE_S):
            ended = await site.site.ended()
        assert (ended["outcome"], site.site.step(site.job_id)["state"]) == ("STOPPED", "HELD")


async def test_nothing_is_paused_any_more_once_the_daemon_stops(tmp_path) -> None:
    async with steered_rig(tmp_path) as site:
        stopping, may, stop = asyncio.Event(), asyncio.Event(), site.script.stop

        async def slow() -> None:
            stopping.set()
            await may.wait()
            await stop()

        site.script.stop = slow
        site.site.runner.close()
        await stopping.wait()
        await site.hold(wait_s=0)
        await all_is_read(site)
        assert site.script.asked == []
        may.set()
        assert (await site.site.ended())["outcome"] == "STOPPED"
