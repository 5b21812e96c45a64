"""What a G-code program does, read once from end to end, in bounded memory. PURE.

Understands what slicers and people write for Marlin. Lengths are mm, temperatures degC, feed rates mm/min, durations s.
Line numbers are those of the file, from 1. Files named are of Marlin 2.1, under Marlin/src. Where firmware
disagrees, what is told is on the side of caution. Rules:

1. Extents are the machine's own coordinates, as limits are: G92 renames a place and moves nothing. A program begins,
   and homing ends, at the machine's origin, as far as anybody can tell offline.
2. G53 and G54 are the coordinates in force at the start. A program that asks for others (G55–G59), or that takes G53,
   G54 or G28 after it has moved the origin by G92 (firmware disagrees about what is left of that), or moves in a way
   that only the machine knows, is `unknowable`; what is found beside that is not to be relied on.
3. The duration is that of moves and dwells. Homing, probing, heating, tool changes and waiting for people depend on the
   machine and the day: they are counted, and each of them is a stop of the motion.
4. Where an axis stands before it is homed, and after its motor was released, nobody knows: the first move of such an
   axis is `unplaced`. Only a lift of Z is not, relative and by `LIFT_MAX_MM` in all, as many programs begin with one.
5. A layer is a height in which a level move extrudes. A spiral has none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from drivers.modes import (
    LINEAR,
    Modes,
    Number,
    Position,
    Words,
    behind_g53,
    code_of,
    command_on,
    commands,
    position_after,
    words_of,
)
from drivers.motion import DEFAULT_JERK_MM_PER_S, Arc, Dynamics, PerAxis, Planner

__all__ = [
    "Analysis",
    "Extent",
    "Extreme",
    "Position",
    "Unknowable",
    "analyse",
    "behind_g53",
    "code_of",
    "command_on",
    "commands",
    "position_after",
    "words_of",
]

TIMELINE_POINTS = 200
"""The time line has at least half as many points, and at most this many, whatever the program's size."""
LAYERS_MAX = 100_000
"""More heights than this are not collected: no machine prints them, and memory is to be bounded."""

LIFT_MAX_MM = 10.0
"""How far Z may be lifted before it is homed: our choice, as much as a stop lifts it."""

_PLANES = {"G17": (0, 1, 2, "IJ"), "G18": (2, 0, 1, "KI"), "G19": (1, 2, 0, "JK")}
"""The axes in which G2 and G3 turn, the third, and the words of the centre (gcode/motion/G2_G3.cpp)."""

_UNKNOWABLE = frozenset({"G5", "G6", "G42", "G55", "G56", "G57", "G58", "G59", "G61", "M149"})
"""Splines, steps, mesh points, stored work offsets and places, other units of temperature: their meaning is set in the
machine, or so rare that a guess would be the greater risk."""
_PROBING = frozenset({"G28", "G29", "G30", "G34"})
_STOPS = _PROBING | {"G27", "M0", "M1", "M109", "M190", "M191", "M226", "M400", "M600"}


@dataclass(frozen=True, slots=True)
class Extreme:
    """A value, and the line that asks for it."""

    value: float
    line: int


@dataclass(slots=True)
class Extent:
    """The least and the greatest value that a program asks for."""

    least: Extreme | None = None
    greatest: Extreme | None = None

    def add(self, value: float, line: int) -> None:
        if self.least is None or value < self.least.value:
            self.least = Extreme(value, line)
        if self.greatest is None or value > self.greatest.value:
            self.greatest = Extreme(value, line)


@dataclass(frozen=True, slots=True)
class Unknowable:
    """The first command whose effect nobody can tell offline."""

    code: str
    line: int


@dataclass(frozen=True, slots=True)
class Unplaced:
    """The first move of an axis of which nobody knows where it stands. `released`: it was known, before M18 or M84."""

    axis: str
    line: int
    released: bool


@dataclass(slots=True)
class Analysis:
    """What was found. `extents_mm` has the axes that are moved; heaters have no extreme where they are never set.

    `filament_mm` is the sum of all extrusion, retractions taken off. `timeline` has pairs of commands taken by the
    machine and the seconds in motion by then, up to the whole.
    """

    commands: int = 0
    extents_mm: dict[str, Extent] = field(default_factory=lambda: {axis: Extent() for axis in "XYZ"})
    nozzle_degc: Extent = field(default_factory=Extent)
    bed_degc: Extent = field(default_factory=Extent)
    chamber_degc: Extent = field(default_factory=Extent)
    feed_mm_per_min: Extent = field(default_factory=Extent)
    filament_mm: float = 0.0
    layers_mm: list[float] = field(default_factory=list)
    duration_s: float = 0.0
    timeline: tuple[tuple[int, float], ...] = ()
    probings: int = 0
    heat_waits: int = 0
    tool_changes: int = 0
    retractions: int = 0
    unknowable: Unknowable | None = None
    unplaced: Unplaced | None = None


