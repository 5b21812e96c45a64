"""One run at an open driver, from its first command to what became of it: paused, resumed, stopped, left standing.

Rules

1. A stop works at any moment: before, during and after a pause. One that is not confirmed ends the run as UNKNOWN, and
   so does one after which the driver's run goes on.
2. What was asked of the run (`Requested`) is read from the journal right before it is done, never from a message: a
   release answers what the person saw, and nothing that the machine asks later.
3. A run is suspended, or goes on, when the machine has confirmed it or says so by itself; not when it was asked.
4. A pause or a resume that the machine does not confirm ends nothing: the request stands, with the reason, until a
   person asks again. One that it refuses is withdrawn. Both are recorded.
5. A connection that breaks ends no run, whatever was asked of it: `LinkLostError` is raised, and the run stays open.
6. A suspended run is never left standing, unless the machine carries it on by itself: it is not where its program says,
   and nobody could prove where it is.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from edge.clock import SystemClock
from edge.driver import (
    Capability,
    Driver,
    DriverError,
    Json,
    LinkLostError,
    Machine,
    MachineError,
    MachineState,
    Motion,
    NotAcceptableError,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Program,
    Resume,
    Run,
    StateSeen,
)
from edge.errors import JournalError
from edge.jobstate import Requested
from edge.journal.journal import Journal
from edge.journal.scribe import Scribe
from edge.journal.transaction import Standing, Transaction
from edge.logs import log_bug
from edge.model.event import EventKind
from edge.running.overrun import Overrun

STOP_S = 120.0
"""How long a machine may take to confirm a stop: the move in its queue, and a lift of the tool."""

PAUSE_S = 120.0
"""How long a machine may take to confirm a pause: the moves in its queue, and the way to where it waits."""

RESUME_S = 900.0
"""How long a machine may take to confirm that it goes on: nozzle and bed may have to be heated again."""

AFTER_STOP_S = 10.0
"""How long a driver's `execute` may go on after its `stop` has confirmed."""

LAST_WORD_S = 1.0
"""How long `execute` may take to say why, when a stop was not confirmed: it may be that the connection broke."""

DETACH_S = 30.0
"""How long a machine may take to acknowledge what is under way, before a run is left as it stands."""

PAUSED_AS_ASKED = "paused as asked"

log = logging.getLogger("edge.execution")


