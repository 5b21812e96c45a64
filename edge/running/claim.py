"""What stands between a step that the planner gave to a machine and its first command.

The order's signatures, its latest start and the program's hash are checked once more, and so is what is loaded in the
machine, in the transaction of the claim itself. The claim is durable before anything can move.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from edge.artifacts.artifacts import Artifacts
from edge.artifacts.quarantine import set_aside
from edge.clock import SystemClock
from edge.driver import Json, Program, Run
from edge.errors import ArtifactError, IllegalTransitionError, JournalError, StaleRevisionError, TrustError
from edge.intake.authority import NOT_AS_SIGNED, Authority
from edge.journal.journal import Journal
from edge.journal.scribe import ACTOR, Scribe
from edge.journal.transaction import Transaction
from edge.journal.worktime import limit_of
from edge.model.event import Draft, EventKind
from edge.model.loaded import counting
from edge.model.order import JobOrder
from edge.plugins import AnyMachine
from edge.running.planner import StepKey, not_fitting
from edge.running.work import work_of

CLAIM_RETRY_S = 1.0

log = logging.getLogger("edge.claim")


@dataclass(frozen=True, slots=True)
class Assignment:
    """A step that the planner gave to a machine, as the journal's tables had it at `revision`.

    `order` is what was planned by; work begins only if it is what the signatures of `envelope` stand for.
    `predicted_s` is how long the machine's driver expects it to take; None if it cannot tell.
    """

    key: StepKey
    attempt: int
    revision: int
    order: JobOrder
    envelope: bytes
    predicted_s: float | None = None


class Claimer:
    """For one machine. `must_not_begin`: the daemon is asked to stop, or the machine is made safe."""

    def __init__(
        self,
        machine: AnyMachine,
        journal: Journal,
        artifacts: Artifacts,
        authority: Authority,
        clock: SystemClock,
        scribe: Scribe,
        must_not_begin: Callable[[], bool],
    ) -> None:
        self._machine = machine
        self._journal = journal
        self._artifacts = artifacts
        self._authority = authority
        self._clock = clock
        self._scribe = scribe
        self._must_not_begin = must_not_begin

    def verified(self, assignment: Assignment) -> tuple[Run, Program]:
        """The run and its program by what was signed. Raises `TrustError` if that is not what was planned."""
        key = assignment.key
        order = self._authority.verified(assignment.envelope, self._clock.now())
        if order != assignment.order or order.job_id != key.job_id or order.site != self._journal.site:
            raise TrustError(NOT_AS_SIGNED)
        step, program = work_of(order, key.step, self._artifacts)
        return Run(secrets.token_hex(16), order.job_id, key.part, step, assignment.attempt), program

    async def begin(self, run: Run, program: Program, assignment: Assignment, root_version: int) -> bool:
        """Check the program once more and make the claim durable; False if it no longer holds."""
        try:
            await asyncio.to_thread(self._artifacts.verify, program.sha256)
        except ArtifactError as error:
            log.error("job %s is not started: %s", run.job_id, error)
            await self._set_aside(program.sha256, str(error), run.job_id)
            return False
        allowed_s = assignment.order.step(run.step.id).max_duration_s
        claim: dict[str, Json] = {
            "attempt": run.attempt,
            "sha256": program.sha256,
            "root_version": root_version,
            "predicted_s": assignment.predicted_s,
            "limit_s": limit_of(allowed_s, assignment.predicted_s),
        }
        return await self._recorded_in_time(self._scribe.draft(EventKind.RUN_BEGAN, run, claim), assignment)

    async def _recorded_in_time(self, began: Draft, assignment: Assignment) -> bool:
        """Whether the claim is durable, before it is too late and while nothing else was recorded about the job."""
        while not self._must_not_begin() and self._clock.now().passed(assignment.order.expires_at) is False:
            try:
                await self._journal.record([began], assignment.revision, lambda now: self._expect_fit(now, assignment))
            except StaleRevisionError as error:
                log.info("job %s is not started, something has changed: %s", began.job_id, error)
                break
            except IllegalTransitionError as error:
                log.error("job %s is not started: %s", began.job_id, error)
                await asyncio.sleep(CLAIM_RETRY_S)  # it is offered again at once
                break
            except JournalError as error:
                self._scribe.tell(str(error))
                await asyncio.sleep(CLAIM_RETRY_S)
            else:
                self._scribe.tell("")
                return True
        self._scribe.tell("")
        return False

    def _expect_fit(self, transaction: Transaction, assignment: Assignment) -> None:
        """Go on only if what is loaded by now is what the order requires. Raises `StaleRevisionError`."""
        properties = counting(self._machine.properties, transaction.loaded(self._machine.id))
        if reason := not_fitting(assignment.order.step(assignment.key.step).requires, properties):
            raise StaleRevisionError(f"in {self._machine.id}, {reason}")

    async def _set_aside(self, sha256: str, reason: str, job_id: str) -> None:
        try:
            lost = await set_aside(self._artifacts, ACTOR, sha256, reason, job_id)
        except ArtifactError as error:
            log.error("%s", error)
            await asyncio.sleep(CLAIM_RETRY_S)  # it is offered again at once
        else:
            await self._scribe.record(lost)
