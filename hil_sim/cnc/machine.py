"""The mill behind its nodes."""

from __future__ import annotations

from typing import Any

from hil_sim.cnc import nodes
from hil_sim.opcua.host import unknown
from hil_sim.opcua.space import Space

TRAVEL_MM = {"X": (0.0, 500.0), "Y": (0.0, 400.0), "Z": (-400.0, 0.0)}


class Machine:
    """One simulated mill."""

    application_uri = "urn:hil-sim:cnc"

    def __init__(self, name: str) -> None:
        self._name = name

    async def build(self, space: Space) -> None:
        self._nodes = await nodes.build(space, self._name, TRAVEL_MM)

    async def advance(self, now_s: float) -> None:
        pass

    async def say(self, name: str, argument: str, now_s: float) -> Any:
        raise unknown(name, ())

    def power_cycle(self, now_s: float) -> None:
        pass

    def carried_out(self) -> list[str]:
        return []
