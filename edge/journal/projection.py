"""The fold: what one event does to the journal's projections. `edge.jobstate` decides, this writes it down.

Rules:

    1. Only what is in the event counts: no clock, no configuration, nothing from outside. So folding all events again
       gives the same tables, and `edge.journal.audit` checks that it does.
    2. An event that does not fit what is there raises IllegalTransitionError, and then it is not recorded either.
    3. A machine needs clearing from the moment a run begins, in the transaction that records the beginning, until the
       run is known to have put nothing on it or somebody clears that very run. The same holds for work that was not
       ours, from when it is told of; the newest of both counts.
    4. Nothing begins on a machine that is out of service, until a person says that it is in service again.
"""

from __future__ import annotations

import binascii
import sqlite3
from datetime import datetime
from typing import assert_never

from edge.errors import IllegalTransitionError
from edge.journal.fold import machines, orders, requests, runs, standing, verdicts
from edge.model.event import ClockTrust, Event, EventKind, stamp_text


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
        standing.trusted(connection, event)
    match event.kind:
        case EventKind.SITE_STARTED | EventKind.SITE_STOPPED:
            # Nobody is connected to a machine any more; after a crash the start is the first to say so.
            connection.execute("UPDATE machines SET online = 0, since = ? WHERE online", (event.at_wall,))
        case EventKind.JOURNAL_HELD:
            connection.execute("UPDATE standing SET held = ?", (event.body["reason"],))
            if (floor := event.body.get("floor")) is not None:  # what another journal of this site knew
                standing.raise_floor(connection, stamp_text(datetime.fromisoformat(floor)))
            if (before := event.body.get("follows")) is not None:
                row = (event.seq, event.journal, before["journal"])
                connection.execute("INSERT INTO branches VALUES (?, ?, ?)", row)
        case EventKind.JOURNAL_CONFIRMED:
            connection.execute("UPDATE standing SET held = NULL")
        case EventKind.TIME_ACCEPTED:
            standing.time_accepted(connection, event)
        case EventKind.JOB_ACCEPTED:
            orders.accepted(connection, event)
        case EventKind.JOB_PARKED:
            orders.parked(connection, event)
        case EventKind.JOB_REFUSED:
            verdicts.verdict(connection, event, accepted=False)
            orders.unpark(connection, event.body["digest"], event.body.get("payload_digest"))
        case EventKind.COMMAND_REFUSED:
            verdicts.verdict(connection, event, accepted=False)
        case EventKind.ROOT_ACCEPTED:
            standing.root_accepted(connection, event)
        case EventKind.ROOT_REFUSED | EventKind.TIME_REFUSED:
            verdicts.forget_verdict(connection, event)
            verdicts.verdict(connection, event, accepted=False)
        case EventKind.COMMAND_ACCEPTED:
            verdicts.verdict(connection, event, accepted=True)
            connection.execute("INSERT INTO commands VALUES (?, ?)", (event.body["command_id"], event.seq))
        case EventKind.ARTIFACT_STORED:
            connection.execute(
                "INSERT INTO artifacts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET stored_seq = excluded.stored_seq",
                (event.body["sha256"], event.body["size_bytes"], event.seq),
            )
        case EventKind.ARTIFACT_LOST | EventKind.ARTIFACT_EVICTED:
            connection.execute("DELETE FROM artifacts WHERE sha256 = ?", (event.body["sha256"],))
        case EventKind.CANCEL_REQUESTED:
            requests.cancel(connection, event)
        case EventKind.JOB_DECLINED:
            requests.decline(connection, event)
        case EventKind.JOB_EXPIRED:
            requests.expire(connection, event)
        case EventKind.HOLD_REQUESTED:
            requests.hold(connection, event)
        case EventKind.RELEASE_REQUESTED:
            requests.release(connection, event)
        case EventKind.REQUEST_FAILED:
            runs.request_failed(connection, event)
        case EventKind.RUN_BEGAN:
            runs.began(connection, event)
        case EventKind.RUN_RESUMED:
            runs.resumed(connection, event)
        case EventKind.RUN_SUSPENDED:
            runs.suspended(connection, event)
        case EventKind.RUN_RELEASED:
            runs.released(connection, event)
        case EventKind.RUN_OVERRAN:
            runs.overran(connection, event)
        case EventKind.RUN_ENDED:
            runs.ended(connection, event)
        case EventKind.RUN_RESOLVED:
            runs.resolved(connection, event)
        case EventKind.FOREIGN_WORK:
            machines.foreign_work(connection, event)
        case EventKind.MACHINE_CLEARED:
            machines.cleared(connection, event)
        case EventKind.MACHINE_LOADED:
            machines.loaded(connection, event)
        case EventKind.LOAD_OVERTAKEN:
            machines.load_overtaken(connection, event)
        case EventKind.MACHINE_ONLINE:
            machines.seen(connection, event, online=True)
        case EventKind.MACHINE_OFFLINE:
            machines.seen(connection, event, online=False)
        case EventKind.MAINTENANCE_BEGAN:
            machines.maintenance_began(connection, event)
        case EventKind.MAINTENANCE_ENDED:
            machines.maintenance_ended(connection, event)
        case EventKind.MAKE_SAFE | EventKind.COLLECTOR_BEHIND:
            pass  # what became of the run is its own event; what the collector has is nothing that happened here
        case EventKind.CONDITION_ACKNOWLEDGED | EventKind.MACHINE_TRUSTED:
            pass  # who said what at a machine; its state is what the machine shows
        case _ as never:
            assert_never(never)


def _cause(error: Exception) -> str:
    return f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
