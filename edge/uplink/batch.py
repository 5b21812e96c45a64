"""What a site reports and what the centre answers: batches of events, and acknowledgements. PURE.

A batch is the payload of an envelope of type `batch`, signed with the site's own key:

    site, journal   of every event in it
    first_seq       the number of its first event
    last_seq        the number of its last event
    prev_hash       the hash of the event before the first; 64 zeros before event 1
    hash            the hash of the last event
    piece           null; or {number, of}: this is piece `number` (from 1) of the one event `first_seq`
    follows         {journal, seq, hash}: the event that the id `journal` follows (`edge.journal.restored`); the events
                    up to it have older ids. Only in a batch that begins with one of them, or right after
    begins          true: the site has pruned all that is before the first event. Only where that is so
    events          the bytes of each event as a JSON string, in order; one string if this is a piece

An acknowledgement is the payload of an envelope of type `ack`, signed by the role `collector` of the trust root:

    site, journal   whose
    seq, hash       the newest event that the collector has durably, with all before it; 0 and 64 zeros for none
    resend          true: something is missing, send again what follows `seq`
    at              when, by the collector's clock

Rules:

    1. Nobody makes an event's bytes again: the string, encoded as UTF-8, is what was hashed on the site.
    2. A payload has at most `BATCH_MAX_BYTES`, so that its envelope fits a broker's packet of 256 KiB. An event that
       is larger goes in pieces, each with the hash of the whole event.
    3. Signature first, then the form, then the chain. A reader of another version takes kinds it does not know.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeGuard

from pydantic import Field

from edge.errors import BatchError, CorruptJournalError, EnvelopeError, FormatError
from edge.journal import chain
from edge.journal.chain import Head, Row
from edge.model.fields import Sha256, SiteId, StrictModel, UtcTime, matching
from edge.model.order import MAX_SEQUENCE
from edge.trust.ed25519 import keyid_of, verifies
from edge.trust.envelope import Envelope, PayloadType, parse
from edge.trust.root import Role, TrustRoot

#: Of a payload. In base64, with a signature, that is an envelope of 171 KiB.
BATCH_MAX_BYTES = 128 * 1024

#: So that whoever takes a batch apart has a bound.
BATCH_MAX_EVENTS = 512

#: Of one event; it holds any order that a site takes (256 KiB, in base64) many times over.
MAX_PIECES = 64

#: Of an acknowledgement's envelope.
ACK_MAX_BYTES = 4096

_FRAME_BYTES = 768  # the other fields, with the longest names
_WIDEST = 4  # bytes of one character of an event's text in JSON in UTF-8: it has no bare control characters

_JOURNAL_ID = r"[0-9a-f]{32}"
JournalId = Annotated[str, matching(_JOURNAL_ID, "32 lower-case hexadecimal digits")]
_Seq = Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]


class Piece(StrictModel):
    """Which part of an event's text."""

    number: Annotated[int, Field(ge=1, le=MAX_PIECES)]
    of: Annotated[int, Field(ge=2, le=MAX_PIECES)]


class Origin(StrictModel):
    """The event after which a journal got another id, and the id until then."""

    journal: JournalId
    seq: _Seq
    hash: Sha256


class Batch(StrictModel):
    """What a site's key has signed. Whether the events hold together is for `facts` to say."""

    site: SiteId
    journal: JournalId
    first_seq: _Seq
    last_seq: _Seq
    prev_hash: Sha256
    hash: Sha256
    piece: Piece | None
    events: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=BATCH_MAX_EVENTS)]
    follows: Origin | None = None
    begins: bool = False


class Ack(StrictModel):
    """What the collector says it has."""

    site: SiteId
    journal: JournalId
    seq: Annotated[int, Field(ge=0, le=MAX_SEQUENCE)]
    hash: Sha256
    resend: bool
    at: UtcTime

    @property
    def head(self) -> Head:
        """The newest event that the collector has."""
        return Head(self.seq, self.hash)


@dataclass(frozen=True, slots=True)
class Fact:
    """One event of a batch, verified: as it is kept, and its keys and values."""

    row: Row
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Packed:
    """Payloads to be signed and sent in turn, and the last event that is in them."""

    payloads: tuple[bytes, ...]
    last: Head


