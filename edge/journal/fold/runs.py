"""Runs: whether one may begin, and what each of its events makes of its step."""

from __future__ import annotations

import sqlite3

from edge.errors import IllegalTransitionError, Motion
from edge.jobstate import Fact, Requested, Resolution, RunOutcome, StepState, fact_of_run, resolution
from edge.journal.fold import machines, standing, steps
from edge.model.event import Event


def began(connection: sqlite3.Connection, event: Event) -> None:
    step = steps.step_of(connection, event)
    attempt = event.body["attempt"]
    if attempt != step["attempt"] + 1 or attempt > step["max_attempts"]:
        raise IllegalTransitionError(
            f"attempt {attempt} of {steps.name_of(event)} does not follow"
            f" attempt {step['attempt']} of {step['max_attempts']}"
        )
    verified_by, in_force = event.body.get("root_version"), standing.root_version(connection)
    if None not in (verified_by, in_force) and verified_by != in_force:
        raise IllegalTransitionError(
            f"{steps.name_of(event)} was verified by version {verified_by} of the trust root, {in_force} is in force"
        )
    if held := standing.journal_held(connection):
        raise IllegalTransitionError(f"nothing begins before somebody confirms this journal: {held}")
    (held_by,) = connection.execute("SELECT held_by FROM orders WHERE job_id = ?", (event.job_id,)).fetchone()
    if held_by is not None:
        raise IllegalTransitionError(f"job {event.job_id} is held by {held_by}: nothing of it begins")
    found = connection.execute("SELECT needs_clearing FROM machines WHERE machine = ?", (event.machine,)).fetchone()
    if found is not None and found[0] is not None:
        raise IllegalTransitionError(f"{event.machine} needs clearing by {found[0]} before another run begins")
    if (out := machines.maintenance(connection, event.machine)) is not None:
        raise IllegalTransitionError(f"{event.machine} is {out.in_words}: nothing begins on it")
    steps.move(connection, event, step["part"], step["step"], Fact.RUN_BEGAN, None)
    connection.execute(
        "UPDATE steps SET attempt = ?, machine = ?, run_id = ? WHERE (job_id, part, step) = (?, ?, ?)",
        (attempt, event.machine, event.run_id, event.job_id, event.part, event.step),
    )
    connection.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL)",
        (event.run_id, event.job_id, event.part, event.step, attempt, event.machine, event.at_wall),
    )
    machines.needs_clearing(connection, event, event.run_id)


def resumed(connection: sqlite3.Connection, event: Event) -> None:
    step = steps.step_of_run(connection, event)
    # What a suspended step waits for is still what its reason says.
    reason = step["reason"] if StepState(step["state"]) is StepState.SUSPENDED else event.body.get("detail")
    steps.move(connection, event, step["part"], step["step"], Fact.RUN_RESUMED, reason)


def suspended(connection: sqlite3.Connection, event: Event) -> None:
    step = steps.step_of_run(connection, event)
    fact = {"request": Fact.SUSPENDED_AS_ASKED, "machine": Fact.SUSPENDED_BY_MACHINE}[event.body["by"]]
    steps.move(connection, event, step["part"], step["step"], fact, event.body.get("reason", ""))
    connection.execute(
        "UPDATE steps SET suspended_by = ? WHERE (job_id, part, step) = (?, ?, ?)",
        (event.body["by"], event.job_id, event.part, event.step),
    )


def released(connection: sqlite3.Connection, event: Event) -> None:
    step = steps.step_of_run(connection, event)
    steps.move(connection, event, step["part"], step["step"], Fact.RELEASED, None)


def overran(connection: sqlite3.Connection, event: Event) -> None:
    """Its step stays as it is; who wants to know finds the event."""
    steps.step_of_run(connection, event)
    query = "SELECT 1 FROM runs WHERE run_id = ? AND ended_at IS NULL"
    if connection.execute(query, (event.run_id,)).fetchone() is None:
        raise IllegalTransitionError(f"run {event.run_id} has ended: it takes no time any more")


def request_failed(connection: sqlite3.Connection, event: Event) -> None:
    """The machine has not confirmed what stands requested, or refuses it; anything else was overtaken."""
    step = steps.step_of_run(connection, event)
    requested, withdrawn = Requested(event.body["requested"]), event.body["withdrawn"]
    if requested is not Requested(step["requested"]) or requested.ends_the_run:
        return
    if withdrawn:
        steps.move(connection, event, step["part"], step["step"], Fact.REQUEST_WITHDRAWN, step["reason"])
    connection.execute(
        "UPDATE steps SET request_failure = ? WHERE (job_id, part, step) = (?, ?, ?)",
        (event.body["reason"], event.job_id, event.part, event.step),
    )


def ended(connection: sqlite3.Connection, event: Event) -> None:
    step = steps.step_of_run(connection, event)
    outcome, motion = RunOutcome(event.body["outcome"]), Motion(event.body["motion"])
    reason = event.body.get("reason", "")
    fact = fact_of_run(outcome, motion, Requested(step["requested"]), steps.policy_of(step))
    steps.move(connection, event, step["part"], step["step"], fact, reason)
    connection.execute(
        "UPDATE runs SET ended_at = ?, outcome = ?, motion = ?, reason = ? WHERE run_id = ?",
        (event.at_wall, outcome, motion, reason, event.run_id),
    )
    if motion is Motion.NONE and outcome in (RunOutcome.FAILED, RunOutcome.STOPPED):
        connection.execute("UPDATE machines SET needs_clearing = NULL WHERE needs_clearing = ?", (event.run_id,))


def resolved(connection: sqlite3.Connection, event: Event) -> None:
    step = steps.step_of_run(connection, event)
    verdict = Resolution(event.body["resolution"])
    fact = resolution(verdict, steps.policy_of(step))
    steps.move(connection, event, step["part"], step["step"], fact, event.body.get("reason", ""))
