"""How long a machine takes for a sequence of moves: Marlin's look-ahead planner with trapezoids of speed. PURE.

Rules (all of Marlin/src/module/planner.cpp at bugfix-2.1.x, `_populate_block` and the passes after it):

1. A move's length is that of its way in X, Y and Z; where there is none, that of E.
2. No axis, E included, is faster or accelerates more than its own limit: the slowest axis slows the whole move.
3. A retraction (E alone), a move that extrudes, and a travel each have an acceleration of their own.
4. Two moves meet at a speed that classic jerk allows (no axis' speed jumps by more than its limit), or else junction
   deviation (as in a circle of that deviation from the corner, at the move's acceleration).
5. A move never enters faster than lets the moves in the buffer come to rest at the end of the last: the reverse pass,
   from each new move backwards until nothing changes. And never faster than its predecessor can get: the forward pass,
   when the predecessor leaves the buffer.

Left out: the further limit on short moves in a curve (JD_HANDLE_SMALL_SEGMENTS), pressure advance, S-curves, and a
link too slow to keep the buffer full. Coordinates are those of a Cartesian machine. Lengths are mm, speeds mm/s,
accelerations mm/s².
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

BUFFER_MOVES = 15
"""Moves that are planned together: a ring of BLOCK_BUFFER_SIZE 16 keeps one free (Marlin/Configuration_adv.h)."""

MIN_MM_PER_S = 0.05
"""MINIMUM_PLANNER_SPEED: the speed of a machine at rest (Marlin/Configuration_adv.h)."""

MIN_MM_PER_S2 = 1.0
"""An acceleration limit below this counts as this, so that a program that sets 0 still has an end."""

ARC_SEGMENT_MM = 1.0
"""Arcs are carried out as chords of this length (MAX_ARC_SEGMENT_MM, Marlin/Configuration_adv.h)."""
ARC_SEGMENTS_MAX = 1000
"""Longer arcs are planned with longer chords, so that one command cannot occupy anybody for long."""

_SHORTEST_MM = 1e-6
_MIN_SQUARED = MIN_MM_PER_S**2

PerAxis = tuple[float, float, float, float]
"""X, Y, Z, E."""

Point = tuple[float, float]
"""In the plane of an arc."""


@dataclass(frozen=True, slots=True)
class Dynamics:
    """What a machine can do. The defaults are Marlin's (Marlin/Configuration.h at 2.1.2.1).

    `jerk_mm_per_s` None: junctions follow `deviation_mm`, which is what Marlin 2.1 is built with unless told otherwise.
    """

    max_mm_per_s: PerAxis = (300.0, 300.0, 5.0, 25.0)
    max_mm_per_s2: PerAxis = (3000.0, 3000.0, 100.0, 10000.0)
    print_mm_per_s2: float = 3000.0
    retract_mm_per_s2: float = 3000.0
    travel_mm_per_s2: float = 3000.0
    min_print_mm_per_s: float = 0.0
    min_travel_mm_per_s: float = 0.0
    jerk_mm_per_s: PerAxis | None = None
    deviation_mm: float = 0.013


DEFAULT_JERK_MM_PER_S: PerAxis = (10.0, 10.0, 0.3, 5.0)
"""DEFAULT_XJERK … DEFAULT_EJERK, for the axes that a program's M205 leaves out (Marlin/Configuration.h)."""


@dataclass(slots=True)
class _Move:
    """Speeds at the ends are squared, as energies add where speeds do not."""

    length_mm: float
    mm_per_s: float
    mm_per_s2: float
    gain: float
    """By how much the squared speed can change from end to end."""
    most_entry: float
    """Squared speed that the junction with the predecessor allows."""
    entry: float
    """Squared speed at which the buffer's moves can still come to rest."""


