"""The driver for one printer that speaks Marlin's G-code over a serial port or TCP.

One job from end to end: the firmware's counter is set to 0, every command of the program goes out with its number, and
when the last is acknowledged, a numbered ``M400`` waits until the machine stands still. Then the firmware is asked for
its counter: only if it equals what was sent is the run SUCCEEDED.

What happens beside that has files of its own: `contact` (who is there), `stopping`, `holding` (pause, resume, and what
the printer asks of people), `recovery` (what is proven after a crash), `aborting`. They share one `Device`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from drivers.gcode import recovery
from drivers.gcode.aborting import Aborting, abort_marlin, marlin_proof
from drivers.gcode.attended import attended
from drivers.gcode.config import Printer
from drivers.gcode.contact import Contact
from drivers.gcode.device import Device, program_commands, standing_in
from drivers.gcode.failing import answers_still, made_safe
from drivers.gcode.holding import Holding
from drivers.gcode.macros import FINAL
from drivers.gcode.recovery import Keeper
from drivers.gcode.replies import Action, Busy, Position, Reply, Temperatures, Text
from drivers.gcode.resting import Resting
from drivers.gcode.resume import AXES, homed_by, misplaced
from edge.driver import (
    At,
    Capability,
    Driver,
    DriverContext,
    Identity,
    Json,
    LinkHealth,
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
    Temperature,
    shielded,
)

PROGRESS_STEP_MAX = 25
"""Progress is told for every thousandth of a program, and after so many commands at the latest."""

MODES_BASE = 890_000_000
"""The commands that set the modes before a program are numbered from here: neither the program's nor a stop's."""

NEVER = sys.maxsize
"""No command of a program has this number."""

log = logging.getLogger("drivers.gcode")


class GcodeDriver(Driver):
    """An identified printer. Made by `open_printer`."""

    def __init__(self, machine: Printer, context: DriverContext) -> None:
        self._machine = machine
        self._context = context
        self._device = Device(machine, context, self._heard)
        self._session = self._device.session
        self._holding = Holding(self._device)
        self._stopping = self._holding.stopping
        self._aborting = Aborting(machine.id, self._session, self._see, marlin_proof)
        self._resting = Resting(self._device, self._at_rest, lambda: self._aborting.begun)
        self._contact = Contact(machine, self._device, self._resting)
        self._running = False
        self._detached = False
        self._errs = False  # the line, so often that it was told

    @property
    def identity(self) -> Identity:
        firmware = self._device.firmware
        name, _, version = firmware.name.partition(" ")
        return Identity(name, version, firmware.machine_type, firmware.uuid, self._device.profile_name)

    @property
    def capabilities(self) -> frozenset[Capability]:
        found = {Capability.ABORT_AT_ONCE} if self._device.acts_at_once else set()
        if (profile := self._device.profile) is not None:
            if profile.firmware.keeps_line_numbers:
                found.add(Capability.DETACH)
            if profile.macro.pause and profile.macro.resume:
                found.add(Capability.PAUSE)
        return frozenset(found)

    # Connection

    async def connect(self) -> None:
        """Open the link and learn who is there. Raises `ConnectError` or `IdentityError`."""
        await self._contact.make()
        self._resting.tell()

    async def keep_looking(self) -> None:
        """Look after the connection and after what others do, for ever."""
        await self._resting.keep_looking()

    async def close(self) -> None:
        """Let go of the link; commands nothing."""
        await self._aborting.close()
        self._session.close()
        await self._stopping.close()

    async def lost(self) -> MachineError:
        return await self._session.lost()

    # Runs

    async def execute(self, run: Run, program: Program, resume: Resume | None = None) -> Outcome:
        after = _resumed_after(resume)
        if self._running:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "one run at a time")
        if self._stopping.goes_on:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "not while the printer is being stopped")
        self._session.check()
        if not after and (reason := self._device.unprotected()):
            raise NotAcceptableError("thermal protection", "not reported", reason)
        if not self._session.stream.drained:
            raise MachineError("the printer is not done with the last program; stop it first", Motion.NONE)
        self._running = True
        self._errs = False
        self._holding.begin_run()
        failure: BaseException | None = None
        try:
            try:
                total, homed_at = await asyncio.to_thread(_survey, program.path)
            except OSError as error:
                raise MachineError(f"{program.name} cannot be read: {error.strerror}", Motion.NONE) from error
            if not after and not self._stopping.is_asked and not self._detached:
                await self._resting.must_be_free()
            if not after and not self._stopping.is_asked and not self._detached:
                await self._set_modes()
            if self._stopping.is_asked:
                return await self._stopped({}, Motion.NONE)
            return await self._stream(run, program.path, total, homed_at, after)
        except asyncio.CancelledError:
            if not self._detached:
                await shielded(self._stopping.quietly(), f"stop {self._machine.id}")
            raise
        except MachineError as error:
            failure = error
            if not answers_still(self._device, error) or self._stopping.is_asked or self._aborting.begun:
                raise
            failure = await self._left_safe(error)
            raise failure from error
        finally:
            self._running = False
            self._holding.end_run(failure)
            self._resting.tell()

    async def _left_safe(self, failed: MachineError) -> MachineError:
        """No heater stays on after a run that failed at a printer that answers; the failure, and what came of that."""
        words: list[str] = []

        async def make_safe() -> None:
            words.append(await made_safe(self._device, self._stopping))

        await shielded(make_safe(), f"make {self._machine.id} safe")
        text = f"{failed}; {words[0]}"
        return NotConfirmedError(text) if isinstance(failed, NotConfirmedError) else MachineError(text)

    async def _set_modes(self) -> None:
        """Bring about what the analysis of a program takes for granted, whatever the last one left behind.

        Like a stop: numbered, so each exactly once, and proved by the counter. Nothing here moves or heats.
        """
        modes = self._device.known_profile.macro.begin
        if not modes:
            return
        self._device.wire_free.clear()
        try:
            await self._device.run(modes, MODES_BASE)
            if not self._stopping.is_asked and not self._detached:  # either cuts it
                await self._device.counted(MODES_BASE + len(modes))
        except LinkLostError:
            raise
        except MachineError as error:
            raise MachineError(f"the modes could not be set: {error}", Motion.NONE) from error
        finally:
            self._device.wire_free.set()

    async def _stream(self, run: Run, path: Path, total: int, homed_at: int, after: int) -> Outcome:
        if after:
            await recovery.look_again(self._device, run, path, after)
        keeper = Keeper(self._device, run, total, after)
        self._device.wire_free.clear()
        keeper.start()
        try:
            self._holding.begin_program()
            self._see(MachineState.EXECUTE)
            await self._send(path, total, homed_at, after, keeper)
            if self._detached:
                await keeper.leave()
                self._device.wire_free.set()
                await self._stand()
            if not self._stopping.is_asked:
                return await self._proved(path, total)
            # Not the stream's count: of a run that was held, that is the driver's own commands.
            evidence: dict[str, Json] = {"commands": min(keeper.acked, total), **self._link_evidence()}
        finally:
            self._device.wire_free.set()
            await keeper.end()
        return await self._stopped(evidence, Motion.POSSIBLE)

    async def _send(self, path: Path, total: int, homed_at: int, after: int, keeper: Keeper) -> None:
        """The program from the command behind `after` to its end, or until it is to be stopped or left standing."""
        health: LinkHealth | None = None  # as last told
        step = min(total // 1000 + 1, PROGRESS_STEP_MAX)
        due = 0

        device = self._device
        device.in_part = homed_at <= after

        def acked(number: int) -> None:
            nonlocal health, due
            device.in_part = homed_at <= number
            if number >= due or number >= total:
                self._context.emit(Progress(min(number, total), total))
                due = number + step
            stream = self._session.stream
            if health is None or stream.resends != health.resends or stream.time_outs != health.time_outs:
                health = LinkHealth(stream.resends, stream.time_outs)
                self._context.emit(health)
                if stream.distrusted:
                    self._tell_of_errors()
            keeper.note(number)
            self._holding.acknowledged()

        counted = after > 0
        compacted = self._device.known_profile.wire.takes_compact
        with closing(program_commands(path, after, compacted=compacted)) as program:
            # One iterator for the whole run: what was held goes on with the next command.
            rest = device.lines(itertools.chain(program, (FINAL,)), after)
            while not (after > total or self._stopping.is_asked or self._detached):
                if self._holding.is_asked:
                    await self._holding.hold(path, after, keeper)
                    counted = False
                else:
                    await self._session.run(rest, acked, after, counted=counted)
                    after = self._session.stream.acked
                    self._context.emit(Progress(min(after, total), total))

    def _tell_of_errors(self) -> None:
        """The line errs again and again; once for each connection."""
        if not self._errs:
            self._errs = True
            detail = "the line to it keeps erring: one command at a time is in flight now; look at the cable"
            log.warning("%s: %s", self._machine.id, detail)
            self._see(MachineState.EXECUTE, detail)

    async def _stand(self) -> None:
        """The run is left standing: nothing is sent until this is cancelled, or a stop is asked for after all."""
        lost = asyncio.create_task(self._session.lost(), name=f"stand {self._machine.id}")
        asked = asyncio.create_task(self._stopping.asked.wait(), name=f"stand {self._machine.id}, or stop")
        try:
            await asyncio.wait([lost, asked], return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.asked.is_set():
                raise lost.result()
        finally:
            for task in (lost, asked):
                task.cancel()
            await asyncio.wait([lost, asked])

    async def _proved(self, path: Path, total: int) -> Outcome:
        """All is acknowledged; SUCCEEDED is what the firmware's own counter and position say."""
        await self._device.counted(total + 1)
        position = await self._device.position()
        await self._device.look_at_heaters()  # what is hot from here on is known to be the program's
        expected = await asyncio.to_thread(standing_in, path, total)
        if wrong := misplaced(expected, position.axes_mm):
            raise MachineError(f"all {total} commands are acknowledged, but {wrong}")
        self._device.in_part = False
        evidence: dict[str, Json] = {"commands": total, **self._link_evidence(), "position_mm": dict(position.axes_mm)}
        return Outcome(OutcomeKind.SUCCEEDED, Motion.POSSIBLE, f"all {total} commands carried out", evidence)

    def _link_evidence(self) -> dict[str, Json]:
        return {"resends": self._session.stream.resends}

    async def _stopped(self, evidence: dict[str, Json], motion: Motion) -> Outcome:
        """A run ends like this when the stop that was asked for is confirmed."""
        await self._stopping.confirmed()
        return Outcome(OutcomeKind.STOPPED, motion, self._stopping.reason, evidence)

    async def recover(self, run: Run, program: Program) -> Recovery:
        if self._resting.prints:
            # It is at somebody's work by now, and a stop would be a line of ours in the middle of that.
            return Lost(f"the printer is at other work: {self._resting.prints}", same_machine=False)
        return await recovery.recover(self._device, run, program)

    async def detach(self) -> None:
        self._holding.leave()
        self._detached = True
        self._session.cut()
        await self._device.wire_free.wait()

    # Control

    async def pause(self, deadline_s: float) -> None:
        await self._holding.pause(deadline_s)

    async def resume(self, deadline_s: float) -> None:
        await self._holding.resume(deadline_s)

    async def stop(self, deadline_s: float) -> None:
        self._detached = False
        await self._stopping.stop(deadline_s)
        if self._resting.prints:
            raise NotConfirmedError(
                f"switched off, but {self._resting.prints}, which nothing from here ends but an abort"
            )

    async def abort(self) -> None:
        abort_marlin(self._aborting, self._device)

    # What is seen

    def _at_rest(self) -> bool:
        """Whether nothing of ours is carried out, so that what the printer does is what others want of it."""
        return not self._running and not self._stopping.goes_on and self._device.profile is not None

    def _heard(self, reply: Reply) -> None:
        self._resting.heard(reply)
        self._contact.heard(reply)
        match reply:
            case Temperatures(heaters=heaters):
                self._device.told_heaters(heaters)
                for name, (actual_degc, target_degc) in heaters.items():
                    self._context.emit(Temperature(name, actual_degc, target_degc))
            case Position():
                pass
            case Busy():
                self._device.busy_s = self._device.clock.mono_s()
                self._stopping.break_wait()
            case Action(text=text):
                self._context.emit(Message(text))
            case Text(text=text) if text.startswith("echo:"):
                self._context.emit(Message(text.removeprefix("echo:").strip()))
            case _:
                return
        self._holding.heard(reply)

    def _see(self, state: MachineState, detail: str = "") -> None:
        self._device.see(state, detail)


@asynccontextmanager
async def open_printer(machine: Printer, context: DriverContext) -> AsyncIterator[Driver]:
    """As `DriverPlugin.open`."""
    async with attended(GcodeDriver(machine, context), machine.id) as driver:
        yield driver


def _resumed_after(resume: Resume | None) -> int:
    """The number of the last command that the printer has taken already."""
    match resume:
        case None:
            return 0
        case At(position={"after": int(after)}):
            return after
        case _:
            raise NotAcceptableError("resume", repr(resume), "what `recover` of this driver has found")


def _survey(path: Path) -> tuple[int, int]:
    """How many commands a program has, and the number of the first after which all axes are homed."""
    homed: frozenset[str] = frozenset()
    total, homed_at = 0, NEVER
    for total, command in enumerate(program_commands(path), start=1):
        if homed_at == NEVER and (homed := homed_by(command, homed)) >= AXES:
            homed_at = total
    return total, homed_at
