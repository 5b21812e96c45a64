"""The next version of a trust root, still unsigned: a key added, replaced or revoked. Pure.

Every function takes a root and gives the one that follows, with `version` one higher and all rules checked. Whoever
signs it is asked by `edge.trust.root.verify_successor`: the thresholds of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import ValidationError

from edge.errors import RootError
from edge.model.fields import problem_of
from edge.trust.root import Revocation, Role, RoleRule, RootKey, TrustRoot


def find_key(root: TrustRoot, wanted: str) -> str:
    """The id of the key that is called `wanted`, or whose id begins with it (8 digits or more).

    Raises:
        RootError: there is none, or more than one.
    """
    named = [keyid for keyid, key in root.keys.items() if key.name == wanted]
    found = named or [keyid for keyid in root.keys if len(wanted) >= 8 and keyid.startswith(wanted)]
    if len(found) != 1:
        count = f"{len(found)} keys" if found else "no key"
        names = ", ".join(sorted({key.name for key in root.keys.values()}))
        raise RootError(f"the trust root has {count} '{wanted}', must be one of: {names}, or the beginning of a key id")
    return found[0]


def add_keys(
    root: TrustRoot,
    added: Mapping[Role, Iterable[RootKey]],
    thresholds: Mapping[Role, int],
    *,
    at: datetime,
    expires_at: datetime | None,
) -> TrustRoot:
    """`root` with more keys in its roles. A role that nobody held has threshold 1, unless `thresholds` says otherwise.

    Raises:
        RootError: a key holds the role already, or the result breaks a rule.
    """
    keys, roles = dict(root.keys), dict(root.roles)
    for role, newcomers in added.items():
        held = roles[role].keyids if role in roles else ()
        for key in newcomers:
            if key.keyid in held:
                raise RootError(f"key '{key.name}' holds the role '{role}' already")
            if key.keyid in root.revoked:
                raise RootError(f"key '{key.name}' is revoked, and a revoked key never comes back; make a new one")
            keys.setdefault(key.keyid, key)
            held = (*held, key.keyid)
        threshold = roles[role].threshold if role in roles else 1
        roles[role] = RoleRule.model_construct(threshold=threshold, keyids=held)
    for role, threshold in thresholds.items():
        if role not in roles:
            raise RootError(f"nobody holds the role '{role}', so it can have no threshold")
        roles[role] = roles[role].model_copy(update={"threshold": threshold})
    return _next(root, at, expires_at, keys=keys, roles=roles)


def replace_key(
    root: TrustRoot, keyid: str, successor: RootKey, *, at: datetime, expires_at: datetime | None
) -> TrustRoot:
    """`root` with `successor` in the place of the key `keyid`: in all its roles, with its limits.

    Raises:
        RootError: the result breaks a rule.
    """
    if successor.keyid in root.keys or successor.keyid in root.revoked:
        raise RootError(f"key '{successor.name}' is in the trust root already, must be a new one")
    old = root.keys[keyid]
    limited = successor.model_copy(update={"processes": old.processes, "sites": old.sites})
    keys = {
        limited.keyid if name == keyid else name: limited if name == keyid else key for name, key in root.keys.items()
    }
    roles = {
        role: rule.model_copy(
            update={"keyids": tuple(limited.keyid if name == keyid else name for name in rule.keyids)}
        )
        for role, rule in root.roles.items()
    }
    return _next(root, at, expires_at, keys=keys, roles=roles)


def revoke_key(
    root: TrustRoot, keyid: str, *, compromise: bool, reason: str, at: datetime, expires_at: datetime | None
) -> TrustRoot:
    """`root` under which the signatures of the key `keyid` count no more.

    Raises:
        RootError: it is revoked already and `compromise` adds nothing, or the result breaks a rule.
    """
    known = root.revoked.get(keyid)
    if known is not None and (known.compromise or not compromise):
        raise RootError(f"key '{root.keys[keyid].name}' is revoked already: {known.reason}")
    entry = Revocation.model_construct(compromise=compromise, reason=reason)
    return _next(root, at, expires_at, revoked={**root.revoked, keyid: entry})


def _next(root: TrustRoot, at: datetime, expires_at: datetime | None, **changes: object) -> TrustRoot:
    following = root.model_copy(
        update={"version": root.version + 1, "issued_at": at, "expires_at": expires_at, **changes}
    )
    try:
        return TrustRoot.model_validate(following.model_dump(mode="json"))
    except ValidationError as error:
        raise RootError(problem_of(error, "the trust root")) from error
