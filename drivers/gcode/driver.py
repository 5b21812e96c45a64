"""The driver for one printer that speaks Marlin's G-code over a serial port or TCP.

One job from end to end: the firmware's counter is set to 0, every command of the program goes out with its number, and
when the last is acknowledged, a numbered ``M400`` waits until the machine stands still. Then the firmware is asked for
its counter: only if it equals what was sent is the run SUCCEEDED. A stop cuts the program, and sends the macros that
make the printer safe in the same way: from ``M110 N0``, numbered, with ``M400`` and the counter as the proof.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

from drivers import link, ports
from drivers.analysis import commands
from drivers.gcode import grbl_replies
from drivers.gcode import identity as firmware_identity
from drivers.gcode import profile as profiles
from drivers.gcode.config import Connection, Printer
from drivers.gcode.identity import Firmware
from drivers.gcode.memory import Memory, boot_id, recall
from drivers.gcode.profile import Profile
from drivers.gcode.replies import Action, Busy, Position, Reply, Temperatures, Text
from drivers.gcode.resume import Found, Left, Standing, doubt, misplaced, standing_after
from drivers.gcode.session import Session
from drivers.gcode.stream import PROBE_NUMBER, Wire
from edge.driver import (
    At,
    Capability,
    ConnectError,
    Driver,
    DriverContext,
    Finished,
    Identity,
    IdentityError,
    Json,
    LinkHealth,
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
    Temperature,
    shielded,
)

HANDSHAKE_S = 20.0
"""How long a printer that is not busy may take to say who it is; a bootloader alone takes 2 s."""

POLL_S = 5.0
"""How often an idle printer is asked for its temperatures; also what notices a dead connection."""

STOP_S = 120.0
"""How long a cancelled run may take to stop: the move in the queue, then 10 mm upwards."""

STALL_BUSY_INTERVALS = 3
"""Busy messages that must be missing in a row before a command counts as stalled."""

TOO_LATE = "the printer did not confirm the stop in time"

RESERVE = 4000
"""Commands that may be sent ahead of the last durable reservation: one write to the disk for so many commands."""

MACRO_BASE = 900_000_000
"""What the driver sends by itself is numbered from here: no program comes so far, so the firmware's counter alone says
that it is not the program's any more."""

BEAT_S = 1.0
"""How often a print's state goes to the host's memory."""

FINAL = "M400"
"""Sent after the program, numbered: its ``ok`` comes when all motion is done (Marlin/src/gcode/motion/M400.cpp)."""


GRBL_MET = "this is grbl ({text}), which profile = 'auto' does not try: name the profile, 'grbl' or 'grblhal'"

log = logging.getLogger("drivers.gcode")


