"""The simulated controller's job orders: what may follow what."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hil_sim.cnc.jobs import MAX_JOBS, TABLE, Jobs, JobState, Status

NOW = datetime(2026, 11, 21, tzinfo=UTC)
VERBS = sorted({verb for _, verb in TABLE})


def stored(state: JobState) -> Jobs:
    """One job, in this state."""
    jobs = Jobs()
    assert jobs.store("a", object(), "a.nc", known=True, start=state is not JobState.NOT_ALLOWED_TO_START) is Status.OK
    steps = {
        JobState.RUNNING: ["begins"],
        JobState.INTERRUPTED: ["begins", "Pause"],
        JobState.ENDED: ["begins", "ends"],
        JobState.ABORTED: ["Abort"],
    }
    for verb in steps.get(state, []):
        assert jobs.move("a", verb, NOW) is Status.OK
    assert jobs.jobs["a"].state is state
    return jobs


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("verb", VERBS)
def test_only_what_the_table_has_moves_a_job(state: JobState, verb: str) -> None:
    jobs = stored(state)
    expected = TABLE.get((state, verb))
    assert jobs.move("a", verb, NOW) is (Status.OK if expected else Status.INVALID_STATUS)
    assert jobs.jobs["a"].state is (expected[0] if expected else state)


def test_nothing_leads_out_of_the_end() -> None:
    assert not [state for state, _ in TABLE if state in (JobState.ENDED, JobState.ABORTED)]


@pytest.mark.parametrize("state", list(JobState))
def test_cancel_is_for_those_before_and_clear_for_those_after(state: JobState) -> None:
    waiting = state in (JobState.NOT_ALLOWED_TO_START, JobState.ALLOWED_TO_START)
    over = state in (JobState.ENDED, JobState.ABORTED)
    assert (stored(state).remove("a", "Cancel") is Status.OK) is waiting
    assert (stored(state).remove("a", "Clear") is Status.OK) is over


def test_an_id_is_taken_once_and_a_program_has_to_be_there() -> None:
    jobs = stored(JobState.ENDED)
    assert jobs.store("a", None, "a.nc", known=True, start=True) is Status.CANNOT_ACCEPT
    assert jobs.store("b", None, "b.nc", known=False, start=True) is Status.CANNOT_ACCEPT
    assert jobs.store("", None, "b.nc", known=True, start=True) is Status.INVALID_REQUEST
    assert jobs.store("b", None, "", known=True, start=True) is Status.INVALID_REQUEST
    assert jobs.move("b", "Start", NOW) is Status.UNKNOWN_ID
    assert jobs.remove("b", "Clear") is Status.UNKNOWN_ID


def test_the_list_has_an_end() -> None:
    jobs = Jobs()
    said = [jobs.store(str(i), None, "a.nc", known=True, start=False) for i in range(MAX_JOBS + 1)]
    assert said == [Status.OK] * MAX_JOBS + [Status.CANNOT_ACCEPT]


def test_times_are_those_of_the_first_begin_and_of_the_end() -> None:
    jobs = stored(JobState.INTERRUPTED)
    later = datetime(2026, 11, 22, tzinfo=UTC)
    jobs.move("a", "Resume", later)
    jobs.move("a", "ends", later)
    job = jobs.jobs["a"]
    assert (job.began_at, job.ended_at) == (NOW, later)


def test_without_power_there_are_no_jobs() -> None:
    jobs = stored(JobState.RUNNING)
    jobs.forget()
    assert jobs.active is None
    assert jobs.move("a", "ends", NOW) is Status.UNKNOWN_ID
