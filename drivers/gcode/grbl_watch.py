"""What a controller's reports mean: where it stands, what it does, and whether work can begin."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from drivers.gcode.grbl_replies import Status
from edge.driver import MachineState, StateSeen

Place = tuple[float, float, float]
"""X, Y, Z in mm."""

HELD = ("Hold", "Door", "Tool")
"""States in which the controller waits for somebody, or is on its way there."""

RELEASE_NEVER = "255"
"""The value of ``$1`` that keeps the motors on (grbl/stepper.c)."""

_MM_PER_INCH = 25.4
_LOCKED = "needs homing ($H), or unlocking ($X) by somebody who knows why it is locked, at the machine"
_MOVES = {"Run": "moves", "Home": "homes", "Jog": "is jogged"}


class Phase(enum.Enum):
    """Whether motion is this driver's."""

    NONE = enum.auto()
    RUN = enum.auto()  # a run has begun, and its program does not go out
    PROGRAM = enum.auto()


class Watch:
    """The latest that is known of one controller. `homes`: each program homes it, no person has to."""

    def __init__(self, *, homes: bool) -> None:
        self.homes = homes
        self.settings: Mapping[str, str] = {}  # by number
        self.status: Status | None = None
        self.offset_mm: Place | None = None  # of the work zero, as reports tell it
        self.homed: bool | None = None  # None where the controller does not say
        self.alarm = ""  # what locked it, in words

    def use(self, settings: Mapping[str, str]) -> None:
        """Read reports with these settings; what was heard before was read without knowing their unit."""
        self.settings = settings
        self.offset_mm = None

    def heard(self, status: Status) -> None:
        """Keep what a report says beside the state: most fields are not in each one."""
        self.status = status
        if (offset_mm := self._mm(status.numbers("WCO"))) is not None:
            self.offset_mm = offset_mm
        if homed := status.numbers("H"):
            self.homed = homed[0] != 0.0

    @property
    def unit_mm(self) -> float:
        """What reports count in: ``$13``."""
        return _MM_PER_INCH if self.settings.get("13") == "1" else 1.0

    def position_mm(self, status: Status) -> Place | None:
        """In machine coordinates; None where only work coordinates are told, and not yet how far they are off."""
        machine, work = self._mm(status.numbers("MPos")), self._mm(status.numbers("WPos"))
        if machine is None and work is not None and self.offset_mm is not None:
            shift = self.offset_mm
            return work[0] + shift[0], work[1] + shift[1], work[2] + shift[2]
        return machine

    def _mm(self, numbers: tuple[float, ...]) -> Place | None:
        xyz = three(numbers)
        return None if xyz is None else (xyz[0] * self.unit_mm, xyz[1] * self.unit_mm, xyz[2] * self.unit_mm)

    def seen(self, status: Status, phase: Phase, prompt: str) -> StateSeen:
        """In the words of edge. `prompt`: what the program says to people where it waits; empty if it does not."""
        if status.state in HELD and (status.still or status.state == "Tool"):
            return StateSeen(MachineState.HELD, self._why_held(status, prompt))
        if status.state in _MOVES or status.state in HELD:
            ours = phase is not Phase.NONE and status.state != "Jog"
            words = _MOVES.get(status.state, "comes to a hold")
            return StateSeen(MachineState.EXECUTE, "" if ours else f"{words}, and not by an order")
        if status.state == "Idle" and phase is Phase.PROGRAM:
            return StateSeen(MachineState.EXECUTE)
        reason = self.not_startable(status)
        return StateSeen(MachineState.STOPPED if reason else MachineState.IDLE, reason)

    def not_startable(self, status: Status) -> str:
        """Why no work can begin, in words; empty if it can."""
        match status.state:
            case "Alarm":
                because = f" ({self.alarm})" if self.alarm else ""
                return "" if self.homes else f"locked by an alarm{because}: {_LOCKED}"
            case "Idle" if self.homed is False and not self.homes and self._homing_is_on:
                return "not homed since it was switched on: needs homing ($H) at the machine"
            case "Idle":
                return ""
            case "Check":
                return "in check mode, in which nothing moves: needs a reset at the machine"
            case _:
                return f"it says {status.state}"

    @property
    def _homing_is_on(self) -> bool:
        """``$22`` is a switch, and in grblHAL a set of bits whose lowest it is (grblHAL/core settings.h)."""
        setting = self.settings.get("22", "")
        return setting.isdigit() and int(setting) & 1 == 1

    def _why_held(self, status: Status, prompt: str) -> str:
        if status.state == "Door":
            return "the safety door is open" if status.detail == 1 else "the safety door was opened"
        released = self.settings.get("1", RELEASE_NEVER)
        free = "" if released == RELEASE_NEVER else f"; its motors are released after {released} ms ($1)"
        return f"{f'the program waits: {prompt}' if prompt else 'held'}{free}"


def three(numbers: tuple[float, ...]) -> Place | None:
    """Of the axes that there are the first three; None where there are fewer."""
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) >= 3 else None
