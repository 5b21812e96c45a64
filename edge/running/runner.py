"""One machine at work: keeps its driver open, claims what the dispatcher offers, and writes down what happened.

Rules

1. ``run_began`` is durable before the driver may send the first byte that can move the machine.
2. Right before it, the order's signatures, its latest start, the program's hash and what is loaded in the machine are
   checked once more. What is carried out is what was signed, not what the journal's tables say of it. And nothing
   begins or goes on before the journal's file is known to be sound; a large one is still being checked when the daemon
   is up.
3. Whatever a driver returns or raises becomes an outcome in the journal; while the journal cannot take it, it is tried
   again, and the machine gets no other work. Only a daemon that is asked to stop gives up: its successor finds the run
   open, and holds it.
4. A driver's bug ends its run as UNKNOWN and closes the connection; it never stops the daemon.
5. A connection that breaks ends no run: it stays open, and is judged when the machine is back, or UNKNOWN after a time.

What may be asked of a run that goes on is in `edge.running.execution`, what becomes of one that was left open in
`edge.running.recovery`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.artifacts.artifacts import Artifacts
from edge.clock import SystemClock
from edge.driver import (
    Capability,
    Condition,
    Driver,
    DriverError,
    ForeignWork,
    Identity,
    Json,
    LinkLostError,
    MachineError,
    MachineState,
    Motion,
    Observation,
    Outcome,
    OutcomeKind,
    Program,
    Resume,
    Run,
    StateSeen,
)
from edge.errors import EdgeError, JournalError, TrustError
from edge.guard.make_safe import Made, all_safe
from edge.intake.authority import Authority
from edge.journal.journal import Journal
from edge.journal.scribe import ACTOR, Scribe
from edge.logs import log_bug
from edge.model.event import Draft, EventKind
from edge.model.loaded import Loaded, counting
from edge.plugins import Equipment
from edge.running import claim
from edge.running.claim import Assignment, Claimer
from edge.running.context import Context
from edge.running.execution import Execution, abort_machine, body_of, stop_machine, unknown
from edge.running.foreign import ForeignLog
from edge.running.observed import Observed, Watcher
from edge.running.planner import MachineView, StepKey
from edge.running.recording import Recorder, nobody
from edge.running.recovery import LeftRun, Recoverer, left_run
from edge.tasks import until_first

RECOVER_S = 60.0
"""How long a machine may take to be reached again before a run that the last daemon left open is UNKNOWN."""

AWAY_S = 300.0
"""The same for a connection that broke: time to find the cable. No serial printer goes on after so long, but one that
comes back is still made safe, and one that carries on by itself is found again."""

RECONNECT_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before the next attempt to reach a machine; the last one repeats. A connection that lasted as long as that
begins anew, so that one that comes and goes does not fill the journal."""

NOTHING_SENT = Outcome(OutcomeKind.STOPPED, Motion.NONE, "the daemon was stopped before anything was sent")

log = logging.getLogger("edge.runner")


