"""The one table, and what the end of a run means."""

from __future__ import annotations

import pytest

from edge.errors import IllegalTransitionError, Motion
from edge.jobstate import (
    TABLE,
    Fact,
    JobState,
    OnFailure,
    Policy,
    Requested,
    Resolution,
    RunOutcome,
    StepState,
    advance,
    diagram,
    fact_of_predecessors,
    fact_of_run,
    job_state,
    requested_after,
    resolution,
)
from tests.journal_kit import root_of_project

WAITING, ALLOWED, RUNNING, SUSPENDED, HELD, COMPLETED, ABORTED = StepState

HOLD = Policy(OnFailure.HOLD, attempt=1, max_attempts=3)
ABORT = Policy(OnFailure.ABORT, attempt=1, max_attempts=3)
BEFORE_MOTION = Policy(OnFailure.RETRY_BEFORE_MOTION, attempt=1, max_attempts=2)
BEFORE_MOTION_LAST = Policy(OnFailure.RETRY_BEFORE_MOTION, attempt=2, max_attempts=2)
RETRY = Policy(OnFailure.RETRY, attempt=1, max_attempts=2)
RETRY_LAST = Policy(OnFailure.RETRY, attempt=2, max_attempts=2)

ALL_POLICIES = [HOLD, ABORT, BEFORE_MOTION, BEFORE_MOTION_LAST, RETRY, RETRY_LAST]


def after_run(outcome: RunOutcome, motion: Motion, policy: Policy, requested: Requested = Requested.NONE) -> StepState:
    return advance(RUNNING, fact_of_run(outcome, motion, requested, policy))


@pytest.mark.parametrize("policy", ALL_POLICIES)
@pytest.mark.parametrize("requested", Requested)
@pytest.mark.parametrize("motion", Motion)
def test_a_run_that_succeeded_completes_its_step(policy: Policy, requested: Requested, motion: Motion) -> None:
    assert after_run(RunOutcome.SUCCEEDED, motion, policy, requested) is COMPLETED


@pytest.mark.parametrize("policy", ALL_POLICIES)
@pytest.mark.parametrize("requested", Requested)
@pytest.mark.parametrize("motion", Motion)
def test_a_run_that_nobody_knows_the_end_of_is_held_whatever_the_policy(
    policy: Policy, requested: Requested, motion: Motion
) -> None:
    assert after_run(RunOutcome.UNKNOWN, motion, policy, requested) is HELD


@pytest.mark.parametrize("outcome", [RunOutcome.STOPPED, RunOutcome.FAILED])
@pytest.mark.parametrize("policy", ALL_POLICIES)
@pytest.mark.parametrize("requested", [Requested.STOP, Requested.ABORT])
def test_a_run_that_was_asked_to_end_and_did_aborts_its_step(
    outcome: RunOutcome, policy: Policy, requested: Requested
) -> None:
    assert after_run(outcome, Motion.POSSIBLE, policy, requested) is ABORTED


@pytest.mark.parametrize("requested", [Requested.NONE, Requested.PAUSE, Requested.RESUME])
def test_a_run_that_stopped_because_the_daemon_did_is_held(requested: Requested) -> None:
    assert after_run(RunOutcome.STOPPED, Motion.POSSIBLE, RETRY, requested) is HELD


@pytest.mark.parametrize(
    ("policy", "motion", "state"),
    [
        (HOLD, Motion.NONE, HELD),
        (HOLD, Motion.POSSIBLE, HELD),
        (ABORT, Motion.NONE, ABORTED),
        (ABORT, Motion.POSSIBLE, ABORTED),
        (BEFORE_MOTION, Motion.NONE, ALLOWED),
        (BEFORE_MOTION, Motion.POSSIBLE, HELD),
        (BEFORE_MOTION_LAST, Motion.NONE, HELD),
        (RETRY, Motion.NONE, ALLOWED),
        (RETRY, Motion.POSSIBLE, ALLOWED),
        (RETRY_LAST, Motion.NONE, HELD),
        (RETRY_LAST, Motion.POSSIBLE, HELD),
    ],
)
def test_a_run_that_failed_follows_the_order_s_policy(policy: Policy, motion: Motion, state: StepState) -> None:
    assert after_run(RunOutcome.FAILED, motion, policy) is state


@pytest.mark.parametrize("state", StepState)
@pytest.mark.parametrize("fact", Fact)
def test_a_missing_entry_raises_and_names_state_and_fact(state: StepState, fact: Fact) -> None:
    if (state, fact) in TABLE:
        assert advance(state, fact) is TABLE[state, fact]
    else:
        with pytest.raises(IllegalTransitionError, match=rf"'{fact}' .* {state}"):
            advance(state, fact)


def test_cancelling_asks_a_running_step_to_stop_and_ends_any_other_at_once() -> None:
    assert advance(RUNNING, Fact.CANCELLED) is RUNNING
    assert requested_after(RUNNING, Fact.CANCELLED, Requested.NONE) is Requested.STOP
    for state in (WAITING, ALLOWED, HELD):
        assert advance(state, Fact.CANCELLED) is ABORTED
        assert requested_after(state, Fact.CANCELLED, Requested.NONE) is Requested.NONE
    assert requested_after(RUNNING, Fact.RUN_ABORTED, Requested.STOP) is Requested.NONE
    assert requested_after(RUNNING, Fact.RUN_RESUMED, Requested.STOP) is Requested.STOP


