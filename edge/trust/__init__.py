"""Signing and judging job orders. Public: an MES signs its orders with this.

    keys = [load_private_key(Path("orders@acme.key"))]
    raw = sign_order(parse_order(payload), keys)

Everything named in `__all__` stays as it is within a major version; the modules below may move.
"""

from edge.model.order import JobOrder, order_bytes, parse_order
from edge.replay import ReplayWindow
from edge.trust.admit import Claims, Ledger, Now, Reason, Snapshot, Verdict, admit, verify_order
from edge.trust.bundle import check_files, read_envelope, replace_envelope, write_bundle
from edge.trust.ed25519 import keyid_of
from edge.trust.envelope import Envelope, PayloadType, Signature, add_signature, pae, parse, sign
from edge.trust.keys import PublicKey, create_key, load_private_key, load_public_key, public_bytes
from edge.trust.root import (
    Revocation,
    Role,
    RoleRule,
    RootKey,
    TrustRoot,
    load_root,
    read_root,
    root_bytes,
    verify_successor,
)
from edge.trust.signing import OrderFile, new_job_id, order_from_file, sign_order, take_sequence

__all__ = [
    "Claims",
    "Envelope",
    "JobOrder",
    "Ledger",
    "Now",
    "OrderFile",
    "PayloadType",
    "PublicKey",
    "Reason",
    "ReplayWindow",
    "Revocation",
    "Role",
    "RoleRule",
    "RootKey",
    "Signature",
    "Snapshot",
    "TrustRoot",
    "Verdict",
    "add_signature",
    "admit",
    "check_files",
    "create_key",
    "keyid_of",
    "load_private_key",
    "load_public_key",
    "load_root",
    "new_job_id",
    "order_bytes",
    "order_from_file",
    "pae",
    "parse",
    "parse_order",
    "public_bytes",
    "read_envelope",
    "read_root",
    "replace_envelope",
    "root_bytes",
    "sign",
    "sign_order",
    "take_sequence",
    "verify_order",
    "verify_successor",
    "write_bundle",
]
