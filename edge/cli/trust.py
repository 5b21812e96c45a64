"""`edge key`, `edge root` and `edge job sign|cosign`: what a key holder does, far from any machine."""

from __future__ import annotations

import argparse
import hashlib
import json
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from edge.errors import RootError, UsageError
from edge.model.fields import problem_of, time_text
from edge.model.order import JobOrder, parse_order
from edge.trust.bundle import check_files, read_envelope, replace_envelope, write_bundle
from edge.trust.envelope import MAX_ENVELOPE_BYTES, Envelope, PayloadType, add_signature, parse
from edge.trust.files import replace_file, write_new
from edge.trust.keys import PRIVATE_SUFFIX, PUBLIC_SUFFIX, PublicKey, create_key, load_private_key, load_public_key
from edge.trust.keys import public_bytes as public_bytes_of
from edge.trust.root import Role, TrustRoot, read_root, root_bytes
from edge.trust.signing import new_job_id, order_from_file, sign_order, take_sequence

_ZIP_MAGIC = b"PK"
_LIMITS = ("processes", "sites")


def print_json(document: Mapping[str, object]) -> None:
    """The one JSON document of a command."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_field(label: str, text: str) -> None:
    """One labelled line, continued under its text where it is longer than a terminal is wide."""
    print(textwrap.fill(text, width=80, initial_indent=f"  {label:<11}", subsequent_indent=" " * 13))


def read_signed_file(path: Path) -> tuple[bytes, bool]:
    """The envelope's bytes in `path`, and whether it is a bundle."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if raw.startswith(_ZIP_MAGIC):
        return read_envelope(path), True
    return raw, False


def key_new(args: argparse.Namespace) -> int:
    """`edge key new`."""
    path, public = create_key(args.name, args.out)
    public_path = path.with_suffix(PUBLIC_SUFFIX)
    if args.json:
        print_json(_key_document(public) | {"private_file": str(path), "public_file": str(public_path)})
    else:
        print(f"private key  {path}  (mode 0600: keep it to yourself)")
        print(f"public key   {public_path}  (goes into a trust root)")
        print(f"key id       {public.keyid}")
    return 0


def key_show(args: argparse.Namespace) -> int:
    """`edge key show`."""
    path: Path = args.file
    if path.suffix == PRIVATE_SUFFIX:
        public = PublicKey(path.stem, public_bytes_of(load_private_key(path)))
    else:
        public = load_public_key(path)
    if args.json:
        print_json(_key_document(public) | {"file": str(path)})
    else:
        print(f"name       {public.name}")
        print("algorithm  ed25519")
        print(f"public     {public.public.hex()}")
        print(f"key id     {public.keyid}")
    return 0


def _key_document(public: PublicKey) -> dict[str, object]:
    return {"name": public.name, "algorithm": "ed25519", "public": public.public.hex(), "keyid": public.keyid}


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
    key = load_private_key(args.key)
    envelope = add_signature(envelope, key)
    # A later version is also signed by root keys of the version before, which need not be in this one.
    if root.version == 1 and envelope.signatures[-1].keyid not in root.roles[Role.ROOT].keyids:
        raise UsageError(f"{args.key} has no part in the role 'root' of {args.file}, its signature would not count")
    _replace(args.file, envelope.to_bytes())
    return _tell_root(args, root, envelope)


def root_show(args: argparse.Namespace) -> int:
    """`edge root show`; 1 while signatures are missing."""
    root, envelope = _read_root_file(args.file)
    _tell_root(args, root, envelope)
    return 0 if len(root.verify(Role.ROOT, envelope)) >= root.roles[Role.ROOT].threshold else 1


def _read_root_file(path: Path) -> tuple[TrustRoot, Envelope]:
    raw, _ = read_signed_file(path)
    try:
        return read_root(raw)
    except RootError as error:
        raise RootError(f"{path}: {error}") from error


