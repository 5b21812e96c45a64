"""The simulated printer is a Marlin to a host that others wrote: Printrun's printcore."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from drivers.analysis import commands
from edge.demo.meaning import as_meant
from tests.helpers.sim import sim_printer

HERE = Path(__file__).parent
TINY = HERE.parent.parent / "edge" / "demo" / "tiny.gcode"


@pytest.mark.parametrize(
    "faults", [(), ("--fault", "corrupt=0.005", "--seed", "7")], ids=["clean line", "line that errs"]
)
def test_printcore_prints_the_whole_program_in_order(
    printrun_python: Path, tmp_path: Path, faults: tuple[str, ...]
) -> None:
    with sim_printer(tmp_path, *faults) as printer:
        done = subprocess.run(
            [printrun_python, HERE / "printcore_host.py", printer.place, TINY],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        # printcore counts from 0, after `N-1 M110`.
        carried_out = [text for number, text in printer.commands() if number != "-" and not text.startswith("M110")]
        assert carried_out == [as_meant(command) for command in commands(TINY.read_text().splitlines())]
