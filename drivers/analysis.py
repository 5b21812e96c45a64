"""What a G-code program does, read once from end to end. PURE.

Understands the dialect that slicers write for Marlin: G0-G3, G20/G21, G28, G90/G91, G92, M82/M83, M104/M109,
M140/M190. Lengths are mm, temperatures degC. Line numbers are those of the file, from 1.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_CODE = re.compile(r"([GMT])0*(\d+)(?:\.0*([1-9]\d*)|\.0*)?")
_WORD = re.compile(r"([A-Z])\s*([-+]?(?:\d+\.?\d*|\.\d+))?")
_MM_PER_INCH = 25.4


def command_on(line: str) -> str:
    """The command on one line of a program: comment and blanks around it stripped; empty if there is none."""
    return line.partition(";")[0].strip()


def commands(lines: Iterable[str]) -> Iterator[str]:
    """The commands of a program, in order."""
    return (command for line in lines if (command := command_on(line)))


def code_of(command: str) -> str:
    """``G1`` of ``G1 X10``, ``G1X10`` and ``G01 X10``; ``M862.3`` of ``M862.3 P "MK3"``; empty if there is none.

    Firmware needs no blank after the number and reads leading zeros (Marlin/src/gcode/parser.cpp, `parse`).
    """
    match = _CODE.match(command)
    if match is None:
        return ""
    letter, number, subcode = match.groups()
    return f"{letter}{number}.{subcode}" if subcode else f"{letter}{number}"


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


@dataclass(slots=True)
class Analysis:
    """What was found. `extents_mm` are machine coordinates, whatever a `G92` calls them, of the axes that are moved."""

    commands: int = 0
    extents_mm: dict[str, Extent] = field(default_factory=lambda: {axis: Extent() for axis in "XYZ"})
    nozzle_degc: Extent = field(default_factory=Extent)
    bed_degc: Extent = field(default_factory=Extent)
    filament_mm: float = 0.0


@dataclass(slots=True)
class _Modes:
    """`position_mm` as the program counts it; `shift_mm` added to it is the machine's own."""

    position_mm: dict[str, float] = field(default_factory=lambda: dict.fromkeys("XYZE", 0.0))
    shift_mm: dict[str, float] = field(default_factory=lambda: dict.fromkeys("XYZE", 0.0))
    scale: float = 1.0
    absolute: bool = True
    absolute_e: bool = True


def analyse(lines: Iterable[tuple[int, str]]) -> Analysis:
    """Read a whole program: pairs of line number and command."""
    found = Analysis()
    modes = _Modes()
    for number, command in lines:
        found.commands += 1
        _carry_out(number, command, modes, found)
    return found


@dataclass(frozen=True, slots=True)
class Standing:
    """What a program has brought about so far: the position as M114 tells it, and the heaters' targets by M105's names.

    A heater that the program has not set is left out.
    """

    position_mm: dict[str, float]
    targets_degc: dict[str, float]


def standing_after(program: Iterable[str], count: int) -> Standing:
    """Where things stand after the first `count` commands."""
    modes = _Modes()
    found = Analysis()
    targets_degc: dict[str, float] = {}
    for number, command in enumerate(itertools.islice(program, count), 1):
        _carry_out(number, command, modes, found)
        heater = {"M104": "T", "M109": "T", "M140": "B", "M190": "B", "M141": "C", "M191": "C"}.get(code_of(command))
        if heater is not None:
            words = _words(command)
            targets_degc[heater] = words.get("S", words.get("R", targets_degc.get(heater, 0.0)))
    return Standing({axis: modes.position_mm[axis] for axis in "XYZ"}, targets_degc)


