"""Event bytes and the hash chain."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge.errors import CorruptJournalError
from edge.journal import chain
from edge.model.event import ClockTrust, Draft, EventKind, Stamp
from tests.journal_kit import SITE, root_of_project

STAMP = Stamp("2026-11-21T10:00:00.000Z", 12.3456, "boot-1", ClockTrust.FLOOR)
DRAFT = Draft(EventKind.MACHINE_ONLINE, "runner", {"firmware": "Marlin 2.1"}, machine="prn-1")


def event_bytes(**changes: object) -> bytes:
    raw, _ = chain.encode(SITE, "j1", 1, chain.ZERO_HASH, STAMP, DRAFT)
    document = json.loads(raw)
    document.update(changes)
    return json.dumps(document).encode()


def rows(count: int, site: str = SITE) -> list[chain.Row]:
    made: list[chain.Row] = []
    last = chain.EMPTY
    for seq in range(1, count + 1):
        raw, digest = chain.encode(site, "j1", seq, last.hash, STAMP, DRAFT)
        made.append(chain.Row(seq, digest, raw))
        last = chain.Head(seq, digest)
    return made


def test_an_event_comes_back_from_its_bytes_as_it_was() -> None:
    draft = Draft(EventKind.RUN_BEGAN, "runner", {"attempt": 1}, "job", 2, "print", "run-1", "prn-1")
    raw, digest = chain.encode(SITE, "j1", 7, "ab" * 32, STAMP, draft)
    event = chain.decode(raw)
    assert (event.raw, event.hash, event.seq, event.prev_hash) == (raw, digest, 7, "ab" * 32)
    assert (event.site, event.journal, event.actor, event.kind) == (SITE, "j1", "runner", EventKind.RUN_BEGAN)
    assert (event.job_id, event.part, event.step, event.run_id, event.machine) == ("job", 2, "print", "run-1", "prn-1")
    assert (event.at_wall, event.at_mono_ms, event.boot_id, event.clock) == (STAMP.at_wall, 12345, "boot-1", "floor")
    assert event.body == {"attempt": 1}


def test_the_bytes_have_the_documented_keys_in_their_order() -> None:
    raw, _ = chain.encode(SITE, "j1", 1, chain.ZERO_HASH, STAMP, DRAFT)
    assert tuple(json.loads(raw)) == chain.KEYS
    assert b": " not in raw


def test_the_document_of_the_bytes_holds_a_vector_that_is_true() -> None:
    text = (root_of_project() / "docs" / "journal.md").read_text(encoding="utf-8")
    _, raw, _, digest, *_ = text.split("<!-- vector -->")[1].replace("```text", "```").split("```")
    assert chain.digest(raw.strip().encode()) == digest.strip()
    event = chain.decode(raw.strip().encode())
    assert event.seq == 1
    assert event.prev_hash == chain.ZERO_HASH


def test_text_that_utf_8_cannot_express_does_not_stop_a_fact() -> None:
    draft = replace(DRAFT, body={"reply": "ok \udcff"})
    raw, _ = chain.encode(SITE, "j1", 1, chain.ZERO_HASH, STAMP, draft)
    assert chain.decode(raw).body == {"reply": "ok ?"}


def test_what_a_machine_says_at_length_is_cut_so_that_it_can_be_reported() -> None:
    body = {"outcome": "FAILED", "reason": "\0" * 3_000_000, "evidence": {"said": ["x"] * 500_000, "code": 7}}
    raw, _ = chain.encode(SITE, "j1", 1, chain.ZERO_HASH, STAMP, replace(DRAFT, body=body))
    found = chain.decode(raw).body
    assert len(raw) < 64 * 1024
    assert found["outcome"] == "FAILED"
    assert found["reason"] == "\0" * 4096 + "… (3000000 characters)"
    assert found["evidence"]["shortened"].startswith('{"said": ["x", "x", ')
    assert found["evidence"]["shortened"].endswith("… (2500021 characters)")


def test_what_is_large_and_can_be_reported_is_kept_as_it_is() -> None:
    body = {"envelope": "x" * 1_000_000}
    raw, _ = chain.encode(SITE, "j1", 1, chain.ZERO_HASH, STAMP, replace(DRAFT, body=body))
    assert chain.decode(raw).body == body


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"deep": {1, 2}}])
def test_a_body_that_is_not_json_is_our_bug_and_raises(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        chain.encode(SITE, "j1", 1, chain.ZERO_HASH, STAMP, replace(DRAFT, body={"value": value}))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\xff", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"site":"a","site":"b"}', "twice"),
        (b"[]", "keys of an event"),
        (b"{}", "keys of an event"),
        (event_bytes(extra=1), "keys of an event"),
        (event_bytes(seq="1"), "'seq' is"),
        (event_bytes(seq=True), "'seq' is"),
        (event_bytes(seq=None), "'seq' is null"),
        (event_bytes(at_mono_ms=1.5), "'at_mono_ms' is 1.5"),
        (event_bytes(actor=3), "'actor' is 3"),
        (event_bytes(body=[]), "'body' is"),
        (event_bytes(body=float("nan")), "NaN is not JSON"),
        (event_bytes(kind="hello"), "'hello' is not a valid"),
        (event_bytes(clock="fast"), "'fast' is not a valid"),
        (event_bytes(job_id="\ud800"), "half of a surrogate pair"),
        (event_bytes(body={"\udc00": 1}), "half of a surrogate pair"),
        (event_bytes(body={"x": {"site": "munich-1"}}).replace(b'{"site": "m', b'\n{"site": "m'), "control character"),
        (event_bytes() + b"\t", "control character"),
    ],
)
def test_bytes_that_are_no_event_are_refused_in_words(raw: bytes, words: str) -> None:
    with pytest.raises(CorruptJournalError, match=words):
        chain.decode(raw)


def test_every_whole_character_may_stand_in_an_event() -> None:
    text = "line\nfeed, tab\t, nul\0, pair \U0001f600, and what only looks like half of one: \\ud800"
    raw, _ = chain.encode(SITE, "j1", 1, chain.ZERO_HASH, STAMP, replace(DRAFT, body={"text": text}))
    assert chain.decode(raw).body == {"text": text}
    assert chain.decode(event_bytes(body={"text": text})).body == {"text": text}, "spelled with escapes"


def test_a_chain_that_holds_together_says_how_far_it_goes() -> None:
    made = rows(5)
    verdict = chain.verify(made, head=chain.Head(5, made[-1].hash))
    assert verdict.ok
    assert (verdict.count, verdict.head) == (5, chain.Head(5, made[-1].hash))


def test_an_empty_chain_is_good_unless_more_is_expected() -> None:
    assert chain.verify([]) == chain.Verdict(0, chain.EMPTY)
    assert "expected event 3" in chain.verify([], head=chain.Head(3, "ab" * 32)).problem


def test_a_tail_that_was_cut_off_shows_against_the_known_head() -> None:
    made = rows(5)
    assert chain.verify(made[:4]).ok
    assert "ends with event 4" in chain.verify(made[:4], head=chain.Head(5, made[-1].hash)).problem


def test_a_row_under_another_number_is_found() -> None:
    made = rows(2)
    raw, digest = chain.encode(SITE, "j1", 9, made[1].hash, STAMP, DRAFT)
    assert "says of itself that it is event 9" in chain.verify([*made, chain.Row(3, digest, raw)]).problem


def test_an_event_of_another_journal_is_found() -> None:
    made = rows(2)
    raw, digest = chain.encode("paris-1", "j1", 3, made[1].hash, STAMP, DRAFT)
    assert "another journal: paris-1/j1" in chain.verify([*made, chain.Row(3, digest, raw)]).problem


def test_an_event_that_hangs_on_another_is_found() -> None:
    made = rows(2)
    raw, digest = chain.encode(SITE, "j1", 3, made[0].hash, STAMP, DRAFT)
    assert "does not follow event 2" in chain.verify([*made, chain.Row(3, digest, raw)]).problem


def test_a_row_whose_bytes_are_no_event_is_found() -> None:
    verdict = chain.verify([chain.Row(1, chain.digest(b"{}"), b"{}")])
    assert verdict.problem.startswith("event 1: ")
