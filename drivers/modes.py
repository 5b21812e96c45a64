"""What the words of a G-code program mean, command after command: units, modes, and the position by name. PURE.

Files named are of Marlin 2.1, under Marlin/src. Lengths are mm, feed rates mm/min.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

Number: TypeAlias = str | float | None
"""As a program writes it; None where it writes none."""
Words: TypeAlias = dict[str, float | None]
"""Letters, and the number behind each."""

_NUMBER = r"([-+]?\d*\.?\d+)"
LINEAR = re.compile(
    rf"G[01](?: F{_NUMBER})?(?: X{_NUMBER})?(?: Y{_NUMBER})?(?: Z{_NUMBER})?(?: E{_NUMBER})?(?: F{_NUMBER})?"
).fullmatch
"""Nearly all lines of nearly all programs look like this; all others take the long way, to the same end."""
_WORD = re.compile(r"([A-Z])\s*([-+]?(?:\d+\.?\d*|\.\d+))?")
_CODE = re.compile(r"\s*([A-Z])\s*0*(\d+)(\.\d*)?", re.IGNORECASE)
_MOVES = frozenset({"G0", "G1", "G2", "G3"})
_G53 = re.compile(r"\s*(?:G\s*0*53\s*)+(?=[A-Z])", re.IGNORECASE)
"""Small letters count: firmware can be built to take them (GCODE_CASE_INSENSITIVE, Marlin/Configuration_adv.h)."""
_MM_PER_INCH = 25.4
_GREATEST = 1e9
"""Numbers are cut to this, so that an infinite one cannot stop the arithmetic; the limits refuse it like any other."""
_DEFAULT_FEED_MM_PER_MIN = 1500.0
"""Before the first F (Marlin/src/module/motion.cpp, `feedrate_mm_s`)."""

_POSITION_KEPT = frozenset({"G4", "G10", "G11", "G17", "G18", "G19", "G20", "G21", "G90", "G91"})
"""Of all G codes that are not looked at below, these leave the position as it was. Of the M codes most do."""
_POSITION_LOST = frozenset({"M125", "M206", "M428", "M600", "M701", "M702"})


def command_on(line: str) -> str:
    """The command on one line of a program: comment and blanks around it stripped; empty if there is none."""
    return line.partition(";")[0].strip()


def commands(lines: Iterable[str]) -> Iterator[str]:
    """The commands of a program, in order."""
    return (command for line in lines if (command := command_on(line)))


def code_of(command: str) -> str:
    """``G1`` of ``G1 X10``, ``G01X10`` and ``G1.1 X10``, ``M862.3`` of ``M862.3 P "MK3"``.

    Of anything else it is the first word. Marlin's moves do not look at a subcode (Marlin/src/gcode/gcode.cpp,
    `process_parsed_command`).
    """
    found = _CODE.match(command)
    if found is None:
        return command.split(maxsplit=1)[0]
    code = f"{found[1]}{found[2]}".upper()
    subcode = (found[3] or "").lstrip(".0")
    return f"{code}.{subcode}" if subcode and code not in _MOVES else code


def behind_g53(command: str) -> str:
    """The command that G53 stands before on the same line; empty if there is none."""
    found = _G53.match(command)
    return command[found.end() :] if found else ""


def words_of(command: str) -> Words:
    """What stands behind the code; of several words with the same letter the last."""
    found = _CODE.match(command)
    pairs = _WORD.findall(command.upper(), found.end() if found else 0)
    return {letter: max(-_GREATEST, min(_GREATEST, float(value))) if value else None for letter, value in pairs}


@dataclass(frozen=True, slots=True)
class Position:
    """Where a program stands after some command: the coordinates that M114 reports, None where nobody can tell.

    An axis is told from its first absolute move or G92 on, until something moves it that only the machine knows.
    """

    x_mm: float | None
    y_mm: float | None
    z_mm: float | None
    e_mm: float | None
    feed_mm_per_min: float | None
    absolute: bool
    absolute_e: bool
    inches: bool


def position_after(commands: Iterable[str], n: int) -> Position:
    """Where a program stands when its first `n` commands are done. Raises `ValueError` if it has fewer."""
    modes = Modes()
    done = 0
    for command in islice(commands, n):
        done += 1
        if plain := LINEAR(command):
            modes.linear(*plain.groups())
        elif chained := behind_g53(command):
            modes.carry_out(code_of(chained), words_of(chained))
            modes.lose("XYZ")
        else:
            modes.carry_out(code_of(command), words_of(command))
    if done < n:
        raise ValueError(f"the program has {done} commands, not {n}")
    return modes.position()


class Modes:
    """What a program's words mean at this point: position by the names in force, how they shift, units and modes."""

    def __init__(self) -> None:
        self.x = self.y = self.z = self.e = 0.0
        self.shift_x = self.shift_y = self.shift_z = 0.0
        """By how much the names are greater than the machine's own coordinates."""
        self.unknown = set("XYZE")
        """Axes whose names are a guess so far, fit for extents but not for `Position`."""
        self.scale = 1.0
        self.absolute = True
        self.absolute_e = True
        self.feed_mm_per_min = _DEFAULT_FEED_MM_PER_MIN
        self.feed_told = False
        self.plane = "G17"

    def position(self) -> Position:
        xyze = (("X", self.x), ("Y", self.y), ("Z", self.z), ("E", self.e))
        x, y, z, e = (None if axis in self.unknown else value for axis, value in xyze)
        feed = self.feed_mm_per_min if self.feed_told else None
        return Position(x, y, z, e, feed, self.absolute, self.absolute_e, self.scale != 1.0)

    def linear(self, feed_first: Number, x: Number, y: Number, z: Number, e: Number, feed: Number) -> None:
        """G0 and G1. The feed rate may stand before or behind the axes."""
        scale = self.scale
        if self.absolute:
            if x is not None:
                self.x = float(x) * scale
            if y is not None:
                self.y = float(y) * scale
            if z is not None:
                self.z = float(z) * scale
            if self.unknown:
                self.unknown.difference_update(a for a, v in (("X", x), ("Y", y), ("Z", z)) if v is not None)
        else:
            if x is not None:
                self.x += float(x) * scale
            if y is not None:
                self.y += float(y) * scale
            if z is not None:
                self.z += float(z) * scale
        if e is not None:
            if self.absolute_e:
                self.e = float(e) * scale
                self.unknown.discard("E")
            else:
                self.e += float(e) * scale
        feed = feed_first if feed is None else feed
        # Marlin keeps the rate when told 0 or less (gcode/gcode.cpp, `get_destination_from_command`).
        if feed is not None and float(feed) > 0.0:
            self.feed_mm_per_min = float(feed) * scale
            self.feed_told = True

    def carry_out(self, code: str, words: Words) -> None:
        """Any command, as far as it bears on the position or on the meaning of what follows."""
        match code:
            case "G0" | "G1" | "G2" | "G3":
                self.linear(None, *(words.get(letter) for letter in "XYZEF"))
                if code in {"G2", "G3"} and not words.keys() & set("IJKR"):
                    self.lose("XYZ")  # Marlin refuses it and stays; others go straight
            case "G20" | "G21":
                self.scale = _MM_PER_INCH if code == "G20" else 1.0
            case "G17" | "G18" | "G19":
                self.plane = code
            case "G28":
                self._home(words.keys() & set("XYZ") or set("XYZ"))
            case "G90" | "G91":
                # E too: gcode/gcode.h, `set_relative_mode`.
                self.absolute = self.absolute_e = code == "G90"
            case "M82" | "M83":
                self.absolute_e = code == "M82"
            case "G92":
                self._rename({axis: value * self.scale for axis in "XYZE" if (value := words.get(axis)) is not None})
            case _:
                if code in _POSITION_LOST or code[0] == "T":
                    self.lose("XYZE")
                elif code[0] == "G" and code not in _POSITION_KEPT:
                    self.lose("XYZ")

    def lose(self, axes: str) -> None:
        """From here on nobody can tell offline where these are."""
        self.unknown.update(axes)

    def _home(self, axes: set[str]) -> None:
        """The homed axes end at their origin, by the machine's own names.

        Where that is, whether the other axes are moved out of the way, and whether G92's names last, is a matter of the
        firmware and its configuration.
        """
        if "X" in axes:
            self.x = self.shift_x = 0.0
        if "Y" in axes:
            self.y = self.shift_y = 0.0
        if "Z" in axes:
            self.z = self.shift_z = 0.0
        self.lose("XYZ")

    def _rename(self, names_mm: dict[str, float]) -> None:
        """G92: gcode/geometry/G92.cpp. Without words RepRap's rule is all zero, and Marlin's is to do nothing."""
        if not names_mm:
            names_mm = dict.fromkeys("XYZE", 0.0)
            self.lose("XYZE")
        else:
            self.unknown -= names_mm.keys()
        x, y, z = names_mm.get("X", self.x), names_mm.get("Y", self.y), names_mm.get("Z", self.z)
        self.shift_x += x - self.x
        self.shift_y += y - self.y
        self.shift_z += z - self.z
        self.x, self.y, self.z, self.e = x, y, z, names_mm.get("E", self.e)
