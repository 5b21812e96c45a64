"""`edge root`: the ceremonies of a trust root, and handing the result to a site."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from edge import sitefile
from edge.cli.text import WIDTH
from edge.cli.trust import opened, print_field, print_json, read_signed_file, replaced
from edge.errors import RootError, UsageError
from edge.files import write_new
from edge.journal.schema import FILE_NAME
from edge.model.fields import parse_time, problem_of, time_text
from edge.reading.views import open_readonly
from edge.trust.ceremony import add_keys, find_key, replace_key, revoke_key
from edge.trust.envelope import Envelope, PayloadType, add_signature
from edge.trust.keys import PublicKey, load_public_key
from edge.trust.root import (
    Role,
    RootKey,
    TrustRoot,
    load_root,
    read_root,
    root_bytes,
    verify_successor,
)

_LIMITS = ("processes", "sites")


def root_new(args: argparse.Namespace) -> int:
    """`edge root new`."""
    given: dict[Role, list[Path]] = {role: vars(args)[role.value] for role in Role}
    keys = {path: load_public_key(path) for paths in given.values() for path in paths}
    limits = _limits(args.limit, {key.name for key in keys.values()})
    thresholds = _thresholds(args.threshold, {role for role, paths in given.items() if paths})
    document = {
        "version": 1,
        "name": args.name,
        "issued_at": time_text(datetime.now(UTC).replace(microsecond=0)),
        "expires_at": args.expires_at,
        "keys": {
            key.keyid: {"name": key.name, "algorithm": "ed25519", "public": key.public.hex()} | limits.get(key.name, {})
            for key in keys.values()
        },
        "roles": {
            role.value: {"threshold": thresholds.get(role, 1), "keyids": [keys[path].keyid for path in paths]}
            for role, paths in given.items()
            if paths
        },
    }
    try:
        root = TrustRoot.model_validate(document)
    except ValidationError as error:
        raise RootError(problem_of(error, "the trust root")) from error
    return _written(args, root)


def root_add(args: argparse.Namespace) -> int:
    """`edge root add`."""
    old = _complete(args.file)
    given = {role: [load_public_key(path) for path in vars(args)[role.value]] for role in Role}
    limits = _limits(args.limit, {key.name for keys in given.values() for key in keys})
    added = {role: [_root_key(key, limits) for key in keys] for role, keys in given.items() if keys}
    thresholds = _thresholds(args.threshold, set(Role))
    if not added and not thresholds:
        raise UsageError("nothing is added; name keys, such as --issuer KEY.pub, or a --threshold")
    return _written(args, add_keys(old, added, thresholds, at=_now(), expires_at=_expiry(args, old)))


def root_rotate(args: argparse.Namespace) -> int:
    """`edge root rotate`."""
    old = _complete(args.file)
    successor = _root_key(load_public_key(args.new), {})
    keyid = find_key(old, args.old)
    return _written(args, replace_key(old, keyid, successor, at=_now(), expires_at=_expiry(args, old)))


def root_revoke(args: argparse.Namespace) -> int:
    """`edge root revoke`."""
    old = _complete(args.file)
    following = revoke_key(
        old,
        find_key(old, args.key),
        compromise=args.compromise,
        reason=args.reason,
        at=_now(),
        expires_at=_expiry(args, old),
    )
    return _written(args, following)


def _complete(path: Path) -> TrustRoot:
    """A root that its own root keys have signed: what another one can follow."""
    try:
        return load_root(read_signed_file(path)[0])
    except RootError as error:
        raise RootError(f"{path}: {error}") from error


def _root_key(key: PublicKey, limits: dict[str, dict[str, list[str]]]) -> RootKey:
    document = {"name": key.name, "public": key.public.hex()} | limits.get(key.name, {})
    try:
        return RootKey.model_validate(document)
    except ValidationError as error:
        raise RootError(problem_of(error, "the key")) from error


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _expiry(args: argparse.Namespace, old: TrustRoot) -> datetime | None:
    """As --expires-at says; without it, as before."""
    if args.expires_at is None:
        return old.expires_at
    if args.expires_at == "never":
        return None
    try:
        return parse_time(args.expires_at)
    except PydanticCustomError as error:
        raise UsageError(f"--expires-at is '{args.expires_at}', {error.message()}, or 'never'") from error


def _written(args: argparse.Namespace, root: TrustRoot) -> int:
    envelope = Envelope(PayloadType.ROOT, root_bytes(root), ())
    try:
        write_new(args.out, envelope.to_bytes(), mode=0o644)
    except FileExistsError as error:
        raise UsageError(f"{args.out} is there already and is not overwritten; choose another name") from error
    except OSError as error:
        raise UsageError(f"cannot write {args.out}: {error.strerror}") from error
    return _tell_root(args, root, envelope)


def _thresholds(texts: list[str], roles: set[Role]) -> dict[Role, int]:
    thresholds = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in {role.value for role in roles} or not (number.isascii() and number.isdigit()):
            raise UsageError(f"--threshold is '{text}', must be ROLE=N of a role with keys, such as issuer=2")
        thresholds[Role(name)] = int(number)
    return thresholds


def _limits(texts: list[str], names: set[str]) -> dict[str, dict[str, list[str]]]:
    limits: dict[str, dict[str, list[str]]] = {}
    for text in texts:
        name, _, limit = text.partition(":")
        what, _, values = limit.partition("=")
        if name not in names or what not in _LIMITS or not values:
            raise UsageError(f"--limit is '{text}', must be like orders@acme:processes=fdm,mill with the name of a key")
        limits.setdefault(name, {})[what] = values.split(",")
    return limits


def root_sign(args: argparse.Namespace) -> int:
    """`edge root sign`."""
    root, envelope = _read_root_file(args.file)
    envelope = add_signature(envelope, opened(args, args.key))
    # A later version is also signed by root keys of the version before, which need not be in this one.
    if root.version == 1 and envelope.signatures[-1].keyid not in root.roles[Role.ROOT].keyids:
        raise UsageError(f"{args.key} has no part in the role 'root' of {args.file}, its signature would not count")
    replaced(args.file, envelope.to_bytes())
    return _tell_root(args, root, envelope)


def root_show(args: argparse.Namespace) -> int:
    """`edge root show`; 1 while signatures are missing."""
    in_force = args.file is None
    if in_force:
        args.file, raw = _in_force(args)
        root, envelope = read_root(raw)
    else:
        root, envelope = _read_root_file(args.file)
    _tell_root(args, root, envelope, follows=in_force)
    complete = len(root.verify(Role.ROOT, envelope)) >= root.roles[Role.ROOT].threshold
    return 1 if not complete or _why_not_after(args, envelope) else 0


def _why_not_after(args: argparse.Namespace, envelope: Envelope) -> str | None:
    """Why the root does not follow the one named with --after; empty if it does, None if none is named."""
    if vars(args).get("after") is None:
        return None
    try:
        verify_successor(_complete(args.after), envelope.to_bytes())
    except RootError as error:
        return str(error)
    return ""


def _in_force(args: argparse.Namespace) -> tuple[Path, bytes]:
    """The root that the site's journal has, and the journal's place."""
    state_dir = sitefile.read(sitefile.find(args.config)).state_dir
    with open_readonly(state_dir) as snapshot:
        found = snapshot.root_in_force()
    if found is None:
        raise UsageError(f"the journal in {state_dir} has no trust root yet; name a file")
    return state_dir / FILE_NAME, found["envelope"]


def _read_root_file(path: Path) -> tuple[TrustRoot, Envelope]:
    raw, _ = read_signed_file(path)
    try:
        return read_root(raw)
    except RootError as error:
        raise RootError(f"{path}: {error}") from error


def _tell_root(args: argparse.Namespace, root: TrustRoot, envelope: Envelope, *, follows: bool = False) -> int:
    """What a root says; nobody needs to look whether one that is in force `follows` the version before."""
    path: Path = args.out if "out" in args else args.file
    signers = sorted(root.verify(Role.ROOT, envelope), key=lambda key: key.name)
    missing = max(0, root.roles[Role.ROOT].threshold - len(signers))
    problem = _why_not_after(args, envelope)
    if args.json:
        signed_by = [{"name": key.name, "keyid": key.keyid} for key in signers]
        document = root.model_dump(mode="json")
        print_json(
            {
                "file": str(path),
                "root": document,
                "signed_by": signed_by,
                "missing": missing,
                "valid": not missing,
                "follows": None if problem is None else not problem,
            }
        )
        return 0
    print(f"{path}: trust root of {root.name}, version {root.version}")
    print(f"  issued   {time_text(root.issued_at)}, expires {_time_or_never(root.expires_at)}")
    for role, rule in root.roles.items():
        print(f"  {role:<10} {rule.threshold} of {len(rule.keyids)}")
        for keyid in rule.keyids:
            line, remarks = f"    {root.keys[keyid].name:<32} {keyid[:16]}…", _remarks(root, keyid)
            if len(line + remarks) <= WIDTH:
                print(line + remarks)
            else:
                print(line, fill(remarks.strip(), WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6), sep="\n")
    print(f"  signed by {', '.join(key.name for key in signers) or 'nobody'}")
    print(f"  needs {missing} more of the root keys: edge root sign {path} --key …" if missing else "  complete")
    if problem:
        print_field("problem", f"does not follow {args.after}: {problem}")
    elif problem == "":
        print(f"  follows {args.after}")
    elif root.version > 1 and not follows:
        print(f"  version {root.version - 1}'s root keys sign it too; whether they have:")
        print(f"    edge root show {path} --after FILE")
    return 0


def _time_or_never(time: datetime | None) -> str:
    return time_text(time) if time else "never"


def _remarks(root: TrustRoot, keyid: str) -> str:
    key = root.keys[keyid]
    remarks = [f"only {', '.join(limit)}" for limit in (key.processes, key.sites) if limit is not None]
    if keyid in root.revoked:
        remarks.append("revoked: " + root.revoked[keyid].reason)
    return f"  ({'; '.join(remarks)})" if remarks else ""
