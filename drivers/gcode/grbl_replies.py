"""What grbl 1.1 and grblHAL say, line by line. PURE.

Every reply of this dialect but ``ok`` is a `Text` with its meaning beside it: people can be shown any of them, and what
carries replies need not know the dialect. A damaged line is a plain `Text` and moves nothing.

Sources: gnea/grbl 1.1h grbl/report.c, grblHAL/core (build 20260817) report.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from drivers.gcode.identity import Firmware
from drivers.gcode.replies import Ok, Reply, Text


@dataclass(frozen=True, slots=True)
class Refusal(Text):
    """``error:n``: the line was not carried out. It is that line's one answer."""

    code: int


@dataclass(frozen=True, slots=True)
class Alarm(Text):
    """``ALARM:n``: the controller has stopped everything and is locked. Answers no line."""

    code: int


@dataclass(frozen=True, slots=True)
class Banner(Text):
    """The welcome line: the controller has just been reset, and its buffers are empty."""


@dataclass(frozen=True, slots=True)
class Notice(Text):
    """``[MSG:…]``; `text` is what is inside."""


@dataclass(frozen=True, slots=True)
class Status(Text):
    """``<Idle|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0>``. Which fields there are differs from report to report.

    `state`: Idle, Run, Hold, Jog, Home, Alarm, Check, Door, Sleep or Tool. `detail`: the number behind it, as in
    ``Hold:0``. `fields`: the others as they stand.
    """

    state: str
    detail: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    def numbers(self, name: str) -> tuple[float, ...]:
        """The numbers of a field, such as ``MPos``, ``WPos``, ``WCO`` (mm or inch, by ``$13``); empty without it."""
        try:
            return tuple(float(value) for value in self.fields.get(name, "").split(","))
        except ValueError:
            return ()

    @property
    def rx_free_bytes(self) -> int | None:
        """Free bytes of the receive buffer (``Bf:<blocks>,<bytes>``), where ``$10`` asks for them."""
        buffers = self.numbers("Bf")
        return int(buffers[1]) if len(buffers) == 2 else None

    @property
    def still(self) -> bool:
        """Nothing moves, and nothing will by itself: ``Hold:0`` is a complete hold, at a door 0 and 1 are.

        ``Idle`` is not among them: a report is printed before the moves that wait are started.
        """
        return self.state in _STILL or (self.state, self.detail) in _STILL_DETAILS


_STILL = frozenset({"Alarm", "Sleep", "Check"})
_STILL_DETAILS = frozenset({("Hold", 0), ("Door", 0), ("Door", 1)})

_CODE = re.compile(r"(error|ALARM):(\d{1,3})")
# `Grbl 1.1h ['$' for help]`, `GrblHAL 1.1f ['$' or '$HELP' for help]`
_BANNER = re.compile(r"Grbl\w* \d\S* \[.*'\$'.*\]")
_STATUS = re.compile(r"<([A-Z][a-z]+)(?::(\d+))?((?:\|[^|<>]*)*)>")
_VERSION = re.compile(r"\[VER:([^:\]]+):([^\]]*)\]")
_OPTIONS = re.compile(r"\[OPT:[^,\]]*,\d+,(\d+)")
_MIST = re.compile(r"\[OPT:[^,\]]*M")
_SETTING = re.compile(r"\$(\d+)=(\S*)")
_NUMBER = r"[-+]?\d+(?:\.\d*)?"
_OFFSET = re.compile(rf"\[(G5[4-9]|G92|TLO):({_NUMBER}(?:,{_NUMBER})*)\]")
_BRACKETED = re.compile(r"\[(FIRMWARE|BOARD):([^\]]*)\]")


def parse(line: str) -> Reply:
    """The meaning of one line, without its line end."""
    text = line.strip()
    if text == "ok":
        return Ok()
    if match := _CODE.fullmatch(text):
        code = int(match.group(2))
        return Refusal(text, code) if match.group(1) == "error" else Alarm(text, code)
    if match := _STATUS.fullmatch(text):
        named = (part.partition(":") for part in match.group(3).split("|")[1:])
        detail = None if match.group(2) is None else int(match.group(2))
        return Status(text, match.group(1), detail, {name: value for name, _, value in named})
    if text.startswith("[MSG:") and text.endswith("]"):
        return Notice(text[5:-1])
    return Banner(text) if _BANNER.fullmatch(text) else Text(text)


def is_spoken(line: str) -> bool:
    """Whether no firmware but one of this dialect says this line."""
    return isinstance(parse(line), Banner | Refusal | Alarm | Status)


def introduces(reply: Reply) -> bool:
    """Whether this line belongs to an answer to ``$I``."""
    return isinstance(reply, Text) and _VERSION.fullmatch(reply.text) is not None


def identity(replies: Iterable[Reply]) -> Firmware:
    """The controller behind an answer to ``$I``: name ``Grbl 1.1h.20190830`` or ``GrblHAL 1.1f.20260817``.

    grbl has no UUID; the text that a person stored with ``$I=text`` stands in its place. A grblHAL built to be mistaken
    for grbl by its banner still says ``[FIRMWARE:grblHAL]`` here, which is why nobody is identified by the banner.
    """
    version = info = ""
    found: dict[str, str] = {}
    for reply in replies:
        if not isinstance(reply, Text):
            continue
        if match := _VERSION.fullmatch(reply.text):
            version, info = match.groups()
        elif match := _BRACKETED.fullmatch(reply.text):
            found[match.group(1)] = match.group(2)
    name = "GrblHAL" if found.get("FIRMWARE", "").lower() == "grblhal" else "Grbl"
    return Firmware(f"{name} {version}" if version else "", found.get("BOARD", ""), info)


def settings(replies: Iterable[Reply]) -> dict[str, str]:
    """The answer to ``$$``: values by the number of the setting, as they stand there."""
    matches = (_SETTING.match(reply.text) for reply in replies if isinstance(reply, Text))
    return {match[1]: match[2] for match in matches if match}


def offsets(replies: Iterable[Reply]) -> dict[str, tuple[float, ...]]:
    """The answer to ``$#``: ``G54`` to ``G59``, ``G92`` and ``TLO`` as they stand there, less what is damaged."""
    found: dict[str, tuple[float, ...]] = {}
    for reply in replies:
        if isinstance(reply, Text) and (match := _OFFSET.fullmatch(reply.text)):
            found[match[1]] = tuple(map(float, match[2].split(",")))
    return found


def has_mist(replies: Iterable[Reply]) -> bool:
    """Whether the answer to ``$I`` tells of mist coolant (M7): ``M`` in ``[OPT:…]`` (grbl/report.c)."""
    return any(isinstance(reply, Text) and _MIST.match(reply.text) for reply in replies)


def rx_bytes(replies: Iterable[Reply]) -> int | None:
    """The size of the receive buffer as ``[OPT:…]`` in the answer to ``$I`` has it."""
    for reply in replies:
        if isinstance(reply, Text) and (match := _OPTIONS.match(reply.text)):
            return int(match.group(1))
    return None
