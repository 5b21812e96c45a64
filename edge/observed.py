"""What is seen of one machine: the latest of each kind, with its age."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from edge.driver import LinkHealth, MachineState, Message, Observation, Progress, StateSeen, Temperature

SeenT = TypeVar("SeenT", bound=Observation)


class Observed:
    """Latest-per-key memory of a driver's observations; `now_s` is any monotonic clock."""

    def __init__(self, now_s: Callable[[], float], on_state: Callable[[], None]) -> None:
        self._now_s = now_s
        self._on_state = on_state
        self._latest: dict[tuple[type[Observation], str], tuple[float, Observation]] = {}
        self.state = StateSeen(MachineState.OFFLINE, "not connected yet")

    def add(self, observation: Observation) -> None:
        """Keep it in place of what was seen of the same kind and name."""
        if isinstance(observation, StateSeen):
            changed = observation != self.state
            self.state = observation
            if changed:
                self._on_state()
        name = observation.name if isinstance(observation, Temperature) else ""
        self._latest[type(observation), name] = (self._now_s(), observation)

    def forget_run(self) -> None:
        """A run has ended: its progress is no longer seen."""
        self._latest.pop((Progress, ""), None)

    def offline(self, reason: str) -> None:
        """The connection is gone: nothing of what was seen is known any more."""
        self._latest.clear()
        self.add(StateSeen(MachineState.OFFLINE, reason))

    def as_json(self) -> dict[str, Any]:
        """The shape that `docs/json.md` gives for a machine's observations."""
        progress = self._of(Progress)
        link = self._of(LinkHealth)
        message = self._of(Message)
        return {
            "state": str(self.state.state),
            "detail": self.state.detail,
            "progress": progress
            and {"done": progress[1].done, "total": progress[1].total, "unit": progress[1].unit, "age_s": progress[0]},
            "temperatures": {
                seen.name: {"actual_degc": seen.actual_degc, "target_degc": seen.target_degc, "age_s": self._age_s(at)}
                for at, seen in self._latest.values()
                if isinstance(seen, Temperature)
            },
            "link": link and {"resends": link[1].resends, "time_outs": link[1].time_outs},
            "message": message and {"text": message[1].text, "age_s": message[0]},
        }

    def _of(self, kind: type[SeenT]) -> tuple[float, SeenT] | None:
        found = self._latest.get((kind, ""))
        if found is None or not isinstance(found[1], kind):
            return None
        return self._age_s(found[0]), found[1]

    def _age_s(self, at_s: float) -> float:
        return round(self._now_s() - at_s, 1)
