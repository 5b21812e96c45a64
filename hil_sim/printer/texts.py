"""What Marlin 2.1.2.1 says, word for word.

Source: seen on the Marlin 2.1.2.1 Linux build (see `tests/transcripts/marlin-2.1.2.1.txt`); the names of the 35
capabilities, the inside of the `area` line and the position line follow Marlin's source (M115.cpp, motion.cpp), not a
recording, and so do the lines of host prompts (host_actions.cpp, pause.cpp, runout.cpp). Lines end in a line feed; the
texts that Marlin repeats from the host (M0, M118) end in carriage return and line feed, as its `SERIAL_ECHOLN` does.
"""

from __future__ import annotations

from collections.abc import Mapping

from hil_sim.plant import Position

BANNER = (
    "start\n"
    "PowerUp\n"
    "Marlin 2.1.2.1\n"
    "echo: Last Updated: 2022-12-29 | Author: (none, default config)\n"
    "echo: Free Memory: 4872  PlannerBufferBytes: 1840\n"
)

BUSY_PROCESSING = "echo:busy: processing\n"
BUSY_PAUSED = "echo:busy: paused for user\n"
COLD_EXTRUSION = "echo: cold extrusion prevented\n"
PROMPT_END = "//action:prompt_end\n"
OUT_OF_FILAMENT = "filament_runout 0"
INSERT_FILAMENT = "echo:Insert filament and send M108\n"
PAUSED_AT_DISPLAY = "//action:pause\n"
RESUMED_AT_DISPLAY = "//action:resume\n"
CANCELLED_AT_DISPLAY = "//action:cancel\n"
SD_FILE = "CUP~1.GCO"
SD_FILE_BYTES = 60_000
SD_OPENED = f"File opened: {SD_FILE} Size: {SD_FILE_BYTES}\nFile selected\n"
SD_NOT_PRINTING = "Not SD printing\n"
SD_DONE = "Done printing file\n"
KILLED = "Error:Printer halted. kill() called!\n"
KILLED_BY_M112 = "echo:M112 Shutdown\n" + KILLED + "//action:poweroff\n"
KILLED_BY_RUNAWAY = "Error:Thermal Runaway, system stopped! Heater_ID: 0\n" + KILLED

BAD_CHECKSUM = "checksum mismatch"
BAD_NUMBER = "Line Number is not Last Line Number+1"
NO_CHECKSUM = "No Checksum with line number"

DEFAULT_UUID = "cede2a2f-41a2-4748-9b12-c55c62f367ff"
"""The one every unconfigured Marlin has, so it identifies nothing: a site gives each machine its own."""

STEPS_PER_MM = (80, 80, 400)

_CAPABILITIES = {
    "SERIAL_XON_XOFF": 0,
    "BINARY_FILE_TRANSFER": 0,
    "EEPROM": 0,
    "VOLUMETRIC": 1,
    "AUTOREPORT_POS": 0,
    "AUTOREPORT_TEMP": 1,
    "PROGRESS": 0,
    "PRINT_JOB": 1,
    "AUTOLEVEL": 0,
    "RUNOUT": 0,
    "Z_PROBE": 0,
    "LEVELING_DATA": 0,
    "BUILD_PERCENT": 0,
    "SOFTWARE_POWER": 0,
    "TOGGLE_LIGHTS": 0,
    "CASE_LIGHT_BRIGHTNESS": 0,
    "EMERGENCY_PARSER": 1,
    "HOST_ACTION_COMMANDS": 1,
    "PROMPT_SUPPORT": 1,
    "SDCARD": 0,
    "REPEAT": 0,
    "SD_WRITE": 0,
    "AUTOREPORT_SD_STATUS": 0,
    "LONG_FILENAME": 0,
    "LFN_WRITE": 0,
    "CUSTOM_FIRMWARE_UPLOAD": 0,
    "EXTENDED_M20": 0,
    "THERMAL_PROTECTION": 1,
    "MOTION_MODES": 0,
    "ARCS": 1,
    "BABYSTEPPING": 0,
    "CHAMBER_TEMPERATURE": 0,
    "COOLER_TEMPERATURE": 0,
    "MEATPACK": 0,
    "CONFIG_EXPORT": 0,
}


def identity(uuid: str, built: Mapping[str, bool], size_mm: tuple[float, float, float]) -> str:
    """The answer to M115, without its `ok`. `built`: capabilities that differ; `size_mm`: the end of X, Y and Z."""
    capabilities = _CAPABILITIES | {name: int(has) for name, has in built.items()}
    low = "{x:0.0000,y:0.0000,z:0.0000}"
    high = f"{{x:{size_mm[0]:.4f},y:{size_mm[1]:.4f},z:{size_mm[2]:.4f}}}"
    span = f"min:{low},max:{high}"
    return (
        "FIRMWARE_NAME:Marlin 2.1.2.1 (Dec 29 2022 00:00:00) SOURCE_CODE_URL:github.com/MarlinFirmware/Marlin "
        f"PROTOCOL_VERSION:1.0 MACHINE_TYPE:3D Printer EXTRUDER_COUNT:1 UUID:{uuid}\n"
        + "".join(f"Cap:{name}:{value}\n" for name, value in capabilities.items())
        + f"area:{{full:{{{span}}},work:{{{span}}}}}\n"
    )


def position(logical: Position, native: Position) -> str:
    """The position line of M114, G28 and G92. `logical`: as programmed; `native`: of the machine, counted in steps."""
    x, y, z, e = (value + 0.0 for value in logical)
    a, b, c = (round(mm * steps) for mm, steps in zip(native[:3], STEPS_PER_MM, strict=True))
    return f"X:{x:.2f} Y:{y:.2f} Z:{z:.2f} E:{e:.2f} Count X:{a} Y:{b} Z:{c}\n"


def prompt(text: str, *buttons: str) -> str:
    """A host prompt (feature/host_actions.cpp, `prompt_do`): the one before it ends."""
    choices = "".join(f"//action:prompt_button {button}\n" for button in buttons)
    return f"{PROMPT_END}//action:prompt_begin {text}\n{choices}//action:prompt_show\n"


def refusal(reason: str, last_number: int) -> str:
    """The error line for a numbered line that is not taken."""
    return f"Error:{reason}, Last Line: {last_number}\n"


def sd_printing(done_bytes: int) -> str:
    """The answer to M27 during a print from the SD card that is not paused (sd/cardreader.cpp, `report_status`)."""
    return f"SD printing byte {done_bytes}/{SD_FILE_BYTES}\n"


def sd_file(*, is_open: bool) -> str:
    """The answer to M27 C (gcode/sd/M27.cpp; sd/cardreader.cpp, `printSelectedFilename`)."""
    return f"Current file: {SD_FILE if is_open else '(no file)'}\n"


def unknown(command: str) -> str:
    """The answer to a command that is not known, without its `ok`."""
    return f'echo:Unknown command: "{command}"\n'
