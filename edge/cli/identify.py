"""Opening one machine for a moment, without a daemon, to ask it who it is."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge import plugins, sitefile
from edge.clock import SystemClock
from edge.driver import DriverError, Identity, Json, Observation
from edge.errors import UsageError
from edge.model.site import validate
from edge.plugins import Equipment


def ask(file: Path, machine: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """The fields of `Identity`. `tell` says what a person must do meanwhile. Raises `UsageError`."""
    equipment = plugins.load(validate(sitefile.read(file)), file)
    found = {item.machine.id: item for item in equipment}
    if machine not in found:
        raise UsageError(f"there is no machine {machine}; there are: {', '.join(found) or 'none'}")
    item = found[machine]
    try:
        item.plugin.authorise(item.machine, tell)
        with tempfile.TemporaryDirectory(prefix="edge-identify-") as folder:
            return asdict(asyncio.run(_identity(item, Path(folder))))
    except DriverError as error:
        raise UsageError(f"{machine}: {error}") from error


async def _identity(item: Equipment, folder: Path) -> Identity:
    async with item.plugin.open(item.machine, _Context(folder)) as driver:
        return driver.identity


class _Context:
    """A `DriverContext` for a connection that runs nothing: what is seen is of no interest."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.state_dir = self.runtime_dir = folder

    def emit(self, observation: Observation) -> None:
        """Nobody looks."""

    async def checkpoint(self, value: Json) -> None:
        raise RuntimeError("a checkpoint belongs to a run, and none is going on")

    def record_bytes(self, direction: str, data: bytes) -> None:
        """Nobody keeps it."""
