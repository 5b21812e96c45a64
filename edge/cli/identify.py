"""Opening one machine for a moment, without a daemon: who it is, and whether both sides trust each other."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge import plugins, sitefile
from edge.clock import SystemClock
from edge.driver import DriverError, Identity, Json, Observation
from edge.errors import UsageError
from edge.model.event import stamp_text
from edge.model.site import validate
from edge.plugins import Equipment
from edge.running import trusted


def ask(file: Path, machine: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """The fields of `Identity`. `tell` says what a person must do meanwhile. Raises `UsageError`."""
    item, folder = _configured(file, machine)
    try:
        item.plugin.authorise(item.machine, tell)
        folder.mkdir(parents=True, exist_ok=True)
        return asdict(asyncio.run(_identity(item, folder)))
    except DriverError as error:
        raise UsageError(f"{machine}: {error}") from error
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}; run this as the user of the daemon") from error


def trust(file: Path, machine: str, accept: str | None, *, renew: bool) -> dict[str, Any]:
    """The fields of `Trust`. Raises `UsageError`."""
    item, folder = _configured(file, machine)
    word: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if accept is not None:
            now, state_dir = stamp_text(datetime.now(UTC)), folder.parent.parent
            word = trusted.leave(state_dir, machine, f"user:{getpass.getuser()}", accept, now)
        try:
            return asdict(item.plugin.trust(item.machine, folder, accept, renew=renew))
        except DriverError:
            if word is not None:
                word.unlink(missing_ok=True)
            raise
    except DriverError as error:
        raise UsageError(f"{machine}: {error}") from error
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}; run this as the user of the daemon") from error


def _configured(file: Path, machine: str) -> tuple[Equipment, Path]:
    """A machine of the site, and its directory: what it keeps there (certificates) is what the daemon uses."""
    config = validate(sitefile.read(file))
    found = {item.machine.id: item for item in plugins.load(config, file)}
    if machine not in found:
        raise UsageError(f"there is no machine {machine}; there are: {', '.join(found) or 'none'}")
    return found[machine], config.site.state_dir / "machines" / machine


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
