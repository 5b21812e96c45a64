"""Whatever the orders and machines are, the planner keeps its promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from edge.model.loaded import Loaded, counting
from edge.model.machine import MachineState
from edge.model.order import unmet
from edge.running.planner import CheckResult, CheckState, MachineView, OpenStep, StepKey, plan
from edge.timefloor import vouched

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
PROGRAMS = ("aa", "bb")
MACHINES = ("m1", "m2", "m3")
times = st.integers(-3, 3).map(lambda hours: NOW + timedelta(hours=hours))

steps = st.lists(
    st.builds(
        OpenStep,
        key=st.builds(StepKey, st.sampled_from(["j1", "j2", "j3", "j4"]), st.integers(1, 2), st.just("print")),
        process=st.sampled_from(["fdm", "mill", "weld"]),
        requires=st.sampled_from([{}, {"material": "PLA"}]),
        program=st.sampled_from(PROGRAMS),
        program_name=st.just("body"),
        program_here=st.booleans(),
        priority=st.integers(0, 3),
        due_at=st.none() | times,
        not_before=st.none() | times,
        expires_at=times,
        accepted_seq=st.integers(1, 9),
        refusal=st.sampled_from(["", "", "", "revoked"]),
        held=st.sampled_from(["", "", "", "held by ada"]),
    ),
    max_size=8,
    unique_by=lambda step: step.key,
)
machines = st.lists(
    st.builds(
        MachineView,
        id=st.sampled_from(MACHINES),
        processes=st.sampled_from([("fdm",), ("fdm", "mill"), ()]),
        properties=st.builds(
            counting,
            st.sampled_from([{}, {"material": "PLA"}, {"material": "ABS"}]),
            st.sampled_from([{}, {"material": Loaded("PLA", "ABS", "user:ada", "2026-11-22T10:00:00.000Z")}]),
        ),
        state=st.sampled_from([MachineState.IDLE, *MachineState]),
        needs_clearing=st.sampled_from([None, None, "r1"]),
        busy_with=st.sampled_from([None, None, "r1", "r2"]),
        maintenance=st.sampled_from(["", "", "out of service"]),
    ),
    max_size=3,
    unique_by=lambda machine: machine.id,
)
checks = st.dictionaries(
    st.tuples(st.sampled_from(PROGRAMS), st.sampled_from(MACHINES)),
    st.sampled_from(
        [CheckResult(CheckState.SUITS), CheckResult(CheckState.REFUSED, "no"), CheckResult(CheckState.PENDING)]
    ),
)


@given(steps, machines, checks)
def test_every_step_is_assigned_or_waits_for_a_reason_and_never_both(steps, machines, checks) -> None:
    made = plan(steps, machines, checks, vouched(NOW))
    assert made.assignments.keys() | made.waits.keys() == {step.key for step in steps}
    assert not made.assignments.keys() & made.waits.keys()
    assert all(blockers and all(b.text for b in blockers) for blockers in made.waits.values())


@given(steps, machines, checks)
def test_no_machine_gets_two_steps_and_none_that_it_cannot_take_now(steps, machines, checks) -> None:
    made = plan(steps, machines, checks, vouched(NOW))
    assert len(set(made.assignments.values())) == len(made.assignments)
    by_id = {machine.id: machine for machine in machines}
    by_key = {step.key: step for step in steps}
    for key, name in made.assignments.items():
        step, machine = by_key[key], by_id[name]
        assert machine.state is MachineState.IDLE
        assert (machine.busy_with, machine.needs_clearing, machine.maintenance) == (None, None, "")
        assert step.process in machine.processes
        assert unmet(step.requires, {name: one.value for name, one in machine.properties.items()}) is None
        assert checks[step.program, name].state is CheckState.SUITS
        assert step.program_here
        assert not step.refusal
        assert not step.held
        assert (step.not_before or NOW) <= NOW < step.expires_at


@given(steps, machines, checks)
def test_whoever_waits_would_not_start_on_a_machine_that_is_left(steps, machines, checks) -> None:
    made = plan(steps, machines, checks, vouched(NOW))
    left = [machine for machine in machines if machine.id not in made.assignments.values()]
    for waiting in (step for step in steps if step.key in made.waits):
        for machine in left:
            assert plan([waiting], [machine], checks, vouched(NOW)).assignments == {}


@given(steps, machines, checks, st.randoms())
def test_the_order_in_which_steps_are_read_does_not_matter(steps, machines, checks, random) -> None:
    shuffled = list(steps)
    random.shuffle(shuffled)
    assert plan(shuffled, machines, checks, vouched(NOW)) == plan(steps, machines, checks, vouched(NOW))


@given(steps, machines, checks)
def test_a_more_urgent_step_that_could_have_had_the_machine_has_one(steps, machines, checks) -> None:
    made = plan(steps, machines, checks, vouched(NOW))
    by_key = {step.key: step for step in steps}
    for key, name in made.assignments.items():
        for other in (by_key[waiting] for waiting in made.waits):
            alone = plan([other], [m for m in machines if m.id == name], checks, vouched(NOW))
            if alone.assignments:
                assert other.priority <= by_key[key].priority, "it was passed over"
