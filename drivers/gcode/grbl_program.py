"""What a program for grbl or grblHAL does, read once from end to end. PURE.

A line is read as grbl reads it: comments and blanks count for nothing, several commands may stand on it, modes last
from line to line, and the motion comes after all that the line says beside it. What grbl would refuse in mid-program is
refused here, and so is what nobody can tell before it is carried out. Lengths are mm, feed rates mm/min, times s.

Rules

1. A program begins with what `PREAMBLE` sets, no feed rate and no spindle speed: it says for itself what it needs.
2. Work coordinates are names that a person gives to places, by touching the workpiece; only the controller knows where
   they are. So what is found is kept by coordinate system (`FRAMES`), and G53 are the machine's own coordinates.
3. A program does not move the work zero (G10, G92, G43.1), and does not move by what is stored in the machine (G28,
   G30) or what is felt (G38). A relative move, or an arc, begins where the program itself has gone.
4. Nothing comes after M2 or M30: grbl would carry it out.

Sources: gnea/grbl 1.1h grbl/gcode.c (gc_execute_line), README.md ("List of Supported G-Codes in Grbl v1.1"), and
protocol.c for comments; grblHAL/core gcode.c reads the same words alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from drivers.analysis import TIMELINE_POINTS, Extent
from drivers.gcode.grbl import unsendable
from drivers.motion import Arc, Dynamics, Planner

PREAMBLE = "G17 G21 G40 G54 G80 G90 G94 M5 M9"
"""What a driver sends before a program, so that it means the same whatever was done at the machine before."""

HOME = "$H"
"""The homing cycle: the only command of its kind that may be in a program, and only where the site says so."""

MACHINE = "G53"
FRAMES = (MACHINE, "G54", "G55", "G56", "G57", "G58", "G59")
"""The machine's own coordinates, and those of the work."""

SMALL_ROUTER = Dynamics(max_mm_per_s=(50.0, 50.0, 25.0, 50.0), max_mm_per_s2=(200.0, 200.0, 100.0, 200.0))
"""For durations: what a small router does. Its own figures are in its settings ($110 to $122), and nobody is there to
ask; cutting is bound by the feed rate, not by these."""

_COMMENT = re.compile(r"\([^)]*\)?|;.*")
_WORD = re.compile(r"([A-Z])([-+]?(?:\d+\.?\d*|\.\d+))")
_WAITS = re.compile(r"M0*([016])(?![.\d])")
_MM_PER_INCH = 25.4
_GREATEST = 1e9
_ARC_MM, _ARC_WORST_MM, _ARC_SHARE = 0.005, 0.5, 0.001
"""How far the end of an arc may be off its circle: grbl/gcode.c, at STATUS_GCODE_INVALID_TARGET."""

_GROUPS = {
    "motion": ("G0", "G1", "G2", "G3", "G80"),
    "plane": ("G17", "G18", "G19"),
    "distance": ("G90", "G91"),
    "arc distance": ("G91.1",),
    "feed mode": ("G93", "G94"),
    "units": ("G20", "G21"),
    "compensation": ("G40",),
    "tool length": ("G49",),
    "coordinate system": FRAMES[1:],
    "path": ("G61",),
    "dwell": ("G4",),
    "machine coordinates": (MACHINE,),
    "program flow": ("M0", "M1", "M2", "M30"),
    "tool change": ("M6",),
    "spindle": ("M3", "M4", "M5"),
    "coolant": ("M7", "M8", "M9"),
}
_GROUP_OF = {code: group for group, codes in _GROUPS.items() for code in codes}
_STORED = "a move to where the program says: only the machine knows where that is"
_ZERO = "the work zero as it was set at the machine"
_WHY_NOT = {
    **dict.fromkeys(("G28", "G30"), _STORED),
    **dict.fromkeys(("G38.2", "G38.3", "G38.4", "G38.5"), _STORED),
    **dict.fromkeys(("G10", "G92", "G92.1", "G92.2", "G92.3", "G28.1", "G30.1", "G43", "G43.1", "G43.2"), _ZERO),
}
_PLANES = {"G17": ("X", "Y", "I", "J"), "G18": ("Z", "X", "K", "I"), "G19": ("Y", "Z", "J", "K")}
_AXES = "XYZ"


class UnlawfulError(ValueError):
    """A line that must not be carried out: what is wrong with it, and what would be right. `line` counts from 1."""

    def __init__(self, value: str, limit: str) -> None:
        super().__init__(f"{value}; must be {limit}")
        self.value, self.limit, self.line = value, limit, 0


