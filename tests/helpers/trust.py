"""Keys, a root and orders for tests: a key ceremony without files.

ceremony = Ceremony()                               one root key, one issuer "orders@acme"
raw = ceremony.order(site="berlin-1")               a signed order; fields override the defaults
verdict = admit(raw, ceremony.snapshot(), NOW)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.model.fields import time_text
from edge.trust import (
    Claims,
    CommandReason,
    CommandSnapshot,
    CommandVerdict,
    JobStanding,
    PayloadType,
    Reason,
    ReplayWindow,
    Snapshot,
    TrustRoot,
    Verdict,
    keyid_of,
    public_bytes,
    sign,
    vouched,
)

AT = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
NOW = vouched(AT)
PROGRAM = b"G28\nG1 X10 Y10 F3000\n"
ISSUER = "orders@acme"
OPERATOR = "ops@acme"
RUN_ID = "ab" * 16


def private_key(name: str) -> Ed25519PrivateKey:
    """The same key for the same name in every test."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def keyid(name: str) -> str:
    """The id of `private_key(name)`."""
    return keyid_of(public_bytes(private_key(name)))


def root_document(
    *,
    issuers: tuple[str, ...] = (ISSUER,),
    threshold: int = 1,
    operators: tuple[str, ...] = (),
    operator_threshold: int = 1,
    times: tuple[str, ...] = (),
    roots: tuple[str, ...] = ("root-1",),
    root_threshold: int = 1,
    limits: dict[str, dict[str, list[str]]] | None = None,
    revoked: tuple[str, ...] = (),
    **fields: object,
) -> dict:
    """The payload of a trust root, as JSON data to tamper with."""
    names = dict.fromkeys((*roots, *issuers, *operators, *times))
    of_operators = {"threshold": operator_threshold, "keyids": [keyid(name) for name in operators]}
    return {
        "version": 1,
        "name": "ACME",
        "issued_at": "2026-01-01T00:00:00Z",
        "expires_at": None,
        "keys": {
            keyid(name): {
                "name": name,
                "algorithm": "ed25519",
                "public": public_bytes(private_key(name)).hex(),
                "processes": None,
                "sites": None,
            }
            | (limits or {}).get(name, {})
            for name in names
        },
        "roles": {
            "root": {"threshold": root_threshold, "keyids": [keyid(name) for name in roots]},
            "issuer": {"threshold": threshold, "keyids": [keyid(name) for name in issuers]},
        }
        | ({"operator": of_operators} if operators else {})
        | ({"time": {"threshold": 1, "keyids": [keyid(name) for name in times]}} if times else {}),
        "revoked": {keyid(name): {"compromise": False, "reason": "test"} for name in revoked},
    } | fields


def signed_root(document: dict, signers: tuple[str, ...] = ("root-1",)) -> bytes:
    """An envelope over a root's document."""
    return sign(PayloadType.ROOT, json.dumps(document).encode(), [private_key(name) for name in signers])


def order_document(**fields: object) -> dict:
    """A good order of one printed part, as JSON data; `fields` override."""
    return {
        "job_id": "01J9ZK3V5Q8M2N4P6R7S9T0W1X",
        "site": "berlin-1",
        "issuer": ISSUER,
        "issued_at": time_text(AT - timedelta(hours=1)),
        "not_before": None,
        "expires_at": time_text(AT + timedelta(days=7)),
        "series": "3f2a" * 8,
        "sequence": 42,
        "root_version_min": 1,
        "reference": "PO-1234/7",
        "product": "bracket-v3",
        "quantity": 1,
        "priority": 50,
        "due_at": None,
        "artifacts": {
            "body.gcode": {
                "sha256": hashlib.sha256(PROGRAM).hexdigest(),
                "size_bytes": len(PROGRAM),
                "media_type": "text/x.gcode",
                "sources": [],
            }
        },
        "steps": [step_document()],
    } | fields


def step_document(**fields: object) -> dict:
    """A good step; `fields` override."""
    return {
        "id": "print",
        "process": "fdm",
        "program": "body.gcode",
        "after": [],
        "requires": {"material": "PLA", "nozzle_mm": 0.4},
        "parameters": {},
        "quality": [],
        "holds": [],
        "on_restart": "hold",
        "on_failure": "hold",
        "max_attempts": 1,
        "max_duration_s": None,
    } | fields


def command_document(**fields: object) -> dict:
    """A good command that cancels the job of `order_document`, as JSON data; `fields` override."""
    return {
        "command_id": "01J9ZK3V5Q8M2N4P6R7S9T0C0M",
        "site": "berlin-1",
        "issuer": OPERATOR,
        "issued_at": time_text(AT - timedelta(minutes=1)),
        "expires_at": time_text(AT + timedelta(minutes=9)),
        "verb": "cancel",
        "job_id": "01J9ZK3V5Q8M2N4P6R7S9T0W1X",
        "machine": None,
        "run_id": None,
        "if_revision": None,
        "reason": "not wanted",
    } | fields