class Planner:
    """Moves go in, seconds come out, up to `BUFFER_MOVES` later."""

    def __init__(self, dynamics: Dynamics) -> None:
        self._moves: deque[_Move] = deque()
        """Behind `_head`, which is under way: its own entry is settled."""
        self._head: _Move | None = None
        self._head_mm_per_s = MIN_MM_PER_S
        self._left_s = 0.0
        self._before_mm_per_s = 0.0
        self._before: PerAxis = (0.0, 0.0, 0.0, 0.0)
        self.use(dynamics)

    @property
    def seconds(self) -> float:
        """Time taken by all moves that have left the buffer."""
        return self._left_s

    @property
    def dynamics(self) -> Dynamics:
        return self._dynamics

    def use(self, dynamics: Dynamics) -> None:
        """Limits for the moves that follow; those in the buffer keep theirs."""
        self._dynamics = dynamics
        self._speeds = _at_least(dynamics.max_mm_per_s, MIN_MM_PER_S)
        self._accelerations = _at_least(dynamics.max_mm_per_s2, MIN_MM_PER_S2)
        self._jerk = _at_least(dynamics.jerk_mm_per_s, 0.0) if dynamics.jerk_mm_per_s else None
        self._deviation_mm = max(dynamics.deviation_mm, 0.0)
        self._print = max(dynamics.print_mm_per_s2, MIN_MM_PER_S2)
        self._travel = max(dynamics.travel_mm_per_s2, MIN_MM_PER_S2)
        self._retract = max(dynamics.retract_mm_per_s2, MIN_MM_PER_S2)

    def add(self, dx: float, dy: float, dz: float, de: float, mm_per_s: float) -> None:
        """A straight move by so much, at most so fast."""
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        if length > _SHORTEST_MM:
            accel = self._print if de else self._travel
        else:
            length, accel = abs(de), self._retract
            if length <= _SHORTEST_MM:
                return
        slowest = self._dynamics.min_print_mm_per_s if de else self._dynamics.min_travel_mm_per_s
        speed = max(mm_per_s, slowest, MIN_MM_PER_S)
        x, y, z, e = dx / length, dy / length, dz / length, de / length
        # One axis after the other, written out: a loop over four axes takes three times as long.
        most_x, most_y, most_z, most_e = self._speeds
        accel_x, accel_y, accel_z, accel_e = self._accelerations
        if x:
            part = abs(x)
            speed = most_x / part if speed * part > most_x else speed
            accel = accel_x / part if accel * part > accel_x else accel
        if y:
            part = abs(y)
            speed = most_y / part if speed * part > most_y else speed
            accel = accel_y / part if accel * part > accel_y else accel
        if z:
            part = abs(z)
            speed = most_z / part if speed * part > most_z else speed
            accel = accel_z / part if accel * part > accel_z else accel
        if e:
            part = abs(e)
            speed = most_e / part if speed * part > most_e else speed
            accel = accel_e / part if accel * part > accel_e else accel
        jerk = self._jerk
        if jerk is None:
            junction = self._junction_by_deviation(x, y, z, e, speed, accel)
        else:
            # With both moves at the same speed v, an axis jumps by v times the difference of the directions.
            before_x, before_y, before_z, before_e = self._before
            jerk_x, jerk_y, jerk_z, jerk_e = jerk
            # At rest before: the move starts at once with what the axes may jump.
            junction = min(speed, self._before_mm_per_s) if self._before_mm_per_s else speed
            jump = abs(x - before_x)
            junction = jerk_x / jump if junction * jump > jerk_x else junction
            jump = abs(y - before_y)
            junction = jerk_y / jump if junction * jump > jerk_y else junction
            jump = abs(z - before_z)
            junction = jerk_z / jump if junction * jump > jerk_z else junction
            jump = abs(e - before_e)
            junction = jerk_e / jump if junction * jump > jerk_e else junction
            self._before = (x, y, z, e)
        self._before_mm_per_s = speed
        most_entry = max(junction * junction, _MIN_SQUARED)
        self._append(_Move(length, speed, accel, 2.0 * accel * length, most_entry, -1.0))

    def stop(self) -> float:
        """Come to rest after the moves so far; the seconds that all of them take."""
        while self._head is not None:
            self._leave()
        self._before_mm_per_s = 0.0
        self._before = (0.0, 0.0, 0.0, 0.0)
        self._head_mm_per_s = MIN_MM_PER_S
        return self._left_s

    def wait(self, seconds: float) -> None:
        """Stand still, after the moves so far."""
        self.stop()
        self._left_s += max(seconds, 0.0)

    def _junction_by_deviation(self, x: float, y: float, z: float, e: float, speed: float, accel: float) -> float:
        if e:
            norm = math.sqrt(x * x + y * y + z * z + e * e)
            x, y, z, e = x / norm, y / norm, z / norm, e / norm
        before_x, before_y, before_z, before_e = self._before
        self._before = (x, y, z, e)
        if not self._before_mm_per_s:
            return MIN_MM_PER_S
        straight = before_x * x + before_y * y + before_z * z + before_e * e
        if straight < -0.999999:
            return MIN_MM_PER_S
        fastest = min(speed, self._before_mm_per_s)
        if straight > 0.999999:
            return fastest
        turn = x - before_x, y - before_y, z - before_z, e - before_e
        norm = math.hypot(*turn)
        for part, most in zip(turn, self._accelerations, strict=True):
            if accel * abs(part) > most * norm:
                accel = most * norm / abs(part)
        half = math.sqrt(0.5 * (1.0 + straight))
        return min(fastest, math.sqrt(accel * self._deviation_mm * half / (1.0 - half)))

    def _append(self, new: _Move) -> None:
        if self._head is None:
            # A buffer that was empty: from rest, at what the junction allows and the way lets come to rest again.
            self._head = new
            self._head_mm_per_s = math.sqrt(min(new.most_entry, _MIN_SQUARED + new.gain))
            return
        moves = self._moves
        moves.append(new)
        entry = _MIN_SQUARED
        for move in reversed(moves):
            entry += move.gain
            entry = min(entry, move.most_entry)
            if entry == move.entry:
                break
            move.entry = entry
        if len(moves) == BUFFER_MOVES - 1:
            self._leave()  # it begins now that the buffer is full, and its end is settled by then

    def _leave(self) -> None:
        """Settle how the move under way ends, and let the next one begin."""
        head = self._head
        assert head is not None, "only a move that is there can leave"
        first = self._head_mm_per_s
        first_squared = first * first
        if self._moves:
            self._head = self._moves.popleft()
            last_squared = min(self._head.entry, first_squared + head.gain)
        else:
            self._head = None
            last_squared = _MIN_SQUARED
        last = math.sqrt(last_squared)
        self._head_mm_per_s = last
        speed, accel = head.mm_per_s, head.mm_per_s2
        peak_squared = (head.gain + first_squared + last_squared) / 2.0
        if peak_squared > speed * speed:
            cruise = head.length_mm - (2.0 * speed * speed - first_squared - last_squared) / (2.0 * accel)
            self._left_s += (2.0 * speed - first - last) / accel + cruise / speed
        else:
            self._left_s += (2.0 * math.sqrt(peak_squared) - first - last) / accel


