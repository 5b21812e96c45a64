"""What a program before, or a person at the printer, has left behind does not change what the next program means."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.gcode import PLUGIN
from edge.driver import OutcomeKind
from edge.testing import RecordingContext
from tests.helpers.printing import RUN, bench_machine, commands_in, program_of, write_program
from tests.helpers.sim import sim_printer

PROGRAM = ["G28", "G1 X100 F6000", "G1 X50", "G1 Y20"]
MODES = ["G21", "G90", "M82", "G17", "M220 S100", "M221 S100"]


@pytest.mark.parametrize("left", [["G91"], ["M83"], ["G91", "M83"]], ids=" ".join)
async def test_modes_that_were_left_behind_do_not_move_the_next_program(tmp_path: Path, left: list[str]) -> None:
    first = write_program(tmp_path / "first.gcode", ["G28", "G1 X10 F6000", *left])
    second = write_program(tmp_path / "second.gcode", PROGRAM)
    with sim_printer(tmp_path) as printer:
        async with PLUGIN.open(bench_machine(printer), RecordingContext(tmp_path)) as driver:
            assert (await driver.execute(RUN, first)).kind is OutcomeKind.SUCCEEDED
            outcome = await driver.execute(RUN, second)
        assert outcome.kind is OutcomeKind.SUCCEEDED, outcome.reason
        assert outcome.evidence["position_mm"] == pytest.approx({"X": 50, "Y": 20, "Z": 0, "E": 0}, abs=0.01)
        assert program_of(printer) == commands_in(second.path)
        assert printer.modes() == MODES * 2
