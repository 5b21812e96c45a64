"""Orders: taken with their steps, parked until they can be judged, or given up before that."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from datetime import datetime
from typing import Any

from edge.jobstate import OnFailure, Requested, StepState
from edge.journal.fold import verdicts
from edge.journal.forgetting import forget
from edge.model.event import Event, stamp_text
from edge.replay import ReplayWindow


def _order_of(event: Event) -> tuple[bytes, bytes, dict[str, Any]]:
    """The envelope of an order, its payload, and what that says."""
    envelope = base64.b64decode(event.body["envelope"], validate=True)
    payload = base64.b64decode(json.loads(envelope)["payload"], validate=True)
    order = json.loads(payload)
    if order["job_id"] != event.job_id:
        raise ValueError(f"the order is {order['job_id']}, the event is about {event.job_id}")
    return envelope, payload, order


def parked(connection: sqlite3.Connection, event: Event) -> None:
    envelope, payload, order = _order_of(event)
    row = {
        "seq": event.seq,
        "digest": event.body["digest"],
        "payload_digest": hashlib.sha256(payload).hexdigest(),
        "envelope": envelope,
        "actor": event.actor,
        "job_id": event.job_id,
        "issuer": order["issuer"],
        "product": order["product"],
        "reference": order.get("reference", ""),
        "quantity": order.get("quantity", 1),
        "priority": order.get("priority", 50),
        "due_at": order.get("due_at"),
        "not_before": order.get("not_before"),
        "expires_at": stamp_text(datetime.fromisoformat(order["expires_at"])),
        "parked_at": event.at_wall,
        "revision": event.seq,
    }
    connection.execute(f"INSERT INTO parked VALUES ({', '.join(f':{column}' for column in row)}, NULL)", row)


def unpark(connection: sqlite3.Connection, digest: str, payload_digest: str | None) -> None:
    """An order that may have waited has its verdict, also if it came in another spelling."""
    connection.execute(
        "DELETE FROM parked WHERE given_up IS NULL AND (digest = ? OR payload_digest = ?)", (digest, payload_digest)
    )


def give_up(connection: sqlite3.Connection, event: Event, word: str) -> bool:
    """End an order that waits to be judged, and keep its id taken; False if there is none, or a job of this name."""
    if connection.execute("SELECT 1 FROM orders WHERE job_id = ?", (event.job_id,)).fetchone():
        return False
    waiting = connection.execute(
        "SELECT digest, payload_digest, expires_at FROM parked WHERE job_id = ? AND given_up IS NULL", (event.job_id,)
    ).fetchall()
    because = f": {event.body['reason']}" if event.body.get("reason") else ""
    detail = f"{word} by {event.actor.removeprefix('user:')} before it was judged{because}"
    connection.executemany(
        "INSERT INTO verdicts VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?)",
        [
            (digest, payload, word, detail, event.job_id, event.seq, event.kind, event.at_wall, expires_at)
            for digest, payload, expires_at in waiting
        ],
    )
    connection.execute(
        "UPDATE parked SET given_up = ? WHERE job_id = ? AND given_up IS NULL",
        (word, event.job_id),
    )
    forget(connection)
    return bool(waiting)


def accepted(connection: sqlite3.Connection, event: Event) -> None:
    envelope, payload, order = _order_of(event)
    verdicts.verdict(connection, event, accepted=True)
    unpark(connection, event.body["digest"], hashlib.sha256(payload).hexdigest())
    quantity = order.get("quantity", 1)
    row = {
        "job_id": event.job_id,
        "digest": event.body["digest"],
        "envelope": envelope,
        "payload": payload.decode(),
        "issuer": order["issuer"],
        "series": order["series"],
        "sequence": order["sequence"],
        "product": order["product"],
        "reference": order.get("reference", ""),
        "quantity": quantity,
        "priority": order.get("priority", 50),
        "due_at": order.get("due_at"),
        "not_before": order.get("not_before"),
        "expires_at": order["expires_at"],
        "accepted_seq": event.seq,
        "accepted_at": event.at_wall,
        "revision": event.seq,
        "held_by": None,
        "held_since": None,
        "held_reason": None,
        "signers": json.dumps(event.body.get("signers", [])),
    }
    connection.execute(f"INSERT INTO orders VALUES ({', '.join(f':{column}' for column in row)})", row)
    _mark_window(connection, order["issuer"], order["series"], order["sequence"])
    connection.executemany(
        "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, NULL, NULL, NULL, ?, NULL, NULL)",
        (
            (
                event.job_id,
                part,
                step["id"],
                step["process"],
                StepState.NOT_ALLOWED_TO_START if step.get("after") else StepState.ALLOWED_TO_START,
                Requested.NONE,
                step.get("max_attempts", 1),
                OnFailure(step.get("on_failure", OnFailure.HOLD)),
                event.at_wall,
            )
            for part in range(1, quantity + 1)
            for step in order["steps"]
        ),
    )


def _mark_window(connection: sqlite3.Connection, issuer: str, series: str, sequence: int) -> None:
    row = connection.execute("SELECT used FROM windows WHERE (issuer, series) = (?, ?)", (issuer, series)).fetchone()
    window = ReplayWindow() if row is None else ReplayWindow.from_bytes(row[0])
    used = window.mark(sequence).to_bytes()
    connection.execute("INSERT OR REPLACE INTO windows VALUES (?, ?, ?)", (issuer, series, used))
