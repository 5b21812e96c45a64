"""The profiles that are shipped, and what a person hears about one that is wrong."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from drivers.gcode import PLUGIN, profile
from drivers.gcode.config import Connection, Limits
from drivers.gcode.profile import all_known, fitting, known, named
from edge.driver import DriverError, IdentityError, Machine

SHIPPED = Path(str(resources.files("firmware_profiles")))
NAMES = [
    "generic",
    "grbl",
    "grblhal",
    "marlin-1.1",
    "marlin-2.1",
    "prusa-8bit",
    "prusa-buddy",
    "reprapfirmware",
    "smoothieware",
]

# What firmwares answer: as recorded, or as their sources write it.
CALLED = {
    "Marlin 2.1.2.1 (Dec 29 2022 00:00:00)": "marlin-2.1",
    "Marlin bugfix-2.1.x (Nov  5 2024)": "marlin-2.1",
    "Marlin 1.1.9 (Github)": "marlin-1.1",
    "Prusa-Firmware 3.14.0+8094_abcdef based on Marlin": "prusa-8bit",
    "Prusa-Firmware-Buddy 6.3.0+10073 (Github)": "prusa-buddy",
    "RepRapFirmware for Duet 3 Mini 5+": "reprapfirmware",
    "RepRapFirmware for Duet 2 WiFi/Ethernet": "reprapfirmware",
    "Smoothieware,": "smoothieware",
}

GOOD = """
dialect = "marlin"
summary = "ours"
match = {firmware_name = '^Ours'}
wire = {rx_buffer_bytes = 64, line_max_bytes = 96, busy_interval_s = 0, silence_s = 60}
macro = {make_safe = ["M104 S0"], abort = "M112"}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "ours.toml").write_text(text)
    return folder


# -- what is shipped


def test_every_shipped_profile_is_valid_and_listed() -> None:
    assert list(all_known(None)) == NAMES
    assert [info.name for info in PLUGIN.profiles(None)] == NAMES
    assert set(known(None, "grbl")) == {"grbl", "grblhal"}


@pytest.mark.parametrize(("name", "fits"), CALLED.items())
def test_every_firmware_fits_exactly_one_profile(name: str, fits: str) -> None:
    assert fitting(name, "auto", None)[0] == fits


@pytest.mark.parametrize(("name", "fits"), [("Grbl 1.1h.20190830", "grbl"), ("GrblHAL 1.1f.20260817", "grblhal")])
def test_controllers_of_the_other_dialect_too(name: str, fits: str) -> None:
    assert fitting(name, "auto", None, "grbl")[0] == fits


@pytest.mark.parametrize("name", ["Marlin 2.0.9.3", "Repetier_1.0.3", "Klipper", "", "grbl 1.1"])
def test_what_nobody_knows_fits_none_and_the_careful_profile_must_be_named(name: str) -> None:
    with pytest.raises(IdentityError, match=r"no profile fits .*name the profile 'generic'"):
        fitting(name, "auto", None)
    assert fitting(name, "generic", None)[0] == "generic"


def test_an_unknown_controller_is_not_advised_to_be_a_printer() -> None:
    with pytest.raises(IdentityError, match=r"no profile fits \(grbl, grblhal\)$"):
        fitting("Grbl 0.9j", "auto", None, "grbl")


