"""The robot and its cell: programs that move parts from station to station, in simulated time. No clock, no I/O.

A program is text, one instruction a line: `move STATION`, `pick STATION`, `place STATION`, `wait SECONDS`,
`payload KG`; `#` begins a comment. What it does to parts it does at the end of the instruction. Picking where nothing
is, or placing where something is, is an error of the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

MOVE_S, GRIP_S = 4.0, 1.5
STATIONS = ("magazine", "printer", "mill", "tray")
MAX_PAYLOAD_KG = 5.0
HOME = "home"
READY_S = 3.0
"""Until motors and brakes are ready after GetReady."""
STOPPING_S = 0.5
AXES_DEG = {
    HOME: (0.0, -90.0, 90.0, 0.0, 90.0, 0.0),
    "magazine": (60.0, -60.0, 80.0, 10.0, 80.0, 0.0),
    "printer": (20.0, -50.0, 70.0, 0.0, 90.0, 15.0),
    "mill": (-40.0, -55.0, 75.0, 0.0, 85.0, -30.0),
    "tray": (-90.0, -60.0, 85.0, -10.0, 80.0, 0.0),
}
"""Where the six axes stand at each station."""
BUILT_IN = {
    "tend-printer": "move printer\npick printer\npayload 0.8\nmove tray\nplace tray\npayload 0\nmove home\n",
    "printer-to-mill": "move printer\npick printer\npayload 0.8\nmove mill\nplace mill\npayload 0\nmove home\n",
    "load-mill": "move magazine\npick magazine\npayload 1.2\nmove mill\nplace mill\npayload 0\nmove home\n",
    "unload-mill": "move mill\npick mill\npayload 1.0\nmove tray\nplace tray\npayload 0\nmove home\n",
    "wait": "wait 60\n",
}

Record = Callable[[float, str, str], None]
"""Called with simulated seconds, the line's number or `!`, and the instruction or what happened."""


class State(IntEnum):
    """OperationStateMachineType's numbers (OPC 40010-1, 1.02)."""

    IDLE = 1
    READY = 2
    EXECUTING = 3


class Reason(IntEnum):
    """LastTransitionReason."""

    UNKNOWN = 0
    EXTERNAL = 1
    DIRECT = 2
    SYSTEM = 3
    ERROR = 4
    APPLICATION = 5


class CellError(ValueError):
    """A program that cannot be read; the text says where."""


@dataclass(frozen=True)
class Instruction:
    """One line of a program."""

    line: int
    text: str
    verb: str
    where: str = ""
    amount: float = 0.0


def parse(text: str) -> tuple[Instruction, ...]:
    """A program. Raises `CellError`."""
    found: list[Instruction] = []
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        match words:
            case [("move" | "pick" | "place") as verb, where] if where in AXES_DEG and (
                verb == "move" or where in STATIONS
            ):
                found.append(Instruction(number, raw.strip(), verb, where))
            case [("wait" | "payload") as verb, amount] if _is_number(amount):
                found.append(Instruction(number, raw.strip(), verb, amount=float(amount)))
            case _:
                raise CellError(f"line {number}: {raw.strip()!r} is no instruction")
    if not found:
        raise CellError("the program is empty")
    return tuple(found)


def _is_number(text: str) -> bool:
    try:
        return 0.0 <= float(text) < math.inf
    except ValueError:
        return False