@dataclass(frozen=True, slots=True)
class Law:
    """What a profile says of programs. `longest`: characters that a line may have.

    `forbidden` maps commands to the reason; `allowed` are those of the commands that need somebody's word (``M6``) that
    have it. `homes`: the first line must be `HOME`, and it may.
    """

    longest: int
    forbidden: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()
    homes: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A coordinate of one axis, in mm, by the names of `frame`."""

    frame: str
    mm: float


@dataclass(slots=True)
class Found:
    """What a program does. `extents_mm`: by coordinate system, then by axis. `end`: where it leaves the axes it moves.

    `timeline` has pairs of lines carried out and the seconds passed by then; `codes` all commands that it uses.
    """

    lines: int = 0
    extents_mm: dict[str, dict[str, Extent]] = field(default_factory=dict)
    end: dict[str, Place] = field(default_factory=dict)
    feed_mm_per_min: Extent = field(default_factory=Extent)
    rpm: Extent = field(default_factory=Extent)
    pauses: int = 0
    tool_changes: int = 0
    duration_s: float = 0.0
    timeline: tuple[tuple[int, float], ...] = ()
    codes: set[str] = field(default_factory=set)


def comments_on(line: str) -> str:
    """What a line says to people, without the signs around it."""
    return " ".join(text for found in _COMMENT.findall(line) if (text := found.strip("();").strip()))


def waits_at(text: str) -> str:
    """The command of a line at which the program waits for a person; empty if there is none."""
    found = _WAITS.search("".join(text.split()).upper())
    return f"M{int(found[1])}" if found else ""


def lines_of(file: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines that are sent, with their numbers in the file from 1: stripped, without comments, none of them empty.

    ``%`` alone on a line marks the beginning and the end of a tape, and is none of them.
    """
    for number, line in enumerate(file, 1):
        if (text := _COMMENT.sub("", line).strip()) and text != "%":
            yield number, text


def read(lines: Iterable[tuple[int, str]], law: Law) -> Found:
    """Read a whole program, as `lines_of` gives it. Raises `UnlawfulError`, with the line's number."""
    reader = _Reader(law)
    points: list[tuple[int, float]] = []
    every = mark = 1
    for number, text in lines:
        try:
            reader.take(number, text)
        except UnlawfulError as error:
            error.line = number
            raise
        if reader.found.lines == mark:
            points.append((mark, reader.planner.seconds))
            if len(points) == TIMELINE_POINTS:
                points, every = points[1::2], every * 2
            mark += every
    found = reader.found
    found.duration_s = reader.planner.stop()
    if found.lines:
        found.timeline = (*(point for point in points if point[0] < found.lines), (found.lines, found.duration_s))
    return found


