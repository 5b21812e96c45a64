"""What a Marlin-like firmware says, line by line. PURE.

The forms of Marlin were seen on 2.1.2.1 or on OctoPrint's virtual printer; texts are those of
Marlin/src/core/language.h and Marlin/src/gcode/queue.cpp (2.1.2.1). Those of others are read from their sources, not
tried: Prusa-Firmware 3.14 (Firmware/cmdqueue.cpp, Marlin_main.cpp, messages.cpp), Prusa-Firmware-Buddy 6.3.0
(lib/Marlin), RepRapFirmware 3.5.3 (src/GCodes/GCodes.cpp, GCodes2.cpp), Smoothieware at bb41e992
(src/modules/communication/GcodeDispatch.cpp).

A line that fits no form is `Text`: it is shown to people and moves nothing. But what begins like an error and fits no
form is `Fatal`: what nobody understands is never taken for success.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

LINE_MAX_BYTES = 1024
"""Longest line that is kept. M115 and M503 stay far below; more without a line end is noise and is cut."""


@dataclass(frozen=True, slots=True)
class Ok:
    """``ok``: one command was carried out or queued. `line` with ADVANCED_OK only (``ok N309 P0 B1``)."""

    line: int | None = None


@dataclass(frozen=True, slots=True)
class Resend:
    """``Resend: n`` or ``rs N4``: send line `line` next; everything below it was taken."""

    line: int


@dataclass(frozen=True, slots=True)
class LineError:
    """The last line read was refused or lost: checksum, number, overrun. `last_line`, if told, was the last taken."""

    text: str
    last_line: int | None


@dataclass(frozen=True, slots=True)
class Fatal:
    """The firmware has stopped the machine (``kill()``, a heater fault). It wants a reset."""

    text: str


@dataclass(frozen=True, slots=True)
class UnknownCommand:
    """``echo:Unknown command: "…"``: the command before the next ``ok`` was not carried out.

    `command` is empty where the firmware does not repeat it.
    """

    command: str


@dataclass(frozen=True, slots=True)
class NotDone:
    """The firmware acknowledges a command that it did not carry out as written (cold extrusion, not homed)."""

    text: str


@dataclass(frozen=True, slots=True)
class Busy:
    """``echo:busy: processing`` (or ``paused for user`` …): alive, and not done yet."""

    what: str


@dataclass(frozen=True, slots=True)
class Boot:
    """The banner's first line: the board has just been reset."""


@dataclass(frozen=True, slots=True)
class Action:
    """``//action:…``: a request to the host (host prompts, M600)."""

    text: str


@dataclass(frozen=True, slots=True)
class Temperatures:
    """``T:19.37 /0.00 B:…``: name -> (actual, target), both in degC."""

    heaters: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Position:
    """``X:0.00 Y:0.00 Z:0.00 E:0.00 Count …``: name -> mm."""

    axes_mm: dict[str, float]


@dataclass(frozen=True, slots=True)
class Text:
    """Anything else."""

    text: str


Reply: TypeAlias = (
    Ok | Resend | LineError | Fatal | UnknownCommand | NotDone | Busy | Boot | Action | Temperatures | Position | Text
)

