"""What is loaded in a machine: its properties as site.toml has them, and as somebody has said since. PURE, and light.

Rules

1. site.toml says which properties a machine has, of which type, and what counts while nobody has said otherwise.
2. What somebody says is loaded counts from then on, until site.toml says something else for that property than it did
   then: whoever changed it there has spoken last.
3. What site.toml has overtaken never counts again, though the old value come back there: the daemon that finds it
   so writes it down (`overtaken`).
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.errors import UsageError
from edge.model.machine import Value, in_words, same
from edge.model.strictjson import shown

MAX_TEXT = 200
"""Characters of a text, as in an order's `requires`."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MAX_INTEGER = 2**53 - 1  # the largest that every JSON reader keeps exact


@dataclass(frozen=True, slots=True)
class Loaded:
    """What somebody has said of one property. `configured`: site.toml's value then; `since` as events have times."""

    value: Value
    configured: Value
    by: str
    since: str

    @property
    def in_words(self) -> str:
        """``loaded 2026-11-22 by ada``."""
        return f"loaded {datetime.datetime.fromisoformat(self.since):%Y-%m-%d} by {self.by.removeprefix('user:')}"


@dataclass(frozen=True, slots=True)
class Property:
    """What counts now. `loaded` is None if that is site.toml's own value, `configured`."""

    value: Value
    configured: Value
    loaded: Loaded | None = None

    @property
    def origin(self) -> str:
        """``site.toml``, or who has loaded it and when."""
        return "site.toml" if self.loaded is None else self.loaded.in_words

    def as_json(self) -> dict[str, Any]:
        """As docs/json.md has it."""
        loaded = self.loaded and {"by": self.loaded.by, "since": self.loaded.since}
        return {"value": self.value, "configured": self.configured, "loaded": loaded}


def counting(configured: Mapping[str, Value], loaded: Mapping[str, Loaded]) -> dict[str, Property]:
    """What counts of a machine that site.toml has as `configured`, by the name of the property (rules 1 and 2)."""
    return {name: _counts(own, loaded.get(name)) for name, own in configured.items()}


def overtaken(configured: Mapping[str, Value], loaded: Mapping[str, Loaded]) -> dict[str, Value | None]:
    """What was loaded and counts no more, with what site.toml says instead; None where it names it no more (rule 3)."""
    counts = counting(configured, loaded)
    return {name: configured.get(name) for name in loaded if name not in counts or counts[name].loaded is None}


def _counts(own: Value, said: Loaded | None) -> Property:
    if said is None or not same(said.configured, own):
        return Property(own, own)
    return Property(said.value, own, said)


def checked(machine: str, said: object, configured: Mapping[str, Value]) -> dict[str, Value]:
    """What somebody says is loaded in `machine`, each value with the type of the configured one.

    Raises:
        UsageError: nothing, an unknown name, or a value of another type; names what would be right.
    """
    if not configured:
        raise UsageError(f"{machine} has no properties: site.toml names none for it")
    if not isinstance(said, Mapping) or not said:
        name, own = next(iter(configured.items()))
        raise UsageError(f"say what is loaded in {machine}, as {name}={in_words(own)}")
    for name in said:
        if name not in configured:
            named = ", ".join(configured)
            raise UsageError(f"{machine} has no property {shown(name)}; site.toml names these for it: {named}")
    return {name: typed(name, value, configured[name]) for name, value in said.items()}


def typed(name: str, said: object, own: Value) -> Value:
    """A value, or the text of one as a person types it, with the type of `own`. Raises `UsageError`."""
    if isinstance(said, str):
        said = said.strip()
    match own:
        case bool():
            found, right = _truth(said), "true or false"
        case str():
            found, right = _text(said), f"a text of 1 to {MAX_TEXT} printable characters"
        case _:
            found, right = _number(said), "a number, such as 0.4"
    if found is None:
        raise UsageError(f"{name} is {shown(said)}, must be {right}")
    return found


def _truth(said: object) -> Value | None:
    if isinstance(said, str):
        return {"true": True, "false": False}.get(said.lower())
    return said if isinstance(said, bool) else None


def _text(said: object) -> Value | None:
    return said if isinstance(said, str) and 1 <= len(said) <= MAX_TEXT and said.isprintable() else None


def _number(said: object) -> Value | None:
    """Integers stay integers while every reader of the journal keeps them exact."""
    if isinstance(said, str):
        if len(said) > MAX_TEXT or _NUMBER.fullmatch(said) is None:
            return None
        said = float(said) if set(said) & set(".eE") else int(said)
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    return said if math.isfinite(said) and abs(said) <= _MAX_INTEGER else None