def test_a_named_profile_must_fit() -> None:
    with pytest.raises(IdentityError, match=r"which profile 'marlin-1\.1' does not fit"):
        fitting("Marlin 2.1.2.1", "marlin-1.1", None)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_shipped_promises_more_than_it_can_hold(name: str) -> None:
    shipped = all_known(None)[name]
    careful = shipped.firmware
    assert shipped.tried_on
    assert shipped.wire.proven_window == (shipped.dialect == "grbl")
    read = {"marlin-2.1", "marlin-1.1", "prusa-8bit", "prusa-buddy"}
    assert shipped.wire.takes_compact == (name in read), "a parser that nobody has read gets blanks"
    assert bool(careful.resume_gap_max_s) <= careful.keeps_line_numbers
    if shipped.dialect == "marlin":
        assert {rule.command for rule in shipped.program.forbidden} >= {"M28", "M112", "M500", "M502", "M999"}
        assert shipped.macro.make_safe == ("M104 S0", "M140 S0", "M107")
        assert not any("G1" in command for command in shipped.macro.make_safe)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_its_source_beside_it(name: str) -> None:
    text = (SHIPPED / f"{name}.toml").read_text()
    assert re.match(r"# .*(?:Sources are files of \S+/\S+|Every value is the careful one)", text)
    assert re.findall(r"^\[\w+\]\n(?!#)", text, re.MULTILINE) == []  # each table opens with a comment
    assert set(tomllib.loads(text)) >= {"tried_on", "hazards", "wire", "firmware", "macro"}


def test_the_example_of_the_guide_is_a_profile() -> None:
    guide = Path(__file__).parent.parent.parent / "docs" / "profiles.md"
    (example,) = re.findall(r"```toml\n(.*?)```", guide.read_text(), re.DOTALL)
    assert profile.Profile.model_validate(tomllib.loads(example)).firmware.resume_gap_max_s == 0.0
    described = set(re.findall(r"^\| `([a-z_]+)", guide.read_text(), re.MULTILINE))
    tables = (profile.Match, profile.WireTable, profile.FirmwareTable, profile.ProgramTable, profile.Macro)
    assert {field for table in tables for field in table.model_fields} <= described


# -- a site's own


def test_what_is_left_out_has_the_careful_value(tmp_path: Path) -> None:
    ours = named("ours", written(tmp_path, GOOD))
    assert (ours.tried_on, ours.wire.proven_window, ours.firmware.keeps_line_numbers) == ("nothing yet", False, False)
    assert (ours.firmware.thermal_protection, ours.firmware.unknown_command) == ("unknown", "silent")
    assert ours.macro.pause == ()
    assert not ours.wire.takes_compact
    assert fitting("Ours 1", "auto", tmp_path)[0] == "ours"


