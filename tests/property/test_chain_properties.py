"""Whatever is done to a chain is found, and the first break is named."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from edge.journal import chain
from edge.model.event import ClockTrust, Draft, EventKind, Stamp

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
bodies = st.dictionaries(st.text(string.ascii_lowercase), values, max_size=3)
drafts = st.builds(
    Draft,
    kind=st.sampled_from(EventKind),
    actor=st.text(),
    body=bodies,
    job_id=st.none() | st.text(),
    part=st.none() | st.integers(1, 9),
    machine=st.none() | st.text(),
)
stamps = st.builds(
    Stamp, at_wall=st.text(), at_mono_s=st.floats(0, 1e9), boot_id=st.text(), clock=st.sampled_from(ClockTrust)
)


@st.composite
def chains(draw: st.DrawFn, least: int = 1) -> list[chain.Row]:
    made: list[chain.Row] = []
    prev_hash = chain.ZERO_HASH
    for seq, draft in enumerate(draw(st.lists(drafts, min_size=least, max_size=6)), 1):
        raw, prev_hash = chain.encode("berlin-1", "j1", seq, prev_hash, draw(stamps), draft)
        made.append(chain.Row(seq, prev_hash, raw))
    return made


@given(chains())
def test_every_chain_made_here_holds_together(rows: list[chain.Row]) -> None:
    verdict = chain.verify(rows, head=chain.Head(rows[-1].seq, rows[-1].hash))
    assert verdict.ok
    assert verdict.count == len(rows)


@given(stamps, drafts)
def test_what_is_decoded_encodes_to_the_same_bytes(stamp: Stamp, draft: Draft) -> None:
    raw, digest = chain.encode("berlin-1", "j1", 1, chain.ZERO_HASH, stamp, draft)
    event = chain.decode(raw)
    again = Draft(
        event.kind, event.actor, event.body, event.job_id, event.part, event.step, event.run_id, event.machine
    )
    stamped = Stamp(event.at_wall, event.at_mono_ms / 1000 + 0.0001, event.boot_id, event.clock)
    assert chain.encode(event.site, event.journal, event.seq, event.prev_hash, stamped, again) == (raw, digest)


@given(chains(), st.data())
def test_any_changed_byte_is_found_where_it_is(rows: list[chain.Row], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    raw = bytearray(rows[index].raw)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    rows[index] = chain.Row(rows[index].seq, rows[index].hash, bytes(raw))
    verdict = chain.verify(rows)
    assert f"event {index + 1} was changed" in verdict.problem
    assert verdict.count == index


@given(chains(), st.data())
def test_a_changed_byte_is_found_even_if_its_hash_was_made_anew(rows: list[chain.Row], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    raw = bytearray(rows[index].raw)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    head = chain.Head(rows[-1].seq, rows[-1].hash)
    rows[index] = chain.Row(rows[index].seq, chain.digest(bytes(raw)), bytes(raw))
    assert not chain.verify(rows, head).ok


@given(chains(least=2), st.data())
def test_a_removed_row_is_found(rows: list[chain.Row], data: st.DataObject) -> None:
    head = chain.Head(rows[-1].seq, rows[-1].hash)
    index = data.draw(st.integers(0, len(rows) - 1))
    del rows[index]
    verdict = chain.verify(rows, head)
    assert not verdict.ok
    assert verdict.count == index


@given(chains(), st.data())
def test_a_repeated_row_is_found(rows: list[chain.Row], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    rows.insert(data.draw(st.integers(index, len(rows))), rows[index])
    assert not chain.verify(rows).ok


@given(chains(least=2), st.data())
def test_rows_in_another_order_are_found(rows: list[chain.Row], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(rows).filter(lambda other: other != rows))
    assert not chain.verify(shuffled).ok


@given(chains(least=2), st.data())
def test_two_rows_that_changed_places_and_numbers_are_found(rows: list[chain.Row], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 2))
    first, second = rows[index], rows[index + 1]
    rows[index] = chain.Row(first.seq, second.hash, second.raw)
    rows[index + 1] = chain.Row(second.seq, first.hash, first.raw)
    verdict = chain.verify(rows)
    assert verdict.count == index