def _tell_root(args: argparse.Namespace, root: TrustRoot, envelope: Envelope) -> int:
    path: Path = args.out if "out" in args else args.file
    signers = sorted(root.verify(Role.ROOT, envelope), key=lambda key: key.name)
    missing = max(0, root.roles[Role.ROOT].threshold - len(signers))
    if args.json:
        signed_by = [{"name": key.name, "keyid": key.keyid} for key in signers]
        document = root.model_dump(mode="json")
        print_json(
            {"file": str(path), "root": document, "signed_by": signed_by, "missing": missing, "valid": not missing}
        )
        return 0
    print(f"{path}: trust root of {root.name}, version {root.version}")
    print(f"  issued   {time_text(root.issued_at)}, expires {_time_or_never(root.expires_at)}")
    for role, rule in root.roles.items():
        print(f"  {role:<10} {rule.threshold} of {len(rule.keyids)}")
        for keyid in rule.keyids:
            print(f"    {root.keys[keyid].name:<32} {keyid[:16]}…{_remarks(root, keyid)}")
    print(f"  signed by {', '.join(key.name for key in signers) or 'nobody'}")
    print(f"  needs {missing} more of the root keys: edge root sign {path} --key …" if missing else "  complete")
    return 0


def _time_or_never(time: datetime | None) -> str:
    return time_text(time) if time else "never"


def _remarks(root: TrustRoot, keyid: str) -> str:
    key = root.keys[keyid]
    remarks = [f"only {', '.join(limit)}" for limit in (key.processes, key.sites) if limit is not None]
    if keyid in root.revoked:
        remarks.append("revoked: " + root.revoked[keyid].reason)
    return f"  ({'; '.join(remarks)})" if remarks else ""


def job_sign(args: argparse.Namespace) -> int:
    """`edge job sign`."""
    path: Path = args.file
    out: Path = args.out or path.with_suffix(".mfjob")
    keys = [load_private_key(key_path) for key_path in args.key]
    public_path = args.key[0].with_suffix(PUBLIC_SUFFIX)
    issuer = load_public_key(public_path).name if public_path.exists() else None
    now = datetime.now(UTC).replace(microsecond=0)
    series, sequence = take_sequence(args.key[0])
    made = order_from_file(path, job_id=new_job_id(now), series=series, sequence=sequence, now=now, issuer=issuer)
    raw = sign_order(made.order, keys)
    write_bundle(out, raw, made.files)
    return _tell_order(args, out, made.order, raw)


def job_cosign(args: argparse.Namespace) -> int:
    """`edge job cosign`."""
    path: Path = args.file
    raw, is_bundle = read_signed_file(path)
    envelope = parse(raw)
    if envelope.payload_type != PayloadType.JOB:
        raise UsageError(f"{path} is of type '{envelope.payload_type}', must be a job order")
    order = parse_order(envelope.payload)
    if is_bundle:
        for name, problem in check_files(path, order).items():
            if problem:
                raise UsageError(f"{path}: {name} {problem}; not signed")
    raw = add_signature(envelope, load_private_key(args.key)).to_bytes()
    if is_bundle:
        replace_envelope(path, raw)
    else:
        _replace(path, raw)
    return _tell_order(args, path, order, raw)


def _replace(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def _tell_order(args: argparse.Namespace, path: Path, order: JobOrder, raw: bytes) -> int:
    keyids = [signature.keyid for signature in parse(raw).signatures]
    if args.json:
        print_json(order_document(order) | {"file": str(path), "digest": _sha256(raw), "keyids": keyids})
        return 0
    print(f"{path}: job {order.job_id}")
    print_order(order)
    short = ", ".join(f"{keyid[:16]}…" for keyid in keyids)
    print_field("signed", f"by {len(keyids)} key{'s' if len(keyids) > 1 else ''}: {short}")
    return 0


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def order_document(order: JobOrder) -> dict[str, object]:
    """What every command tells of an order in JSON."""
    return {
        "job_id": order.job_id,
        "site": order.site,
        "issuer": order.issuer,
        "product": order.product,
        "quantity": order.quantity,
        "series": order.series,
        "sequence": order.sequence,
        "issued_at": time_text(order.issued_at),
        "expires_at": time_text(order.expires_at),
        "artifacts": {
            name: {"sha256": artifact.sha256, "size_bytes": artifact.size_bytes}
            for name, artifact in order.artifacts.items()
        },
    }


def print_order(order: JobOrder) -> None:
    """The lines that tell a person what an order asks for."""
    print(f"  product    {order.product}, {order.quantity} of it, at {order.site}")
    print(f"  issuer     {order.issuer}, number {order.sequence} of series {order.series[:8]}…")
    print_field("steps", ", ".join(f"{step.id} ({step.process})" for step in order.steps))
    for name, artifact in order.artifacts.items():
        print(f"  file       {name}, {artifact.size_bytes:,} bytes, {artifact.sha256[:16]}…")
    print(f"  expires    {time_text(order.expires_at)}")
