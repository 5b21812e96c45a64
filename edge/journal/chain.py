"""Event bytes and the hash chain. PURE.

Rules:

    1. The bytes of an event are made once, here. They are what is hashed, kept, and sent later. Nobody makes them
       again from parsed values, so there is no canonical form to agree on.
    2. They are one JSON object in UTF-8 with exactly the keys of `KEYS`, in that order. What does not apply is null.
       Outside `body` there are strings, integers and nulls only. Text that UTF-8 cannot express becomes "?". There is
       no control character (below U+0020), not between values either: an event stays one line wherever it is kept.
    3. hash = SHA-256(`DOMAIN` + bytes), in lower-case hexadecimal. `DOMAIN` keeps it apart from every other hash.
    4. `prev_hash` is inside the bytes: one hash vouches for all events before it. The first event's is `ZERO_HASH`,
       its number is 1, and every event of a chain names the same site and the same journal as the one before.
    5. A journal that was put back to an older state goes on under a new id: the first event of that id is a
       `journal_held` whose `body.follows` names the id, the number and the hash before it. Nothing else changes the id.
    6. Hash first, then parse.
    7. An event has at most `MAX_EVENT_BYTES`: what is larger cannot be reported, and would keep back all that comes
       after it. Of one that would be, the long values of its body are cut, and say so: only machines say that much.

A chain alone cannot show that its tail was cut off; whoever knows the newest (seq, hash) passes it as `head`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.errors import CorruptJournalError
from edge.model.event import ClockTrust, Draft, Event, EventKind, Stamp

DOMAIN = b"microfactory-edge/event/v1\n"
ZERO_HASH = "0" * 64

MAX_EVENT_BYTES = 1024 * 1024
"""`edge.uplink.batch` can take twice that to pieces; the largest order that a site takes makes a third of it."""

_LONG_CHARACTERS = 4096

KEYS = (
    "site",
    "journal",
    "seq",
    "prev_hash",
    "at_wall",
    "at_mono_ms",
    "boot_id",
    "clock",
    "actor",
    "kind",
    "job_id",
    "part",
    "step",
    "run_id",
    "machine",
    "body",
)
_CONTROL = re.compile(rb"[\x00-\x1f]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_OPTIONAL = {"job_id", "part", "step", "run_id", "machine"}
_INTEGERS = {"seq", "at_mono_ms", "part"}


@dataclass(frozen=True, slots=True)
class Head:
    """The newest event of a chain. `Head(0, ZERO_HASH)` is a chain without events."""

    seq: int
    hash: str


EMPTY = Head(0, ZERO_HASH)


@dataclass(frozen=True, slots=True)
class Base:
    """Where a chain begins here: `head` is the newest event that is not here any more, and `journal` its id."""

    head: Head = EMPTY
    journal: str | None = None


WHOLE = Base()
"""Of a chain that begins with event 1."""


@dataclass(frozen=True, slots=True)
class Row:
    """An event as it is kept."""

    seq: int
    hash: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk along the chain found. `problem` is a sentence about the first break, empty if there is none.

    `head` is the last event that still fits, `count` how many do; `journal` is the id that it has.
    """

    count: int
    head: Head
    problem: str = ""
    journal: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every event fits."""
        return not self.problem


def digest(raw: bytes) -> str:
    """The hash of an event's bytes."""
    return hashlib.sha256(DOMAIN + raw).hexdigest()


def encode(site: str, journal: str, seq: int, prev_hash: str, stamp: Stamp, draft: Draft) -> tuple[bytes, str]:
    """The bytes of event `seq` and their hash.

    Raises:
        ValueError, TypeError: `draft.body` is not JSON (NaN, an infinity, an object that JSON does not know).
    """
    document = {
        "site": site,
        "journal": journal,
        "seq": seq,
        "prev_hash": prev_hash,
        "at_wall": stamp.at_wall,
        "at_mono_ms": stamp.at_mono_ms,
        "boot_id": stamp.boot_id,
        "clock": stamp.clock,
        "actor": draft.actor,
        "kind": draft.kind,
        "job_id": draft.job_id,
        "part": draft.part,
        "step": draft.step,
        "run_id": draft.run_id,
        "machine": draft.machine,
        "body": dict(draft.body),
    }
    raw = _bytes_of(document)
    if len(raw) > MAX_EVENT_BYTES:
        raw = _bytes_of(document | {"body": {key: _shortened(value) for key, value in draft.body.items()}})
    return raw, digest(raw)


