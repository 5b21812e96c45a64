"""The window of sequence numbers agrees with a plain set of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.window import EMPTY, SIZE, mark, seen


@given(st.lists(st.integers(1, 3 * SIZE) | st.integers(1, 2**53), max_size=30))
def test_what_was_accepted_is_never_accepted_again(sequences: list[int]) -> None:
    high, bitmap = EMPTY
    accepted: set[int] = set()
    for sequence in sequences:
        too_late = sequence <= max(accepted, default=0) - SIZE
        assert seen(high, bitmap, sequence) == (sequence in accepted or too_late)
        high, bitmap = mark(high, bitmap, sequence)
        accepted.add(sequence)
        assert seen(high, bitmap, sequence)
        assert high == max(accepted)
        assert len(bitmap) == SIZE // 8