_RESEND = re.compile(r"(?:resend|rs):?\s*N?(\d+)", re.IGNORECASE)
_LINE_ERROR = re.compile(
    r"error:\s*(?:checksum mismatch|line number is not last line number|no checksum with line number"
    r"|no line number with checksum|expected line|missing checksum|wrong checksum|bad checksum)"
    # Prusa-Firmware: the receive buffer ran over and was thrown away, or half a line was.
    r"|full rx buffer$|rx timeout$",
    re.IGNORECASE,
)
_LAST_LINE = re.compile(r"last line:\s*(\d+)", re.IGNORECASE)
_ACTION = re.compile(r"// ?action:\s*(.*)$")
"""Prusa-Firmware has a blank behind the slashes (Firmware/messages.cpp, MSG_OCTOPRINT_…)."""
_UNKNOWN = re.compile(
    r'echo:\s*unknown command:\s*"?(?P<marlin>.*?)"?$'
    r"|unknown [GMD] code:\s*(?P<prusa>.*)$"  # Prusa-Firmware: MSG_UNKNOWN_CODE
    r"|(?:error|warning):\s*(?P<reprap>[GMT][\d.]+)\b[^:]*: command is not supported\b"
    r"|error:\s*bad command:\s*(?P<bad>.*)$",  # RepRapFirmware
    re.IGNORECASE,
)
_BUSY = re.compile(r"(?:echo:\s*)?busy:\s*(.*)$", re.IGNORECASE)
_ERROR = re.compile(r"(?:error\b|!!):?\s*", re.IGNORECASE)
_HALTED = re.compile(
    r"printer stopped due to errors"  # Marlin, Buddy: said to each move, which is then left out
    r"|.*\bhalt asserted\b|.*\breset or (?:\$x or )?m999 required\b|entering alarm/halt state"  # Smoothieware
    r"|.*: machine is halted$",  # RepRapFirmware
    re.IGNORECASE,
)
_NOT_DONE = re.compile(
    r"(?:echo:)?\s*(?P<marlin>(?:cold extrusion|too long extrusion) prevented.*|home .*(?:first|before z).*"
    r"|hotend too cold.*|.*\binvalid extruder\b.*|\?.*)"
    # RepRapFirmware: `Error: G1: insufficient axes homed`; the command was left out, and all others are not.
    r"|error:\s*(?P<reprap>[GMT][\d.]+\b[^:]*: .*)"
    r"|error:\s*(?P<smoothie>.*entire move ignored.*)",
    re.IGNORECASE,
)
_OK_LINE = re.compile(r"\bN(\d+)")
_HEATER = re.compile(r"\b(T\d?|B|C):\s*(-?\d+(?:\.\d+)?)\s*/\s*(-?\d+(?:\.\d+)?)")
_AXIS = re.compile(r"\b([XYZE]):\s*(-?\d+(?:\.\d+)?)")


_OK = Ok()


def parse(line: str) -> list[Reply]:
    """The meanings of one line, without its line end. `ok T:…` has two: `Temperatures`, then `Ok`."""
    text = line.strip()
    if text == "ok":
        return [_OK]
    if text.startswith(("ok ", "ok\t")):
        rest = text[2:].strip()
        if _HALTED.match(rest):  # Smoothieware's answer to M112
            return [Fatal(rest)]
        if rest.startswith("- "):  # and what it says of a line that it left out
            return [UnknownCommand("") if rest == "- ignored" else NotDone(rest[2:]), Ok()]
        number = _OK_LINE.search(rest)
        return [*_values(rest), Ok(int(number.group(1)) if number else None)]
    if text == "start" or text.startswith("Smoothie Running @"):
        return [Boot()]
    if match := _RESEND.match(text):
        return [Resend(int(match.group(1)))]
    if _LINE_ERROR.match(text):
        last = _LAST_LINE.search(text)
        return [LineError(text, int(last.group(1)) if last else None)]
    if match := _ACTION.match(text):
        return [Action(match.group(1))]
    if match := _UNKNOWN.match(text):
        return [UnknownCommand(_said(match))]
    if match := _BUSY.match(text):
        return [Busy(match.group(1))]
    error = _ERROR.match(text)
    if _HALTED.match(text):
        return [Fatal(text[error.end() :] if error else text)]
    if match := _NOT_DONE.match(text):
        return [NotDone(_said(match))]
    if error:
        return [Fatal(text[error.end() :] or "it is halted")]
    return [*_values(text)] or [Text(text)]


def _said(match: re.Match[str]) -> str:
    return next(part for part in match.groups() if part is not None).strip()


def _values(text: str) -> list[Reply]:
    if heaters := {name: (float(actual), float(target)) for name, actual, target in _HEATER.findall(text)}:
        return [Temperatures(heaters)]
    # M114 lists every axis before the stepper counts; the counts repeat the names.
    axes = {name: float(value) for name, value in _AXIS.findall(text.split("Count")[0])}
    if {"X", "Y", "Z"} <= axes.keys():
        return [Position(axes)]
    return []


class LineSplitter:
    """Bytes in any pieces -> whole lines. Ends at LF, drops CR, NUL and bytes that are no ASCII (line noise)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes; empty ones are left out."""
        if data == b"ok\n" and not self._rest:  # nearly all that a stream hears
            return ["ok"]
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[:LINE_MAX_BYTES]
        cleaned = (line[:LINE_MAX_BYTES].replace(b"\0", b"").decode("ascii", "ignore").strip() for line in lines)
        return [line for line in cleaned if line]
