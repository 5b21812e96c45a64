"""The mill itself: carries out a program in simulated time. No clock, no I/O: `now_s` is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from hil_sim.cnc.action import Action, Position, ProgramError
from hil_sim.cnc.program import HOME, Interpreter

TOOL_LENGTHS_MM = {1: 80.0, 2: 75.0, 3: 90.0, 4: 60.0, 5: 65.0, 6: 70.0}
TOOL_LIFE_MIN = 60.0
IDLE_LOAD, CUTTING_LOAD, FULL_LOAD_MM_PER_MIN = 5.0, 70.0, 3000.0
"""Spindle load in per cent: turning in air, cutting at `FULL_LOAD_MM_PER_MIN`."""

MAX_ACTIONS = 1000
"""In one look at the machine: about 20 ms of computing."""

Record = Callable[[float, str, str], None]
"""Called with simulated seconds, the line's number or `!`, and the line or what happened."""


class ProgramState(IntEnum):
    """ProductionStateMachineType's numbers (OPC 40501-1)."""

    INITIALIZING = 0
    RUNNING = 1
    ENDED = 2
    INTERRUPTED = 3
    ABORTED = 4


@dataclass(frozen=True)
class Happening:
    """What came about by itself, with the program's new state; `alarm` is the text of what a person has to look at."""

    at_s: float
    state: ProgramState
    alarm: str = ""