def analyse(lines: Iterable[tuple[int, str]], dynamics: Dynamics | None = None) -> Analysis:
    """Read a whole program: pairs of line number and command. `dynamics`: the machine's, until the program sets them.

    230,000 lines/s on one core of a two-core virtual machine with Python 3.11 (0.29 s for 66,425 lines), measured by::

        python -m timeit -s "from drivers.analysis import analyse, command_on" \\
            -s "lines = open('tests/programs/bracket.gcode').readlines()" \\
            "analyse((n, c) for n, line in enumerate(lines, 1) if (c := command_on(line)))"
    """
    return _Reader(dynamics or Dynamics()).read(lines)


class _Reader:
    """One pass over a program."""

    def __init__(self, dynamics: Dynamics) -> None:
        self._found = Analysis()
        self._extent_x, self._extent_y, self._extent_z = self._found.extents_mm.values()
        self._modes = Modes()
        self._planner = Planner(dynamics)
        self._speed_factor = self._kept_speed_factor = 1.0
        self._flow_factor = 1.0
        self._layer_z_mm: float | None = None
        self._layers_mm: set[float] = set()
        self._tool = "T0"
        self._retracted = False
        self._placeless = set("XYZ")
        self._released: set[str] = set()
        self._lifted_mm = 0.0
        # RETRACT_LENGTH, RETRACT_FEEDRATE, RETRACT_RECOVER_LENGTH and _FEEDRATE: Marlin/Configuration_adv.h.
        self._retract_mm, self._retract_mm_per_s = 3.0, 45.0
        self._recover_extra_mm, self._recover_mm_per_s = 0.0, 8.0

    def read(self, lines: Iterable[tuple[int, str]]) -> Analysis:
        found, planner = self._found, self._planner
        linear, carry_out = self._linear, self._carry_out
        points: list[tuple[int, float]] = []
        count, every, mark = 0, 1, 1
        for number, command in lines:
            count += 1
            plain = LINEAR(command)
            if plain:
                linear(number, plain.groups())
            else:
                carry_out(number, command)
            if count == mark:
                points.append((count, planner.seconds))
                if len(points) == TIMELINE_POINTS:
                    points, every = points[1::2], every * 2
                mark += every
        found.commands = count
        found.duration_s = planner.stop()
        found.layers_mm = sorted(self._layers_mm)
        if count:
            found.timeline = (*(point for point in points if point[0] < count), (count, found.duration_s))
        return found

    def _linear(self, number: int, given: tuple[Number, ...]) -> None:
        """A straight move; `given` as `Modes.linear` has it."""
        modes = self._modes
        x, y, z, e = modes.x, modes.y, modes.z, modes.e
        modes.linear(*given)
        self._note(number, given, e, level=modes.z == z)
        self._planner.add(
            modes.x - x,
            modes.y - y,
            modes.z - z,
            (modes.e - e) * self._flow_factor,
            modes.feed_mm_per_min * self._speed_factor / 60.0,
        )

    def _note(self, number: int, given: tuple[Number, ...], e_before: float, *, level: bool) -> None:
        """Where a move ends, and what it extrudes."""
        modes = self._modes
        feed_first, x, y, z, e, feed = given
        if self._placeless:
            self._note_place(number, given)
        if x is not None:
            self._extent_x.add(modes.x - modes.shift_x, number)
        if y is not None:
            self._extent_y.add(modes.y - modes.shift_y, number)
        if z is not None:
            self._extent_z.add(modes.z - modes.shift_z, number)
        if e is not None:
            extruded_mm = modes.e - e_before
            self._found.filament_mm += extruded_mm * self._flow_factor
            if extruded_mm > 0.0 and level and (x is not None or y is not None):
                self._note_layer(modes.z - modes.shift_z)
        if feed is not None or feed_first is not None:
            self._found.feed_mm_per_min.add(modes.feed_mm_per_min, number)

    def _note_place(self, number: int, given: tuple[Number, ...]) -> None:
        """A move while not every axis is known to stand where its name says."""
        _, x, y, z, _, _ = given
        moved = {axis for axis, value in (("X", x), ("Y", y), ("Z", z)) if value is not None} & self._placeless
        if z is not None and moved == {"Z"} and not self._modes.absolute and float(z) >= 0.0:
            self._lifted_mm += float(z) * self._modes.scale
            if self._lifted_mm <= LIFT_MAX_MM:
                return
        if moved and self._found.unplaced is None:
            axis = min(moved)
            self._found.unplaced = Unplaced(axis, number, axis in self._released)

    def _note_layer(self, z_mm: float) -> None:
        if z_mm != self._layer_z_mm and len(self._layers_mm) < LAYERS_MAX:
            self._layers_mm.add(round(z_mm, 3))
        self._layer_z_mm = z_mm

    def _carry_out(self, number: int, command: str) -> None:
        """Anything but a plain line."""
        modes, planner = self._modes, self._planner
        code, words = code_of(command), words_of(command)
        if code in {"G28", "G53", "G54"} and (modes.shift_x or modes.shift_y or modes.shift_z):
            self._is_unknowable(code, number)
        if chained := behind_g53(command):
            self._carry_out(number, chained)
            modes.lose("XYZ")
            return
        if _is_unknowable(code, words):
            self._is_unknowable(code, number)
        if code in _STOPS:
            planner.stop()
        match code:
            case "G0" | "G1":
                self._linear(number, (None, *(words.get(letter) for letter in "XYZEF")))
                return
            case "G2" | "G3":
                self._arc(number, code, words)
                return
            case "G4":
                dwell_s = words.get("S")
                planner.wait((words.get("P") or 0.0) / 1000.0 if dwell_s is None else dwell_s)
            case "G10" | "G11":
                self._retract(number, words, retract=code == "G10")
            case "M201" | "M203" | "M204" | "M205":
                planner.use(_changed(planner.dynamics, code, words, modes.scale))
            case "M207" | "M208":
                self._set_retraction(code, words)
            case "M220" | "M221":
                self._set_factor(code, words)
            case _:
                self._count(number, code, words)
        modes.carry_out(code, words)

    def _release(self, named: set[str]) -> None:
        """Motors are switched off: those named, or all (gcode/control/M17_M18_M84.cpp)."""
        released = named or set("XYZ")
        self._released |= (released & set("XYZ")) - self._placeless
        self._placeless |= released & set("XYZ")

    def _is_unknowable(self, code: str, number: int) -> None:
        self._found.unknowable = self._found.unknowable or Unknowable(code, number)

    def _count(self, number: int, code: str, words: Words) -> None:
        """What is noted beside the motion."""
        found = self._found
        if code in {"M18", "M84"} and "S" not in words:
            self._release(words.keys() & set("XYZE"))
        if code in _PROBING:
            found.probings += 1
            if code == "G28":
                self._placeless -= words.keys() & set("XYZ") or set("XYZ")
        elif code[0] == "T" and code != self._tool:
            self._tool = code
            found.tool_changes += 1
            self._planner.stop()
        elif (heater := _heater(found, code, words)) is not None:
            heated = _heat(number, words, heater)
            found.heat_waits += heated and code in _STOPS

    def _arc(self, number: int, code: str, words: Words) -> None:
        """Ends like a move, and reaches out to each quarter of its circle that it passes."""
        modes = self._modes
        start = modes.x, modes.y, modes.z
        e_before = modes.e
        modes.carry_out(code, words)
        end = modes.x, modes.y, modes.z
        p, q, third, letters = _PLANES[modes.plane]
        given = (None, *(words.get(letter) for letter in "XYZEF"))
        self._note(number, given, e_before, level=modes.plane == "G17" and start[2] == end[2])
        e_mm = (modes.e - e_before) * self._flow_factor
        mm_per_s = modes.feed_mm_per_min * self._speed_factor / 60.0
        offset_p, offset_q, radius, turns = ((words.get(letter) or 0.0) for letter in (*letters, "R", "P"))
        arc = Arc.between(
            (start[p], start[q]),
            (end[p], end[q]),
            (offset_p * modes.scale, offset_q * modes.scale),
            radius * modes.scale,
            int(turns),
            clockwise=code == "G2",
        )
        if arc is None:
            self._planner.add(end[0] - start[0], end[1] - start[1], end[2] - start[2], e_mm, mm_per_s)
            return
        shifts = modes.shift_x, modes.shift_y, modes.shift_z
        extents = self._extent_x, self._extent_y, self._extent_z
        for i, value in arc.outmost():
            axis = (p, q)[i]
            extents[axis].add(value - shifts[axis], number)
        chords = arc.chords()
        part = 1.0 / len(chords)
        for chord_p, chord_q in chords:
            step = [0.0, 0.0, 0.0]
            step[p], step[q], step[third] = chord_p, chord_q, (end[third] - start[third]) * part
            self._planner.add(step[0], step[1], step[2], e_mm * part, mm_per_s)

    def _retract(self, number: int, words: Words, *, retract: bool) -> None:
        """Retraction by the firmware: gcode/feature/fwretract. With P it is RepRapFirmware's, which sets a tool."""
        if retract and words.keys() & {"P", "L"}:
            for letter in "SR":
                _heat(number, {"S": words.get(letter)}, self._found.nozzle_degc)
        elif retract != self._retracted:
            self._retracted = retract
            self._found.retractions += retract
            if retract:
                self._planner.add(0.0, 0.0, 0.0, -self._retract_mm, self._retract_mm_per_s)
            else:
                recover_mm = self._retract_mm + self._recover_extra_mm
                self._planner.add(0.0, 0.0, 0.0, recover_mm, self._recover_mm_per_s)

    def _set_retraction(self, code: str, words: Words) -> None:
        scale = self._modes.scale
        length, feed = words.get("S"), words.get("F")
        if code == "M207":
            self._retract_mm = self._retract_mm if length is None else length * scale
            self._retract_mm_per_s = self._retract_mm_per_s if feed is None else feed * scale / 60.0
        else:
            self._recover_extra_mm = self._recover_extra_mm if length is None else length * scale
            self._recover_mm_per_s = self._recover_mm_per_s if feed is None else feed * scale / 60.0

    def _set_factor(self, code: str, words: Words) -> None:
        """Per cent; B keeps the speed's and R takes it back (gcode/config/M220.cpp, M221.cpp)."""
        percent = words.get("S")
        if code == "M221":
            self._flow_factor = self._flow_factor if percent is None else percent / 100.0
            return
        if "B" in words:
            self._kept_speed_factor = self._speed_factor
        if "R" in words:
            self._speed_factor = self._kept_speed_factor
        if percent is not None:
            self._speed_factor = percent / 100.0


