"""What people ask of a job: to cancel it, to decline it, to hold and to release it; and what time does to it."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from edge.errors import IllegalTransitionError
from edge.jobstate import Fact, StepState
from edge.journal.fold import orders, standing, steps
from edge.model.event import Event

CANCELLED, DECLINED = "cancelled", "declined"
"""What became of an order that was given up before it was judged."""

_MINUTES = "%Y-%m-%d %H:%M UTC"

WAITS_TO_BE_JUDGED = "waits until somebody vouches for the clock; meanwhile it can be cancelled or declined"


def cancel(connection: sqlite3.Connection, event: Event) -> None:
    if orders.give_up(connection, event, CANCELLED):
        return
    for part, step, _, _ in _open_steps(connection, event, "cancel"):  # each of them: nobody is left to follow
        steps.move_alone(connection, event, part, step, Fact.CANCELLED, event.body.get("reason", "cancelled"))


def decline(connection: sqlite3.Connection, event: Event) -> None:
    if held := standing.journal_held(connection):
        raise IllegalTransitionError(
            f"job {event.job_id} cannot be declined before somebody confirms this journal, which may miss a run: {held}"
        )
    if orders.give_up(connection, event, DECLINED):
        return
    found = _open_steps(connection, event, "decline")
    (began,) = connection.execute("SELECT count(*) FROM runs WHERE job_id = ?", (event.job_id,)).fetchone()
    if began:
        raise IllegalTransitionError(f"job {event.job_id} cannot be declined: {began} of its runs began here")
    for part, step, _, _ in found:
        steps.move_alone(connection, event, part, step, Fact.DECLINED, event.body.get("reason", "declined"))


def expire(connection: sqlite3.Connection, event: Event) -> None:
    """The job's latest start has certainly passed: `floor` says so. What is at a machine or held does not end by it."""
    if held := standing.journal_held(connection):
        raise IllegalTransitionError(
            f"job {event.job_id} does not end before somebody confirms this journal, which may miss a run: {held}"
        )
    found = _open_steps(connection, event, "end")
    (text,) = connection.execute("SELECT expires_at FROM orders WHERE job_id = ?", (event.job_id,)).fetchone()
    latest, floor = datetime.fromisoformat(text), event.body["floor"]
    if datetime.fromisoformat(floor) < latest:
        raise IllegalTransitionError(f"job {event.job_id} may start before {text}, and only {floor} has passed")
    for part, step, _, _ in found:
        steps.move_alone(connection, event, part, step, Fact.EXPIRED, f"it was to start before {latest:{_MINUTES}}")


def hold(connection: sqlite3.Connection, event: Event) -> None:
    found = _open_steps(connection, event, "hold")
    connection.execute(
        "UPDATE orders SET held_by = ?, held_since = ?, held_reason = ? WHERE job_id = ? AND held_by IS NULL",
        (event.actor, event.at_wall, event.body.get("reason", ""), event.job_id),
    )
    for part, step, state, reason in found:
        if state.at_a_machine:
            steps.move_alone(connection, event, part, step, Fact.PAUSE_ASKED, reason)


def release(connection: sqlite3.Connection, event: Event) -> None:
    found = _open_steps(connection, event, "release")
    connection.execute(
        "UPDATE orders SET held_by = NULL, held_since = NULL, held_reason = NULL WHERE job_id = ?", (event.job_id,)
    )
    for part, step, state, reason in found:
        if state.at_a_machine:
            steps.move_alone(connection, event, part, step, Fact.RESUME_ASKED, reason)


def _open_steps(
    connection: sqlite3.Connection, event: Event, verb: str
) -> list[tuple[int, str, StepState, str | None]]:
    """Part, step, state and reason of every step of the job that has not ended, at least one."""
    found = connection.execute(
        "SELECT part, step, state, reason FROM steps WHERE job_id = ?", (event.job_id,)
    ).fetchall()
    if not found:
        query = "SELECT given_up FROM parked WHERE job_id = ? ORDER BY given_up"
        (given_up,) = connection.execute(query, (event.job_id,)).fetchone() or ("not known",)
        if given_up is None:
            raise IllegalTransitionError(f"job {event.job_id} {WAITS_TO_BE_JUDGED}")
        raise IllegalTransitionError(f"job {event.job_id} is {given_up} here: nothing is left to {verb}")
    still_open = [(part, step, StepState(state), why) for part, step, state, why in found if not StepState(state).ended]
    if not still_open:
        raise IllegalTransitionError(f"job {event.job_id} has ended: nothing is left to {verb}")
    return still_open