class Mill:
    """Axes, spindle and tools, and the one program that is active."""

    def __init__(self, record: Record) -> None:
        """`record` is told each line as it begins."""
        self._record = record
        self.state = ProgramState.INITIALIZING
        self.program = ""
        self.used_min = dict.fromkeys(TOOL_LENGTHS_MM, 0.0)
        self.broken: set[int] = set()
        self.override = 100.0
        self.tool = 0
        self.happenings: list[Happening] = []
        self._at_s = 0.0
        self.power_up()

    def power_up(self) -> None:
        """At home, nothing active; tools keep their wear."""
        self.state = ProgramState.INITIALIZING
        self.program = ""
        self.rpm = 0.0
        self.coolant = False
        self.block = ""
        self.line = 0
        self._place: Position = HOME
        self._actions: Iterator[Action] = iter(())
        self._doing: Action | None = None
        self._done_s = 0.0
        self.happenings.clear()

    @property
    def running(self) -> bool:
        return self.state is ProgramState.RUNNING

    # -- commands

    def start(self, name: str, lines: Iterable[str], now_s: float) -> None:
        """Begin a program; the caller has made sure that none is running or interrupted."""
        self.advance(now_s)
        self.program, self.line, self.block = name, 0, ""
        self._actions = Interpreter(self._place, TOOL_LENGTHS_MM).actions(lines)
        self._doing = None
        self.state = ProgramState.RUNNING
        self._record(now_s, "!", f"start {name}")
        self.advance(now_s)

    def hold(self, now_s: float, why: str) -> None:
        """Feed hold: stand where the tool is; the spindle goes on turning."""
        self.advance(now_s)
        if self.running:
            self.state = ProgramState.INTERRUPTED
            self._record(now_s, "!", f"hold {why}")

    def resume(self, now_s: float) -> None:
        """Go on from there."""
        self.advance(now_s)
        if self.state is ProgramState.INTERRUPTED:
            self.state = ProgramState.RUNNING
            self._record(now_s, "!", "resume")

    def end(self, state: ProgramState, now_s: float, why: str) -> None:
        """Give the program up where it is: spindle and coolant off."""
        self.advance(now_s)
        if self.state in (ProgramState.RUNNING, ProgramState.INTERRUPTED):
            self._end(state, now_s, why)

    # -- time

    def advance(self, now_s: float) -> None:
        """Let time pass; what comes about is added to `happenings`.

        After `MAX_ACTIONS` it leaves the rest to the next call: a program of very short moves is carried out later
        than simulated time has it, and the server goes on answering.
        """
        taken = 0
        while self.running:
            if self._doing is None:
                if taken == MAX_ACTIONS:
                    return
                taken += 1
                self._take_next()
                continue
            rest_s = self._rest_s(self._doing)
            if self._at_s + rest_s > now_s:
                self._done_s += max(0.0, now_s - self._at_s) * self._pace(self._doing)
                break
            self._at_s += rest_s
            self._finish(self._doing)
        self._at_s = max(self._at_s, now_s)

    def position(self) -> Position:
        """Where the tool is, in machine coordinates."""
        doing = self._doing
        if doing is None or doing.duration_s <= 0.0:
            return self._place
        return doing.position(min(1.0, self._done_s / doing.duration_s))

    def feed_mm_per_min(self) -> float:
        """What the tool moves with."""
        if not (self.running and self._doing and self._doing.duration_s > 0.0):
            return 0.0
        return self._doing.path_mm / self._doing.duration_s * 60.0 * self._pace(self._doing)

    def load_percent(self) -> float:
        """The spindle's load: what it takes to turn, and to cut."""
        if not self.rpm:
            return 0.0
        if not self.running or self._doing is None or not self._doing.feed_mm_per_min:
            return IDLE_LOAD
        return IDLE_LOAD + CUTTING_LOAD * min(2.0, self.feed_mm_per_min() / FULL_LOAD_MM_PER_MIN)

    def tool_usable(self, number: int) -> bool:
        """In the magazine, whole, and not worn out."""
        return number in self.used_min and number not in self.broken and self.used_min[number] < TOOL_LIFE_MIN

    def _pace(self, doing: Action) -> float:
        return max(self.override, 1.0) / 100.0 if doing.feed_mm_per_min else 1.0

    def _rest_s(self, doing: Action) -> float:
        return max(0.0, doing.duration_s - self._done_s) / self._pace(doing)

    def _take_next(self) -> None:
        try:
            doing = next(self._actions)
        except ProgramError as error:
            self._fail(str(error))
            return
        if doing.text:
            self.line, self.block = doing.line, doing.text
            self._record(self._at_s, str(doing.line), doing.text)
        if doing.tool is not None and not self.tool_usable(doing.tool):
            known = doing.tool in self.used_min
            reason = f"tool {doing.tool} is {'broken or worn out' if known else 'not in the magazine'}"
            self._fail(f"line {doing.line}: {reason}")
            return
        self._doing, self._done_s = doing, 0.0
        if doing.rpm is not None:
            self.rpm = doing.rpm
        if doing.coolant is not None:
            self.coolant = doing.coolant

    def _finish(self, doing: Action) -> None:
        self._place, self._doing = doing.end, None
        if doing.tool is not None:
            self.tool = doing.tool
        if doing.ends:
            self._end(ProgramState.ENDED, self._at_s, "end")
            self.happenings.append(Happening(self._at_s, self.state))
        elif doing.stops:
            self.state = ProgramState.INTERRUPTED
            self._record(self._at_s, "!", "programmed stop")
            self.happenings.append(Happening(self._at_s, self.state))
        elif doing.feed_mm_per_min and self.rpm and self.tool in self.used_min:
            self._wear(doing)

    def _wear(self, doing: Action) -> None:
        worn_out = self.used_min[self.tool] >= TOOL_LIFE_MIN
        self.used_min[self.tool] += doing.duration_s / 60.0
        if self.used_min[self.tool] >= TOOL_LIFE_MIN and not worn_out:
            self.state = ProgramState.INTERRUPTED
            self._record(self._at_s, "!", f"tool {self.tool} is worn out")
            self.happenings.append(Happening(self._at_s, self.state, f"tool {self.tool} has reached its tool life"))

    def _fail(self, text: str) -> None:
        self._end(ProgramState.ABORTED, self._at_s, text)
        self.happenings.append(Happening(self._at_s, self.state, text))

    def _end(self, state: ProgramState, at_s: float, why: str) -> None:
        self._place = self.position()
        self._doing = None
        self._actions = iter(())
        self.state = state
        self.rpm, self.coolant = 0.0, False
        self._record(at_s, "!", f"{state.name.lower()} {why}")
