"""The machine's clocks, and the stamp that every event carries."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

from edge.model.event import Stamp

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SystemClock:
    """Time as the host tells it. `wall` may be wrong: on a Raspberry Pi it is, after a power cut without network."""

    def __init__(self) -> None:
        self.boot_id = _BOOT_ID.read_text(encoding="ascii").strip()

    def mono_s(self) -> float:
        """Seconds, never going back, since some moment of this boot."""
        return time.monotonic()

    def wall(self) -> datetime.datetime:
        """Now in UTC, as far as the host knows."""
        return datetime.datetime.now(datetime.UTC)

    def stamp(self) -> Stamp:
        """For an event that happens now. Nobody vouches for the wall clock, and the stamp says so."""
        return Stamp(
            at_wall=self.wall().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            at_mono_ms=int(self.mono_s() * 1000),
            boot_id=self.boot_id,
            clock="unknown",
        )
