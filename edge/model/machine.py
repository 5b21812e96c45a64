"""What is said of machines: their observed state, and the values of their properties."""

from __future__ import annotations

import enum
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool
"""A property of a machine, or a parameter of a step. The unit is in the name (``nozzle_mm``)."""


class MachineState(enum.StrEnum):
    """What a machine is seen to do, in PackML's vocabulary (ISA-TR88.00.02)."""

    OFFLINE = "OFFLINE"
    STOPPED = "STOPPED"
    IDLE = "IDLE"
    EXECUTE = "EXECUTE"
    HELD = "HELD"
    ABORTED = "ABORTED"
