"""What a person asks of a job: refused in words, or recorded once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.cli.jobs import reasons
from edge.errors import IllegalTransitionError, UsageError
from edge.jobstate import Resolution
from edge.journal.journal import Journal
from edge.journal.rows import held_in_words
from edge.journal.schema import FILE_NAME
from edge.model.event import Draft
from edge.reading import status, views
from edge.serving.steering import Steering
from tests.journal_kit import (
    JOB,
    SITE,
    accepted,
    began,
    cancelled,
    ended,
    hold,
    order,
    release,
    released,
    request_failed,
    step,
    suspended,
    ticking,
)

ADA = "user:ada"


class Desk:
    """A journal and what a person does with it; `pausing` are the machines that can pause."""

    def __init__(self, journal: Journal, folder: Path) -> None:
        self.journal = journal
        self.folder = folder
        self.pausing = {"prn-1"}
        runners: Any = {name: self._runner(name) for name in ("prn-1", "prn-2")}
        self.steering = Steering(journal, runners, self.look)

    def _runner(self, name: str) -> Any:
        desk = self

        class Stub(SimpleNamespace):
            @property
            def can_pause(self) -> bool:
                return name in desk.pausing

        return Stub()

    async def look(self, job_id: str) -> dict[str, Any]:
        with views.open_readonly(self.folder) as snapshot:
            found = snapshot.job(job_id)
        if found is None:
            raise UsageError(f"there is no job {job_id} here")
        return {**found, "waits": []}

    async def record(self, *drafts: Draft) -> None:
        for draft in drafts:
            await self.journal.record([draft])

    async def steps(self) -> dict[int, tuple[str, str]]:
        return {s["part"]: (s["state"], s["requested"]) for s in (await self.look(JOB))["steps"]}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
        yield Desk(journal, tmp_path)


async def test_a_waiting_job_is_held_by_somebody_for_a_reason_and_released(desk: Desk) -> None:
    await desk.record(accepted())
    found = await desk.steering.hold(JOB, ADA, "the spool looks wrong")
    assert found["held"] == {"by": ADA, "since": "2026-11-21T10:00:01.000Z", "reason": "the spool looks wrong"}
    assert found["state"] == "ALLOWED_TO_START"
    assert await desk.steering.hold(JOB, "user:bob", "me too") == found, "it is held already"
    with pytest.raises(IllegalTransitionError, match="is held by user:ada: nothing of it begins"):
        await desk.record(began())
    with views.open_readonly(desk.folder) as snapshot:
        (row,) = snapshot.startable()
        assert held_in_words(row["held"]) == "held by ada since 2026-11-21 10:00 UTC: the spool looks wrong"
        (item,) = snapshot.attention()
        assert (item["kind"], item["command"]) == ("held_job", f"edge job release {JOB}")
    found = await desk.steering.release(JOB, ADA, "")
    assert found["held"] is None
    assert await desk.steering.release(JOB, ADA, "") == found
    await desk.record(began())


async def test_a_running_job_is_asked_to_pause_once(desk: Desk) -> None:
    await desk.record(accepted(), began())
    found = await desk.steering.hold(JOB, ADA, "")
    assert await desk.steps() == {1: ("RUNNING", "pause")}
    assert await desk.steering.hold(JOB, ADA, "") == found
    await desk.record(request_failed())
    again = await desk.steering.hold(JOB, ADA, "")
    assert again["revision"] > found["revision"] + 1, "asked again, because it was not confirmed"
    await desk.record(suspended())
    assert await desk.steps() == {1: ("SUSPENDED", "none")}
    await desk.steering.release(JOB, ADA, "")
    assert await desk.steps() == {1: ("SUSPENDED", "resume")}
    await desk.steering.hold(JOB, ADA, "")
    assert await desk.steps() == {1: ("SUSPENDED", "pause")}


async def test_a_machine_that_cannot_be_paused_is_no_reason_not_to_hold_the_rest(desk: Desk) -> None:
    await desk.record(accepted(order(quantity=2)), began(machine="prn-2"))
    found = await desk.steering.hold(JOB, ADA, "enough")
    assert found["held"]["by"] == ADA
    assert await desk.steps() == {1: ("RUNNING", "none"), 2: ("ALLOWED_TO_START", "none")}
    assert found["steps"][0]["request_failure"] == "prn-2 cannot be paused; its run goes on to its end"
    assert await desk.steering.hold(JOB, ADA, "") == found


async def test_a_hold_of_nothing_but_a_run_that_cannot_be_paused_is_refused(desk: Desk) -> None:
    await desk.record(accepted(), began(machine="prn-2"))
    with pytest.raises(IllegalTransitionError, match="prn-2 cannot be paused, and nothing else is left"):
        await desk.steering.hold(JOB, ADA, "")
    assert (await desk.look(JOB))["held"] is None


async def test_what_has_ended_is_neither_held_nor_released_and_a_cancel_changes_nothing(desk: Desk) -> None:
    await desk.record(accepted(), cancelled())
    with pytest.raises(IllegalTransitionError, match="is ABORTED: nothing is left to hold"):
        await desk.steering.hold(JOB, ADA, "")
    with pytest.raises(IllegalTransitionError, match="nothing is left to release"):
        await desk.steering.release(JOB, ADA, "")
    assert (await desk.steering.cancel(JOB, ADA, ""))["revision"] == 2


async def test_a_stop_is_not_overtaken_by_a_hold_or_a_release(desk: Desk) -> None:
    await desk.record(accepted(), began(), hold(), suspended(), cancelled())
    await desk.steering.release(JOB, ADA, "")
    await desk.steering.hold(JOB, ADA, "")
    assert await desk.steps() == {1: ("SUSPENDED", "stop")}
    await desk.record(released(by="machine"))
    assert await desk.steps() == {1: ("RUNNING", "stop")}
    found = await desk.steering.cancel(JOB, ADA, "")
    await desk.record(ended("run-1", "STOPPED"))
    assert found["revision"] == 9 - 1
    assert await desk.steps() == {1: ("ABORTED", "none")}


async def test_an_answer_that_was_overtaken_says_nothing(desk: Desk) -> None:
    await desk.record(accepted(), began(), hold(), release(), request_failed(requested="pause", withdrawn=True))
    assert await desk.steps() == {1: ("RUNNING", "resume")}
    assert (await desk.look(JOB))["steps"][0]["request_failure"] is None


async def test_a_machine_that_waits_needs_a_hand_and_says_what_for(desk: Desk) -> None:
    await desk.record(accepted(), began(), suspended(by="machine", reason="insert filament"))
    with views.open_readonly(desk.folder) as snapshot:
        configured = [{"id": "prn-1", "driver": "gcode", "processes": ["fdm"], "properties": {}}]
        live = {"prn-1": {"state": "HELD", "detail": "insert filament"}}
        daemon = {"pid": 1, "version": "0", "since": "2026-11-21T10:00:00.000Z", "clock": {"trust": "trusted"}}
        found = status.document(snapshot, configured, daemon, live, {})
    (item,) = found["attention"]
    assert (found["level"], item["kind"], item["command"]) == (1, "suspended", f"edge job release {JOB}")
    assert item["text"].endswith("prn-1 waits for a person: insert filament")
    said = " ".join(" ".join(reasons(await desk.look(JOB))).split())
    assert "it says: insert filament" in said
    assert f"edge job release {JOB}" in said


# A person's word


@pytest.mark.parametrize(
    ("word", "state"), [("good", "COMPLETED"), ("scrapped", "ABORTED"), ("retry", "ALLOWED_TO_START")]
)
async def test_a_person_resolves_a_held_step(desk: Desk, word: str, state: str) -> None:
    await desk.record(accepted(order(steps=[step(max_attempts=2)])), began(), ended("run-1", "UNKNOWN"))
    said = reasons(await desk.look(JOB))
    assert all(f"      edge job {verb} {JOB}" in said for verb in ("good", "scrap", "retry", "cancel"))
    await desk.steering.resolve(JOB, Resolution(word), None, None, ADA, "looked at it")
    assert await desk.steps() == {1: (state, "none")}
    (event,) = [e for e in (await desk.look(JOB))["events"] if e["kind"] == "run_resolved"]
    assert (event["actor"], event["run_id"]) == (ADA, "run-1")
    assert event["body"] == {"resolution": word, "reason": "looked at it"}


async def test_a_retry_beyond_what_the_order_allows_is_refused(desk: Desk) -> None:
    await desk.record(accepted(), began(), ended("run-1", "FAILED"))
    assert not any("retry" in line for line in reasons(await desk.look(JOB)))
    with pytest.raises(IllegalTransitionError, match="attempt 1 of 1 that the order allows was made"):
        await desk.steering.resolve(JOB, Resolution.RETRY, None, None, ADA, "")


async def test_which_step_is_meant_must_be_said_if_several_are_held(desk: Desk) -> None:
    second = {"part": 2, "machine": "prn-2"}
    await desk.record(accepted(order(quantity=2)), began(), began("run-2", **second))
    with pytest.raises(UsageError, match="nothing is in doubt"):
        await desk.steering.resolve(JOB, Resolution.GOOD, None, None, ADA, "")
    await desk.record(ended("run-1", "UNKNOWN"), ended("run-2", "UNKNOWN", **second))
    assert f"      edge job good {JOB} --part 2 --step print" in reasons(await desk.look(JOB))
    with pytest.raises(UsageError, match=r"2 steps .* part 1 step print, part 2 step print; name one with --part"):
        await desk.steering.resolve(JOB, Resolution.GOOD, None, "print", ADA, "")
    with pytest.raises(UsageError, match="no such step"):
        await desk.steering.resolve(JOB, Resolution.GOOD, 3, None, ADA, "")
    await desk.steering.resolve(JOB, Resolution.GOOD, 2, None, ADA, "")
    await desk.steering.resolve(JOB, Resolution.SCRAPPED, None, None, ADA, "")
    assert await desk.steps() == {1: ("ABORTED", "none"), 2: ("COMPLETED", "none")}


async def test_a_suspended_step_is_released_or_cancelled_and_not_resolved(desk: Desk) -> None:
    await desk.record(accepted(), began(), suspended(by="machine"))
    with pytest.raises(UsageError, match="is open: `edge job release"):
        await desk.steering.resolve(JOB, Resolution.GOOD, None, None, ADA, "")


async def test_a_job_that_never_began_is_declined_once_and_for_ever(desk: Desk) -> None:
    await desk.record(accepted())
    found = await desk.steering.decline(JOB, ADA, "the printer is broken")
    assert (found["state"], found["steps"][0]["reason"]) == ("ABORTED", "the printer is broken")
    assert (await desk.steering.decline(JOB, ADA, "again"))["revision"] == found["revision"]
    declined = [event for event in found["events"] if event["kind"] == "job_declined"]
    assert [(event["actor"], event["body"]) for event in declined] == [(ADA, {"reason": "the printer is broken"})]
    with pytest.raises(IllegalTransitionError):
        await desk.record(began())
    assert (await desk.journal.verify()).problems == ()


async def test_a_job_that_is_held_or_has_steps_that_wait_is_declined_as_a_whole(desk: Desk) -> None:
    await desk.record(accepted(order(steps=[step("print"), step("face", "print")])), hold())
    found = await desk.steering.decline(JOB, ADA, "")
    assert [(s["state"], s["reason"]) for s in found["steps"]] == [("ABORTED", "declined")] * 2


@pytest.mark.parametrize("how", ["runs", "ran", "cancelled"])
async def test_a_job_that_began_or_has_ended_is_not_declined(desk: Desk, how: str) -> None:
    drafts = {"runs": [began()], "ran": [began(), ended("run-1", "FAILED", "none")], "cancelled": [cancelled()]}[how]
    await desk.record(accepted(), *drafts)
    with pytest.raises(IllegalTransitionError, match=r"cannot be declined|has ended"):
        await desk.steering.decline(JOB, ADA, "")