def _carry_out(number: int, command: str, modes: _Modes, found: Analysis) -> None:
    match code_of(command).partition(".")[0]:  # Marlin's moves do not look at a subcode
        case "G0" | "G1":
            _move(number, _words(command), modes, found)
        case "G2" | "G3" as code:
            _arc(number, _words(command), modes, found, clockwise=code == "G2")
        case "G20":
            modes.scale = _MM_PER_INCH
        case "G21":
            modes.scale = 1.0
        case "G28":
            # Homing ends at each homed axis' origin (Marlin/src/gcode/calibrate/G28.cpp); without words, at all three.
            axes = _words(command).keys() & set("XYZ") or set("XYZ")
            modes.position_mm.update(dict.fromkeys(axes, 0.0))
            modes.shift_mm.update(dict.fromkeys(axes, 0.0))
        case "G90" | "G91" as code:
            # Marlin: G90 and G91 set the mode of E as well (Marlin/src/gcode/units/… and gcode.h, `axis_relative`).
            modes.absolute = modes.absolute_e = code == "G90"
        case "M82" | "M83" as code:
            modes.absolute_e = code == "M82"
        case "G92":
            _rename(_words(command), modes)
        case "M104" | "M109":
            _heat(number, _words(command), found.nozzle_degc)
        case "M140" | "M190":
            _heat(number, _words(command), found.bed_degc)
        case _:
            pass


def _words(command: str) -> dict[str, float]:
    arguments = _CODE.sub("", command, count=1)
    return {letter: float(value or 0) for letter, value in _WORD.findall(arguments)}


def _rename(words: dict[str, float], modes: _Modes) -> None:
    """G92 moves nothing: it gives another name to where each named axis stands, or 0 to where all of them stand."""
    for axis in "XYZE":
        if axis in words or not words:
            name = words.get(axis, 0.0) * modes.scale
            modes.shift_mm[axis] += modes.position_mm[axis] - name
            modes.position_mm[axis] = name


def _heat(number: int, words: dict[str, float], extent: Extent) -> None:
    target_degc = words.get("S", words.get("R"))
    if target_degc is not None:
        extent.add(target_degc, number)


def _target(words: dict[str, float], modes: _Modes) -> dict[str, float]:
    target = dict(modes.position_mm)
    for axis in "XYZE":
        if axis in words:
            absolute = modes.absolute_e if axis == "E" else modes.absolute
            target[axis] = words[axis] * modes.scale + (0.0 if absolute else target[axis])
    return target


def _move(number: int, words: dict[str, float], modes: _Modes, found: Analysis) -> None:
    target = _target(words, modes)
    found.filament_mm += target["E"] - modes.position_mm["E"]
    for axis in words.keys() & found.extents_mm.keys():
        found.extents_mm[axis].add(target[axis] + modes.shift_mm[axis], number)
    modes.position_mm = target


def _arc(number: int, words: dict[str, float], modes: _Modes, found: Analysis, *, clockwise: bool) -> None:
    """Ends like a move, and reaches out to each quarter of its circle that it passes (G2/G3 in the XY plane)."""
    start = modes.position_mm
    target = _target(words, modes)
    centre = _centre(words, start, target, modes.scale, clockwise=clockwise)
    _move(number, words, modes, found)
    if centre is None:
        return
    radius = math.hypot(start["X"] - centre[0], start["Y"] - centre[1])
    first = math.atan2(start["Y"] - centre[1], start["X"] - centre[0])
    last = math.atan2(target["Y"] - centre[1], target["X"] - centre[0])
    if clockwise:
        first, last = last, first
    sweep = (last - first) % math.tau or math.tau
    for quarter, (axis, sign) in enumerate((("X", 1), ("Y", 1), ("X", -1), ("Y", -1))):
        if (quarter * math.pi / 2 - first) % math.tau <= sweep:
            reach = centre["XY".index(axis)] + sign * radius
            found.extents_mm[axis].add(reach + modes.shift_mm[axis], number)


def _centre(
    words: dict[str, float], start: dict[str, float], target: dict[str, float], scale: float, *, clockwise: bool
) -> tuple[float, float] | None:
    if "I" in words or "J" in words:
        return start["X"] + words.get("I", 0.0) * scale, start["Y"] + words.get("J", 0.0) * scale
    if not words.get("R"):
        return None
    # R form: the centre on the perpendicular bisector; a negative R takes the longer way (gcode/motion/G2_G3.cpp).
    radius = words["R"] * scale
    dx, dy = target["X"] - start["X"], target["Y"] - start["Y"]
    chord = math.hypot(dx, dy)
    if not chord or chord > 2 * abs(radius):
        return None
    height = math.sqrt(radius**2 - (chord / 2) ** 2) * (1 if clockwise == (radius > 0) else -1)
    middle = (start["X"] + target["X"]) / 2, (start["Y"] + target["Y"]) / 2
    return middle[0] + height * dy / chord, middle[1] - height * dx / chord