@dataclass(frozen=True, slots=True)
class Frame:
    """What a batch says beside its events. `before` is the event before its first one."""

    site: str
    journal: str
    before: Head
    follows: Origin | None = None
    begins: bool = False


def pack(frame: Frame, rows: Iterable[Row], max_bytes: int = BATCH_MAX_BYTES) -> Packed:
    """As many of `rows` as one batch holds, or the first of them in pieces; reads no more of `rows` than that.

    There is at least one row.

    Raises:
        BatchError: an event is so large that it cannot be reported.
    """
    budget = max_bytes - _FRAME_BYTES
    taken: list[str] = []
    last = frame.before
    for row in itertools.islice(rows, BATCH_MAX_EVENTS):
        text = row.raw.decode()
        budget -= len(_json(text)) + 1
        if budget < 0:
            if not taken:
                return _in_pieces(frame, row, max_bytes - _FRAME_BYTES)
            break
        taken.append(text)
        last = Head(row.seq, row.hash)
    return Packed((_payload(frame, last, None, taken),), last)


def _in_pieces(frame: Frame, row: Row, budget: int) -> Packed:
    text, width = row.raw.decode(), budget // _WIDEST
    parts = [text[start : start + width] for start in range(0, len(text), width)]
    if len(parts) > MAX_PIECES:
        allowed = MAX_PIECES * width
        raise BatchError(f"event {row.seq} has {len(row.raw)} bytes and cannot be reported, allowed are {allowed}")
    last = Head(row.seq, row.hash)
    return Packed(
        tuple(
            _payload(frame, last, {"number": number, "of": len(parts)}, [part]) for number, part in enumerate(parts, 1)
        ),
        last,
    )


def _payload(frame: Frame, last: Head, piece: dict[str, int] | None, events: Sequence[str]) -> bytes:
    document: dict[str, object] = {
        "site": frame.site,
        "journal": frame.journal,
        "first_seq": frame.before.seq + 1,
        "last_seq": last.seq,
        "prev_hash": frame.before.hash,
        "hash": last.hash,
        "piece": piece,
        "events": events,
    }
    if frame.follows is not None:
        document["follows"] = frame.follows.model_dump()
    if frame.begins:
        document["begins"] = True
    return _json(document)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def opened(raw: bytes, kind: PayloadType, site: str, public_keys: Collection[bytes]) -> bytes:
    """The payload of the envelope `raw`, which is of type `kind` and signed with one of the keys of `site`.

    Raises:
        BatchError: it is not.
    """
    envelope = _envelope(raw, kind)
    keys = {keyid_of(public): public for public in public_keys}
    if not any(
        signature.keyid in keys and verifies(keys[signature.keyid], signature.sig, envelope.signed_bytes)
        for signature in envelope.signatures
    ):
        raise BatchError(f"no key of site {site} has signed this")
    return envelope.payload


def open_batch(raw: bytes, site: str, public_keys: Collection[bytes]) -> tuple[Batch, bytes]:
    """The batch in the envelope `raw`, signed with one of the keys of `site`, which it names; and its payload.

    Raises:
        BatchError: it is not.
    """
    payload = opened(raw, PayloadType.BATCH, site, public_keys)
    batch = read_batch(payload)
    if batch.site != site:
        raise BatchError(f"the batch is of site {batch.site}, must be of site {site}")
    return batch, payload


def read_batch(payload: bytes) -> Batch:
    """The batch that a payload is; its signature was verified before.

    Raises:
        BatchError: it is none.
    """
    try:
        batch = Batch.read(payload, what="the batch", max_bytes=2 * BATCH_MAX_BYTES)
    except FormatError as error:
        raise BatchError(str(error)) from error
    count = batch.last_seq - batch.first_seq + 1
    if len(batch.events) != count:
        raise BatchError(
            f"the batch has {len(batch.events)} events, must have {count}: {batch.first_seq} to {batch.last_seq}"
        )
    if batch.piece is not None and (count != 1 or batch.piece.number > batch.piece.of):
        raise BatchError(f"the batch is piece {batch.piece.number} of {batch.piece.of} of {count} events")
    return batch


