"""What is said of machines: their observed state, and the values of their properties."""

from __future__ import annotations

import enum
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool
"""A property of a machine, or a parameter of a step. The unit is in the name (``nozzle_mm``)."""


def same(one: Value, other: Value) -> bool:
    """Whether two values are one. Integers and floats compare by value; true and false are no numbers."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other  # in Python True == 1


def in_words(value: Value) -> str:
    """As site.toml and an order write it, without quotation marks."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class MachineState(enum.StrEnum):
    """What a machine is seen to do, in PackML's vocabulary (ISA-TR88.00.02)."""

    OFFLINE = "OFFLINE"
    STOPPED = "STOPPED"
    IDLE = "IDLE"
    EXECUTE = "EXECUTE"
    HELD = "HELD"
    ABORTED = "ABORTED"
