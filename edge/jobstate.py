"""How steps move, and what a job's state is. PURE. The one table.

Rules:

    1. A step moves only by a fact, and only as `TABLE` says. A missing entry raises; nothing is ignored.
    2. COMPLETED and ABORTED are final: no entry starts there.
    3. RUNNING is entered by RUN_BEGAN only, and only from ALLOWED_TO_START.
    4. A request is not a fact. What was asked of a step whose run is open stands beside its state as `Requested` until
       the machine confirms it or the run ends, also over a restart of the daemon; hence there are no "-ing" states. A
       stop that was asked for is never replaced by a pause or a resume (`requested_after`).
    5. What became of a run (`fact_of_run`) depends on its outcome, on whether anything can have moved, on what was
       requested and on the order's policy. UNKNOWN always holds the step: a person or the machine's evidence resolves
       it, never the policy. A step that was asked to stop is not tried again.
    6. An order's `max_attempts` binds everybody: neither the policy nor a person starts one attempt more
       (`resolution`).
    7. A step waits (NOT_ALLOWED_TO_START) for the steps named in its `after`. When all are completed it is allowed;
       when one is aborted it is aborted with it, because it can never start.
    8. A job has no state of its own: `job_state` derives it from its steps.
    9. A job is declined only as a whole, and only if no run of it ever began: the centre may give it to another site.
    10. SUSPENDED has an open run, and the machine waits, confirmed; HELD has none, and a person decides what was made.
        A machine that holds by itself takes a resume that was asked before with it: nobody has seen what it asks now.
    11. An order that has certainly expired ends by itself (EXPIRED), but never what is at a machine or HELD: that is a
        machine's or a person's to say.

The states are those of ISA-95 part 4 and OPC 10031-4, sub-states written flat: HELD is Interrupted/Held, SUSPENDED is
Interrupted/Suspended, COMPLETED is Ended/Completed. Ended/Closed is only ever a job's: it ended, and not all of it is
good.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from edge.errors import IllegalTransitionError, Motion


class StepState(enum.StrEnum):
    """Where a step stands. The value is what the journal's projections hold."""

    NOT_ALLOWED_TO_START = "NOT_ALLOWED_TO_START"  # waits for other steps
    ALLOWED_TO_START = "ALLOWED_TO_START"  # may be planned
    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"  # Interrupted/Suspended: the run is open, the machine waits
    HELD = "HELD"  # Interrupted/Held: the run ended in doubt or failed; waits for a person
    COMPLETED = "COMPLETED"  # Ended/Completed: good
    ABORTED = "ABORTED"

    @property
    def ended(self) -> bool:
        """Whether nothing moves it any more."""
        return self in (StepState.COMPLETED, StepState.ABORTED)

    @property
    def at_a_machine(self) -> bool:
        """Whether its run has begun and has no end."""
        return self in (StepState.RUNNING, StepState.SUSPENDED)


class JobState(enum.StrEnum):
    """Where a job stands, derived from its steps."""

    NOT_ALLOWED_TO_START = "NOT_ALLOWED_TO_START"
    ALLOWED_TO_START = "ALLOWED_TO_START"
    RUNNING = "RUNNING"
    INTERRUPTED = "INTERRUPTED"  # at least one step is held or suspended
    COMPLETED = "COMPLETED"  # Ended/Completed: all of it is good
    CLOSED = "CLOSED"  # Ended/Closed: some of it is good
    ABORTED = "ABORTED"  # none of it is good

    @property
    def ended(self) -> bool:
        """Whether nothing moves it any more."""
        return self in (JobState.COMPLETED, JobState.CLOSED, JobState.ABORTED)


class Requested(enum.StrEnum):
    """What was asked of a step whose run is open, and is not confirmed yet."""

    NONE = "none"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    ABORT = "abort"

    @property
    def ends_the_run(self) -> bool:
        """Whether it is the run's end that was asked for."""
        return self in (Requested.STOP, Requested.ABORT)


class RunOutcome(enum.StrEnum):
    """What became of a run."""

    SUCCEEDED = "SUCCEEDED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class OnFailure(enum.StrEnum):
    """The order's policy for a step whose run failed."""

    HOLD = "hold"
    ABORT = "abort"
    RETRY_BEFORE_MOTION = "retry_before_motion"
    RETRY = "retry"


class Resolution(enum.StrEnum):
    """What a person, or evidence from the machine, says of a held step."""

    GOOD = "good"
    SCRAPPED = "scrapped"
    RETRY = "retry"