class GcodeDriver(Driver):
    """An identified printer. Made by `open_printer`."""

    def __init__(self, machine: Printer, context: DriverContext) -> None:
        self._machine = machine
        self._context = context
        self._clock = context.clock
        self._session = Session(context, self._heard)
        self._profile: Profile | None = None
        self._profile_name = ""
        self._firmware = Firmware("")
        self._running = False
        self._busy_s = 0.0  # when the firmware last said that it was busy with what it had been told
        self._booted = False  # the firmware's boot banner came on this connection
        self._detached = False
        self._asked_to_stop = asyncio.Event()
        self._in_program = False  # motion has begun, and its end is not confirmed
        self._wire_free = asyncio.Event()  # `execute` needs the line no more
        self._wire_free.set()
        self._stopping: asyncio.Task[None] | None = None
        self._patience: asyncio.Timeout | None = None  # how long an unidentified printer may take to answer
        self._heaters: dict[str, tuple[float, float]] = {}

    @property
    def identity(self) -> Identity:
        name, _, version = self._firmware.name.partition(" ")
        return Identity(name, version, self._firmware.machine_type, self._firmware.uuid, self._profile_name)

    @property
    def capabilities(self) -> frozenset[Capability]:
        found = {Capability.ABORT_AT_ONCE} if self._firmware.has("EMERGENCY_PARSER") else set()
        if self._profile is not None and self._profile.firmware.keeps_line_numbers:
            found.add(Capability.DETACH)
        return frozenset(found)

    # Connection

    async def connect(self) -> None:
        """Open the link and learn who is there. Raises `ConnectError` or `IdentityError`."""
        wanted = self._machine.connection
        received, lost = self._session.received, self._session.link_lost
        if wanted.port is not None:
            self._session.attach(link.open_serial(ports.find(wanted.port), wanted.baud, received, lost))
        else:
            deadline_s = asyncio.get_running_loop().time() + HANDSHAKE_S
            self._session.attach(await link.open_tcp(str(wanted.url), deadline_s, received, lost))
        self._firmware = await self._introduction()
        if wanted.uuid is not None and self._firmware.uuid != wanted.uuid:
            found = self._firmware.uuid or "none"
            raise IdentityError(f"{wanted.place}: the printer's UUID is {found}, must be {wanted.uuid}")
        name, profile = profiles.fitting(self._firmware.name, self._machine.profile, self._machine.profiles_dir)
        self._profile_name, self._profile = name, profile
        log.warning("%s: profile %s was tried on: %s", self._machine.id, name, profile.tried_on)
        self._session.renew(_wire(profile, wanted))
        if self._firmware.has("AUTOREPORT_TEMP") and profile.macro.report_temperatures:
            try:
                await self._session.ask(profile.macro.report_temperatures)
            except MachineError as error:
                raise ConnectError(f"{wanted.place}: {error}") from error
        self._see(MachineState.IDLE)

    async def _introduction(self) -> Firmware:
        """The answer to M115, past a board that is just booting and one that ends what it was told before."""
        # A line end first: half a line may stand in the firmware's buffer, left there by a host that died.
        self._session.write_now(b"\n")
        place = self._machine.connection.place
        self._other_dialect = ""
        try:
            async with asyncio.timeout(HANDSHAKE_S) as self._patience:
                while True:
                    try:
                        return firmware_identity.read(await self._session.ask("M115", firmware_identity.introduces))
                    except MachineError as error:
                        if grbl_replies.is_spoken(said := str(error).rpartition(": ")[2]):
                            self._other_dialect = GRBL_MET.format(text=said)
                        if self._other_dialect:
                            raise ConnectError(f"{place}: {self._other_dialect}") from error
                        if not self._session.restarted:
                            raise ConnectError(f"{place}: {error}") from error
                        self._booted = True
                        self._session.renew(Wire())
        except TimeoutError as error:
            reason = self._other_dialect or "it does not answer M115; is its speed right?"
            raise ConnectError(f"{place}: {reason}") from error
        finally:
            self._patience = None

    async def keep_looking(self) -> None:
        """Ask an idle printer for its temperatures, for ever. A silent one fails the session."""
        while self._session.failure is None:
            await asyncio.sleep(POLL_S)
            if self._session.stream.idle:
                try:
                    await self._session.ask("M105", _is_temperatures)
                except MachineError:
                    return  # latched in the session; `lost` tells it

    async def close(self) -> None:
        """Let go of the link; commands nothing."""
        self._session.close()
        if self._stopping is not None:
            await asyncio.wait([self._stopping])

    async def lost(self) -> MachineError:
        return await self._session.lost()

    # Runs

    async def execute(self, run: Run, program: Program, resume: Resume | None = None) -> Outcome:
        after = _resumed_after(resume)
        if self._running:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "one run at a time")
        if self._stopping is not None and not self._stopping.done():
            raise NotAcceptableError(f"run {run.run_id}", "asked", "not while the printer is being stopped")
        self._session.check()
        if not self._session.stream.drained:
            raise MachineError("the printer is not done with the last program; stop it first", Motion.NONE)
        self._running = True
        self._stopping = None
        self._asked_to_stop.clear()
        try:
            try:
                total = await asyncio.to_thread(_count, program.path)
            except OSError as error:
                raise MachineError(f"{program.name} cannot be read: {error.strerror}", Motion.NONE) from error
            if self._stop_is_asked():
                return await self._stopped({}, Motion.NONE)
            return await self._stream(run, program.path, total, after)
        except asyncio.CancelledError:
            if not self._detached:
                await shielded(self._stop_quietly(), f"stop {self._machine.id}")
            raise
        finally:
            self._running = False
            self._see(MachineState.ABORTED if self._session.failure else MachineState.IDLE)

    async def _stream(self, run: Run, path: Path, total: int, after: int) -> Outcome:
        if after:
            await self._look_again(run, path, after)
        left = Left(0, after, total, boot_id(), self._firmware.uuid, self._clock.mono_s(), dict(self._heaters))
        memory = Memory(self._context, run, left)
        short = asyncio.Event()  # of commands that may be sent
        if after:
            short.set()

        health: LinkHealth | None = None  # as last told

        def acked(number: int) -> None:
            nonlocal health
            self._context.emit(Progress(min(number, total), total))
            stream = self._session.stream
            if health is None or (stream.resends, stream.time_outs) != (health.resends, health.time_outs):
                health = LinkHealth(stream.resends, stream.time_outs)
                self._context.emit(health)
            if number >= memory.reserved - RESERVE // 2:
                short.set()

        self._wire_free.clear()
        self._session.stream.allow(after)  # until the counter is ours, and a reservation is durable
        keeping = asyncio.create_task(self._keep(memory, short), name=f"remember {run.run_id}")
        keeping.add_done_callback(self._kept)
        try:
            self._in_program = True
            self._see(MachineState.EXECUTE)
            if not self._stop_is_asked() and not self._detached:
                with closing(_commands(path)) as program:
                    rest = itertools.islice(itertools.chain(program, (FINAL,)), after, None)
                    await self._session.run(rest, acked, after, counted=after > 0)
            if self._detached:
                self._beat(memory)
                self._wire_free.set()
                await self._stand()
            if not self._stop_is_asked():
                return await self._proved(path, total)
            evidence: dict[str, Json] = {"commands": self._session.stream.acked, **self._link_evidence()}
        finally:
            self._wire_free.set()
            self._session.stream.allow(PROBE_NUMBER)
            keeping.cancel()
            await asyncio.wait([keeping])
        return await self._stopped(evidence, Motion.POSSIBLE)

    async def _stand(self) -> None:
        """The run is left standing: nothing is sent until this is cancelled, or a stop is asked for after all."""
        lost = asyncio.create_task(self._session.lost(), name=f"stand {self._machine.id}")
        asked = asyncio.create_task(self._asked_to_stop.wait(), name=f"stand {self._machine.id}, or stop")
        try:
            await asyncio.wait([lost, asked], return_when=asyncio.FIRST_COMPLETED)
            if not self._asked_to_stop.is_set():
                raise lost.result()
        finally:
            for task in (lost, asked):
                task.cancel()
            await asyncio.wait([lost, asked])

    async def _look_again(self, run: Run, path: Path, after: int) -> None:
        """Between `recover` and now anything may have happened: all that was proven must still be so."""
        left = recall(self._context, run)
        if not isinstance(left, Left):
            raise NotConfirmedError("nothing proves any more where the print stands")
        counted, reason = await self._doubt(left, path)
        if reason or counted != after:
            raise NotConfirmedError(f"the print cannot go on: {reason or f'the printer counts line {counted} now'}")

    async def _proved(self, path: Path, total: int) -> Outcome:
        """All is acknowledged; SUCCEEDED is what the firmware's own counter and position say."""
        await self._counted(total + 1)
        position = await self._position()
        expected = await asyncio.to_thread(_standing_after, path, total)
        if wrong := misplaced(expected, position.axes_mm):
            raise MachineError(f"all {total} commands are acknowledged, but {wrong}")
        self._in_program = False
        evidence: dict[str, Json] = {"commands": total, **self._link_evidence(), "position_mm": dict(position.axes_mm)}
        return Outcome(OutcomeKind.SUCCEEDED, Motion.POSSIBLE, f"all {total} commands carried out", evidence)

    def _link_evidence(self) -> dict[str, Json]:
        return {"resends": self._session.stream.resends}

    def _stop_is_asked(self) -> bool:
        return self._stopping is not None

    async def _stopped(self, evidence: dict[str, Json], motion: Motion) -> Outcome:
        """A run ends like this when the stop that was asked for is confirmed."""
        assert self._stopping is not None
        await asyncio.shield(self._stopping)
        return Outcome(OutcomeKind.STOPPED, motion, "stopped on request", evidence)

    async def _counted(self, expected: int) -> None:
        """The proof that all lines were taken, and no other: the firmware's own counter, if it keeps one."""
        if not self._known_profile().firmware.keeps_line_numbers:
            return
        counted = await self._session.probe()
        if counted != expected:
            raise MachineError(f"the firmware counted {counted} lines, {expected} were sent")

    async def _position(self) -> Position:
        replies = await self._session.ask("M114", _is_position)
        return next(reply for reply in reversed(replies) if isinstance(reply, Position))

    async def _reserve(self, memory: Memory, acked: int) -> None:
        """Let the program go on, once it is durable how far it may have come."""
        number = max(memory.reserved, acked) + RESERVE
        await memory.reserve(number, acked, self._heaters)
        self._session.stream.allow(number)

    async def _keep(self, memory: Memory, short: asyncio.Event) -> None:
        """Write down every second where the print stands, and reserve more before it runs short."""
        while True:
            self._beat(memory)
            try:
                async with asyncio.timeout(BEAT_S):
                    await short.wait()
            except TimeoutError:
                continue
            short.clear()
            await self._reserve(memory, self._session.stream.acked)
            self._session.go_on()

    def _beat(self, memory: Memory) -> None:
        try:
            memory.beat(self._session.stream.acked, self._heaters)
        except OSError as error:
            # Without a heartbeat a print cannot go on after a crash; that is no reason to end it now.
            self._context.emit(Message(f"where the print stands cannot be written down: {error}"))

    def _kept(self, keeping: asyncio.Task[None]) -> None:
        """Without a durable reservation not one more command may go out."""
        if not keeping.cancelled() and (error := keeping.exception()) is not None:
            self._session.fail(NotConfirmedError(f"how far the print may come cannot be written down: {error}"))

    async def recover(self, run: Run, program: Program) -> Recovery:
        left = recall(self._context, run)
        if isinstance(left, str):
            return Lost(f"the daemon ended in mid-print, when {left}")
        if left is None:
            reason = "the daemon ended before the first command was sent"
            return Finished(Outcome(OutcomeKind.FAILED, Motion.NONE, reason))
        if not self._known_profile().firmware.keeps_line_numbers:
            return Lost("the daemon ended in mid-print, and this firmware cannot be asked how far it came")
        if left.serial != self._firmware.uuid:
            return Lost("the daemon ended in mid-print, and another printer is there now", same_machine=False)
        try:
            counted, reason = await self._doubt(left, program.path)
        except MachineError as error:
            reason = f"the printer could not be asked how far it came: {error}"
        if reason:
            return Lost(f"the daemon ended in mid-print, and the print cannot go on: {reason}")
        self._in_program = True
        return At({"after": counted}, f"the printer stands after command {counted} of {left.total}")

    async def _doubt(self, left: Left, path: Path) -> tuple[int, str]:
        """The firmware's counter, and why the print must not go on from there; empty if it may."""
        counted = await self._session.probe()
        position = await self._position()
        await self._session.ask("M105", _is_temperatures)
        found = Found(
            boot_id=boot_id(),
            serial=self._firmware.uuid,
            restarted=self._booted,
            counted=counted,
            at_mono_s=self._clock.mono_s(),
            heaters=dict(self._heaters),
            position_mm=position.axes_mm,
        )
        expected = await asyncio.to_thread(_standing_after, path, min(counted, left.total))
        # While the firmware is busy with what it had been told, the print does not stand still.
        stood = replace(left, at_mono_s=max(left.at_mono_s, self._busy_s))
        return counted, doubt(stood, found, self._known_profile().firmware.resume_gap_max_s, expected)

    async def detach(self) -> None:
        self._detached = True
        self._session.cut()
        await self._wire_free.wait()

    async def stop(self, deadline_s: float) -> None:
        self._detached = False
        self._asked_to_stop.set()
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

    async def _stop_quietly(self) -> None:
        """Stop for a caller that is being cancelled: it cannot take an answer, so what happened goes to people."""
        try:
            await self.stop(self._clock.mono_s() + STOP_S)
        except MachineError as error:
            self._context.emit(Message(f"not stopped: {error}"))

    async def _stop(self, deadline_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                await self._make_safe()
        except TimeoutError as error:
            raise NotConfirmedError(TOO_LATE) from error
        except MachineError as error:
            raise NotConfirmedError(f"the printer did not confirm the stop: {error}") from error
        if hot := [name for name, (_, target_degc) in self._heaters.items() if target_degc > 0]:
            raise NotConfirmedError(f"the printer still heats {', '.join(hot)} after the stop")

    async def _make_safe(self) -> None:
        """End the program where it is, then carry out the macros like a program: numbered, so each exactly once."""
        macro = self._known_profile().macro
        self._session.cut()
        if not self._session.stream.idle and macro.break_wait and self._firmware.has("EMERGENCY_PARSER"):
            self._session.interject(macro.break_wait)
        await self._wire_free.wait()
        await self._session.settle()
        commands = (*macro.make_safe, *(macro.park if self._in_program else ()), FINAL)
        await self._session.run(iter(commands), lambda number: None, MACRO_BASE)
        await self._counted(MACRO_BASE + len(commands))
        self._in_program = False
        await self._session.ask("M105", _is_temperatures)

    async def abort(self) -> None:
        profile = self._known_profile()
        self._session.write_now(profile.macro.abort.encode("ascii") + b"\n")
        self._session.fail(MachineError(f"aborted with {profile.macro.abort}; the printer needs a reset by hand"))
        self._see(MachineState.ABORTED)

    # What is seen

    def _heard(self, reply: Reply) -> None:
        match reply:
            case Temperatures(heaters=heaters):
                self._heaters.update(heaters)
                for name, (actual_degc, target_degc) in heaters.items():
                    self._context.emit(Temperature(name, actual_degc, target_degc))
            case Busy(what=what):
                self._busy_s = self._clock.mono_s()
                if self._patience is not None and not self._patience.expired():
                    self._patience.reschedule(asyncio.get_running_loop().time() + HANDSHAKE_S)
                if what.startswith("paused"):
                    self._see(MachineState.HELD, what)
            case Action(text=text):
                self._context.emit(Message(text))
            case Text(text=text) if self._patience is not None and grbl_replies.is_spoken(text):
                self._other_dialect = GRBL_MET.format(text=text)
                self._session.fail(ConnectError(self._other_dialect))
            case Text(text=text) if text.startswith("echo:"):
                self._context.emit(Message(text.removeprefix("echo:").strip()))
            case _:
                pass

    def _see(self, state: MachineState, detail: str = "") -> None:
        self._context.emit(StateSeen(state, detail))

    def _known_profile(self) -> Profile:
        if self._profile is None:
            raise ConnectError(f"{self._machine.connection.place} is not identified yet")
        return self._profile


@asynccontextmanager
async def open_printer(machine: Printer, context: DriverContext) -> AsyncIterator[Driver]:
    """Connect, identify, and look after the connection until the block is left. Leaving commands nothing."""
    driver = GcodeDriver(machine, context)
    try:
        await driver.connect()
        looking = asyncio.create_task(driver.keep_looking(), name=f"look at {machine.id}")
        try:
            yield driver
        finally:
            looking.cancel()
            await asyncio.wait([looking])
    finally:
        await driver.close()


def _wire(profile: Profile, connection: Connection) -> Wire:
    wire = profile.wire
    safe = connection.url is not None or wire.proven_window
    full = connection.window == "full" or (connection.window == "auto" and safe)
    return Wire(
        # One byte of a ring buffer stays free (Marlin/src/HAL/AVR/MarlinSerial.cpp).
        window_bytes=wire.rx_buffer_bytes - 1 if full else 0,
        stall_s=wire.busy_interval_s * STALL_BUSY_INTERVALS or wire.silence_s,
        silence_s=wire.silence_s,
        counts=profile.firmware.keeps_line_numbers,
        harmless=frozenset(profile.program.harmless_if_unknown),
    )


def _commands(path: Path) -> Generator[str, None, None]:
    # Comments may hold any bytes; `check` has made sure that commands are ASCII.
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from commands(file)


def _resumed_after(resume: Resume | None) -> int:
    """The number of the last command that the printer has taken already."""
    match resume:
        case None:
            return 0
        case At(position={"after": int(after)}):
            return after
        case _:
            raise NotAcceptableError("resume", repr(resume), "what `recover` of this driver has found")


def _standing_after(path: Path, count: int) -> Standing:
    """What the first `count` commands of a program bring about."""
    with closing(_commands(path)) as program:
        return standing_after(program, count)


def _look_at(stopping: asyncio.Task[None]) -> None:
    """The failure of a stop is seen, even if whoever asked for it was cancelled meanwhile."""
    if not stopping.cancelled():
        stopping.exception()


def _count(path: Path) -> int:
    return sum(1 for _ in _commands(path))


def _is_temperatures(reply: Reply) -> bool:
    return isinstance(reply, Temperatures)


def _is_position(reply: Reply) -> bool:
    return isinstance(reply, Position)
