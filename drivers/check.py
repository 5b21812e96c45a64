"""A program held against a printer's limits and its firmware's rules, before anything moves.

For every driver of a printer, whatever the way that the program takes to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Protocol, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict

from drivers.analysis import Analysis, Extent, analyse, behind_g53, code_of, command_on
from edge.driver import NotAcceptableError, Prediction, Program, Value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the lower limit {value[0]:g} is above the upper limit {value[1]:g}")
    return value


Range: TypeAlias = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Limits(BaseModel):
    """What a program may ask of a printer. A heater without a range must not be heated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    x_mm: Range
    y_mm: Range
    z_mm: Range
    nozzle_degc: Range = (0.0, 0.0)
    bed_degc: Range = (0.0, 0.0)


class Forbidden(Protocol):
    """`command` must not be in a program; `reason` goes on after "for it …"."""

    @property
    def command(self) -> str: ...

    @property
    def reason(self) -> str: ...


class ProgramRules(Protocol):
    """Commands that must not be in a program, and those that only inform."""

    @property
    def forbidden(self) -> Sequence[Forbidden]: ...

    @property
    def harmless_if_unknown(self) -> Sequence[str]: ...


class LineRules(Protocol):
    """`line_max_bytes`: the size of the firmware's line buffer, with the terminating zero."""

    @property
    def line_max_bytes(self) -> int: ...


class Profile(Protocol):
    """What of a firmware's profile a program is held against."""

    @property
    def wire(self) -> LineRules: ...

    @property
    def program(self) -> ProgramRules: ...


_CODE = re.compile(r"[GMT]\d")
_PLAIN = re.compile(r"G[01] [-+. 0-9XYZEF]*").fullmatch
"""Nearly all lines are such moves, and no profile forbids them."""
_ANOTHER = re.compile(r"(?:(?<=.)[GM]|(?<=G).*T)\s*\d")
"""A second command on the line. Marlin ignores it, RepRapFirmware and Smoothieware carry it out."""
_LETTER = re.compile(r"[A-Z](?=[-+.\d])")
_TEXTS = frozenset({"M117", "M118"})
"""Commands whose words are text for people."""
_ECHO = re.compile(r"M118 +[EA]1\b")
"""M118 that marks its text as an echo; without, its words look like the firmware's own (gcode/host/M118.cpp)."""
_G = (0, 1, 2, 3, 4, 10, 11, 17, 20, 21, 28, 29, 53, 54, 90, 91, 92)
_M = (
    *(0, 1, 17, 18, 73, 82, 83, 84, 104, 105, 106, 107, 109, 114, 115, 117, 118, 140, 141, 155, 190, 191, 201, 203),
    *(204, 205, 207, 208, 209, 220, 221, 300, 400, 413, 420, 486, 569, 572, 593, 600, 601, 900),
)
_KNOWN = {f"G{number}" for number in _G} | {f"M{number}" for number in _M}
"""Codes whose effect on position and heat the analysis knows, or that have none. What is not here is not guessed at."""
_TOLD = re.compile(r"T\d+|M862\.\d")
"""Tool changes, which the analysis counts, and Prusa's checks of printer and nozzle (Prusa-Firmware, M862)."""
_NUMBER_BYTES = len("N9999999 *127")
"""What number and checksum add to a command, at the longest program that anyone prints. ASCII sums up to 127."""
_UNNAMED = 'not under profile = "auto": name the profile of its firmware (edge machine profiles), for on some it'
"""Said of what only some of the candidates forbid; the reason of one of them follows."""
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
    if found.unplaced is not None:
        axis, line, released = found.unplaced.axis, found.unplaced.line, found.unplaced.released
        what = "a move after its motor was released" if released else "a move before it is homed"
        raise NotAcceptableError(f"line {line}: {axis}", what, "moves after G28, for nobody knows where it stands")
    timeline = tuple((done, round(seconds, 1)) for done, seconds in found.timeline)
    return Prediction(duration_s=round(found.duration_s, 1), facts=_facts(found), timeline=timeline)


def _lawful(file: Iterable[str], profiles: Sequence[Profile]) -> Iterator[tuple[int, str]]:
    forbidden = {rule.command: rule.reason for profile in reversed(profiles) for rule in profile.program.forbidden}
    by_all = set.intersection(*({rule.command for rule in profile.program.forbidden} for profile in profiles))
    harmless = frozenset.intersection(*(frozenset(p.program.harmless_if_unknown) for p in profiles))
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
            code = code_of(alone)
            if rule := next((name for name in (code, code.partition(".")[0]) if name in forbidden), None):
                never = _UNNAMED if rule not in by_all and code in _KNOWN else "never in a program, for it"
                raise NotAcceptableError(f"line {number}", code, f"{never} {forbidden[rule]}")
            if code not in _KNOWN and code not in harmless and not _TOLD.fullmatch(code):
                raise NotAcceptableError(f"line {number}", code, "commands whose effect is known before it comes")
            if code == "M118" and not _ECHO.match(alone):
                raise NotAcceptableError(f"line {number}", repr(command), "M118 E1: other words look like an answer")
            if code not in _TEXTS and (wanted := _ambiguous(alone)):
                raise NotAcceptableError(f"line {number}", repr(command), wanted)
        yield number, command


def _ambiguous(command: str) -> str:
    """What a command must be for every firmware to read it alike; empty if it is so."""
    if "*" in command:
        return "a command without a checksum of its own"
    if command != command.upper():
        return (
            "capital letters"  # some builds of Marlin take `x500` for X500 (GCODE_CASE_INSENSITIVE), others ignore it
        )
    if _ANOTHER.search(command):
        return "one command on a line"
    letters = _LETTER.findall(command)
    return "each letter once" if len(letters) > len(set(letters)) else ""


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