class _Reader:
    """One pass over a program."""

    def __init__(self, law: Law) -> None:
        self.found = Found()
        self.planner = Planner(SMALL_ROUTER)
        self._law = law
        self._motion, self._plane, self._frame = "G80", "G17", "G54"
        self._scale, self._absolute, self._inverse = 1.0, True, False
        self._feed_mm_per_min = 0.0
        self._has_speed = False
        self._ended = ""

    def take(self, number: int, text: str) -> None:
        if len(text) > self._law.longest:
            raise UnlawfulError(f"{len(text)} characters", f"at most {self._law.longest}")
        if self._law.homes and not self.found.lines:
            if text.upper() != HOME:
                raise UnlawfulError(repr(text), f"{HOME} on the first line, for limits.homing is 'program'")
            self.found.lines = 1
            return
        codes, words = _parsed(text, self._law)
        if self._ended:
            raise UnlawfulError(repr(text), f"nothing behind {self._ended}, which ends the program")
        self.found.lines += 1
        self.found.codes.update(codes.values())
        axes = {letter: words.pop(letter) for letter in _AXES if letter in words}
        feed = self._modes(number, codes, words)
        if "dwell" in codes:
            if len(codes) > 1 or axes or set(words) != {"P"} or words["P"] < 0.0:
                raise UnlawfulError(repr(text), "G4 P and seconds, alone on its line")
            self.planner.wait(words.pop("P"))
        self._move(number, codes, words, axes, feed)
        if words:
            raise UnlawfulError(f"{min(words)} in {text!r}", "words that a command of the line uses")
        flow = codes.get("program flow", "")
        self.found.pauses += flow in ("M0", "M1")
        self._ended = flow if flow in ("M2", "M30") else ""

    def _modes(self, number: int, codes: dict[str, str], words: dict[str, float]) -> float | None:
        """What lasts; the feed rate that the line gives, as it stands there."""
        self._scale = {"G20": _MM_PER_INCH, "G21": 1.0}.get(codes.get("units", ""), self._scale)
        self._absolute = codes.get("distance", "G90" if self._absolute else "G91") == "G90"
        self._inverse = codes.get("feed mode", "G93" if self._inverse else "G94") == "G93"
        self._plane = codes.get("plane", self._plane)
        self._frame = codes.get("coordinate system", self._frame)
        self._motion = codes.get("motion", self._motion)
        if "feed mode" in codes:
            self._feed_mm_per_min = 0.0  # grbl/gcode.c: a rate of the other mode means nothing
        feed = words.pop("F", None)
        if feed is not None and feed <= 0.0:
            raise UnlawfulError(f"F{feed:g}", "a feed rate above 0")
        if feed is not None and not self._inverse:
            self._feed_mm_per_min = feed * self._scale
            self.found.feed_mm_per_min.add(self._feed_mm_per_min, number)
        if (speed := words.pop("S", None)) is not None:
            if speed < 0.0:
                raise UnlawfulError(f"S{speed:g}", "a spindle speed of 0 or more")
            self._has_speed = True
            self.found.rpm.add(speed, number)
        if codes.get("spindle") in ("M3", "M4") and not self._has_speed:
            raise UnlawfulError(codes["spindle"], "an S before the spindle is started")
        tool = words.pop("T", 0.0)
        if tool < 0.0 or tool != int(tool):
            raise UnlawfulError(f"T{tool:g}", "a whole number of 0 or more")
        self.found.tool_changes += "tool change" in codes
        return feed

    def _move(
        self, number: int, codes: dict[str, str], words: dict[str, float], axes: dict[str, float], feed: float | None
    ) -> None:
        motion = self._motion
        if not axes:
            if codes.get("motion") in ("G2", "G3") or "machine coordinates" in codes:
                raise UnlawfulError(" ".join(codes.values()), "with the axes that it moves")
            return
        if motion == "G80":
            raise UnlawfulError(f"{' '.join(axes)} without a motion", "G0, G1, G2 or G3 on this line or before it")
        frame = self._frame
        if "machine coordinates" in codes:
            frame = MACHINE
            if motion not in ("G0", "G1"):
                raise UnlawfulError(f"G53 with {motion}", "G53 with G0 or G1 only")
        seconds: float | None = None
        if motion != "G0":
            if self._inverse:
                if feed is None:
                    raise UnlawfulError(motion, "with an F of its own: G93 is in force")
                seconds = 60.0 / feed
            elif not self._feed_mm_per_min:
                raise UnlawfulError(motion, "with a feed rate (F) on this line or before it")
        before = dict(self.found.end)
        absolute = self._absolute or frame == MACHINE
        for axis, value in axes.items():
            self.found.end[axis] = self._target(axis, _bounded(value * self._scale), frame, before, absolute=absolute)
        self._note(number, {axis: self.found.end[axis] for axis in axes})
        if motion in ("G2", "G3"):
            self._arc(number, words, before, axes, seconds)
        else:
            self._plan([self._way(before)], seconds, rapid=motion == "G0")

    def _target(self, axis: str, mm: float, frame: str, before: dict[str, Place], *, absolute: bool) -> Place:
        if absolute:
            return Place(frame, mm)
        start = before.get(axis)
        if start is None:
            raise UnlawfulError(f"{axis} by G91", f"an absolute move of {axis} before the first relative one")
        return Place(start.frame, start.mm + mm)

    def _note(self, number: int, places: dict[str, Place]) -> None:
        for axis, place in places.items():
            extents = self.found.extents_mm.setdefault(place.frame, {letter: Extent() for letter in _AXES})
            extents[axis].add(place.mm, number)

    def _way(self, before: dict[str, Place]) -> tuple[float, float, float]:
        """How far each axis moves, as far as anybody can tell: 0 from where only the machine knows."""
        after = self.found.end
        x, y, z = (
            after[axis].mm - before[axis].mm if axis in before and before[axis].frame == after[axis].frame else 0.0
            for axis in _AXES
        )
        return x, y, z

    def _plan(self, ways: list[tuple[float, float, float]], seconds: float | None, *, rapid: bool = False) -> None:
        if seconds is not None:
            self.planner.wait(seconds)
            return
        speed = max(SMALL_ROUTER.max_mm_per_s) * 2.0 if rapid else self._feed_mm_per_min / 60.0
        for x, y, z in ways:
            self.planner.add(x, y, z, 0.0, speed)

    def _arc(
        self,
        number: int,
        words: dict[str, float],
        before: dict[str, Place],
        axes: dict[str, float],
        seconds: float | None,
    ) -> None:
        first, second, *centre = _PLANES[self._plane]
        if first not in axes and second not in axes:
            raise UnlawfulError(self._motion, f"an arc in {self._plane} with {first} or {second}")
        ends = [self.found.end.get(axis) for axis in (first, second)]
        starts = [before.get(axis) for axis in (first, second)]
        known = [place for place in (*starts, *ends) if place is not None and place.frame == self._frame]
        if len(known) < 4:
            raise UnlawfulError(self._motion, f"a move to {first} and {second} in {self._frame} before an arc")
        start, end = (known[0].mm, known[1].mm), (known[2].mm, known[3].mm)
        offset, radius = self._circle(words, centre, start, end)
        arc = Arc.between(start, end, offset, radius, 0, clockwise=self._motion == "G2")
        if arc is None:
            raise UnlawfulError(self._motion, "an arc with a radius")
        for i, mm in arc.outmost():
            self._note(number, {(first, second)[i]: Place(self._frame, mm)})
        chords = arc.chords()
        straight = dict(zip(_AXES, self._way(before), strict=True))
        ways = []
        for chord in chords:
            part = {axis: mm / len(chords) for axis, mm in straight.items()} | {first: chord[0], second: chord[1]}
            ways.append((part["X"], part["Y"], part["Z"]))
        self._plan(ways, seconds)

    def _circle(
        self, words: dict[str, float], centre: list[str], start: tuple[float, float], end: tuple[float, float]
    ) -> tuple[tuple[float, float], float]:
        """Offset of the centre, and radius if that is how it is given; both as grbl would take them."""
        if "R" in words:
            radius = _bounded(words.pop("R") * self._scale)
            chord = math.dist(start, end)
            if not chord or chord > 2.0 * abs(radius):
                raise UnlawfulError(f"R{radius:g} mm", f"a radius that reaches over {chord:g} mm, more than 0")
            return (0.0, 0.0), radius
        if not set(centre) & words.keys():
            raise UnlawfulError(self._motion, f"an arc with {centre[0]}, {centre[1]} or R")
        i, j = (_bounded(words.pop(letter, 0.0) * self._scale) for letter in centre)
        radius, reached = math.hypot(i, j), math.dist((start[0] + i, start[1] + j), end)
        off = abs(reached - radius)
        if off > _ARC_WORST_MM or (off > _ARC_MM and off > _ARC_SHARE * radius):
            raise UnlawfulError(f"an arc whose end is {off:.3f} mm off its circle", f"at most {_ARC_MM:g} mm")
        return (i, j), 0.0