class Cell:
    """Robot, stations, and the program that is loaded. Refused requests return False and change nothing."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.stations: dict[str, str] = dict.fromkeys(STATIONS, "")
        """What is there; empty if nothing is."""
        self.override = 100.0
        self._at_s = 0.0
        self.power_up()
        self.stations["magazine"] = "blank-1"

    def power_up(self) -> None:
        """Motors off, no program; parts stay where they are."""
        self.system = State.IDLE
        self.task = State.IDLE
        self.reason = Reason.UNKNOWN
        self.getting_ready = False
        self.program = ""
        self.error = ""
        self.gripper = ""
        self.payload_kg = 0.0
        self.place = HOME
        self.runs = 0
        """Programs that have come to their end."""
        self.stopped_midway = False
        self._ready_at_s = math.inf
        self._stop_at_s = math.inf
        self._instructions: tuple[Instruction, ...] = ()
        self._next = 0
        self._done_s = 0.0
        self._from = HOME

    # -- requests

    def get_ready(self, now_s: float) -> bool:
        """Motors on and brakes open, after a while."""
        self.advance(now_s)
        if self.system is not State.IDLE or self.getting_ready:
            return False
        self.getting_ready = True
        self._ready_at_s = self._at_s + READY_S
        return True

    def stand_down(self, now_s: float) -> bool:
        """Motors off."""
        self.advance(now_s)
        if self.system is not State.READY or self.task is State.EXECUTING:
            return False
        self._system(State.IDLE, Reason.EXTERNAL)
        return True

    def load(self, name: str, text: str, now_s: float) -> bool:
        """Raises `CellError`."""
        self.advance(now_s)
        if self.task is not State.IDLE:
            return False
        self._instructions = parse(text)
        self.program = name
        self._rewind()
        self._task(State.READY, Reason.EXTERNAL)
        return True

    def unload(self, now_s: float) -> bool:
        """Forget the program."""
        self.advance(now_s)
        if self.task is not State.READY:
            return False
        self.program, self._instructions = "", ()
        self._rewind()
        self._task(State.IDLE, Reason.EXTERNAL)
        return True

    def start(self, now_s: float, reason: Reason = Reason.EXTERNAL) -> bool:
        """Run from where it stands."""
        self.advance(now_s)
        if self.task is not State.READY or self.system is not State.READY:
            return False
        self._record(self._at_s, "!", f"{'resume' if self.stopped_midway else 'start'} {self.program}")
        self.error, self.stopped_midway = "", False
        self._task(State.EXECUTING, reason)
        self._system(State.EXECUTING, reason)
        self.advance(now_s)
        return True

    def stop(self, now_s: float, reason: Reason = Reason.EXTERNAL, *, at_once: bool = False) -> bool:
        """Come to a halt on the path."""
        self.advance(now_s)
        if self.task is not State.EXECUTING or self._stop_at_s < math.inf:
            return False
        self.reason = reason
        self._stop_at_s = self._at_s + (0.0 if at_once else STOPPING_S)
        self.advance(now_s)
        return True

    def reset(self, now_s: float) -> bool:
        """Back to the program's start."""
        self.advance(now_s)
        if self.task is not State.READY or not self.stopped_midway:
            return False
        self._rewind()
        return True

    def halt(self, now_s: float, why: str) -> None:
        """A safety function: stands at once, motors off; the program stays loaded where it is."""
        self.advance(now_s)
        if self.task is State.EXECUTING:
            self._stop_at_s = math.inf
            self.stopped_midway = True
            self._task(State.READY, Reason.SYSTEM)
        self.getting_ready, self._ready_at_s = False, math.inf
        if self.system is not State.IDLE:
            self._system(State.IDLE, Reason.SYSTEM)
        self._record(self._at_s, "!", why)

    @property
    def stopping(self) -> bool:
        """Between Stop and standstill."""
        return self._stop_at_s < math.inf

    # -- time

    def advance(self, now_s: float) -> None:
        """Let time pass."""
        if self._ready_at_s <= now_s:
            self._at_s = max(self._at_s, self._ready_at_s)
            self._ready_at_s, self.getting_ready = math.inf, False
            self._system(State.READY, Reason.EXTERNAL)
        while self.task is State.EXECUTING:
            doing = self._instructions[self._next]
            rest_s = max(0.0, self._duration_s(doing) - self._done_s)
            until_s = min(now_s, self._stop_at_s)
            if self._at_s + rest_s > until_s:
                self._done_s += max(0.0, until_s - self._at_s)
                self._at_s = max(self._at_s, until_s)
                if self._stop_at_s > now_s:
                    break
                self._stopped()
                continue
            self._at_s += rest_s
            self._finish(doing)
        self._at_s = max(self._at_s, now_s)

    def axes_deg(self) -> tuple[float, ...]:
        """Where the axes are."""
        if self._instructions and self._next < len(self._instructions):
            doing = self._instructions[self._next]
            if doing.verb == "move":
                share = min(1.0, self._done_s / self._duration_s(doing))
                pairs = zip(AXES_DEG[self._from], AXES_DEG[doing.where], strict=True)
                return tuple(a + (b - a) * share for a, b in pairs)
        return AXES_DEG[self.place]

    def _duration_s(self, doing: Instruction) -> float:
        match doing.verb:
            case "move":
                return MOVE_S * 100.0 / max(self.override, 1.0)
            case "wait":
                return doing.amount
            case "payload":
                return 0.0
            case _:
                return GRIP_S

    def _finish(self, doing: Instruction) -> None:
        self._record(self._at_s, str(doing.line), doing.text)
        error = self._do(doing)
        self._next += 1
        self._done_s = 0.0
        if error:
            self.error = f"line {doing.line}: {error}"
            self._record(self._at_s, "!", self.error)
            self.stopped_midway = True
            self._end(Reason.ERROR)
        elif self._next == len(self._instructions):
            self.runs += 1
            self._record(self._at_s, "!", f"end {self.program}")
            self._rewind()
            self._end(Reason.APPLICATION)

    def _do(self, doing: Instruction) -> str:
        match doing.verb:
            case "move":
                self.place = self._from = doing.where
            case "pick":
                if self.place != doing.where or self.gripper or not self.stations[doing.where]:
                    return f"nothing to pick at {doing.where}"
                self.gripper, self.stations[doing.where] = self.stations[doing.where], ""
            case "place":
                if self.place != doing.where or not self.gripper or self.stations[doing.where]:
                    return f"cannot place at {doing.where}"
                self.stations[doing.where], self.gripper = self.gripper, ""
            case "payload":
                if doing.amount > MAX_PAYLOAD_KG:
                    return f"{doing.amount:g} kg is more than {MAX_PAYLOAD_KG:g} kg"
                self.payload_kg = doing.amount
            case _:
                pass  # waiting is all that `wait` does
        return ""

    def _stopped(self) -> None:
        self._record(self._at_s, "!", f"stop {self.program}")
        self.stopped_midway = True
        self._end(self.reason)

    def _end(self, reason: Reason) -> None:
        self._stop_at_s = math.inf
        self._task(State.READY, reason)
        self._system(State.READY, reason)

    def _rewind(self) -> None:
        self._next, self._done_s, self.stopped_midway = 0, 0.0, False
        self._from = self.place

    def _task(self, state: State, reason: Reason) -> None:
        self.task, self.reason = state, reason

    def _system(self, state: State, reason: Reason) -> None:
        self.system, self.reason = state, reason
