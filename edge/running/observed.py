"""What is seen of one machine: the latest of each kind, with its age."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol, assert_never

from edge.driver import (
    Condition,
    Conditions,
    ForeignWork,
    LinkHealth,
    MachineState,
    Message,
    Observation,
    Progress,
    Reading,
    StateSeen,
    Temperature,
)


class Watcher(Protocol):
    """Whoever is told of what is seen as it is seen; it must not block."""

    def seen(self, observation: Observation) -> None:
        """The driver has told this."""

    def run_over(self) -> None:
        """A run has ended: its progress is no longer seen."""


class Observed:
    """Latest-per-key memory of a driver's observations; `now_s` is any monotonic clock."""

    def __init__(
        self, now_s: Callable[[], float], on_state: Callable[[], None], watcher: Watcher | None = None
    ) -> None:
        self._now_s = now_s
        self._watcher = watcher
        self._on_state = on_state
        self._temperatures: dict[str, tuple[float, Temperature]] = {}
        self._readings: dict[str, tuple[float, Reading]] = {}
        self._progress: tuple[float, Progress] | None = None
        self._link: LinkHealth | None = None
        self._message: tuple[float, Message] | None = None
        self.conditions: tuple[Condition, ...] = ()
        self.state = StateSeen(MachineState.OFFLINE, "not connected yet")

    def add(self, observation: Observation) -> None:
        """Keep it in place of what was seen of the same kind and name."""
        now_s = self._now_s()
        if self._watcher is not None:
            self._watcher.seen(observation)
        match observation:
            case Progress():
                self._progress = now_s, observation
            case Temperature(name=name):
                self._temperatures[name] = now_s, observation
            case Reading(name=name):
                self._readings[name] = now_s, observation
            case LinkHealth():
                self._link = observation
            case Message():
                self._message = now_s, observation
            case Conditions(open=found):
                self.conditions = found
            case ForeignWork():
                pass  # that is written down
            case StateSeen():
                changed, self.state = observation != self.state, observation
                if changed:
                    self._on_state()
            case _ as never:
                assert_never(never)

    @property
    def progress(self) -> Progress | None:
        """How far the run is, as it was told last."""
        return self._progress and self._progress[1]

    def temperatures(self) -> dict[str, Temperature]:
        """The latest of each heater."""
        return {name: seen for name, (_, seen) in self._temperatures.items()}

    @property
    def link(self) -> LinkHealth | None:
        """The latest counts of the machine's line."""
        return self._link

    def forget_run(self) -> None:
        """A run has ended: its progress is no longer seen."""
        self._progress = None
        if self._watcher is not None:
            self._watcher.run_over()

    def offline(self, reason: str) -> None:
        """The connection is gone: nothing of what was seen is known any more."""
        self._temperatures.clear()
        self._readings.clear()
        self._progress = self._link = self._message = None
        self.conditions = ()
        self.add(StateSeen(MachineState.OFFLINE, reason))

    def as_json(self) -> dict[str, Any]:
        """The shape that docs/json.md gives for what is seen of a machine."""
        progress, link, message = self._progress, self._link, self._message
        return {
            "state": str(self.state.state),
            "detail": self.state.detail,
            "progress": progress
            and {"done": progress[1].done, "total": progress[1].total, "unit": progress[1].unit}
            | {"age_s": self._age_s(progress[0])},
            "temperatures": {
                name: {"actual_degc": seen.actual_degc, "target_degc": seen.target_degc, "age_s": self._age_s(at_s)}
                for name, (at_s, seen) in self._temperatures.items()
            },
            "readings": {
                name: {"value": seen.value, "unit": seen.unit, "age_s": self._age_s(at_s)}
                for name, (at_s, seen) in self._readings.items()
            },
            "conditions": [asdict(condition) for condition in self.conditions],
            "link": link and {"resends": link.resends, "time_outs": link.time_outs},
            "message": message and {"text": message[1].text, "age_s": self._age_s(message[0])},
        }

    def _age_s(self, at_s: float) -> float:
        return round(self._now_s() - at_s, 1)
