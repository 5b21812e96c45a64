"""A compact move says what the program says: word for word, and each number the same decimal number.

Its parts are read here by `decimal.Decimal`, and by C's ``strtod`` as a firmware that looks out for nothing uses it.
"""

from __future__ import annotations

import ctypes
import ctypes.util

from hypothesis import example, given
from hypothesis import strategies as st

from drivers.gcode.compact import compact
from edge.demo.meaning import words

numbers = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-", "+"]),
        st.one_of(
            st.from_regex(r"[0-9]{1,6}", fullmatch=True),
            st.from_regex(r"[0-9]{0,3}\.[0-9]{1,6}", fullmatch=True),
            st.from_regex(r"[0-9]{1,3}\.", fullmatch=True),
            st.sampled_from(["0", "00", "0.0", ".0", "000.500", "10", "100.", "0.05"]),
        ),
    ),
)
moves = st.builds(
    lambda code, parts: " ".join([code, *("".join(part) for part in parts)]),
    st.sampled_from(["G0", "G1", "G2", "G3"]),
    st.lists(st.tuples(st.sampled_from("XYZEFIJRS"), numbers), min_size=1, max_size=8),
)

_c = ctypes.CDLL(ctypes.util.find_library("c"))
_c.strtod.restype = ctypes.c_double
_c.strtod.argtypes = [ctypes.c_char_p, ctypes.c_void_p]


def read_as_c(command: str) -> list[tuple[str, float]]:
    """Each letter with what ``strtod`` makes of the bytes behind it."""
    data = command.encode()
    return [(chr(byte), _c.strtod(data[at + 1 :], None)) for at, byte in enumerate(data) if chr(byte).isalpha()]


@given(moves)
@example("G1 X0 E0 X1 E1")
@example("G0 X5")
def test_the_words_are_the_same_in_the_same_order_and_each_number_is_the_same(command: str) -> None:
    assert words(compact(command)) == words(command)


@given(moves)
@example("G1 X1 E5")
@example("G1 X1 E-5")
@example("G1 E0 X10")
@example("G0 X10")
def test_no_number_runs_on_into_the_next_word(command: str) -> None:
    assert read_as_c(compact(command)) == read_as_c(command)


@given(moves)
def test_it_is_never_longer_and_has_no_shorter_form_of_its_own(command: str) -> None:
    short = compact(command)
    assert len(short) <= len(command)
    assert compact(short) == short


@given(st.text(alphabet=' XYZEFIJRSGMTN0123456789.-+*;"{}[]()exyg\t\u0663', max_size=30))
def test_what_is_no_plain_move_stays_byte_for_byte_and_the_rest_means_the_same(text: str) -> None:
    for command in (text, f"G1 {text}"):
        short = compact(command)
        assert short == command or words(short) == words(command)
