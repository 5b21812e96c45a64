"""The physics behind the firmware: what heaters and axes do with time. No clock, no I/O: `now_s` is an argument.

Heaters follow a first-order law with an exact solution, so they can be asked at any time and in any step.

Moves have constant acceleration each, along the straight line of the move. A move that is queued while its predecessor
is still under way does not start from rest: it enters at the lower of both speeds times the cosine of the angle
between them (right angles and sharper turns: from rest). What the predecessor loses by braking for that corner is
added to the move that follows, and a move never brakes for an end that nobody has announced yet. So each move's
duration is known when it is queued, which is what makes the planner's waits exact; a real look-ahead planner differs
in single moves and agrees over a print to a few per cent.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

AMBIENT_DEGC = 20.0
FULL_POWER = 127
"""What Marlin shows after `@:` for a heater that is always on (soft PWM, 7 bits)."""

PLANNER_MOVES = 15
"""Moves that fit into a block buffer of 16: a ring keeps one slot free. Source: ADVANCED_OK says `P15` when idle."""

HOTEND_RISE_DEGC, HOTEND_TAU_S = 350.0, 92.0
"""20 to 215 °C in about 75 s, like a 40 W cartridge in a small block."""
BED_RISE_DEGC, BED_TAU_S = 120.0, 222.0
"""20 to 60 °C in about 90 s, like a 24 V bed of 220 mm."""

HOMING_MM_PER_S = (50.0, 50.0, 4.0)
HOMING_BUMP_S = 1.0
"""Backing off and touching again, per axis."""

Position = tuple[float, float, float, float]
"""X, Y, Z and E in mm."""


class Heater:
    """A heater with a thermometer: full power up to the target, then exactly what holds it, none above it."""

    def __init__(self, rise_degc: float, tau_s: float, max_target_degc: float) -> None:
        """`rise_degc`: above ambient, reached at full power in the long run. `tau_s`: time constant."""
        self._rise_degc = rise_degc
        self._tau_s = tau_s
        self._max_target_degc = max_target_degc
        self._at_s = 0.0
        self._degc = AMBIENT_DEGC
        self.target_degc = 0.0

    def set_target(self, target_degc: float, now_s: float) -> None:
        """Targets above the heater's maximum are cut to it, as Marlin does."""
        self.degc(now_s)
        self.target_degc = min(max(target_degc, 0.0), self._max_target_degc)

    def degc(self, now_s: float) -> float:
        """Temperature at `now_s`, which must not go back."""
        elapsed_s = now_s - self._at_s
        if elapsed_s > 0.0:
            heating = self._degc < self.target_degc
            limit_degc = AMBIENT_DEGC + self._rise_degc if heating else AMBIENT_DEGC
            next_degc = limit_degc + (self._degc - limit_degc) * math.exp(-elapsed_s / self._tau_s)
            if heating:
                self._degc = min(next_degc, self.target_degc)
            elif self._degc > AMBIENT_DEGC:
                self._degc = max(next_degc, self.target_degc, AMBIENT_DEGC)
            self._at_s = now_s
        return self._degc

    def power(self, now_s: float) -> int:
        """0 to `FULL_POWER`, as printed after `@:`."""
        degc = self.degc(now_s)
        if degc < self.target_degc:
            return FULL_POWER
        if degc > self.target_degc or self.target_degc <= AMBIENT_DEGC:
            return 0
        return round(FULL_POWER * (self.target_degc - AMBIENT_DEGC) / self._rise_degc)


class Move(NamedTuple):
    """One planned move; `direction` is its unit vector in X, Y, Z."""

    start_s: float
    end_s: float
    start: Position
    end: Position
    direction: tuple[float, float, float]
    exit_mm_per_s: float


@dataclass
class MotionLimits:
    """Speeds and accelerations; the defaults are Marlin's (Configuration.h of 2.1)."""

    max_mm_per_s: list[float] = field(default_factory=lambda: [300.0, 300.0, 5.0, 25.0])
    max_mm_per_s2: list[float] = field(default_factory=lambda: [3000.0, 3000.0, 100.0, 10000.0])
    print_mm_per_s2: float = 3000.0
    retract_mm_per_s2: float = 3000.0
    travel_mm_per_s2: float = 3000.0


