"""Which signed times a site believes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import FormatError
from edge.trust import PayloadType, Reason, TrustRoot
from edge.trust.signedtime import TimeVerdict, judge_time, time_bytes
from tests.helpers.trust import AT, ISSUER, keyid, private_key, public_bytes, root_document, sign

NONCE = "0123456789abcdef" * 2
TIME_KEYS, OPERATORS = ("time-1", "time-2"), ("operator-1", "operator-2")


def trust_root(revoked: tuple[str, ...] = (), roles: tuple[str, ...] = ("time", "operator")) -> TrustRoot:
    document = root_document(revoked=revoked)
    for role, names in (("time", TIME_KEYS), ("operator", OPERATORS)):
        if role in roles:
            document["keys"] |= {keyid(n): {"name": n, "public": public_bytes(private_key(n)).hex()} for n in names}
            document["roles"][role] = {"threshold": 2, "keyids": [keyid(name) for name in names]}
    return TrustRoot.model_validate(document)


def signed(*signers: str, payload: bytes | None = None, kind: str = PayloadType.TIME) -> bytes:
    return sign(kind, time_bytes(AT, NONCE) if payload is None else payload, [private_key(name) for name in signers])


def test_enough_keys_of_its_role_and_the_right_nonce_are_believed() -> None:
    verdict = judge_time(signed(*TIME_KEYS), trust_root(), {NONCE})
    assert verdict.accepted
    assert (verdict.at, verdict.signers, verdict.signed, verdict.repairs) == (AT, TIME_KEYS, True, False)


def test_operators_beside_them_may_repair_the_floor() -> None:
    assert judge_time(signed(*TIME_KEYS, *OPERATORS), trust_root(), {NONCE}).repairs
    assert not judge_time(signed(*TIME_KEYS, OPERATORS[0]), trust_root(), {NONCE}).repairs
    assert not judge_time(signed(*TIME_KEYS), trust_root(roles=("time",)), {NONCE}).repairs
    assert judge_time(signed(*OPERATORS), trust_root(), {NONCE}).reason is Reason.THRESHOLD


STATEMENT = {"at": "2026-11-21T12:00:00Z", "nonce": NONCE}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b" " * 2**21, Reason.TOO_LARGE),
        (b"{", Reason.MALFORMED),
        (signed(*TIME_KEYS, kind=PayloadType.JOB), Reason.BAD_TYPE),
        (signed(TIME_KEYS[0]), Reason.THRESHOLD),
        (signed(TIME_KEYS[0], TIME_KEYS[0]), Reason.THRESHOLD),
        (signed(ISSUER), Reason.THRESHOLD),
        (signed(*TIME_KEYS, payload=b'{"at": 1}'), Reason.MALFORMED),
        (signed(*TIME_KEYS, payload=b'{"at": "a", "at": "b"}'), Reason.MALFORMED),
        (signed(*TIME_KEYS, payload=json.dumps(STATEMENT | {"extra": 1}).encode()), Reason.MALFORMED),
        (signed(*TIME_KEYS, payload=json.dumps(STATEMENT | {"nonce": "f" * 32}).encode()), Reason.REPLAYED),
    ],
)
def test_everything_else_is_refused_with_its_reason(raw: bytes, reason: Reason) -> None:
    verdict = judge_time(raw, trust_root(), {NONCE})
    assert (verdict.accepted, verdict.reason, verdict.at) == (False, reason, None)
    assert verdict.detail


def test_a_revoked_key_counts_no_more() -> None:
    assert judge_time(signed(*TIME_KEYS), trust_root(revoked=("time-2",)), {NONCE}).reason is Reason.REVOKED_KEY


def test_a_root_without_the_role_believes_nobody() -> None:
    assert judge_time(signed(*TIME_KEYS), trust_root(roles=()), {NONCE}).reason is Reason.THRESHOLD


def test_what_no_site_would_read_is_not_signed() -> None:
    with pytest.raises(FormatError, match="nonce is 'short', must be 32 lower-case hexadecimal digits"):
        time_bytes(AT, "short")


GOOD = signed(*TIME_KEYS)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_one_changed_byte_never_changes_what_is_believed(place: int, byte: int) -> None:
    raw = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    verdict = judge_time(raw, trust_root(), {NONCE})
    assert isinstance(verdict, TimeVerdict)
    assert not verdict.accepted or verdict.at == AT


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything(raw: bytes) -> None:
    assert not judge_time(raw, trust_root(), {NONCE}).accepted
