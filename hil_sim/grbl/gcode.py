"""One line of G-code for a router: checked as a whole before anything of it is carried out. No I/O, no time.

The order of the checks and the error numbers follow grbl's gcode.c. Known are G0 to G4, G17, G20, G21, G28, G40, G49,
G53, G54 to G59, G80, G90, G91, G92, G92.1, G94, M0 to M5, M7 to M9, M30, and the words
F, S, T; everything else is refused, also what a real grblHAL can (G10, G18, G19, G38, G43, G93, M6, parameters).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from hil_sim.grbl.motion import Position

MM_PER_INCH = 25.4
START_MODES = {"motion": "G0", "plane": "G17", "distance": "G90", "feed": "G94", "units": "G21", "system": "G54"}

_WORD = re.compile(r"([A-Z])([-+]?(?:\d+\.?\d*|\.\d+))")
_COMMENT = re.compile(r"\([^)]*\)?|;.*")
_GROUPS = {
    "motion": ("G0", "G1", "G2", "G3", "G80"),
    "plane": ("G17",),
    "distance": ("G90", "G91"),
    "feed": ("G94",),
    "units": ("G20", "G21"),
    "compensation": ("G40",),
    "length": ("G49",),
    "system": ("G54", "G55", "G56", "G57", "G58", "G59"),
    "once": ("G4", "G28", "G92", "G92.1"),
    "absolute": ("G53",),
    "flow": ("M0", "M1", "M2", "M30"),
    "spindle": ("M3", "M4", "M5"),
    "coolant": ("M7", "M8", "M9"),
}
_GROUP_OF = {code: group for group, codes in _GROUPS.items() for code in codes}
_AXES = "XYZ"


class RefusedError(Exception):
    """The line is not carried out; `code` is grbl's error number."""

    def __init__(self, code: int) -> None:
        super().__init__(f"error:{code}")
        self.code = code


