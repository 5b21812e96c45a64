"""The driver for one machine behind an OPC UA server: job management, robot or mapped controller alike.

One run from end to end: the program is put onto the machine, read back and compared; then, if everything lets the
machine start, a checkpoint is durable, and the one request goes out that can start it. It is never repeated: where its
answer is lost, the machine is asked what it knows of the run, and nothing found is UNKNOWN. From then on the machine
works by itself and is watched; the link may go and come back. The end is what the machine says of this run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager

from drivers.opcua.client import Link
from drivers.opcua.config import OpcUaMachine
from drivers.opcua.equipment import Equipment, Phase, Seen, Work, locate
from drivers.opcua.jobcontrol import JobMachine
from drivers.opcua.library import DataValue, NodeId
from drivers.opcua.mapped import MappedMachine
from drivers.opcua.pki import Pki
from drivers.opcua.profile import AnyProfile, JobsProfile, MappedProfile, RoboticsProfile, candidates
from drivers.opcua.robotics import RobotMachine
from drivers.opcua.session import Session
from drivers.opcua.words import LinkError, RefusedError
from edge.driver import (
    Capability,
    Driver,
    DriverContext,
    Finished,
    Identity,
    IdentityError,
    Lost,
    MachineError,
    MachineState,
    Message,
    Motion,
    NotAcceptableError,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Program,
    Progress,
    Recovery,
    Resume,
    Run,
    StateSeen,
    StillRunning,
    shielded,
)

LOOK_S = 1.0
"""How often a run is asked about while nothing is told of it: what is told is a hint, what is asked is the fact."""

BEGIN_S = 30.0
"""How long a machine may keep an accepted run out of what it tells before that is UNKNOWN."""

GONE_S = 5.0
"""How long a machine that has just come back may know nothing of a run: controllers load their lists late."""

STOP_S = 120.0
"""How long a cancelled run may take to stop."""

TOO_LATE = "the machine did not confirm the stop in time"
STAGES = 2
"""Progress where the machine says no more than its state: begun, and ended."""


class OpcUaDriver(Driver):
    """A known machine. Made by `open_machine`."""

    def __init__(self, machine: OpcUaMachine, context: DriverContext, profiles: Mapping[str, AnyProfile]) -> None:
        self._machine = machine
        self._context = context
        self._clock = context.clock
        self._profiles = profiles
        pki = Pki(context.state_dir / "pki")
        self.session = Session(
            machine.id,
            machine.connection,
            pki,
            context.clock,
            self._attach,
            self._saw,
            self._out_of_sight,
            context.emit,
        )
        self._found: Equipment | None = None
        self._going: Work | None = None
        self._last: Work | None = None  # the run that a stop without a run is about
        self._seen: Seen | None = None
        self._stops = 0  # that are being carried out
        self._detached = False
        self._beginning = asyncio.Lock()  # held from the last look before the start until its answer is there
        self._shown: StateSeen | None = None
        self._done = 0
        self._aborting: set[asyncio.Task[None]] = set()

    @property
    def identity(self) -> Identity:
        return self._equipment.identity

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._equipment.capabilities | {Capability.DETACH, Capability.CARRIES_ON, Capability.ABORT_AT_ONCE}

    @property
    def _equipment(self) -> Equipment:
        assert self._found is not None, "known from the first link on"
        return self._found

    async def lost(self) -> MachineError:
        return await self.session.lost()

    async def close(self) -> None:
        """Command nothing, but let an abort get through."""
        if self._aborting:
            await asyncio.wait(self._aborting, timeout=2.0)
        for task in self._aborting:
            task.cancel()
        self.session.fail(MachineError("let go", Motion.NONE))

    # On each link

    async def _attach(self, link: Link) -> Mapping[NodeId, float]:
        found, root = await self._locate(link)
        self._found = found
        if self._going is not None and self._seen is not None:
            self._going.unbroken = False
        return await found.attach(link, root)

    async def _locate(self, link: Link) -> tuple[Equipment, NodeId]:
        wanted = self._machine.connection.machine
        fits = [
            (name, profile, browse_name, node)
            for name, profile in self._profiles.items()
            for browse_name, node in await locate(link, profile, wanted)
        ]
        named = f" with the browse name {wanted!r}" if wanted else ""
        if not fits:
            places = "; ".join(
                f"{name} looks for {' and '.join([profile.machine.root, *profile.machine.requires])}"
                for name, profile in self._profiles.items()
            )
            raise IdentityError(f"the server has no machine{named} that fits a profile: {places}")
        if len(fits) > 1:
            choice = ", ".join(f"{browse_name!r} ({name})" for name, _, browse_name, _ in fits)
            raise IdentityError(f"several fit: {choice}; name one as connection.machine, or name the profile")
        name, profile, _, node = fits[0]
        return self._found or self._made(name, profile), node

    def _made(self, name: str, profile: AnyProfile) -> Equipment:
        made: Equipment
        match profile:
            case JobsProfile():
                made = JobMachine(self._machine, name, profile, self._context)
            case RoboticsProfile():
                made = RobotMachine(self._machine, name, profile, self._context)
            case MappedProfile():
                made = MappedMachine(self._machine, name, profile, self._context)
        made.tell = self.session.tell
        return made

    # A run

    async def execute(self, run: Run, program: Program, resume: Resume | None = None) -> Outcome:
        if resume is not None and not isinstance(resume, StillRunning):
            raise NotAcceptableError("resume", repr(resume), "what `recover` of this driver has found")
        if self._going is not None:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "one run at a time")
        if self._stops:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "not while the machine is being stopped")
        self._check(Motion.NONE)
        name, sent = self._equipment.program_name(run, program)
        work = Work(run, name, begun=resume is not None, unbroken=resume is None)
        self._going = self._last = work
        self._detached, self._seen, self._done = False, None, 0
        try:
            if resume is None and not await self._start(work, program if sent else None):
                return Outcome(OutcomeKind.STOPPED, Motion.NONE, "stopped before the machine was asked to start")
            return await self._watch(work)
        except asyncio.CancelledError:
            if not self._detached:
                await shielded(self._stop_quietly(), f"stop {self._machine.id}")
            raise
        finally:
            self._going = None
            self._show()

    async def _start(self, work: Work, program: Program | None) -> bool:
        """Prepare, and begin the run; False if a stop came first."""
        await asyncio.sleep(0)  # whoever stops a run that was just asked for comes first
        if work.stopped.is_set():
            return False
        if not await self._unless_stopped(work, self._surely_not_begun(self._prepare(work, program))):
            return False
        async with self._beginning:
            if work.stop_asked:
                await self._withdraw(work)
                return False
            await self._surely_not_begun(self._last_look(work))
            await self._context.checkpoint({**work.memory, "name": work.name})
            if work.stopped.is_set():  # while the checkpoint was written
                await self._withdraw(work)
                return False
            await self._begin(work)
        return True

    async def _unless_stopped(self, work: Work, preparing: Coroutine[None, None, None]) -> bool:
        """Carry it to its end, unless a stop comes first: a big program takes minutes."""
        task = asyncio.create_task(preparing, name=f"prepare {work.run.run_id}")
        try:
            while not task.done() and not work.stop_asked:
                work.stopped.clear()
                waiting = asyncio.create_task(work.stopped.wait(), name=f"stop of {work.run.run_id}")
                await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                await asyncio.wait([waiting])
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if work.stop_asked:
            if not task.cancelled():
                task.exception()
            await self._withdraw(work)
            return False
        task.result()
        return True

    async def _surely_not_begun(self, preparing: Coroutine[None, None, None]) -> None:
        """Whatever fails before the start has moved nothing."""
        try:
            await preparing
        except NotConfirmedError:
            raise
        except MachineError as error:
            self._check(Motion.NONE)
            raise MachineError(str(error), Motion.NONE) from error

    async def _prepare(self, work: Work, program: Program | None) -> None:
        link, equipment = self.session.link, self._equipment
        if (await equipment.look(link, work)).phase is not Phase.ABSENT:
            raise NotConfirmedError(f"the machine knows run {work.run.run_id} already; it was begun before")
        await equipment.tidy(link, work.name)
        if program is not None:
            await equipment.send(link, work.name, program)
        await equipment.prepare(link, work)

    async def _last_look(self, work: Work) -> None:
        link, equipment = self.session.link, self._equipment
        await equipment.catch_up(link)
        if words := equipment.busy_with(work):
            raise MachineError(words, Motion.NONE)
        if words := equipment.refusal():
            raise MachineError(f"the machine cannot be started: {words}", Motion.NONE)

    async def _withdraw(self, work: Work) -> None:
        """Take back what was prepared and never started. Nothing moves."""
        try:
            link = self.session.link
            seen = await self._equipment.look(link, work)
            if seen.phase is Phase.WAITING:
                await self._equipment.stop(link, work, seen)
        except MachineError as error:
            self._context.emit(Message(f"what was prepared is still on the machine: {error}"))

    async def _begin(self, work: Work) -> None:
        """Ask for the start, once, and wait until the machine knows the run."""
        work.begun = True
        doubt = ""
        try:
            await self._equipment.begin(self.session.link, work)
        except RefusedError as error:
            raise MachineError(f"the machine has not started: {error}", Motion.NONE) from error
        except MachineError as error:
            doubt = f": {error}"  # the answer was lost, and maybe the request: what the machine knows now tells
        until_s: float | None = None
        while until_s is None or self._clock.mono_s() < until_s:
            self._check()
            count = self.session.count
            seen = await self._ask(work)
            if seen is not None:
                doubt = doubt or (f": {seen.detail}" if seen.detail else "")
                if seen.phase is not Phase.ABSENT:
                    return
                until_s = until_s or self._clock.mono_s() + BEGIN_S
            await self.session.news(count, LOOK_S)
        raise NotConfirmedError(f"the start was asked for, and the machine knows nothing of it{doubt}")

    async def _watch(self, work: Work) -> Outcome:
        """Until the machine says how the run has ended, or nobody knows."""
        unknown_since_s: float | None = None
        while True:
            self._check()
            count = self.session.count
            seen = await self._ask(work)
            if seen is not None and seen.outcome is not None:
                if seen.outcome.kind is OutcomeKind.SUCCEEDED:
                    self._progress(work, 1.0)
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

    async def _ask(self, work: Work) -> Seen | None:
        """What the machine says of the run; None if it cannot be asked now."""
        try:
            seen = await self._equipment.look(self.session.link, work)
            await self._equipment.catch_up(self.session.link)
        except RefusedError as error:
            self._context.emit(Message(str(error)))
            seen = Seen(Phase.ABSENT, f"the machine cannot be asked about the run: {error}")
        except MachineError:
            return None
        work.ran = work.ran or seen.phase in (Phase.RUNNING, Phase.HELD)
        if work is self._going:
            self._seen = seen
            if seen.phase in (Phase.RUNNING, Phase.HELD):
                self._progress(work, self._equipment.progress())
            self._show()
        return seen

    def _progress(self, work: Work, share: float | None) -> None:
        if self._equipment.profile.progress and share is not None:
            self._done = max(self._done, round(share * 100))
            self._context.emit(Progress(self._done, 100, "percent"))
        else:
            self._done = max(self._done, STAGES if share == 1.0 else 1)
            self._context.emit(Progress(self._done, STAGES, "stages"))

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
                await self._withdraw(work)
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
            self._check(Motion.NONE)
            count = self.session.count
            seen = await self._ask(work)
            if seen is not None and (seen.phase is not Phase.ABSENT or not work.begun):
                return seen
            if seen is not None:
                until_s = until_s or self._clock.mono_s() + GONE_S
                if self._clock.mono_s() >= until_s:
                    return seen
            await self.session.news(count, LOOK_S)

    async def detach(self) -> None:
        async with self._beginning:  # a start that is being asked for is let come to its answer
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
            await equipment.acknowledge(link)
            await equipment.resume(link, work)

        await self._bring("resume", deadline_s, work, Phase.RUNNING, ask)

    def _work_going(self, verb: str) -> Work:
        if self._going is None:
            raise NotAcceptableError(verb, "asked", "while a run of this site is going on")
        return self._going

    async def _bring(
        self, verb: str, deadline_s: float, work: Work, goal: Phase, ask: Callable[[Link], Awaitable[None]]
    ) -> None:
        """Ask until it is seen. Asking again changes nothing: what is reached already is not asked for."""
        asked_s: float | None = None
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                while True:
                    if self.session.failure is not None:
                        raise NotConfirmedError(f"the machine did not confirm: {self.session.failure}")
                    if work.stop_asked or self._going is not work:
                        raise NotConfirmedError(f"the run was over before the machine could {verb} it")
                    count = self.session.count
                    seen = await self._ask(work)
                    if seen is not None and seen.phase is goal:
                        return
                    if seen is not None and seen.phase is Phase.ENDED:
                        raise NotConfirmedError(f"the run was over before the machine could {verb} it")
                    ready = seen is not None and seen.phase in (Phase.RUNNING, Phase.HELD)
                    if ready and (asked_s is None or self._clock.mono_s() - asked_s > ASK_AGAIN_S):
                        asked_s = self._clock.mono_s()
                        await self._ask_for(ask)
                    await self.session.news(count, LOOK_S if asked_s is None else LOOK_SOON_S)
        except TimeoutError as error:
            raise NotConfirmedError(f"the machine did not {verb} in time") from error

    async def _ask_for(self, ask: Callable[[Link], Awaitable[None]]) -> None:
        try:
            await ask(self.session.link)
        except NotAcceptableError:
            raise
        except RefusedError as error:
            # Its state may have changed just before: the next look tells.
            self._context.emit(Message(str(error)))
        except LinkError:
            pass

    async def stop(self, deadline_s: float) -> None:
        self._detached = False
        work = self._going or self._last
        if self._going is not None:
            self._going.stop_asked = True
            self._going.stopped.set()
        self._stops += 1
        self.session.tell()
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                async with self._beginning:
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

    async def _stop_quietly(self) -> None:
        """Stop for a caller that is being cancelled: it cannot take an answer, so what happened goes to people."""
        try:
            await self.stop(self._clock.mono_s() + STOP_S)
        except MachineError as error:
            self._context.emit(Message(f"not stopped: {error}"))

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
        self._show()

    async def _send_abort(self, link: Link) -> None:
        try:
            await self._equipment.abort(link, self._going or self._last)
        except MachineError as error:
            self._context.emit(Message(f"not aborted: {error}"))

    def _check(self, motion: Motion = Motion.POSSIBLE) -> None:
        """Raises for a failed session: before a run has begun it has moved nothing."""
        failure = self.session.failure
        if failure is None:
            return
        if motion is Motion.NONE:
            raise MachineError(str(failure), Motion.NONE)
        raise NotConfirmedError(str(failure))

    # What is seen

    def _saw(self, node: NodeId, value: DataValue) -> None:
        self._equipment.saw(node, value)

    async def watch(self) -> None:
        """Show the machine's state whenever something is new."""
        while True:
            count = self.session.count
            try:
                await self._equipment.catch_up(self.session.link)
                self._equipment.confirm()
                self._show()
            except MachineError:
                pass  # out of sight: that is shown already
            await self.session.news(count, IDLE_LOOK_S)

    def _show(self) -> None:
        """Tell the machine's state, if it is another one."""
        if self.session.failure is not None:
            seen = StateSeen(MachineState.ABORTED, str(self.session.failure))
        elif not self.session.in_sight:
            return
        else:
            seen = StateSeen(*self._equipment.state(self._going, self._seen))
        if seen != self._shown:
            self._shown = seen
            self._context.emit(seen)

    def _out_of_sight(self, reason: str) -> None:
        self._shown = StateSeen(MachineState.OFFLINE, reason)
        self._context.emit(self._shown)


ASK_AGAIN_S = 3.0
LOOK_SOON_S = 0.2
IDLE_LOOK_S = 5.0
"""How often values that have not changed are told again, as long as the server's clock goes on: they are not old."""


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
        running.append(asyncio.create_task(driver.watch(), name=f"state of {machine.id}"))
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
