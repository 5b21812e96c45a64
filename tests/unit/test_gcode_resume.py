"""A print goes on after a crash only if everything speaks for it; each single doubt ends it, in words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from drivers.analysis import commands
from drivers.gcode.memory import HEARTBEAT, Memory, recall
from drivers.gcode.resume import MACRO_BASE, Found, Left, Standing, doubt, standing_after
from edge.driver import Run, Step
from edge.testing.context import RecordingContext

GAP_S = 60.0
LEFT = Left(
    reserved=4000,
    acked=120,
    total=1862,
    boot_id="boot",
    serial="uuid",
    at_mono_s=1000.0,
    heaters={"T": (214.0, 215.0), "B": (60.0, 60.0)},
)
FOUND = Found(
    boot_id="boot",
    serial="uuid",
    restarted=False,
    counted=124,
    at_mono_s=1010.0,
    heaters={"T": (212.0, 215.0), "B": (59.0, 60.0)},
    position_mm={"X": 10.0, "Y": 20.0, "Z": 0.3, "E": 1.0},
)
EXPECTED = Standing({"X": 10.0, "Y": 20.0, "Z": 0.3}, {"T": 215.0, "B": 60.0}, absolute=True)


def test_a_printer_that_proves_where_it_stands_goes_on() -> None:
    assert doubt(LEFT, FOUND, GAP_S, EXPECTED) == ""


@pytest.mark.parametrize("counted", [LEFT.acked, LEFT.reserved])
def test_the_counter_may_be_anywhere_from_acknowledged_to_reserved(counted: int) -> None:
    assert doubt(LEFT, dataclasses.replace(FOUND, counted=counted), GAP_S, EXPECTED) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boot_id": "another"}, "the host was booted in between"),
        ({"restarted": True}, "the printer was reset in between"),
        ({"serial": "other"}, "another printer is there: other instead of uuid"),
        ({"serial": ""}, "another printer is there: without a UUID instead of uuid"),
        ({"counted": 0}, "the printer counts from 0"),
        ({"counted": 119}, "counts line 119, it must be 120 (acknowledged) to 4000"),
        ({"counted": 4001}, "counts line 4001"),
        ({"at_mono_s": 1061.0}, "the pause was 61 s, at most 60 s are allowed"),
        ({"heaters": {"T": (212.0, 0.0), "B": (59.0, 60.0)}}, "heater T has the target 0 degC, it must be 215 degC"),
        ({"heaters": {"T": (212.0, 215.0)}}, "heater B has the target 0 degC, it must be 60 degC"),
        ({"heaters": {"T": (180.0, 215.0), "B": (59.0, 60.0)}}, "heater T has cooled to 180 degC, it was at 214 degC"),
        ({"position_mm": {"X": 10.05, "Y": 20.0, "Z": 0.3}}, "X is at 10.05 mm, the program has brought it to 10 mm"),
        ({"position_mm": {"X": 10.0, "Y": 20.0}}, "Z is not told, the program has brought it to 0.3 mm"),
    ],
)
def test_one_doubt_is_enough(change: dict[str, object], words: str) -> None:
    assert words in doubt(LEFT, dataclasses.replace(FOUND, **change), GAP_S, EXPECTED)  # type: ignore[arg-type]


def test_a_board_that_was_reset_before_the_first_heartbeat_is_not_taken_for_one_that_waits() -> None:
    left = dataclasses.replace(LEFT, acked=0, heaters={})
    assert "counts from 0" in doubt(left, dataclasses.replace(FOUND, counted=0), GAP_S, EXPECTED)


def test_a_print_that_was_held_does_not_go_on() -> None:
    left = dataclasses.replace(LEFT, held=True)
    counted = dataclasses.replace(FOUND, counted=MACRO_BASE + 7)
    assert doubt(left, counted, GAP_S, EXPECTED).startswith("the print was held")
    assert "counts line 900000007" in doubt(LEFT, counted, GAP_S, EXPECTED), "it was being stopped, or nobody knows"
    assert doubt(left, FOUND, GAP_S, EXPECTED) == "", "the program goes on, and its first heartbeat does not say so yet"


def test_a_heater_that_was_still_warming_up_may_be_as_cold_as_it_was() -> None:
    left = dataclasses.replace(LEFT, heaters={"T": (100.0, 215.0), "B": (60.0, 60.0)})
    found = dataclasses.replace(FOUND, heaters={"T": (95.0, 215.0), "B": (59.0, 60.0)})
    assert doubt(left, found, GAP_S, EXPECTED) == ""


def test_a_heater_that_the_program_never_sets_must_be_as_it_was() -> None:
    left = dataclasses.replace(LEFT, heaters={**LEFT.heaters, "C": (40.0, 40.0)})
    assert "heater C" in doubt(left, FOUND, GAP_S, EXPECTED)
    found = dataclasses.replace(FOUND, heaters={**FOUND.heaters, "C": (39.0, 40.0)})
    assert doubt(left, found, GAP_S, EXPECTED) == ""


def test_a_heater_that_is_off_may_cool() -> None:
    left = dataclasses.replace(LEFT, heaters={"T": (150.0, 0.0)})
    found = dataclasses.replace(FOUND, heaters={"T": (40.0, 0.0)})
    assert doubt(left, found, GAP_S, dataclasses.replace(EXPECTED, targets_degc={"T": 0.0})) == ""


def test_the_program_tells_position_and_targets_after_any_command() -> None:
    program = "G90\nM83\nM140 S60\nM104 S215\nG28\nG1 X10 Y20 E1\nG1 Z0.3\nM109 R210\nG92 X0\n".splitlines()
    assert standing_after(commands(program), 5) == Standing({}, {"B": 60.0, "T": 215.0}, absolute=True)
    assert standing_after(commands(program), 7) == Standing(
        {"X": 10.0, "Y": 20.0, "Z": 0.3}, {"B": 60.0, "T": 215.0}, absolute=True
    )
    assert standing_after(commands(program), 9) == Standing(
        {"X": 0.0, "Y": 20.0, "Z": 0.3}, {"B": 60.0, "T": 210.0}, absolute=True
    )


def test_just_homed_axes_need_not_fit_if_the_next_moves_are_absolute() -> None:
    homed = dataclasses.replace(EXPECTED, position_mm={})
    assert doubt(LEFT, FOUND, GAP_S, homed) == ""
    relative = dataclasses.replace(homed, absolute=False)
    assert "only the machine knows" in doubt(LEFT, FOUND, GAP_S, relative)


RUN = Run("run-1", "job-1", 1, Step("print", "fdm"), 1)


async def reserved(context: RecordingContext, number: int) -> Memory:
    memory = Memory(context, RUN, dataclasses.replace(LEFT, reserved=0))
    await memory.reserve(number, LEFT.acked, LEFT.heaters)
    return memory


def after_a_crash(context: RecordingContext) -> Run:
    """The run as edge hands it to `recover`: with the last checkpoint, through the journal's JSON."""
    return dataclasses.replace(RUN, checkpoint=json.loads(json.dumps(context.checkpoints[-1])))


