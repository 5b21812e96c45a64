"""What tests of the journal share: orders, drafts, clocks."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.model.event import ClockTrust, Draft, EventKind, Stamp

SITE = "berlin-1"
JOB = "01J9ZK3V5Q8M2N4P6R7S9T0W1X"
MINUTE = "2026-11-21T10:00Z"


def ticking() -> Callable[[], Stamp]:
    """A clock that goes on by a second whenever it is read."""
    seconds = itertools.count()

    def stamp() -> Stamp:
        now = next(seconds)
        at = f"2026-11-21T{10 + now // 3600:02}:{now // 60 % 60:02}:{now % 60:02}.000Z"
        return Stamp(at, 1000.5 + now, "boot-1", ClockTrust.TRUSTED)

    return stamp


def step(ident: str = "print", *after: str, **more: Any) -> dict[str, Any]:
    return {"id": ident, "process": "fdm", "program": "body.gcode", "after": list(after), **more}


def order(job_id: str = JOB, steps: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "site": SITE,
        "issuer": "orders@acme",
        "issued_at": "2026-11-21T10:00:00Z",
        "expires_at": "2026-11-28T10:00:00Z",
        # Each job in a series of its own, so that all can have one number.
        "series": "3f2a3f2a" if job_id == JOB else hashlib.sha256(job_id.encode()).hexdigest()[:8],
        "sequence": 42,
        "product": "bracket-v3",
        "artifacts": {"body.gcode": {"sha256": "ab" * 32, "size_bytes": 7, "media_type": "text/x.gcode"}},
        "steps": [step()] if steps is None else steps,
        **more,
    }


def envelope(payload: dict[str, Any]) -> bytes:
    body = base64.b64encode(json.dumps(payload).encode()).decode()
    return json.dumps({"payload": body, "payloadType": "job", "signatures": []}).encode()


def accepted(payload: dict[str, Any] | None = None) -> Draft:
    payload = order() if payload is None else payload
    signed = envelope(payload)
    body = {
        "digest": hashlib.sha256(signed).hexdigest(),
        "envelope": base64.b64encode(signed).decode(),
        "signers": ["orders@acme/1"],
    }
    return Draft(EventKind.JOB_ACCEPTED, "intake", body, job_id=payload["job_id"])


def began(run_id: str = "run-1", machine: str = "prn-1", attempt: int = 1, **where: Any) -> Draft:
    place = {"job_id": JOB, "part": 1, "step": "print", **where}
    body = {"attempt": attempt, "sha256": "ab" * 32}
    return Draft(EventKind.RUN_BEGAN, "runner", body, run_id=run_id, machine=machine, **place)


def ended(run_id: str, outcome: str, motion: str = "possible", machine: str = "prn-1", **where: Any) -> Draft:
    place = {"job_id": JOB, "part": 1, "step": "print", **where}
    body = {"outcome": outcome, "motion": motion, "reason": f"because {outcome}", "evidence": {"line": 12}}
    return Draft(EventKind.RUN_ENDED, "runner", body, run_id=run_id, machine=machine, **place)


def resolved(run_id: str, resolution: str, **where: Any) -> Draft:
    place = {"job_id": JOB, "part": 1, "step": "print", **where}
    body = {"resolution": resolution, "reason": "looked at it"}
    return Draft(EventKind.RUN_RESOLVED, "user:ada", body, run_id=run_id, **place)


def foreign(token: str, machine: str = "prn-1") -> Draft:
    body = {"token": token, "detail": "ada printed a cup"}
    return Draft(EventKind.FOREIGN_WORK, "site", body, machine=machine)


def cleared(run_id: str, machine: str = "prn-1") -> Draft:
    return Draft(EventKind.MACHINE_CLEARED, "user:ada", {"run_id": run_id}, machine=machine)


def cancelled(job_id: str = JOB) -> Draft:
    return Draft(EventKind.CANCEL_REQUESTED, "user:ada", {"reason": "not wanted"}, job_id=job_id)


def hold(job_id: str = JOB, reason: str = "the spool looks wrong") -> Draft:
    return Draft(EventKind.HOLD_REQUESTED, "user:ada", {"reason": reason}, job_id=job_id)


def release(job_id: str = JOB) -> Draft:
    return Draft(EventKind.RELEASE_REQUESTED, "user:ada", {}, job_id=job_id)


def suspended(run_id: str = "run-1", by: str = "request", reason: str = "paused as asked", **where: Any) -> Draft:
    place = {"job_id": JOB, "part": 1, "step": "print", "machine": "prn-1", **where}
    return Draft(EventKind.RUN_SUSPENDED, "site", {"reason": reason, "by": by}, run_id=run_id, **place)


def released(run_id: str = "run-1", by: str = "request", **where: Any) -> Draft:
    place = {"job_id": JOB, "part": 1, "step": "print", "machine": "prn-1", **where}
    return Draft(EventKind.RUN_RELEASED, "site", {"by": by}, run_id=run_id, **place)


def overran(run_id: str = "run-1", limit_s: float = 3600.0, predicted_s: float | None = 1800.0, **where: Any) -> Draft:
    place = {"job_id": JOB, "part": 1, "step": "print", "machine": "prn-1", **where}
    body = {"worked_s": limit_s + 1, "limit_s": limit_s, "predicted_s": predicted_s}
    return Draft(EventKind.RUN_OVERRAN, "site", body, run_id=run_id, **place)


def request_failed(run_id: str = "run-1", requested: str = "pause", withdrawn: bool = False, **where: Any) -> Draft:
    place = {"job_id": JOB, "part": 1, "step": "print", "machine": "prn-1", **where}
    body = {"requested": requested, "reason": "no answer", "withdrawn": withdrawn}
    return Draft(EventKind.REQUEST_FAILED, "site", body, run_id=run_id, **place)


def refused(digest: str, reason: str = "expired", job_id: str | None = JOB) -> Draft:
    body = {"digest": digest, "reason": reason, "detail": "too late"}
    return Draft(EventKind.JOB_REFUSED, "intake", body, job_id=job_id)


def online(machine: str = "prn-1") -> Draft:
    return Draft(EventKind.MACHINE_ONLINE, "runner", machine=machine)


def offline(machine: str = "prn-1") -> Draft:
    return Draft(EventKind.MACHINE_OFFLINE, "runner", machine=machine)


def loaded(machine: str = "prn-1", *, actor: str = "user:ada", **values: Any) -> Draft:
    """With site.toml's values as most tests have them."""
    configured = {"material": "PLA", "nozzle_mm": 0.4}
    said = {name: {"value": value, "configured": configured[name]} for name, value in values.items()}
    return Draft(EventKind.MACHINE_LOADED, actor, {"values": said}, machine=machine)


def root_of_project() -> Path:
    return Path(__file__).parent.parent
