"""Admission: every reason with an input that earns it, the order of the checks, and the same bytes twice."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.model.fields import time_text
from edge.trust import Claims, Envelope, PayloadType, Reason, Signature, Verdict, admit, parse, verify_order, vouched
from tests.helpers.trust import AT, ISSUER, NOW, PROGRAM, Ceremony, keyid, order_document, step_document

HOUR = timedelta(hours=1)
FILE = hashlib.sha256(PROGRAM).hexdigest()


def in_time(delta: timedelta) -> str:
    return time_text(AT + delta)


def judge(ceremony: Ceremony, raw: bytes, **site: object) -> Verdict:
    return admit(raw, ceremony.snapshot(**site), NOW)


def assert_refused(verdict: Verdict, reason: Reason, *, signed: bool, says: str = "") -> None:
    assert not verdict.accepted
    assert verdict.reason is reason
    assert verdict.signed is signed
    assert says in verdict.detail
    assert verdict.detail.isprintable()


def test_a_good_order_is_accepted():
    ceremony = Ceremony()
    verdict = judge(ceremony, ceremony.order())
    assert verdict.accepted
    assert verdict.reason is None
    assert verdict.signed
    assert not verdict.repeated
    assert verdict.signers == (ISSUER,)
    assert verdict.order.job_id == order_document()["job_id"]
    assert len(verdict.digest) == 64


def test_an_order_for_tomorrow_is_accepted_today():
    ceremony = Ceremony()
    assert judge(ceremony, ceremony.order(not_before=in_time(24 * HOUR))).accepted


# Every reason


def test_too_large():
    assert_refused(judge(Ceremony(), b" " * (256 * 1024 + 1)), Reason.TOO_LARGE, signed=False, says="262145 bytes")


def test_the_largest_envelope_is_not_too_large():
    assert judge(Ceremony(), b" " * (256 * 1024)).reason is Reason.MALFORMED


GOOD = json.loads(Ceremony().order())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00" * 100,
        b"\xff\xfe",
        b"not json",
        b"[" * 200_000,
        b"{}",
        b'{"payloadType":"a","payloadType":"b"}',
        b'{"a":NaN}',
        json.dumps(GOOD | {"alg": "none"}).encode(),
        json.dumps(GOOD | {"payload": GOOD["payload"][:-2]}).encode(),
        json.dumps(GOOD | {"payload": "!!!!"}).encode(),
        json.dumps(GOOD).encode() + b"{}",
    ],
)
def test_malformed_envelope(raw):
    assert_refused(judge(Ceremony(), raw), Reason.MALFORMED, signed=False)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b'{"job_id":"a","job_id":"b"}',
        b'{"sequence":NaN}',
        b"[" * 50 + b"]" * 50,
        b"\xef\xbb\xbf{}",
        json.dumps(order_document(colour="red")).encode(),
        json.dumps(order_document(steps=[step_document(speed=9)])).encode(),
        json.dumps(order_document(expires_at=in_time(-2 * HOUR))).encode(),
    ],
)
def test_malformed_order_though_signed(payload):
    ceremony = Ceremony()
    verdict = judge(ceremony, ceremony.sign(payload))
    assert_refused(verdict, Reason.MALFORMED, signed=True)
    assert verdict.order is None
    assert verdict.signers == (ISSUER,)


def test_bad_type():
    ceremony = Ceremony()
    raw = ceremony.sign(json.dumps(order_document()).encode(), kind=PayloadType.COMMAND)
    assert_refused(judge(ceremony, raw), Reason.BAD_TYPE, signed=False, says="command.v1+json")


def test_threshold_without_any_signature():
    ceremony = Ceremony()
    raw = ceremony.order(signers=())
    assert_refused(
        judge(ceremony, raw), Reason.THRESHOLD, signed=False, says="0 valid signatures of the role 'issuer', needs 1"
    )


@pytest.mark.parametrize("signer", ["stranger", "root-1"])
def test_threshold_with_a_key_that_is_no_issuer(signer):
    ceremony = Ceremony()
    assert_refused(judge(ceremony, ceremony.order(signers=(signer,))), Reason.THRESHOLD, signed=False)


def test_threshold_with_a_changed_payload():
    ceremony = Ceremony()
    document = json.loads(ceremony.order())
    document["payload"] = base64.b64encode(json.dumps(order_document(quantity=100)).encode()).decode()
    assert_refused(judge(ceremony, json.dumps(document).encode()), Reason.THRESHOLD, signed=False)


def test_threshold_with_one_key_under_two_key_ids():
    ceremony = Ceremony(issuers=(ISSUER, "b"), threshold=2)
    envelope = parse(ceremony.order())
    sig = envelope.signatures[0].sig
    twice = tuple(Signature(name, sig) for name in (keyid(ISSUER), keyid("b"), keyid(ISSUER), "x"))
    raw = Envelope(envelope.payload_type, envelope.payload, twice).to_bytes()
    assert_refused(
        judge(ceremony, raw), Reason.THRESHOLD, signed=False, says="1 valid signatures of the role 'issuer', needs 2"
    )


def test_threshold_when_the_root_has_no_issuer():
    ceremony = Ceremony(roles={"root": {"threshold": 1, "keyids": [keyid("root-1")]}})
    assert_refused(judge(ceremony, ceremony.order()), Reason.THRESHOLD, signed=False, says="gives nobody the role")


def test_threshold_when_the_named_issuer_did_not_sign():
    ceremony = Ceremony(issuers=(ISSUER, "other@acme"))
    verdict = judge(ceremony, ceremony.order(signers=("other@acme",)))
    assert_refused(verdict, Reason.THRESHOLD, signed=True, says="issued by orders@acme, but signed by other@acme")


@pytest.mark.parametrize("limit", [{"processes": ["mill"]}, {"sites": ["paris-1"]}])
def test_threshold_when_a_signer_may_not_sign_this(limit):
    ceremony = Ceremony(issuers=(ISSUER, "qa"), threshold=2, limits={"qa": limit})
    verdict = judge(ceremony, ceremony.order(signers=(ISSUER, "qa")))
    assert_refused(verdict, Reason.THRESHOLD, signed=True, says="1 of the keys that signed may order fdm at berlin-1")


def test_a_limited_key_signs_what_it_may():
    ceremony = Ceremony(limits={ISSUER: {"processes": ["mill", "fdm"], "sites": ["berlin-1"]}})
    assert judge(ceremony, ceremony.order()).accepted


def test_two_issuers_that_both_sign_reach_a_threshold_of_two():
    ceremony = Ceremony(issuers=(ISSUER, "b"), threshold=2)
    verdict = judge(ceremony, ceremony.order(signers=(ISSUER, "b")))
    assert verdict.accepted
    assert verdict.signers == ("b", ISSUER)


def test_revoked_key():
    ceremony = Ceremony(revoked=(ISSUER,))
    verdict = judge(ceremony, ceremony.order())
    assert_refused(verdict, Reason.REVOKED_KEY, signed=False, says="revoked: orders@acme")


def test_enough_other_keys_make_up_for_a_revoked_one():
    ceremony = Ceremony(issuers=(ISSUER, "stolen"), revoked=("stolen",))
    assert judge(ceremony, ceremony.order(signers=(ISSUER, "stolen"))).signers == (ISSUER,)


def test_wrong_site():
    ceremony = Ceremony()
    verdict = judge(ceremony, ceremony.order(site="paris-1"))
    assert_refused(verdict, Reason.WRONG_SITE, signed=True, says="for site paris-1, this is berlin-1")


def test_stale_root():
    ceremony = Ceremony()
    verdict = judge(ceremony, ceremony.order(root_version_min=2))
    assert_refused(verdict, Reason.STALE_ROOT, signed=True, says="needs version 2 of the trust root, this site has 1")


def test_stale_root_when_it_has_expired():
    ceremony = Ceremony(expires_at=in_time(timedelta()))
    assert_refused(judge(ceremony, ceremony.order()), Reason.STALE_ROOT, signed=True, says="trust root expired")
    assert admit(ceremony.order(), ceremony.snapshot(), vouched(AT - timedelta(seconds=1))).accepted


def test_expired_from_its_very_second():
    ceremony = Ceremony()
    assert judge(ceremony, ceremony.order(expires_at=in_time(timedelta(seconds=1)))).accepted
    assert_refused(judge(ceremony, ceremony.order(expires_at=in_time(timedelta()))), Reason.EXPIRED, signed=True)


def test_not_yet_valid_beyond_five_minutes():
    ceremony = Ceremony()
    assert judge(ceremony, ceremony.order(issued_at=in_time(timedelta(minutes=5)))).accepted
    verdict = judge(ceremony, ceremony.order(issued_at=in_time(timedelta(minutes=5, seconds=1))))
    assert_refused(verdict, Reason.NOT_YET_VALID, signed=True)


OTHER_JOB = "01J9ZK3V5Q8M2N4P6R7S9T0W1Z"


def test_replayed():
    ceremony = Ceremony()
    ceremony.ledger.take(judge(ceremony, ceremony.order()))
    verdict = judge(ceremony, ceremony.order(job_id=OTHER_JOB))
    assert_refused(verdict, Reason.REPLAYED, signed=True, says="number 42 of orders@acme")


def test_replayed_when_it_is_too_old_to_tell():
    ceremony = Ceremony()
    ceremony.ledger.take(judge(ceremony, ceremony.order(sequence=5000)))
    late = {"job_id": OTHER_JOB}
    assert_refused(judge(ceremony, ceremony.order(sequence=3976, **late)), Reason.REPLAYED, signed=True)
    assert judge(ceremony, ceremony.order(sequence=3977, **late)).accepted


def test_a_number_is_used_in_its_own_series_only():
    ceremony = Ceremony(issuers=(ISSUER, "b@acme"))
    ceremony.ledger.take(judge(ceremony, ceremony.order()))
    assert judge(ceremony, ceremony.order(job_id=OTHER_JOB, series="00" * 8)).accepted
    assert judge(ceremony, ceremony.order(job_id=OTHER_JOB, issuer="b@acme", signers=("b@acme",))).accepted


def test_conflict():
    ceremony = Ceremony()
    ceremony.ledger.take(judge(ceremony, ceremony.order()))
    verdict = judge(ceremony, ceremony.order(sequence=43, quantity=1, product="other"))
    assert_refused(verdict, Reason.CONFLICT, signed=True, says="is known here as another order")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"steps": [step_document(process="mill"), step_document(id="b", process="laser")]}, "does laser, mill"),
        ({"quantity": 2}, "this version does orders of one step and one part"),
        ({"steps": [step_document(), step_document(id="b")]}, "has 2 steps and quantity 1"),
        ({"steps": [step_document(quality=["width"])]}, "quality checks or hold points"),
        ({"steps": [step_document(holds=["first_layer"])]}, "quality checks or hold points"),
    ],
)
def test_unsupported(fields, says):
    ceremony = Ceremony()
    assert_refused(judge(ceremony, ceremony.order(**fields)), Reason.UNSUPPORTED, signed=True, says=says)


@pytest.mark.parametrize(("free", "fits"), [(121, True), (120, False), (50, False)])
def test_storage_full(free, fits):
    ceremony = Ceremony()
    verdict = judge(ceremony, ceremony.order(), free_bytes=free, reserve_bytes=100)
    if fits:
        assert verdict.accepted
    else:
        assert_refused(verdict, Reason.STORAGE_FULL, signed=True, says=f"has room for {max(0, free - 100)}")


@pytest.mark.parametrize(("free", "fits"), [(101, True), (100, False)])
def test_the_reserve_is_for_facts_even_if_no_file_is_new(free, fits):
    ceremony = Ceremony()
    ceremony.ledger.claimed = Claims(held={FILE: len(PROGRAM)})
    verdict = judge(ceremony, ceremony.order(), free_bytes=free, reserve_bytes=100)
    assert verdict.accepted is fits
    assert verdict.reason is (None if fits else Reason.STORAGE_FULL)


@pytest.mark.parametrize(
    ("claims", "fits"),
    [
        (Claims(missing_bytes=979), True),
        (Claims(missing_bytes=980), False),
        (Claims(missing_bytes=1000, idle_bytes=21), True),
        (Claims(missing_bytes=1000, idle_bytes=20), False),
        (Claims(held={"ab" * 32: 29}, held_bytes=29), True),
        (Claims(held={"ab" * 32: 30}, held_bytes=30), False),
        (Claims(held={FILE: 21}, held_bytes=21, missing_bytes=5000), True),
        (Claims(held={FILE: 22}, held_bytes=22, missing_bytes=5000), False),
    ],
)
def test_what_is_spoken_for_is_no_room(claims: Claims, fits: bool) -> None:
    """The order needs 21 bytes; the disk has 1,000 and artifacts may take 50."""
    ceremony = Ceremony()
    ceremony.ledger.claimed = claims
    verdict = judge(ceremony, ceremony.order(), free_bytes=1100, reserve_bytes=100, max_bytes=50)
    assert (verdict.accepted, verdict.reason) == ((True, None) if fits else (False, Reason.STORAGE_FULL))


def test_the_reasons_are_those_of_the_design():
    assert {reason.value for reason in Reason} == {
        *("too_large", "malformed", "bad_type", "threshold", "revoked_key", "wrong_site", "stale_root", "expired"),
        *("not_yet_valid", "clock_untrusted", "replayed", "conflict", "unsupported", "storage_full"),
        *("cancelled", "declined"),  # what a person said before it was judged; `admit` finds neither by itself
    }


# The same bytes


def test_the_same_bytes_get_the_same_verdict_and_nothing_is_done():
    ceremony = Ceremony()
    raw = ceremony.order()
    first = judge(ceremony, raw)
    ceremony.ledger.take(first)
    again = admit(raw, ceremony.snapshot(site="elsewhere", free_bytes=0), vouched(AT + timedelta(days=400)))
    assert again.repeated
    assert again == Verdict(True, None, first.detail, first.digest, first.order, first.signers, True, repeated=True)


def test_a_signed_refusal_is_final_for_its_bytes():
    ceremony = Ceremony()
    raw = ceremony.order()
    ceremony.ledger.take(judge(ceremony, raw, free_bytes=0))
    again = judge(ceremony, raw)
    assert_refused(again, Reason.STORAGE_FULL, signed=True)
    assert again.repeated


def test_a_refusal_binds_neither_number_nor_job():
    ceremony = Ceremony()
    ceremony.ledger.take(judge(ceremony, ceremony.order(), free_bytes=0))
    assert judge(ceremony, ceremony.order(product="bracket-v4")).accepted


def test_bytes_refused_without_a_signature_are_judged_anew():
    raw = Ceremony(issuers=("b",)).order(issuer="b", signers=("b",))
    stranger = Ceremony()
    stranger.ledger.take(judge(stranger, raw))
    assert not judge(stranger, raw).repeated


def test_another_spelling_of_the_same_envelope_starts_nothing_twice():
    ceremony = Ceremony()
    raw = ceremony.order()
    ceremony.ledger.take(judge(ceremony, raw))
    assert judge(ceremony, raw + b"\n").reason is Reason.REPLAYED


# The order of the checks: each entry breaks one check and leaves all others as they are

REVOKED = "revoked@acme"
FIELDS_IN_ORDER: dict[Reason, dict[str, object]] = {
    Reason.MALFORMED: {"colour": "red"},
    Reason.THRESHOLD: {"issuer": "nobody@acme"},
    Reason.WRONG_SITE: {"site": "paris-1"},
    Reason.STALE_ROOT: {"root_version_min": 9},
    Reason.EXPIRED: {"expires_at": in_time(-HOUR / 2)},
    Reason.REPLAYED: {"sequence": 7},
    Reason.CONFLICT: {"job_id": OTHER_JOB},
    Reason.UNSUPPORTED: {"quantity": 2},
    Reason.STORAGE_FULL: {},
}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(FIELDS_IN_ORDER, 2)))
def test_of_two_failing_checks_the_earlier_gives_the_reason(first, second):
    ceremony = Ceremony()
    ceremony.ledger.take(judge(ceremony, ceremony.order(job_id=OTHER_JOB, sequence=7, product="earlier")))
    fields = FIELDS_IN_ORDER[second] | FIELDS_IN_ORDER[first]
    free_bytes = 0 if Reason.STORAGE_FULL in (first, second) else 10**10
    assert judge(ceremony, ceremony.order(**fields), free_bytes=free_bytes).reason is first
    assert judge(ceremony, ceremony.order(**FIELDS_IN_ORDER[second]), free_bytes=free_bytes).reason is second


def test_stale_root_comes_before_not_yet_valid_and_that_before_replayed():
    ceremony = Ceremony()
    ceremony.ledger.take(judge(ceremony, ceremony.order()))
    late = {"issued_at": in_time(HOUR), "job_id": OTHER_JOB}
    assert judge(ceremony, ceremony.order(root_version_min=2, **late)).reason is Reason.STALE_ROOT
    assert judge(ceremony, ceremony.order(**late)).reason is Reason.NOT_YET_VALID


def test_an_unsigned_malformed_order_is_refused_for_its_signature():
    ceremony = Ceremony()
    assert judge(ceremony, ceremony.sign(b"{}", signers=())).reason is Reason.THRESHOLD


def test_a_revoked_key_on_a_malformed_order_is_refused_for_its_key():
    ceremony = Ceremony(revoked=(ISSUER,))
    assert judge(ceremony, ceremony.sign(b"{}")).reason is Reason.REVOKED_KEY


def test_an_unsigned_envelope_of_another_type_is_refused_for_its_type():
    ceremony = Ceremony()
    assert judge(ceremony, ceremony.sign(b"{}", (), PayloadType.ROOT)).reason is Reason.BAD_TYPE


def test_a_large_envelope_that_is_also_malformed_is_refused_for_its_size():
    assert judge(Ceremony(), b"[" * 300_000).reason is Reason.TOO_LARGE


def test_a_type_that_could_move_a_cursor_is_refused_before_it_is_shown():
    ceremony = Ceremony()
    verdict = judge(ceremony, ceremony.sign(b"{}", kind="\x1b[2J"))
    assert_refused(verdict, Reason.MALFORMED, signed=False)


# What no change of bytes may do

CEREMONY = Ceremony(issuers=(ISSUER, "b"), threshold=2)
SIGNED = CEREMONY.order(signers=(ISSUER, "b"))
ORDER = judge(CEREMONY, SIGNED).order


@settings(max_examples=400)
@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_no_change_of_one_byte_makes_another_accepted_order(position, change):
    raw = bytearray(SIGNED)
    raw[position] ^= change
    verdict = judge(CEREMONY, bytes(raw))
    assert not verdict.accepted or verdict.order == ORDER


@given(st.integers(0, len(SIGNED) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_no_insertion_or_deletion_makes_another_accepted_order(position, inserted, deleted):
    verdict = judge(CEREMONY, SIGNED[:position] + inserted + SIGNED[position + deleted :])
    assert not verdict.accepted or verdict.order == ORDER


@given(st.binary(max_size=400))
def test_any_bytes_get_a_verdict(raw):
    verdict = judge(CEREMONY, raw)
    assert verdict.reason is Reason.MALFORMED
    assert not verdict.signed


@given(st.binary(max_size=200))
def test_any_signed_payload_gets_a_verdict(payload):
    verdict = judge(CEREMONY, CEREMONY.sign(payload, (ISSUER, "b")))
    assert verdict.reason is Reason.MALFORMED
    assert verdict.signed


# Without a site


def test_an_order_is_verified_without_a_site():
    assert verify_order(SIGNED, CEREMONY.root).accepted
    assert verify_order(CEREMONY.order(signers=(ISSUER,)), CEREMONY.root).reason is Reason.THRESHOLD
