"""What a profile's macros send, and what a held program needs to find all things as it left them. PURE.

What pausing and resuming change, and the driver gives back: where the axes and E stand, G90 or G91, M82 or M83,
G20, the feed rate. Planes (G17 to G19) and coordinate systems stay as they are, for plain moves do not touch them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drivers.analysis import Position

FINAL = "M400"
"""Its ``ok`` comes when all motion is done (Marlin/src/gcode/motion/M400.cpp)."""

STANDBY_DEGC = 150.0
"""Our choice: warm enough to be back soon, and below where common plastics run out of a nozzle or burn in it."""

COLD_DEGC = 180.0
"""Below this a nozzle is not asked to move filament: EXTRUDE_MINTEMP is 170 (Marlin/Configuration.h) or 175
(Prusa-Firmware, variants), and a refused extrusion would end the run."""

FEED_MM_PER_MIN = 1500.0
"""The feed rate of a program that has not set one (Marlin/src/module/motion.cpp, `feedrate_mm_s`)."""

E_TOLERANCE_MM = 0.02
"""As far as the E that was counted may be from the one that M114 shows, with its two decimals, to be the better one."""

_EXTRUDES = re.compile(r"^(G0*[01]\b.*?) *E *[-+]?[.\d]+")
_HEAT = {"B": ("M140", "M190"), "C": ("M141", "M191"), "T": ("M104", "M109")}
"""Set, and set and wait, by M105's names (Marlin/src/gcode/temp)."""


class _Number(float):
    """Plain in a command, where `1e-05` would be read as 1."""

    def __format__(self, spec: str) -> str:
        if spec:
            return format(float(self), spec)
        return f"{round(self, 5) + 0.0:.5f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how a run is held: mm, mm/min, degC. `cold`: the nozzle must not move filament now.

    `homed`: whether the axes may be moved at all; an axis that is not homed can be anywhere.
    """

    position_mm: Mapping[str, float]
    feed_mm_per_min: float
    targets_degc: Mapping[str, float]
    absolute: bool
    absolute_e: bool
    inches: bool
    cold: bool
    homed: bool = True


def place(
    at: Position,
    seen_mm: Mapping[str, float],
    targets_degc: Mapping[str, float],
    nozzle_degc: float | None,
    *,
    homed: bool = True,
) -> Place:
    """What is known of a run that stands still after a command.

    `at` is the analysed position, `seen_mm` the one of M114: it has two decimals only, and all axes.
    """
    counted = {"X": at.x_mm, "Y": at.y_mm, "Z": at.z_mm}
    position_mm = {axis: value for axis, value in counted.items() if value is not None}
    if at.e_mm is not None and abs(at.e_mm - seen_mm.get("E", at.e_mm)) <= E_TOLERANCE_MM:
        position_mm["E"] = at.e_mm
    feed = FEED_MM_PER_MIN if at.feed_mm_per_min is None else at.feed_mm_per_min
    cold = nozzle_degc is not None and nozzle_degc < COLD_DEGC
    where = {**seen_mm, **position_mm}
    return Place(where, feed, dict(targets_degc), at.absolute, at.absolute_e, at.inches, cold, homed)


def pausing(macro: Sequence[str], where: Place) -> tuple[str, ...]:
    """Away from the part, and still. Macros are in mm. What is not homed stays where it is: there is no part yet."""
    if not where.homed:
        return (FINAL,)
    commands = (*(("G21",) if where.inches else ()), *_filled(macro, where))
    return commands if commands[-1:] == (FINAL,) else (*commands, FINAL)


def resuming(macro: Sequence[str], where: Place, *, reheat: bool) -> tuple[str, ...]:
    """Warm, back to the place, with the modes of the program, and still."""
    modes = ("G90" if where.absolute else "G91", "M82" if where.absolute_e else "M83")
    heating = _reheating(where.targets_degc) if reheat else ()
    if not where.homed:
        return (*heating, FINAL)
    return (
        *heating,
        *_filled(macro, where),
        *modes,
        *(("G20",) if where.inches else ()),
        FINAL,
    )


def standby(macro: Sequence[str], where: Place) -> tuple[str, ...]:
    """Cooler; empty if the nozzle is not hot anyway."""
    return _filled(macro, where) if where.targets_degc.get("T", 0.0) > STANDBY_DEGC else ()


def _reheating(targets_degc: Mapping[str, float]) -> tuple[str, ...]:
    """All at once, then wait for each."""
    heaters = [(_HEAT[name], _Number(target)) for name, target in sorted(targets_degc.items()) if target > 0.0]
    return (
        *(f"{codes[0]} S{target}" for codes, target in heaters),
        *(f"{codes[1]} S{target}" for codes, target in heaters),
    )


def _filled(macro: Sequence[str], where: Place) -> tuple[str, ...]:
    places = {axis.lower(): _Number(value) for axis, value in where.position_mm.items()} | {
        "feed": _Number(where.feed_mm_per_min),
        "nozzle_degc": _Number(where.targets_degc.get("T", 0.0)),
        "bed_degc": _Number(where.targets_degc.get("B", 0.0)),
        "standby_degc": _Number(STANDBY_DEGC),
    }
    commands = (command.format_map(places) for command in macro)
    return tuple(_EXTRUDES.sub(r"\1", command) if where.cold else command for command in commands)
