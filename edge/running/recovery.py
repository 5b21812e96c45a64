"""Runs that were left open, by the last daemon or by a connection that broke: the machine is asked what became of them.

Nothing is guessed about hardware: the driver asks the machine (`Driver.recover`), and the order's `on_restart` says
what is to follow. What cannot be asked in time is UNKNOWN, and held for a person.

Rules

1. A run goes on only if nobody asked for its end, and only while this daemon goes on, too.
2. One that a person holds, or that waits for one, does not go on from here: only a person releases it. Where the
   machine carries it on by itself, it is found again as it is, and stays suspended.
3. A run that does not go on is stopped, and so is a machine that answers and cannot say what became of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, assert_never

from edge.artifacts.artifacts import Artifacts
from edge.clock import SystemClock
from edge.driver import (
    At,
    Driver,
    DriverError,
    Finished,
    IdentityError,
    Json,
    LinkLostError,
    Lost,
    Machine,
    Motion,
    Outcome,
    OutcomeKind,
    Program,
    Recovery,
    Resume,
    Run,
    StillRunning,
)
from edge.errors import ArtifactError
from edge.guard.make_safe import made_safe
from edge.intake.authority import Authority
from edge.jobstate import StepState
from edge.journal.journal import Journal, OpenRun
from edge.journal.scribe import ACTOR, Scribe
from edge.journal.transaction import Standing, Transaction
from edge.logs import log_bug
from edge.model.event import Draft, EventKind
from edge.model.order import OnRestart, parse_order
from edge.running.execution import STOP_S, stop_machine, told, unknown
from edge.running.work import work_of

log = logging.getLogger("edge.recovery")

REASON = "the daemon ended while the run was going on"
"""Why a run was left open, where nothing else is said."""

STOP_REQUESTED = "a stop was requested"


@dataclass(frozen=True, slots=True)
class LeftRun:
    """A run that has begun and has no end.

    `stop_requested`: somebody had asked for its end before the daemon died. `refusal`: why the order is not what was
    signed, or needs a compromised key; empty if neither. A print may outlast a root, and the rotation of a key.
    `made_safe`: who had the machine switched off meanwhile; empty if nobody has. `why`: it was left open.
    """

    run: Run
    program: Program
    machine: str
    on_restart: OnRestart
    stop_requested: bool
    refusal: str = ""
    made_safe: str = ""
    why: str = REASON

    @property
    def forbids(self) -> str:
        """Why the run must not go on, even if the machine could; empty if it may."""
        if self.stop_requested:
            return STOP_REQUESTED
        if self.refusal:
            return f"the order does not count any more: {self.refusal}"
        if self.made_safe:
            return self.made_safe
        return "" if self.on_restart is OnRestart.RESUME else self.order_says

    @property
    def order_says(self) -> str:
        """In words."""
        return f'the order says: on_restart = "{self.on_restart}"'

    def go_on(self, resumed: Draft, resume: Resume) -> Callable[[Transaction], GoesOn]:
        """For `Journal.transact`: record that the run goes on, unless something was asked that forbids it.

        In one transaction: a request that comes later finds the run going on.
        """

        def write(transaction: Transaction) -> GoesOn:
            run = self.run
            standing = transaction.standing_of(run.job_id, run.part, run.step.id)
            if standing.requested.ends_the_run:
                return GoesOn(STOP_REQUESTED)
            if isinstance(resume, At) and standing.is_held_back:
                return GoesOn("it was held, and only a person lets it go on")
            transaction.record(resumed)
            return GoesOn("", suspended=standing.state is StepState.SUSPENDED)

        return write


@dataclass(frozen=True, slots=True)
class GoesOn:
    """Why a run does not go on, empty if it does; and whether the machine waits in it."""

    forbidden: str
    suspended: bool = False


async def left_runs(
    journal: Journal, artifacts: Artifacts, authority: Authority, machines: Collection[str]
) -> dict[str, LeftRun]:
    """By machine, what may be recovered: runs of machines that are still configured and whose order can be read."""
    found: dict[str, LeftRun] = {}
    for left in await journal.open_runs():
        if left.machine in machines and left.machine not in found:
            try:
                found[left.machine] = await left_run(journal, artifacts, authority, left, REASON)
            except Exception as error:  # noqa: BLE001 - a journal that is damaged must not keep the others from working
                log.error("run %s cannot be recovered, its order cannot be read (%s)", left.run_id, log_bug(log, error))
    return found


async def left_run(journal: Journal, artifacts: Artifacts, authority: Authority, left: OpenRun, why: str) -> LeftRun:
    """All that counts for the run, as the journal has it now."""

    def read(transaction: Transaction) -> tuple[bytes, bytes, Standing, list[bytes], str]:
        standing = transaction.standing_of(left.job_id, left.part, left.step)
        payload, envelope = transaction.payload_of(left.job_id), transaction.envelope_of(left.job_id)
        safe = made_safe(transaction, left.machine, left.run_id)
        return payload, envelope, standing, transaction.roots(), safe

    payload, envelope, standing, roots, safe = await journal.transact(read)
    order = parse_order(payload)
    step, program = work_of(order, left.step, artifacts)
    checkpoint = await journal.checkpoint_of(left.run_id)
    run = Run(left.run_id, left.job_id, left.part, step, left.attempt, checkpoint)
    on_restart = order.step(left.step).on_restart
    asked = standing.requested.ends_the_run
    refusal = authority.forbids_going_on(envelope, order, roots)
    return LeftRun(run, program, left.machine, on_restart, asked, refusal, safe, why)


class Recoverer:
    """Asks one machine about the run that was left on it.

    `execute` lets a driver go on with it; `safe_by` says who has had the machine made safe since, empty if nobody has.
    """

    def __init__(
        self,
        machine: Machine[Any, Any],
        artifacts: Artifacts,
        journal: Journal,
        scribe: Scribe,
        clock: SystemClock,
        closing: asyncio.Event,
        leaves: Callable[[], bool],
        execute: Callable[[Driver, LeftRun, Resume, bool], Awaitable[Outcome | None]],
        safe_by: Callable[[], str] = str,
    ) -> None:
        self._machine = machine
        self._artifacts = artifacts
        self._journal = journal
        self._scribe = scribe
        self._clock = clock
        self._closing = closing
        self._leaves = leaves
        self._execute = execute
        self._safe_by = safe_by

    async def recover(self, driver: Driver, left: LeftRun) -> Outcome | None:
        """What became of the run, after it went on if it does; None if it stays open.

        Raises `LinkLostError`: the machine has to be asked again.
        """
        recovery = await self._recovery(driver, left)
        match recovery:
            case Finished(outcome=ended):
                return ended
            case Lost():
                why = f"{left.made_safe}; {left.why}" if left.made_safe else left.why
                return await self._lost(driver, replace(recovery, reason=f"{why}: {recovery.reason}"))
            case At() | StillRunning():
                return await self._go_on(driver, left, recovery)
            case _ as never:
                assert_never(never)

    async def _recovery(self, driver: Driver, left: LeftRun) -> Recovery:
        try:
            await asyncio.to_thread(self._artifacts.verify, left.program.sha256)
            return await driver.recover(left.run, left.program)
        except LinkLostError:
            raise
        except IdentityError as error:
            return Lost(str(error), same_machine=False)
        except (ArtifactError, DriverError) as error:
            return Lost(str(error))
        except Exception as error:  # noqa: BLE001 - a driver's bug: nobody knows what the machine does now
            return Lost(told(error, self._machine.driver))

    async def _go_on(self, driver: Driver, left: LeftRun, resume: Resume) -> Outcome | None:
        """The machine could go on: let it, or stop it."""
        if reason := left.forbids or self._safe_by():
            return await self._stop(driver, left, reason)
        if self._closing.is_set():
            return await self._not_now(driver, left)
        detail = resume.detail if isinstance(resume, At) else "the machine carries it on by itself"
        resumed = self._scribe.draft(EventKind.RUN_RESUMED, left.run, {"detail": detail})
        write = left.go_on(resumed, resume)
        goes_on = await self._scribe.durable(lambda: self._journal.transact(write), resumed.kind)
        if goes_on.forbidden:
            return await self._stop(driver, left, goes_on.forbidden)
        if reason := self._safe_by():
            return await self._stop(driver, left, reason)
        if self._closing.is_set():
            return await self._not_now(driver, left)
        log.info("%s goes on with job %s: %s", self._machine.id, left.run.job_id, detail)
        return await self._execute(driver, left, resume, goes_on.suspended)

    async def _not_now(self, driver: Driver, left: LeftRun) -> Outcome | None:
        """The daemon ends before the run could go on: leave it as it stands, or stop it."""
        return None if self._leaves() else await self._stop(driver, left, "the daemon is being stopped")

    async def _stop(self, driver: Driver, left: LeftRun, why: str) -> Outcome:
        """The run could go on, and must not: make the machine safe."""
        if left.on_restart is OnRestart.ABORT and not left.stop_requested:
            body = {"reason": left.order_says}
            await self._scribe.record(Draft(EventKind.CANCEL_REQUESTED, ACTOR, body, job_id=left.run.job_id))
        if failure := await stop_machine(driver, self._machine.driver, self._clock.mono_s() + STOP_S):
            return unknown(f"{left.why}; {why}, and a stop was not confirmed: {failure}")
        return Outcome(OutcomeKind.STOPPED, Motion.POSSIBLE, f"{left.why}; {why}")

    async def _lost(self, driver: Driver, lost: Lost) -> Outcome:
        """Nobody knows what became of the run. The machine that answers is made safe; that proves nothing else."""
        if not lost.same_machine:
            return unknown(lost.reason)
        failure = await stop_machine(driver, self._machine.driver, self._clock.mono_s() + STOP_S)
        done = f"its stop was not confirmed: {failure}" if failure else "it was stopped and made safe, and confirmed it"
        evidence: dict[str, Json] = {"stop_confirmed": not failure}
        return Outcome(OutcomeKind.UNKNOWN, Motion.POSSIBLE, f"{lost.reason}; {done}", evidence)
