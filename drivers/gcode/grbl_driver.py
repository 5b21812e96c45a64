"""The driver for one router, mill or laser that speaks grbl's dialect (grbl 1.1, grblHAL) over a serial port or TCP.

One job from end to end: the controller stands (``Idle``) and knows its place; every place of the program is held
against the machine's limits with the offsets that the controller tells (``$#``); `PREAMBLE` sets the modes that the
program was read with; then line after line, as many as fit into its buffer. When the last is answered, a dwell waits
until the machine stands, two reports must say ``Idle``, and the position must be the one that the program ends at:
only then is the run SUCCEEDED.

What this dialect cannot do: a controller keeps no line numbers, so a run that a dead daemon left is always lost. The
dead daemon's lines that are in its buffers are carried out; it is identified when it stands, and then made safe.

What it is never told by itself: ``$H`` and ``$X``. A controller that is locked, or that says it is not homed, takes no
work until a person has seen to it, unless each program homes it (`Limits.homing`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

from drivers.gcode import aborting, grbl_codes, grbl_replies
from drivers.gcode import profile as profiles
from drivers.gcode.aborting import Aborting
from drivers.gcode.attended import attended
from drivers.gcode.config import Printer
from drivers.gcode.grbl import FINAL, HOLD, RESUME, SETTLE_POLL_S
from drivers.gcode.grbl_check import (
    AXES,
    Offset,
    hold_places,
    misplaced,
    program_lines,
    prompts_in,
    read_program,
    zeros_mm,
)
from drivers.gcode.grbl_contact import Contact
from drivers.gcode.grbl_program import HOME, PREAMBLE, Found
from drivers.gcode.grbl_replies import Notice, Refusal, Status
from drivers.gcode.grbl_session import GrblSession
from drivers.gcode.grbl_watch import HELD, Phase, Watch
from drivers.gcode.profile import GRBL
from drivers.gcode.replies import Reply
from drivers.stop import quietly
from edge.driver import (
    Capability,
    Driver,
    DriverContext,
    Finished,
    Identity,
    Json,
    LinkLostError,
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
    shielded,
)

LOOK_S = 2.0
"""How often an idle controller is asked for its state; also what notices a dead connection."""
STOP_S = 60.0
"""How long a cancelled run may take to stop: a deceleration, and a reset."""
TOO_LATE = "the controller did not confirm the stop in time"

log = logging.getLogger("drivers.gcode")


class GrblDriver(Driver):
    """An identified controller. Made by `open_grbl`."""

    def __init__(self, machine: Printer, context: DriverContext) -> None:
        self._machine = machine
        self._context = context
        self._clock = context.clock
        self._session = GrblSession(context, self._heard)
        self._profile = profiles.named(machine.profile, machine.profiles_dir, GRBL)
        self._watch = Watch(homes=machine.limits.homing == "program")
        self._contact = Contact(machine, self._session, self._watch, self._profile)
        self._running = False
        self._programming = asyncio.Event()  # lines of a program are going out
        self._over = asyncio.Event()  # no run is going on
        self._over.set()
        self._prompts: Mapping[int, str] = {}  # what lines at which the program waits say to people
        self._stopping: asyncio.Task[None] | None = None
        self._aborting = Aborting(machine.id, self._session, self._tell, aborting.grbl_proof)

    @property
    def identity(self) -> Identity:
        firmware = self._contact.firmware
        name, _, version = firmware.name.partition(" ")
        return Identity(name, version, firmware.machine_type, firmware.uuid, self._machine.profile)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.PAUSE, Capability.ABORT_AT_ONCE})

    # Connection

    async def connect(self, *, stop: bool = False) -> None:
        """As `Contact.make`."""
        await self._contact.make(stop=stop)

    async def keep_looking(self) -> None:
        """Ask an idle controller for its state, for ever. A silent one fails the session."""
        with suppress(MachineError):  # latched in the session; `lost` tells it
            while True:
                await asyncio.sleep(LOOK_S)
                if not self._running:
                    await self._session.look()

    async def close(self) -> None:
        """Let go of the link; commands nothing."""
        await self._aborting.close()
        self._session.close()
        if self._stopping is not None:
            await asyncio.wait([self._stopping])

    async def lost(self) -> MachineError:
        return await self._session.lost()

    # Runs

    async def execute(self, run: Run, program: Program, resume: Resume | None = None) -> Outcome:
        if resume is not None:
            raise NotAcceptableError("resume", repr(resume), "a run from its beginning: this dialect has no other")
        if self._running:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "one run at a time")
        if self._stopping is not None and not self._stopping.done():
            raise NotAcceptableError(f"run {run.run_id}", "asked", "not while the machine is being stopped")
        self._session.check()
        self._running = True
        self._over.clear()
        self._stopping = None
        try:
            try:
                found = await asyncio.to_thread(read_program, program.path, self._machine.limits, self._profile)
                self._prompts = await asyncio.to_thread(prompts_in, program.path)
            except OSError as error:
                raise MachineError(f"{program.name} cannot be read: {error.strerror}", Motion.NONE) from error
            if self._stop_is_asked():
                return await self._stopped({}, Motion.NONE)
            return await self._carry_out(run, program.path, found)
        except asyncio.CancelledError:
            await shielded(quietly(self.stop, self._context, STOP_S), f"stop {self._machine.id}")
            raise
        finally:
            self._running = False
            self._programming.clear()
            self._over.set()
            self._prompts = {}
            if self._aborting.begun:
                pass  # which tells what became of it
            elif self._session.failure is not None:
                self._context.emit(StateSeen(MachineState.ABORTED, str(self._session.failure)))
            elif self._watch.status is not None:
                self._see(self._watch.status)

    async def _carry_out(self, run: Run, path: Path, found: Found) -> Outcome:
        first = self._sent_before
        motion = Motion.POSSIBLE if self._watch.homes else Motion.NONE

        def acked(number: int) -> None:
            self._context.emit(Progress(min(number + first, found.lines), found.lines))

        try:
            offsets_mm = await self._prepared(found)
            await self._context.checkpoint({"format": 1, "lines": found.lines})
            if self._watch.homes and not self._stop_is_asked():
                self._refuse_refusal(HOME, await self._session.ask(HOME), motion)
                acked(0)
            if not self._stop_is_asked():
                self._refuse_refusal(PREAMBLE, await self._session.ask(PREAMBLE), motion)
                start_mm = await self._standing()
        except MachineError:
            if not self._stop_is_asked():
                raise  # what a stop has cut short has not failed
        if self._stop_is_asked():
            return await self._stopped({}, motion)
        self._programming.set()
        self._context.emit(StateSeen(MachineState.EXECUTE))
        with closing(program_lines(path)) as lines:
            rest = itertools.islice((text for _, text in lines), first, None)
            await self._session.run(itertools.chain(rest, (FINAL,)), acked)
        if self._stop_is_asked():
            return await self._stopped({"commands": self._session.stream.acked}, Motion.POSSIBLE)
        return await self._proved(found, offsets_mm, None if self._watch.homes else start_mm)

    async def _prepared(self, found: Found) -> dict[str, Offset]:
        """All that must be so before anything moves; the coordinate systems' offsets."""
        status = await self._session.look()
        if reason := self._watch.not_startable(status):
            raise MachineError(f"the machine cannot begin: {reason}", Motion.NONE)
        if "M7" in found.codes and not self._contact.has_mist:
            raise NotAcceptableError("program", "M7", "M8 or nothing: this controller was built without mist coolant")
        replies = await self._session.ask("$#")
        if self._stop_is_asked():
            return {}
        self._refuse_refusal("$#", replies, Motion.NONE)
        offsets_mm = zeros_mm(grbl_replies.offsets(replies), self._watch.unit_mm)
        try:
            hold_places(found, self._machine.limits, offsets_mm)
        except NotAcceptableError:
            log.warning("%s: offsets of the work coordinates (mm): %s", self._machine.id, offsets_mm)
            raise
        return offsets_mm

    def _refuse_refusal(self, command: str, replies: tuple[Reply, ...], motion: Motion) -> None:
        if replies and isinstance(refusal := replies[-1], Refusal):
            raise MachineError(f"{command} was refused: {grbl_codes.error(refusal.code)}", motion)

    async def _proved(self, found: Found, offsets_mm: Mapping[str, Offset], start_mm: Offset | None) -> Outcome:
        """All is answered and the machine stands; SUCCEEDED is what its position says, too."""
        position_mm = await self._standing()
        if wrong := misplaced(found, offsets_mm, start_mm, position_mm):
            raise MachineError(f"all {found.lines} lines are answered, but {wrong}")
        seen = dict(zip(AXES, position_mm, strict=True))
        evidence: dict[str, Json] = {"commands": found.lines, "position_mm": {**seen}}
        return Outcome(OutcomeKind.SUCCEEDED, Motion.POSSIBLE, f"all {found.lines} commands carried out", evidence)

    async def _standing(self) -> Offset:
        """Wait until the machine is idle, if a person holds it meanwhile; its machine position, mm."""
        while True:
            status = await self._session.look()
            if status.state == "Alarm":
                raise MachineError(f"the controller is locked by an alarm: {status.text}")
            if status.state == "Idle" and (position_mm := self._watch.position_mm(status)) is not None:
                return position_mm
            await asyncio.sleep(SETTLE_POLL_S)

    def _stop_is_asked(self) -> bool:
        return self._stopping is not None

    async def recover(self, run: Run, program: Program) -> Recovery:
        if run.checkpoint is None:
            reason = "not one line of it was sent"
            return Finished(Outcome(OutcomeKind.FAILED, Motion.NONE, reason))
        return Lost("grbl cannot be asked how far it came")

    # Pause, stop, abort

    async def pause(self, deadline_s: float) -> None:
        """Feed hold. The spindle goes on turning, as it does when a person presses the button."""
        async with self._in_time(deadline_s, "the controller did not confirm the hold"):
            await self._begun("pause")
            self._must_go_on("pause")
            self._session.write_now(HOLD)
            while not (status := await self._look_while_going("pause")).still or status.state not in ("Hold", "Door"):
                await asyncio.sleep(SETTLE_POLL_S)
                self._must_go_on("pause")
                if status.state in ("Idle", "Run"):
                    self._session.write_now(HOLD)
            if not self._programming.is_set():  # it ended meanwhile: nobody would ever release this hold
                self._session.write_now(RESUME)
                raise NotConfirmedError("the run ended before the pause")

    async def resume(self, deadline_s: float) -> None:
        async with self._in_time(deadline_s, "the controller did not confirm that it goes on"):
            await self._begun("resume")
            # Twice: a report is printed before a hold begins that was asked for a moment ago.
            going = False
            while True:
                status = await self._look_while_going("resume")
                if going and status.state in ("Run", "Idle"):
                    return
                going = status.state in ("Run", "Idle")
                if status.state in ("Hold", "Door", "Tool"):
                    self._session.write_now(RESUME)
                await asyncio.sleep(SETTLE_POLL_S)

    async def _begun(self, verb: str) -> None:
        """Wait until lines of the run go out: before that there is nothing to hold, and what is asked would hang."""
        self._session.check()
        if not self._running or self._stop_is_asked():
            raise NotAcceptableError(verb, "asked", "while a run is carried out, and nobody stops it")
        begun = asyncio.create_task(self._programming.wait(), name=f"{verb} {self._machine.id}")
        over = asyncio.create_task(self._over.wait(), name=f"{verb} {self._machine.id}, or its end")
        try:
            await asyncio.wait([begun, over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (begun, over):
                task.cancel()
            await asyncio.wait([begun, over])
        if not self._programming.is_set():
            raise NotConfirmedError(f"the run ended before the {verb}")

    async def _look_while_going(self, verb: str) -> Status:
        """What the machine does now, if nobody stops it, by then either."""
        self._must_go_on(verb)
        try:
            status = await self._session.look()
        except MachineError as error:
            raise NotConfirmedError(f"the {verb} is not confirmed: {error}") from error
        self._must_go_on(verb)
        return status

    def _must_go_on(self, verb: str) -> None:
        """A real-time byte must not come between a stop and its reset, nor after it."""
        if self._stopping is not None or self._session.stream.halting:
            raise NotConfirmedError(f"the machine is being stopped; no {verb} any more")

    @asynccontextmanager
    async def _in_time(self, deadline_s: float, otherwise: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                yield
        except TimeoutError as error:
            raise NotConfirmedError(otherwise) from error

    async def stop(self, deadline_s: float) -> None:
        while True:
            stopping = self._stopping
            joins = stopping is not None and not stopping.done()
            if stopping is None or stopping.done():
                stopping = asyncio.create_task(self._stop(deadline_s), name=f"stop {self._machine.id}")
                stopping.add_done_callback(_look_at)
                self._stopping = stopping
            await asyncio.wait([stopping], timeout=max(0.0, deadline_s - self._clock.mono_s()))
            if not stopping.done():
                raise NotConfirmedError(TOO_LATE)
            # What another caller's stop could not confirm by its own deadline may be confirmed by this one.
            if joins and stopping.exception() is not None and self._clock.mono_s() < deadline_s:
                continue
            stopping.result()
            return

    async def _stop(self, deadline_s: float) -> None:
        async with self._in_time(deadline_s, TOO_LATE):
            try:
                await self._make_safe()
            except LinkLostError:
                raise
            except MachineError as error:
                raise NotConfirmedError(f"the controller did not confirm the stop: {error}") from error

    async def _make_safe(self) -> None:
        """Hold, stand, reset (which stops spindle and coolant: grbl/motion_control.c, mc_reset), then say it again."""
        await self._session.halt()
        for command in self._profile.macro.make_safe:
            replies = await self._session.ask(command)
            refusal = replies[-1] if replies else None
            if isinstance(refusal, Refusal) and refusal.code != grbl_codes.LOCKED:
                raise MachineError(f"{command} was refused: {grbl_codes.error(refusal.code)}")

    async def _stopped(self, evidence: dict[str, Json], motion: Motion) -> Outcome:
        """A run ends like this when the stop that was asked for is confirmed."""
        assert self._stopping is not None
        await asyncio.shield(self._stopping)
        return Outcome(OutcomeKind.STOPPED, motion, "stopped on request", evidence)

    async def abort(self) -> None:
        lost = MachineError("aborted by a reset in motion: the position is lost until it is homed")
        self._aborting.abort(self._profile.macro.abort.encode("ascii"), lost)

    # What is seen

    def _heard(self, reply: Reply) -> None:
        match reply:
            case Status():
                self._watch.heard(reply)
                if not self._contact.heard(reply):
                    self._see(reply)
            case grbl_replies.Alarm(code=code):
                self._watch.alarm = grbl_codes.alarm(code)
                self._context.emit(Message(self._watch.alarm))
            case Notice(text=text):
                self._context.emit(Message(text))
            case _:
                pass

    def _tell(self, state: MachineState, detail: str) -> None:
        self._context.emit(StateSeen(state, detail))

    def _see(self, status: Status) -> None:
        stopping = self._stopping is not None and not self._stopping.done()
        if not (status.state in HELD and (stopping or self._session.stream.halting)):
            self._context.emit(self._watch.seen(status, self._phase(), self._prompt()))

    def _phase(self) -> Phase:
        if self._programming.is_set():
            return Phase.PROGRAM
        return Phase.RUN if self._running else Phase.NONE

    def _prompt(self) -> str:
        """What the line that is being carried out says to people; empty if the program does not wait at it."""
        return self._prompts.get(self._session.stream.acked + 1 + self._sent_before, "") if self._running else ""

    @property
    def _sent_before(self) -> int:
        """Lines of the program that do not count in the stream."""
        return int(self._watch.homes)


@asynccontextmanager
async def open_grbl(machine: Printer, context: DriverContext) -> AsyncIterator[Driver]:
    """As `DriverPlugin.open`."""
    async with attended(GrblDriver(machine, context), machine.id) as driver:
        yield driver


async def make_safe(machine: Printer, context: DriverContext, deadline_s: float) -> str:
    """Stop whatever the machine does, by whomever, spindle and coolant off, and let go of it; what is confirmed.

    Unlike `open_grbl` it stops first and asks for the identity then, for a held controller answers no question.
    Raises `NotConfirmedError`, `ConnectError` or `IdentityError`.
    """
    driver = GrblDriver(machine, context)
    try:
        async with asyncio.timeout(max(0.0, deadline_s - context.clock.mono_s())):
            await driver.connect(stop=True)
        await driver.stop(deadline_s)
        return "stopped, spindle and coolant off"
    except TimeoutError as error:
        raise NotConfirmedError(TOO_LATE) from error
    finally:
        await driver.close()


def _look_at(stopping: asyncio.Task[None]) -> None:
    """The failure of a stop is seen, even if whoever asked for it was cancelled meanwhile."""
    if not stopping.cancelled():
        stopping.exception()
