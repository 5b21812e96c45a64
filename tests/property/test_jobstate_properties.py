"""Any order of facts: a step goes only where the table says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.errors import IllegalTransitionError, Motion
from edge.jobstate import (
    TABLE,
    Fact,
    OnFailure,
    Policy,
    Requested,
    RunOutcome,
    StepState,
    advance,
    fact_of_run,
    job_state,
    requested_after,
)

facts = st.lists(st.sampled_from(Fact), max_size=40)
starts = st.sampled_from([StepState.NOT_ALLOWED_TO_START, StepState.ALLOWED_TO_START])


@given(starts, facts)
def test_any_facts_lead_only_where_the_table_says(state: StepState, sequence: list[Fact]) -> None:
    asked = Requested.NONE
    for fact in sequence:
        before = state
        try:
            state = advance(state, fact)
        except IllegalTransitionError:
            assert (before, fact) not in TABLE
            continue
        assert not before.ended, "nothing leaves an ended state"
        if state.at_a_machine and not before.at_a_machine:
            assert (before, fact) == (StepState.ALLOWED_TO_START, Fact.RUN_BEGAN)
        if state is StepState.RUNNING and before is StepState.SUSPENDED:
            assert fact is Fact.RELEASED, "only the machine's own word that it goes on ends a suspension"
        standing, asked = asked, requested_after(before, fact, asked)
        if standing.ends_the_run and state.at_a_machine:
            assert asked.ends_the_run, "a stop that was asked for is never forgotten"
        assert asked is Requested.NONE or state.at_a_machine, "only an open run can be asked for something"


@given(
    st.sampled_from([StepState.RUNNING, StepState.SUSPENDED]),
    st.sampled_from(RunOutcome),
    st.sampled_from(Motion),
    st.sampled_from(Requested),
    st.builds(Policy, st.sampled_from(OnFailure), st.integers(1, 10), st.integers(1, 10)),
)
def test_every_end_of_a_run_moves_its_step(
    before: StepState, outcome: RunOutcome, motion: Motion, requested: Requested, policy: Policy
) -> None:
    after = advance(before, fact_of_run(outcome, motion, requested, policy))
    assert not after.at_a_machine
    if after is StepState.COMPLETED:
        assert outcome is RunOutcome.SUCCEEDED
    if after is StepState.ALLOWED_TO_START:
        assert outcome is RunOutcome.FAILED
        assert policy.attempt < policy.max_attempts
        assert motion is Motion.NONE or policy.on_failure is OnFailure.RETRY


@given(st.lists(st.sampled_from(StepState), min_size=1, max_size=8))
def test_a_job_has_ended_when_all_its_steps_have(states: list[StepState]) -> None:
    assert job_state(states).ended == all(state.ended for state in states)
    assert job_state(states) is job_state(reversed(states))


def test_every_state_can_be_reached() -> None:
    reached = {StepState.NOT_ALLOWED_TO_START, StepState.ALLOWED_TO_START, *TABLE.values()}
    assert reached == set(StepState)
