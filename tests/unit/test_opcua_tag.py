"""What a controller without job management keeps of a run's id, in a variable of ours."""

from __future__ import annotations

import secrets

import pytest

from drivers.opcua.mapped import tag_of

RUN = "0123456789abcdef0123456789abcdef"


def test_a_text_has_all_of_it() -> None:
    assert tag_of(RUN, 0) == RUN


@pytest.mark.parametrize("bits", [7, 8, 15, 16, 31, 32, 63, 64])
def test_a_number_fits_its_variable_and_is_not_what_nobody_has_written(bits: int) -> None:
    tags = {tag_of(secrets.token_hex(16), bits) for _ in range(2000)}
    assert all(isinstance(tag, int) and 0 < tag < 2**bits for tag in tags)
    assert tag_of(RUN, bits) == tag_of(RUN, bits), "also after a restart"


def test_two_runs_have_different_numbers() -> None:
    """Of 3000 there are 0.002 pairs on average with the same 31 bits."""
    ids = [secrets.token_hex(16) for _ in range(3000)]
    assert len({tag_of(each, 31) for each in ids}) >= 2999
    assert len({tag_of(f"{number:032x}", 31) for number in range(3000)}) == 3000, "every digit counts"
    assert len({tag_of(f"{number << 64:032x}", 31) for number in range(3000)}) == 3000
