"""Who a firmware says it is."""

from __future__ import annotations

from drivers.gcode.identity import Firmware, introduces, read
from drivers.gcode.replies import Ok, Text, parse

M115 = (
    "FIRMWARE_NAME:Marlin 2.1.2.1 (Dec 29 2022 00:00:00) SOURCE_CODE_URL:github.com/MarlinFirmware/Marlin "
    "PROTOCOL_VERSION:1.0 MACHINE_TYPE:Ender-3 V2 EXTRUDER_COUNT:1 UUID:cede2a2f-41a2-4748-9b12-c55c62f367ff"
)


def test_the_values_of_an_answer_may_hold_blanks() -> None:
    firmware = read([Text(M115)])
    assert firmware.name == "Marlin 2.1.2.1 (Dec 29 2022 00:00:00)"
    assert firmware.machine_type == "Ender-3 V2"
    assert firmware.uuid == "cede2a2f-41a2-4748-9b12-c55c62f367ff"


def test_capabilities_are_what_the_firmware_says_and_nothing_else() -> None:
    firmware = read([Text(M115), Text("Cap:EMERGENCY_PARSER:1"), Text("Cap:EEPROM:0"), Text("Cap:BROKEN"), Ok()])
    assert firmware.caps == {"EMERGENCY_PARSER": True, "EEPROM": False}
    assert firmware.has("EMERGENCY_PARSER")
    assert not firmware.has("EEPROM")
    assert not firmware.has("AUTOREPORT_TEMP")


def test_other_lines_between_do_not_disturb() -> None:
    lines = ["echo:busy: processing", M115, "Cap:ARCS:1", " T:20.00 /0.00 B:20.00 /0.00", "area:{full:{}}", "ok"]
    firmware = read(reply for line in lines for reply in parse(line))
    assert firmware.name.startswith("Marlin 2.1.2.1")
    assert firmware.caps == {"ARCS": True}


def test_a_firmware_that_leaves_things_out_has_them_empty() -> None:
    assert read([Text("FIRMWARE_NAME:Repetier_0.92")]) == Firmware("Repetier_0.92")
    assert read([Text("hello")]) == Firmware("")


def test_only_the_line_with_the_name_introduces() -> None:
    assert introduces(Text(M115))
    assert introduces(Text(f"echo:{M115}"))
    assert not introduces(Text("Cap:EEPROM:0"))
    assert not introduces(Ok())
