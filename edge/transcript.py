r"""What crossed a wire, as text that people read and tests replay. PURE.

::

    == 2026-11-22T09:15:02.118Z prn-1 /dev/ttyUSB0, 250000 baud     a connection begins; what follows is one part
    # text                                                          a remark, for people only
    > N1 G28*18                                                     this line went to the machine
    ~ 0.012                                                         so many seconds pass
    < ok                                                            this line came from it
    > ?\                                                            bytes without a line end

Rules

1. A line ends with LF (0x0A), which is not shown. A ``\`` as the last character says that none came: these bytes were
   no whole line, or not yet.
2. Printable ASCII stands for itself, but for ``\``, which is written ``\\``, and a blank at the end of a line
   (``\x20``). CR is ``\r``, TAB is ``\t``, and every other byte ``\x`` with two lower-case hexadecimal digits.
3. What went out is shown as it was handed over, at that moment: nothing waits for the rest of its line. Bytes that act
   at once wherever they stand (grbl's ``?``) are shown by themselves.
4. What came in is joined to lines, and a line is shown when its end is there. `LINE_BYTES` without a line end are shown
   as they are, and so is what has waited for its end too long, or when the connection is over.
5. The seconds are counted in whole milliseconds since the heading, so that their sum is right; 0 is not shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LINE_BYTES = 1024
"""Longest piece of a line. Printers take 96 (MAX_CMD_SIZE of Marlin), and say some hundred."""

TO, FROM = ">", "<"

_ESCAPES = {byte: f"\\x{byte:02x}" for byte in range(256) if not 0x20 <= byte < 0x7F}
_ESCAPES |= {ord("\\"): "\\\\", ord("\r"): "\\r", ord("\t"): "\\t"}
_ESCAPED = re.compile(r"\\(?:x([0-9a-f]{2})|(.))")
_TEXT = re.compile(r"((?:[ -\[\]-~]|\\[\\rt]|\\x[0-9a-f]{2})*)(\\?)")
_MEANT = {"\\": "\\", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Crossed:
    """A line with its line end, or a piece of one; `after_s` is the time since what crossed before it."""

    direction: str
    data: bytes
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Part:
    """One connection. `name` is its heading; empty for what stands before the first one."""

    name: str
    crossed: list[Crossed] = field(default_factory=list)

    @property
    def sent(self) -> bytes:
        """All that went to the machine."""
        return b"".join(crossed.data for crossed in self.crossed if crossed.direction == TO)

    @property
    def came(self) -> bytes:
        """All that came from it."""
        return b"".join(crossed.data for crossed in self.crossed if crossed.direction == FROM)


class Writer:
    """Turns bytes into lines of text. `at_once`: bytes that belong to no line wherever they stand, on their way out."""

    def __init__(self, at_once: bytes = b"") -> None:
        self._at_once = re.compile(b"([" + re.escape(at_once) + b"])") if at_once else None
        self._lines: list[str] = []
        self._heading = ""  # of a connection over which nothing has crossed yet
        self._begun_ms: int | None = None
        self._last_ms: int | None = None
        self._waiting = b""  # came in, without a line end yet
        self._waiting_s = 0.0

    def begin(self, name: str, at_s: float) -> None:
        """A connection begins. It gets a heading once something crosses."""
        self.end()
        self._heading = heading(name)
        self._begun_ms = _ms(at_s)

    def add(self, direction: str, data: bytes, at_s: float) -> None:
        """`data` has crossed, at this time of any clock that does not go back."""
        if direction == TO:
            for piece in [data] if self._at_once is None else self._at_once.split(data):
                *lines, rest = piece.split(b"\n")
                for line in lines:
                    self._put(TO, line, at_s, "")
                if rest:
                    self._put(TO, rest, at_s, "\\")
            return
        if self._waiting:
            data = self._waiting + data
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._put(FROM, line, at_s, "")
        if len(rest) >= LINE_BYTES:
            self._put(FROM, rest, at_s, "\\")
            rest = b""
        self._waiting, self._waiting_s = rest, at_s

    def end(self, before_s: float | None = None) -> None:
        """Wait no longer for the end of a line; with `before_s` only if none of it came since."""
        if self._waiting and (before_s is None or self._waiting_s < before_s):
            self._put(FROM, self._waiting, self._waiting_s, "\\")
            self._waiting = b""

    def remark(self, text: str) -> None:
        """For people."""
        self._head()
        self._lines.append(f"# {_shown(text.encode())}")

    def take(self) -> str:
        """What is to be written now, in whole lines."""
        self._lines.append("")
        text = "\n".join(self._lines)
        self._lines.clear()
        return text

    def _head(self) -> None:
        if self._heading:
            self._lines.append(self._heading)
            self._heading, self._last_ms = "", self._begun_ms

    def _put(self, direction: str, line: bytes, at_s: float, end: str) -> None:
        self._head()
        ms = _ms(at_s)
        if self._last_ms is None or self._last_ms < ms:
            if self._last_ms is not None:
                self._lines.append(f"~ {(ms - self._last_ms) / 1000}")
            self._last_ms = ms
        while len(line) > LINE_BYTES:
            self._lines.append(f"{direction} {_shown(line[:LINE_BYTES])}\\")
            line = line[LINE_BYTES:]
        self._lines.append(f"{direction} {_shown(line)}{end}" if line else direction)


def heading(name: str) -> str:
    """The line that begins a part."""
    return f"== {_shown(name.encode())}"


def parse(text: str) -> list[Part]:
    """The parts of a transcript, in order. Raises `ValueError`, naming the line."""
    parts = [Part("")]
    after_s = 0.0
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        kind, _, rest = line.partition(" ")
        try:
            match kind:
                case "#":
                    pass
                case "==":
                    parts.append(Part(rest))
                    after_s = 0.0
                case "~":
                    after_s += _seconds(rest)
                case ">" | "<":
                    parts[-1].crossed.append(Crossed(kind, _meant(rest), round(after_s, 3)))
                    after_s = 0.0
                case _:
                    raise ValueError("a line begins with '> ', '< ', '~ ', '== ' or '# '")
        except ValueError as error:
            raise ValueError(f"line {number} of the transcript, {line!r}: {error}") from error
    return parts if parts[0].crossed else parts[1:]


def _shown(line: bytes) -> str:
    text = line.decode("latin-1")
    if not (text.isascii() and text.isprintable()) or "\\" in text:
        text = text.translate(_ESCAPES)
    return f"{text[:-1]}\\x20" if text.endswith(" ") else text


def _meant(text: str) -> bytes:
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(r"bytes that are no printable ASCII are written \xHH, a backslash \\")
    shown, unended = found.groups()
    meant = _ESCAPED.sub(lambda one: chr(int(one[1], 16)) if one[1] else _MEANT[one[2]], shown)
    return meant.encode("latin-1") + (b"" if unended else b"\n")


def _seconds(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text) is None:
        raise ValueError("write the seconds as 2.5")
    return float(text)


def _ms(at_s: float) -> int:
    return round(at_s * 1000)