def _is_unknowable(code: str, words: Words) -> bool:
    """G92 without words is all zero or nothing, G92.1 and its like want the machine's offsets, G10 L sets them."""
    main = code.partition(".")[0]
    return main in _UNKNOWABLE or (main == "G92" and (main != code or not words)) or (code == "G10" and "L" in words)


def _heater(found: Analysis, code: str, words: Words) -> Extent | None:
    """The heater that a command sets."""
    match code:
        case "M104" | "M109":
            return found.nozzle_degc
        case "M140" | "M190":
            return found.bed_degc
        case "M141" | "M191":
            return found.chamber_degc
        case "M303":
            # Tuning heats, too. E is the heater: module/temperature.h, H_BED -1, H_CHAMBER -2.
            return {-1.0: found.bed_degc, -2.0: found.chamber_degc}.get(words.get("E") or 0.0, found.nozzle_degc)
        case _:
            return None


def _heat(number: int, words: Words, extent: Extent) -> bool:
    """Whether there is something to heat to."""
    target_degc = words.get("S")
    target_degc = words.get("R") if target_degc is None else target_degc
    if target_degc is None:
        return False
    extent.add(target_degc, number)
    return target_degc > 0.0


def _changed(dynamics: Dynamics, code: str, words: Words, scale: float) -> Dynamics:
    """The machine after M201, M203, M204 or M205 (gcode/config/M200-M205.cpp)."""

    def per_axis(before: PerAxis) -> PerAxis:
        x, y, z, e = (
            before[i] if (value := words.get(axis)) is None else value * scale for i, axis in enumerate("XYZE")
        )
        return x, y, z, e

    def one(before: float, *letters: str) -> float:
        return next((value * scale for letter in letters if (value := words.get(letter)) is not None), before)

    match code:
        case "M201":
            return replace(dynamics, max_mm_per_s2=per_axis(dynamics.max_mm_per_s2))
        case "M203":
            return replace(dynamics, max_mm_per_s=per_axis(dynamics.max_mm_per_s))
        case "M204":
            return replace(
                dynamics,
                print_mm_per_s2=one(dynamics.print_mm_per_s2, "P", "S"),
                travel_mm_per_s2=one(dynamics.travel_mm_per_s2, "T", "S"),
                retract_mm_per_s2=one(dynamics.retract_mm_per_s2, "R"),
            )
        case _:
            # A program that speaks of jerk is made for a firmware that has it, and one that speaks of J likewise.
            jerk = dynamics.jerk_mm_per_s
            if words.keys() & set("XYZE"):
                jerk = per_axis(jerk or DEFAULT_JERK_MM_PER_S)
            return replace(
                dynamics,
                min_print_mm_per_s=one(dynamics.min_print_mm_per_s, "S"),
                min_travel_mm_per_s=one(dynamics.min_travel_mm_per_s, "T"),
                jerk_mm_per_s=None if "J" in words else jerk,
                deviation_mm=one(dynamics.deviation_mm, "J"),
            )