class Execution:
    """One run. `suspended`: whether the journal says so at the beginning (a run that is found again)."""

    def __init__(
        self,
        machine: Machine[Any, Any],
        driver: Driver,
        run: Run,
        journal: Journal,
        scribe: Scribe,
        clock: SystemClock,
        *,
        suspended: bool = False,
    ) -> None:
        self._machine = machine.id
        self._driver_name = machine.driver
        self._driver = driver
        self._run = run
        self._journal = journal
        self._scribe = scribe
        self._clock = clock
        self._executing: asyncio.Task[Outcome] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._detaching: asyncio.Task[None] | None = None
        self._leaves = False
        self._left_standing = False
        self._stop_failure = ""
        self.safe_by = ""  # who has the machine made safe
        self._suspended = suspended
        self._prompt: str | None = None  # what a machine that holds by itself says
        self._commanded = False  # a pause or a resume is under way
        self._seen: StateSeen | None = None  # what the machine says by itself, and is not written down yet
        self._news = asyncio.Event()
        self._overrun = Overrun(run, journal, scribe)

    @property
    def suspended(self) -> bool:
        """Whether the run does not stand where its program says, or may not."""
        return self._suspended or self._commanded

    async def carry_out(
        self, program: Program, resume: Resume | None, begun: Callable[[], None] = lambda: None
    ) -> Outcome | None:
        """Let the driver work; None if the run was left standing and stays open. `begun` is called once it works.

        Raises `LinkLostError`: the run is open, and nobody knows how it stands before the machine can be asked again.
        """
        work: Coroutine[None, None, Outcome] = self._driver.execute(self._run, program, resume)
        self._executing = executing = asyncio.create_task(work, name=f"run {self._run.run_id}")
        asking = asyncio.create_task(self._keep_asking(executing), name=f"requests to {self._machine}")
        timing = asyncio.create_task(self._overrun.serve(), name=f"time of {self._machine}")
        begun()
        try:
            await asyncio.wait([executing])
            self._news.set()
            timing.cancel()
            await asyncio.wait([task for task in (asking, timing, self._stopping) if task is not None])
            if (error := asking.exception()) is not None:
                log.error("requests to %s were not passed on (%s)", self._machine, log_bug(log, error))
            if not timing.cancelled() and (error := timing.exception()) is not None:
                log.error("nobody watches how long %s takes (%s)", self._machine, log_bug(log, error))
            if self._left_standing and executing.cancelled():
                return None
            return self._held_if_made_safe(
                self._outcome(executing)
            )  # also of one that ended by itself just before it was let go
        finally:
            executing.cancel()
            asking.cancel()
            timing.cancel()

    # Called by the runner, on the event loop

    def stop(self, *, leave: bool = False) -> None:
        """End the run, or with `leave` let go of it where it can be found again. Idempotent."""
        if self._executing is None or self._stopping is not None:
            return
        self._leaves = leave
        self._stopping = asyncio.create_task(self._stop(self._executing), name=f"stop {self._machine}")

    def stop_after_all(self) -> None:
        """A run that is about to be left standing is stopped instead."""
        self._leaves = False
        if self._detaching is not None:
            self._detaching.cancel()

    def look(self) -> None:
        """Something may have been asked of the run: see what the journal says."""
        self._news.set()

    def seen(self, state: StateSeen) -> None:
        """What the machine says of itself while it works."""
        if state.state in (MachineState.HELD, MachineState.EXECUTE):
            self._seen = state
            if self._is_news(state):
                self._news.set()

    # What is asked of the machine, and what it does by itself

    async def _keep_asking(self, executing: asyncio.Task[Outcome]) -> None:
        while not executing.done():
            self._news.clear()
            await self._write_down_what_was_seen()
            if self._stopping is None:
                await self._do_what_was_asked(executing)
            await self._news.wait()

    def _is_news(self, seen: StateSeen) -> bool:
        if seen.state is MachineState.EXECUTE:
            return self._suspended
        return not self._suspended or (self._prompt is not None and self._prompt != seen.detail)

    async def _write_down_what_was_seen(self) -> None:
        seen, self._seen = self._seen, None
        if seen is None or not self._is_news(seen):
            return
        if seen.state is MachineState.HELD:
            log.warning("%s holds by itself: %s", self._machine, seen.detail or "it does not say why")
            await self._suspend(seen.detail, by="machine")
        else:
            log.info("%s goes on by itself", self._machine)
            await self._release(by="machine")

    async def _suspend(self, reason: str, by: str) -> None:
        await self._record(EventKind.RUN_SUSPENDED, {"reason": reason, "by": by})
        self._suspended, self._prompt = True, reason if by == "machine" else None
        self._overrun.look()

    async def _release(self, by: str) -> None:
        await self._record(EventKind.RUN_RELEASED, {"by": by})
        self._suspended, self._prompt = False, None
        self._overrun.look()

    async def _do_what_was_asked(self, executing: asyncio.Task[Outcome]) -> None:
        run = self._run

        def read(transaction: Transaction) -> Standing:
            return transaction.standing_of(run.job_id, run.part, run.step.id)

        standing = await self._scribe.durable(lambda: self._journal.transact(read), "a request")
        if standing.failure is not None or standing.requested not in (Requested.PAUSE, Requested.RESUME):
            return
        requested, now_s = standing.requested, self._clock.mono_s()
        log.info("%s is asked to %s", self._machine, requested)
        pauses = requested is Requested.PAUSE
        work = self._driver.pause(now_s + PAUSE_S) if pauses else self._driver.resume(now_s + RESUME_S)
        asked = asyncio.create_task(work, name=f"{requested} {self._machine}")
        self._commanded = True
        try:
            await asyncio.wait([asked, executing], return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                await self._answered(requested, asked)
        finally:
            self._commanded = False
            asked.cancel()  # the run ended meanwhile: nothing is left to pause
            await asyncio.wait([asked], timeout=AFTER_STOP_S)
            if asked.done() and not asked.cancelled():
                asked.exception()

    async def _answered(self, requested: Requested, asked: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError("the driver gave it up") if asked.cancelled() else asked.exception()
        if error is not None:
            log.warning("%s does not %s: %s", self._machine, requested, reason := told(error, self._driver_name))
            body: dict[str, Json] = {
                "requested": str(requested),
                "reason": f"{self._machine}: {reason}",
                "withdrawn": isinstance(error, NotAcceptableError),
            }
            await self._record(EventKind.REQUEST_FAILED, body)
        elif requested is Requested.PAUSE:
            self._seen = None  # on its way there it may have said anything
            await self._suspend(PAUSED_AS_ASKED, by="request")
        else:
            if self._seen is not None and self._seen.state is MachineState.EXECUTE:
                self._seen = None  # but not that it holds again
            await self._release(by="request")

    async def _record(self, kind: EventKind, body: dict[str, Json]) -> None:
        await self._scribe.record(self._scribe.draft(kind, self._run, body))

    # Its end

    def _held_if_made_safe(self, outcome: Outcome) -> Outcome:
        """Whoever made the machine safe wants no new attempt by the order's policy, and no end: a person is to look."""
        said = f"{self.safe_by} had the machine made safe"
        if self.safe_by and outcome.kind is OutcomeKind.STOPPED:
            return replace(outcome, reason=said)
        if self.safe_by and outcome.kind in (OutcomeKind.FAILED, OutcomeKind.UNKNOWN):
            return replace(outcome, kind=OutcomeKind.UNKNOWN, reason=f"{said}: {outcome.reason}")
        return outcome

    def _outcome(self, done: asyncio.Task[Outcome]) -> Outcome:
        """What the end of a driver's `execute` means."""
        try:
            outcome = done.result()
            json.dumps(body_of(outcome), allow_nan=False)  # what the journal would refuse is the driver's bug, too
            return outcome
        except LinkLostError:
            raise
        except NotConfirmedError as error:
            return unknown(str(error))
        except NotAcceptableError as error:
            return Outcome(OutcomeKind.FAILED, Motion.NONE, str(error))
        except MachineError as error:
            return Outcome(OutcomeKind.FAILED, error.motion, str(error))
        except JournalError as error:  # from a checkpoint: the driver had to give up, wherever it was
            return unknown(f"the journal failed: {error}")
        except asyncio.CancelledError:
            return unknown(self._stop_failure or "the run was given up")
        except Exception as error:  # noqa: BLE001 - a driver's bug: nobody knows what the machine does now
            return unknown(told(error, self._driver_name))

    async def _stop(self, executing: asyncio.Task[Outcome]) -> None:
        able = self._driver.capabilities
        stands = Capability.CARRIES_ON in able or not self.suspended
        leaves = self._leaves and Capability.DETACH in able and stands
        if leaves and await self._let_go(executing):
            return
        if failure := await stop_machine(self._driver, self._driver_name, self._clock.mono_s() + STOP_S):
            await asyncio.wait([executing], timeout=LAST_WORD_S)
            self._give_up(failure)
            return
        await asyncio.wait([executing], timeout=AFTER_STOP_S)
        if not executing.done():
            self._give_up("the machine confirmed the stop, and yet the run went on")

    async def _let_go(self, executing: asyncio.Task[Outcome]) -> bool:
        """Leave the run as it stands, or let it end by itself meanwhile; False if it is to be stopped after all."""
        self._detaching = detaching = asyncio.create_task(self._driver.detach(), name=f"detach {self._machine}")
        try:
            first: list[asyncio.Task[None] | asyncio.Task[Outcome]] = [detaching, executing]
            await asyncio.wait(first, timeout=DETACH_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._detaching = None
            in_time = detaching.done()
            detaching.cancel()
            await asyncio.wait([detaching], timeout=AFTER_STOP_S)
        if not self._leaves:
            return False
        if executing.done():
            return True
        error = detaching.exception() if in_time and not detaching.cancelled() else None
        if error is not None:
            log.warning("%s is left as it stands, without its word: %s", self._machine, told(error, self._driver_name))
        elif not in_time:
            log.warning("%s is left as it stands: it has not acknowledged within %g s", self._machine, DETACH_S)
        self._left_standing = True
        executing.cancel()
        return True

    def _give_up(self, reason: str) -> None:
        self._stop_failure = reason
        if self._executing is not None:
            self._executing.cancel()


async def stop_machine(driver: Driver, driver_name: str, deadline_s: float) -> str:
    """Stop the machine; why it has not confirmed, empty if it has."""
    try:
        await driver.stop(deadline_s)
    except Exception as error:  # noqa: BLE001 - a driver's bug: nobody knows what the machine does now
        return told(error, driver_name)
    return ""


async def abort_machine(driver: Driver, driver_name: str) -> str:
    """Abort, where a stop was not confirmed; what came of it, in words."""
    try:
        await driver.abort()
    except Exception as error:  # noqa: BLE001 - as in `stop_machine`
        return f"and not aborted: {told(error, driver_name)}"
    return "it was told to abort, and nobody knows whether it has"


def told(error: BaseException, driver_name: str) -> str:
    """What a driver raised, in words; what is no `DriverError` is its bug, and logged."""
    if isinstance(error, DriverError):
        return str(error)
    return f"internal error in the driver {driver_name} ({log_bug(log, error)})"


def unknown(reason: str) -> Outcome:
    """Nobody knows what became of the run."""
    return Outcome(OutcomeKind.UNKNOWN, Motion.POSSIBLE, reason)


def body_of(outcome: Outcome) -> dict[str, Json]:
    """What the journal keeps of the end of a run."""
    return {
        "outcome": str(outcome.kind),
        "motion": str(outcome.motion),
        "reason": outcome.reason,
        "evidence": dict(outcome.evidence),
    }
