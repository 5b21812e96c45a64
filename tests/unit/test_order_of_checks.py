"""Orders, commands, roots and signed times: of two failing checks, the earlier one gives the reason. Every pair."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from edge.model.event import ClockTrust
from edge.model.fields import time_text
from edge.trust import (
    CommandReason,
    CommandVerdict,
    CurrentRoot,
    Now,
    PayloadType,
    Reason,
    RootReason,
    Verdict,
    admit,
    admit_command,
    judge_root,
    judge_time,
    load_root,
    payload_digest,
    sign,
)
from tests.helpers.trust import (
    AT,
    ISSUER,
    NOW,
    OPERATOR,
    RUN_ID,
    Ceremony,
    command_document,
    keyid,
    order_document,
    private_key,
    root_document,
)

TIME_KEY, NONCE = "time@acme", "0123456789abcdef" * 2
HOUR = timedelta(hours=1)
OTHER = "01J9ZK3V5Q8M2N4P6R7S9T0W1Z"
SEEN = "seen before"
UNTRUSTED = Now(AT, AT - HOUR * 2, ClockTrust.UNKNOWN)
"""What has passed for an hour may still lie ahead."""


@dataclasses.dataclass
class Case:
    """Bytes, and a site that they come to; each breakage spoils one thing about it."""

    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    root: dict[str, Any] = dataclasses.field(default_factory=dict)
    site: dict[str, Any] = dataclasses.field(default_factory=dict)
    signers: tuple[str, ...] = (ISSUER, OPERATOR, "root-1")
    kind: str = ""
    tail: bytes = b""
    seen: bool = False
    told: bool = False
    trusted: bool = True

    def envelope(self, kind: str, document: dict[str, Any]) -> bytes:
        raw = sign(self.kind or kind, json.dumps(document).encode(), [private_key(name) for name in self.signers])
        return raw + self.tail


def breaks(**changes: Any) -> Callable[[Case], None]:
    """A breakage that sets attributes; dictionaries are joined, tails come one after the other."""

    def spoil(case: Case) -> None:
        for name, value in changes.items():
            before = getattr(case, name)
            setattr(
                case, name, before | value if isinstance(value, dict) else before + value if name == "tail" else value
            )

    return spoil


def pairs(checks: list[tuple[str, Any, Callable[[Case], None]]], exclusive: set[tuple[str, str]]) -> list[Any]:
    """Each check alone (paired with itself), and each two that can fail together."""
    return [
        pytest.param(first, second, id=f"{first[0]}, {second[0]}")
        for first, second in itertools.combinations_with_replacement(checks, 2)
        if (first[0], second[0]) not in exclusive
    ]


LARGE = b" " * (256 * 1024)
ENVELOPE = [
    ("size", "too_large", breaks(tail=LARGE)),
    ("envelope", "malformed", breaks(tail=b"{")),
    ("type", "bad_type", breaks(kind=PayloadType.BATCH)),
    ("seen", SEEN, breaks(seen=True)),
]

ORDERS = [
    *ENVELOPE,
    ("unsigned", "threshold", breaks(signers=("stranger",))),
    ("revoked", "revoked_key", breaks(root={"revoked": (ISSUER, OPERATOR)})),
    ("form", "malformed", breaks(fields={"colour": "red"})),
    ("rights", "threshold", breaks(fields={"issuer": "nobody@acme"})),
    ("payload", "declined", breaks(told=True)),
    ("site", "wrong_site", breaks(fields={"site": "paris-1"})),
    ("root", "stale_root", breaks(fields={"root_version_min": 9})),
    ("clock", "clock_untrusted", breaks(trusted=False)),
    ("expired", "expired", breaks(fields={"expires_at": time_text(AT - HOUR / 2)})),
    ("early", "not_yet_valid", breaks(fields={"issued_at": time_text(AT + HOUR)})),
    ("number", "replayed", breaks(fields={"sequence": 7})),
    ("id", "conflict", breaks(fields={"job_id": OTHER})),
    ("work", "unsupported", breaks(fields={"quantity": 2})),
    ("room", "storage_full", breaks(site={"free_bytes": 0})),
]


def reason_of_order(case: Case) -> str | None:
    ceremony = Ceremony(operators=(OPERATOR,), **case.root)
    earlier = admit(ceremony.order(job_id=OTHER, sequence=7), Ceremony().snapshot(), NOW)
    ceremony.ledger.take(earlier)
    raw = case.envelope(PayloadType.JOB, order_document(**case.fields))
    if case.seen:
        digest = hashlib.sha256(raw).hexdigest()
        ceremony.ledger.verdicts[digest] = Verdict(False, Reason.EXPIRED, SEEN, digest)
    if case.told:
        payload = json.dumps(order_document(**case.fields)).encode()
        ceremony.ledger.refused[hashlib.sha256(payload).hexdigest()] = (Reason.DECLINED, "given up before")
    verdict = admit(raw, ceremony.snapshot(**case.site), NOW if case.trusted else UNTRUSTED)
    return SEEN if verdict.repeated else verdict.reason


# An order ends after it begins; and whether a signer was revoked is asked only of those who signed.
@pytest.mark.parametrize(("first", "second"), pairs(ORDERS, {("expired", "early"), ("unsigned", "revoked")}))
def test_an_orders_first_failing_check_gives_the_reason(first, second):
    case = Case()
    second[2](case)
    first[2](case) if first is not second else None
    assert reason_of_order(case) == first[1]


def test_an_order_with_nothing_wrong_is_accepted():
    assert reason_of_order(Case()) is None
    assert {check[1] for check in ORDERS} == {*Reason, SEEN} - {Reason.CANCELLED}


COMMANDS = [
    *ENVELOPE,
    ("unsigned", "threshold", breaks(signers=("stranger",))),
    ("revoked", "revoked_key", breaks(root={"revoked": (OPERATOR,)})),
    ("form", "malformed", breaks(fields={"colour": "red"})),
    ("issuer", "threshold", breaks(fields={"issuer": "nobody@acme"})),
    ("payload", "not_possible", breaks(told=True)),
    ("site", "wrong_site", breaks(fields={"site": "paris-1"})),
    ("root", "stale_root", breaks(root={"expires_at": time_text(AT - HOUR * 3)})),
    ("clock", "clock_untrusted", breaks(trusted=False)),
    (
        "expired",
        "expired",
        breaks(fields={"issued_at": time_text(AT - HOUR), "expires_at": time_text(AT - HOUR * 0.9)}),
    ),
    (
        "early",
        "not_yet_valid",
        breaks(fields={"issued_at": time_text(AT + HOUR), "expires_at": time_text(AT + HOUR * 1.1)}),
    ),
    ("id", "replayed", breaks(fields={"command_id": OTHER})),
    ("job", "unknown", breaks(fields={"job_id": OTHER})),
    ("process", "threshold", breaks(root={"limits": {OPERATOR: {"processes": ["mill"]}}})),
    ("run", "stale", breaks(fields={"run_id": "cd" * 16})),
    ("allowed", "not_allowed", breaks(site={"allow_release": False})),
]


def reason_of_command(case: Case) -> str | None:
    ceremony = Ceremony(operators=(OPERATOR,), **case.root)
    snapshot = ceremony.command_snapshot(**({"allow_release": True} | case.site))
    snapshot.ledger.used.add(OTHER)
    fields = {"verb": "release", "run_id": RUN_ID} | case.fields
    raw = case.envelope(PayloadType.COMMAND, command_document(**fields))
    if case.seen:
        digest = hashlib.sha256(raw).hexdigest()
        snapshot.ledger.verdicts[digest] = CommandVerdict(False, CommandReason.EXPIRED, SEEN, digest)
    if case.told:
        payload = json.dumps(command_document(**fields)).encode()
        snapshot.ledger.refused[hashlib.sha256(payload).hexdigest()] = (CommandReason.NOT_POSSIBLE, "refused before")
    verdict = admit_command(raw, snapshot, NOW if case.trusted else UNTRUSTED)
    return SEEN if verdict.repeated else verdict.reason


@pytest.mark.parametrize(("first", "second"), pairs(COMMANDS, {("expired", "early"), ("unsigned", "revoked")}))
def test_a_commands_first_failing_check_gives_the_reason(first, second):
    case = Case()
    second[2](case)
    first[2](case) if first is not second else None
    assert reason_of_command(case) == first[1]


def test_a_command_with_nothing_wrong_is_accepted():
    assert reason_of_command(Case()) is None
    assert {check[1] for check in COMMANDS} == {*CommandReason, SEEN} - {CommandReason.UNSUPPORTED}


ROOTS = [
    *ENVELOPE[:3],
    ("unsigned", "threshold", breaks(signers=("stranger",))),
    ("form", "malformed", breaks(fields={"colour": "red"})),
    ("version", "gap", breaks(fields={"version": 9})),
    ("name", "not_successor", breaks(fields={"name": "Other"})),
]
CURRENT = sign(PayloadType.ROOT, json.dumps(root_document(version=3)).encode(), [private_key("root-1")])


def reason_of_root(case: Case) -> str | None:
    raw = case.envelope(PayloadType.ROOT, root_document(**({"version": 4} | case.fields)))
    return judge_root(raw, CurrentRoot(load_root(CURRENT), payload_digest(CURRENT))).reason


@pytest.mark.parametrize(("first", "second"), pairs(ROOTS, set()))
def test_a_roots_first_failing_check_gives_the_reason(first, second):
    case = Case()
    second[2](case)
    first[2](case) if first is not second else None
    assert reason_of_root(case) == first[1]


TIMES = [
    *ENVELOPE[:3],
    ("unsigned", "threshold", breaks(signers=("stranger",))),
    ("revoked", "revoked_key", breaks(root={"revoked": (TIME_KEY,)})),
    ("form", "malformed", breaks(fields={"colour": "red"})),
    ("nonce", "replayed", breaks(fields={"nonce": "f" * 32})),
]


def reason_of_time(case: Case) -> str | None:
    root = Ceremony(times=(TIME_KEY,), **case.root).root
    raw = case.envelope(PayloadType.TIME, {"at": time_text(AT), "nonce": NONCE} | case.fields)
    return judge_time(raw, root, {NONCE}).reason


@pytest.mark.parametrize(("first", "second"), pairs(TIMES, {("unsigned", "revoked")}))
def test_a_signed_times_first_failing_check_gives_the_reason(first, second):
    case = Case(signers=(TIME_KEY,))
    second[2](case)
    first[2](case) if first is not second else None
    assert reason_of_time(case) == first[1]


def test_a_signed_time_with_nothing_wrong_is_accepted():
    assert reason_of_time(Case(signers=(TIME_KEY,))) is None


@pytest.mark.parametrize(("version", "reason"), [(4, None), (3, "conflict"), (2, "rollback"), (5, "gap")])
def test_a_root_comes_in_sequence_and_never_back(version, reason):
    assert reason_of_root(Case(fields={"version": version, "issued_at": "2026-02-01T00:00:00Z"})) == reason
    assert {check[1] for check in ROOTS} | {"conflict", "rollback"} == set(RootReason)


def test_the_root_that_is_in_force_is_no_news_whoever_signed_it():
    raw = sign(PayloadType.ROOT, json.dumps(root_document(version=3)).encode(), [])
    verdict = judge_root(raw, CurrentRoot(load_root(CURRENT), payload_digest(CURRENT)))
    assert (verdict.accepted, verdict.repeated, verdict.signed) == (True, True, False)


def test_a_key_that_the_current_root_revokes_signs_no_successor():
    current = root_document(roots=("root-1", "root-2"), revoked=("root-2",), version=3)
    signed = sign(PayloadType.ROOT, json.dumps(current).encode(), [private_key("root-1")])
    raw = sign(PayloadType.ROOT, json.dumps(current | {"version": 4}).encode(), [private_key("root-2")])
    verdict = judge_root(raw, CurrentRoot(load_root(signed), payload_digest(signed)))
    assert (verdict.reason, verdict.signed) == ("threshold", False)


def test_a_newcomer_among_the_root_keys_must_sign_too():
    document = root_document(roots=("root-1", "root-2"), root_threshold=2, version=4)
    current = CurrentRoot(load_root(CURRENT), payload_digest(CURRENT))
    alone = sign(PayloadType.ROOT, json.dumps(document).encode(), [private_key("root-1")])
    assert judge_root(alone, current).reason == "not_successor"
    both = sign(PayloadType.ROOT, json.dumps(document).encode(), [private_key("root-1"), private_key("root-2")])
    verdict = judge_root(both, current)
    assert (verdict.accepted, verdict.root.version, verdict.signers) == (True, 4, ("root-1",))
    assert keyid("root-2") in verdict.root.keys
