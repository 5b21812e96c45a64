"""Signing and judging job orders. Public: an MES signs its orders with this.

    keys = [load_private_key(Path("orders@acme.key"))]
    raw = sign_order(parse_order(payload), keys)

docs/trust.md has a whole example (Orders from an MES). What goes wrong is one of the errors that are exported here, all
of them `EdgeError`s, whose text is a sentence for a person.

Everything named in `__all__` stays as it is within a major version; the modules below may move.
"""

from edge.errors import (
    BundleError,
    ConfigError,
    EdgeError,
    EnvelopeError,
    FormatError,
    KeyFileError,
    RootError,
)
from edge.model.command import Command, Verb, command_bytes, parse_command
from edge.model.order import JobOrder, order_bytes, parse_order
from edge.replay import ReplayWindow
from edge.timefloor import Now, vouched
from edge.trust.admit import Claims, Ledger, Reason, Snapshot, Verdict, admit, verify_order
from edge.trust.bundle import check_files, read_envelope, replace_envelope, write_bundle
from edge.trust.ceremony import add_keys, find_key, replace_key, revoke_key
from edge.trust.commands import (
    CommandLedger,
    CommandReason,
    CommandSnapshot,
    CommandVerdict,
    JobStanding,
    admit_command,
)
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
from edge.trust.signedtime import TimeStatement, TimeVerdict, judge_time, time_bytes
from edge.trust.signing import OrderFile, new_job_id, order_from_file, sign_command, sign_order, take_sequence
from edge.trust.succession import CurrentRoot, RootReason, RootVerdict, judge_root, payload_digest

__all__ = [
    "BundleError",
    "Claims",
    "Command",
    "CommandLedger",
    "CommandReason",
    "CommandSnapshot",
    "CommandVerdict",
    "ConfigError",
    "CurrentRoot",
    "EdgeError",
    "Envelope",
    "EnvelopeError",
    "FormatError",
    "JobOrder",
    "JobStanding",
    "KeyFileError",
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
    "RootError",
    "RootKey",
    "RootReason",
    "RootVerdict",
    "Signature",
    "Snapshot",
    "TimeStatement",
    "TimeVerdict",
    "TrustRoot",
    "Verb",
    "Verdict",
    "add_keys",
    "add_signature",
    "admit",
    "admit_command",
    "check_files",
    "command_bytes",
    "create_key",
    "find_key",
    "judge_root",
    "judge_time",
    "keyid_of",
    "load_private_key",
    "load_public_key",
    "load_root",
    "new_job_id",
    "order_bytes",
    "order_from_file",
    "pae",
    "parse",
    "parse_command",
    "parse_order",
    "payload_digest",
    "public_bytes",
    "read_envelope",
    "read_root",
    "replace_envelope",
    "replace_key",
    "revoke_key",
    "root_bytes",
    "sign",
    "sign_command",
    "sign_order",
    "take_sequence",
    "time_bytes",
    "verify_order",
    "verify_successor",
    "vouched",
    "write_bundle",
]
