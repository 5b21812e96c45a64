"""Programs that say one thing to a careless reader and another to the firmware are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.check import check_program
from drivers.gcode.config import Limits
from drivers.gcode.profile import known, named
from edge.driver import NotAcceptableError
from tests.helpers.printing import write_program

UNHEATED = Limits(x_mm=(0, 100), y_mm=(0, 100), z_mm=(0, 100))


@pytest.mark.parametrize(
    "line",
    [
        *("M104.1 S250", "M140.0001 S100", "M104 S250 s0", "M104 S250*1 S0", "M104 S250 S0", "M104 R0 S250 R0"),
        *("M303 E0 C8", "M303 S200", "M306 T", "G26 H260 B110", "M145 S0 H200", "M568 P0 S250", "M42 P10 S255"),
        *("G91.1", "G92 X0*1 X90", "G38.2 Z-50", "G30 X500", "M290 Z-9", "M206 X9", "M92 X800", "M211 S0", "M851 Z9"),
        *("M302 P1", "M410", "M575 B9600", "M501", "M928 x.g", "M810 M104 S250", "M98 P1", "M118 ok", "M118 start"),
        *("T0 M104 S250", "M106 S0 M104 S250", "M220 S100 M140 S90", "G1 X1 T1", "g1 x500", "G1 x500", "X10"),
    ],
)
@pytest.mark.parametrize("profile", ["marlin-2.1", "reprapfirmware", "smoothieware"])
def test_what_could_heat_or_leave_the_limits_unseen_is_refused(tmp_path: Path, profile: str, line: str) -> None:
    program = write_program(tmp_path / "p.gcode", ["G28", "G90", line])
    with pytest.raises(NotAcceptableError, match="line 3"):
        check_program(program, UNHEATED, named(profile, None))


@pytest.mark.parametrize(
    "line",
    [
        "G1 X1 Y2 E0.3 F1500",
        "M104 T0 S0",
        "M106 P1 S255",
        'M862.3 P "MK3S"',
        "M117 M104 S250",
        "M204 P1000 T1500",
        "T0",
    ],
)
def test_what_slicers_write_is_taken(tmp_path: Path, line: str) -> None:
    program = write_program(tmp_path / "p.gcode", ["G28", "G90", line])
    for profile in known(None).values():
        assert check_program(program, UNHEATED, profile).facts["commands"] == 3
