"""What a runner gives to the driver that it opens."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.clock import SystemClock
from edge.driver import Json, Observation
from edge.running.recording import Record


@dataclass(frozen=True, slots=True)
class Context:
    """The `DriverContext` of one connection. Its functions are called as they are: one of them for each line sent."""

    clock: SystemClock
    state_dir: Path
    runtime_dir: Path
    emit: Callable[[Observation], None]
    checkpoint: Callable[[Json], Coroutine[Any, Any, None]]
    record_bytes: Record
