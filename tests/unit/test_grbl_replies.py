"""What grbl says, and what it means."""

from __future__ import annotations

import pytest

from drivers.gcode import grbl_codes
from drivers.gcode.grbl_replies import (
    Alarm,
    Banner,
    Notice,
    Refusal,
    Status,
    has_mist,
    identity,
    introduces,
    is_spoken,
    offsets,
    parse,
    rx_bytes,
    settings,
)
from drivers.gcode.identity import Firmware
from drivers.gcode.replies import Ok, Text
from hil_sim.grbl.firmware import Options
from tests.helpers.grbl_rig import GrblRig

GRBL_I = ["[VER:1.1h.20190830:mill 3]", "[OPT:V,15,128]"]  # grbl/report.c, report_build_info


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("ok\r", Ok()),
        ("error:22", Refusal("error:22", 22)),
        ("ALARM:3", Alarm("ALARM:3", 3)),
        ("error:22x", Text("error:22x")),
        ("Grbl 1.1h ['$' for help]", Banner("Grbl 1.1h ['$' for help]")),
        ("GrblHAL 1.1f ['$' or '$HELP' for help]", Banner("GrblHAL 1.1f ['$' or '$HELP' for help]")),
        ("Grbl is a firmware", Text("Grbl is a firmware")),
        ("[MSG:Pgm End]", Notice("Pgm End")),
        ("[MSG:Pgm", Text("[MSG:Pgm")),
        (">G20G54:ok", Text(">G20G54:ok")),
        ("<Idle|MPos:0.0", Text("<Idle|MPos:0.0")),
        ("", Text("")),
    ],
)
def test_every_line_has_one_meaning(line: str, meaning: object) -> None:
    assert parse(line) == meaning
    assert type(parse(line)) is type(meaning)


def test_a_status_report_carries_what_it_carries() -> None:
    full = parse("<Hold:1|MPos:1.000,-2.500,0.000|Bf:100,1023|FS:600,0|Ov:100,100,100|A:|H:0>")
    bare = parse("<Idle>")
    assert isinstance(full, Status)
    assert isinstance(bare, Status)
    assert (full.state, full.detail, full.numbers("MPos"), full.rx_free_bytes) == ("Hold", 1, (1.0, -2.5, 0.0), 1023)
    assert (full.numbers("WCO"), full.numbers("A")) == ((), ())
    assert (bare.state, bare.detail, bare.fields, bare.rx_free_bytes) == ("Idle", None, {}, None)


@pytest.mark.parametrize(
    ("report", "still"),
    [
        ("<Hold:0>", True),
        ("<Hold:1>", False),
        ("<Run>", False),
        ("<Alarm>", True),
        ("<Door:2>", False),
        ("<Idle>", False),
    ],
)
def test_what_stands_still_and_will(report: str, still: bool) -> None:
    status = parse(report)
    assert isinstance(status, Status)
    assert status.still is still


def test_a_controller_is_known_by_its_build_info() -> None:
    replies = [parse(line) for line in GRBL_I] + [Ok()]
    assert identity(replies) == Firmware("Grbl 1.1h.20190830", "", "mill 3")
    assert rx_bytes(replies) == 128
    assert [introduces(reply) for reply in replies] == [True, False, False]
    seen = [parse(line) for line in GrblRig(Options(info="router")).send("$I\n")]
    assert identity(seen) == Firmware("GrblHAL 1.1f.20260817", "Simulator", "router")
    assert rx_bytes(seen) == 1024
    assert identity([]) == Firmware("")
    assert rx_bytes([Ok(), Text("[OPT:V]")]) is None


def test_codes_have_words_and_unknown_ones_say_so() -> None:
    assert grbl_codes.error(22) == "error:22 (no feed rate is set)"
    assert grbl_codes.alarm(3) == "ALARM:3 (reset while in motion: the position is probably lost)"
    assert grbl_codes.error(200) == "error:200 (unknown to this driver)"
    assert grbl_codes.alarm(200) == "ALARM:200 (unknown to this driver)"


# -- what it tells of itself


def replies(*lines: str) -> list[object]:
    return [parse(line) for line in lines]


def test_settings_are_told_by_number_with_what_grbl_writes_behind_them_left_out() -> None:
    lines = ["$0=10 (step pulse, usec)", "$13=1", "$32=0", "$N0=G54", "ok", "$1=", "<Idle>"]
    assert settings(replies(*lines)) == {"0": "10", "13": "1", "32": "0", "1": ""}  # type: ignore[arg-type]


def test_offsets_are_told_by_name_and_a_damaged_one_is_not_there() -> None:
    lines = ["[G54:-1.000,2.5,0.000]", "[G59:0.000]", "[G92:1.000,1..0,0]", "[TLO:0.000]", "[G28:1.0,1.0,1.0]", "ok"]
    told = offsets(replies(*lines, "[G55:1,2", "[G56:]"))  # type: ignore[arg-type]
    assert told == {"G54": (-1.0, 2.5, 0.0), "G59": (0.0,), "TLO": (0.0,)}


@pytest.mark.parametrize(("line", "has"), [("[OPT:VM,15,128]", True), ("[OPT:V,15,128]", False), ("[MSG:M]", False)])
def test_whether_there_is_mist_is_told_by_a_letter(line: str, has: bool) -> None:
    assert has_mist(replies("ok", line)) is has  # type: ignore[arg-type]


@pytest.mark.parametrize("line", ["Grbl 1.1h ['$' for help]", "error:20", "ALARM:1", "<Idle|MPos:0,0,0>"])
def test_some_lines_are_nobody_elses(line: str) -> None:
    assert is_spoken(line)
    assert not any(map(is_spoken, ["ok", "start", "Error:checksum mismatch", "echo:busy: processing", "[MSG:x]"]))
