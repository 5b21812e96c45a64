"""Plain text for an 80-column terminal. Colour underlines what the words say already, and is off without a terminal."""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

WIDTH = 80

ID_TAIL = 8
"""The end of a job's id, where its random digits are; every command takes it for the whole."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def colour(text: str, name: str) -> str:
    """`text` in a colour or weight, if standard output is a terminal and NO_COLOR is not set."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{_CODES[name]}m{text}\033[0m"


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, ensure_ascii=False, indent=1))


def plain(text: str) -> str:
    """`text` without what a terminal would obey: others wrote it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else REPLACEMENT for c in text)


def clip(text: str, width: int) -> str:
    """`text` in at most `width` columns."""
    text = plain(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows with aligned columns; the last column is clipped to the terminal.

    A name in the first column that leaves no room for the others stands on a line above them, in the same string.
    """
    cells = [list(header), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    room = max(WIDTH - len(indent) - sum(width + 2 for width in widths[1:]), len(header[0]))
    widths[0] = max(len(row[0]) for row in cells if len(row[0]) <= room)
    lines = []
    for first, *others in cells:
        above = "" if len(first) <= room else clip(indent + first, WIDTH) + "\n"
        row = ["" if above else first, *others]
        text = indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(above + clip(text.rstrip(), WIDTH))
    lines[0] = colour(lines[0], "dim")
    return lines


def wrap(text: str, indent: str, hang: str | None = None) -> list[str]:
    """`text` in lines of the terminal's width, the first with `indent`, the others with `hang` (as `indent`)."""
    lines, line = [], indent
    for word in map(plain, text.split()):
        if len(line) + len(word) > WIDTH and line.strip():
            lines.append(line.rstrip())
            line = indent if hang is None else hang
        line += word + " "
    return [*lines, line.rstrip()]


def complain(problem: str) -> None:
    """Say on standard error what is wrong: in the width of a terminal there, in one line for whoever reads it else."""
    for line in f"edge: {problem}".splitlines():
        print("\n".join(wrap(line, "", "  ")) if sys.stderr.isatty() else plain(line), file=sys.stderr)


def age(seconds: float) -> str:
    """``4 s``, ``12 min``, ``3 h``, ``9 d``."""
    for size_s, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def since(at_wall: str, now: datetime.datetime | None = None) -> str:
    """How long ago an event's time is."""
    now = now or datetime.datetime.now(datetime.UTC)
    return age((now - datetime.datetime.fromisoformat(at_wall)).total_seconds())


def clock_time(at_wall: str) -> str:
    """An event's time in the local zone: today ``14:03:20``, else with its date."""
    at = datetime.datetime.fromisoformat(at_wall).astimezone()
    today = datetime.datetime.now(datetime.UTC).astimezone().date()
    return at.strftime("%H:%M:%S" if at.date() == today else "%Y-%m-%d %H:%M:%S")
