"""One fact, numbered and hash-chained in the journal.

A `Draft` is what somebody wants recorded. The journal stamps it with its clocks, numbers it and chains it; the `Event`
is read back from the bytes that were hashed, so nothing that is not in the bytes can reach a projection.
"""

from __future__ import annotations

import base64
import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

#: What `json.loads` gives and `json.dumps` takes.
JsonObject = Mapping[str, Any]


class EventKind(enum.StrEnum):
    """What happened. The bodies are described in docs/journal.md."""

    SITE_STARTED = "site_started"
    SITE_STOPPED = "site_stopped"
    JOURNAL_HELD = "journal_held"
    JOURNAL_CONFIRMED = "journal_confirmed"
    COLLECTOR_BEHIND = "collector_behind"
    TIME_ACCEPTED = "time_accepted"
    TIME_REFUSED = "time_refused"
    JOB_ACCEPTED = "job_accepted"
    JOB_REFUSED = "job_refused"
    JOB_PARKED = "job_parked"
    ROOT_ACCEPTED = "root_accepted"
    ROOT_REFUSED = "root_refused"
    COMMAND_ACCEPTED = "command_accepted"
    COMMAND_REFUSED = "command_refused"
    ARTIFACT_STORED = "artifact_stored"
    ARTIFACT_LOST = "artifact_lost"
    ARTIFACT_EVICTED = "artifact_evicted"
    JOB_DECLINED = "job_declined"
    JOB_EXPIRED = "job_expired"
    CANCEL_REQUESTED = "cancel_requested"
    HOLD_REQUESTED = "hold_requested"
    RELEASE_REQUESTED = "release_requested"
    REQUEST_FAILED = "request_failed"
    RUN_BEGAN = "run_began"
    RUN_RESUMED = "run_resumed"
    RUN_SUSPENDED = "run_suspended"
    RUN_RELEASED = "run_released"
    RUN_OVERRAN = "run_overran"
    RUN_ENDED = "run_ended"
    RUN_RESOLVED = "run_resolved"
    FOREIGN_WORK = "foreign_work"
    MACHINE_CLEARED = "machine_cleared"
    MACHINE_LOADED = "machine_loaded"
    LOAD_OVERTAKEN = "load_overtaken"
    MAINTENANCE_BEGAN = "maintenance_began"
    MAINTENANCE_ENDED = "maintenance_ended"
    MACHINE_ONLINE = "machine_online"
    MACHINE_OFFLINE = "machine_offline"
    CONDITION_ACKNOWLEDGED = "condition_acknowledged"
    MACHINE_TRUSTED = "machine_trusted"
    MAKE_SAFE = "make_safe"


class ClockTrust(enum.StrEnum):
    """How much `at_wall` is worth."""

    TRUSTED = "trusted"  # somebody the site trusts has vouched for the time since boot
    FLOOR = "floor"  # at least this late
    UNKNOWN = "unknown"


def stamp_text(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as events have it: such texts compare as the times do."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def signed_body(raw: bytes, signers: Sequence[str]) -> JsonObject:
    """What an event keeps of an envelope: its digest, itself, and the names of the keys that count."""
    digest, envelope = hashlib.sha256(raw).hexdigest(), base64.b64encode(raw).decode("ascii")
    return {"digest": digest, "envelope": envelope, "signers": list(signers)}


@dataclass(frozen=True, slots=True)
class Draft:
    """A fact before it has a number.

    `actor` says so: `user:NAME` for a local person, `key:NAME` for whoever signed a command, or a part of the site.
    """

    kind: EventKind
    actor: str
    body: JsonObject = field(default_factory=dict)
    job_id: str | None = None
    part: int | None = None
    step: str | None = None
    run_id: str | None = None
    machine: str | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """The site's clocks at one moment.

    `at_wall` is RFC 3339 in UTC with milliseconds (``2026-11-21T10:00:00.000Z``), `at_mono_s` the monotonic clock of
    the host since the boot that `boot_id` names.
    """

    at_wall: str
    at_mono_s: float
    boot_id: str
    clock: ClockTrust

    @property
    def at_mono_ms(self) -> int:
        """Whole milliseconds: an event holds no floating-point number outside its body."""
        return int(self.at_mono_s * 1000)


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of the journal. `raw` are the bytes that `hash` is over."""

    site: str
    journal: str
    seq: int
    prev_hash: str
    at_wall: str
    at_mono_ms: int
    boot_id: str
    clock: ClockTrust
    actor: str
    kind: EventKind
    job_id: str | None
    part: int | None
    step: str | None
    run_id: str | None
    machine: str | None
    body: JsonObject
    raw: bytes
    hash: str
