"""Reading JSON that somebody signed, without room for two readings.

    1. Bytes are at most `max_bytes` long, and UTF-8 without a byte order mark.
    2. No object has the same key twice; readers disagree on which one counts.
    3. Numbers are finite; integers have at most 19 digits.
    4. Nesting is at most `max_depth` deep, counted before anything is parsed.
    5. Strings are sequences of Unicode characters: half of a surrogate pair is none.

Whatever breaks a rule is a `FormatError` whose text is one sentence.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import NoReturn

from edge.errors import FormatError

MAX_DEPTH = 16
_MAX_DIGITS = 19

# A whole string, or one bracket. The string part never gives back what it took, so hostile input stays linear.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{\]}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_SHOWN_CHARACTERS = 60


def shown(value: object) -> str:
    """`value` as it may stand in a message: escaped, and cut to a length that fits a line."""
    text = repr(value[: _SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def load_object(raw: bytes, *, what: str, max_bytes: int, max_depth: int = MAX_DEPTH) -> dict[str, object]:
    """The JSON object that `raw` is; `what` names it in messages ("the envelope")."""
    if len(raw) > max_bytes:
        raise FormatError(f"{what} has {len(raw)} bytes, at most {max_bytes} are allowed")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} is not UTF-8: byte {error.start} is {raw[error.start]:#04x}") from error
    if text.startswith("\ufeff"):
        raise FormatError(f"{what} begins with a byte order mark, must begin with '{{'")
    _check_depth(text, what, max_depth)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        raise FormatError(f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    if _SURROGATE_ESCAPE.search(text):
        _check_characters(value, what)
    if not isinstance(value, dict):
        raise FormatError(f"{what} is {shown(value)}, must be a JSON object")
    return value


def _check_depth(text: str, what: str, max_depth: int) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if first in "[{":
            depth += 1
            if depth > max_depth:
                raise FormatError(f"{what} is nested deeper than {max_depth} levels")
        elif first in "]}":
            depth -= 1


def _check_characters(value: object, what: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(f"{what} has half of a surrogate pair in a string, must have whole characters") from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise FormatError(f"the key {shown(twice)} stands twice in one object, must stand once")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise FormatError(f"{name} is not a JSON number, must be finite")


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _MAX_DIGITS:
        raise FormatError(f"the number {digits[:20]}… has too many digits, at most {_MAX_DIGITS} are allowed")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise FormatError(f"the number {shown(digits)} is too large, must be finite")
    return value
