"""What the driver sends by itself while a print is held: numbered from `MACRO_BASE`, proven by the firmware's counter.

So are its questions. What goes out without a number is unchecked, and one flipped bit makes M107 of M105, which would
leave the rest of the part without its fan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from drivers.gcode.device import Device
from drivers.gcode.replies import Position, Temperatures
from drivers.gcode.resume import MACRO_BASE
from edge.driver import MachineError

QUESTIONS_MAX = 3
"""How often the same is asked: the command is checked, its answer may get lost."""

AnswerT = TypeVar("AnswerT", Position, Temperatures)


class Proven:
    """The driver's own commands at one printer. `must_go_on` raises when they are of no use any more."""

    def __init__(self, device: Device, must_go_on: Callable[[], None]) -> None:
        self._device = device
        self._must_go_on = must_go_on
        self._number = MACRO_BASE  # of the last of them
        self._asks = False  # a question is out
        self._told: list[Position | Temperatures] = []  # in answer to it

    def begin(self) -> None:
        """The firmware counts a program's commands: the next of these sets its counter."""
        self._number = MACRO_BASE

    def heard(self, reply: Position | Temperatures) -> None:
        """The printer has said where it stands, or how warm it is."""
        if self._asks:
            self._told.append(reply)

    async def carry_out(self, commands: Iterable[str]) -> None:
        """Each exactly once. Raises `MachineError`, and what `must_go_on` raises."""
        commands = tuple(commands)
        device = self._device
        self._must_go_on()
        await device.run(commands, self._number, counted=self._number > MACRO_BASE)
        self._must_go_on()
        self._number += len(commands)
        await device.counted(self._number)
        self._must_go_on()

    async def position(self) -> Position:
        """Where it will stand when all it was told is done. Raises as `carry_out`."""
        return await self._answer_to("M114", Position)

    async def look_at_heaters(self) -> None:
        """Ask for the temperatures; they are in `Device.heaters` then. Raises as `carry_out`."""
        await self._answer_to("M105", Temperatures)

    async def _answer_to(self, question: str, kind: type[AnswerT]) -> AnswerT:
        for _ in range(QUESTIONS_MAX):
            self._told.clear()
            self._asks = True
            try:
                await self.carry_out((question,))
            finally:
                self._asks = False
            if fitting := [answer for answer in self._told if isinstance(answer, kind)]:
                return fitting[-1]
        raise MachineError(f"the printer does not answer {question}")
