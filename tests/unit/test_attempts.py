"""Connections one after the other: pauses, and what looks like two clients under one name."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.uplink.attempts import FLAPS, QUICK_S, Attempts


def failed(attempts: Attempts, now: float = 0.0) -> float:
    attempts.down(now)
    return attempts.pause_s


def test_the_pause_doubles_until_it_is_the_longest_and_stays_so_for_ever() -> None:
    attempts = Attempts(1.0, 60.0)
    assert [failed(attempts) for _ in range(8)] == [2, 4, 8, 16, 32, 60, 60, 60]
    assert {failed(attempts) for _ in range(5000)} == {60.0}
    assert not attempts.flapping, "nobody answers: that is not two clients"


def test_a_connection_that_stayed_begins_anew() -> None:
    attempts = Attempts(1.0, 60.0)
    for _ in range(9):
        attempts.down(0.0)
    attempts.up(100.0)
    assert not attempts.stays(100.0 + QUICK_S - 0.1)
    assert attempts.stays(100.0 + QUICK_S)
    assert attempts.down(100.0 + QUICK_S)
    assert attempts.pause_s == 2.0
    assert not attempts.stays(1000.0), "it is gone"


def test_what_is_lost_at_once_again_and_again_comes_back_slower_and_is_believed_later() -> None:
    attempts = Attempts(1.0, 60.0)
    for count in range(1, 3 * FLAPS):
        attempts.up(float(count))
        assert not attempts.down(count + 0.5)
        assert attempts.flapping == (count >= FLAPS)
        assert attempts.believed_after_s == (QUICK_S if count >= FLAPS else 0.0)
        assert attempts.pause_s == 2.0 ** min(count, FLAPS + 1)
    attempts.down(100.0)
    assert not attempts.flapping, "now nobody answers"


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 1e6))), st.floats(0.001, 10.0), st.floats(10.0, 1e4))
def test_a_pause_is_there_and_never_longer_than_the_longest(
    turns: list[tuple[bool, float]], first_s: float, longest_s: float
) -> None:
    attempts, now = Attempts(first_s, longest_s), 0.0
    for up, passed_s in turns:
        now += passed_s
        if up:
            attempts.up(now)
        else:
            attempts.down(now)
        assert 0.0 < attempts.pause_s <= longest_s