@dataclass
class Modes:
    """What lasts from line to line; a reset makes it anew."""

    chosen: dict[str, str] = field(default_factory=lambda: dict(START_MODES))
    feed_mm_per_min: float = 0.0
    spindle: str = "M5"
    coolant: tuple[str, ...] = ()
    rpm: float = 0.0
    tool: int = 0
    offset_mm: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Work less machine coordinates, by G92."""
    zeros_mm: dict[str, Position] = field(default_factory=lambda: {f"G5{n}": (0.0, 0.0, 0.0) for n in range(4, 10)})
    """Where the zero of each coordinate system lies in machine coordinates; no command here changes it."""

    def shift_mm(self) -> list[float]:
        """Machine less work coordinates."""
        zero = self.zeros_mm[self.chosen["system"]]
        return [a - b for a, b in zip(zero, self.offset_mm, strict=True)]

    def end_program(self) -> None:
        """What M2 and M30 do to the modes."""
        self.chosen.update(motion="G1", plane="G17", distance="G90", feed="G94", system="G54")
        self.spindle, self.coolant = "M5", ()


@dataclass(frozen=True)
class Block:
    """A checked line: what it does, in the order in which it is done."""

    dwell_s: float | None = None
    target: Position | None = None
    rapid: bool = False
    path_mm: float | None = None
    synchronises: bool = False
    pauses: bool = False
    ends: bool = False


def bare(line: str) -> str:
    """Without comments and blanks, in capitals: what counts of a line."""
    return re.sub(r"\s", "", _COMMENT.sub("", line)).upper()


def take(line: str, modes: Modes, planned: Position) -> Block:
    """Check the bare `line`, and if it is good, set `modes` by it. `planned`: where the machine will be before it."""
    if line.startswith("N") or "*" in line:
        raise RefusedError(20)
    codes, values = _words(line)
    axes = {letter: values.pop(letter) for letter in _AXES if letter in values}
    chosen = modes.chosen | {group: code for group, code in codes.items() if group in modes.chosen and code != "G80"}
    scale = MM_PER_INCH if chosen["units"] == "G20" else 1.0
    feed_mm_per_min = values.pop("F") * scale if "F" in values else modes.feed_mm_per_min
    rpm, tool = values.pop("S", modes.rpm), values.pop("T", modes.tool)
    if min(feed_mm_per_min, rpm, tool) < 0.0:
        raise RefusedError(4)
    once = codes.get("once")
    if once and axes and "motion" in codes and once != "G4":
        raise RefusedError(24)

    dwell_s = target = path_mm = None
    offset_mm = list(modes.offset_mm)
    if once == "G4":
        if "P" not in values:
            raise RefusedError(28)
        dwell_s = values.pop("P")
    elif once == "G28":
        target = (0.0, 0.0, 0.0)
    elif once == "G92":
        if not axes:
            raise RefusedError(26)
        for letter, value in axes.items():
            i = _AXES.index(letter)
            offset_mm[i] = value * scale - planned[i] + modes.zeros_mm[chosen["system"]][i]
    elif once == "G92.1":
        offset_mm = [0.0, 0.0, 0.0]
    elif axes:
        if codes.get("motion") == "G80":
            raise RefusedError(31)
        zero_mm = modes.zeros_mm[chosen["system"]]
        shift_mm = [a - b for a, b in zip(zero_mm, offset_mm, strict=True)]
        target = _target(axes, scale, chosen["distance"], "absolute" in codes, shift_mm, planned)
        if chosen["motion"] in ("G1", "G2", "G3") and feed_mm_per_min == 0.0:
            raise RefusedError(22)
        if chosen["motion"] in ("G2", "G3"):
            if "absolute" in codes:
                raise RefusedError(30)
            path_mm = _arc_mm(axes, values, scale, planned, target, chosen["motion"] == "G2")
    elif codes.get("motion") in ("G2", "G3"):
        raise RefusedError(26)
    if values:
        raise RefusedError(36)

    spindle, coolant = codes.get("spindle", modes.spindle), _coolant(codes.get("coolant"), modes.coolant)
    synchronises = spindle != modes.spindle or coolant != modes.coolant or rpm != modes.rpm or dwell_s is not None
    modes.chosen, modes.feed_mm_per_min, modes.offset_mm = chosen, feed_mm_per_min, offset_mm
    modes.spindle, modes.coolant, modes.rpm, modes.tool = spindle, coolant, rpm, int(tool)
    flow = codes.get("flow")
    rapid = chosen["motion"] == "G0" or once == "G28"
    return Block(dwell_s, target, rapid, path_mm, synchronises or bool(flow), flow == "M0", flow in ("M2", "M30"))


def _words(line: str) -> tuple[dict[str, str], dict[str, float]]:
    codes: dict[str, str] = {}
    values: dict[str, float] = {}
    position = 0
    while position < len(line):
        found = _WORD.match(line, position)
        if not found:
            raise RefusedError(2 if line[position].isalpha() else 1)
        letter, number = found[1], float(found[2])
        position = found.end()
        if letter in "GM":
            code = f"{letter}{number:g}"
            if code not in _GROUP_OF:
                raise RefusedError(20)
            if _GROUP_OF[code] in codes:
                raise RefusedError(21)
            codes[_GROUP_OF[code]] = code
        elif letter not in "FIJKPRSTXYZ":
            raise RefusedError(20)
        elif letter in values:
            raise RefusedError(25)
        else:
            values[letter] = number
    return codes, values


def _target(
    axes: dict[str, float], scale: float, distance: str, machine: bool, shift_mm: list[float], planned: Position
) -> Position:
    xyz = list(planned)
    for letter, value in axes.items():
        i = _AXES.index(letter)
        if machine:
            xyz[i] = value * scale
        elif distance == "G91":
            xyz[i] += value * scale
        else:
            xyz[i] = value * scale + shift_mm[i]
    return xyz[0], xyz[1], xyz[2]


def _arc_mm(
    axes: dict[str, float],
    values: dict[str, float],
    scale: float,
    start: Position,
    end: Position,
    clockwise: bool,
) -> float:
    """Length of the arc; takes its offsets out of `values`. The simulated tool takes the chord, in the arc's time."""
    if not {"X", "Y"} & axes.keys():
        raise RefusedError(32)
    chord_mm = math.hypot(end[0] - start[0], end[1] - start[1])
    if "R" in values:
        radius_mm = values.pop("R") * scale
        if chord_mm == 0.0:
            raise RefusedError(33)
        if chord_mm > 2.0 * abs(radius_mm):
            raise RefusedError(34)
        angle = 2.0 * math.asin(chord_mm / (2.0 * abs(radius_mm)))
        flat_mm = abs(radius_mm) * (2.0 * math.pi - angle if radius_mm < 0.0 else angle)
    else:
        if not {"I", "J"} & values.keys():
            raise RefusedError(35)
        i_mm, j_mm = values.pop("I", 0.0) * scale, values.pop("J", 0.0) * scale
        radius_mm = math.hypot(i_mm, j_mm)
        end_radius_mm = math.hypot(end[0] - start[0] - i_mm, end[1] - start[1] - j_mm)
        if abs(end_radius_mm - radius_mm) > max(0.005, 0.001 * radius_mm):
            raise RefusedError(33)
        at_start = math.atan2(-j_mm, -i_mm)
        at_end = math.atan2(end[1] - start[1] - j_mm, end[0] - start[0] - i_mm)
        angle = (at_start - at_end if clockwise else at_end - at_start) % (2.0 * math.pi)
        flat_mm = radius_mm * (angle or 2.0 * math.pi)
    return math.hypot(flat_mm, end[2] - start[2])


def _coolant(code: str | None, before: tuple[str, ...]) -> tuple[str, ...]:
    if code is None:
        return before
    return () if code == "M9" else tuple(sorted({*before, code}))
