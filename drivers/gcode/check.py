"""A program held against a printer's limits and its firmware's rules, before anything moves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from drivers.analysis import Analysis, Extent, analyse, behind_g53, code_of, command_on
from drivers.gcode.config import Limits, Range
from drivers.gcode.profile import Profile
from edge.driver import NotAcceptableError, Prediction, Program, Value

_CODE = re.compile(r"[GMT]\d")
_PLAIN = re.compile(r"G[01] [-+. 0-9XYZEF]*").fullmatch
"""Nearly all lines are such moves, and no profile forbids them."""
_ANOTHER = re.compile(r"G.*?[GM]\s*\d|T.*?G\s*\d|M(?!117|118)[\d.]+(?:\s+[A-FH-Z][-+.\d]*)*\s+G\s*\d", re.IGNORECASE)
"""A second command on the line. Marlin ignores it, RepRapFirmware and Smoothieware carry it out."""
_LOWER_CASE_WORD = re.compile(r"[GT].*[a-z]")
_NUMBER_BYTES = len("N9999999 *127")
"""What number and checksum add to a command, at the longest program that anyone prints. ASCII sums up to 127."""
_UNHEATED: Range = (0.0, 0.0)
"""What a heater may be asked for that has no limits in site.toml: a chamber has none yet."""


def check_program(program: Program, limits: Limits, *profiles: Profile) -> Prediction:
    """Read the whole program once; it must suit every one of `profiles`.

    Raises `NotAcceptableError` naming the line, the value and the limit.
    """
    with program.path.open(encoding="utf-8", errors="replace") as file:
        found = analyse(_lawful(file, profiles))
    if not found.commands:
        raise NotAcceptableError(program.name, "0 commands", "at least one")
    if found.unknowable is not None:
        # No limit can be held against it, and a person who knows the machine's offsets can write them out.
        limit = "a command whose effect is known before it is carried out"
        raise NotAcceptableError(f"line {found.unknowable.line}", found.unknowable.code, limit)
    for axis, allowed in (("X", limits.x_mm), ("Y", limits.y_mm), ("Z", limits.z_mm)):
        _within(axis, found.extents_mm[axis], allowed, "mm")
    _within("nozzle temperature", found.nozzle_degc, limits.nozzle_degc, "degC", off=0.0)
    _within("bed temperature", found.bed_degc, limits.bed_degc, "degC", off=0.0)
    _within("chamber temperature", found.chamber_degc, _UNHEATED, "degC", off=0.0)
    timeline = tuple((done, round(seconds, 1)) for done, seconds in found.timeline)
    return Prediction(duration_s=round(found.duration_s, 1), facts=_facts(found), timeline=timeline)


def _lawful(file: Iterable[str], profiles: Sequence[Profile]) -> Iterator[tuple[int, str]]:
    forbidden = {rule.command: rule.reason for profile in reversed(profiles) for rule in profile.program.forbidden}
    # The firmware's buffer ends with a zero.
    longest = min(profile.wire.line_max_bytes for profile in profiles) - 1 - _NUMBER_BYTES
    for number, line in enumerate(file, 1):
        command = command_on(line)
        if not command:
            continue
        if not command.isascii():
            raise NotAcceptableError(f"line {number}", repr(command), "ASCII, outside of comments")
        if len(command) > longest:
            raise NotAcceptableError(f"line {number}: length", len(command), longest, "bytes")
        if not _PLAIN(command):
            alone = behind_g53(command) or command
            if not _CODE.match(alone):
                raise NotAcceptableError(f"line {number}", repr(command), "a command such as G1, M104 or T0")
            if _ANOTHER.match(alone):
                raise NotAcceptableError(f"line {number}", repr(command), "one command on a line")
            if _LOWER_CASE_WORD.match(alone):
                # Some builds of Marlin take `x500` for X500 (GCODE_CASE_INSENSITIVE), others ignore it.
                raise NotAcceptableError(f"line {number}", repr(command), "capital letters")
            code = code_of(alone)
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
    facts: dict[str, Value] = {
        "commands": found.commands,
        "layers": len(found.layers_mm),
        "filament_mm": round(found.filament_mm, 1),
    }
    for axis, extent in found.extents_mm.items():
        if extent.least is not None and extent.greatest is not None:
            facts[f"{axis.lower()}_min_mm"] = round(extent.least.value, 3)
            facts[f"{axis.lower()}_max_mm"] = round(extent.greatest.value, 3)
    greatest = (
        ("nozzle_max_degc", found.nozzle_degc),
        ("bed_max_degc", found.bed_degc),
        ("feed_max_mm_per_min", found.feed_mm_per_min),
    )
    for name, extent in greatest:
        if extent.greatest is not None:
            facts[name] = extent.greatest.value
    counts = (
        ("probings", found.probings),
        ("heat_waits", found.heat_waits),
        ("tool_changes", found.tool_changes),
        ("firmware_retractions", found.retractions),
    )
    facts.update((name, count) for name, count in counts if count)
    return facts
