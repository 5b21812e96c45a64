"""What edge gives to a driver, for tests that have no daemon."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from pathlib import Path

from edge.driver import Json, Observation, Temperature


class TestClock:
    """The host's clocks."""

    __test__ = False

    def mono_s(self) -> float:
        return time.monotonic()

    def wall(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)


class RecordingContext:
    """A `DriverContext` that remembers what it was told."""

    def __init__(self, state_dir: Path) -> None:
        self.clock = TestClock()
        self.state_dir = self.runtime_dir = state_dir
        self.observations: list[Observation] = []
        self.checkpoints: list[Json] = []

    def emit(self, observation: Observation) -> None:
        self.observations.append(observation)

    async def checkpoint(self, value: Json) -> None:
        self.checkpoints.append(value)

    def record_bytes(self, direction: str, data: bytes) -> None:
        pass

    def latest(self, kind: type[Observation]) -> Observation | None:
        return next((seen for seen in reversed(self.observations) if isinstance(seen, kind)), None)

    def heaters(self) -> Mapping[str, Temperature]:
        return {seen.name: seen for seen in self.observations if isinstance(seen, Temperature)}
