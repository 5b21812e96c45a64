"""What a command says, however it is written: commands are the same only if every word and every decimal number is.

For those who hold what a printer has carried out against a program: a driver may write a move in fewer bytes. It shares
nothing with how drivers do that.
"""

from __future__ import annotations

from decimal import Decimal

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def words(command: str) -> list[tuple[str, Decimal]]:
    """Letters and the numbers behind them, in order. Raises `ArithmeticError` where one is no plain number."""
    found: list[tuple[str, Decimal]] = []
    rest = command.replace(" ", "")
    while rest:
        letter, rest = rest[0], rest[1:]
        if letter not in _LETTERS:
            raise ArithmeticError(command)
        length = next((at for at, char in enumerate(rest) if char in _LETTERS), len(rest))
        found.append((letter, Decimal(rest[:length])))
        rest = rest[length:]
    return found


def as_meant(command: str) -> str:
    """A move as its words with blanks between them and each number in one way only; anything else as it is."""
    if command[:2] not in ("G0", "G1", "G2", "G3") or command[2:3] not in ("", " ", *_LETTERS):
        return command
    try:
        return " ".join(letter + _plain(number) for letter, number in words(command))
    except ArithmeticError:
        return command


def _plain(number: Decimal) -> str:
    """``0.5``, ``-3``, ``120``: no exponent, no zero that does not count; the sign of a zero does not."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text if number else "0"
