"""What others do at a printer, by what it says."""

from __future__ import annotations

import pytest

from drivers.gcode.others import Others, tells_of_card
from drivers.gcode.replies import parse
from edge.driver import ForeignWork


@pytest.fixture
def told() -> list[ForeignWork]:
    return []


@pytest.fixture
def others(told: list[ForeignWork]) -> Others:
    return Others(told.append)


def hear(others: Others, *lines: str, now_s: float = 10.0) -> None:
    for line in lines:
        for reply in parse(line):
            others.heard(reply, now_s, 6.0)


def heat(others: Others, name: str, target_degc: float) -> None:
    """Two reports say so."""
    others.heated(name, 0.0, target_degc)
    others.heated(name, target_degc, target_degc)


def test_a_print_from_the_card_is_told_once_with_its_file(others: Others, told: list[ForeignWork]) -> None:
    hear(
        others,
        "Not SD printing",
        "echo:Now fresh file: CUP~1.GCO",
        "File opened: CUP~1.GCO Size: 60000",
        "File selected",
    )
    assert (told, others.doing(10.0)) == ([], "")
    hear(others, "SD printing byte 0/60000", "SD printing byte 9000/60000")
    assert [work.detail for work in told] == ["somebody printed CUP~1.GCO from the printer's SD card"]
    assert others.doing(10.0) == others.prints == "somebody prints CUP~1.GCO from the SD card"
    hear(others, "Done printing file")
    assert (others.doing(10.0), others.prints) == ("", "")


def test_the_next_print_is_another_piece_of_work_and_may_have_no_name(others: Others, told: list[ForeignWork]) -> None:
    for _ in range(2):
        hear(others, "SD printing byte 5/60000", "Not SD printing")
    assert [work.detail for work in told] == ["somebody printed something from the printer's SD card"] * 2
    assert told[0].token != told[1].token
    assert all(len(work.token) == 32 for work in told)


def test_a_card_without_a_file_prints_nothing(others: Others, told: list[ForeignWork]) -> None:
    hear(others, "SD printing byte 0/0")
    assert (told, others.prints) == ([], "")


def test_a_file_that_is_open_may_be_a_print_that_stands_paused(others: Others, told: list[ForeignWork]) -> None:
    hear(others, "Not SD printing", "Current file: CUP~1.GCO cup.gcode")
    words = (
        "the file CUP~1.GCO cup.gcode of the SD card is open, so a print of it may stand paused; end it at the printer"
    )
    assert (others.doing(10.0), others.prints, others.is_open) == (words, "", True)
    assert [work.detail for work in told] == ["somebody has begun CUP~1.GCO cup.gcode from the printer's SD card"]
    hear(others, "Not SD printing", "Current file: CUP~1.GCO cup.gcode")
    assert len(told) == 1
    hear(others, "SD printing byte 7/60000")
    assert others.prints == "somebody prints something from the SD card"
    hear(others, "Not SD printing", "Current file: (no file)")
    assert (others.doing(10.0), others.is_open, len(told)) == ("", False, 1)
    hear(others, "SD printing byte 7/60000")
    assert len(told) == 2, "that is another print"


def test_prusa_tells_of_a_paused_print_itself(others: Others, told: list[ForeignWork]) -> None:
    hear(others, "SD print paused")
    assert others.prints == others.doing(10.0) == "somebody's print from the SD card is paused"
    assert [work.detail for work in told] == ["somebody printed something from the printer's SD card"]
    hear(others, "SD printing byte 7/60000", "SD print paused", "Not SD printing")
    assert (others.doing(10.0), len(told)) == ("", 1)
    hear(others, "Print saved")
    assert (others.doing(10.0), others.prints) == ("a print of a host stands paused in it; end it at the printer", "")
    hear(others, "Not SD printing")
    assert (others.doing(10.0), len(told)) == ("", 1)


@pytest.mark.parametrize("answer", ["Not SD printing", "SD printing byte 1/2", "SD print paused", "Print saved"])
def test_what_answers_a_question_for_the_card(answer: str) -> None:
    assert tells_of_card(*parse(answer))
    assert not tells_of_card(*parse("Current file: (no file)"))


def test_busy_is_somebody_for_a_while_and_leaves_nothing_behind(others: Others, told: list[ForeignWork]) -> None:
    hear(others, "echo:busy: processing", "X:0.00 Y:0.00 Z:0.00 E:0.00")
    assert others.doing(15.9) == "busy with what somebody asked for at the printer"
    assert (others.doing(16.0), told) == ("", [])


def test_a_nozzle_that_is_heated_is_work_and_a_bed_is_not(others: Others, told: list[ForeignWork]) -> None:
    others.heated("B", 0.0, 60.0)
    others.heated("T", 200.0, 215.0)
    others.heated("T", 215.0, 0.0)
    assert told == []
    others.heated("T0", 0.0, 4.0)
    others.heated("T0", 4.0, 0.0)
    assert told == [], "one report may have been changed on its way"
    heat(others, "T0", 215.0)
    (work,) = told
    assert work.detail == "somebody heated the nozzle to 215 degC at the printer while no run was going on"


def test_two_names_of_a_nozzle_are_heated_once_until_both_are_off(others: Others, told: list[ForeignWork]) -> None:
    for _ in range(2):
        heat(others, "T", 215.0)
        heat(others, "T0", 215.0)
        others.heated("T", 215.0, 0.0)
        heat(others, "T", 215.0)
    assert len(told) == 1
    for name in ("T", "T0"):
        others.heated(name, 215.0, 0.0)
    heat(others, "T", 200.0)
    assert len(told) == 2


def test_a_print_that_is_seen_to_heat_before_it_is_asked_for_is_told_by_its_file(
    others: Others, told: list[ForeignWork]
) -> None:
    hear(others, "File opened: CUP~1.GCO Size: 60000")
    heat(others, "T", 215.0)
    assert (others.prints, len(told)) == ("", 1)
    hear(others, "SD printing byte 5/60000")
    assert [work.detail for work in told] == ["somebody printed CUP~1.GCO from the printer's SD card"]


def test_a_print_from_the_card_is_not_told_a_second_time_when_it_heats(others: Others, told: list[ForeignWork]) -> None:
    hear(others, "SD printing byte 5/60000")
    heat(others, "T", 215.0)
    assert len(told) == 1