def _parsed(text: str, law: Law) -> tuple[dict[str, str], dict[str, float]]:
    """The commands of a line by their groups, and its other words."""
    if text.startswith("$"):
        raise UnlawfulError(repr(text), "no $ command: settings, homing and unlocking are a person's, at the machine")
    if why := unsendable(text):
        raise UnlawfulError(repr(text), f"a line of plain G-code: {why}")
    line = "".join(text.split()).upper()
    codes: dict[str, str] = {}
    words: dict[str, float] = {}
    at = 0
    while at < len(line):
        match = _WORD.match(line, at)
        if match is None:
            raise UnlawfulError(repr(text), "letters, each with a number behind it")
        at = match.end()
        letter, value = match[1], _bounded(float(match[2]))
        if letter in "GM":
            code = f"{letter}{value:g}"
            _lawful(code, law)
            group = _GROUP_OF[code]
            if group in codes:
                raise UnlawfulError(f"{codes[group]} and {code}", f"one command for the {group} on a line")
            codes[group] = code
        elif letter == "N":
            raise UnlawfulError(repr(text), "a line without a number, for grblHAL refuses one")
        elif letter not in "FIJKPRSTXYZ":
            raise UnlawfulError(f"{letter} in {text!r}", "words that grbl has")
        elif letter in words:
            raise UnlawfulError(repr(text), "each letter once")
        else:
            words[letter] = value
    return codes, words


def _lawful(code: str, law: Law) -> None:
    if reason := law.forbidden.get(code):
        raise UnlawfulError(code, f"never in a program, for it {reason}")
    if code == "M6" and code not in law.allowed:
        raise UnlawfulError(code, "no tool change, unless the profile allows it")
    if code not in _GROUP_OF:
        raise UnlawfulError(code, _WHY_NOT.get(code, "a command that grbl 1.1 has"))


def _bounded(value: float) -> float:
    """So that no number stops the arithmetic; the limits refuse such a one like any other."""
    return max(-_GREATEST, min(_GREATEST, value))
