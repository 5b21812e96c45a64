"""A queue of moves that can be held: where the tool is at any time. No clock, no I/O: `now_s` is an argument.

A move lasts its length over its speed, and what acceleration costs if it starts from rest. A hold lets the machine
decelerate for `DECELERATION_S` along the path, and then time stands still for the moves until they go on.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

Position = tuple[float, float, float]

MAX_MM_PER_S = 5000.0 / 60.0
MM_PER_S2 = 500.0
DECELERATION_S = 0.15
ROUNDING_S = 1e-9
HOMING_MM_PER_S = 25.0
HOMING_BUMP_S = 1.0


class _Move(NamedTuple):
    start: Position
    end: Position
    duration_s: float


class Motion:
    """Planner and axes of one machine, in machine coordinates (mm)."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._moves: deque[_Move] = deque()
        self._done_s = 0.0  # how much of the first move has been made
        self._at_s = 0.0
        self._running = False
        self._frozen_from_s = math.inf  # a hold: motion goes on until then
        self.planned: Position = (0.0, 0.0, 0.0)

    def blocks_free(self) -> int:
        """Moves that can still be queued."""
        return self._blocks - len(self._moves)

    @property
    def running(self) -> bool:
        """Moves are being made, or decelerate into a hold."""
        return self._running

    @property
    def waiting(self) -> bool:
        """Moves are queued that nobody has started."""
        return bool(self._moves) and not self._running

    def add(self, target: Position, mm_per_s: float, path_mm: float | None = None) -> None:
        """Queue a move; the caller has made sure of room. `path_mm`: its length, if not the straight line."""
        length_mm = math.dist(self.planned, target) if path_mm is None else path_mm
        if length_mm > 0.0:
            speed = min(mm_per_s, MAX_MM_PER_S)
            from_rest_s = 0.0 if self._moves else speed / MM_PER_S2
            self._moves.append(_Move(self.planned, target, length_mm / speed + from_rest_s))
        self.planned = target

    def start(self, now_s: float) -> None:
        """Make what is queued; also how a hold ends."""
        self.advance(now_s)
        self._frozen_from_s = math.inf
        self._running = bool(self._moves)

    def hold(self, now_s: float) -> None:
        """Decelerate; `running` ends when the machine stands."""
        self.advance(now_s)
        self._frozen_from_s = min(self._frozen_from_s, now_s + DECELERATION_S)

    def clear(self, now_s: float) -> None:
        """Forget every move and stand where the tool is."""
        self.planned = self.position(now_s)
        self._moves.clear()
        self._done_s = 0.0
        self._running = False
        self._frozen_from_s = math.inf

    def place(self, position: Position) -> None:
        """Call the place where the machine stands `position`, as homing does."""
        self.planned = position

    def advance(self, now_s: float) -> None:
        """Let time pass."""
        if self._running:
            left_s = max(0.0, min(now_s, self._frozen_from_s) - self._at_s)
            while self._moves and self._done_s + left_s >= self._moves[0].duration_s - ROUNDING_S:
                left_s = max(0.0, left_s - (self._moves.popleft().duration_s - self._done_s))
                self._done_s = 0.0
            if self._moves:
                self._done_s += left_s
            self._running = bool(self._moves) and now_s < self._frozen_from_s
        self._at_s = now_s

    def changes_at_s(self) -> float:
        """When the first move ends or the hold is complete; infinity if nothing moves."""
        if not self._running:
            return math.inf
        return min(self._at_s + self._moves[0].duration_s - self._done_s, self._frozen_from_s)

    def position(self, now_s: float) -> Position:
        """Where the tool is."""
        self.advance(now_s)
        if not self._moves:
            return self.planned
        move = self._moves[0]
        share = self._done_s / move.duration_s
        x, y, z = (a + (b - a) * share for a, b in zip(move.start, move.end, strict=True))
        return x, y, z

    def homing_s(self) -> float:
        """How long homing takes, one axis after the other."""
        return sum(HOMING_BUMP_S + abs(mm) / HOMING_MM_PER_S for mm in self.planned)
