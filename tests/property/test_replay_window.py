"""A replay window agrees with a set that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import FormatError
from edge.replay import WINDOW, ReplayWindow

# Small numbers meet often, steps around the window's width fall off its edge, huge ones jump.
NUMBERS = st.lists(
    st.one_of(
        st.integers(1, 40), st.integers(WINDOW - 8, WINDOW + 48), st.integers(1, 5000), st.integers(1, 2**53 - 1)
    ),
    max_size=60,
)


def remembers(used: set[int], number: int) -> bool:
    """Rules 1 to 3 of the module, by a set."""
    high = max(used, default=0)
    return number > high or (number > high - WINDOW and number not in used)


@given(NUMBERS, NUMBERS)
def test_a_window_agrees_with_a_set_after_any_numbers(numbers, probes):
    window, used = ReplayWindow(), set()
    for number in numbers:
        assert window.check(number) == remembers(used, number)
        if window.check(number):
            window = window.mark(number)
            used.add(number)
        assert not window.check(number)
    for probe in probes:
        assert window.check(probe) == remembers(used, probe)


@given(NUMBERS)
def test_a_window_comes_back_from_its_bytes(numbers):
    window = ReplayWindow()
    for number in numbers:
        if window.check(number):
            window = window.mark(number)
    stored = window.to_bytes()
    assert len(stored) == 136
    assert ReplayWindow.from_bytes(stored) == window


@given(NUMBERS)
def test_using_a_number_makes_no_other_new(numbers):
    window, refused = ReplayWindow(), set()
    for number in numbers:
        if window.check(number):
            window = window.mark(number)
        refused.add(number)
        assert not any(window.check(old) for old in refused)


def test_order_42_after_43_is_not_lost():
    window = ReplayWindow().mark(43)
    assert window.check(42)
    assert not window.mark(42).check(42)


def test_the_window_is_1024_wide():
    window = ReplayWindow().mark(2000)
    assert window.check(2000 - 1023)
    assert not window.check(2000 - 1024)


@pytest.mark.parametrize("number", [0, -1, 7])
def test_a_number_that_is_not_new_cannot_be_marked(number):
    with pytest.raises(ValueError, match="is not new"):
        ReplayWindow().mark(7).mark(number)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        bytes(135),
        bytes(137),
        (5).to_bytes(8, "big") + bytes(128),  # a highest number that was not used
        bytes(8) + (1).to_bytes(128, "big"),  # a used number in a series that has not begun
        (2).to_bytes(8, "big") + (0b101).to_bytes(128, "big"),  # number 0 used
    ],
)
def test_bytes_of_no_window_are_refused(stored):
    with pytest.raises(FormatError, match="replay window"):
        ReplayWindow.from_bytes(stored)
