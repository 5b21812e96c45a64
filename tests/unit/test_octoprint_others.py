"""Whose print OctoPrint carries out: ours, somebody else's, or one that edge has not asked about yet."""

from __future__ import annotations

import pytest

from drivers.octoprint.api import Job
from drivers.octoprint.others import OthersPrints
from edge.driver import ForeignWork

CUP, RUN, OTHER = "cup.gcode", "edge/run-1.gcode", "edge/run-2.gcode"


def printing(path: str) -> Job:
    return Job(state="Printing", path=path, by="ada")


IDLE = Job(state="Operational")


@pytest.fixture
def told() -> list[ForeignWork]:
    return []


@pytest.fixture
def others(told: list[ForeignWork]) -> OthersPrints:
    return OthersPrints(told.append)


def test_each_print_is_told_once_with_a_name_of_its_own(others: OthersPrints, told: list[ForeignWork]) -> None:
    for job in (printing(CUP), printing(CUP), IDLE, printing(CUP), printing("box.gcode")):
        others.seen(job)
    assert [work.detail.split()[2] for work in told] == [CUP, CUP, "box.gcode"]
    assert len({work.token for work in told}) == 3


def test_a_print_without_a_name_is_one_print(others: OthersPrints, told: list[ForeignWork]) -> None:
    for _ in range(3):
        others.seen(printing(""))
    assert [work.detail for work in told] == ["ada printed something in OctoPrint"]


def test_ours_is_not_told_also_if_it_is_seen_before_edge_asks(others: OthersPrints, told: list[ForeignWork]) -> None:
    others.seen(printing(RUN))
    others.claimed(RUN)
    for job in (printing(RUN), IDLE):
        others.seen(job)
    assert told == []


def test_one_from_our_folder_that_edge_never_asks_about_is_told_at_its_end(
    others: OthersPrints, told: list[ForeignWork]
) -> None:
    others.claimed(OTHER)
    others.seen(printing(RUN))
    assert told == []
    others.seen(IDLE)
    assert [work.detail.split()[2] for work in told] == [RUN]


def test_a_print_right_behind_one_that_nobody_has_claimed_is_told_too(
    others: OthersPrints, told: list[ForeignWork]
) -> None:
    others.seen(printing(RUN))
    others.seen(printing(CUP))
    assert [work.detail.split()[2] for work in told] == [RUN, CUP]


def test_who_prints_our_file_once_more_is_somebody_else(others: OthersPrints, told: list[ForeignWork]) -> None:
    others.seen(printing(RUN))
    others.claimed(RUN)
    others.over(RUN)
    others.seen(printing(RUN))
    assert [work.detail.split()[2] for work in told] == [RUN]
