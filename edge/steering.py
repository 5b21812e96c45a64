"""What a person on the site asks of a job: its end, a hold, a release, and a word on what a held run has made.

Rules

1. Everything is asked of the journal; the machines are asked from there. So nothing that was asked is lost.
2. What is so already is not asked again: the same request twice is one event.
3. Only a person releases. Nothing in edge calls `release` but the local socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from edge.errors import IllegalTransitionError, StaleRevisionError, UsageError
from edge.jobstate import Requested, Resolution, StepState
from edge.journal import Journal
from edge.model.event import Draft, EventKind
from edge.runner import Runner
from edge.scribe import ACTOR
from edge.views import Row

LOOKS = 10
"""How often a decision is made anew because the job has changed meanwhile."""

Decision = Callable[[Row], list[Draft]]
"""What is to be recorded about a job that is as this row says; nothing if it is so already."""


class Steering:
    """`look` gives the row of a job, or raises `UsageError`."""

    def __init__(self, journal: Journal, runners: Mapping[str, Runner], look: Callable[[str], Awaitable[Row]]) -> None:
        self._journal = journal
        self._runners = runners
        self._look = look

    async def cancel(self, job_id: str, actor: str, reason: str) -> Row:
        """Ask for the end of a job. One that has ended, or is being stopped, stays as it is."""

        def decide(found: Row) -> list[Draft]:
            if all(StepState(s["state"]).ended or Requested(s["requested"]).ends_the_run for s in found["steps"]):
                return []
            return [Draft(EventKind.CANCEL_REQUESTED, actor, _said(reason), job_id)]

        return await self._decide(job_id, decide)

    async def decline(self, job_id: str, actor: str, reason: str) -> Row:
        """Say that a job never started here and never will, so that it can be given to another site.

        Raises `IllegalTransitionError` if a run of it ever began, or if it has ended otherwise.
        """

        def decide(found: Row) -> list[Draft]:
            if any(event["kind"] == EventKind.JOB_DECLINED for event in found["events"]):
                return []
            return [Draft(EventKind.JOB_DECLINED, actor, _said(reason), job_id)]

        return await self._decide(job_id, decide)

    async def hold(self, job_id: str, actor: str, reason: str, wait_s: float = 0.0) -> Row:
        """Let no step of the job start, and pause what runs; waits up to `wait_s` for the machines' answers.

        A run on a machine that cannot be paused goes on to its end. Raises `IllegalTransitionError` if nothing but such
        runs is left of the job, or nothing at all.
        """

        def decide(found: Row) -> list[Draft]:
            steps = _open_steps(found, "hold")
            deaf = [s for s in steps if _goes_on(s) and not self._can_pause(s["machine"])]
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

        await self._decide(job_id, decide)
        return await self._answered(job_id, wait_s)

    async def release(self, job_id: str, actor: str, reason: str, wait_s: float = 0.0) -> Row:
        """Let the job go on, and answer machines that wait in a run of it; waits as `hold` does."""

        def decide(found: Row) -> list[Draft]:
            steps = _open_steps(found, "release")
            if found["held"] is None and not any(_is_to_resume(s) for s in steps):
                return []
            return [Draft(EventKind.RELEASE_REQUESTED, actor, _said(reason), job_id)]

        await self._decide(job_id, decide)
        return await self._answered(job_id, wait_s)

    async def resolve(
        self, job_id: str, resolution: Resolution, part: int | None, step: str | None, actor: str, reason: str
    ) -> Row:
        """A person says what is to become of a step whose run ended in doubt or failed.

        Raises `UsageError` if that is not one step, `IllegalTransitionError` if the order allows no further attempt.
        """

        def decide(found: Row) -> list[Draft]:
            meant = [s for s in found["steps"] if part in (None, s["part"]) and step in (None, s["step"])]
            held = [s for s in meant if s["state"] == StepState.HELD]
            if len(held) != 1:
                raise UsageError(_not_one(job_id, meant, held))
            body = {"resolution": str(resolution), **_said(reason)}
            where = held[0]
            return [Draft(EventKind.RUN_RESOLVED, actor, body, job_id, where["part"], where["step"], where["run_id"])]

        return await self._decide(job_id, decide)

    async def _decide(self, job_id: str, decide: Decision) -> Row:
        """Record what `decide` says of the job as it is; the job afterwards."""
        for _ in range(LOOKS):
            found = await self._look(job_id)
            drafts = decide(found)
            if not drafts:
                return found
            try:
                await self._journal.record(drafts, expected_revision=found["revision"])
            except StaleRevisionError:
                continue  # it moved on meanwhile: look again
            return await self._look(job_id)
        raise UsageError(f"job {job_id} changes faster than it can be steered; try again")

    async def _answered(self, job_id: str, wait_s: float) -> Row:
        """The job, once every machine has answered what was asked of it, or after `wait_s`."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        while True:
            seen = self._journal.last_seq
            found = await self._look(job_id)
            waits = any(s["requested"] in ("pause", "resume") and not s["request_failure"] for s in found["steps"])
            if not waits or loop.time() >= deadline_s:
                return found
            await self._journal.wait_beyond(seen, deadline_s)

    def _can_pause(self, machine: str) -> bool:
        runner = self._runners.get(machine)
        return runner is None or runner.can_pause


def _said(reason: str) -> dict[str, Any]:
    return {"reason": reason} if reason else {}


def _open_steps(found: Row, verb: str) -> list[Row]:
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
