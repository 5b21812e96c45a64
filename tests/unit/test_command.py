"""Commands from the centre: their form, and what each is bound to."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from edge.errors import FormatError
from edge.model.command import Verb, command_bytes, parse_command
from edge.model.event import ClockTrust
from edge.model.fields import time_text
from edge.trust import (
    CommandReason,
    CommandVerdict,
    Envelope,
    JobStanding,
    Now,
    PayloadType,
    Signature,
    admit_command,
    parse,
    sign_command,
)
from tests.helpers.trust import (
    AT,
    NOW,
    OPERATOR,
    RUN_ID,
    Ceremony,
    MemoryCommandLedger,
    command_document,
    keyid,
    order_document,
    private_key,
)

JOB_ID = str(order_document()["job_id"])
CLEAR = {"verb": "clear", "job_id": None, "machine": "prn-1", "run_id": RUN_ID}


def ceremony(**fields: object) -> Ceremony:
    return Ceremony(operators=(OPERATOR,), **fields)


def judge(raw: bytes, made: Ceremony | None = None, **site: object) -> CommandVerdict:
    return admit_command(raw, (made or ceremony()).command_snapshot(**site), NOW)


def test_a_command_comes_back_from_its_bytes():
    command = parse_command(json.dumps(command_document()).encode())
    assert parse_command(command_bytes(command)) == command
    raw = sign_command(command, [private_key(OPERATOR)])
    verdict = judge(raw)
    assert (verdict.accepted, verdict.command, verdict.signers) == (True, command, (OPERATOR,))
    assert verdict.detail == f"cancel {JOB_ID} is accepted"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"colour": "red"}, "colour is an unknown field"),
        ({"verb": "start"}, "verb is 'start'"),
        ({"command_id": "1"}, "command_id is '1', must be a ULID"),
        ({"run_id": "../../etc"}, "run_id is '../../etc', must be 32"),
        ({"if_revision": 0}, "if_revision is 0"),
        ({"if_revision": True}, "if_revision is True"),
        ({"reason": "\x1b[2J"}, "printable characters"),
        ({"expires_at": time_text(AT + timedelta(minutes=9, seconds=1))}, "more than ten minutes after issued_at"),
        ({"expires_at": time_text(AT - timedelta(minutes=1))}, "expires_at is not after issued_at"),
        ({"job_id": None}, "'cancel' must name a job_id and no machine"),
        ({"machine": "prn-1"}, "'cancel' must name a job_id and no machine"),
        (CLEAR | {"job_id": JOB_ID}, "'clear' must name a machine and no job_id"),
        (CLEAR | {"machine": None}, "'clear' must name a machine and no job_id"),
        (CLEAR | {"run_id": None}, "must name the run_id that left its part"),
        (CLEAR | {"if_revision": 1}, "and no if_revision"),
        ({"verb": "hold"}, "'hold' must name a run_id or an if_revision"),
        ({"verb": "release"}, "'release' must name a run_id or an if_revision"),
        ({"verb": "retry"}, "'retry' must name a run_id or an if_revision"),
        ({"verb": "scrap"}, "'scrap' must name a run_id or an if_revision"),
    ],
)
def test_a_command_that_breaks_a_rule_is_refused_in_words(fields, says):
    with pytest.raises(FormatError, match=says.replace("[", r"\[")):
        parse_command(json.dumps(command_document(**fields)).encode())


def test_a_large_command_is_refused():
    with pytest.raises(FormatError, match="at most 4096"):
        parse_command(b" " * 4097)


@pytest.mark.parametrize("verb", Verb)
def test_every_verb_has_a_good_form(verb):
    fields = CLEAR if verb is Verb.CLEAR else {"verb": verb, "run_id": RUN_ID, "if_revision": 7}
    site = {"allow_clear": True, "allow_release": True}
    assert judge(ceremony().command(**fields), **site).accepted


# What it is bound to


def test_a_command_for_the_last_part_never_hits_the_next_one():
    raw = ceremony().command(verb="hold", run_id=RUN_ID)
    assert judge(raw).accepted
    next_run = JobStanding(7, frozenset({"fdm"}), frozenset({"cd" * 16}), moved=True)
    verdict = judge(raw, ledger=MemoryCommandLedger(jobs={JOB_ID: next_run}))
    assert (verdict.reason, verdict.signed) == (CommandReason.STALE, True)


def test_a_command_for_a_job_that_has_moved_on_is_stale():
    assert judge(ceremony().command(verb="hold", if_revision=7)).accepted
    verdict = judge(ceremony().command(verb="hold", if_revision=6))
    assert verdict.reason is CommandReason.STALE
    assert "is at revision 7, not 6" in verdict.detail


def test_a_machine_is_cleared_only_of_the_run_that_is_named_and_only_where_the_site_lets_the_centre():
    raw = ceremony().command(**CLEAR)
    assert judge(raw).reason is CommandReason.NOT_ALLOWED
    assert judge(raw, allow_clear=True).accepted
    assert judge(raw, allow_clear=True, ledger=MemoryCommandLedger()).reason is CommandReason.STALE
    assert judge(ceremony().command(**CLEAR | {"machine": "prn-9"})).reason is CommandReason.UNKNOWN


@pytest.mark.parametrize("verb", ["release", "retry"])
def test_going_on_after_motion_is_for_somebody_at_the_machine(verb):
    raw = ceremony().command(verb=verb, run_id=RUN_ID)
    assert judge(raw).reason is CommandReason.NOT_ALLOWED
    assert judge(raw, allow_release=True).accepted
    still = JobStanding(7, frozenset({"fdm"}), frozenset({RUN_ID}), moved=False)
    assert judge(raw, ledger=MemoryCommandLedger(jobs={JOB_ID: still})).accepted


# Who may


@pytest.mark.parametrize(
    ("limit", "command", "reason"),
    [
        ({"sites": ["berlin-1"]}, {}, None),
        ({"sites": ["paris-1"]}, {}, CommandReason.THRESHOLD),
        ({"processes": ["fdm"]}, {}, None),
        ({"processes": ["mill"]}, {}, CommandReason.THRESHOLD),
        ({"processes": ["fdm"]}, CLEAR, None),
        ({"processes": ["fdm"]}, CLEAR | {"machine": "mill-1"}, CommandReason.THRESHOLD),
    ],
)
def test_the_limits_of_a_key_hold_for_commands(limit, command, reason):
    made = ceremony(limits={OPERATOR: limit})
    assert judge(made.command(**command), made, allow_clear=True).reason is reason


def test_an_issuer_of_orders_commands_nothing():
    made = ceremony()
    verdict = judge(made.command(signers=("orders@acme",)), made)
    assert (verdict.reason, verdict.signed) == (CommandReason.THRESHOLD, False)
    nobody = Ceremony()
    assert "gives nobody the role 'operator'" in judge(nobody.command(), nobody).detail


def test_one_operator_under_two_key_ids_is_one():
    made = Ceremony(operators=(OPERATOR, "two@acme"), operator_threshold=2)
    envelope = parse(made.command())
    sig = envelope.signatures[0].sig
    twice = tuple(Signature(name, sig) for name in (keyid(OPERATOR), keyid("two@acme"), keyid(OPERATOR)))
    raw = Envelope(envelope.payload_type, envelope.payload, twice).to_bytes()
    assert "1 valid signatures of the role 'operator', needs 2" in judge(raw, made).detail
    assert judge(made.command(signers=(OPERATOR, "two@acme")), made).accepted


# The same again


def test_the_same_bytes_get_the_same_verdict_and_another_envelope_is_a_replay():
    made = ceremony()
    raw = made.command()
    snapshot = made.command_snapshot()
    first = admit_command(raw, snapshot, NOW)
    snapshot.ledger.verdicts[first.digest] = first
    snapshot.ledger.used.add(first.command.command_id)
    late = Now(AT + timedelta(days=3), AT, ClockTrust.UNKNOWN)
    again = admit_command(raw, snapshot, late)
    assert (again.accepted, again.repeated, again.detail) == (True, True, first.detail)
    assert admit_command(raw + b" ", snapshot, NOW).reason is CommandReason.REPLAYED


def test_a_command_never_passes_for_an_order_nor_an_order_for_a_command():
    made = ceremony()
    raw = made.sign(json.dumps(command_document()).encode(), (OPERATOR,), PayloadType.JOB)
    assert judge(raw, made).reason is CommandReason.BAD_TYPE
