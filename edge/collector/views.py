"""What `edge collect status` says, read from the database alone: with the collector alive or dead.

What is proven (events, runs) comes from the events; what a site says of itself (link, state) is shown with its age.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge.collector import schema
from edge.errors import EdgeError, NoJournalError
from edge.journal.rows import rows

FINE, ATTENTION, UNSAFE = 0, 1, 2

SILENT = datetime.timedelta(minutes=3)
"""A site that is online says how it is once a minute."""

GENTLE = frozenset({"new_journal", "repeated"})
"""Kinds of alarms that want a person, and after which all is here as it was."""


@contextlib.contextmanager
def opened(state_dir: Path, mode: str = "ro") -> Iterator[sqlite3.Connection]:
    """The collector's database.

    Raises:
        NoJournalError: there is none.
        EdgeError: it cannot be read, or is of another format.
    """
    path = state_dir / schema.FILE_NAME
    if not path.exists():
        raise NoJournalError(f"{path} is not there: the collector has not run yet; start it with `edge collect`")
    try:
        address = f"{path.absolute().as_uri()}?mode={mode}"
        with contextlib.closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=5)) as connection:
            found = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
            if found != (schema.FORMAT,):
                raise EdgeError(f"{path} has format {found and found[0]}; this edge reads format {schema.FORMAT}")
            yield connection
    except sqlite3.Error as error:
        raise EdgeError(f"{path} cannot be used: {error}") from error


def document(
    connection: sqlite3.Connection, configured: list[str], now: datetime.datetime | None = None
) -> dict[str, Any]:
    """All sites at a glance; the shape is in docs/json.md. `configured` are those of collector.toml."""
    now = now or datetime.datetime.now(datetime.UTC)
    connection.execute("BEGIN")
    known = {site for (site,) in connection.execute("SELECT site FROM journals UNION SELECT site FROM sites")}
    sites = [_site(connection, site, now) for site in sorted(known | set(configured))]
    alarms = rows(connection, "SELECT * FROM alarms WHERE cleared_at IS NULL ORDER BY last_at DESC")
    (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
    (handed_on,) = connection.execute("SELECT value FROM meta WHERE key = 'handed_on'").fetchone()
    connection.execute("ROLLBACK")
    urgent = any(alarm["kind"] not in GENTLE for alarm in alarms)
    level = UNSAFE if urgent else ATTENTION if alarms or any(site["attention"] for site in sites) else FINE
    return {"level": level, "sites": sites, "alarms": alarms, "events": events, "handed_on": int(handed_on)}


def clear(connection: sqlite3.Connection, now: str) -> int:
    """A person has seen all alarms; how many there were. What happens again raises them again."""
    return connection.execute("UPDATE alarms SET cleared_at = ? WHERE cleared_at IS NULL", (now,)).rowcount


def _site(connection: sqlite3.Connection, site: str, now: datetime.datetime) -> dict[str, Any]:
    journals = rows(connection, "SELECT * FROM journals WHERE site = ? ORDER BY number DESC", site)
    told = rows(connection, "SELECT * FROM sites WHERE site = ?", site)
    parked = connection.execute("SELECT count(*) FROM parked WHERE site = ?", (site,)).fetchone()[0]
    runs = dict(
        connection.execute(
            "SELECT state, count(*) FROM runs WHERE site = ? AND journal = ? GROUP BY state",
            (site, journals[0]["journal"] if journals else ""),
        ).fetchall()
    )
    newest = journals[0] if journals else None
    link = json.loads(told[0]["link"] or "{}") if told else {}
    state = json.loads(told[0]["state"] or "{}") if told else {}
    online = link.get("online") if isinstance(link.get("online"), bool) else None
    found = {
        "site": site,
        "online": online,
        "link_at": told[0]["link_at"] if told else None,
        "journal": newest and newest["journal"],
        "journals": len(journals),
        "seq": newest["seq"] if newest else 0,
        "hash": newest and newest["hash"],
        "applied_at": newest and newest["applied_at"],
        "state_at": told[0]["state_at"] if told else None,
        "backlog": _backlog(state, newest),
        "parked": parked,
        "lost": [
            [row["first_seq"], row["last_seq"]]
            for row in rows(connection, "SELECT * FROM gaps WHERE site = ? ORDER BY at, first_seq", site)
        ],
        "running": runs.get("running", 0),
        "unknown": runs.get("unknown", 0),
        "unjudged": _unjudged(connection, site, journals[0]["journal"]) if journals else 0,
        "capacity": _capacity(state),
        "telemetry": _telemetry(connection, site),
    }
    heard_at = max(filter(None, (found["link_at"], found["state_at"], found["applied_at"])), default=None)
    silent = online and heard_at is not None and now - datetime.datetime.fromisoformat(heard_at) > SILENT
    return {**found, "silent": bool(silent), "attention": _attention({**found, "silent": silent}, state)}


def _telemetry(connection: sqlite3.Connection, site: str) -> dict[str, Any] | None:
    """The newest values of a site; None if none has come, or the collector has not run since it knows of them."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'telemetry_heard'").fetchone():
        return None
    heard = rows(connection, "SELECT * FROM telemetry_heard WHERE site = ?", site)
    if not heard:
        return None
    values = {
        row["key"]: {name: row[name] for name in ("unit", "seen_at", "skipped")} | {"value": json.loads(row["value"])}
        for row in rows(connection, "SELECT * FROM telemetry WHERE site = ? ORDER BY key", site)
    }
    (row,) = heard
    gap = row["gap"] and json.loads(row["gap"])
    names = ("came_at", "run", "number", "lost", "skipped", "dropped")
    return {**{name: row[name] for name in names}, "gap": gap, "values": values}


def _unjudged(connection: sqlite3.Connection, site: str, journal: str) -> int:
    """How many orders wait there for the time; none in an older database."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'unjudged'").fetchone():
        return 0
    query = "SELECT count(*) FROM unjudged WHERE (site, journal) = (?, ?)"
    return int(connection.execute(query, (site, journal)).fetchone()[0])


def _backlog(state: Mapping[str, Any], newest: Mapping[str, Any] | None) -> int | None:
    """How many events the site had, when it last spoke, that are not here; None if it has not said."""
    last_seq = state.get("last_seq")
    if not isinstance(last_seq, int):
        return None
    return max(0, last_seq - (newest["seq"] if newest and newest["journal"] == state.get("journal") else 0))


def _capacity(state: Mapping[str, Any]) -> dict[str, list[int]]:
    """For each process: free machines, and all of them."""
    told = state.get("capacity")
    return {
        str(process): [int(of["free"]), int(of["machines"])]
        for process, of in (told.items() if isinstance(told, dict) else ())
        if isinstance(of, dict) and isinstance(of.get("free"), int) and isinstance(of.get("machines"), int)
    }


def _attention(found: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """What of a site wants a person, in words."""
    words = []
    if found["journal"] is None:
        words.append("has not reported yet")
    elif found["online"] is False:
        words.append("is offline")
    if found["silent"]:
        words.append("is online as far as the broker knows, and has said nothing for minutes")
    if found["unknown"]:
        words.append(f"{found['unknown']} of its runs ended in doubt")
    words += [f"events {first} to {last} are lost here, and pruned there" for first, last in found["lost"]]
    if found["unjudged"]:
        words.append(f"has {found['unjudged']} orders that wait until somebody vouches for its clock")
    if found["parked"]:
        words.append("events are missing; they were asked for")
    told = state.get("attention")
    kinds = sorted({str(kind) for kind in told}) if isinstance(told, list) else []
    if kinds:
        words.append(f"says itself: {', '.join(kinds)}")
    return words
