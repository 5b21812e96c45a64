"""Whether a print may go on after the daemon died in the middle of it. PURE.

The firmware's line counter survives the host: it is the number of the last program command that was taken, and every
command that was taken is carried out unless the board is reset. So a print goes on with the next command, and only if
*everything* below holds; one doubt, and the run is lost.

1. The host has not been booted since: its clock, and what it remembers of the print, go on.
2. The firmware has not been booted since, also where its cable was pulled meanwhile: it shows no boot banner, and says
   the same identity.
3. Its counter is between what was acknowledged and what may have been sent (the reservation, durable before sending),
   and not 0: that is what a board says that was reset while nobody listened.
4. The pause, until the firmware was heard again, was shorter than the profile allows. Motors that were released keep
   their position in M114; only this bounds it, so the profile's limit is below the firmware's stepper time-out.
5. The heaters have the targets that the program gave them, and are not much colder than they were.
6. The position that the firmware reports is the one that the program has after that command. Axes that have just been
   homed are the machine's own to tell: they need not fit, if the next moves are absolute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from drivers.analysis import Position, code_of, position_after, words_of

MACRO_BASE = 900_000_000
"""What the driver sends by itself is numbered from here: no program comes so far, so the firmware's counter alone says
that it is not the program's any more."""

AXES = frozenset("XYZ")

POSITION_TOLERANCE_MM = 0.02
"""M114 prints two decimals (Marlin/src/gcode/host/M114.cpp); an honest position differs by half of the last one."""

COOLING_TOLERANCE_DEGC = 10.0
"""How much colder than before a heater may be; our choice: a part bears it, and a heater that was off for the longest
pause that a profile allows has lost more."""


_HEATERS = {"M104": "T", "M109": "T", "M140": "B", "M190": "B", "M141": "C", "M191": "C"}
"""Which heater a command sets, by M105's names (Marlin/src/gcode/temp)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a program has brought about: the axes that it knows, in mm as M114 tells them, and the heaters it has set.

    An axis is left out while only the machine knows it: after homing, until the first absolute move. `at`: modes.
    `homed`: whether all axes stand where their names say.
    """

    position_mm: Mapping[str, float]
    targets_degc: Mapping[str, float]
    absolute: bool
    at: Position | None = field(default=None, compare=False)
    homed: bool = field(default=True, compare=False)


def homed_by(command: str, homed: frozenset[str]) -> frozenset[str]:
    """The axes that stand where their names say after `command`, if `homed` did before it.

    Marlin/src/gcode/calibrate/G28.cpp; a motor that was released has lost its place (gcode/control/M17_M18_M84.cpp).
    """
    if command[:3].upper() not in ("G28", "M18", "M84"):
        return homed
    code, words = code_of(command), words_of(command)
    named = words.keys() & set("XYZE")
    if code == "G28":
        return homed | ((named & AXES) or AXES)
    if code in ("M18", "M84") and "S" not in words:
        return homed - (named or AXES)
    return homed


def standing_after(program: Iterable[str], count: int) -> Standing:
    """How things stand after the first `count` commands. Raises `ValueError` if there are fewer."""
    targets_degc: dict[str, float] = {}
    homed: frozenset[str] = frozenset()

    def noting() -> Iterator[str]:
        nonlocal homed
        for command in program:
            homed = homed_by(command, homed)
            if command.startswith("M") and (heater := _HEATERS.get(code_of(command))):
                words = words_of(command)
                targets_degc[heater] = words.get("S") or words.get("R") or 0.0
            yield command

    found = position_after(noting(), count)
    axes = {"X": found.x_mm, "Y": found.y_mm, "Z": found.z_mm}
    known = {axis: value for axis, value in axes.items() if value is not None}
    return Standing(known, targets_degc, found.absolute, found, homed >= AXES)


@dataclass(frozen=True, slots=True)
class Left:
    """What the last daemon wrote down. `reserved` is durable before it is sent; the rest is from its last heartbeat.

    `heaters` maps a name to (actual, target) in degC; `at_mono_s` is the host's monotonic clock of the boot `boot_id`.
    `held`: the print was paused; from then on the firmware's counter is the driver's own, until the print goes on.
    """

    reserved: int
    acked: int
    total: int
    boot_id: str
    serial: str
    at_mono_s: float
    heaters: Mapping[str, tuple[float, float]]
    held: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What host and firmware say now. `counted` is the firmware's line counter."""

    boot_id: str
    serial: str
    restarted: bool
    counted: int
    at_mono_s: float
    heaters: Mapping[str, tuple[float, float]]
    position_mm: Mapping[str, float]


def doubt(left: Left, found: Found, gap_max_s: float, expected: Standing) -> str:
    """Why the print must not go on, in words; empty if it may, with command ``found.counted + 1``.

    `gap_max_s` is the longest pause that the profile allows, `expected` what the program has brought about after
    command ``found.counted``.
    """
    gap_s = found.at_mono_s - left.at_mono_s
    if found.boot_id != left.boot_id:
        return "the host was booted in between"
    if found.restarted:
        return "the printer was reset in between"
    if found.serial != left.serial:
        return f"another printer is there: {found.serial or 'without a UUID'} instead of {left.serial or 'none'}"
    if left.held and found.counted >= MACRO_BASE:
        return "the print was held: the printer stands where it was parked, and not where the program left it"
    if found.counted == 0:
        return "the printer counts from 0: it was reset in between, or had taken nothing yet"
    if not left.acked <= found.counted <= left.reserved:
        return (
            f"the printer counts line {found.counted}, it must be {left.acked} (acknowledged)"
            f" to {left.reserved} (may have been sent)"
        )
    if gap_s > gap_max_s:
        return f"the pause was {gap_s:.0f} s, at most {gap_max_s:.0f} s are allowed"
    for name in sorted(left.heaters.keys() | expected.targets_degc.keys()):
        actual_degc, last_target_degc = left.heaters.get(name, (0.0, 0.0))
        target_degc = expected.targets_degc.get(name, last_target_degc)
        now_actual_degc, now_target_degc = found.heaters.get(name, (0.0, 0.0))
        if now_target_degc != target_degc:
            return f"heater {name} has the target {now_target_degc:g} degC, it must be {target_degc:g} degC"
        if target_degc and now_actual_degc < min(actual_degc, target_degc) - COOLING_TOLERANCE_DEGC:
            return f"heater {name} has cooled to {now_actual_degc:g} degC, it was at {actual_degc:g} degC"
    if len(expected.position_mm) < len("XYZ") and not expected.absolute:
        return "the program moves on from a position that only the machine knows"
    return misplaced(expected, found.position_mm)


def misplaced(expected: Standing, position_mm: Mapping[str, float]) -> str:
    """Which axis is not where the program has brought it, in words; empty if none is."""
    for axis, wanted_mm in expected.position_mm.items():
        seen_mm = position_mm.get(axis)
        if seen_mm is None or abs(seen_mm - wanted_mm) > POSITION_TOLERANCE_MM:
            shown = "is not told" if seen_mm is None else f"is at {seen_mm:g} mm"
            return f"{axis} {shown}, the program has brought it to {wanted_mm:g} mm"
    return ""
