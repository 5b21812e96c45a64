"""The simulated robot cell in simulated time."""

from __future__ import annotations

import pytest

from hil_sim.robot.cell import BUILT_IN, READY_S, Cell, CellError, Reason, State, parse


class Bench:
    """A cell, its log, and a clock that a test moves."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.cell = Cell(lambda _at_s, line, text: self.log.append((line, text)))
        self.now_s = 0.0

    def wait(self, seconds: float) -> Cell:
        self.now_s += seconds
        self.cell.advance(self.now_s)
        return self.cell

    def ready(self, program: str = BUILT_IN["load-mill"]) -> None:
        assert self.cell.get_ready(self.now_s)
        self.wait(READY_S)
        assert self.cell.load("p", program, self.now_s)


def test_getting_ready_takes_its_time() -> None:
    bench = Bench()
    assert bench.cell.get_ready(0.0)
    assert not bench.cell.get_ready(0.0)
    assert bench.wait(READY_S - 0.1).system is State.IDLE
    assert bench.wait(0.2).system is State.READY


def test_a_program_moves_a_part_from_station_to_station() -> None:
    bench = Bench()
    bench.ready()
    assert bench.cell.start(bench.now_s)
    assert bench.cell.task is State.EXECUTING
    assert bench.wait(6.0).gripper == "blank-1"
    assert bench.cell.payload_kg == pytest.approx(1.2)
    cell = bench.wait(60.0)
    assert (cell.stations["magazine"], cell.stations["mill"], cell.gripper) == ("", "blank-1", "")
    assert (cell.task, cell.system, cell.reason, cell.runs) == (State.READY, State.READY, Reason.APPLICATION, 1)
    assert [text for line, text in bench.log if line != "!"] == BUILT_IN["load-mill"].splitlines()


def test_stop_stands_on_the_path_and_start_goes_on_from_there() -> None:
    bench = Bench()
    bench.ready()
    bench.cell.start(bench.now_s)
    bench.wait(2.0)
    assert bench.cell.stop(bench.now_s)
    assert bench.cell.stopping
    cell = bench.wait(1.0)
    assert (cell.task, cell.stopped_midway, cell.stopping) == (State.READY, True, False)
    axes = cell.axes_deg()
    assert bench.wait(100.0).axes_deg() == axes
    assert cell.start(bench.now_s)
    assert bench.wait(60.0).runs == 1
    assert [text for line, text in bench.log if line != "!"] == BUILT_IN["load-mill"].splitlines()


def test_reset_goes_back_to_the_start_of_the_program() -> None:
    bench = Bench()
    bench.ready("wait 5\nwait 5\n")
    assert not bench.cell.reset(bench.now_s)
    bench.cell.start(bench.now_s)
    bench.wait(6.0)
    bench.cell.stop(bench.now_s)
    bench.wait(1.0)
    assert bench.cell.reset(bench.now_s)
    bench.cell.start(bench.now_s)
    assert bench.wait(9.9).runs == 0
    assert bench.wait(0.2).runs == 1


def test_requests_out_of_turn_change_nothing() -> None:
    cell = Bench().cell
    assert not cell.start(0.0)
    assert not cell.stop(0.0)
    assert not cell.stand_down(0.0)
    assert not cell.unload(0.0)
    assert (cell.system, cell.task) == (State.IDLE, State.IDLE)


def test_a_safety_function_stands_at_once_and_needs_motors_again() -> None:
    bench = Bench()
    bench.ready()
    bench.cell.start(bench.now_s)
    bench.wait(2.0)
    bench.cell.halt(bench.now_s, "emergency stop")
    cell = bench.wait(100.0)
    assert (cell.system, cell.task, cell.reason) == (State.IDLE, State.READY, Reason.SYSTEM)
    assert not cell.start(bench.now_s)
    assert cell.get_ready(bench.now_s)
    bench.wait(READY_S)
    assert cell.start(bench.now_s)
    assert bench.wait(60.0).runs == 1


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("move tray\npick tray\n", "nothing to pick"),
        ("move tray\nplace tray\n", "cannot place"),
        ("payload 9\n", "more than 5 kg"),
    ],
)
def test_what_cannot_be_done_is_an_error_of_the_program(program: str, why: str) -> None:
    bench = Bench()
    bench.ready(program)
    bench.cell.start(bench.now_s)
    cell = bench.wait(60.0)
    assert why in cell.error
    assert (cell.task, cell.reason, cell.runs) == (State.READY, Reason.ERROR, 0)


@pytest.mark.parametrize("program", ["", "# nothing\n", "jump tray\n", "pick home\n", "move roof\n", "wait long\n"])
def test_what_is_no_program_is_refused(program: str) -> None:
    with pytest.raises(CellError):
        parse(program)


def test_without_power_the_program_is_gone_and_parts_stay() -> None:
    bench = Bench()
    bench.ready()
    bench.cell.start(bench.now_s)
    bench.wait(6.0)
    bench.cell.power_up()
    cell = bench.wait(60.0)
    assert (cell.program, cell.task, cell.system, cell.stations["magazine"]) == ("", State.IDLE, State.IDLE, "")
