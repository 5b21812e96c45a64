"""Moves in the fewest bytes that mean the same: blanks and needless zeros left out. PURE.

A full wire carries more commands only if each is shorter. What is written here has the same words in the same order,
and each number is the same decimal number, so a firmware whose parser needs no blanks (`takes_compact` in its profile)
does the same with it. Only moves are touched, only if every word is a letter with a plain decimal number; all else
stays byte for byte.

Two blanks stay, since firmware reads numbers with ``strtod`` (C99, 7.20.1.3), which takes more than G-code means. In
``X1E5`` it sees an exponent, so a blank stands before an E with a digit behind it; the firmware of the profiles looks
out for that, but need not. In ``E0X10`` it sees a hexadecimal number, so a blank stands between a lone 0 and an X.
"""

from __future__ import annotations

import re

_PLAIN = frozenset("123456789")
"""A number that begins like this has neither a sign nor a needless zero there."""
_MOVE = re.compile(r"G[0-3](?: [XYZEFIJRS][-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))+").fullmatch


def compact(command: str) -> str:
    """`command` in its shortest equal form: ``G1X1.5Y2E.031`` of ``G1 X1.50 Y2 E0.031``. Never longer than it was."""
    if not _MOVE(command):
        return command
    text, *words = command.split(" ")
    lone_zero = text == "G0"
    for word in words:
        letter, number = word[0], word[1:]
        if "." in number:
            number = number.rstrip("0").rstrip(".")
        if number[:1] not in _PLAIN:
            sign = "-" if number[:1] == "-" else ""
            number = number.lstrip("+-").lstrip("0")
            number = sign + number if number else "0"
        if lone_zero if letter == "X" else letter == "E" and number[0] != "." and number[:2] != "-.":
            letter = " " + letter
        lone_zero = number == "0"
        text += letter + number
    return text
