"""Who the firmware says it is: the answer to M115 (Marlin/src/gcode/host/M115.cpp, 2.1.2.1). PURE."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from drivers.gcode.replies import Reply, Text

# `FIRMWARE_NAME:Marlin 2.1.2.1 (…) SOURCE_CODE_URL:… …`: the values hold blanks, so the next key ends a value.
_FIELD = re.compile(r"([A-Z][A-Z_]+):(.*?)(?=\s+[A-Z][A-Z_]+:|$)")
_CAPABILITY = re.compile(r"Cap:([A-Z0-9_]+):([01])")


@dataclass(frozen=True, slots=True)
class Firmware:
    """`name` is the whole of FIRMWARE_NAME; `caps` maps each ``Cap:`` line to whether it is on."""

    name: str
    machine_type: str = ""
    uuid: str = ""
    caps: dict[str, bool] = field(default_factory=dict)

    def has(self, capability: str) -> bool:
        """Whether the firmware says that it can; False where it says nothing."""
        return self.caps.get(capability, False)


def introduces(reply: Reply) -> bool:
    """Whether this line is the first of an answer to M115."""
    return isinstance(reply, Text) and "FIRMWARE_NAME:" in reply.text


def read(replies: Iterable[Reply]) -> Firmware:
    """The firmware behind an answer to M115. `replies` contains the line that introduces it."""
    lines = [reply.text for reply in replies if isinstance(reply, Text)]
    fields: dict[str, str] = {}
    caps: dict[str, bool] = {}
    for line in lines:
        if match := _CAPABILITY.match(line):
            caps[match.group(1)] = match.group(2) == "1"
        elif "FIRMWARE_NAME:" in line:
            fields = {key: value.strip() for key, value in _FIELD.findall(line)}
    return Firmware(fields.get("FIRMWARE_NAME", ""), fields.get("MACHINE_TYPE", ""), fields.get("UUID", ""), caps)
