"""What edge gives to an open driver, for tests that have no daemon."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge.driver import Json, Observation
from edge.transcript import Writer

ObservationT = TypeVar("ObservationT", bound=Observation)


class HostClock:
    """The host's own clocks."""

    def mono_s(self) -> float:
        return time.monotonic()

    def wall(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)


class RecordingContext:
    """A `DriverContext` that remembers what it was told, and lets a test wait for it. Made on a running event loop."""

    def __init__(self, state_dir: Path) -> None:
        self.clock = HostClock()
        self.state_dir = self.runtime_dir = state_dir
        self.observations: list[Observation] = []
        self.checkpoints: list[Json] = []
        self.wire: list[tuple[str, bytes]] = []
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def emit(self, observation: Observation) -> None:
        assert asyncio.get_running_loop() is self._loop, "a driver emits on the event loop that it was opened on"
        self.observations.append(observation)
        self._news.set()

    async def checkpoint(self, value: Json) -> None:
        self.checkpoints.append(json.loads(json.dumps(value)))

    def record_bytes(self, direction: str, data: bytes) -> None:
        assert direction in ("<", ">")
        assert data, "nothing is no exchange"
        self.wire.append((direction, data))

    def transcript(self, at_once: bytes = b"") -> str:
        """What has crossed the wire so far, as edge would write it (`edge.transcript`), but without the seconds."""
        writer = Writer(at_once)
        for direction, data in self.wire:
            writer.add(direction, data, 0.0)
        writer.end()
        return writer.take()

    def of_kind(self, kind: type[ObservationT]) -> list[ObservationT]:
        """Everything of this kind that was told, in order."""
        return [seen for seen in self.observations if isinstance(seen, kind)]

    async def seen(self, kind: type[ObservationT], fits: Callable[[ObservationT], bool], within_s: float) -> None:
        """Wait until something that fits has been told. Raises `TimeoutError`."""
        async with asyncio.timeout(within_s):
            while not any(fits(observation) for observation in self.of_kind(kind)):
                self._news.clear()
                await self._news.wait()
