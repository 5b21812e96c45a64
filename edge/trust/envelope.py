"""Signed bytes: DSSE envelopes with Ed25519 signatures.

The format is that of https://github.com/secure-systems-lab/dsse, version 1.0.0, narrowed so that one envelope has one
reading:

    1. `{"payloadType": …, "payload": …, "signatures": [{"keyid": …, "sig": …}, …]}`, no other fields.
    2. Base64 is the standard alphabet with padding, and re-encodes to the same text.
    3. A signature has 64 bytes. Nothing in an envelope chooses an algorithm: the trust root does.
    4. At most 32 signatures; none is legal here (a root waiting for its key holders), and never enough anywhere.

What is signed is `pae(payloadType, payload)`: the payload's bytes as they are, never a canonical form of them.
`parse` says what an envelope claims; only a trust root says what the claims are worth.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.errors import EnvelopeError, FormatError
from edge.model.strictjson import load_object, shown
from edge.trust.ed25519 import SIGNATURE_BYTES, keyid_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_ENVELOPE_BYTES = 256 * 1024
MAX_SIGNATURES = 32
_MAX_NAME_CHARACTERS = 128
_MAX_MARKS = 1000
"""Quotation marks, and commas: twice as many as an envelope may have. More of them is work for nothing."""


class PayloadType(enum.StrEnum):
    """What the payload of an envelope is. Part of what is signed, so that one kind never passes for another."""

    ROOT = "application/vnd.mf-edge.root.v1+json"
    JOB = "application/vnd.mf-edge.job.v1+json"
    COMMAND = "application/vnd.mf-edge.command.v1+json"
    TIME = "application/vnd.mf-edge.time.v1+json"
    BATCH = "application/vnd.mf-edge.batch.v1+json"
    ACK = "application/vnd.mf-edge.ack.v1+json"
    STATE = "application/vnd.mf-edge.state.v1+json"
    TELEMETRY = "application/vnd.mf-edge.telemetry.v1+json"


@dataclass(frozen=True, slots=True)
class Signature:
    """`keyid` is a claim that helps to find the key; `sig` is 64 bytes."""

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. Nothing in it has been verified."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def signed_bytes(self) -> bytes:
        """What the signatures are over."""
        return pae(self.payload_type, self.payload)

    def to_bytes(self) -> bytes:
        """The JSON form; `parse` gives back an equal envelope."""
        document = {
            "payloadType": self.payload_type,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [
                {"keyid": signature.keyid, "sig": base64.b64encode(signature.sig).decode()}
                for signature in self.signatures
            ],
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding of DSSE; lengths are in bytes, so that nothing can shift between the parts."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, private_keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """An envelope over `payload` with one signature for each key."""
    envelope = Envelope(payload_type, payload, ())
    for key in private_keys:
        envelope = add_signature(envelope, key)
    return envelope.to_bytes()


def add_signature(envelope: Envelope, private_key: Ed25519PrivateKey) -> Envelope:
    """`envelope` signed by one more key. Signing again with the same key changes nothing."""
    keyid = keyid_of(private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    signature = Signature(keyid, private_key.sign(envelope.signed_bytes))
    others = tuple(other for other in envelope.signatures if other.keyid != keyid)
    if len(others) >= MAX_SIGNATURES:
        raise EnvelopeError(f"the envelope has {len(others)} signatures, at most {MAX_SIGNATURES} are allowed")
    return replace(envelope, signatures=(*others, signature))


def parse(raw: bytes, *, max_bytes: int = MAX_ENVELOPE_BYTES) -> Envelope:
    """The envelope that `raw` is.

    Raises:
        EnvelopeError: it is none.
    """
    if len(raw) <= max_bytes and (raw.count(b'"') > _MAX_MARKS or raw.count(b",") > _MAX_MARKS):
        raise EnvelopeError(f"the envelope has more than {MAX_SIGNATURES} signatures, or is none")
    try:
        document = load_object(raw, what="the envelope", max_bytes=max_bytes)
    except FormatError as error:
        raise EnvelopeError(str(error)) from error
    _expect_fields(document, {"payloadType", "payload", "signatures"}, "the envelope")
    signatures = document["signatures"]
    if not isinstance(signatures, list) or len(signatures) > MAX_SIGNATURES:
        raise EnvelopeError(f"signatures is {shown(signatures)}, must be a list of at most {MAX_SIGNATURES}")
    return Envelope(
        _name(document["payloadType"], "payloadType"),
        _base64(document["payload"], "payload"),
        tuple(_signature(entry, f"signatures[{index}]") for index, entry in enumerate(signatures)),
    )


def _signature(entry: object, where: str) -> Signature:
    if not isinstance(entry, dict):
        raise EnvelopeError(f"{where} is {shown(entry)}, must be an object with keyid and sig")
    _expect_fields(entry, {"keyid", "sig"}, where)
    sig = _base64(entry["sig"], f"{where}.sig")
    if len(sig) != SIGNATURE_BYTES:
        raise EnvelopeError(f"{where}.sig has {len(sig)} bytes, must have {SIGNATURE_BYTES}")
    return Signature(_name(entry["keyid"], f"{where}.keyid"), sig)


def _expect_fields(document: dict[str, object], fields: set[str], where: str) -> None:
    for name in sorted(fields - document.keys()):
        raise EnvelopeError(f"{where} has no {name}")
    for name in sorted(document.keys() - fields):
        raise EnvelopeError(f"{where} has the unknown field {shown(name)}")


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > _MAX_NAME_CHARACTERS:
        raise EnvelopeError(f"{where} is {shown(value)}, must be at most {_MAX_NAME_CHARACTERS} printable characters")
    return value


def _base64(value: object, where: str) -> bytes:
    right = "must be standard base64 with padding"
    if not isinstance(value, str):
        raise EnvelopeError(f"{where} is {shown(value)}, {right}")
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeError(f"{where} is {shown(value)}, {right}") from error
    if base64.b64encode(decoded).decode() != value:
        raise EnvelopeError(f"{where} does not re-encode to itself, {right}")
    return decoded
