"""A program for grbl held against a machine's limits: what can be told offline, and the rest right before it starts.

Limits are the machine's own coordinates (G53). A program is written in work coordinates, and where their zero lies only
the controller knows. So there are two looks, and neither guesses: offline, what is out of limits wherever the zero may
lie (moves by G53, and a size that does not fit); at the start, every extent with the offsets that the controller tells.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from drivers.analysis import Extent
from drivers.gcode import grbl_program
from drivers.gcode.config import Limits, Range
from drivers.gcode.grbl_program import FRAMES, MACHINE, Found, Law, UnlawfulError
from drivers.gcode.profile import Profile
from edge.driver import MachineError, Motion, NotAcceptableError, Prediction, Program, Value

Offset = tuple[float, float, float]
"""Where the zero of a coordinate system lies in machine coordinates, mm."""

AXES = "XYZ"

POSITION_TOLERANCE_MM = 0.05
"""Motors stand on whole steps: half a step at 10 steps/mm, the coarsest that anybody builds."""


def check_program(program: Program, limits: Limits, profile: Profile) -> Prediction:
    """The offline look. Raises `NotAcceptableError` naming the line, the value and the limit."""
    found = read_program(program.path, limits, profile)
    if not found.lines:
        raise NotAcceptableError(program.name, "0 commands", "at least one")
    hold_sizes(found, limits)
    timeline = tuple((done, round(seconds, 1)) for done, seconds in found.timeline)
    return Prediction(duration_s=round(found.duration_s, 1), facts=_facts(found), timeline=timeline)


def program_lines(path: Path) -> Generator[tuple[int, str], None, None]:
    """The lines that are sent, with their numbers in the file."""
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from grbl_program.lines_of(file)


def read_program(path: Path, limits: Limits, profile: Profile) -> Found:
    """What the program does. Raises `NotAcceptableError`."""
    forbidden = {rule.command: rule.reason for rule in profile.program.forbidden}
    # The line buffer ends with a zero.
    longest, allowed = profile.wire.line_max_bytes - 1, frozenset(profile.program.harmless_if_unknown)
    law = Law(longest, forbidden, allowed, homes=limits.homing == "program")
    try:
        with closing(program_lines(path)) as lines:
            return grbl_program.read(lines, law)
    except UnlawfulError as error:
        raise NotAcceptableError(f"line {error.line}", error.value, error.limit) from error


def hold_sizes(found: Found, limits: Limits) -> None:
    """What no work zero makes fit. Raises `NotAcceptableError`."""
    for frame, axis, extent, allowed in _held(found, limits):
        if frame == MACHINE:
            _within(f"{axis} in machine coordinates", extent, allowed, 0.0)
        elif extent.least is not None and extent.greatest is not None:
            size_mm, room_mm = extent.greatest.value - extent.least.value, allowed[1] - allowed[0]
            if size_mm > room_mm:
                what = f"lines {extent.least.line} and {extent.greatest.line}: size in {axis}"
                raise NotAcceptableError(what, f"{size_mm:g}", f"at most {room_mm:g}", "mm")


def hold_places(found: Found, limits: Limits, offsets_mm: Mapping[str, Offset]) -> None:
    """Every place, with the offsets that the controller tells. Raises `NotAcceptableError`."""
    for frame, axis, extent, allowed in _held(found, limits):
        shift_mm = offset_of(frame, axis, offsets_mm)
        what = f"{axis} in machine coordinates, with {frame} at {shift_mm:g} mm"
        _within(what, extent, allowed, shift_mm)


def zeros_mm(told: Mapping[str, tuple[float, ...]], unit_mm: float) -> dict[str, Offset]:
    """Where the zeros of the coordinate systems lie, by the answer to ``$#`` (`grbl_replies.offsets`), G92 included.

    What is missing is not guessed: raises `MachineError`.
    """
    if not {"G54", "G92", "TLO"} <= told.keys():
        raise MachineError(f"what the controller says of its offsets is not understood: {dict(told)}", Motion.NONE)
    if any(told["TLO"]):
        raise MachineError("a tool length offset is set, which G49 in a program would take away", Motion.NONE)
    shift = told["G92"]
    found: dict[str, Offset] = {}
    for frame in told.keys() & set(FRAMES):
        zero = told[frame]
        if min(len(zero), len(shift)) < len(AXES):
            raise MachineError(f"{frame} at {zero} is not understood: it needs X, Y and Z", Motion.NONE)
        x, y, z = ((zero[i] + shift[i]) * unit_mm for i in range(len(AXES)))
        found[frame] = x, y, z
    return found


def misplaced(found: Found, offsets_mm: Mapping[str, Offset], start_mm: Offset | None, position_mm: Offset) -> str:
    """Which axis does not stand where the program ends, or, if it never moves it, where it stood; empty if none does.

    All are machine coordinates; `start_mm` is None where nobody knows.
    """
    for i, axis in enumerate(AXES):
        if (place := found.end.get(axis)) is not None:
            expected_mm = place.mm + offset_of(place.frame, axis, offsets_mm)
        elif start_mm is not None:
            expected_mm = start_mm[i]
        else:
            continue
        if abs(position_mm[i] - expected_mm) > POSITION_TOLERANCE_MM:
            return f"{axis} is at {position_mm[i]:g} mm in machine coordinates, the program ends at {expected_mm:g} mm"
    return ""


def prompts_in(path: Path) -> dict[int, str]:
    """Of each line, counted as it is sent, at which the program waits for a person: what its comment says."""
    prompts: dict[int, str] = {}
    count = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            for _, text in grbl_program.lines_of([line]):
                count += 1
                if code := grbl_program.waits_at(text):
                    prompts[count] = grbl_program.comments_on(line) or code
    return prompts


def offset_of(frame: str, axis: str, offsets_mm: Mapping[str, Offset]) -> float:
    """Raises `NotAcceptableError` for a coordinate system that the controller has not told of."""
    if frame == MACHINE:
        return 0.0
    if frame not in offsets_mm:
        raise NotAcceptableError("coordinate system", frame, f"one that the controller has: {', '.join(offsets_mm)}")
    return offsets_mm[frame][AXES.index(axis)]


def _held(found: Found, limits: Limits) -> Iterable[tuple[str, str, Extent, Range]]:
    ranges = {"X": limits.x_mm, "Y": limits.y_mm, "Z": limits.z_mm}
    for frame, extents in found.extents_mm.items():
        for axis, extent in extents.items():
            yield frame, axis, extent, ranges[axis]


def _within(what: str, extent: Extent, allowed: Range, shift_mm: float) -> None:
    for extreme in (extent.least, extent.greatest):
        if extreme is not None and not allowed[0] <= (place_mm := round(extreme.value + shift_mm, 6)) <= allowed[1]:
            raise NotAcceptableError(
                f"line {extreme.line}: {what}", f"{place_mm:g}", f"{allowed[0]:g} to {allowed[1]:g}", "mm"
            )


def _facts(found: Found) -> dict[str, Value]:
    facts: dict[str, Value] = {"commands": found.lines}
    for frame, extents in found.extents_mm.items():
        for axis, extent in extents.items():
            if extent.least is not None and extent.greatest is not None:
                name = f"{frame.lower()}_{axis.lower()}"
                facts[f"{name}_min_mm"] = round(extent.least.value, 3)
                facts[f"{name}_max_mm"] = round(extent.greatest.value, 3)
    for name, greatest in (("feed_max_mm_per_min", found.feed_mm_per_min), ("speed_max_rpm", found.rpm)):
        if greatest.greatest is not None:
            facts[name] = greatest.greatest.value
    facts.update((name, n) for name, n in (("pauses", found.pauses), ("tool_changes", found.tool_changes)) if n)
    return facts
