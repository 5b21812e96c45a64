"""Batches and acknowledgements: what is taken, what is refused and in which words, and how large events travel."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import BatchError
from edge.journal import chain
from edge.journal.chain import EMPTY, Head, Row
from edge.model.event import ClockTrust, Draft, EventKind, Stamp
from edge.trust import PayloadType, Role, TrustRoot, public_bytes, sign
from edge.uplink import batch
from tests.helpers.reporting import COLLECTOR_KEY, ROOT, SITE_KEY
from tests.helpers.trust import private_key, root_document
from tests.journal_kit import SITE, root_of_project

JOURNAL = "5f0c9e4a1d2b3c4d5e6f708192a3b4c5"
KEYS = (public_bytes(private_key("old")), public_bytes(SITE_KEY))
AT = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
STAMP = Stamp("2026-11-21T10:00:00.000Z", 12.345, "boot-1", ClockTrust.FLOOR)


def rows(*texts: str, before: Head = EMPTY) -> list[Row]:
    found = []
    for text in texts:
        raw, digest = chain.encode(
            SITE, JOURNAL, before.seq + 1, before.hash, STAMP, Draft(EventKind.MACHINE_ONLINE, "r", {"text": text})
        )
        before = Head(before.seq + 1, digest)
        found.append(Row(before.seq, digest, raw))
    return found


def payload(**changes: Any) -> bytes:
    """A batch of two events, with some of its fields changed."""
    packed = batch.pack(batch.Frame(SITE, JOURNAL, EMPTY), rows("a", "b"))
    return json.dumps(json.loads(packed.payloads[0]) | changes).encode()


def test_a_batch_gives_back_the_very_bytes() -> None:
    made = rows("a", '\N{SNOWMAN} \\ " \u2028', "")
    packed = batch.pack(batch.Frame(SITE, JOURNAL, EMPTY), made)
    assert packed.last == Head(3, made[-1].hash)
    (only,) = packed.payloads
    found, same = batch.open_batch(sign(PayloadType.BATCH, only, [SITE_KEY]), SITE, KEYS)
    assert same == only
    assert [fact.row for fact in batch.facts(found)] == made
    assert found.piece is None


NEW = "f" * 32


def branched(**claim: Any) -> tuple[batch.Frame, list[Row]]:
    """Two events of `JOURNAL`, and two of the id that follows it; what the third says of that may be changed."""
    old = rows("a", "b")
    last = Head(2, old[-1].hash)
    body = {"reason": "it was put back", "follows": {"journal": JOURNAL, "seq": 2, "hash": last.hash} | claim}
    raw, digest = chain.encode(SITE, NEW, 3, last.hash, STAMP, Draft(EventKind.JOURNAL_HELD, "site", body))
    more, more_digest = chain.encode(SITE, NEW, 4, digest, STAMP, Draft(EventKind.MACHINE_ONLINE, "r", {}))
    follows = batch.Origin(journal=JOURNAL, seq=2, hash=last.hash)
    return batch.Frame(SITE, NEW, EMPTY, follows), [*old, Row(3, digest, raw), Row(4, more_digest, more)]


def test_a_batch_of_a_new_id_holds_what_the_old_one_had_not_reported() -> None:
    frame, made = branched()
    found = batch.read_batch(batch.pack(frame, made).payloads[0])
    assert [fact.row for fact in batch.facts(found)] == made
    assert (found.follows, found.begins) == (frame.follows, False)
    later = batch.pack(batch.Frame(SITE, NEW, Head(2, made[1].hash), frame.follows), made[2:])
    assert len(batch.facts(batch.read_batch(later.payloads[0]))) == 2


@pytest.mark.parametrize("claim", [{"journal": "0" * 32}, {"seq": 1}, {"hash": "ab" * 32}])
def test_an_id_that_follows_another_has_to_say_so(claim: dict[str, Any]) -> None:
    frame, made = branched(**claim)
    with pytest.raises(BatchError, match="event 3 of the batch does not say that it follows"):
        batch.facts(batch.read_batch(batch.pack(frame, made).payloads[0]))


def test_what_a_new_id_follows_is_where_it_begins() -> None:
    frame, made = branched()
    assert frame.follows is not None
    late = replace(frame, follows=frame.follows.model_copy(update={"seq": 3, "hash": made[2].hash}))
    with pytest.raises(BatchError, match="event 3 of the batch has the id that begins after event 3"):
        batch.facts(batch.read_batch(batch.pack(late, made).payloads[0]))
    with pytest.raises(BatchError, match="event 1 of the batch: its journal is"):
        batch.facts(batch.read_batch(batch.pack(replace(frame, follows=None), made).payloads[0]))


def test_a_batch_says_that_what_is_before_it_was_pruned() -> None:
    made = rows("c", before=Head(7, "ab" * 32))
    packed = batch.pack(batch.Frame(SITE, JOURNAL, Head(7, "ab" * 32), begins=True), made)
    assert batch.read_batch(packed.payloads[0]).begins


def test_a_batch_holds_what_fits_and_reads_no_further() -> None:
    made = rows(*["x" * 400] * 10)
    taken = iter(made)
    packed = batch.pack(batch.Frame(SITE, JOURNAL, EMPTY), taken, max_bytes=3000)
    assert 1 < packed.last.seq < 10
    assert len(packed.payloads[0]) <= 3000
    assert len(list(taken)) == 10 - packed.last.seq - 1, "one more was looked at, none after it"
    few = batch.pack(batch.Frame(SITE, JOURNAL, EMPTY), rows(*["x"] * (batch.BATCH_MAX_EVENTS + 1)), max_bytes=10**7)
    assert few.last.seq == batch.BATCH_MAX_EVENTS


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=2000, max_size=3000))
def test_an_event_larger_than_a_batch_goes_in_pieces(text: str) -> None:
    (made,) = rows(text)
    packed = batch.pack(batch.Frame(SITE, JOURNAL, EMPTY), [made], max_bytes=2048)
    assert packed.last == Head(1, made.hash)
    assert all(len(piece) <= 2048 for piece in packed.payloads)
    pieces = [batch.read_batch(piece) for piece in packed.payloads]
    assert [piece.piece and piece.piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
    assert [fact.row for fact in batch.facts(batch.joined(pieces))] == [made]


def test_the_largest_order_that_a_site_takes_can_be_reported() -> None:
    (made,) = rows("A" * (256 * 1024 * 4 // 3))
    packed = batch.pack(batch.Frame(SITE, JOURNAL, EMPTY), [made])
    envelopes = [sign(PayloadType.BATCH, piece, [SITE_KEY]) for piece in packed.payloads]
    assert all(len(raw) < 250 * 1024 for raw in envelopes)
    assert len(packed.payloads) <= batch.MAX_PIECES // 4


def test_an_event_that_nobody_could_take_is_named() -> None:
    with pytest.raises(BatchError, match="event 1 has 50"):
        batch.pack(batch.Frame(SITE, JOURNAL, EMPTY), rows("x" * 50_000), max_bytes=1024)


def test_pieces_of_two_events_do_not_make_one() -> None:
    first, other = (
        batch.pack(batch.Frame(SITE, JOURNAL, EMPTY), rows(text * 3000), max_bytes=2048).payloads for text in "ab"
    )
    mixed = [batch.read_batch(raw) for raw in (*first[:-1], other[-1])]
    with pytest.raises(BatchError, match="must have"):
        batch.facts(batch.joined(mixed))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "envelope"),
        (sign(PayloadType.ACK, payload(), [SITE_KEY]), "the payload type is"),
        (sign(PayloadType.BATCH, payload(), []), "no key of site berlin-1 has signed"),
        (sign(PayloadType.BATCH, payload(), [private_key("mallory")]), "no key of site berlin-1 has signed"),
        (sign(PayloadType.BATCH, payload(), [SITE_KEY]).replace(b'"sig":"', b'"sig":"AAAA')[:-1], "envelope"),
        (sign(PayloadType.BATCH, payload(site="paris-1"), [SITE_KEY]), "of site paris-1, must be"),
        (sign(PayloadType.BATCH, b"[]", [SITE_KEY]), "must be a JSON object"),
        (sign(PayloadType.BATCH, payload(extra=1), [SITE_KEY]), "unknown field"),
        (sign(PayloadType.BATCH, payload(journal="x"), [SITE_KEY]), "32 lower-case"),
        (sign(PayloadType.BATCH, payload(first_seq=0), [SITE_KEY]), "first_seq is 0"),
        (sign(PayloadType.BATCH, payload(events=[]), [SITE_KEY]), "events"),
        (sign(PayloadType.BATCH, payload(last_seq=3), [SITE_KEY]), "has 2 events, must have 3"),
        (sign(PayloadType.BATCH, payload(piece={"number": 1, "of": 2}), [SITE_KEY]), "of 2 events"),
        (
            sign(
                PayloadType.BATCH,
                payload(piece={"number": 3, "of": 2}, last_seq=1, events=["x"]),
                [SITE_KEY],
            ),
            "is piece 3 of 2",
        ),
    ],
)
def test_what_is_no_batch_of_this_site_is_refused_in_words(raw: bytes, words: str) -> None:
    with pytest.raises(BatchError, match=words):
        batch.open_batch(raw, SITE, KEYS)


def test_a_key_id_is_never_believed() -> None:
    raw = json.loads(sign(PayloadType.BATCH, payload(), [private_key("mallory")]))
    raw["signatures"][0]["keyid"] = hashlib.sha256(public_bytes(SITE_KEY)).hexdigest()
    with pytest.raises(BatchError, match="no key of site"):
        batch.open_batch(json.dumps(raw).encode(), SITE, KEYS)


EVENTS = [row.raw.decode() for row in rows("a", "b")]
OTHERS = [row.raw.decode() for row in rows("a", "b", "c", before=Head(0, "ab" * 32))]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"events": [EVENTS[0], "{}"]}, "event 2 of the batch: an event does not have the keys"),
        ({"events": [EVENTS[1], EVENTS[0]]}, "event 1 of the batch: its seq is 2, must be 1"),
        ({"events": [EVENTS[0], OTHERS[1]]}, "event 2 of the batch: its prev_hash is"),
        ({"prev_hash": "ab" * 32}, "event 1 of the batch: its prev_hash is"),
        ({"journal": "0" * 32}, "event 1 of the batch: its journal is"),
        ({"hash": "ab" * 32}, "event 2 of the batch has the hash"),
        ({"events": [EVENTS[0], EVENTS[1].replace('"b"', '"c"')]}, "event 2 of the batch has the hash"),
        ({"site": "paris-1"}, "event 1 of the batch: its site is 'berlin-1'"),
    ],
)
def test_events_that_do_not_hold_together_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BatchError, match=words):
        batch.facts(batch.read_batch(payload(**changes)))


def test_a_kind_of_a_later_version_is_taken() -> None:
    raw = EVENTS[0].replace("machine_online", "machine_sang")
    found = batch.read_batch(payload(events=[raw], last_seq=1, hash=chain.digest(raw.encode())))
    assert batch.facts(found)[0].fields["kind"] == "machine_sang"


# Acknowledgements


def ack(**changes: Any) -> bytes:
    good = json.loads(batch.ack_payload(SITE, JOURNAL, Head(7, "ab" * 32), AT))
    return sign(PayloadType.ACK, json.dumps(good | changes).encode(), [COLLECTOR_KEY])


def test_an_acknowledgement_comes_back() -> None:
    found = batch.open_ack(ack(), ROOT)
    assert (found.site, found.journal, found.head, found.resend, found.at) == (
        SITE,
        JOURNAL,
        Head(7, "ab" * 32),
        False,
        AT,
    )
    assert batch.open_ack(ack(seq=0, hash=chain.ZERO_HASH, resend=True), ROOT).head == EMPTY


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "envelope"),
        (b" " * 5000, "at most 4096"),
        (sign(PayloadType.BATCH, b"{}", [COLLECTOR_KEY]), "the payload type is"),
        (sign(PayloadType.ACK, b"{}", [SITE_KEY]), "0 valid signatures of the collector, must have 1"),
        (sign(PayloadType.ACK, b"[]", [COLLECTOR_KEY]), "must be a JSON object"),
        (ack(seq=-1), "seq is -1"),
        (ack(seq=0), "must have 64 zeros"),
        (ack(resend=1), "resend is 1"),
        (ack(more=1), "unknown field"),
    ],
)
def test_what_is_no_acknowledgement_is_refused_in_words(raw: bytes, words: str) -> None:
    with pytest.raises(BatchError, match=words):
        batch.open_ack(raw, ROOT)


def test_without_a_collector_in_the_root_nothing_is_acknowledged() -> None:
    with pytest.raises(BatchError, match="nobody holds the role 'collector'"):
        batch.open_ack(ack(), TrustRoot.model_validate(root_document()))


def test_a_revoked_collector_acknowledges_nothing() -> None:
    keyid = ROOT.roles[Role.COLLECTOR].keyids[0]
    document = ROOT.model_dump(mode="json")
    document["revoked"] = {keyid: {"compromise": True, "reason": "lost"}}
    with pytest.raises(BatchError, match="0 valid signatures"):
        batch.open_ack(ack(), TrustRoot.model_validate(document))


def test_the_document_holds_vectors_that_are_true() -> None:
    text = (root_of_project() / "docs" / "journal.md").read_text(encoding="utf-8")
    _, event, *_ = text.split("<!-- vector -->")[1].split("```text\n")
    event = event.split("\n```")[0]
    _, made, said = text.split("<!-- batch vector -->")[1].split("```text\n")[:3]
    found = batch.read_batch(made.split("\n```")[0].encode())
    assert [fact.row.raw.decode() for fact in batch.facts(found)] == [event]
    head = Head(1, chain.digest(event.encode()))
    assert batch.pack(batch.Frame(found.site, found.journal, EMPTY), [Row(1, head.hash, event.encode())]).payloads == (
        made.split("\n```")[0].encode(),
    )
    assert batch.ack_payload(found.site, found.journal, head, AT).decode() == said.split("\n```")[0]