class Runner:
    """One configured machine. `serve` is its task."""

    def __init__(
        self,
        equipment: Equipment,
        journal: Journal,
        artifacts: Artifacts,
        authority: Authority,
        clock: SystemClock,
        state_dir: Path,
        runtime_dir: Path,
        on_change: Callable[[], None],
        left: LeftRun | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.machine = equipment.machine
        self._equipment = equipment
        self._plugin = equipment.plugin
        self._journal = journal
        self._artifacts = artifacts
        self._authority = authority
        self._clock = clock
        self._state_dir = state_dir / "machines" / self.machine.id
        self._runtime_dir = runtime_dir / self.machine.id
        self._on_change = on_change
        self._left = left
        self._left_since_s = clock.mono_s()  # since when the open run waits for its machine
        self._recover_until_s = self._left_since_s + RECOVER_S
        self._broke = ""  # why this connection is of no use any more, if it broke in the middle of a run
        self._leaves = False  # the daemon is being restarted: what can stand is left standing
        self._recorder = Recorder(state_dir, self.machine.id, equipment.wire, clock) if equipment.wire else None
        self.observed = Observed(clock.mono_s, on_change, watcher)
        self.identity: Identity | None = None
        self.claimed: StepKey | None = None  # from the offer until the run's end is durable
        self.run_id = left.run.run_id if left else None  # from `run_began` until the run's end is durable
        self.safe_by = ""  # who had the machine made safe, until it is in service again: nothing begins meanwhile
        self._offer: asyncio.Future[Assignment] | None = None
        self._driver: Driver | None = None
        self._execution: Execution | None = None
        self._online: bool | None = None
        self._closing = asyncio.Event()
        self._connection: asyncio.Task[str] | None = None
        self._turn = asyncio.Lock()  # whose holder may open a connection to the machine
        self._scribe = Scribe(self.machine.id, journal, clock, self._closing, on_change)
        self._claimer = Claimer(self.machine, journal, artifacts, authority, clock, self._scribe, self._must_not_begin)
        self._foreign = ForeignLog(self.machine.id, journal, self._scribe, on_change)
        self._recoverer = Recoverer(
            self.machine,
            artifacts,
            journal,
            self._scribe,
            clock,
            self._closing,
            lambda: self._leaves,
            self._go_on,
            lambda: self.safe_by,
        )

    @property
    def seen(self) -> StateSeen:
        """The machine's state. One whose facts cannot be written down takes no work."""
        waits = self._scribe.waits
        return StateSeen(MachineState.STOPPED, waits) if waits else self.observed.state

    @property
    def can_leave(self) -> bool:
        """Whether a run here can be left as it stands and be found again; also while nobody can be asked."""
        return self._driver is None or Capability.DETACH in self._driver.capabilities

    @property
    def can_pause(self) -> bool:
        """Whether a run here can be paused; also while nobody can be asked."""
        return self._driver is None or Capability.PAUSE in self._driver.capabilities

    @property
    def is_working(self) -> bool:
        """Whether a run goes on here, or the machine does anything else. From any thread."""
        return self.run_id is not None or self.seen.state in (MachineState.EXECUTE, MachineState.HELD)

    def view(
        self, needs_clearing: str | None, maintenance: str = "", loaded: Mapping[str, Loaded] | None = None
    ) -> MachineView:
        """The machine as the planner sees it. `loaded`: what people have said is in it."""
        busy = self.run_id or (self.claimed and self.claimed.job_id)
        seen, machine = self.seen, self.machine
        return MachineView(
            machine.id,
            machine.processes,
            counting(machine.properties, loaded or {}),
            seen.state,
            seen.detail,
            needs_clearing,
            busy,
            maintenance or self.safe_by,
        )

    @property
    def not_recorded(self) -> str:
        """Why what crosses the wire is not recorded any more, though it should be; empty if nothing is wrong."""
        return "" if self._recorder is None else self._recorder.trouble

    # Called by the dispatcher and the API, on the event loop

    def offer(self, assignment: Assignment) -> bool:
        """Give the machine a step; False if it can take none now."""
        if self._offer is None or self._offer.done() or self._must_not_begin() or self._foreign.waits:
            return False
        self.claimed = assignment.key
        self._offer.set_result(assignment)
        return True

    def stop(self, run_id: str) -> None:
        """Stop this run, if it is going on. Idempotent; what comes of it is recorded as the run's end."""
        if self.run_id == run_id and self._execution is not None:
            self._execution.stop()

    def look(self, run_id: str) -> None:
        """Something was asked of this run, a pause or a resume: if it is going on, do what the journal says."""
        if self.run_id == run_id and self._execution is not None:
            self._execution.look()

    def hold_back(self, actor: str) -> None:
        """Let nothing begin any more, not even what is being claimed: somebody has the machine made safe."""
        self.safe_by = f"{actor} had the machine made safe"

    def back_in_service(self) -> None:
        """Let work begin again, if the journal lets it."""
        self.safe_by = ""
        self._on_change()

    def _must_not_begin(self) -> bool:
        return self._closing.is_set() or bool(self.safe_by)

    async def make_safe(self, actor: str, deadline_s: float) -> Made:
        """Stop whatever goes on, and abort if that is not confirmed in time. A run's step is then held for a person.

        Nothing begins afterwards before `back_in_service`.
        """
        self.hold_back(actor)
        driver = self._driver
        if driver is None:
            if self._left is not None:  # then it must not go on when it is back
                self._left = replace(self._left, made_safe=f"{actor} wanted the machine made safe while it was away")
            return await self._make_safe_unmet(deadline_s)
        if self._execution is not None:
            self._execution.safe_by = actor
            self._execution.stop()
        failure = await stop_machine(driver, self.machine.driver, deadline_s)
        if not failure:
            return Made(self.machine.id, "stopped and switched off")
        aborted = await abort_machine(driver, self.machine.driver)
        return Made(self.machine.id, problem=f"not stopped: {failure}; {aborted}")

    async def _make_safe_unmet(self, deadline_s: float) -> Made:
        """As without a daemon: a machine that answers no question may heat or turn all the same."""
        why = self.observed.state.detail
        if self._connection is not None:
            self._connection.cancel()
        async with self._turn:
            # A thread of its own: many machines may be silent at once, and those of the loop have other work.
            pool = ThreadPoolExecutor(1, f"make {self.machine.id} safe")
            try:
                asked = asyncio.get_running_loop().run_in_executor(pool, all_safe, [self._equipment], deadline_s)
                (made,) = await asked
            finally:
                pool.shutdown(wait=False)
        if made.problem:
            return made if made.problem in why else replace(made, problem=f"{made.problem} ({why})")
        return made if made.confirmed else replace(made, problem=f"nobody can be asked: {why}")

    async def acknowledge(self, token: str, actor: str, comment: str, deadline_s: float) -> Condition:
        """A person has taken note of a condition; which one. Raises `DriverError` if the machine does not confirm."""
        if self._driver is None:
            raise MachineError(f"nobody can be asked: {self.observed.state.detail}", Motion.NONE)
        found = next((one for one in self.observed.conditions if one.token == token), None)
        if found is None:
            raise MachineError(f"there is no open condition {token} on {self.machine.id}", Motion.NONE)
        await self._driver.acknowledge(token, f"{actor}: {comment}" if comment else actor, deadline_s)
        body = {"token": token, "text": found.text, "comment": comment}
        await self._scribe.record(Draft(EventKind.CONDITION_ACKNOWLEDGED, actor, body, machine=self.machine.id))
        return found

    def close(self, *, leave: bool = False) -> None:
        """Stop what is going on and let go of the machine; `serve` returns when the end of the run is recorded.

        With `leave`, a run that the machine can be asked about later is left as it stands, and stays open. Called again
        without it, a run that is about to be left is stopped after all; not one that the machine carries on by itself.
        """
        carries_on = self._driver is not None and Capability.CARRIES_ON in self._driver.capabilities
        self._leaves = leave or carries_on
        self._closing.set()
        if self._execution is not None:
            if not self._leaves:
                self._execution.stop_after_all()
            self._execution.stop(leave=self._leaves)
        elif self._driver is None and self._connection is not None:
            self._connection.cancel()  # nobody has answered yet, so there is nothing to stop

    # Called by the driver, through its context

    def emitted(self, observation: Observation) -> None:
        """What the driver tells."""
        if isinstance(observation, ForeignWork):
            self._foreign.add(observation)
        self.observed.add(observation)
        if isinstance(observation, StateSeen) and self._execution is not None:
            self._execution.seen(observation)

    async def checkpoint(self, value: Json) -> None:
        """Keep `value` for the run that is going on, however long the journal takes."""
        if self.run_id is None:
            raise RuntimeError("a checkpoint belongs to a run, and none is going on")
        run_id = self.run_id
        await self._scribe.durable(lambda: self._journal.checkpoint(run_id, value), "a checkpoint")

    # The machine's task

    async def serve(self) -> None:
        """Keep the machine connected and working until `close`."""
        async with contextlib.AsyncExitStack() as stack:
            if self._recorder is not None:
                await stack.enter_async_context(self._recorder.at_work())
            await self._serve()

    async def _serve(self) -> None:
        failures = 0
        while not self._closing.is_set():
            began_s = self._clock.mono_s()
            await self._disconnected(reason := await self._connect_once())
            too_late = self._clock.mono_s() >= self._recover_until_s and not self._closing.is_set()
            if self._left is not None and too_late:
                away_s = self._clock.mono_s() - self._left_since_s
                why = f"{self._left.why}, and the machine could not be asked for {away_s:.0f} s: {reason}"
                await self._end_left(self._left, unknown(why))
            if self._clock.mono_s() - began_s >= RECONNECT_S[-1]:
                failures = 0
            pause_s = RECONNECT_S[min(failures, len(RECONNECT_S) - 1)]
            failures += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._closing.wait()

    async def _connect_once(self) -> str:
        """One connection, as a task of its own, when nobody else has the machine; why it ended."""
        async with self._turn:
            if self._closing.is_set():
                return "the daemon stops"
            self._connection = connection = asyncio.create_task(
                self._connect(), name=f"connection to {self.machine.id}"
            )
            try:
                await asyncio.wait([connection])
            finally:
                connection.cancel()
                await asyncio.wait([connection])
        if not connection.cancelled():
            return connection.result()
        return "the daemon stops" if self._closing.is_set() else "somebody had it made safe"

    async def _connect(self) -> str:
        """One connection from its beginning to its end; why it ended."""
        self._broke = ""
        try:
            for directory in (self._state_dir, self._runtime_dir):
                directory.mkdir(parents=True, exist_ok=True)
            record = nobody if self._recorder is None else self._recorder.begin()
            directories = self._state_dir, self._runtime_dir
            context = Context(self._clock, *directories, self.emitted, self.checkpoint, record)
            async with self._plugin.open(self.machine, context) as driver:
                await self._connected(driver)
                await self._until_sound()
                if (left := self._left) is not None:
                    outcome = await self._recoverer.recover(driver, left)
                    if outcome is not None:
                        await self._end_left(left, outcome)
                return await self._work(driver)
        except (DriverError, JournalError, OSError) as error:
            return str(error)
        except Exception as error:  # noqa: BLE001 - a plug-in's bug must not take the other machines down
            return f"internal error in the driver {self.machine.driver} ({log_bug(log, error)})"

    async def _connected(self, driver: Driver) -> None:
        self._driver, self.identity = driver, driver.identity
        if self._online is not True:
            self._online = True
            who = driver.identity
            body = {"firmware": who.firmware, "version": who.version, "serial": who.serial, "profile": who.profile}
            await self._scribe.record(Draft(EventKind.MACHINE_ONLINE, ACTOR, body, machine=self.machine.id))
            log.info("%s is online: %s %s", self.machine.id, who.firmware, who.version)

    async def _until_sound(self) -> None:
        """Wait for the check of the journal's file, unless the daemon stops."""
        checked, closing = self._journal.until_sound(), self._closing.wait()
        await until_first({"until the journal is checked": checked, f"close {self.machine.id}": closing})

    async def _disconnected(self, reason: str) -> None:
        self._driver = None
        await self._foreign.written()
        before = "" if self._left is None or self._left.why == reason else f" (before: {self._left.why})"
        self.observed.offline(f"{reason}{before}")
        if self._online is not False and not self._closing.is_set():
            self._online = False
            log.warning("%s is offline: %s", self.machine.id, reason)
            draft = Draft(EventKind.MACHINE_OFFLINE, ACTOR, {"reason": reason}, machine=self.machine.id)
            await self._scribe.record(draft)

    async def _work(self, driver: Driver) -> str:
        """Take work until the connection is lost (why) or the runner is closed."""
        lost = asyncio.create_task(driver.lost(), name=f"watch {self.machine.id}")
        closing = asyncio.create_task(self._closing.wait(), name=f"close {self.machine.id}")
        try:
            while not self._broke:
                self._offer = offer = asyncio.get_running_loop().create_future()
                self._on_change()
                first: list[asyncio.Future[Any]] = [lost, closing, offer]
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
                if self._closing.is_set():
                    return "the daemon stops"
                if offer.done():
                    await self._carry_out(driver, offer.result())
                if lost.done():
                    return str(lost.result())
            return self._broke
        finally:
            self._offer = self.claimed = None
            for task in (lost, closing):
                task.cancel()
            await asyncio.wait([lost, closing])

    async def _end_left(self, left: LeftRun, outcome: Outcome) -> None:
        await self._end(left.run, outcome)
        self._left = self.run_id = None  # not before its end is durable: until then the machine takes no work
        self.observed.forget_run()

    async def _carry_out(self, driver: Driver, assignment: Assignment) -> None:
        try:
            root_version = self._authority.root.version
            run, program = self._claimer.verified(assignment)
            await self._foreign.written()
            if await self._claimer.begin(run, program, assignment, root_version):
                self.run_id = run.run_id
                log.info("%s begins job %s (run %s)", self.machine.id, run.job_id, run.run_id[:8])
                outcome: Outcome | None = NOTHING_SENT
                if self.safe_by:
                    outcome = replace(NOTHING_SENT, reason=f"{self.safe_by} before anything was sent")
                elif not self._closing.is_set():
                    outcome = await self._execute(driver, run, program)
                if outcome is not None:
                    await self._end(run, outcome)
        except TrustError as error:
            log.error("job %s is not started: %s", assignment.key.job_id, error)
            await asyncio.sleep(claim.CLAIM_RETRY_S)  # it may be offered again at once
        finally:
            self.claimed = None
            self.run_id = self._left.run.run_id if self._left is not None else None
            self.observed.forget_run()

    async def _go_on(self, driver: Driver, left: LeftRun, resume: Resume, suspended: bool) -> Outcome | None:
        return await self._execute(driver, left.run, left.program, resume, suspended=suspended)

    async def _execute(
        self, driver: Driver, run: Run, program: Program, resume: Resume | None = None, *, suspended: bool = False
    ) -> Outcome | None:
        """Let the driver work; None if the run stays open: left standing, or the connection broke."""
        execution = Execution(self.machine, driver, run, self._journal, self._scribe, self._clock, suspended=suspended)
        if resume is not None:
            execution.seen(self.observed.state)  # what the machine has said since it was asked
        self._execution = execution
        try:
            # Something may have been asked of it between `run_began` and now.
            return await execution.carry_out(program, resume, begun=self._on_change)
        except LinkLostError as error:
            return await self._link_lost(run, str(error), execution.safe_by)
        finally:
            self._execution = None

    async def _link_lost(self, run: Run, broke: str, safe_by: str) -> Outcome | None:
        """Keep the run open until the machine is back; its end if it cannot be."""
        self._broke = broke
        if self._closing.is_set() and not self._leaves:
            return unknown(broke)  # it was being stopped, and the next daemon must not go on with it
        try:
            (about,) = [found for found in await self._journal.open_runs() if found.run_id == run.run_id]
            left = await left_run(self._journal, self._artifacts, self._authority, about, broke)
        except EdgeError as error:
            return unknown(f"{broke}, and the run cannot be recovered: {error}")
        self._left = replace(left, made_safe=left.made_safe or (safe_by and f"{safe_by} had the machine made safe"))
        self._left_since_s = self._clock.mono_s()
        self._recover_until_s = self._left_since_s + AWAY_S
        return None

    async def _end(self, run: Run, outcome: Outcome) -> None:
        await self._scribe.record(self._scribe.draft(EventKind.RUN_ENDED, run, body_of(outcome)))
        calm = outcome.kind in (OutcomeKind.SUCCEEDED, OutcomeKind.STOPPED)
        because = f", {outcome.reason}" if outcome.reason else ""
        level = logging.INFO if calm else logging.WARNING
        log.log(level, "%s ends job %s: %s%s", self.machine.id, run.job_id, outcome.kind, because)
