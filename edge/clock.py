"""The host's clocks, and the stamp that every event carries."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

from edge.model.event import ClockTrust, Stamp

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SystemClock:
    """Time as the host tells it. `wall` may be wrong: on a Raspberry Pi it is, after a power cut without network."""

    def __init__(self) -> None:
        self.boot_id = _BOOT_ID.read_text(encoding="ascii").strip()

    def mono_s(self) -> float:
        """Seconds since some moment of this boot; never goes back."""
        return time.monotonic()

    def wall(self) -> datetime.datetime:
        """Now in UTC, as far as the host knows."""
        return datetime.datetime.now(datetime.UTC)

    def stamp(self) -> Stamp:
        """For an event that happens now. Nobody vouches for the wall clock, and the stamp says so."""
        at_wall = self.wall().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Stamp(at_wall, self.mono_s(), self.boot_id, ClockTrust.UNKNOWN)
