"""What grbl's error and alarm numbers mean, in our own words. PURE.

Sources: gnea/grbl 1.1h doc/csv/error_codes_en_US.csv and alarm_codes_en_US.csv for the numbers up to 38 and 10;
grblHAL/core (build 20260817) errors.h and alarms.h for those above. The two agree on every number they share but one:
alarm 10 is the second motor of an axis for grbl, and the emergency stop for grblHAL.
"""

from __future__ import annotations

LOCKED = 9
"""The error of every line of G-code while the controller is locked."""

ERRORS = {
    1: "a word of the line does not begin with a letter",
    2: "a number is missing or malformed",
    3: "this $ command does not exist",
    4: "a value is negative that must not be",
    5: "homing is not enabled in the controller's settings",
    6: "the step pulse is too short",
    7: "the stored settings could not be read; defaults are in use",
    8: "this $ command is allowed only while the controller is idle",
    9: "the controller is locked, by an alarm or while it jogs",
    10: "soft limits need homing to be enabled",
    11: "the line is too long; it was not carried out",
    12: "the step rate is higher than the controller can make",
    13: "the safety door is open",
    14: "the line is too long to be stored",
    15: "the jog would leave the machine's travel",
    16: "a jog command is malformed",
    17: "laser mode needs a PWM spindle output",
    18: "the controller was reset",
    19: "a value is not above zero",
    20: "the command is not supported",
    21: "two commands of one modal group are on the line",
    22: "no feed rate is set",
    23: "the command needs a whole number",
    24: "two commands on the line both want the axis words",
    25: "a word stands twice on the line",
    26: "the command needs axis words and has none",
    27: "the line number is invalid",
    28: "a value that the command needs is missing",
    29: "this work coordinate system does not exist here",
    30: "G53 goes with G0 and G1 only",
    31: "axis words that no command uses",
    32: "an arc needs an axis word in its plane",
    33: "the target of the motion is invalid",
    34: "the radius of the arc is wrong",
    35: "an arc needs an offset in its plane",
    36: "words that no command uses",
    37: "G43.1 is for the tool length axis only",
    38: "the tool number is too high",
    39: "a value is out of range",
    40: "a tool change is pending",
    41: "the spindle does not turn",
    42: "the plane does not fit the command",
    43: "the feed rate is higher than the axis can do",
    44: "the spindle speed is out of range",
    45: "a limit switch is engaged",
    46: "the machine must be homed first",
    47: "the tool is not the one that was set",
    48: "two value words contradict each other",
    49: "the controller's self-test failed",
    50: "the emergency stop is active",
    51: "a motor reports a fault",
    52: "the setting's value is out of range",
    53: "the setting is not available",
    54: "the retract position is below the drilling depth",
    55: "the homing configuration is not possible",
    56: "the coordinate system is locked",
    57: "a program mark stands where none may",
    58: "the auxiliary port is not available",
    60: "the SD card could not be mounted",
    61: "the file could not be read",
    62: "the folder could not be opened",
    63: "the folder does not exist",
    64: "no SD card is mounted",
    65: "the file system is not mounted",
    66: "the file system is read-only",
    70: "Bluetooth could not be started",
    71: "an expression has an unknown operation",
    72: "an expression divides by zero",
    73: "an argument of an expression is out of range",
    74: "an argument of an expression is invalid",
    75: "an expression is malformed",
    76: "the result of an expression is invalid",
    77: "a password is needed",
    78: "access is denied",
    79: "not allowed while a critical event is active",
    80: "flow control is allowed in macros only",
    81: "flow control is malformed",
    82: "flow control is nested too deeply",
    83: "flow control is out of memory",
    84: "the file could not be opened",
    85: "the file system could not be formatted",
    86: "the auxiliary port cannot be used for this",
    87: "a tool is in the spindle",
    88: "no tool is in the spindle",
    89: "the file could not be deleted",
    90: "cutter compensation is active",
    91: "the command conflicts with cutter compensation",
    92: "cutter compensation is invalid here",
}

ALARMS = {
    1: "a limit switch was hit: the position is probably lost",
    2: "the motion would leave the machine's travel; the position is kept",
    3: "reset while in motion: the position is probably lost",
    4: "the probe was not in the state that it must start from",
    5: "the probe did not touch",
    6: "homing was interrupted by a reset",
    7: "homing was interrupted by the safety door",
    8: "homing did not clear the limit switch",
    9: "homing did not find the limit switch",
    10: "the emergency stop is active (grblHAL), or an axis's second motor found no limit switch (grbl)",
    11: "the machine must be homed first",
    12: "a limit switch is engaged",
    13: "the probe is protected",
    14: "the spindle did not reach its speed in time",
    15: "homing did not find the limit switch of an axis's second motor",
    16: "the controller's self-test failed",
    17: "a motor reports a fault",
    18: "homing failed",
    19: "the spindle does not answer",
    20: "an input/output expander failed",
    21: "the stored settings failed",
    22: "the receive buffer overflowed: lines were lost",
}


def error(code: int) -> str:
    """``error:<code>`` with its words."""
    return f"error:{code} ({ERRORS.get(code, 'unknown to this driver')})"


def alarm(code: int) -> str:
    """``ALARM:<code>`` with its words."""
    return f"ALARM:{code} ({ALARMS.get(code, 'unknown to this driver')})"
