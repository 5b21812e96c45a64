"""What a person on the site asks of a job: its end, a hold, a release, and a word on what a held run has made.

Rules

1. Everything is asked of the journal; the machines are asked from there. So nothing that was asked is lost.
2. What a request comes to is decided by `edge.intake.decisions`, for people here as for the centre.
3. Only a person releases: here, or by a command that an operator has signed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from edge.errors import StaleRevisionError, UsageError
from edge.intake import decisions
from edge.jobstate import Resolution
from edge.journal.journal import Journal
from edge.journal.rows import Row
from edge.model.event import Draft
from edge.running.runner import Runner

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
        return await self._decide(job_id, lambda found: decisions.cancel(found, actor, reason))

    async def decline(self, job_id: str, actor: str, reason: str) -> Row:
        """Say that a job never started here and never will, so that it can be given to another site.

        Raises `IllegalTransitionError` if a run of it ever began, or if it has ended otherwise.
        """
        return await self._decide(job_id, lambda found: decisions.decline(found, actor, reason))

    async def hold(self, job_id: str, actor: str, reason: str, wait_s: float = 0.0) -> Row:
        """Let no step of the job start, and pause what runs; waits up to `wait_s` for the machines' answers.

        Raises `IllegalTransitionError` as `decisions.hold`.
        """
        await self._decide(job_id, lambda found: decisions.hold(found, actor, reason, self._can_pause))
        return await self._answered(job_id, wait_s)

    async def release(self, job_id: str, actor: str, reason: str, wait_s: float = 0.0) -> Row:
        """Let the job go on, and answer machines that wait in a run of it; waits as `hold` does."""
        await self._decide(job_id, lambda found: decisions.release(found, actor, reason))
        return await self._answered(job_id, wait_s)

    async def resolve(
        self, job_id: str, resolution: Resolution, part: int | None, step: str | None, actor: str, reason: str
    ) -> Row:
        """A person says what is to become of a step whose run ended in doubt or failed.

        Raises `UsageError` if that is not one step, `IllegalTransitionError` if the order allows no further attempt.
        """

        def decide(found: Row) -> list[Draft]:
            return decisions.resolve(found, resolution, actor, reason, part=part, step=step)

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
        return can_pause(self._runners, machine)


def can_pause(runners: Mapping[str, Runner], machine: str) -> bool:
    """Whether a run on this machine can be paused; true while nobody can be asked. From any thread."""
    runner = runners.get(machine)
    return runner is None or runner.can_pause
