"""Machines: whether they are online, need clearing, or are out of service, and what is loaded in them."""

from __future__ import annotations

import json
import sqlite3

from edge.errors import IllegalTransitionError
from edge.journal.maintenance import Maintenance
from edge.model.event import Event


def needs_clearing(connection: sqlite3.Connection, event: Event, by: str | None) -> None:
    connection.execute(
        "INSERT INTO machines (machine, needs_clearing, online, since) VALUES (?, ?, 0, ?)"
        " ON CONFLICT DO UPDATE SET needs_clearing = excluded.needs_clearing",
        (event.machine, by, event.at_wall),
    )


def foreign_work(connection: sqlite3.Connection, event: Event) -> None:
    token = event.body["token"]
    row = (event.machine, token, event.body["detail"], event.at_wall)
    connection.execute("INSERT INTO foreign_work VALUES (?, ?, ?, ?)", row)  # each token once
    needs_clearing(connection, event, token)


def cleared(connection: sqlite3.Connection, event: Event) -> None:
    by = event.body["run_id"]
    query = "SELECT needs_clearing FROM machines WHERE machine = ?"
    (needed,) = connection.execute(query, (event.machine,)).fetchone() or (None,)
    if needed is None:
        raise IllegalTransitionError(f"{event.machine} does not need clearing")
    if needed != by:
        raise IllegalTransitionError(f"{event.machine} needs clearing by {needed}, not by {by}")
    query = "SELECT run_id FROM runs WHERE ended_at IS NULL AND machine = ?"
    if (going_on := connection.execute(query, (event.machine,)).fetchone()) is not None:
        raise IllegalTransitionError(f"{event.machine} cannot be cleared: run {going_on[0]} has not ended")
    connection.execute("UPDATE machines SET needs_clearing = NULL WHERE machine = ?", (event.machine,))


def seen(connection: sqlite3.Connection, event: Event, online: bool) -> None:
    connection.execute(
        "INSERT INTO machines (machine, online, since) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
        " SET online = excluded.online, since = iif(online = excluded.online, since, excluded.since)",
        (event.machine, online, event.at_wall),
    )


def maintenance(connection: sqlite3.Connection, machine: str | None) -> Maintenance | None:
    """Who took a machine out of service; None while it is in service."""
    row = connection.execute(
        "SELECT maintenance_by, maintenance_since, maintenance_reason, made_safe FROM machines"
        " WHERE machine = ? AND maintenance_by IS NOT NULL",
        (machine,),
    ).fetchone()
    return None if row is None else Maintenance(row[0], row[1], row[2], bool(row[3]))


def maintenance_began(connection: sqlite3.Connection, event: Event) -> None:
    """Out of service is out of service: who said so first is kept."""
    connection.execute(
        "INSERT INTO machines (machine, online, since) VALUES (?, 0, ?) ON CONFLICT DO NOTHING",
        (event.machine, event.at_wall),
    )
    connection.execute(
        "UPDATE machines SET maintenance_by = :by, maintenance_since = :at, maintenance_reason = :reason"
        " WHERE machine = :machine AND maintenance_by IS NULL",
        {"by": event.actor, "at": event.at_wall, "reason": event.body["reason"], "machine": event.machine},
    )
    if event.body["made_safe"]:
        connection.execute("UPDATE machines SET made_safe = 1 WHERE machine = ?", (event.machine,))


def maintenance_ended(connection: sqlite3.Connection, event: Event) -> None:
    if maintenance(connection, event.machine) is None:
        raise IllegalTransitionError(f"{event.machine} is in service")
    connection.execute(
        "UPDATE machines SET maintenance_by = NULL, maintenance_since = NULL, maintenance_reason = NULL, made_safe = 0"
        " WHERE machine = ?",
        (event.machine,),
    )


def loaded(connection: sqlite3.Connection, event: Event) -> None:
    """The newest word on a property counts. Of the other properties it says nothing."""
    for name, said in dict(event.body["values"]).items():
        value, configured = json.dumps(said["value"]), json.dumps(said["configured"])
        connection.execute(
            "INSERT INTO loaded VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value,"
            " configured = excluded.configured, loaded_by = excluded.loaded_by, since = excluded.since",
            (event.machine, name, value, configured, event.actor, event.at_wall),
        )


def load_overtaken(connection: sqlite3.Connection, event: Event) -> None:
    for name in event.body["configured"]:
        query = "DELETE FROM loaded WHERE (machine, property) = (?, ?)"
        if connection.execute(query, (event.machine, name)).rowcount != 1:
            raise IllegalTransitionError(f"nobody has loaded {name} in {event.machine}")
