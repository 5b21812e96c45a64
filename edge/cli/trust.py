"""`edge key`, `edge job sign|cosign` and `edge command sign`: what a key holder does, far from any machine."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import json
import sys
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from edge.errors import UsageError
from edge.files import replace_file
from edge.model.command import Command
from edge.model.fields import problem_of, time_text
from edge.model.order import JobOrder, parse_order
from edge.trust.bundle import check_files, read_envelope, replace_envelope, write_bundle
from edge.trust.envelope import MAX_ENVELOPE_BYTES, PayloadType, add_signature, parse
from edge.trust.keys import (
    PRIVATE_SUFFIX,
    PUBLIC_SUFFIX,
    PublicKey,
    create_key,
    load_private_key,
    load_public_key,
    read_passphrase,
)
from edge.trust.keys import public_bytes as public_bytes_of
from edge.trust.signing import new_job_id, order_from_file, sign_command, sign_order, take_sequence

_ZIP_MAGIC = b"PK"


def opened(args: argparse.Namespace, path: Path) -> Ed25519PrivateKey:
    """The private key in `path`; asks for its passphrase if it is under one."""
    return load_private_key(path, lambda: _passphrase(args, f"passphrase of {path}: "))


def _passphrase(args: argparse.Namespace, prompt: str) -> bytes:
    """From --passphrase-file, or from the person at the terminal."""
    path: Path | None = args.passphrase_file
    if path is not None:
        return read_passphrase(path)
    if not sys.stdin.isatty():
        raise UsageError("a passphrase is needed, and nobody is at a terminal to be asked: --passphrase-file FILE")
    return getpass.getpass(prompt).encode()


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
    path, public = create_key(args.name, args.out, _new_passphrase(args))
    public_path = path.with_suffix(PUBLIC_SUFFIX)
    if args.json:
        print_json(_key_document(public) | {"private_file": str(path), "public_file": str(public_path)})
    else:
        print(f"private key  {path}  (mode 0600: keep it to yourself)")
        print(f"public key   {public_path}  (goes into a trust root)")
        print(f"key id       {public.keyid}")
    return 0


def _new_passphrase(args: argparse.Namespace) -> bytes | None:
    """Asked twice at a terminal, since a slip of the finger would lose the key."""
    if args.passphrase_file is None and not args.passphrase:
        return None
    first = _passphrase(args, "new passphrase: ")
    if args.passphrase_file is None and _passphrase(args, "once more: ") != first:
        raise UsageError("the two passphrases differ; no key was made")
    return first


def key_show(args: argparse.Namespace) -> int:
    """`edge key show`."""
    path: Path = args.file
    if path.suffix == PRIVATE_SUFFIX:
        public = PublicKey(path.stem, public_bytes_of(opened(args, path)))
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


def job_sign(args: argparse.Namespace) -> int:
    """`edge job sign`."""
    path: Path = args.file
    out: Path = args.out or path.with_suffix(".mfjob")
    keys = [opened(args, key_path) for key_path in args.key]
    issuer = _name_of(args.key[0])
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
    raw = add_signature(envelope, opened(args, args.key)).to_bytes()
    if is_bundle:
        replace_envelope(path, raw)
    else:
        replaced(path, raw)
    return _tell_order(args, path, order, raw)


def command_sign(args: argparse.Namespace) -> int:
    """`edge command sign`."""
    issuer = args.issuer or _name_of(args.key[0])
    if issuer is None:
        raise UsageError(f"whose key is {args.key[0]}? Put its .pub file beside it, or name the key with --issuer")
    now = datetime.now(UTC).replace(microsecond=0)
    document = {
        "command_id": new_job_id(now),
        "site": args.site,
        "issuer": issuer,
        "issued_at": now,
        "expires_at": now + timedelta(minutes=args.minutes),
        "verb": args.verb,
        "job_id": args.job,
        "machine": args.machine,
        "run_id": args.run,
        "if_revision": args.if_revision,
        "reason": args.reason,
    }
    try:
        command = Command.model_validate(document)
    except ValidationError as error:
        raise UsageError(problem_of(error, "the command")) from error
    raw = sign_command(command, [opened(args, path) for path in args.key])
    replaced(args.out, raw)
    keyids = [signature.keyid for signature in parse(raw).signatures]
    if args.json:
        document = command.model_dump(mode="json")
        print_json({"file": str(args.out), "digest": _sha256(raw), "keyids": keyids, "command": document})
        return 0
    what = command.job_id or command.machine
    print(f"{args.out}: {command.verb} {what} at {command.site}")
    print(f"  command  {command.command_id}, by {command.issuer}")
    print(f"  expires  {time_text(command.expires_at)}")
    return 0


def _name_of(key_path: Path) -> str | None:
    """The name in the public file beside a private key."""
    public_path = key_path.with_suffix(PUBLIC_SUFFIX)
    return load_public_key(public_path).name if public_path.exists() else None


def replaced(path: Path, content: bytes) -> None:
    """Write a file whole, over what was there."""
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
    print_field("product", f"{order.product}, {order.quantity} of it, at {order.site}")
    print_field("issuer", f"{order.issuer}, number {order.sequence} of series {order.series[:8]}…")
    print_field("steps", ", ".join(f"{step.id} ({step.process})" for step in order.steps))
    for name, artifact in order.artifacts.items():
        print_field("file", f"{name}, {artifact.size_bytes:,} bytes, {artifact.sha256[:16]}…")
    print(f"  expires    {time_text(order.expires_at)}")
