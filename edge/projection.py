"""The fold: what one event does to the journal's projections. `edge.jobstate` decides, this writes it down.

Rules:

    1. Only what is in the event counts: no clock, no configuration, nothing from outside. So folding all events again
       gives the same tables, and `edge.audit` checks that it does.
    2. An event that does not fit what is there raises IllegalTransitionError, and then it is not recorded either.
    3. A machine needs clearing from the moment a run begins, in the transaction that records the beginning, until the
       run is known to have put nothing on it or somebody clears that very run. The same holds for work that was not
       ours, from when it is told of; the newest of both counts.
    4. Nothing begins on a machine that is out of service, until a person says that it is in service again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sqlite3
from collections.abc import Iterable
from datetime import datetime
from typing import Any, assert_never

from edge.errors import IllegalTransitionError, Motion
from edge.forgetting import forget
from edge.jobstate import (
    Fact,
    OnFailure,
    Policy,
    Requested,
    Resolution,
    RunOutcome,
    StepState,
    advance,
    fact_of_predecessors,
    fact_of_run,
    requested_after,
    resolution,
)
from edge.maintenance import Maintenance
from edge.model.event import ClockTrust, Event, EventKind, stamp_text
from edge.replay import ReplayWindow
from edge.timefloor import BEGINNING, Host, Known, SignedTime, answered, recorded

CANCELLED, DECLINED = "cancelled", "declined"
"""What became of an order that was given up before it was judged."""

WAITS_TO_BE_JUDGED = "waits until somebody vouches for the clock; meanwhile it can be cancelled or declined"


def apply(connection: sqlite3.Connection, event: Event) -> None:
    """Write down what `event` changes. The event itself is not written.

    Raises:
        IllegalTransitionError: the event does not fit; the caller rolls back.
    """
    try:
        _apply(connection, event)
    except (KeyError, TypeError, ValueError, binascii.Error, sqlite3.IntegrityError) as error:
        raise IllegalTransitionError(f"{event.kind} does not fit the journal: {_cause(error)}") from error
    if event.job_id is not None and event.kind not in (EventKind.JOB_REFUSED, EventKind.COMMAND_REFUSED):
        for table in ("orders", "parked"):
            connection.execute(f"UPDATE {table} SET revision = ? WHERE job_id = ?", (event.seq, event.job_id))


def _apply(connection: sqlite3.Connection, event: Event) -> None:
    if event.clock is ClockTrust.TRUSTED:
        _trusted(connection, event)
    match event.kind:
        case EventKind.SITE_STARTED | EventKind.SITE_STOPPED:
            # Nobody is connected to a machine any more; after a crash the start is the first to say so.
            connection.execute("UPDATE machines SET online = 0, since = ? WHERE online", (event.at_wall,))
        case EventKind.JOURNAL_HELD:
            connection.execute("UPDATE standing SET held = ?", (event.body["reason"],))
            if (floor := event.body.get("floor")) is not None:  # what another journal of this site knew
                _raise_floor(connection, stamp_text(datetime.fromisoformat(floor)))
            if (before := event.body.get("follows")) is not None:
                row = (event.seq, event.journal, before["journal"])
                connection.execute("INSERT INTO branches VALUES (?, ?, ?)", row)
        case EventKind.JOURNAL_CONFIRMED:
            connection.execute("UPDATE standing SET held = NULL")
        case EventKind.TIME_ACCEPTED:
            _time_accepted(connection, event)
        case EventKind.JOB_ACCEPTED:
            _job_accepted(connection, event)
        case EventKind.JOB_PARKED:
            _job_parked(connection, event)
        case EventKind.JOB_REFUSED:
            _verdict(connection, event, accepted=False)
            _unpark(connection, event.body["digest"], event.body.get("payload_digest"))
        case EventKind.COMMAND_REFUSED:
            _verdict(connection, event, accepted=False)
        case EventKind.ROOT_ACCEPTED:
            _root_accepted(connection, event)
        case EventKind.ROOT_REFUSED | EventKind.TIME_REFUSED:
            _forget_verdict(connection, event)
            _verdict(connection, event, accepted=False)
        case EventKind.COMMAND_ACCEPTED:
            _verdict(connection, event, accepted=True)
            connection.execute("INSERT INTO commands VALUES (?, ?)", (event.body["command_id"], event.seq))
        case EventKind.ARTIFACT_STORED:
            connection.execute(
                "INSERT INTO artifacts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET stored_seq = excluded.stored_seq",
                (event.body["sha256"], event.body["size_bytes"], event.seq),
            )
        case EventKind.ARTIFACT_LOST | EventKind.ARTIFACT_EVICTED:
            connection.execute("DELETE FROM artifacts WHERE sha256 = ?", (event.body["sha256"],))
        case EventKind.CANCEL_REQUESTED:
            _cancel_requested(connection, event)
        case EventKind.JOB_DECLINED:
            _job_declined(connection, event)
        case EventKind.HOLD_REQUESTED:
            _hold_requested(connection, event)
        case EventKind.RELEASE_REQUESTED:
            _release_requested(connection, event)
        case EventKind.REQUEST_FAILED:
            _request_failed(connection, event)
        case EventKind.RUN_BEGAN:
            _run_began(connection, event)
        case EventKind.RUN_RESUMED:
            _run_resumed(connection, event)
        case EventKind.RUN_SUSPENDED:
            _run_suspended(connection, event)
        case EventKind.RUN_RELEASED:
            _run_released(connection, event)
        case EventKind.RUN_ENDED:
            _run_ended(connection, event)
        case EventKind.RUN_RESOLVED:
            _run_resolved(connection, event)
        case EventKind.FOREIGN_WORK:
            _foreign_work(connection, event)
        case EventKind.MACHINE_CLEARED:
            _machine_cleared(connection, event)
        case EventKind.MACHINE_ONLINE:
            _machine_seen(connection, event, online=True)
        case EventKind.MACHINE_OFFLINE:
            _machine_seen(connection, event, online=False)
        case EventKind.MAINTENANCE_BEGAN:
            _maintenance_began(connection, event)
        case EventKind.MAINTENANCE_ENDED:
            _maintenance_ended(connection, event)
        case EventKind.MAKE_SAFE | EventKind.COLLECTOR_BEHIND:
            pass  # what became of the run is its own event; what the collector has is nothing that happened here
        case EventKind.CONDITION_ACKNOWLEDGED | EventKind.MACHINE_TRUSTED:
            pass  # who said what at a machine; its state is what the machine shows
        case _ as never:
            assert_never(never)


def _cause(error: Exception) -> str:
    return f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)


# The site


def _journal_held(connection: sqlite3.Connection) -> str | None:
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


def _trusted(connection: sqlite3.Connection, event: Event) -> None:
    """The floor rises with what is recorded while the clock is trusted."""
    floor = event.at_wall
    (signed_boot_id,) = connection.execute("SELECT signed_boot_id FROM standing").fetchone()
    if signed_boot_id == event.boot_id:
        floor = stamp_text(recorded(known_time(connection), _host(event)).floor)
    _raise_floor(connection, floor)


def _raise_floor(connection: sqlite3.Connection, at: str) -> None:
    connection.execute("UPDATE standing SET floor = :at WHERE floor IS NULL OR floor < :at", {"at": at})


def _host(event: Event) -> Host:
    return Host(datetime.fromisoformat(event.at_wall), event.at_mono_ms / 1000, event.boot_id, synchronized=False)


def _time_accepted(connection: sqlite3.Connection, event: Event) -> None:
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


# Orders


def _verdict(connection: sqlite3.Connection, event: Event, accepted: bool) -> None:
    body, reason = event.body, event.body.get("reason", "")
    expires_at = body.get("expires_at")
    connection.execute(
        "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            body["digest"],
            body.get("payload_digest"),
            accepted,
            reason,
            body.get("detail", ""),
            event.job_id,
            event.seq,
            event.kind,
            event.at_wall,
            None if expires_at is None else stamp_text(datetime.fromisoformat(expires_at)),
        ),
    )
    if not accepted:
        query = "INSERT INTO refused VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1"
        connection.execute(query, (reason,))
        forget(connection)


def _forget_verdict(connection: sqlite3.Connection, event: Event) -> None:
    """A root that came too early is judged anew when it comes again."""
    connection.execute("DELETE FROM verdicts WHERE digest = ?", (event.body["digest"],))


def _root_accepted(connection: sqlite3.Connection, event: Event) -> None:
    envelope = base64.b64decode(event.body["envelope"], validate=True)
    version = json.loads(base64.b64decode(json.loads(envelope)["payload"], validate=True))["version"]
    current = _root_version(connection)
    if current is not None and version != current + 1:
        raise ValueError(f"version {version} of the trust root does not follow version {current}")
    _forget_verdict(connection, event)
    row = (version, event.body["payload_digest"], envelope, event.seq)
    connection.execute("INSERT INTO roots VALUES (?, ?, ?, ?)", row)


def _root_version(connection: sqlite3.Connection) -> int | None:
    version: int | None = connection.execute("SELECT max(version) FROM roots").fetchone()[0]
    return version


def _order_of(event: Event) -> tuple[bytes, bytes, dict[str, Any]]:
    """The envelope of an order, its payload, and what that says."""
    envelope = base64.b64decode(event.body["envelope"], validate=True)
    payload = base64.b64decode(json.loads(envelope)["payload"], validate=True)
    order = json.loads(payload)
    if order["job_id"] != event.job_id:
        raise ValueError(f"the order is {order['job_id']}, the event is about {event.job_id}")
    return envelope, payload, order


def _job_parked(connection: sqlite3.Connection, event: Event) -> None:
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


def _unpark(connection: sqlite3.Connection, digest: str, payload_digest: str | None) -> None:
    """An order that may have waited has its verdict, also if it came in another spelling."""
    connection.execute(
        "DELETE FROM parked WHERE given_up IS NULL AND (digest = ? OR payload_digest = ?)", (digest, payload_digest)
    )


def _give_up(connection: sqlite3.Connection, event: Event, word: str) -> bool:
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


def _job_accepted(connection: sqlite3.Connection, event: Event) -> None:
    envelope, payload, order = _order_of(event)
    _verdict(connection, event, accepted=True)
    _unpark(connection, event.body["digest"], hashlib.sha256(payload).hexdigest())
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


def _cancel_requested(connection: sqlite3.Connection, event: Event) -> None:
    if _give_up(connection, event, CANCELLED):
        return
    for part, step, _, _ in _open_steps(connection, event, "cancel"):  # each of them: nobody is left to follow
        _move_alone(connection, event, part, step, Fact.CANCELLED, event.body.get("reason", "cancelled"))


def _job_declined(connection: sqlite3.Connection, event: Event) -> None:
    if held := _journal_held(connection):
        raise IllegalTransitionError(
            f"job {event.job_id} cannot be declined before somebody confirms this journal, which may miss a run: {held}"
        )
    if _give_up(connection, event, DECLINED):
        return
    found = _open_steps(connection, event, "decline")
    (began,) = connection.execute("SELECT count(*) FROM runs WHERE job_id = ?", (event.job_id,)).fetchone()
    if began:
        raise IllegalTransitionError(f"job {event.job_id} cannot be declined: {began} of its runs began here")
    for part, step, _, _ in found:
        _move_alone(connection, event, part, step, Fact.DECLINED, event.body.get("reason", "declined"))


def _hold_requested(connection: sqlite3.Connection, event: Event) -> None:
    found = _open_steps(connection, event, "hold")
    connection.execute(
        "UPDATE orders SET held_by = ?, held_since = ?, held_reason = ? WHERE job_id = ? AND held_by IS NULL",
        (event.actor, event.at_wall, event.body.get("reason", ""), event.job_id),
    )
    for part, step, state, reason in found:
        if state.at_a_machine:
            _move_alone(connection, event, part, step, Fact.PAUSE_ASKED, reason)


def _release_requested(connection: sqlite3.Connection, event: Event) -> None:
    found = _open_steps(connection, event, "release")
    connection.execute(
        "UPDATE orders SET held_by = NULL, held_since = NULL, held_reason = NULL WHERE job_id = ?", (event.job_id,)
    )
    for part, step, state, reason in found:
        if state.at_a_machine:
            _move_alone(connection, event, part, step, Fact.RESUME_ASKED, reason)


def _open_steps(
    connection: sqlite3.Connection, event: Event, verb: str
) -> list[tuple[int, str, StepState, str | None]]:
    """Part, step, state and reason of every step of the job that has not ended, at least one."""
    found = connection.execute(
        "SELECT part, step, state, reason FROM steps WHERE job_id = ?", (event.job_id,)
    ).fetchall()
    if not found:
        query = "SELECT given_up FROM parked WHERE job_id = ? ORDER BY given_up"
        (given_up,) = connection.execute(query, (event.job_id,)).fetchone() or ("not known",)
        if given_up is None:
            raise IllegalTransitionError(f"job {event.job_id} {WAITS_TO_BE_JUDGED}")
        raise IllegalTransitionError(f"job {event.job_id} is {given_up} here: nothing is left to {verb}")
    still_open = [(part, step, StepState(state), why) for part, step, state, why in found if not StepState(state).ended]
    if not still_open:
        raise IllegalTransitionError(f"job {event.job_id} has ended: nothing is left to {verb}")
    return still_open


# Runs


def _run_began(connection: sqlite3.Connection, event: Event) -> None:
    step = _step(connection, event)
    attempt = event.body["attempt"]
    if attempt != step["attempt"] + 1 or attempt > step["max_attempts"]:
        raise IllegalTransitionError(
            f"attempt {attempt} of {_name(event)} does not follow attempt {step['attempt']} of {step['max_attempts']}"
        )
    verified_by, in_force = event.body.get("root_version"), _root_version(connection)
    if None not in (verified_by, in_force) and verified_by != in_force:
        raise IllegalTransitionError(
            f"{_name(event)} was verified by version {verified_by} of the trust root, {in_force} is in force"
        )
    if held := _journal_held(connection):
        raise IllegalTransitionError(f"nothing begins before somebody confirms this journal: {held}")
    (held_by,) = connection.execute("SELECT held_by FROM orders WHERE job_id = ?", (event.job_id,)).fetchone()
    if held_by is not None:
        raise IllegalTransitionError(f"job {event.job_id} is held by {held_by}: nothing of it begins")
    found = connection.execute("SELECT needs_clearing FROM machines WHERE machine = ?", (event.machine,)).fetchone()
    if found is not None and found[0] is not None:
        raise IllegalTransitionError(f"{event.machine} needs clearing by {found[0]} before another run begins")
    if (out := maintenance(connection, event.machine)) is not None:
        raise IllegalTransitionError(f"{event.machine} is {out.in_words}: nothing begins on it")
    _move(connection, event, step["part"], step["step"], Fact.RUN_BEGAN, None)
    connection.execute(
        "UPDATE steps SET attempt = ?, machine = ?, run_id = ? WHERE (job_id, part, step) = (?, ?, ?)",
        (attempt, event.machine, event.run_id, event.job_id, event.part, event.step),
    )
    connection.execute(
        "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL)",
        (event.run_id, event.job_id, event.part, event.step, attempt, event.machine, event.at_wall),
    )
    _needs_clearing(connection, event, event.run_id)


def _run_resumed(connection: sqlite3.Connection, event: Event) -> None:
    step = _step_of_run(connection, event)
    # What a suspended step waits for is still what its reason says.
    reason = step["reason"] if StepState(step["state"]) is StepState.SUSPENDED else event.body.get("detail")
    _move(connection, event, step["part"], step["step"], Fact.RUN_RESUMED, reason)


def _run_suspended(connection: sqlite3.Connection, event: Event) -> None:
    step = _step_of_run(connection, event)
    fact = {"request": Fact.SUSPENDED_AS_ASKED, "machine": Fact.SUSPENDED_BY_MACHINE}[event.body["by"]]
    _move(connection, event, step["part"], step["step"], fact, event.body.get("reason", ""))
    connection.execute(
        "UPDATE steps SET suspended_by = ? WHERE (job_id, part, step) = (?, ?, ?)",
        (event.body["by"], event.job_id, event.part, event.step),
    )


def _run_released(connection: sqlite3.Connection, event: Event) -> None:
    step = _step_of_run(connection, event)
    _move(connection, event, step["part"], step["step"], Fact.RELEASED, None)


def _request_failed(connection: sqlite3.Connection, event: Event) -> None:
    """The machine has not confirmed what stands requested, or refuses it; anything else was overtaken."""
    step = _step_of_run(connection, event)
    requested, withdrawn = Requested(event.body["requested"]), event.body["withdrawn"]
    if requested is not Requested(step["requested"]) or requested.ends_the_run:
        return
    if withdrawn:
        _move(connection, event, step["part"], step["step"], Fact.REQUEST_WITHDRAWN, step["reason"])
    connection.execute(
        "UPDATE steps SET request_failure = ? WHERE (job_id, part, step) = (?, ?, ?)",
        (event.body["reason"], event.job_id, event.part, event.step),
    )


def _run_ended(connection: sqlite3.Connection, event: Event) -> None:
    step = _step_of_run(connection, event)
    outcome, motion = RunOutcome(event.body["outcome"]), Motion(event.body["motion"])
    reason = event.body.get("reason", "")
    fact = fact_of_run(outcome, motion, Requested(step["requested"]), _policy(step))
    _move(connection, event, step["part"], step["step"], fact, reason)
    connection.execute(
        "UPDATE runs SET ended_at = ?, outcome = ?, motion = ?, reason = ? WHERE run_id = ?",
        (event.at_wall, outcome, motion, reason, event.run_id),
    )
    if motion is Motion.NONE and outcome in (RunOutcome.FAILED, RunOutcome.STOPPED):
        connection.execute("UPDATE machines SET needs_clearing = NULL WHERE needs_clearing = ?", (event.run_id,))


def _run_resolved(connection: sqlite3.Connection, event: Event) -> None:
    step = _step_of_run(connection, event)
    verdict = Resolution(event.body["resolution"])
    fact = resolution(verdict, _policy(step))
    _move(connection, event, step["part"], step["step"], fact, event.body.get("reason", ""))


def _move(connection: sqlite3.Connection, event: Event, part: int, step: str, fact: Fact, reason: str | None) -> None:
    """Move one step, then those that waited for it."""
    if _move_alone(connection, event, part, step, fact, reason).ended:
        _move_successors(connection, event, part, step)


def _move_alone(
    connection: sqlite3.Connection, event: Event, part: int, step: str, fact: Fact, reason: str | None
) -> StepState:
    """Move one step by the table; its new state."""
    key = {"job_id": event.job_id, "part": part, "step": step}
    here = "WHERE (job_id, part, step) = (:job_id, :part, :step)"
    found, standing = connection.execute(f"SELECT state, requested FROM steps {here}", key).fetchone()
    before = StepState(found)
    try:
        after = advance(before, fact)
    except IllegalTransitionError as error:
        raise IllegalTransitionError(f"step {event.job_id}/{part}/{step}: {error}") from None
    connection.execute(
        "UPDATE steps SET state = :state, requested = :requested, reason = :reason, request_failure = NULL,"
        " suspended_by = iif(:state = 'SUSPENDED', suspended_by, NULL),"
        f" since = iif(state = :state, since, :at) {here}",
        {
            **key,
            "state": after,
            "requested": requested_after(before, fact, Requested(standing)),
            "reason": reason,
            "at": event.at_wall,
        },
    )
    return after


def _move_successors(connection: sqlite3.Connection, event: Event, part: int, ended: str) -> None:
    states = {
        step: StepState(state)
        for step, state in connection.execute(
            "SELECT step, state FROM steps WHERE (job_id, part) = (?, ?)", (event.job_id, part)
        )
    }
    for step, after in _after(connection, event.job_id).items():
        if ended not in after or states[step] is not StepState.NOT_ALLOWED_TO_START:
            continue
        fact = fact_of_predecessors(states[name] for name in after)
        if fact is not None:
            _move(connection, event, part, step, fact, f"after {ended}")


def _after(connection: sqlite3.Connection, job_id: str | None) -> dict[str, list[str]]:
    """What each step of the order waits for."""
    (payload,) = connection.execute("SELECT payload FROM orders WHERE job_id = ?", (job_id,)).fetchone()
    return {step["id"]: step.get("after", []) for step in json.loads(payload)["steps"]}


def _step(connection: sqlite3.Connection, event: Event) -> dict[str, Any]:
    found = _one(
        connection,
        "SELECT part, step, state, requested, attempt, max_attempts, on_failure, run_id, reason FROM steps"
        " WHERE (job_id, part, step) = (?, ?, ?)",
        (event.job_id, event.part, event.step),
    )
    if found is None:
        raise IllegalTransitionError(f"{_name(event)} is not known here")
    return found


def _step_of_run(connection: sqlite3.Connection, event: Event) -> dict[str, Any]:
    """The step, if this run is its newest."""
    step = _step(connection, event)
    if event.run_id is None or step["run_id"] != event.run_id:
        raise IllegalTransitionError(f"{_name(event)} is not at run {event.run_id}")
    return step


def _policy(step: dict[str, Any]) -> Policy:
    return Policy(OnFailure(step["on_failure"]), step["attempt"], step["max_attempts"])


def _name(event: Event) -> str:
    return f"step {event.job_id}/{event.part}/{event.step}"


# Machines


def _needs_clearing(connection: sqlite3.Connection, event: Event, by: str | None) -> None:
    connection.execute(
        "INSERT INTO machines (machine, needs_clearing, online, since) VALUES (?, ?, 0, ?)"
        " ON CONFLICT DO UPDATE SET needs_clearing = excluded.needs_clearing",
        (event.machine, by, event.at_wall),
    )


def _foreign_work(connection: sqlite3.Connection, event: Event) -> None:
    token = event.body["token"]
    row = (event.machine, token, event.body["detail"], event.at_wall)
    connection.execute("INSERT INTO foreign_work VALUES (?, ?, ?, ?)", row)  # each token once
    _needs_clearing(connection, event, token)


def _machine_cleared(connection: sqlite3.Connection, event: Event) -> None:
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


def _machine_seen(connection: sqlite3.Connection, event: Event, online: bool) -> None:
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


def _maintenance_began(connection: sqlite3.Connection, event: Event) -> None:
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


def _maintenance_ended(connection: sqlite3.Connection, event: Event) -> None:
    if maintenance(connection, event.machine) is None:
        raise IllegalTransitionError(f"{event.machine} is in service")
    connection.execute(
        "UPDATE machines SET maintenance_by = NULL, maintenance_since = NULL, maintenance_reason = NULL, made_safe = 0"
        " WHERE machine = ?",
        (event.machine,),
    )


def _one(connection: sqlite3.Connection, query: str, values: Iterable[object]) -> dict[str, Any] | None:
    cursor = connection.execute(query, tuple(values))
    row = cursor.fetchone()
    return None if row is None else dict(zip((column[0] for column in cursor.description), row, strict=True))
