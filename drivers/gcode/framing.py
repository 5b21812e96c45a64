"""How a connection is used, and a line on it: its number, its checksum, and what is known of it in flight. PURE.

Source: Marlin/src/gcode/queue.cpp (2.1.2.1), `get_serial_commands`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from drivers.gcode.replies import Reply

BLOCK_LINES = 64
"""How many lines are made ready in one go: a fifth of a millisecond's work."""

_CODE = re.compile(r"[A-Z]\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Wire:
    """How this connection is to be used; values come from the firmware's profile.

    `window_bytes`: bytes in flight at most, 0 for one line at a time. `stall_s`: how long a line may stay without
    ``ok`` or ``busy`` before the firmware is probed. `silence_s`: how long nothing at all may be heard while an answer
    is owed, before it is asked for the last time. `max_resends`: how often the same line may be asked for again.
    `counts`: the firmware says the last line that it took when it is asked. `harmless`: codes that the firmware need
    not know, because they only inform.
    """

    window_bytes: int = 0
    stall_s: float = 6.0
    silence_s: float = 30.0
    max_resends: int = 10
    counts: bool = True
    harmless: frozenset[str] = frozenset()


@dataclass(slots=True)
class Outgoing:
    """A line that is to go out, or is in flight. `number` is None for a request."""

    command: str
    number: int | None
    wire: bytes
    expects: Callable[[Reply], bool] | None = None
    sets_counter: bool = False
    once: bool = False  # interjected: never sent again
    asked_again: int = 0
    busy: bool = False
    replies: list[Reply] = field(default_factory=list)

    def is_answered(self) -> bool:
        """Whether an ``ok`` can be this line's: an answer that must come before it has come."""
        return self.expects is None or any(map(self.expects, self.replies))


def checksum(line: bytes) -> int:
    """XOR of all bytes before the ``*``."""
    value = 0
    for byte in line:
        value ^= byte
    return value


def program_lines(commands: Iterable[str], after: int = 0, *, compact: bool = False) -> Iterator[Outgoing]:
    """Commands of a program as they go out, numbered from ``after + 1``: stripped, not empty, and free of ``M110``.

    With `compact`, no blank stands between a number and a G-code. They are made ready a block at a time: done once for
    each answer of the firmware, the same work takes several times as long, every time with cold caches.
    """
    waiting = enumerate(commands, after + 1)
    while block := list(itertools.islice(waiting, BLOCK_LINES)):
        yield from [
            Outgoing(command, number, numbered(number, command, "" if compact and command[0] == "G" else " "))
            for number, command in block
        ]


def numbered(number: int, command: str, gap: str = " ") -> bytes:
    """``N<number><gap><command>*<checksum>`` with its line end."""
    body = f"N{number}{gap}{command}".encode("ascii")
    return b"%b*%d\n" % (body, checksum(body))


def first_word(command: str) -> str:
    """``G1`` of ``G1X5`` and of ``G1 X5``; of what has none, the first word."""
    return found[0] if (found := _CODE.match(command)) else command.partition(" ")[0]


def differs_in_one(one: str, other: str) -> bool:
    """Whether one character is another, and nothing else."""
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) == 1
