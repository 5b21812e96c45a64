"""From bytes to commands, in Marlin's order of checks. No I/O, no time.

Rules, seen on the Marlin 2.1.2.1 Linux build and confirmed by its `queue.cpp`:

1. Carriage return and line feed both end a line. A line that is empty up to there or up to a `;` does not exist: it
   has no answer. (A line of spaces exists, and is an unknown command.)
2. A line is cut in silence at 95 characters, the size of the buffer less its terminator.
3. A line that begins with `N` is numbered. Its number is checked first, then its checksum: the last but one and the
   last number are dropped in silence; any other that is not the next is refused, and so is a missing or wrong checksum.
4. `M110` in a numbered line sets the counter to that line's number, or to the second `N` in it, whatever it was.
5. A line without a number is taken as it is: a checksum on it is cut off unseen.
"""

from __future__ import annotations

import re
from functools import reduce
from operator import xor
from typing import NamedTuple

from hil_sim.printer import texts

MAX_LINE_BYTES = 95
"""MAX_CMD_SIZE is 96, with the terminating zero."""

_NUMBER = re.compile(rb"N\s*([-+]?\d+)")
_LEADING_NUMBER = re.compile(rb"N[-+\d]\d* *")
_DECIMAL = re.compile(rb"\s*([-+]?\d+)")


class Command(NamedTuple):
    """A command as it stands in the queue: `number` if it had one, `text` without number and checksum.

    `injected`: the firmware's own, which nobody is told an `ok` of.
    """

    number: int | None
    text: str
    injected: bool = False


class Refusal(NamedTuple):
    """A numbered line that is not taken, and why (one of the texts of `texts`)."""

    reason: str


class LineReader:
    """Puts lines together and checks them; `last_number` is the counter that `Last Line:` shows."""

    def __init__(self) -> None:
        self.last_number = 0
        self._line = b""
        self._ignoring = False

    def forget_line(self) -> None:
        """Drop an unfinished line, as an error does."""
        self._line = b""
        self._ignoring = False

    def take(self, piece: bytes) -> Command | Refusal | None:
        """Read `piece`: bytes with at most one line end, at their end. None: nothing to queue (yet)."""
        ends = piece[-1] in b"\r\n"
        if not self._ignoring:
            body = piece[:-1] if ends else piece
            comment = body.find(b";")
            if comment >= 0:
                body = body[:comment]
                self._ignoring = True
            room = MAX_LINE_BYTES - len(self._line)
            if len(body) >= room:
                body = body[:room]
                self._ignoring = True
            self._line += body
        if not ends:
            return None
        line = self._line
        self.forget_line()
        return self._check(line) if line else None

    def _check(self, line: bytes) -> Command | Refusal | None:
        text = line.lstrip(b" ")
        if not text.startswith(b"N"):
            return Command(None, _bare(text))
        sets_counter = b"M110" in text
        number = _number(text)
        if sets_counter:
            second = text.find(b"N", 4)
            if second >= 0:
                number = _number(text[second:])
        elif number != self.last_number + 1:
            if self.last_number - 1 <= number <= self.last_number:
                return None
            return Refusal(texts.BAD_NUMBER)
        star = text.rfind(b"*")
        if star < 0:
            return Refusal(texts.NO_CHECKSUM)
        given = _DECIMAL.match(text, star + 1)
        if (int(given[1]) if given else 0) != reduce(xor, text[:star], 0):
            return Refusal(texts.BAD_CHECKSUM)
        self.last_number = number
        return Command(number, _bare(text))


def _number(text: bytes) -> int:
    found = _NUMBER.match(text)
    return int(found[1]) if found else 0


def _bare(text: bytes) -> str:
    """Without number and checksum. Latin-1 keeps every byte, so an unknown command is echoed as it came."""
    numbered = _LEADING_NUMBER.match(text)
    if numbered:
        text = text[numbered.end() :]
    star = text.find(b"*")
    if star >= 0:
        text = text[:star].rstrip(b" ")
    return text.decode("latin-1")
