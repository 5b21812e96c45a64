"""What a driver author needs to prove a driver: the contract suite, what edge gives to an open driver, and machines of
which only a recording is left.

Public. Imports nothing of edge but `edge.driver` and `edge.transcript`, and nothing of pytest: the suite is a plain
class, whose subclasses pytest collects with `asyncio_mode = "auto"`. `docs/drivers.md` shows how.
"""

from __future__ import annotations

from edge.testing.bench import Bench
from edge.testing.context import HostClock, RecordingContext
from edge.testing.contract import DriverContract
from edge.testing.replay import Replay, replayed
from edge.transcript import Crossed, Part, parse

__all__ = [
    "Bench",
    "Crossed",
    "DriverContract",
    "HostClock",
    "Part",
    "RecordingContext",
    "Replay",
    "parse",
    "replayed",
]
