"""What is sent to take a print aside and back, from the macros of a profile."""

from __future__ import annotations

import dataclasses

from drivers.analysis import Position, position_after
from drivers.gcode import macros
from drivers.gcode.macros import Place

PAUSE = ("M83", "G1 E-1 F2100", "G91", "G1 Z5 F600", "G90", "M400")
RESUME = ("G90", "G1 X{x} Y{y} F6000", "G1 Z{z} F600", "M83", "G1 E1 F2100", "G92 E{e}", "G1 F{feed}")
SEEN = {"X": 10.12, "Y": 20.0, "Z": 0.3, "E": 3.46}
TARGETS = {"T": 215.0, "B": 60.0}


def after(*commands: str, nozzle_degc: float | None = 215.0) -> Place:
    return macros.place(position_after(commands, len(commands)), SEEN, TARGETS, nozzle_degc)


def test_what_was_counted_is_exact_and_the_rest_is_as_the_printer_shows_it() -> None:
    where = after("G28", "G92 E0", "G1 X10.12345 Y20 E3.4567 F900.5")
    assert where.position_mm == {"X": 10.12345, "Y": 20.0, "Z": 0.3, "E": 3.4567}
    assert macros.resuming(RESUME, where, reheat=False) == (
        *("G90", "G1 X10.12345 Y20 F6000", "G1 Z0.3 F600", "M83", "G1 E1 F2100", "G92 E3.4567", "G1 F900.5"),
        *("G90", "M82", "M400"),
    )


def test_an_e_that_the_printer_does_not_show_is_not_the_right_one() -> None:
    assert after("G92 E0", "G1 E3.4").position_mm["E"] == 3.46


def test_a_program_that_has_set_no_feed_rate_gets_the_firmwares_own() -> None:
    assert after("G28").feed_mm_per_min == 1500.0


def test_modes_are_given_back() -> None:
    relative = after("G91", "M83")
    assert macros.resuming((), relative, reheat=False) == ("G91", "M83", "M400")
    assert macros.resuming((), after("G90", "M83"), reheat=False) == ("G90", "M83", "M400")


def test_macros_are_in_mm_even_in_a_program_in_inches() -> None:
    where = after("G20", "G1 X1 F10")
    assert macros.pausing(PAUSE, where) == ("G21", *PAUSE)
    assert where.position_mm["X"] == 25.4
    assert macros.resuming(("G1 F{feed}",), where, reheat=False) == ("G1 F254", "G90", "M82", "G20", "M400")


def test_what_moves_must_have_ended() -> None:
    assert macros.pausing(PAUSE, after("G28")) == PAUSE
    assert macros.pausing(("G1 Z5",), after("G28")) == ("G1 Z5", "M400")


def test_a_cold_nozzle_is_asked_for_no_filament() -> None:
    where = after("G28", nozzle_degc=25.0)
    assert macros.pausing(PAUSE, where)[:2] == ("M83", "G1 F2100")
    assert "G1 F2100" in macros.resuming(RESUME, where, reheat=False)
    assert "G92 E3.46" in macros.resuming(RESUME, where, reheat=False)
    assert not after("G28", nozzle_degc=None).cold


def test_all_heaters_are_set_before_one_is_waited_for() -> None:
    where = dataclasses.replace(after("G28"), targets_degc={"T": 215.0, "B": 60.5, "C": 0.0})
    assert macros.resuming((), where, reheat=True)[:4] == ("M140 S60.5", "M104 S215", "M190 S60.5", "M109 S215")


def test_standby_is_for_what_is_hot() -> None:
    assert macros.standby(("M104 S{standby_degc}",), after("G28")) == ("M104 S150",)
    unheated = dataclasses.replace(after("G28"), targets_degc={})
    assert macros.standby(("M104 S{standby_degc}",), unheated) == ()


def test_numbers_are_plain() -> None:
    at = Position(1e-7, -1e-7, 12345.678901, None, 3000.0, True, True, False)
    where = macros.place(at, {"X": 0.0, "Y": 0.0, "Z": 12345.68, "E": 0.0}, {}, None)
    assert macros.pausing(("G1 X{x} Y{y} Z{z:.2f} F{feed}",), where)[0] == "G1 X0 Y0 Z12345.68 F3000"


def test_what_is_not_homed_stays_where_it_is_and_may_still_be_heated() -> None:
    where = macros.place(position_after(("M104 S215",), 1), SEEN, TARGETS, 25.0, homed=False)
    assert macros.pausing(PAUSE, where) == ("M400",)
    assert macros.resuming(RESUME, where, reheat=False) == ("M400",)
    assert macros.resuming(RESUME, where, reheat=True) == ("M140 S60", "M104 S215", "M190 S60", "M109 S215", "M400")