class Fact(enum.StrEnum):
    """What moves a step."""

    PREDECESSORS_COMPLETED = "predecessors completed"
    PREDECESSOR_ABORTED = "a predecessor was aborted"
    CANCELLED = "cancelled"
    DECLINED = "declined"
    EXPIRED = "its latest start has passed"
    RUN_BEGAN = "run began"
    RUN_RESUMED = "run goes on where it was left"
    PAUSE_ASKED = "asked to pause"
    RESUME_ASKED = "asked to resume"
    SUSPENDED_AS_ASKED = "paused as asked"
    SUSPENDED_BY_MACHINE = "the machine holds by itself"
    RELEASED = "the machine goes on"
    REQUEST_WITHDRAWN = "the machine refuses what was asked"
    RUN_COMPLETED = "run completed"
    RUN_REPEATABLE = "run failed, may be tried again"
    RUN_HELD = "run left in doubt or failed"
    RUN_ABORTED = "run stopped as asked, or failed for good"
    RESOLVED_GOOD = "resolved as good"
    RESOLVED_SCRAPPED = "resolved as scrapped"
    RESOLVED_RETRY = "resolved for a retry"


TABLE: dict[tuple[StepState, Fact], StepState] = {
    (StepState.NOT_ALLOWED_TO_START, Fact.PREDECESSORS_COMPLETED): StepState.ALLOWED_TO_START,
    (StepState.NOT_ALLOWED_TO_START, Fact.PREDECESSOR_ABORTED): StepState.ABORTED,
    (StepState.NOT_ALLOWED_TO_START, Fact.CANCELLED): StepState.ABORTED,
    (StepState.NOT_ALLOWED_TO_START, Fact.DECLINED): StepState.ABORTED,
    (StepState.NOT_ALLOWED_TO_START, Fact.EXPIRED): StepState.ABORTED,
    (StepState.ALLOWED_TO_START, Fact.DECLINED): StepState.ABORTED,
    (StepState.ALLOWED_TO_START, Fact.EXPIRED): StepState.ABORTED,
    (StepState.ALLOWED_TO_START, Fact.RUN_BEGAN): StepState.RUNNING,
    (StepState.ALLOWED_TO_START, Fact.CANCELLED): StepState.ABORTED,
    (StepState.RUNNING, Fact.RUN_RESUMED): StepState.RUNNING,
    # The machine has not confirmed anything yet: see `requested_after`.
    (StepState.RUNNING, Fact.CANCELLED): StepState.RUNNING,
    (StepState.RUNNING, Fact.PAUSE_ASKED): StepState.RUNNING,
    (StepState.RUNNING, Fact.RESUME_ASKED): StepState.RUNNING,
    (StepState.RUNNING, Fact.REQUEST_WITHDRAWN): StepState.RUNNING,
    (StepState.RUNNING, Fact.RELEASED): StepState.RUNNING,
    (StepState.RUNNING, Fact.SUSPENDED_AS_ASKED): StepState.SUSPENDED,
    (StepState.RUNNING, Fact.SUSPENDED_BY_MACHINE): StepState.SUSPENDED,
    (StepState.RUNNING, Fact.RUN_COMPLETED): StepState.COMPLETED,
    (StepState.RUNNING, Fact.RUN_REPEATABLE): StepState.ALLOWED_TO_START,
    (StepState.RUNNING, Fact.RUN_HELD): StepState.HELD,
    (StepState.RUNNING, Fact.RUN_ABORTED): StepState.ABORTED,
    # A daemon that finds the run again has not let it go on.
    (StepState.SUSPENDED, Fact.RUN_RESUMED): StepState.SUSPENDED,
    (StepState.SUSPENDED, Fact.CANCELLED): StepState.SUSPENDED,
    (StepState.SUSPENDED, Fact.PAUSE_ASKED): StepState.SUSPENDED,
    (StepState.SUSPENDED, Fact.RESUME_ASKED): StepState.SUSPENDED,
    (StepState.SUSPENDED, Fact.REQUEST_WITHDRAWN): StepState.SUSPENDED,
    (StepState.SUSPENDED, Fact.SUSPENDED_AS_ASKED): StepState.SUSPENDED,
    (StepState.SUSPENDED, Fact.SUSPENDED_BY_MACHINE): StepState.SUSPENDED,
    (StepState.SUSPENDED, Fact.RELEASED): StepState.RUNNING,
    (StepState.SUSPENDED, Fact.RUN_COMPLETED): StepState.COMPLETED,
    (StepState.SUSPENDED, Fact.RUN_REPEATABLE): StepState.ALLOWED_TO_START,
    (StepState.SUSPENDED, Fact.RUN_HELD): StepState.HELD,
    (StepState.SUSPENDED, Fact.RUN_ABORTED): StepState.ABORTED,
    (StepState.HELD, Fact.CANCELLED): StepState.ABORTED,
    (StepState.HELD, Fact.RESOLVED_GOOD): StepState.COMPLETED,
    (StepState.HELD, Fact.RESOLVED_SCRAPPED): StepState.ABORTED,
    (StepState.HELD, Fact.RESOLVED_RETRY): StepState.ALLOWED_TO_START,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What the order allows for one step, and how far it has come."""

    on_failure: OnFailure
    attempt: int
    max_attempts: int

    @property
    def exhausted(self) -> bool:
        """Whether no attempt is left."""
        return self.attempt >= self.max_attempts


def advance(state: StepState, fact: Fact) -> StepState:
    """The state after `fact`.

    Raises:
        IllegalTransitionError: the table has no entry.
    """
    try:
        return TABLE[state, fact]
    except KeyError:
        raise IllegalTransitionError(f"'{fact}' cannot happen to a step that is {state}") from None


def requested_after(state: StepState, fact: Fact, standing: Requested) -> Requested:
    """What stands requested after `fact` came to a step that was in `state`, and of which `standing` was asked."""
    if fact is Fact.CANCELLED and state.at_a_machine:
        return Requested.STOP
    if standing.ends_the_run and advance(state, fact).at_a_machine:
        return standing
    match fact:
        case Fact.RUN_RESUMED:
            return standing
        case Fact.PAUSE_ASKED:
            # One that is suspended already needs no pause, unless it may be on its way.
            needless = state is StepState.SUSPENDED and standing is Requested.NONE
            return Requested.NONE if needless else Requested.PAUSE
        case Fact.RESUME_ASKED:
            needless = state is StepState.RUNNING and standing is Requested.NONE
            return Requested.NONE if needless else Requested.RESUME
        case Fact.SUSPENDED_AS_ASKED:
            return Requested.NONE if standing is Requested.PAUSE else standing
        case Fact.RELEASED:
            return Requested.NONE if standing is Requested.RESUME else standing
        case _:
            return Requested.NONE


def fact_of_run(outcome: RunOutcome, motion: Motion, requested: Requested, policy: Policy) -> Fact:
    """What the end of a run means for its step."""
    to_end = requested.ends_the_run
    match outcome:
        case RunOutcome.SUCCEEDED:
            return Fact.RUN_COMPLETED
        case RunOutcome.UNKNOWN:
            return Fact.RUN_HELD
        case RunOutcome.STOPPED:
            # Stopped without a request: the daemon was shut down.
            return Fact.RUN_ABORTED if to_end else Fact.RUN_HELD
        case RunOutcome.FAILED:
            return Fact.RUN_ABORTED if to_end else _fact_of_failure(motion, policy)
        case _ as never:
            assert_never(never)


def _fact_of_failure(motion: Motion, policy: Policy) -> Fact:
    match policy.on_failure:
        case OnFailure.ABORT:
            return Fact.RUN_ABORTED
        case OnFailure.HOLD:
            return Fact.RUN_HELD
        case OnFailure.RETRY_BEFORE_MOTION:
            repeatable = motion is Motion.NONE and not policy.exhausted
        case OnFailure.RETRY:
            repeatable = not policy.exhausted
        case _ as never:
            assert_never(never)
    return Fact.RUN_REPEATABLE if repeatable else Fact.RUN_HELD


def resolution(verdict: Resolution, policy: Policy) -> Fact:
    """What a person's word on a held step means.

    Raises:
        IllegalTransitionError: the order allows no further attempt.
    """
    match verdict:
        case Resolution.GOOD:
            return Fact.RESOLVED_GOOD
        case Resolution.SCRAPPED:
            return Fact.RESOLVED_SCRAPPED
        case Resolution.RETRY:
            if policy.exhausted:
                raise IllegalTransitionError(
                    f"no retry: attempt {policy.attempt} of {policy.max_attempts} that the order allows was made"
                )
            return Fact.RESOLVED_RETRY
        case _ as never:
            assert_never(never)


def fact_of_predecessors(states: Iterable[StepState]) -> Fact | None:
    """What the steps named in `after` mean for the step that waits for them; None while some are open."""
    seen = list(states)
    if StepState.ABORTED in seen:
        return Fact.PREDECESSOR_ABORTED
    return Fact.PREDECESSORS_COMPLETED if all(state is StepState.COMPLETED for state in seen) else None


def job_state(steps: Iterable[StepState]) -> JobState:
    """The state of a job with these steps, at least one. The first rule that fits:

    none open: COMPLETED if all are, ABORTED if all are, else CLOSED; one held or suspended: INTERRUPTED; one running,
    or some ended and some still open: RUNNING; one allowed: ALLOWED_TO_START; else NOT_ALLOWED_TO_START.
    """
    states = set(steps)
    if all(state.ended for state in states):
        if len(states) == 1:
            return JobState(states.pop().value)
        return JobState.CLOSED
    if StepState.HELD in states or StepState.SUSPENDED in states:
        return JobState.INTERRUPTED
    if StepState.RUNNING in states or any(state.ended for state in states):
        return JobState.RUNNING
    if StepState.ALLOWED_TO_START in states:
        return JobState.ALLOWED_TO_START
    return JobState.NOT_ALLOWED_TO_START


def diagram() -> str:
    """The table as a mermaid state diagram; docs/states.md holds it."""
    lines = ["stateDiagram-v2", "    [*] --> NOT_ALLOWED_TO_START", "    [*] --> ALLOWED_TO_START"]
    lines += [f"    {before} --> {after}: {fact}" for (before, fact), after in TABLE.items()]
    lines += [f"    {state} --> [*]" for state in StepState if state.ended]
    return "\n".join(lines) + "\n"
