"""RS-274 as the mill reads it: lines in, actions with their lengths and durations out. No clock, no I/O.

Source: NIST IR 6556 (RS274/NGC interpreter, version 3), sections 3.3 to 3.8. Known are G0 to G4, G17 to G21, G28, G40
to G43, G49, G53 to G59, G80 to G83, G90, G91, G94, G98, G99, M0 to M9, M30 and the words D, F, H, I, J, K, L, N, O, P,
Q, R, S, T, X, Y, Z. Anything else is an alarm, as on most controllers; so are parameters and expressions. Cutter
compensation is taken note of, and the path stays that of the tool's centre; M1 does not stop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from hil_sim.cnc.action import Action, Arc, Position, ProgramError

MM_PER_INCH = 25.4
RAPID_MM_PER_MIN = 12000.0
TOOL_CHANGE_S = 4.0
SPINDLE_S = 1.5
"""Until the spindle has its new speed."""
MAX_RPM = 24000.0
ARC_TOLERANCE_MM = 0.01
"""How far the two radii of an arc may differ."""
PECK_RETRACT_MM = 0.25
MAX_REPEATS = 10_000
WORK_OFFSETS_MM = {
    "G54": (50.0, 50.0, -300.0),
    "G55": (250.0, 50.0, -300.0),
    "G56": (50.0, 200.0, -300.0),
    "G57": (250.0, 200.0, -300.0),
    "G58": (0.0, 0.0, -300.0),
    "G59": (0.0, 0.0, 0.0),
}
"""Machine position of each work coordinate system's zero."""

Travel = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
TRAVEL_MM: Travel = ((0.0, 500.0), (0.0, 400.0), (-400.0, 0.0))
HOME: Position = (0.0, 0.0, 0.0)

_WORD = re.compile(r"([A-Z])([-+]?(?:\d+\.?\d*|\.\d+))")
_COMMENT = re.compile(r"\([^()]*\)|;.*")
_PLANES = {"G17": (0, 1, 2), "G18": (2, 0, 1), "G19": (1, 2, 0)}
"""First and second axis of the plane, and the axis across."""
_CENTRE = "IJK"
_GROUPS = {
    "motion": ("G0", "G1", "G2", "G3", "G80", "G81", "G82", "G83"),
    "plane": ("G17", "G18", "G19"),
    "units": ("G20", "G21"),
    "distance": ("G90", "G91"),
    "feed": ("G94",),
    "radius": ("G40", "G41", "G42"),
    "length": ("G43", "G49"),
    "system": ("G54", "G55", "G56", "G57", "G58", "G59"),
    "retract": ("G98", "G99"),
    "once": ("G4", "G28", "G53"),
}
_GROUP_OF = {code: group for group, codes in _GROUPS.items() for code in codes}
_M_CODES = frozenset({"M0", "M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8", "M9", "M30"})
_WORDS = frozenset("DFHIJKLNOPQRSTXYZ")


@dataclass
class Modes:
    """What lasts from line to line."""

    chosen: dict[str, str] = field(
        default_factory=lambda: {
            "motion": "G0",
            "plane": "G17",
            "units": "G21",
            "distance": "G90",
            "feed": "G94",
            "radius": "G40",
            "length": "G49",
            "system": "G54",
            "retract": "G98",
        }
    )
    feed_mm_per_min: float = 0.0
    rpm: float = 0.0
    direction: int = 0
    """1 with M3, -1 with M4, 0 with M5."""
    tool: int = 0
    next_tool: int = 0
    length_mm: float = 0.0
    cycle: dict[str, float] = field(default_factory=dict)
    """R, Z, P and Q of the canned cycle, in mm and s."""


@dataclass(frozen=True)
class _Line:
    number: int
    text: str
    codes: frozenset[str]
    words: dict[str, float]


