"""The shapes that the fields of signed documents have, and the sentence for one that has another.

Every pattern is explicit and every length bounded: these strings become file names, topics and lines on a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from edge.errors import FormatError
from edge.model.strictjson import load_object, shown

_SHAPE = "shape"
_RULE = "rule"


class StrictModel(BaseModel):
    """Base of signed documents: frozen, no unknown field, no conversion between types, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def read(cls, raw: bytes, *, what: str, max_bytes: int) -> Self:
        """The document that `raw` is; `what` names it in messages ("the order").

        Raises:
            FormatError: anything else; names the field, the value and what would be right.
        """
        document = load_object(raw, what=what, max_bytes=max_bytes)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise FormatError(problem_of(error, what)) from error


def wrong_shape(right: str) -> PydanticCustomError:
    """The error of one field: the message becomes `<field> is <value>, must be <right>`."""
    return PydanticCustomError(_SHAPE, "must be {right}", {"right": right})


def broken_rule(sentence: str) -> PydanticCustomError:
    """The error of fields that do not go together: the message is `sentence`."""
    return PydanticCustomError(_RULE, "{sentence}", {"sentence": sentence})


def matching(pattern: str, right: str) -> AfterValidator:
    """A string that `pattern` matches whole."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise wrong_shape(right)
        return value

    return AfterValidator(check)


def _printable(max_characters: int) -> Callable[[str], str]:
    def check(value: str) -> str:
        # What is not printable could move the cursor of the terminal that shows it.
        if len(value) > max_characters or not value.isprintable():
            raise wrong_shape(f"at most {max_characters} printable characters")
        return value

    return check


_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?Z", re.ASCII)
_TIME_RIGHT = "an RFC 3339 time in UTC such as '2026-11-21T10:00:00Z'"


def parse_time(value: object) -> datetime:
    """An aware datetime of RFC 3339 text with `Z`, or of an aware datetime.

    Raises:
        PydanticCustomError: for anything else.
    """
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return value.astimezone(UTC)
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        raise wrong_shape(_TIME_RIGHT)
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        raise wrong_shape(_TIME_RIGHT) from error


def time_text(value: datetime) -> str:
    """The RFC 3339 text of an aware time, in UTC with `Z`."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


UtcTime = Annotated[datetime, BeforeValidator(parse_time), PlainSerializer(time_text, when_used="json")]
Text = Annotated[str, AfterValidator(_printable(200))]
Sha256 = Annotated[str, matching(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
SiteId = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit",
    ),
]
StepId = SiteId
Ulid = Annotated[
    str, matching(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", "a ULID, 26 characters such as '01J9ZK3V5Q8M2N4P6R7S9T0W1X'")
]
KeyName = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}",
        "1 to 64 letters, digits, '.', '_', '@' or '-', beginning with a letter or digit",
    ),
]
FileName = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
        "1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit",
    ),
]
Process = Annotated[
    str,
    matching(r"(?=.{1,64}\Z)[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*", "the name of a process such as 'fdm' or 'robot.tend'"),
]
PropertyName = Annotated[
    str, matching(r"[a-z][a-z0-9_]{0,63}", "1 to 64 lower-case letters, digits or '_', beginning with a letter")
]


def problem_of(error: ValidationError, what: str) -> str:
    """One sentence for one thing that is wrong in `what` ("the order"): field, value, what would be right."""
    return f"{what}: {_sentence(most_telling(error)).lstrip()}"


def most_telling(error: ValidationError) -> ErrorDetails:
    """The first problem that is not just the other side of a later one: a name that is misspelt is missing, too."""
    found = error.errors(include_url=False)
    unknown = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    return unknown if found[0]["type"] == "missing" and unknown["loc"][:-1] == found[0]["loc"][:-1] else found[0]


def _sentence(detail: ErrorDetails) -> str:
    where = _field(detail["loc"])
    match detail["type"]:
        case "missing":
            return f"{where} is missing"
        case "extra_forbidden":
            return f"{where} is an unknown field; remove it or correct its name"
        case "rule":
            return detail["msg"]
        case _:
            right = re.sub(r"^\w+ should", "must", detail["msg"])
            return f"{where} is {shown(detail['input'])}, {right}"


def _field(location: tuple[int | str, ...]) -> str:
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part == "[key]":
            name = f"the key {name}"
        else:
            plain = part if re.fullmatch(r"[\w.@-]{1,80}", part, re.ASCII) else shown(part)
            name += f".{plain}" if name else plain
    return name
