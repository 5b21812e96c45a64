"""The next version of a root: what each ceremony changes, and what it leaves as it is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from edge.errors import RootError
from edge.trust import (
    PayloadType,
    Role,
    RootKey,
    TrustRoot,
    add_keys,
    find_key,
    public_bytes,
    replace_key,
    revoke_key,
    root_bytes,
    sign,
    verify_successor,
)
from tests.helpers.trust import ISSUER, keyid, private_key, root_document

WHEN = {"at": datetime(2026, 12, 1, tzinfo=UTC), "expires_at": None}


def made(**fields: object) -> TrustRoot:
    return TrustRoot.model_validate(root_document(roots=("root-1", "root-2"), **fields))


def key(name: str, **limits: object) -> RootKey:
    return RootKey.model_validate({"name": name, "public": public_bytes(private_key(name)).hex()} | limits)


def assert_follows(old: TrustRoot, new: TrustRoot) -> None:
    raw = sign(PayloadType.ROOT, root_bytes(new), [private_key(name) for name in ("root-1", "root-2")])
    assert verify_successor(old, raw) == new
    assert (new.version, new.issued_at, new.name) == (old.version + 1, WHEN["at"], old.name)


def test_a_key_is_added_to_a_role_that_is_held_and_to_one_that_is_not():
    old = made()
    new = add_keys(old, {Role.ISSUER: [key("b", sites=["x"])], Role.OPERATOR: [key("b")]}, {Role.ISSUER: 2}, **WHEN)
    assert_follows(old, new)
    assert new.roles[Role.ISSUER].keyids == (keyid(ISSUER), keyid("b"))
    assert (new.roles[Role.ISSUER].threshold, new.roles[Role.OPERATOR].threshold) == (2, 1)
    assert new.keys[keyid("b")].sites == ("x",)
    assert new.keys[keyid(ISSUER)] == old.keys[keyid(ISSUER)]


def test_a_threshold_alone_may_change():
    assert add_keys(made(), {}, {Role.ROOT: 2}, **WHEN).roles[Role.ROOT].threshold == 2


@pytest.mark.parametrize(
    ("added", "thresholds", "says"),
    [
        ({Role.ISSUER: [key(ISSUER)]}, {}, "holds the role 'issuer' already"),
        ({Role.TIME: [key("gone")]}, {}, "is revoked, and a revoked key never comes back"),
        ({}, {Role.TIME: 1}, "nobody holds the role 'time'"),
        ({}, {Role.ISSUER: 9}, "can never be reached"),
        ({}, {Role.ISSUER: 0}, "threshold is 0"),
        ({Role.TIME: []}, {}, "roles.time.keyids"),
    ],
)
def test_what_cannot_be_added_is_said(added, thresholds, says):
    old = made(issuers=(ISSUER, "gone"), revoked=("gone",))
    with pytest.raises(RootError, match=says):
        add_keys(old, added, thresholds, **WHEN)


def test_a_key_is_replaced_in_all_its_roles_with_its_limits():
    old = made(operators=(ISSUER,), limits={ISSUER: {"sites": ["berlin-1"]}})
    new = replace_key(old, keyid(ISSUER), key("new"), **WHEN)
    assert_follows(old, new)
    assert keyid(ISSUER) not in new.keys
    assert new.roles[Role.ISSUER].keyids == new.roles[Role.OPERATOR].keyids == (keyid("new"),)
    assert new.keys[keyid("new")].sites == ("berlin-1",)


def test_a_key_is_not_replaced_by_one_that_is_there_or_was_revoked():
    old = made(issuers=(ISSUER, "gone"), revoked=("gone",))
    for name in (ISSUER, "gone", "root-1"):
        with pytest.raises(RootError, match="is in the trust root already"):
            replace_key(old, keyid(ISSUER), key(name), **WHEN)


def test_a_key_is_revoked_and_that_may_become_worse_only():
    old = made()
    new = revoke_key(old, keyid(ISSUER), compromise=False, reason="left", **WHEN)
    assert_follows(old, new)
    assert (new.revoked[keyid(ISSUER)].compromise, new.revoked[keyid(ISSUER)].reason) == (False, "left")
    worse = revoke_key(new, keyid(ISSUER), compromise=True, reason="stolen", **WHEN)
    assert worse.revoked[keyid(ISSUER)].compromise
    for known, compromise in ((new, False), (worse, True), (worse, False)):
        with pytest.raises(RootError, match="is revoked already"):
            revoke_key(known, keyid(ISSUER), compromise=compromise, reason="again", **WHEN)


def test_a_root_that_nobody_could_follow_is_not_made():
    old = made(root_threshold=2)
    with pytest.raises(RootError, match="role 'root' has threshold 2 and 1 usable keys"):
        revoke_key(old, keyid("root-1"), compromise=True, reason="stolen", **WHEN)
    with pytest.raises(RootError, match="printable"):
        revoke_key(old, keyid(ISSUER), compromise=True, reason="\x1b", **WHEN)


def test_a_key_is_found_by_its_name_or_the_beginning_of_its_id():
    root = made()
    assert find_key(root, ISSUER) == find_key(root, keyid(ISSUER)[:8]) == keyid(ISSUER)
    with pytest.raises(RootError, match=f"has no key 'x', must be one of: {ISSUER}, root-1, root-2"):
        find_key(root, "x")
    with pytest.raises(RootError, match="has no key"):
        find_key(root, keyid(ISSUER)[:7])
    document = root_document(issuers=("a", "b"))
    document["keys"][keyid("b")]["name"] = "a"
    with pytest.raises(RootError, match="has 2 keys 'a'"):
        find_key(TrustRoot.model_validate(document), "a")