@pytest.mark.parametrize(
    ("state", "fact", "standing", "after"),
    [
        (RUNNING, Fact.PAUSE_ASKED, Requested.NONE, Requested.PAUSE),
        (RUNNING, Fact.PAUSE_ASKED, Requested.RESUME, Requested.PAUSE),
        (RUNNING, Fact.RESUME_ASKED, Requested.PAUSE, Requested.RESUME),
        (RUNNING, Fact.RESUME_ASKED, Requested.NONE, Requested.NONE),  # it goes on already
        (RUNNING, Fact.SUSPENDED_AS_ASKED, Requested.PAUSE, Requested.NONE),
        (RUNNING, Fact.SUSPENDED_AS_ASKED, Requested.RESUME, Requested.RESUME),  # taken back meanwhile
        (RUNNING, Fact.SUSPENDED_BY_MACHINE, Requested.PAUSE, Requested.NONE),
        (RUNNING, Fact.SUSPENDED_BY_MACHINE, Requested.RESUME, Requested.NONE),  # nobody has seen what it asks
        (RUNNING, Fact.REQUEST_WITHDRAWN, Requested.PAUSE, Requested.NONE),
        (SUSPENDED, Fact.PAUSE_ASKED, Requested.NONE, Requested.NONE),  # it waits already
        (SUSPENDED, Fact.PAUSE_ASKED, Requested.RESUME, Requested.PAUSE),
        (SUSPENDED, Fact.RESUME_ASKED, Requested.NONE, Requested.RESUME),
        (SUSPENDED, Fact.RELEASED, Requested.RESUME, Requested.NONE),
        (SUSPENDED, Fact.RELEASED, Requested.PAUSE, Requested.PAUSE),
        (SUSPENDED, Fact.RUN_RESUMED, Requested.RESUME, Requested.RESUME),
        (SUSPENDED, Fact.CANCELLED, Requested.RESUME, Requested.STOP),
        (SUSPENDED, Fact.RELEASED, Requested.STOP, Requested.STOP),
        (RUNNING, Fact.PAUSE_ASKED, Requested.STOP, Requested.STOP),
        (SUSPENDED, Fact.RUN_ABORTED, Requested.STOP, Requested.NONE),
    ],
)
def test_what_stands_requested(state: StepState, fact: Fact, standing: Requested, after: Requested) -> None:
    assert requested_after(state, fact, standing) is after


def test_a_held_step_goes_where_a_person_says() -> None:
    assert advance(HELD, resolution(Resolution.GOOD, RETRY_LAST)) is COMPLETED
    assert advance(HELD, resolution(Resolution.SCRAPPED, RETRY_LAST)) is ABORTED
    assert advance(HELD, resolution(Resolution.RETRY, HOLD)) is ALLOWED


def test_nobody_starts_more_attempts_than_the_order_allows() -> None:
    with pytest.raises(IllegalTransitionError, match="attempt 2 of 2"):
        resolution(Resolution.RETRY, RETRY_LAST)


@pytest.mark.parametrize(
    ("predecessors", "fact"),
    [
        ([COMPLETED, COMPLETED], Fact.PREDECESSORS_COMPLETED),
        ([COMPLETED, RUNNING], None),
        ([COMPLETED, HELD], None),
        ([RUNNING, ABORTED], Fact.PREDECESSOR_ABORTED),
    ],
)
def test_a_step_waits_for_all_of_its_predecessors(predecessors: list[StepState], fact: Fact | None) -> None:
    assert fact_of_predecessors(predecessors) is fact


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([COMPLETED, COMPLETED], JobState.COMPLETED),
        ([ABORTED, ABORTED], JobState.ABORTED),
        ([COMPLETED, ABORTED], JobState.CLOSED),
        ([COMPLETED, HELD, RUNNING], JobState.INTERRUPTED),
        ([COMPLETED, SUSPENDED, RUNNING], JobState.INTERRUPTED),
        ([RUNNING, ALLOWED], JobState.RUNNING),
        ([COMPLETED, ALLOWED], JobState.RUNNING),
        ([ABORTED, WAITING], JobState.RUNNING),
        ([ALLOWED, WAITING], JobState.ALLOWED_TO_START),
        ([WAITING], JobState.NOT_ALLOWED_TO_START),
    ],
)
def test_a_job_s_state_is_that_of_its_steps(steps: list[StepState], state: JobState) -> None:
    assert job_state(steps) is state
    assert state.ended == all(step.ended for step in steps)


def test_the_diagram_in_the_docs_is_the_table() -> None:
    text = (root_of_project() / "docs" / "states.md").read_text(encoding="utf-8")
    assert diagram() in text, "docs/states.md is out of date: run `python docs/make_states.py`"