class Axes:
    """Planner and axes: a queue of moves, and where the tool is at any time."""

    def __init__(self) -> None:
        self.limits = MotionLimits()
        self.planned: Position = (0.0, 0.0, 0.0, 0.0)
        self._moves: deque[Move] = deque()
        self._last: Move | None = None
        self.stops = 0
        """How often `stop` was called; a move that waits for room is dropped by it, too."""

    def moves_free(self, now_s: float) -> int:
        """Moves that can still be queued at `now_s`."""
        moves = self._moves
        while moves and moves[0].end_s <= now_s:
            moves.popleft()
        return PLANNER_MOVES - len(moves)

    def room_at_s(self, now_s: float) -> float:
        """When the next slot is free; `now_s` if one is."""
        return now_s if self.moves_free(now_s) > 0 else self._moves[0].end_s

    def idle_at_s(self, now_s: float) -> float:
        """When all queued moves have ended; `now_s` if they have."""
        return max(now_s, self._last.end_s) if self._last else now_s

    def position(self, now_s: float) -> Position:
        """Where the tool really is at `now_s`, taking each move at its mean speed."""
        self.moves_free(now_s)
        if not self._moves:
            return self.planned
        move = self._moves[0]
        if now_s <= move.start_s:
            return move.start
        done = (now_s - move.start_s) / (move.end_s - move.start_s)
        x, y, z, e = (a + (b - a) * done for a, b in zip(move.start, move.end, strict=True))
        return x, y, z, e

    def add_move(self, target: Position, feed_mm_per_s: float, now_s: float, path_mm: float | None = None) -> None:
        """Queue a move to `target`; the caller has made sure of room. `path_mm`: length, if not the straight line."""
        x, y, z, e = self.planned
        dx, dy, dz, de = target[0] - x, target[1] - y, target[2] - z, target[3] - e
        span_mm = math.sqrt(dx * dx + dy * dy + dz * dz)
        limits = self.limits
        if span_mm < 1e-6 and path_mm is None:
            span_mm = abs(de)
            if span_mm < 1e-6:
                return
            direction = (0.0, 0.0, 0.0)
            wanted_mm_per_s2 = limits.retract_mm_per_s2
        else:
            span_mm = max(span_mm, 1e-6)
            direction = (dx / span_mm, dy / span_mm, dz / span_mm)
            wanted_mm_per_s2 = limits.print_mm_per_s2 if de else limits.travel_mm_per_s2
        length_mm = path_mm or span_mm
        speed, accel = feed_mm_per_s, wanted_mm_per_s2
        for part_mm, max_speed, max_accel in zip(
            (dx, dy, dz, de), limits.max_mm_per_s, limits.max_mm_per_s2, strict=True
        ):
            if part_mm:
                share = length_mm / abs(part_mm)
                if speed > max_speed * share:
                    speed = max_speed * share
                if accel > max_accel * share:
                    accel = max_accel * share
        # Marlin, too, has a least speed, and a firmware told to move at 0 must not stop the simulation.
        speed, accel = max(speed, 0.05), max(accel, 1.0)

        entry, corner_s, start_s = 0.0, 0.0, now_s
        last = self._last
        if last is not None and last.end_s > now_s:
            start_s = last.end_s
            px, py, pz = last.direction
            cosine = max(0.0, px * direction[0] + py * direction[1] + pz * direction[2])
            entry = min(last.exit_mm_per_s, speed) * cosine
            lost = last.exit_mm_per_s - entry
            corner_s = lost * lost / (2.0 * accel * last.exit_mm_per_s)
        ramp_mm = (speed * speed - entry * entry) / (2.0 * accel)
        if ramp_mm <= length_mm:
            leave = speed
            duration_s = (speed - entry) / accel + (length_mm - ramp_mm) / speed
        else:
            leave = math.sqrt(entry * entry + 2.0 * accel * length_mm)
            duration_s = (leave - entry) / accel
        move = Move(start_s, start_s + corner_s + duration_s, self.planned, target, direction, leave)
        self._moves.append(move)
        self._last = move
        self.planned = target

    def set_planned(self, position: Position) -> None:
        """Call the end of all queued moves `position`, without motion (homing, G92 E)."""
        self.planned = position

    def stop(self, now_s: float) -> None:
        """Forget the queued moves and stay where the tool is at `now_s`."""
        self.planned = self.position(now_s)
        self._moves.clear()
        self._last = None
        self.stops += 1

    def homing_s(self, axes: str) -> float:
        """How long homing `axes` (of "XYZ") takes from the planned position, one axis after the other."""
        return sum(HOMING_BUMP_S + abs(self.planned[i]) / HOMING_MM_PER_S[i] for i in range(3) if "XYZ"[i] in axes)
