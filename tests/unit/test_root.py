"""Trust roots: what can be trusted, whose signatures count, and what follows what."""

from __future__ import annotations

import json

import pytest

from edge.errors import RootError
from edge.trust.ed25519 import keyid_of
from edge.trust.envelope import Envelope, PayloadType, Signature, parse, sign
from edge.trust.keys import public_bytes
from edge.trust.root import Role, TrustRoot, load_root, read_root, root_bytes, verify_successor
from tests.helpers.trust import keyid, private_key, root_document, signed_root

JOB = PayloadType.JOB


def names(keys) -> set[str]:
    return {key.name for key in keys}


def issuers(threshold: int = 2, **fields: object) -> TrustRoot:
    return TrustRoot.model_validate(root_document(issuers=("a", "b", "c"), threshold=threshold, **fields))


def signed_by(*signers: str, payload: bytes = b"p", kind: str = JOB) -> Envelope:
    return parse(sign(kind, payload, [private_key(name) for name in signers]))


def with_public(public: bytes, *, claimed: str | None = None) -> dict:
    document = root_document()
    key = {"name": "odd", "algorithm": "ed25519", "public": public.hex(), "processes": None, "sites": None}
    document["keys"][claimed or keyid_of(public)] = key
    return document


def test_a_root_signed_by_its_own_root_keys_is_loaded():
    root = load_root(signed_root(root_document()))
    assert root.version == 1
    assert root.threshold(Role.ISSUER) == 1
    assert root.threshold(Role.TIME) is None
    assert root.keys[keyid("root-1")].keyid == keyid("root-1")


def test_a_root_comes_back_from_its_bytes():
    root = TrustRoot.model_validate(root_document(revoked=("orders@acme",), expires_at="2027-01-01T00:00:00Z"))
    raw = sign(PayloadType.ROOT, root_bytes(root), [private_key("root-1")])
    assert load_root(raw) == root


def test_an_unsigned_root_can_be_read_but_not_loaded():
    raw = signed_root(root_document(), signers=())
    assert read_root(raw)[0].name == "ACME"
    with pytest.raises(RootError, match="has 0 valid signatures of the root keys of version 1, must have 1"):
        load_root(raw)


def test_a_root_signed_by_too_few_is_refused():
    document = root_document(roots=("r1", "r2", "r3"), root_threshold=2)
    with pytest.raises(RootError, match="has 1 valid signatures"):
        load_root(signed_root(document, ("r1", "orders@acme")))
    assert load_root(signed_root(document, ("r1", "r3"))).version == 1


def test_a_root_signed_by_a_key_it_revokes_is_refused():
    document = root_document(roots=("r1", "r2"), revoked=("r1",))
    with pytest.raises(RootError, match="has 0 valid"):
        load_root(signed_root(document, ("r1",)))


def test_an_envelope_of_another_type_is_no_root():
    raw = sign(JOB, json.dumps(root_document()).encode(), [private_key("root-1")])
    with pytest.raises(RootError, match=r"payload type is 'application/vnd\.mf-edge\.job"):
        load_root(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", sign(PayloadType.ROOT, b"[]", []), sign(PayloadType.ROOT, b'{"a":1,"a":1}', [])]
)
def test_bytes_that_are_no_root_are_refused(raw):
    with pytest.raises(RootError):
        load_root(raw)


def two_roles_with(role: dict) -> dict:
    return root_document()["roles"] | {"issuer": role}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (root_document(colour=1), "colour is an unknown field"),
        (root_document(version=0), "version is 0"),
        (root_document(expires_at="2025-01-01T00:00:00Z"), "expires_at is not after issued_at"),
        (with_public(public_bytes(private_key("odd")), claimed="0" * 64), "is not the hash of its key 'odd', must be"),
        (with_public(public_bytes(private_key("root-1")), claimed="1" * 64), "is not the hash of its key"),
        (with_public((1).to_bytes(32, "little")), "public key of 'odd' is a point of small order"),
        (with_public(b"\xee" + b"\xff" * 30 + b"\x7f"), "small order"),
        (with_public(b"\xf0" + b"\xff" * 30 + b"\x7f"), "canonical"),
        (root_document(roles={}), "roles has no 'root'"),
        (root_document(roles={"king": {"threshold": 1, "keyids": [keyid("root-1")]}}), "the key roles.king"),
        (root_document(roles=two_roles_with({"threshold": 1, "keyids": ["0" * 64]})), "not in 'keys'"),
        (root_document(roles=two_roles_with({"threshold": 1, "keyids": []})), "at least 1 item"),
        (root_document(roles=two_roles_with({"threshold": 0, "keyids": [keyid("root-1")]})), "threshold is 0"),
        (root_document(threshold=2), "role 'issuer' has threshold 2 and 1 usable keys"),
        (root_document(roots=("r1", "r2"), root_threshold=2, revoked=("r1",)), "role 'root' has threshold 2 and 1"),
        (
            root_document(roles=two_roles_with({"threshold": 2, "keyids": [keyid("root-1")] * 2})),
            "role 'issuer' names a key twice",
        ),
        (root_document(limits={"orders@acme": {"processes": []}}), "at least 1 item"),
        (root_document(limits={"orders@acme": {"algorithm": "rsa"}}), "algorithm is 'rsa', must be 'ed25519'"),
    ],
)
def test_a_root_that_breaks_a_rule_is_refused_in_words(document, says):
    with pytest.raises(RootError, match=says):
        load_root(signed_root(document))


