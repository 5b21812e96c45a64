"""What a request about a job comes to, by how the job is: what is to be recorded, or why it cannot be.

Asked by somebody on the site (`edge.serving.steering`) and by a signed command from the centre (`edge.intake.actions`).
`found` is `views.Snapshot.job`.

Rules

1. What is so already is not asked again: the same request twice is one event, and here nothing is to be recorded.
2. What the machines have not confirmed is asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge.errors import IllegalTransitionError, UsageError
from edge.jobstate import JobState, Requested, Resolution, StepState
from edge.journal.fold.requests import WAITS_TO_BE_JUDGED
from edge.journal.rows import Row
from edge.journal.scribe import ACTOR
from edge.model.event import Draft, EventKind


def cancel(found: Row, actor: str, reason: str) -> list[Draft]:
    """Ask for the end of a job. One that has ended, or is being stopped, stays as it is."""
    steps = found["steps"]
    to_end = all(StepState(s["state"]).ended or Requested(s["requested"]).ends_the_run for s in steps)
    if to_end and not _waits_to_be_judged(found):
        return []
    return [Draft(EventKind.CANCEL_REQUESTED, actor, _said(reason), found["job_id"])]


def decline(found: Row, actor: str, reason: str) -> list[Draft]:
    """Say that a job never started here and never will. The journal refuses it if a run of it ever began.

    An order that waits to be judged never becomes a job then.
    """
    if any(event["kind"] == EventKind.JOB_DECLINED for event in found["events"]):
        return []
    return [Draft(EventKind.JOB_DECLINED, actor, _said(reason), found["job_id"])]


def hold(found: Row, actor: str, reason: str, can_pause: Callable[[str], bool]) -> list[Draft]:
    """Let no step of the job start, and pause what runs.

    A run on a machine that cannot be paused goes on to its end. Raises `IllegalTransitionError` if nothing but such
    runs is left of the job, or nothing at all.
    """
    job_id, steps = found["job_id"], _open_steps(found, "hold")
    deaf = [s for s in steps if _goes_on(s) and not can_pause(s["machine"])]
    if found["held"] is None and deaf == steps:
        names = ", ".join(s["machine"] for s in deaf)
        raise IllegalTransitionError(
            f"job {job_id} cannot be held: {names} cannot be paused, and nothing else is left of the job;"
            f" `edge job cancel {job_id}` ends it"
        )
    if found["held"] is not None and not any(s not in deaf and _is_to_pause(s) for s in steps):
        return []
    refused = {"requested": str(Requested.PAUSE), "withdrawn": True}
    return [
        Draft(EventKind.HOLD_REQUESTED, actor, _said(reason), job_id),
        *(
            Draft(
                EventKind.REQUEST_FAILED,
                ACTOR,
                {**refused, "reason": f"{s['machine']} cannot be paused; its run goes on to its end"},
                job_id,
                s["part"],
                s["step"],
                s["run_id"],
                s["machine"],
            )
            for s in deaf
        ),
    ]


def release(found: Row, actor: str, reason: str) -> list[Draft]:
    """Let the job go on, and answer machines that wait in a run of it. Raises `IllegalTransitionError`."""
    steps = _open_steps(found, "release")
    if found["held"] is None and not any(_is_to_resume(s) for s in steps):
        return []
    return [Draft(EventKind.RELEASE_REQUESTED, actor, _said(reason), found["job_id"])]


def resolve(
    found: Row,
    resolution: Resolution,
    actor: str,
    reason: str,
    *,
    part: int | None = None,
    step: str | None = None,
    run_id: str | None = None,
) -> list[Draft]:
    """What is to become of the one step that is meant and whose run ended in doubt or failed.

    Raises `UsageError` if that is not one step. Whether the order allows a further attempt is for the fold to say.
    """
    _refuse_unjudged(found)
    meant = [
        s
        for s in found["steps"]
        if part in (None, s["part"]) and step in (None, s["step"])
        if run_id in (None, s["run_id"])
    ]
    held = [s for s in meant if s["state"] == StepState.HELD]
    if len(held) != 1:
        raise UsageError(_not_one(found["job_id"], meant, held))
    body = {"resolution": str(resolution), **_said(reason)}
    where = held[0]
    return [Draft(EventKind.RUN_RESOLVED, actor, body, found["job_id"], where["part"], where["step"], where["run_id"])]


def _said(reason: str) -> dict[str, Any]:
    return {"reason": reason} if reason else {}


def _waits_to_be_judged(found: Row) -> bool:
    return found["parked"] is not None and found["state"] != JobState.ABORTED


def _refuse_unjudged(found: Row) -> None:
    if _waits_to_be_judged(found):
        raise IllegalTransitionError(f"job {found['job_id']} {WAITS_TO_BE_JUDGED}")


def _open_steps(found: Row, verb: str) -> list[Row]:
    _refuse_unjudged(found)
    steps = [s for s in found["steps"] if not StepState(s["state"]).ended]
    if not steps:
        raise IllegalTransitionError(f"job {found['job_id']} is {found['state']}: nothing is left to {verb}")
    return steps


def _goes_on(step: Row) -> bool:
    return step["state"] == StepState.RUNNING and not Requested(step["requested"]).ends_the_run


def _is_to_pause(step: Row) -> bool:
    """Whether a hold would ask its machine for something that it is not asked for already."""
    if step["requested"] == Requested.PAUSE:
        return bool(step["request_failure"])
    return _goes_on(step) or step["requested"] == Requested.RESUME


def _is_to_resume(step: Row) -> bool:
    if step["requested"] == Requested.RESUME:
        return bool(step["request_failure"])
    suspended = step["state"] == StepState.SUSPENDED and not Requested(step["requested"]).ends_the_run
    return suspended or step["requested"] == Requested.PAUSE


def _not_one(job_id: str, meant: list[Row], held: list[Row]) -> str:
    def names(steps: list[Row]) -> str:
        return ", ".join(f"part {s['part']} step {s['step']}" for s in steps)

    if held:
        return f"{len(held)} steps of job {job_id} are held: {names(held)}; name one with --part and --step"
    if not meant:
        return f"job {job_id} has no such step; `edge job show {job_id}` lists them"
    if waiting := [s for s in meant if s["state"] == StepState.SUSPENDED]:
        return f"the run of {names(waiting)} is open: `edge job release {job_id}` or `edge job cancel {job_id}`"
    return f"no such step of job {job_id} is held: nothing is in doubt"
