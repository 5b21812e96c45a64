"""Programs held against a printer's limits and its firmware's rules."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from drivers.gcode import PLUGIN
from drivers.gcode.config import Connection, Limits, Printer
from drivers.gcode.framing import numbered
from edge.driver import DriverError, Machine, NotAcceptableError, Prediction, Program, Step

TINY = Path(__file__).parent.parent.parent / "edge" / "demo" / "tiny.gcode"
LIMITS = Limits(x_mm=(0, 220), y_mm=(0, 220), z_mm=(0, 250), nozzle_degc=(0, 260), bed_degc=(0, 100))
STEP = Step("print", "fdm")


def printer(profile: str = "auto", limits: Limits = LIMITS) -> Printer:
    return Machine("p1", "gcode", profile, ("fdm",), Connection(url="tcp://127.0.0.1:1"), limits)


def checked(folder: Path, text: str, limits: Limits = LIMITS, profile: str = "auto") -> Prediction:
    path = folder / "program.gcode"
    path.write_text(text)
    return PLUGIN.check(printer(profile, limits), STEP, Program("program.gcode", path, "", path.stat().st_size))


def refusal(folder: Path, text: str, limits: Limits = LIMITS) -> NotAcceptableError:
    with pytest.raises(NotAcceptableError) as caught:
        checked(folder, text, limits)
    return caught.value


def test_a_sliced_program_suits_and_its_facts_are_told() -> None:
    prediction = PLUGIN.check(printer(), STEP, Program("tiny.gcode", TINY, "", TINY.stat().st_size))
    assert prediction.facts["commands"] == 1862
    assert prediction.facts["nozzle_max_degc"] == 215
    assert prediction.facts["bed_max_degc"] == 60
    assert 0 <= float(prediction.facts["x_min_mm"]) < float(prediction.facts["x_max_mm"]) <= 220  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "what", "value", "limit", "unit"),
    [
        ("G28\nG1 X300\n", "line 2: X", "300", "0 to 220", "mm"),
        ("G28\nG1X300\n", "line 2: X", "300", "0 to 220", "mm"),
        ("G28\n\n;c\nG01 Y-1\n", "line 4: Y", "-1", "0 to 220", "mm"),
        ("G28\nG1 X200\nG92 X0\nG1 X100\n", "line 4: X", "300", "0 to 220", "mm"),
        ("G1 Z251\n", "line 1: Z", "251", "0 to 250", "mm"),
        ("M104 S300\n", "line 1: nozzle temperature", "300", "0 to 260", "degC"),
        ("M190 R120\n", "line 1: bed temperature", "120", "0 to 100", "degC"),
        ("G28\nM112\n", "line 2", "M112", "never in a program, for it stops the machine until it is reset by hand", ""),
        ("M110N7\n", "line 1", "M110", "never in a program, for it changes the line numbers", ""),
        ("M0110 N7\n", "line 1", "M110", "never in a program", ""),
        ("M500.1\n", "line 1", "M500.1", "never in a program", ""),
        ("hello\n", "line 1", "'hello'", "a command such as G1, M104 or T0", ""),
        ("G1 x300\n", "line 1", "'G1 x300'", "capital letters", ""),
        ("M117 grün\n", "line 1", "'M117 grün'", "ASCII, outside of comments", ""),
        ("; nothing\n\n", "program.gcode", "0 commands", "at least one", ""),
    ],
)
def test_a_refusal_names_line_value_limit_and_unit(
    tmp_path: Path, text: str, what: str, value: str, limit: str, unit: str
) -> None:
    error = refusal(tmp_path, text)
    assert error.what == what
    assert str(error.value) == value
    assert str(error.limit).startswith(limit)
    assert error.unit == unit


@pytest.mark.parametrize("command", ["M0", "M1", "M600"])
def test_what_only_some_firmware_must_not_get_is_refused_until_the_profile_is_named(
    tmp_path: Path, command: str
) -> None:
    text = f"G28\n{command}\n"
    words = str(refusal(tmp_path, text))
    assert "line 2" in words
    assert f'{command}, allowed: not under profile = "auto": name the profile of its firmware' in words
    assert checked(tmp_path, text, profile="marlin-2.1").facts["commands"] == 2
    with pytest.raises(NotAcceptableError, match="never in a program, for it"):
        checked(tmp_path, text, profile="smoothieware")


def test_a_heater_without_a_range_must_not_be_heated_but_may_be_switched_off(tmp_path: Path) -> None:
    cold = Limits(x_mm=(0, 220), y_mm=(0, 220), z_mm=(0, 250))
    assert checked(tmp_path, "G28\nM104 S0\nM140 S0\n", cold).facts["commands"] == 3
    assert "allowed: 0 to 0 degC" in str(refusal(tmp_path, "M104 S200\n", cold))


def test_text_for_people_may_have_small_letters_and_comments_any(tmp_path: Path) -> None:
    assert checked(tmp_path, "M117 almost done\nG28 ; zurück\n").facts["commands"] == 2


def test_a_line_that_fits_with_its_number_fits_the_firmware_s_buffer(tmp_path: Path) -> None:
    longest = "M117 " + "x" * 77
    assert checked(tmp_path, f"{longest}\n")
    assert max(len(numbered(9_999_999, longest[:-1] + last)) - 1 for last in "xyz|}~") <= 95
    error = refusal(tmp_path, f"{longest}x\n")
    assert (error.what, error.value, error.limit, error.unit) == ("line 1: length", 83, 82, "bytes")


def test_a_profile_that_does_not_exist_is_named(tmp_path: Path) -> None:
    program = Program("tiny.gcode", TINY, "", 0)
    with pytest.raises(DriverError, match=r"no profile 'marlin-9'.*marlin-2\.1"):
        PLUGIN.check(printer("marlin-9"), STEP, program)
    with pytest.raises(DriverError, match="no profile 'marlin-9'"):
        PLUGIN.preflight(printer("marlin-9"))
    assert PLUGIN.check(printer("marlin-2.1"), STEP, program).facts["commands"] == 1862
    PLUGIN.preflight(printer("marlin-2.1"))


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"port": "/dev/ttyACM0", "url": "tcp://h:1"},
        {"url": "http://h:1"},
        {"url": "tcp://h"},
        {"url": "tcp://h:port"},
        {"port": "/dev/ttyACM0", "baud": 5},
        {"port": "/dev/ttyACM0", "speed": 9600},
    ],
)
def test_a_connection_is_one_port_or_one_url(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Connection.model_validate(table)


def test_limits_are_ordered() -> None:
    with pytest.raises(ValidationError, match="lower limit 5 is above the upper limit 1"):
        Limits(x_mm=(5, 1), y_mm=(0, 1), z_mm=(0, 1))