def _at_least(limits: PerAxis, least: float) -> PerAxis:
    x, y, z, e = limits
    return max(x, least), max(y, least), max(z, least), max(e, least)


@dataclass(frozen=True, slots=True)
class Arc:
    """A part of a circle, as Marlin/src/gcode/motion/G2_G3.cpp draws it. Angles are radians, positive to the left."""

    start: Point
    end: Point
    centre: Point
    first: float
    sweep: float

    @classmethod
    def between(
        cls, start: Point, end: Point, offset: Point, radius: float, turns: int, *, clockwise: bool
    ) -> Arc | None:
        """None where there is no circle. `offset` of the centre from the start counts where there is no `radius`.

        A negative radius goes the longer way, one too small is half the chord. `turns` are circles beside the way to
        the end; to the same place again is one.
        """
        chord = math.dist(start, end)
        if radius and chord:
            height = math.sqrt(max(radius * radius - chord * chord / 4.0, 0.0)) * (
                1 if clockwise == (radius > 0) else -1
            )
            along_x, along_y = (end[0] - start[0]) / chord, (end[1] - start[1]) / chord
            offset = along_x * chord / 2.0 + height * along_y, along_y * chord / 2.0 - height * along_x
        if not any(offset):
            return None
        centre = start[0] + offset[0], start[1] + offset[1]
        first = math.atan2(-offset[1], -offset[0])
        last = math.atan2(end[1] - centre[1], end[0] - centre[0])
        sweep = (first - last if clockwise else last - first) % math.tau
        if not sweep or not chord:
            sweep = math.tau
        sweep += max(turns, 0) * math.tau
        return cls(start, end, centre, first, -sweep if clockwise else sweep)

    @property
    def radius(self) -> float:
        return math.dist(self.start, self.centre)

    def outmost(self) -> Iterator[tuple[int, float]]:
        """Where it passes a quarter of its circle: axis (0 or 1) and coordinate."""
        first = self.first if self.sweep > 0.0 else self.first + self.sweep
        for quarter, (axis, sign) in enumerate(((0, 1), (1, 1), (0, -1), (1, -1))):
            if (quarter * math.pi / 2.0 - first) % math.tau <= abs(self.sweep):
                yield axis, self.centre[axis] + sign * self.radius

    def chords(self) -> list[Point]:
        """The steps along it."""
        radius = self.radius
        length_mm = min(abs(self.sweep) * radius, ARC_SEGMENT_MM * ARC_SEGMENTS_MAX)
        count = max(math.ceil(length_mm / ARC_SEGMENT_MM), 1)
        steps = []
        x, y = self.start
        for i in range(1, count):
            angle = self.first + self.sweep * i / count
            next_x, next_y = self.centre[0] + radius * math.cos(angle), self.centre[1] + radius * math.sin(angle)
            steps.append((next_x - x, next_y - y))
            x, y = next_x, next_y
        steps.append((self.end[0] - x, self.end[1] - y))
        return steps
