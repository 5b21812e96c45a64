"""The driver for one machine behind an OPC UA server: job management, robot or mapped controller alike.

One run from end to end: the program is put onto the machine, read back and compared; then, if everything lets the
machine start, a checkpoint is durable, and the one request goes out that can start it. It is never repeated: where its
answer is lost, the machine is asked what it knows of the run, and nothing found is UNKNOWN. From then on the machine
works by itself and is watched; the link may go and come back. The end is what the machine says of this run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from drivers.opcua.client import Link
from drivers.opcua.config import OpcUaMachine
from drivers.opcua.equipment import Equipment, Phase, Seen, Work
from drivers.opcua.profile import AnyProfile, candidates
from drivers.opcua.sight import Sight
from drivers.opcua.start import LOOK_S, Start
from drivers.opcua.words import LinkError, RefusedError
from drivers.stop import quietly
from edge.driver import (
    Capability,
    Driver,
    DriverContext,
    Finished,
    Identity,
    Lost,
    MachineError,
    Message,
    Motion,
    NotAcceptableError,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Program,
    Recovery,
    Resume,
    Run,
    StillRunning,
    shielded,
)

GONE_S = 4.0
"""How long a machine that has just come back may know nothing of a run: controllers load their lists late."""

STOP_S = 120.0
"""How long a cancelled run may take to stop."""

TOO_LATE = "the machine did not confirm the stop in time"

log = logging.getLogger("drivers.opcua")


class OpcUaDriver(Driver):
    """A known machine. Made by `open_machine`."""

    def __init__(self, machine: OpcUaMachine, context: DriverContext, profiles: Mapping[str, AnyProfile]) -> None:
        self._machine = machine
        self._context = context
        self._clock = context.clock
        self.sight = Sight(machine, context, profiles)
        self._start = Start(self.sight, context)
        self.session = self.sight.session
        self._last: Work | None = None  # the run that a stop without a run is about
        self._stops = 0  # that are being carried out
        self._detached = False
        self._aborting: set[asyncio.Task[None]] = set()

    @property
    def identity(self) -> Identity:
        return self._equipment.identity

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._equipment.capabilities | {Capability.DETACH, Capability.CARRIES_ON, Capability.ABORT_AT_ONCE}

    @property
    def _equipment(self) -> Equipment:
        return self.sight.equipment

    async def lost(self) -> MachineError:
        return await self.session.lost()

    async def close(self) -> None:
        """Command nothing, but let an abort get through."""
        if self._aborting:
            await asyncio.wait(self._aborting, timeout=2.0)
        for task in self._aborting:
            task.cancel()
        self.session.fail(MachineError("let go", Motion.NONE))

    # A run

    async def execute(self, run: Run, program: Program, resume: Resume | None = None) -> Outcome:
        if resume is not None and not isinstance(resume, StillRunning):
            raise NotAcceptableError("resume", repr(resume), "what `recover` of this driver has found")
        if self.sight.going is not None:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "one run at a time")
        if self._stops:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "not while the machine is being stopped")
        self.sight.check(Motion.NONE)
        name, sent = self._equipment.program_name(run, program)
        work = Work(run, name, begun=resume is not None, unbroken=resume is None)
        self._last, self._detached = work, False
        self.sight.begin(work)
        try:
            if resume is None and not await self._start.start(work, program if sent else None):
                return Outcome(OutcomeKind.STOPPED, Motion.NONE, "stopped before the machine was asked to start")
            return await self._watch(work)
        except asyncio.CancelledError:
            if not self._detached:
                await shielded(quietly(self.stop, self._context, STOP_S), f"stop {self._machine.id}")
            raise
        finally:
            self.sight.going = None
            self.sight.show()

    async def _watch(self, work: Work) -> Outcome:
        """Until the machine says how the run has ended, or nobody knows."""
        unknown_since_s: float | None = None
        while True:
            self.sight.check()
            count = self.session.count
            seen = await self.sight.ask(work)
            if seen is not None and seen.outcome is not None:
                if seen.outcome.kind is OutcomeKind.SUCCEEDED:
                    self.sight.progress(work, 1.0)
                return seen.outcome
            if seen is not None and seen.phase is Phase.ABSENT:
                unknown_since_s = unknown_since_s or self._clock.mono_s()
                if self._clock.mono_s() - unknown_since_s >= GONE_S:
                    gone = "the machine knows nothing of this run any more; it may have been switched off"
                    reason = seen.detail or gone
                    return Outcome(OutcomeKind.UNKNOWN, Motion.POSSIBLE, reason, {"run": work.run.run_id})
            elif seen is not None:
                unknown_since_s = None
            await self.session.news(count, LOOK_S)

    async def recover(self, run: Run, program: Program) -> Recovery:
        name, _ = self._equipment.program_name(run, program)
        work = Work(run, name, begun=run.checkpoint is not None, unbroken=False)
        self._last = work
        seen = await self._found_again(work)
        if seen.outcome is not None and seen.outcome.kind is not OutcomeKind.UNKNOWN:
            return Finished(seen.outcome)
        match seen.phase:
            case Phase.RUNNING | Phase.HELD:
                return StillRunning()
            case Phase.WAITING if work.begun:
                return StillRunning()
            case Phase.WAITING | Phase.ABSENT if not work.begun:
                await self._start.withdraw(work)
                reason = "the daemon ended before the machine was asked to start"
                return Finished(Outcome(OutcomeKind.FAILED, Motion.NONE, reason))
            case _:
                pass
        reason = seen.outcome.reason if seen.outcome is not None else seen.detail
        busy = self._equipment.busy_with(work)
        return Lost(reason or "the machine knows nothing of this run any more", same_machine=not busy)

    async def _found_again(self, work: Work) -> Seen:
        """A controller that was just switched on may load its list late: absence counts only if it lasts."""
        until_s: float | None = None
        while True:
            self.sight.check(Motion.NONE)
            count = self.session.count
            seen = await self.sight.ask(work)
            if seen is not None and (seen.phase is not Phase.ABSENT or not work.begun):
                return seen
            if seen is not None:
                until_s = until_s or self._clock.mono_s() + GONE_S
                if self._clock.mono_s() >= until_s:
                    return seen
            await self.session.news(count, LOOK_S)

    async def detach(self) -> None:
        async with self._start.beginning:  # a start that is being asked for is let come to its answer
            self._detached = True

    # What is asked of it

    async def pause(self, deadline_s: float) -> None:
        work = self._work_going("pause")
        work.pause_asked = True
        equipment = self._equipment
        await self._bring("pause", deadline_s, work, Phase.HELD, lambda link: equipment.pause(link, work))

    async def resume(self, deadline_s: float) -> None:
        work = self._work_going("resume")
        work.pause_asked = False
        equipment = self._equipment

        async def ask(link: Link) -> None:
            await equipment.acknowledge_all(link)
            await equipment.resume(link, work)

        await self._bring("resume", deadline_s, work, Phase.RUNNING, ask)

    async def acknowledge(self, token: str, comment: str, deadline_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                await self._equipment.acknowledge(self.session.link, token, comment)
        except (LinkError, TimeoutError) as error:
            reason = f": {error}" if str(error) else ""
            raise NotConfirmedError(f"the machine has not confirmed the acknowledgement{reason}") from error
        self.sight.show()

    def _work_going(self, verb: str) -> Work:
        if self.sight.going is None:
            raise NotAcceptableError(verb, "asked", "while a run of this site is going on")
        return self.sight.going

    async def _bring(
        self, verb: str, deadline_s: float, work: Work, goal: Phase, ask: Callable[[Link], Awaitable[None]]
    ) -> None:
        """Ask until it is seen. Asking again changes nothing: what is reached already is not asked for."""
        asked_s: float | None = None
        refused = ""
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                while True:
                    if self.session.failure is not None:
                        raise NotConfirmedError(f"the machine did not confirm: {self.session.failure}")
                    count = self.session.count
                    over = work.stop_asked or self.sight.going is not work
                    seen = self.sight.seen if over else await self.sight.ask(work)
                    if over or (seen is not None and seen.phase is Phase.ENDED):
                        if goal is Phase.RUNNING and asked_s is not None and _succeeded(seen):
                            return  # it went on, to its end
                        raise NotConfirmedError(f"the run was over before the machine could {verb} it")
                    if seen is not None and seen.phase is goal:
                        return
                    ready = seen is not None and seen.goes_on
                    if ready and (asked_s is None or self._clock.mono_s() - asked_s > ASK_AGAIN_S):
                        asked_s = self._clock.mono_s()
                        refused = await self._ask_for(ask)
                    await self.session.news(count, LOOK_S if asked_s is None else LOOK_SOON_S)
        except TimeoutError as error:
            raise NotConfirmedError(f"the machine did not {verb} in time{refused}") from error

    async def _ask_for(self, ask: Callable[[Link], Awaitable[None]]) -> str:
        """What the machine had against it, for the end of a sentence: the next look tells whether it counts."""
        try:
            await ask(self.session.link)
        except RefusedError as error:
            self._context.emit(Message(str(error)))
            return f": {error}"
        except LinkError:
            pass
        return ""

    async def stop(self, deadline_s: float) -> None:
        self._detached = False
        work = self.sight.going or self._last
        if self.sight.going is not None:
            self.sight.going.stop_asked = True
            self.sight.going.stopped.set()
        self._stops += 1
        self.session.tell()
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                async with self._start.beginning:
                    pass  # from here on there is a run, or there will be none
                while not await self._stopped(work):
                    pass
        except TimeoutError as error:
            raise NotConfirmedError(TOO_LATE) from error
        finally:
            self._stops -= 1

    async def _stopped(self, work: Work | None) -> bool:
        """One try: whether the machine confirms that nothing of ours goes on. Raises `NotConfirmedError`."""
        if self.session.failure is not None:
            raise NotConfirmedError(f"the machine did not confirm the stop: {self.session.failure}")
        count = self.session.count
        try:
            link, equipment = self.session.link, self._equipment
            if work is not None and work.begun:
                seen = await equipment.look(link, work)
                if seen.phase in (Phase.WAITING, Phase.RUNNING, Phase.HELD):
                    await equipment.stop(link, work, seen)
                    await self.session.news(count, LOOK_SOON_S)
                    return False
                work.over = work.over or (seen if seen.outcome is not None else None)
            await equipment.catch_up(link)
            if other := equipment.busy_with(None):
                raise NotConfirmedError(f"{other}, and is left alone")
            if await equipment.rest(link, work):
                return True
        except NotConfirmedError:
            raise
        except MachineError as error:
            if isinstance(error, RefusedError):
                self._context.emit(Message(str(error)))
        await self.session.news(count, LOOK_SOON_S)
        return False

    async def abort(self) -> None:
        try:
            link = self.session.link
        except MachineError as error:
            self._context.emit(Message(f"not aborted: {error}"))
        else:
            task = asyncio.create_task(self._send_abort(link), name=f"abort {self._machine.id}")
            self._aborting.add(task)
            task.add_done_callback(self._aborting.discard)
            await asyncio.wait([task], timeout=0.5)
        self.session.fail(MachineError("aborted; a person has to look at the machine"))
        self.sight.show()

    async def _send_abort(self, link: Link) -> None:
        try:
            await self._equipment.abort(link, self.sight.going or self._last)
        except MachineError as error:
            self._context.emit(Message(f"not aborted: {error}"))


def _succeeded(seen: Seen | None) -> bool:
    return seen is not None and seen.outcome is not None and seen.outcome.kind is OutcomeKind.SUCCEEDED


ASK_AGAIN_S = 3.0
LOOK_SOON_S = 0.2


@asynccontextmanager
async def open_machine(
    machine: OpcUaMachine, context: DriverContext, dialects: tuple[str, ...]
) -> AsyncIterator[Driver]:
    """Connect, identify, and watch until the block is left. Leaving commands nothing."""
    profiles = candidates(machine.profile, dialects, machine.profiles_dir)
    driver = OpcUaDriver(machine, context, profiles)
    running = [asyncio.create_task(driver.session.run(), name=f"connection of {machine.id}")]
    running[0].add_done_callback(driver.session.ended)
    try:
        await driver.session.ready()
        seen = driver.sight.equipment
        log.warning("%s: profile %s was tried on: %s", machine.id, seen.identity.profile, seen.profile.tried_on)
        if seen.left_out:
            log.warning(
                "%s: the profile names what its server has not, and it is left out: %s",
                machine.id,
                ", ".join(seen.left_out),
            )
        running.append(asyncio.create_task(driver.sight.watch(), name=f"state of {machine.id}"))
        running[1].add_done_callback(driver.session.ended)
        yield driver
    finally:
        await driver.close()
        await asyncio.wait(running[:1], timeout=CLOSE_S)
        for task in running:
            task.cancel()
        await asyncio.wait(running)


CLOSE_S = 3.0
"""How long the session may take to be given back."""
