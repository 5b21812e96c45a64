"""What a driver author needs to prove a driver: the contract suite, and what edge gives to an open driver.

Public. Imports nothing of edge but `edge.driver`, and nothing of pytest: the suite is a plain class, whose subclasses
pytest collects with `asyncio_mode = "auto"`. `docs/drivers.md` shows how.
"""

from __future__ import annotations

from edge.testing.bench import Bench
from edge.testing.context import HostClock, RecordingContext
from edge.testing.contract import DriverContract

__all__ = ["Bench", "DriverContract", "HostClock", "RecordingContext"]