async def test_a_reservation_comes_back_without_a_heartbeat(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    await reserved(context, 4000)
    left = recall(context, after_a_crash(context))
    assert isinstance(left, Left)
    assert dataclasses.replace(left, at_mono_s=LEFT.at_mono_s) == dataclasses.replace(LEFT, reserved=4000)


async def test_the_heartbeat_is_newer_and_the_reservation_is_what_counts(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    memory = await reserved(context, 4000)
    await memory.reserve(8000, 3000, {})
    memory.beat(3100, {"T": (215.0, 215.0)})
    left = recall(context, after_a_crash(context))
    assert isinstance(left, Left)
    assert (left.acked, left.reserved, left.heaters) == (3100, 8000, {"T": (215.0, 215.0)})


async def test_nothing_was_sent_without_a_reservation(tmp_path: Path) -> None:
    assert recall(RecordingContext(tmp_path), RUN) is None


@pytest.mark.parametrize(
    "heartbeat", ["", "no json", "[]", '{"run_id": "another"}', '{"run_id": "run-1", "left": {"heaters": {"T": [1]}}}']
)
async def test_a_heartbeat_that_is_broken_or_of_another_run_is_not_believed(tmp_path: Path, heartbeat: str) -> None:
    context = RecordingContext(tmp_path)
    await reserved(context, 4000)
    (tmp_path / HEARTBEAT).write_text(heartbeat)
    left = recall(context, after_a_crash(context))
    assert isinstance(left, Left)
    assert (left.acked, left.reserved) == (LEFT.acked, 4000)


async def test_a_heartbeat_of_another_boot_is_not_believed(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    Memory(context, RUN, dataclasses.replace(LEFT, boot_id="earlier")).beat(3000, LEFT.heaters)
    await reserved(context, 4000)
    left = recall(context, after_a_crash(context))
    assert isinstance(left, Left)
    assert left.acked == LEFT.acked


async def test_a_checkpoint_that_is_not_understood_is_a_doubt_and_not_nothing(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    await reserved(context, 4000)
    ours = after_a_crash(context).checkpoint
    assert isinstance(ours, dict)
    for checkpoint in ({"heaters": {}}, 7, {**ours, "format": 2}, {**ours, "more": 1}, {**ours, "heaters": []}):
        left = recall(context, dataclasses.replace(RUN, checkpoint=checkpoint))
        assert left == "what the last daemon wrote down about the print is not understood by this version"


async def test_the_newer_of_heartbeat_and_reservation_tells_the_time(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    memory = await reserved(context, 4000)
    memory.beat(100, {})
    before = context.clock.mono_s()
    await memory.reserve(8000, 300, {})
    left = recall(context, after_a_crash(context))
    assert isinstance(left, Left)
    assert (left.acked, left.at_mono_s >= before) == (300, True)


def test_a_heater_that_was_never_heard_of_must_have_the_programs_target() -> None:
    left = dataclasses.replace(LEFT, heaters={})
    assert "heater B has the target 0 degC, it must be 60 degC" in doubt(
        left, dataclasses.replace(FOUND, heaters={}), GAP_S, EXPECTED
    )
    assert doubt(left, FOUND, GAP_S, EXPECTED) == ""


@pytest.mark.parametrize(
    ("program", "homed"),
    [
        (["G28"], True),
        (["M104 S200", "G1 Z5"], False),
        (["G28 X Y"], False),
        (["G28 X0 Y0", "G28 Z"], True),
        (["G28 W"], True),
        (["G28", "M84"], False),
        (["G28", "M84 S60"], True),
        (["G28", "M18 E"], True),
        (["G28", "M84 Z"], False),
        (["G28", "M84", "G28"], True),
        (["G280", "M184", "G28.1"], False),
    ],
    ids=str,
)
def test_a_program_has_homed_what_it_has_named_and_not_released(program: list[str], homed: bool) -> None:
    assert standing_after(program, len(program)).homed is homed
