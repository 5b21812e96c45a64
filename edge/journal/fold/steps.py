"""Steps: moved by the table of `edge.jobstate`, and those that waited for them."""

from __future__ import annotations

import json
import sqlite3

from edge.errors import IllegalTransitionError
from edge.jobstate import Fact, OnFailure, Policy, Requested, StepState, advance, fact_of_predecessors, requested_after
from edge.journal.rows import Row, rows
from edge.model.event import Event


def move(connection: sqlite3.Connection, event: Event, part: int, step: str, fact: Fact, reason: str | None) -> None:
    """Move one step, then those that waited for it."""
    if move_alone(connection, event, part, step, fact, reason).ended:
        _move_successors(connection, event, part, step)


def move_alone(
    connection: sqlite3.Connection, event: Event, part: int, step: str, fact: Fact, reason: str | None
) -> StepState:
    """Move one step by the table; its new state."""
    key = {"job_id": event.job_id, "part": part, "step": step}
    here = "WHERE (job_id, part, step) = (:job_id, :part, :step)"
    found, standing = connection.execute(f"SELECT state, requested FROM steps {here}", key).fetchone()
    before = StepState(found)
    try:
        after = advance(before, fact)
    except IllegalTransitionError as error:
        raise IllegalTransitionError(f"step {event.job_id}/{part}/{step}: {error}") from None
    connection.execute(
        "UPDATE steps SET state = :state, requested = :requested, reason = :reason, request_failure = NULL,"
        " suspended_by = iif(:state = 'SUSPENDED', suspended_by, NULL),"
        f" since = iif(state = :state, since, :at) {here}",
        {
            **key,
            "state": after,
            "requested": requested_after(before, fact, Requested(standing)),
            "reason": reason,
            "at": event.at_wall,
        },
    )
    return after


def _move_successors(connection: sqlite3.Connection, event: Event, part: int, ended: str) -> None:
    states = {
        step: StepState(state)
        for step, state in connection.execute(
            "SELECT step, state FROM steps WHERE (job_id, part) = (?, ?)", (event.job_id, part)
        )
    }
    for step, after in _after(connection, event.job_id).items():
        if ended not in after or states[step] is not StepState.NOT_ALLOWED_TO_START:
            continue
        fact = fact_of_predecessors(states[name] for name in after)
        if fact is not None:
            move(connection, event, part, step, fact, f"after {ended}")


def _after(connection: sqlite3.Connection, job_id: str | None) -> dict[str, list[str]]:
    """What each step of the order waits for."""
    (payload,) = connection.execute("SELECT payload FROM orders WHERE job_id = ?", (job_id,)).fetchone()
    return {step["id"]: step.get("after", []) for step in json.loads(payload)["steps"]}


def step_of(connection: sqlite3.Connection, event: Event) -> Row:
    found = rows(
        connection,
        "SELECT part, step, state, requested, attempt, max_attempts, on_failure, run_id, reason FROM steps"
        " WHERE (job_id, part, step) = (?, ?, ?)",
        *(event.job_id, event.part, event.step),
    )
    if not found:
        raise IllegalTransitionError(f"{name_of(event)} is not known here")
    return found[0]


def step_of_run(connection: sqlite3.Connection, event: Event) -> Row:
    """The step, if this run is its newest."""
    step = step_of(connection, event)
    if event.run_id is None or step["run_id"] != event.run_id:
        raise IllegalTransitionError(f"{name_of(event)} is not at run {event.run_id}")
    return step


def policy_of(step: Row) -> Policy:
    return Policy(OnFailure(step["on_failure"]), step["attempt"], step["max_attempts"])


def name_of(event: Event) -> str:
    return f"step {event.job_id}/{event.part}/{event.step}"
