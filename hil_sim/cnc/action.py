"""What a program comes down to: one action after the other, each with its path and its duration."""

from __future__ import annotations

import math
from dataclasses import dataclass

Position = tuple[float, float, float]
"""X, Y, Z in machine coordinates, mm."""


class ProgramError(Exception):
    """The program cannot go on here; the text is the controller's alarm."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line}: {text}")
        self.line = line


@dataclass(frozen=True)
class Arc:
    """Where a move leaves the straight line: around `centre` in the plane of the axes `first` and `second`."""

    first: int
    second: int
    centre: tuple[float, float]
    angle_rad: float
    """Swept, from the start; positive is from the first axis to the second."""


@dataclass(frozen=True)
class Action:
    """One thing that the mill does; a line of the program makes none, one or several."""

    line: int
    text: str
    """As it stands in the program; empty for all but the first action of a line."""
    start: Position
    end: Position
    path_mm: float = 0.0
    duration_s: float = 0.0
    feed_mm_per_min: float = 0.0
    """0 if the override does not count: rapids, dwells, changes."""
    rapid: bool = False
    arc: Arc | None = None
    tool: int | None = None
    """Change to it."""
    rpm: float | None = None
    """Signed spindle speed from here on."""
    coolant: bool | None = None
    stops: bool = False
    ends: bool = False

    def position(self, share: float) -> Position:
        """Where the tool is when `share` (0 to 1) of it is done."""
        found = [a + (b - a) * share for a, b in zip(self.start, self.end, strict=True)]
        if self.arc:
            arc = self.arc
            dx, dy = self.start[arc.first] - arc.centre[0], self.start[arc.second] - arc.centre[1]
            turn = arc.angle_rad * share
            found[arc.first] = arc.centre[0] + dx * math.cos(turn) - dy * math.sin(turn)
            found[arc.second] = arc.centre[1] + dx * math.sin(turn) + dy * math.cos(turn)
        return found[0], found[1], found[2]