def _bytes_of(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")  # a lone surrogate, from a device that does not speak UTF-8


def _shortened(value: Any) -> Any:
    """A text stays a text; anything else that is long becomes an object with the beginning of its JSON."""
    text = value if isinstance(value, str) else json.dumps(value)
    if len(text) <= _LONG_CHARACTERS:
        return value
    cut = f"{text[:_LONG_CHARACTERS]}… ({len(text)} characters)"
    return cut if isinstance(value, str) else {"shortened": cut}


def read(raw: bytes) -> dict[str, Any]:
    """The keys and values of the event that `raw` is, of any version: its kind need not be known here.

    Raises:
        CorruptJournalError: it is not the bytes of an event.
    """
    if control := _CONTROL.search(raw):
        raise CorruptJournalError(f"an event has the control character {control[0][0]:#04x} at byte {control.start()}")
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_repeats, parse_constant=_no_constant)
        if _SURROGATE_ESCAPE.search(raw):
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise CorruptJournalError("an event has half of a surrogate pair in a string") from error
    except (ValueError, RecursionError) as error:
        raise CorruptJournalError(f"an event is not JSON: {error}") from error
    if not isinstance(document, dict) or tuple(document) != KEYS:
        raise CorruptJournalError("an event does not have the keys of an event, in their order")
    for key, value in document.items():
        if not _fits(key, value):
            raise CorruptJournalError(f"an event's '{key}' is {json.dumps(value)[:80]}")
    return document


def decode(raw: bytes) -> Event:
    """The event that `raw` is.

    Raises:
        CorruptJournalError: it is not the bytes of an event, or of a kind that this version does not know.
    """
    document = read(raw)
    try:
        document["clock"] = ClockTrust(document["clock"])
        document["kind"] = EventKind(document["kind"])
    except ValueError as error:
        raise CorruptJournalError(f"an event of this version does not know that {error}") from error
    return Event(**document, raw=raw, hash=digest(raw))


def verify(rows: Iterable[Row], head: Head | None = None, base: Base = WHOLE) -> Verdict:
    """Walk a chain from its first event, or from what follows `base`; `head` is where it must end, if that is known."""
    last, site, journal = base.head, None, base.journal

    def found(problem: str = "") -> Verdict:
        return Verdict(last.seq - base.head.seq, last, problem, journal)

    for row in rows:
        problem = _break_at(row, last)
        if problem:
            return found(problem)
        try:
            event = decode(row.raw)
        except CorruptJournalError as error:
            return found(f"event {row.seq}: {error}")
        if event.seq != row.seq:
            return found(f"event {row.seq} says of itself that it is event {event.seq}")
        if event.prev_hash != last.hash:
            return found(f"event {row.seq} does not follow event {last.seq}: it names another hash")
        is_same = site in (None, event.site) and journal in (None, event.journal)
        if not is_same and not (site in (None, event.site) and follows(event.kind, event.body, str(journal), last)):
            return found(f"event {row.seq} is of another journal: {event.site}/{event.journal}")
        site, journal = event.site, event.journal
        last = Head(row.seq, row.hash)
    if head is not None and head != last:
        return found(f"the chain ends with event {last.seq}, expected event {head.seq} {head.hash}")
    return found()


def follows(kind: str, body: Mapping[str, Any], journal: str, last: Head) -> bool:
    """Whether an event begins a new id after event `last` of `journal`."""
    said = {"journal": journal, "seq": last.seq, "hash": last.hash}
    return kind == EventKind.JOURNAL_HELD and body.get("follows") == said


def _break_at(row: Row, last: Head) -> str:
    if row.seq != last.seq + 1:
        return f"event {last.seq + 1} is missing: event {row.seq} comes after event {last.seq}"
    if digest(row.raw) != row.hash:
        return f"event {row.seq} was changed: its bytes do not have the hash that was kept with them"
    return ""


def _fits(key: str, value: object) -> bool:
    if value is None:
        return key in _OPTIONAL
    if key == "body":
        return isinstance(value, dict)
    if key in _INTEGERS:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, str)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key is there twice")
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