def test_all_keys_of_an_issuer_may_be_revoked():
    assert (
        load_root(signed_root(root_document(revoked=("orders@acme",)))).verify(Role.ISSUER, signed_by("orders@acme"))
        == set()
    )


def test_distinct_keys_of_the_role_are_counted():
    assert names(issuers().verify(Role.ISSUER, signed_by("a", "b"))) == {"a", "b"}
    assert names(issuers().verify(Role.ISSUER, signed_by("a", "root-1", "stranger"))) == {"a"}


def test_nobody_signs_for_a_role_that_nobody_holds():
    assert issuers().verify(Role.TIME, signed_by("a")) == set()


def test_one_key_under_two_key_ids_counts_once():
    envelope = signed_by("a")
    sig = envelope.signatures[0].sig
    many = Envelope(JOB, b"p", tuple(Signature(name, sig) for name in (keyid("a"), keyid("b"), "other", keyid("a"))))
    assert names(issuers().verify(Role.ISSUER, many)) == {"a"}


def test_a_key_id_is_a_hint_and_no_proof():
    lie = Envelope(JOB, b"p", (Signature(keyid("b"), signed_by("a").signatures[0].sig),))
    assert issuers().verify(Role.ISSUER, lie) == set()


def test_a_bad_signature_before_a_good_one_of_the_same_key_does_no_harm():
    good = signed_by("a").signatures[0]
    envelope = Envelope(JOB, b"p", (Signature(keyid("a"), bytes(64)), good))
    assert names(issuers().verify(Role.ISSUER, envelope)) == {"a"}


def test_a_signature_over_another_type_does_not_count():
    sig = signed_by("a", kind=PayloadType.COMMAND).signatures[0]
    assert issuers().verify(Role.ISSUER, Envelope(JOB, b"p", (sig,))) == set()


def test_a_revoked_key_signed_but_does_not_count():
    root = issuers(revoked=("a",))
    assert names(root.signers(Role.ISSUER, signed_by("a", "b"))) == {"a", "b"}
    assert names(root.verify(Role.ISSUER, signed_by("a", "b"))) == {"b"}


OLD = root_document(roots=("r1", "r2", "r3"), root_threshold=2)
NEXT = root_document(roots=("r3", "r4"), root_threshold=2, version=2)


def test_the_next_root_needs_the_thresholds_of_both():
    old = load_root(signed_root(OLD, ("r1", "r2")))
    assert verify_successor(old, signed_root(NEXT, ("r1", "r3", "r4"))).version == 2
    with pytest.raises(RootError, match="has 1 valid signatures of the root keys of version 1, must have 2"):
        verify_successor(old, signed_root(NEXT, ("r3", "r4")))
    with pytest.raises(RootError, match="has 1 valid signatures of the root keys of version 2, must have 2"):
        verify_successor(old, signed_root(NEXT, ("r1", "r2", "r3")))


@pytest.mark.parametrize("version", [1, 3])
def test_roots_follow_each_other_without_gap_and_never_back(version):
    old = load_root(signed_root(OLD, ("r1", "r2")))
    with pytest.raises(RootError, match=f"has version {version}, must have 2"):
        verify_successor(old, signed_root(NEXT | {"version": version}, ("r1", "r3", "r4")))


def test_the_root_of_somebody_else_does_not_follow():
    old = load_root(signed_root(OLD, ("r1", "r2")))
    with pytest.raises(RootError, match="is that of 'Other', must be that of 'ACME'"):
        verify_successor(old, signed_root(NEXT | {"name": "Other"}, ("r1", "r3", "r4")))