@dataclasses.dataclass
class MemoryCommandLedger:
    """What a site remembers of commands, jobs and machines, in memory."""

    verdicts: dict[str, CommandVerdict] = dataclasses.field(default_factory=dict)
    refused: dict[str, tuple[CommandReason, str]] = dataclasses.field(default_factory=dict)
    used: set[str] = dataclasses.field(default_factory=set)
    jobs: dict[str, JobStanding] = dataclasses.field(default_factory=dict)
    machines: dict[str, str] = dataclasses.field(default_factory=dict)

    def verdict_of(self, digest: str) -> CommandVerdict | None:
        return self.verdicts.get(digest)

    def refusal_of(self, payload_digest: str) -> tuple[CommandReason, str] | None:
        return self.refused.get(payload_digest)

    def is_used(self, command_id: str) -> bool:
        return command_id in self.used

    def job(self, job_id: str) -> JobStanding | None:
        return self.jobs.get(job_id)

    def clearing(self, machine: str) -> str | None:
        return self.machines.get(machine)


@dataclasses.dataclass
class MemoryLedger:
    """What a site remembers, in memory. `take` does what an intake does with a verdict."""

    verdicts: dict[str, Verdict] = dataclasses.field(default_factory=dict)
    refused: dict[str, tuple[Reason, str]] = dataclasses.field(default_factory=dict)
    windows: dict[tuple[str, str], ReplayWindow] = dataclasses.field(default_factory=dict)
    jobs: dict[str, str] = dataclasses.field(default_factory=dict)
    claimed: Claims = dataclasses.field(default_factory=Claims)

    def verdict_of(self, digest: str) -> Verdict | None:
        return self.verdicts.get(digest)

    def refusal_of(self, payload_digest: str) -> tuple[Reason, str] | None:
        return self.refused.get(payload_digest)

    def window(self, issuer: str, series: str) -> ReplayWindow:
        return self.windows.get((issuer, series), ReplayWindow())

    def digest_of(self, job_id: str) -> str | None:
        return self.jobs.get(job_id)

    def claims(self) -> Claims:
        return self.claimed

    def take(self, verdict: Verdict) -> None:
        if verdict.repeated or not verdict.signed:
            return
        self.verdicts[verdict.digest] = verdict
        if verdict.accepted:
            order = verdict.order
            assert order is not None
            series = (order.issuer, order.series)
            self.windows[series] = self.window(*series).mark(order.sequence)
            self.jobs[order.job_id] = verdict.digest


class Ceremony:
    """A root with its keys, and a site's memory. Arguments are those of `root_document`."""

    def __init__(self, **root_fields: object) -> None:
        self.root = TrustRoot.model_validate(root_document(**root_fields))
        self.ledger = MemoryLedger()

    def sign(self, payload: bytes, signers: tuple[str, ...] = (ISSUER,), kind: str = PayloadType.JOB) -> bytes:
        """An envelope over any payload."""
        return sign(kind, payload, [private_key(name) for name in signers])

    def order(self, *, signers: tuple[str, ...] = (ISSUER,), **fields: object) -> bytes:
        """A signed order; `fields` override `order_document`."""
        return self.sign(json.dumps(order_document(**fields)).encode(), signers)

    def command(self, *, signers: tuple[str, ...] = (OPERATOR,), **fields: object) -> bytes:
        """A signed command; `fields` override `command_document`."""
        return self.sign(json.dumps(command_document(**fields)).encode(), signers, PayloadType.COMMAND)

    def command_snapshot(self, **fields: object) -> CommandSnapshot:
        """A site with one printer, where the job of `order_document` runs as RUN_ID; `fields` override."""
        job = JobStanding(7, frozenset({"fdm"}), frozenset({RUN_ID}), moved=True)
        ledger = MemoryCommandLedger(
            jobs={str(order_document()["job_id"]): job}, machines={"prn-1": RUN_ID, "mill-1": RUN_ID}
        )
        defaults = {
            "site": "berlin-1",
            "root": self.root,
            "machines": {"prn-1": frozenset({"fdm"}), "mill-1": frozenset({"mill"})},
            "ledger": ledger,
        }
        return CommandSnapshot(**(defaults | fields))

    def snapshot(self, **fields: object) -> Snapshot:
        """A site that can print and has a gigabyte to spare; `fields` override."""
        defaults = {
            "site": "berlin-1",
            "root": self.root,
            "processes": frozenset({"fdm"}),
            "free_bytes": 2 * 10**9,
            "reserve_bytes": 10**9,
            "ledger": self.ledger,
        }
        return Snapshot(**(defaults | fields))
