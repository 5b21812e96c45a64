"""`edge verify FILE`: what a signed file is, who signed it, and whether it holds. Works anywhere, off line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from edge.cli.trust import order_document, print_field, print_json, print_order, read_signed_file
from edge.errors import BundleError, EnvelopeError, RootError, UsageError
from edge.model.order import JobOrder
from edge.trust.admit import verify_order
from edge.trust.bundle import check_files
from edge.trust.envelope import Envelope, PayloadType, parse
from edge.trust.root import ROLE_OF_TYPE, Role, TrustRoot, load_root, read_root, verify_successor


@dataclass(slots=True)
class _Finding:
    """`problems` is empty if the file holds."""

    kind: str
    payload_type: str
    signers: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    order: JobOrder | None = None
    files: dict[str, str | None] = field(default_factory=dict)


def verify(args: argparse.Namespace) -> int:
    """`edge verify`; 0 if the file holds, 2 if it does not."""
    path: Path = args.file
    raw, is_bundle = read_signed_file(path)
    try:
        envelope = parse(raw)
    except EnvelopeError as error:
        raise EnvelopeError(f"{path}: {error}") from error
    if envelope.payload_type == PayloadType.ROOT:
        finding = _root(raw, envelope, args.root)
    else:
        if args.root is None:
            raise UsageError(
                f"{path} is of type '{envelope.payload_type}'; name a trust root to verify it: --root FILE"
            )
        root = _load(args.root)
        if envelope.payload_type == PayloadType.JOB:
            finding = _job(path, raw, envelope, root, is_bundle)
        else:
            finding = _other(envelope, root)
    _tell(args, finding)
    return 2 if finding.problems else 0


def _load(path: Path) -> TrustRoot:
    try:
        return load_root(read_signed_file(path)[0])
    except RootError as error:
        raise RootError(f"{path}: {error}") from error


def _root(raw: bytes, envelope: Envelope, root_path: Path | None) -> _Finding:
    finding = _Finding("root", envelope.payload_type)
    try:
        root, _ = read_root(raw)
        finding.signers = sorted(key.name for key in root.verify(Role.ROOT, envelope))
        if root_path is None or read_signed_file(root_path)[0] == raw:
            load_root(raw)
        else:
            verify_successor(_load(root_path), raw)
    except RootError as error:
        finding.problems.append(str(error))
    return finding


def _job(path: Path, raw: bytes, envelope: Envelope, root: TrustRoot, is_bundle: bool) -> _Finding:
    verdict = verify_order(raw, root)
    finding = _Finding("bundle" if is_bundle else "envelope", PayloadType.JOB, order=verdict.order)
    # Also those who are too few: the next key holder wants to know who is missing.
    finding.signers = sorted(key.name for key in root.verify(Role.ISSUER, envelope))
    if not verdict.accepted:
        finding.problems.append(f"{verdict.reason}: {verdict.detail}")
    if is_bundle and verdict.order is not None:
        try:
            finding.files = check_files(path, verdict.order)
        except BundleError as error:
            finding.problems.append(str(error))
        finding.problems += [f"{name} {problem}" for name, problem in finding.files.items() if problem]
    return finding


def _other(envelope: Envelope, root: TrustRoot) -> _Finding:
    finding = _Finding("envelope", envelope.payload_type)
    role = next((role for kind, role in ROLE_OF_TYPE.items() if kind == envelope.payload_type), None)
    if role is None:
        finding.problems.append("no role of a trust root signs this type")
        return finding
    finding.signers = sorted(key.name for key in root.verify(role, envelope))
    threshold = root.threshold(role)
    if threshold is None or len(finding.signers) < threshold:
        needed = "nobody has this role" if threshold is None else f"needs {threshold}"
        finding.problems.append(f"{len(finding.signers)} valid signatures of the role '{role}', {needed}")
    return finding


def _tell(args: argparse.Namespace, finding: _Finding) -> None:
    order = finding.order
    expired = order is not None and datetime.now(UTC) >= order.expires_at
    if args.json:
        print_json(
            {
                "file": str(args.file),
                "kind": finding.kind,
                "payload_type": finding.payload_type,
                "valid": not finding.problems,
                "problems": finding.problems,
                "signers": finding.signers,
                "order": None if order is None else order_document(order) | {"expired": expired},
                "files": finding.files,
            }
        )
        return
    print(f"{args.file}: {finding.kind} of type {finding.payload_type}")
    if order is not None:
        print(f"  job        {order.job_id}")
        print_order(order)
    print_field("signed", f"by {', '.join(finding.signers) or 'nobody who may'}")
    if finding.files:
        print(f"  hashes     {sum(not problem for problem in finding.files.values())} of {len(finding.files)} match")
    if expired:
        print("  note       it has expired: no site starts it any more")
    for problem in finding.problems:
        print_field("problem", problem)
    print("  does not hold" if finding.problems else "  holds")