class Interpreter:
    """Reads one program; the machine's position and modes are handed on from action to action."""

    def __init__(
        self, position: Position = HOME, tool_lengths_mm: dict[int, float] | None = None, travel_mm: Travel = TRAVEL_MM
    ) -> None:
        """`position`: in machine coordinates. `tool_lengths_mm`: what G43 H adds, by tool number."""
        self.modes = Modes()
        self._at = position
        self._lengths_mm = tool_lengths_mm or {}
        self._travel_mm = travel_mm

    def actions(self, lines: Iterable[str]) -> Iterator[Action]:
        """What to do, one after the other, up to M2 or M30. Raises `ProgramError` where the program goes wrong."""
        for number, raw in enumerate(lines, 1):
            text = raw.strip()
            line = self._parse(number, text)
            if line is None:
                continue
            made = list(self._line(line)) or [self._still(line)]
            yield replace(made[0], text=text)
            yield from (replace(each, text="") for each in made[1:])
            if made[-1].ends:
                return
        raise ProgramError(0, "the program has no end (M2 or M30)")

    # -- reading

    def _parse(self, number: int, text: str) -> _Line | None:
        bare = re.sub(r"\s+", "", _COMMENT.sub("", text)).upper().removeprefix("/")
        if not bare or bare == "%":
            return None
        if _WORD.sub("", bare):
            raise ProgramError(number, f"cannot read {text!r}")
        codes: list[str] = []
        words: dict[str, float] = {}
        for letter, digits in _WORD.findall(bare):
            value = float(digits)
            if letter in "GM":
                codes.append(f"{letter}{value:g}")
            elif letter not in _WORDS:
                raise ProgramError(number, f"no word begins with {letter}")
            elif letter in words:
                raise ProgramError(number, f"{letter} stands twice in one line")
            else:
                words[letter] = value
        self._check_codes(number, codes)
        return _Line(number, text, frozenset(codes), words)

    def _check_codes(self, number: int, codes: list[str]) -> None:
        groups: list[str] = []
        for code in codes:
            if code not in _GROUP_OF and code not in _M_CODES:
                raise ProgramError(number, f"{code} is not known")
            if code in _GROUP_OF:
                groups.append(_GROUP_OF[code])
        if len(set(groups)) < len(groups):
            raise ProgramError(number, f"{' and '.join(sorted(codes))} exclude each other")

    # -- doing: in the order of RS274/NGC, table 8

    def _line(self, line: _Line) -> Iterator[Action]:
        modes = self.modes
        for code in line.codes & _GROUP_OF.keys():
            if _GROUP_OF[code] != "once":
                modes.chosen[_GROUP_OF[code]] = code
        scale = MM_PER_INCH if modes.chosen["units"] == "G20" else 1.0
        if "F" in line.words:
            modes.feed_mm_per_min = line.words["F"] * scale
        if "S" in line.words:
            modes.rpm = line.words["S"]
            if modes.rpm > MAX_RPM:
                raise ProgramError(line.number, f"S{modes.rpm:g} is more than {MAX_RPM:g} rpm")
        if "T" in line.words:
            modes.next_tool = int(line.words["T"])
        if "M6" in line.codes:
            modes.tool = modes.next_tool
            yield self._still(line, TOOL_CHANGE_S, tool=modes.tool)
        yield from self._spindle_and_coolant(line)
        if "G4" in line.codes:
            yield self._still(line, self._dwell_s(line))
        if "G43" in line.codes:
            modes.length_mm = self._lengths_mm.get(int(line.words.get("H", modes.tool)), 0.0)
        elif "G49" in line.codes:
            modes.length_mm = 0.0
        yield from self._motion(line, scale)
        if line.codes & {"M2", "M30"}:
            yield self._still(line, rpm=0.0, coolant=False, ends=True)
        elif line.codes & {"M0"}:
            yield self._still(line, stops=True)

    def _spindle_and_coolant(self, line: _Line) -> Iterator[Action]:
        modes = self.modes
        before = modes.direction
        for code, direction in (("M3", 1), ("M4", -1), ("M5", 0)):
            if code in line.codes:
                modes.direction = direction
        if modes.direction != before or ("S" in line.words and modes.direction):
            yield self._still(line, SPINDLE_S, rpm=modes.direction * modes.rpm)
        if line.codes & {"M7", "M8", "M9"}:
            yield self._still(line, coolant="M9" not in line.codes)

    def _dwell_s(self, line: _Line) -> float:
        if "P" not in line.words or line.words["P"] < 0.0:
            raise ProgramError(line.number, "G4 needs its seconds as P")
        return line.words["P"]

    def _motion(self, line: _Line, scale: float) -> Iterator[Action]:
        if "G4" in line.codes:
            return
        mm = {letter: value * scale for letter, value in line.words.items()}
        has_axes = bool(mm.keys() & set("XYZ"))
        motion = self.modes.chosen["motion"]
        if "G28" in line.codes:
            if has_axes:
                yield self._straight(line, self._target(mm, line), rapid=True)
            target = [HOME[i] if "XYZ"[i] in mm or not has_axes else self._at[i] for i in range(3)]
            yield self._straight(line, (target[0], target[1], target[2]), rapid=True)
        elif motion in ("G81", "G82", "G83"):
            if has_axes or line.codes & {motion}:
                yield from self._cycle(line, motion, mm)
        elif has_axes or (motion in ("G2", "G3") and mm.keys() & set("IJKR")):
            if motion == "G80":
                raise ProgramError(line.number, "axis words after G80 without a motion code")
            target_mm = self._target(mm, line)
            if motion in ("G2", "G3"):
                yield self._arc(line, target_mm, mm, clockwise=motion == "G2")
            else:
                yield self._straight(line, target_mm, rapid=motion == "G0")

    def _target(self, mm: dict[str, float], line: _Line) -> Position:
        """The axis words as a place in machine coordinates."""
        found = list(self._at)
        zero = self._zero()
        for i, letter in enumerate("XYZ"):
            if letter not in mm:
                continue
            if "G53" in line.codes:
                found[i] = mm[letter]
            elif self.modes.chosen["distance"] == "G91":
                found[i] += mm[letter]
            else:
                found[i] = zero[i] + mm[letter]
        return found[0], found[1], found[2]

    def _zero(self) -> Position:
        x, y, z = WORK_OFFSETS_MM[self.modes.chosen["system"]]
        return x, y, z + self.modes.length_mm

    # -- moves

    def _straight(self, line: _Line, target: Position, *, rapid: bool) -> Action:
        return self._move(line, target, math.dist(self._at, target), None, rapid=rapid)

    def _arc(self, line: _Line, target: Position, mm: dict[str, float], *, clockwise: bool) -> Action:
        first, second, across = _PLANES[self.modes.chosen["plane"]]
        start = (self._at[first], self._at[second])
        end = (target[first], target[second])
        if "R" in mm:
            centre = self._centre_by_radius(line, start, end, mm["R"], clockwise=clockwise)
        else:
            centre = (start[0] + mm.get(_CENTRE[first], 0.0), start[1] + mm.get(_CENTRE[second], 0.0))
        radius_mm = math.dist(start, centre)
        if radius_mm == 0.0 or abs(radius_mm - math.dist(end, centre)) > ARC_TOLERANCE_MM:
            raise ProgramError(line.number, "the end is not on the arc around this centre")
        from_rad = math.atan2(start[1] - centre[1], start[0] - centre[0])
        to_rad = math.atan2(end[1] - centre[1], end[0] - centre[0])
        angle_rad = (to_rad - from_rad) % math.tau
        if math.isclose(angle_rad, math.tau, abs_tol=1e-9) or angle_rad < 1e-9:
            angle_rad = math.tau  # back to the start: the whole circle
        if clockwise and angle_rad < math.tau:
            angle_rad -= math.tau
        elif clockwise:
            angle_rad = -math.tau
        arc = Arc(first, second, centre, angle_rad)
        length_mm = math.hypot(radius_mm * angle_rad, target[across] - self._at[across])
        return self._move(line, target, length_mm, arc, rapid=False)

    def _centre_by_radius(
        self, line: _Line, start: tuple[float, float], end: tuple[float, float], radius_mm: float, *, clockwise: bool
    ) -> tuple[float, float]:
        chord_mm = math.dist(start, end)
        if chord_mm == 0.0 or chord_mm > 2.0 * abs(radius_mm) + ARC_TOLERANCE_MM:
            raise ProgramError(line.number, f"no arc of R{radius_mm:g} mm reaches from the start to the end")
        height_mm = math.sqrt(max(0.0, radius_mm * radius_mm - chord_mm * chord_mm / 4.0))
        # The centre lies to the left of the chord for a short counter-clockwise arc; a negative R is the long one.
        side = 1.0 if (radius_mm > 0.0) is not clockwise else -1.0
        ux, uy = (end[0] - start[0]) / chord_mm, (end[1] - start[1]) / chord_mm
        return (
            (start[0] + end[0]) / 2.0 - side * height_mm * uy,
            (start[1] + end[1]) / 2.0 + side * height_mm * ux,
        )

    def _cycle(self, line: _Line, motion: str, mm: dict[str, float]) -> Iterator[Action]:
        """Drilling: over the hole, down to R, down to Z in one go (G81, with a dwell G82) or in pecks (G83), and up."""
        cycle = self.modes.cycle
        if motion in line.codes:
            cycle.clear()
        zero_z = self._zero()[2]
        incremental = self.modes.chosen["distance"] == "G91"
        for letter in "RZ":
            if letter in mm:
                base = (self._at[2] if letter == "R" else cycle.get("R", self._at[2])) if incremental else zero_z
                cycle[letter] = base + mm[letter]
        for letter, value in (("P", line.words.get("P")), ("Q", mm.get("Q"))):
            if value is not None:
                cycle[letter] = value
        if not {"R", "Z"} <= cycle.keys() or cycle["R"] < cycle["Z"]:
            raise ProgramError(line.number, f"{motion} needs R above Z")
        if motion == "G83" and cycle.get("Q", 0.0) <= 0.0:
            raise ProgramError(line.number, "G83 needs its peck as Q above 0")
        repeats = max(1, int(line.words.get("L", 1)))
        if repeats > MAX_REPEATS or (motion == "G83" and (cycle["R"] - cycle["Z"]) / cycle["Q"] > MAX_REPEATS):
            raise ProgramError(line.number, f"more than {MAX_REPEATS} holes or pecks in one line")
        before_z = max(self._at[2], cycle["R"])
        across = {letter: value for letter, value in mm.items() if letter in "XY"}
        for _ in range(repeats):
            x, y, _z = self._target(across, line)
            yield self._straight(line, (x, y, before_z), rapid=True)
            yield self._straight(line, (x, y, cycle["R"]), rapid=True)
            if motion == "G83":
                yield from self._pecks(line, x, y, cycle)
            else:
                yield self._straight(line, (x, y, cycle["Z"]), rapid=False)
            if motion == "G82":
                yield self._still(line, cycle.get("P", 0.0))
            up_z = before_z if self.modes.chosen["retract"] == "G98" else cycle["R"]
            yield self._straight(line, (x, y, up_z), rapid=True)

    def _pecks(self, line: _Line, x: float, y: float, cycle: dict[str, float]) -> Iterator[Action]:
        depth_z = cycle["R"]
        while depth_z > cycle["Z"]:
            if depth_z < cycle["R"]:
                yield self._straight(line, (x, y, cycle["R"]), rapid=True)
                yield self._straight(line, (x, y, depth_z + PECK_RETRACT_MM), rapid=True)
            depth_z = max(cycle["Z"], depth_z - cycle["Q"])
            yield self._straight(line, (x, y, depth_z), rapid=False)

    def _move(self, line: _Line, target: Position, path_mm: float, arc: Arc | None, *, rapid: bool) -> Action:
        feed = RAPID_MM_PER_MIN if rapid else self.modes.feed_mm_per_min
        if feed <= 0.0:
            raise ProgramError(line.number, "no feed rate has been set")
        made = Action(
            line.number,
            line.text,
            self._at,
            target,
            path_mm,
            path_mm / feed * 60.0,
            0.0 if rapid else feed,
            rapid,
            arc,
        )
        self._check_travel(line, made)
        self._at = target
        return made

    def _check_travel(self, line: _Line, made: Action) -> None:
        places = [made.end]
        if made.arc:
            # An arc is farthest out where it crosses an axis direction through its centre: looked for in small steps.
            places += [made.position(step / 64.0) for step in range(1, 64)]
        for place in places:
            for letter, mm, (low, high) in zip("XYZ", place, self._travel_mm, strict=True):
                if not low - 1e-6 <= mm <= high + 1e-6:
                    raise ProgramError(line.number, f"{letter} {mm:.3f} mm is outside of {low:g} to {high:g} mm")

    def _still(
        self,
        line: _Line,
        duration_s: float = 0.0,
        *,
        tool: int | None = None,
        rpm: float | None = None,
        coolant: bool | None = None,
        stops: bool = False,
        ends: bool = False,
    ) -> Action:
        return Action(
            line.number,
            line.text,
            self._at,
            self._at,
            duration_s=duration_s,
            tool=tool,
            rpm=rpm,
            coolant=coolant,
            stops=stops,
            ends=ends,
        )
