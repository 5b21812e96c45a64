"""A program held against a printer's limits and its firmware's rules, before anything moves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from drivers.analysis import Analysis, Extent, analyse, code_of, command_on
from drivers.gcode.config import Limits, Range
from drivers.gcode.profile import Profile
from edge.driver import NotAcceptableError, Prediction, Program, Value

_LOWER_CASE_WORD = re.compile(r"[GT][^;]*[a-z]")
_NUMBER_BYTES = len("N9999999 *127")
"""What number and checksum add to a command, at the longest program that anyone prints. ASCII sums up to 127."""


def check_program(program: Program, limits: Limits, profile: Profile) -> Prediction:
    """Read the whole program. Raises `NotAcceptableError` naming the line, the value and the limit."""
    with program.path.open(encoding="utf-8", errors="replace") as file:
        found = analyse(_lawful(file, profile))
    if not found.commands:
        raise NotAcceptableError(program.name, "0 commands", "at least one")
    for axis, allowed in (("X", limits.x_mm), ("Y", limits.y_mm), ("Z", limits.z_mm)):
        _within(axis, found.extents_mm[axis], allowed, "mm")
    _within("nozzle temperature", found.nozzle_degc, limits.nozzle_degc, "degC", off=0.0)
    _within("bed temperature", found.bed_degc, limits.bed_degc, "degC", off=0.0)
    return Prediction(duration_s=None, facts=_facts(found))


def _lawful(file: Iterable[str], profile: Profile) -> Iterator[tuple[int, str]]:
    forbidden = {rule.command: rule.reason for rule in profile.program.forbidden}
    longest = profile.wire.line_max_bytes - 1 - _NUMBER_BYTES  # the firmware's buffer ends with a zero
    for number, line in enumerate(file, 1):
        command = command_on(line)
        if not command:
            continue
        if not command.isascii():
            raise NotAcceptableError(f"line {number}", repr(command), "ASCII, outside of comments")
        if len(command) > longest:
            raise NotAcceptableError(f"line {number}: length", len(command), longest, "bytes")
        code = code_of(command)
        if not code:
            raise NotAcceptableError(f"line {number}", repr(command), "a command such as G1, M104 or T0")
        if _LOWER_CASE_WORD.match(command):
            # Some builds of Marlin take `x500` for X500 (GCODE_CASE_INSENSITIVE), others ignore it.
            raise NotAcceptableError(f"line {number}", repr(command), "capital letters")
        if reason := forbidden.get(code) or forbidden.get(code.partition(".")[0]):
            raise NotAcceptableError(f"line {number}", code, f"never in a program, for it {reason}")
        yield number, command


def _within(what: str, extent: Extent, allowed: Range, unit: str, off: float | None = None) -> None:
    for extreme in (extent.least, extent.greatest):
        if extreme is None or extreme.value == off or allowed[0] <= extreme.value <= allowed[1]:
            continue
        limit = f"{allowed[0]:g} to {allowed[1]:g}"
        raise NotAcceptableError(f"line {extreme.line}: {what}", f"{extreme.value:g}", limit, unit)


def _facts(found: Analysis) -> dict[str, Value]:
    facts: dict[str, Value] = {"commands": found.commands, "filament_mm": round(found.filament_mm, 1)}
    for axis, extent in found.extents_mm.items():
        if extent.least is not None and extent.greatest is not None:
            facts[f"{axis.lower()}_min_mm"] = round(extent.least.value, 3)
            facts[f"{axis.lower()}_max_mm"] = round(extent.greatest.value, 3)
    for name, extent in (("nozzle_max_degc", found.nozzle_degc), ("bed_max_degc", found.bed_degc)):
        if extent.greatest is not None:
            facts[name] = extent.greatest.value
    return facts
