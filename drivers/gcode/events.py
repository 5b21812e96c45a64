"""What a stream tells of its connection, in either dialect. PURE."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from drivers.gcode.replies import Reply


@dataclass(frozen=True, slots=True)
class Acked:
    """Program commands up to `number` were carried out or queued by the firmware."""

    number: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A request was carried out; `replies` are all that was said between its sending and its ``ok``."""

    command: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Probed:
    """The firmware's own counter: the last line that it took."""

    last_line: int


@dataclass(frozen=True, slots=True)
class Heard:
    """Something said that moves nothing here: a report, a message, a prompt."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing at all was heard for `for_s`, though an answer is owed; the firmware is asked whether it is there."""

    for_s: float


@dataclass(frozen=True, slots=True)
class Speaks:
    """Something is heard again, after `Silent`: `after_s` without a byte."""

    after_s: float


class Cause(enum.Enum):
    """Why a stream has latched."""

    SAID = enum.auto()  # the firmware said what is wrong, or broke the protocol
    RESTARTED = enum.auto()  # the firmware's boot banner came
    HALTED = enum.auto()  # the firmware says that it has stopped everything
    UNCLEAR = enum.auto()  # it talks, but does not say what it has done
    SILENT = enum.auto()  # nothing is heard any more: what the machine does now is unknown


@dataclass(frozen=True, slots=True)
class Failed:
    """The stream has latched."""

    reason: str
    cause: Cause


Event: TypeAlias = Acked | Answered | Probed | Heard | Silent | Speaks | Failed