def test_two_that_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "second.toml").write_text(GOOD)
    with pytest.raises(IdentityError, match="name one of the profiles ours, second"):
        fitting("Ours 1", "auto", written(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ('summary = "ours"', "", "summary: is missing"),
        ("busy_interval_s", "busy_intervall_s", "wire.busy_interval_s: is missing; "),
        (
            "busy_interval_s = 0",
            "busy_interval_s = 0, baud = 9600",
            "wire.baud: there is no such field; there are: rx_buffer_bytes, line_max_bytes, busy_interval_s, "
            "silence_s, proven_window, takes_compact",
        ),
        ("= 64", "= 8", "wire.rx_buffer_bytes: must be greater than or equal to 32 (is 8)"),
        ('"marlin"', '"marlni"', "dialect: must be 'marlin' or 'grbl' (is 'marlni')"),
        ("'^Ours'", "'^Ours('", "match.firmware_name: no regular expression: missing ), unterminated subpattern"),
        (
            '"M104 S0"',
            '"M104 S0\\n"',
            "macro.make_safe.0: a command is one line of ASCII without blanks around it (is ",
        ),
        ('"M104 S0"', '"M104 S{hot}"', "macro.make_safe.0: there is no place {hot}; there are: bed_degc, e, feed, "),
        ('"M104 S0"', '"M104 S{"', "macro.make_safe.0: braces belong to places such as {x}"),
        (
            'abort = "M112"',
            'abort = "\\u0018"',
            "the whole: macro.abort is a command, not a byte, in the marlin dialect",
        ),
        (
            'abort = "M112"',
            'abort = "M112", resume = ["G1 X{x}"]',
            "macro.resume: resume comes back to {x}, {y} and {z}",
        ),
        ('["M104 S0"]', '"M104 S0"', "macro.make_safe: must be a list (is 'M104 S0')"),
        ('["M104 S0"]', "[]", "macro.make_safe: List should have at least 1 item"),
        ('abort = "M112"', 'abort = ""', "macro.abort: String should have at least 1 character (is '')"),
        (
            '"M104 S0"',
            '"M104 S{standby_degc}"',
            "macro: {standby_degc} has no meaning in make_safe; places are for pause, resume and standby",
        ),
        (
            'abort = "M112"',
            'abort = "M112", park = ["G1 X{x}"]',
            "macro: {x} has no meaning in park; places are for pause, resume and standby",
        ),
        (
            "macro =",
            "firmware = {resume_gap_max_s = 9}\nmacro =",
            "firmware: resume_gap_max_s is 0 for a firmware that keeps no line numbers: nobody knows its place",
        ),
        (
            "macro =",
            "firmware = {resume_gap_max_s = 9, stepper_timeout_s = 9, keeps_line_numbers = true}\nmacro =",
            "firmware: resume_gap_max_s is below stepper_timeout_s: released motors have lost their place",
        ),
        (
            "macro =",
            'program = {forbidden = [{command = "m28", why = "x"}]}\nmacro =',
            "program.forbidden.0.why: there is no such field; there are: command, reason",
        ),
        ("[", "[[", "not TOML"),
    ],
)
def test_a_wrong_one_names_file_field_value_and_what_would_be_right(
    tmp_path: Path, wrong: str, right: str, words: str
) -> None:
    with pytest.raises(DriverError, match=re.escape(words)) as refused:
        named("ours", written(tmp_path, GOOD.replace(wrong, right, 1)))
    assert str(refused.value).startswith(f"{tmp_path}/ours.toml: ")


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("= 64", "= 8").replace("= 96", "= 9")
    with pytest.raises(DriverError, match=r"rx_buffer_bytes.*; .*line_max_bytes"):
        known(written(tmp_path, text))


def test_a_profile_of_the_other_dialect_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="the profile 'grbl' is for the dialect 'grbl', not 'marlin'"):
        named("grbl", None)
    text = (
        GOOD.replace('"M112"', '"\\u0018"')
        .replace('"marlin"', '"grbl"')
        .replace("macro", "firmware = {keeps_line_numbers = true}\nmacro")
    )
    with pytest.raises(DriverError, match="keeps_line_numbers is false in the grbl dialect"):
        named("ours", written(tmp_path, text), "grbl")


def test_the_abort_of_a_controller_with_grbl_is_the_byte_that_acts_at_once(tmp_path: Path) -> None:
    words = 'the whole: macro.abort is "\\u0018" in the grbl dialect: only that acts at once'
    with pytest.raises(DriverError, match=re.escape(words)):
        named("ours", written(tmp_path, GOOD.replace('"marlin"', '"grbl"')), "grbl")


def test_a_mistake_in_a_profile_is_told_to_a_printer_that_may_turn_out_to_need_it(tmp_path: Path) -> None:
    profiles = written(tmp_path, GOOD.replace("= 64", "= 8"))

    def look(name: str) -> None:
        limits = Limits.model_construct()
        PLUGIN.preflight(Machine("prn", "gcode", name, ("fdm",), Connection(url="tcp://h:1"), limits, {}, profiles))

    look("marlin-2.1")
    with pytest.raises(DriverError, match=r"ours\.toml: wire\.rx_buffer_bytes"):
        look("auto")


def test_a_profile_that_is_not_there_says_what_is() -> None:
    machine = Machine("prn", "gcode", "marlin", ("fdm",), Connection(url="tcp://h:1"), Limits.model_construct())
    with pytest.raises(DriverError, match="there is no profile 'marlin'; there are: generic, grbl"):
        PLUGIN.preflight(machine)
