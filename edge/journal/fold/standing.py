"""What the site goes by: whether its journal is confirmed, what is known of the time, and the trust root in force."""

from __future__ import annotations

import base64
import json
import sqlite3
from datetime import datetime

from edge.journal.fold import verdicts
from edge.model.event import Event, stamp_text
from edge.timefloor import BEGINNING, Host, Known, SignedTime, answered, recorded


def journal_held(connection: sqlite3.Connection) -> str | None:
    """Why nobody may go by this journal before a person has confirmed it; None if nobody needs to."""
    held: str | None = connection.execute("SELECT held FROM standing").fetchone()[0]
    return held


def known_time(connection: sqlite3.Connection) -> Known:
    """What is known of the time: the journal's floor, and the last signed time."""
    floor, at, mono_ms, arrived_ms, boot_id = connection.execute(
        "SELECT floor, signed_at, signed_mono_ms, arrived_mono_ms, signed_boot_id FROM standing"
    ).fetchone()
    signed = None if at is None else SignedTime(datetime.fromisoformat(at), mono_ms / 1000, arrived_ms / 1000, boot_id)
    return Known(BEGINNING if floor is None else datetime.fromisoformat(floor), signed)


def trusted(connection: sqlite3.Connection, event: Event) -> None:
    """The floor rises with what is recorded while the clock is trusted."""
    floor = event.at_wall
    (signed_boot_id,) = connection.execute("SELECT signed_boot_id FROM standing").fetchone()
    if signed_boot_id == event.boot_id:
        floor = stamp_text(recorded(known_time(connection), _host(event)).floor)
    raise_floor(connection, floor)


def raise_floor(connection: sqlite3.Connection, at: str) -> None:
    connection.execute("UPDATE standing SET floor = :at WHERE floor IS NULL OR floor < :at", {"at": at})


def _host(event: Event) -> Host:
    return Host(datetime.fromisoformat(event.at_wall), event.at_mono_ms / 1000, event.boot_id, synchronized=False)


def time_accepted(connection: sqlite3.Connection, event: Event) -> None:
    body, host = event.body, _host(event)
    at = datetime.fromisoformat(body["at"])
    answer = SignedTime(at, body["nonce_mono_ms"] / 1000, host.mono_s, body["boot_id"])
    known = answered(known_time(connection), answer, host, repairs=body["repairs"])
    signed = known.signed and (
        stamp_text(known.signed.at),
        round(known.signed.nonce_mono_s * 1000),
        round(known.signed.arrived_mono_s * 1000),
        known.signed.boot_id,
    )
    connection.execute(
        "UPDATE standing SET floor = ?, signed_at = ?, signed_mono_ms = ?, arrived_mono_ms = ?, signed_boot_id = ?",
        (stamp_text(known.floor), *(signed or (None,) * 4)),
    )


def root_accepted(connection: sqlite3.Connection, event: Event) -> None:
    envelope = base64.b64decode(event.body["envelope"], validate=True)
    version = json.loads(base64.b64decode(json.loads(envelope)["payload"], validate=True))["version"]
    current = root_version(connection)
    if current is not None and version != current + 1:
        raise ValueError(f"version {version} of the trust root does not follow version {current}")
    verdicts.forget_verdict(connection, event)
    row = (version, event.body["payload_digest"], envelope, event.seq)
    connection.execute("INSERT INTO roots VALUES (?, ?, ?, ?)", row)


def root_version(connection: sqlite3.Connection) -> int | None:
    version: int | None = connection.execute("SELECT max(version) FROM roots").fetchone()[0]
    return version