def joined(pieces: Sequence[Batch]) -> Batch:
    """The batch of one event, from all its pieces in order; whether it is whole, its hash says in `facts`."""
    return pieces[0].model_copy(update={"piece": None, "events": ("".join(part.events[0] for part in pieces),)})


def facts(batch: Batch) -> list[Fact]:
    """The events of a whole batch: each hashes, follows the one before, and is of the batch's site and journal.

    Those up to `Batch.follows` have the id of another journal, and the one after it says that it follows it.

    Raises:
        BatchError: names the first that does not.
    """
    found = []
    last = Head(batch.first_seq - 1, batch.prev_hash)
    for text in batch.events:
        raw, seq = text.encode(), last.seq + 1
        try:
            fields = chain.read(raw)
        except CorruptJournalError as error:
            raise BatchError(f"event {seq} of the batch: {error}") from error
        right_values = {"site": batch.site, "journal": batch.journal, "seq": seq, "prev_hash": last.hash}
        if batch.follows is not None:
            _check_origin(batch.journal, batch.follows, last, fields)
            if seq <= batch.follows.seq:
                del right_values["journal"]
        for key, right in right_values.items():
            if fields[key] != right:
                raise BatchError(f"event {seq} of the batch: its {key} is {fields[key]!r:.80}, must be {right!r}")
        last = Head(seq, chain.digest(raw))
        found.append(Fact(Row(seq, last.hash, raw), fields))
    if last.hash != batch.hash:
        raise BatchError(f"event {last.seq} of the batch has the hash {last.hash}, must have {batch.hash}")
    return found


def _check_origin(journal: str, origin: Origin, last: Head, fields: Mapping[str, Any]) -> None:
    """Whether the event after `last` is on the right side of the event that `journal` follows. Raises `BatchError`."""
    if last.seq == origin.seq:
        if last.hash != origin.hash or not chain.follows(fields["kind"], fields["body"], origin.journal, last):
            raise BatchError(f"event {last.seq + 1} of the batch does not say that it follows journal {origin.journal}")
    elif last.seq < origin.seq and fields["journal"] == journal:
        raise BatchError(f"event {last.seq + 1} of the batch has the id that begins after event {origin.seq}")


def is_journal_id(value: object) -> TypeGuard[str]:
    """Whether it can be the id of a journal."""
    return isinstance(value, str) and re.fullmatch(_JOURNAL_ID, value) is not None


def ack_payload(site: str, journal: str, head: Head, at: datetime, resend: bool = False) -> bytes:
    """The payload of an acknowledgement."""
    ack = Ack(site=site, journal=journal, seq=head.seq, hash=head.hash, resend=resend, at=at)
    return _json(ack.model_dump(mode="json"))


def open_ack(raw: bytes, root: TrustRoot) -> Ack:
    """The acknowledgement in the envelope `raw`, signed by the role `collector` of `root`.

    Raises:
        BatchError: it is not.
    """
    envelope = _envelope(raw, PayloadType.ACK, ACK_MAX_BYTES)
    threshold = root.threshold(Role.COLLECTOR)
    if threshold is None:
        raise BatchError("nobody holds the role 'collector' in the trust root, so nothing can be acknowledged")
    if (count := len(root.verify(Role.COLLECTOR, envelope))) < threshold:
        raise BatchError(f"the acknowledgement has {count} valid signatures of the collector, must have {threshold}")
    try:
        ack = Ack.read(envelope.payload, what="the acknowledgement", max_bytes=ACK_MAX_BYTES)
    except FormatError as error:
        raise BatchError(str(error)) from error
    if ack.seq == 0 and ack.hash != chain.ZERO_HASH:
        raise BatchError("the acknowledgement of no event has a hash, must have 64 zeros")
    return ack


def _envelope(raw: bytes, kind: PayloadType, max_bytes: int | None = None) -> Envelope:
    try:
        envelope = parse(raw) if max_bytes is None else parse(raw, max_bytes=max_bytes)
    except EnvelopeError as error:
        raise BatchError(str(error)) from error
    if envelope.payload_type != kind:
        raise BatchError(f"the payload type is '{envelope.payload_type}', must be '{kind}'")
    return envelope
