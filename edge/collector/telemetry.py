"""What sites tell of their newest values: no facts, kept beside them and never among them.

Rules:

    1. One value is kept for each site and key, at most `MAX_KEYS` a site, and no history: the table does not grow.
    2. What was before a restart of the site's daemon is not known any more.
    3. A message that was lost shows by its number, and a gap that the site tells of is kept: the newest of both.
    4. A message that is older than the newest of its run says nothing.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import BatchError
from edge.model.fields import problem_of, time_text
from edge.model.strictjson import load_object

MAX_BYTES = 64 * 1024
MAX_KEYS = 1024
MAX_COUNT = 2**53

Text: TypeAlias = Annotated[str, Field(max_length=256)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Seconds: TypeAlias = Annotated[float, Field(ge=0, le=1e9)]


class _Part(BaseModel):
    """A site of a later version may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Value(_Part):
    """The newest value of a key; null: nothing is known of it any more."""

    value: int | float | Text | None
    unit: Text
    age_s: Seconds
    skipped: Count


class Gap(_Part):
    """From when to when, by the site's clock, nothing could be sent; `over_s` by one that never goes back."""

    from_at: Annotated[Text, Field(alias="from")]
    to: Text
    over_s: Seconds
    why: Annotated[list[Literal["link", "facts"]], Field(max_length=2)]


class Telemetry(_Part):
    """One message. See docs/uplink.md."""

    site: Text
    run: Text
    number: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    at: Text
    clock: Text
    values: Annotated[dict[Text, Value], Field(max_length=MAX_KEYS)]
    skipped: Count
    dropped: Count
    gap: Gap | None


def read(payload: bytes, site: str) -> Telemetry:
    """The message of `site`. Raises `BatchError`."""
    document = load_object(payload, what="the telemetry of a site", max_bytes=MAX_BYTES)
    try:
        found = Telemetry.model_validate(document)
    except ValidationError as error:
        raise BatchError(problem_of(error, "the telemetry of a site")) from error
    if found.site != site:
        raise BatchError(f"the telemetry is of site {found.site}, must be of site {site}")
    return found


@dataclass(frozen=True, slots=True)
class _Heard:
    """A row of `telemetry_heard`, without the site."""

    run: str
    number: int
    came_at: str
    lost: int
    skipped: int
    dropped: int
    gap: str | None


def keep(connection: sqlite3.Connection, found: Telemetry, now: datetime) -> bool:
    """Keep what is new, in the writer's transaction; False if it was not."""
    site, came_at = found.site, time_text(now)
    row = connection.execute(
        "SELECT run, number, came_at, lost, skipped, dropped, gap FROM telemetry_heard WHERE site = ?", (site,)
    ).fetchone()
    before = _Heard(found.run, 0, found.at, 0, 0, 0, None) if row is None else _Heard(*row)
    if before.run != found.run:
        connection.execute("DELETE FROM telemetry WHERE site = ?", (site,))
        before = _Heard(found.run, 0, before.came_at, 0, 0, 0, None)
    elif found.number <= before.number:
        return False
    gap = before.gap
    if found.gap is not None:
        gap = json.dumps(found.gap.model_dump(by_alias=True))
    if lost := found.number - before.number - 1:
        gap = json.dumps({"from": before.came_at, "to": came_at, "over_s": None, "why": ["lost"]})
    for key, seen in found.values.items():
        _keep_value(connection, site, key, seen, found.number, now)
    connection.execute(
        "DELETE FROM telemetry WHERE site = ? AND key NOT IN"
        " (SELECT key FROM telemetry WHERE site = ? ORDER BY number DESC, key LIMIT ?)",
        (site, site, MAX_KEYS),
    )
    skipped = min(before.skipped + found.skipped, MAX_COUNT)
    dropped = min(before.dropped + found.dropped, MAX_COUNT)
    connection.execute(
        "INSERT OR REPLACE INTO telemetry_heard VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (site, found.run, found.number, came_at, before.lost + lost, skipped, dropped, gap),
    )
    return True


def _keep_value(connection: sqlite3.Connection, site: str, key: str, seen: Value, number: int, now: datetime) -> None:
    if seen.value is None:
        connection.execute("DELETE FROM telemetry WHERE (site, key) = (?, ?)", (site, key))
        return
    row = (site, key, json.dumps(seen.value), seen.unit, time_text(now - timedelta(seconds=seen.age_s)), number)
    connection.execute("INSERT OR REPLACE INTO telemetry VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, seen.skipped))
