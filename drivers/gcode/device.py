"""What all parts of the driver share: one printer, the line to it, and what it last said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from drivers.analysis import commands
from drivers.gcode.compact import compact
from drivers.gcode.config import Printer
from drivers.gcode.events import Silent, Speaks
from drivers.gcode.framing import Outgoing, Wire, program_lines
from drivers.gcode.identity import Firmware
from drivers.gcode.profile import Profile
from drivers.gcode.replies import Position, Reply, Temperatures
from drivers.gcode.resume import Standing, standing_after
from drivers.gcode.session import Session
from edge.driver import ConnectError, DriverContext, MachineError, MachineState, Message, StateSeen

STALL_BUSY_INTERVALS = 3
"""Busy messages that must be missing in a row before a command counts as stalled."""

ALWAYS_SO = frozenset({"G17", "G21"})
"""The plane XY and millimetres: a firmware that does not know how to choose them has nothing else."""

BLOCK_CHARS = 4096
"""How much of a program is read in one go: about half a millisecond's work, so that nothing else has to wait."""


class Device:
    """One printer. `heard` is called with all that it says beside answers."""

    def __init__(self, machine: Printer, context: DriverContext, heard: Callable[[Reply], None]) -> None:
        self.machine = machine
        self.context = context
        self.clock = context.clock
        self.session = Session(context, heard)
        self.session.on_silence = self.tell_silence
        self.profile: Profile | None = None
        self.profile_name = ""
        self.firmware = Firmware("")
        self.heaters: dict[str, tuple[float, float]] = {}  # name -> (actual, target) in degC
        self.reports = 0  # how often it has told them
        self.busy_s = 0.0  # when the firmware last said that it was busy with what it had been told
        self.booted = False  # the firmware's boot banner came on this connection
        self.in_part = False  # the program has homed all axes, and its end is not confirmed: a stop lifts the nozzle
        self.seen = StateSeen(MachineState.OFFLINE)  # as told last
        self.wire_free = asyncio.Event()  # `execute` needs the line no more
        self.wire_free.set()

    @property
    def known_profile(self) -> Profile:
        """Raises `ConnectError` before the printer has said who it is."""
        if self.profile is None:
            raise ConnectError(f"{self.machine.connection.place} is not identified yet")
        return self.profile

    @property
    def acts_at_once(self) -> bool:
        """Whether the firmware looks for M108, M112, M410 and M876 in what arrives, past its queue."""
        otherwise = self.profile is not None and self.profile.firmware.emergency_parser
        return self.firmware.caps.get("EMERGENCY_PARSER", otherwise)

    def unprotected(self) -> str:
        """Why no print may be started here, in words; empty if one may."""
        table = self.known_profile.firmware
        reported = table.thermal_protection == "reported" and self.firmware.has(table.thermal_protection_cap)
        if reported or table.thermal_protection == "built-in" or self.machine.connection.unprotected_heaters:
            return ""
        return (
            "the firmware does not say that it switches off a heater that runs away; build it with thermal protection,"
            ' or write "unprotected_heaters = true" in its connection table and stay with it'
        )

    def see(self, state: MachineState, detail: str = "") -> None:
        """Tell the machine's state."""
        self.seen = StateSeen(state, detail)
        self.context.emit(self.seen)

    def tell_silence(self, event: Silent | Speaks) -> None:
        """What the state is while the printer says nothing though it should, and afterwards again what it was."""
        match event:
            case Silent(for_s=for_s):
                detail = f"it has said nothing for {for_s:.0f} s; it is asked whether it is still there"
                # A state that names what a run waits for keeps its words: they go into the journal.
                if self.seen.state is MachineState.EXECUTE:
                    self.context.emit(StateSeen(MachineState.EXECUTE, detail))
                elif self.seen.state is MachineState.IDLE:
                    self.context.emit(StateSeen(MachineState.STOPPED, detail))
            case Speaks(after_s=after_s):
                self.context.emit(Message(f"it said nothing for {after_s:.0f} s, and speaks again"))
                self.context.emit(self.seen)

    def lines(self, commands: Iterable[str], after: int) -> Iterator[Outgoing]:
        """`commands` as they go out to this firmware, numbered behind `after`."""
        return program_lines(commands, after, compact=self.known_profile.wire.takes_compact)

    async def run(self, macro: Iterable[str], after: int, *, counted: bool = False) -> None:
        """Commands of the driver's own, numbered behind `after`, until they are acknowledged. Raises `MachineError`."""
        await self.session.run(self.lines(macro, after), lambda number: None, after, counted=counted)

    async def counted(self, expected: int) -> None:
        """The proof that all lines were taken, and no other: the firmware's own counter, if it keeps one.

        Raises `MachineError`.
        """
        if not self.known_profile.firmware.keeps_line_numbers:
            return
        counted = await self.session.probe()
        if counted != expected:
            raise MachineError(f"the firmware counted {counted} lines, {expected} were sent")

    async def position(self) -> Position:
        """Where it will stand when all it was told is done. Raises `MachineError`."""
        replies = await self.session.ask("M114", _is_position)
        return next(reply for reply in reversed(replies) if isinstance(reply, Position))

    async def look_at_heaters(self) -> None:
        """Ask for the temperatures; they are in `heaters` then. Raises `MachineError`."""
        await self.session.ask("M105", _is_temperatures)

    def told_heaters(self, heaters: Mapping[str, tuple[float, float]]) -> None:
        """It has told its temperatures, asked or not."""
        self.heaters.update(heaters)
        self.reports += 1


def program_commands(path: Path, after: int = 0, *, compacted: bool = False) -> Generator[str, None, None]:
    """The commands of a program behind the first `after`, in order; with `compacted`, moves in their shortest form."""
    # Comments may hold any bytes; `check` has made sure that commands are ASCII.
    with path.open(encoding="utf-8", errors="replace") as file:
        # Many lines in one go cost less than one each time that there is room for it on the wire.
        while lines := file.readlines(BLOCK_CHARS):
            found = list(commands(lines))
            found, after = found[after:], max(0, after - len(found))
            yield from [compact(command) for command in found] if compacted else found


def standing_in(path: Path, count: int) -> Standing:
    """What the first `count` commands of a program bring about. Reads the file: for a thread."""
    with closing(program_commands(path)) as program:
        return standing_after(program, count)


def _is_temperatures(reply: Reply) -> bool:
    return isinstance(reply, Temperatures)


def _is_position(reply: Reply) -> bool:
    return isinstance(reply, Position)


def wire_of(profile: Profile, window_bytes: int) -> Wire:
    """How a connection to a firmware of this profile is used."""
    wire = profile.wire
    return Wire(
        window_bytes=window_bytes,
        stall_s=wire.busy_interval_s * STALL_BUSY_INTERVALS or wire.silence_s,
        silence_s=wire.silence_s,
        counts=profile.firmware.keeps_line_numbers,
        harmless=frozenset(profile.program.harmless_if_unknown) | ALWAYS_SO,
    )
