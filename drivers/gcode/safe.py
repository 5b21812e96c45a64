"""Heaters, fans and spindle off while no daemon runs: one short connection of its own, without a journal.

The port is opened as always, so the board is not reset, and what it still has in its buffer is carried out first. Then
the profile's `make_safe` goes out, numbered and counted like a program. Nothing is lifted: nobody here knows where the
tool stands.
"""

from __future__ import annotations

import asyncio
import datetime
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from drivers.gcode.config import Printer
from drivers.gcode.driver import open_printer
from edge.driver import Json, NotConfirmedError, Observation, Temperature

MakesSafe: TypeAlias = Callable[[Printer, "Context", float], Awaitable[str]]
"""Connects, switches off, and says what the machine has confirmed."""


class _Clock:
    def mono_s(self) -> float:
        return time.monotonic()

    def wall(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)


class Context:
    """A `DriverContext` that keeps the latest temperatures and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.clock = _Clock()
        self.state_dir = self.runtime_dir = folder
        self.heaters: dict[str, Temperature] = {}

    def emit(self, observation: Observation) -> None:
        if isinstance(observation, Temperature):
            self.heaters[observation.name] = observation

    async def checkpoint(self, value: Json) -> None:
        raise RuntimeError("no run is going on: there is nothing to keep")

    def record_bytes(self, direction: str, data: bytes) -> None:
        """Nobody records the wire here."""


def make_safe(by_dialect: MakesSafe, machine: Printer, deadline_s: float) -> str:
    """Have a driver that has just been opened carry out `macro.make_safe`; what the machine then says.

    Raises `ConnectError`, `IdentityError`, or `NotConfirmedError` after `deadline_s` (monotonic clock).
    """
    with tempfile.TemporaryDirectory(prefix="make-safe-") as folder:
        return asyncio.run(_in_time(by_dialect, machine, Context(Path(folder)), deadline_s))


async def _in_time(by_dialect: MakesSafe, machine: Printer, context: Context, deadline_s: float) -> str:
    try:
        async with asyncio.timeout(deadline_s - time.monotonic()):
            return await by_dialect(machine, context, deadline_s)
    except TimeoutError as error:
        raise NotConfirmedError(f"{machine.connection.place} has not confirmed in time") from error


async def stop_printer(machine: Printer, context: Context, deadline_s: float) -> str:
    """Of the marlin dialect. Raises as `make_safe` does."""
    place = machine.connection.place
    async with open_printer(machine, context) as printer:
        await printer.stop(deadline_s)
    if hot := sorted(name for name, heater in context.heaters.items() if heater.target_degc > 0):
        raise NotConfirmedError(f"{place} still heats {', '.join(hot)}")
    now = ", ".join(f"{name} at {heater.actual_degc:.0f} degC" for name, heater in sorted(context.heaters.items()))
    return f"heaters and fans off, {now}" if now else "switched off; it tells no temperature"
