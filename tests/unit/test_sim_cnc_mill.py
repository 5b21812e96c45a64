"""The simulated mill in simulated time."""

from __future__ import annotations

import pytest

from hil_sim.cnc.mill import IDLE_LOAD, MAX_ACTIONS, TOOL_LIFE_MIN, Mill, ProgramState

START = ["G0 X0 Y0 Z0", "T1 M6", "S5000 M3"]


class Bench:
    """A mill, its log, and a clock that a test moves."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.mill = Mill(lambda _at_s, line, text: self.log.append((line, text)))
        self.now_s = 0.0

    def start(self, *lines: str) -> None:
        self.mill.start("part.nc", lines, self.now_s)

    def wait(self, seconds: float) -> Mill:
        self.now_s += seconds
        self.mill.advance(self.now_s)
        return self.mill


def test_a_program_ends_after_its_time_and_not_before() -> None:
    bench = Bench()
    bench.start("G53 G1 X100 F600", "M30")
    assert bench.wait(9.9).running
    assert bench.mill.position()[0] == pytest.approx(99.0)
    assert bench.wait(0.2).state is ProgramState.ENDED
    assert [each.state for each in bench.mill.happenings] == [ProgramState.ENDED]
    assert bench.log[-1] == ("!", "ended end")


def test_many_short_moves_take_exactly_their_time() -> None:
    bench = Bench()
    bench.start("G91", *["G1 X0.1 F600", "X-0.1"] * 5000, "M30")
    for _ in range(20):
        mill = bench.wait(4.99)
    assert mill.running
    assert bench.wait(0.3).state is ProgramState.ENDED


def test_one_look_does_not_do_more_than_it_may() -> None:
    bench = Bench()
    bench.start("G91", *["G1 X0.1 F600", "X-0.1"] * 5000, "M30")
    assert bench.wait(1000.0).running
    assert MAX_ACTIONS - 10 < bench.mill.line < 2 * MAX_ACTIONS
    bench.mill.hold(bench.now_s, "test")
    line = bench.mill.line
    assert bench.wait(1000.0).line == line


def test_a_hold_stands_in_mid_move_and_goes_on_from_there() -> None:
    bench = Bench()
    bench.start("G53 G1 X100 F600", "M30")
    bench.wait(5.0)
    bench.mill.hold(bench.now_s, "test")
    assert bench.wait(1000.0).position()[0] == pytest.approx(50.0)
    assert bench.mill.feed_mm_per_min() == 0.0
    bench.mill.resume(bench.now_s)
    assert bench.wait(4.9).running
    assert bench.wait(0.2).state is ProgramState.ENDED


def test_the_override_changes_feed_and_not_rapids() -> None:
    bench = Bench()
    bench.mill.override = 50.0
    bench.start("G53 G0 X200", "G53 G1 X100 F600", "M30")
    bench.wait(1.0)
    assert bench.wait(19.9).running
    assert bench.mill.feed_mm_per_min() == pytest.approx(300.0)
    assert bench.wait(0.2).state is ProgramState.ENDED


def test_a_programmed_stop_waits_for_a_person() -> None:
    bench = Bench()
    bench.start("M0", "M30")
    assert bench.wait(1000.0).state is ProgramState.INTERRUPTED
    bench.mill.resume(bench.now_s)
    assert bench.wait(0.1).state is ProgramState.ENDED


def test_load_is_that_of_the_cut() -> None:
    bench = Bench()
    bench.start(*START, "G4 P5", "G1 X100 F3000", "M30")
    bench.wait(10.0)
    assert bench.mill.load_percent() == IDLE_LOAD
    bench.wait(3.0)
    assert bench.mill.load_percent() > IDLE_LOAD
    assert bench.wait(100.0).load_percent() == 0.0


def test_a_tool_wears_and_stops_the_program_when_it_is_worn_out() -> None:
    bench = Bench()
    bench.mill.used_min[1] = TOOL_LIFE_MIN - 0.1
    bench.start(*START, "G1 X100 F100", "X0", "M30")
    assert bench.wait(80.0).state is ProgramState.INTERRUPTED
    assert "tool life" in bench.mill.happenings[0].alarm
    bench.mill.resume(bench.now_s)
    assert bench.wait(80.0).state is ProgramState.ENDED, "a person may let it finish"
    bench.start(*START, "M30")
    assert bench.wait(10.0).state is ProgramState.ABORTED
    assert "tool 1 is broken or worn out" in bench.mill.happenings[-1].alarm


@pytest.mark.parametrize(
    ("line", "why"), [("T9 M6", "not in the magazine"), ("G0 X999", "outside"), ("G99.5", "known")]
)
def test_what_goes_wrong_ends_the_program_there(line: str, why: str) -> None:
    bench = Bench()
    bench.start("G53 G0 X10", line, "M30")
    mill = bench.wait(10.0)
    assert mill.state is ProgramState.ABORTED
    assert why in mill.happenings[-1].alarm
    assert mill.position()[0] == pytest.approx(10.0)
    assert "M30" not in [text for _, text in bench.log]


def test_giving_up_leaves_the_tool_where_it_is() -> None:
    bench = Bench()
    bench.start("G53 G1 X100 F600", "M30")
    bench.wait(5.0)
    bench.mill.end(ProgramState.ABORTED, bench.now_s, "Stop")
    assert bench.wait(10.0).position()[0] == pytest.approx(50.0)
    assert bench.mill.state is ProgramState.ABORTED
    assert bench.mill.happenings == []


def test_without_power_nothing_is_active_and_tools_keep_their_wear() -> None:
    bench = Bench()
    bench.mill.used_min[2] = 7.0
    bench.start("G53 G1 X100 F600", "M30")
    bench.wait(5.0)
    bench.mill.power_up()
    assert bench.wait(100.0).state is ProgramState.INITIALIZING
    assert (bench.mill.program, bench.mill.used_min[2]) == ("", 7.0)
