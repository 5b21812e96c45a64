"""The host's clocks, what the site knows of the time, and the stamp that every event carries."""

from __future__ import annotations

import ctypes
import datetime
import time
from collections.abc import Callable
from pathlib import Path

from edge.model.event import Stamp, stamp_text
from edge.timefloor import BEGINNING, Host, Known, Now, Source, booted_at, doubt, goes_on, raised, read

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_TIMEX_BYTES = 208
"""``sizeof(struct timex)`` where long has 64 bits (adjtimex(2)); all zero asks and changes nothing."""

_TIME_ERROR = 5
"""What adjtimex(2) returns while nothing keeps the clock synchronized, or nobody can tell how well."""


_adjtimex = getattr(ctypes.PyDLL(None), "adjtimex", None)
"""It takes a microsecond: not worth giving the interpreter away for."""


def synchronized() -> bool:
    """Whether the kernel says that its clock is kept synchronized, by whatever daemon."""
    if _adjtimex is None:
        return False  # a C library without it: nobody vouches
    state: int = _adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return 0 <= state < _TIME_ERROR  # below 0: a sandbox refuses the question


class SystemClock:
    """Time as the host tells it, and what that is worth. `wall` is the host's, and can be wrong.

    `vouched` is when this boot began, by `wall` while the kernel last vouched for it; None if it has not yet.
    """

    def __init__(
        self,
        source: Source = Source.NTP,
        known: Known | None = None,
        is_synchronized: Callable[[], bool] = synchronized,
    ) -> None:
        self.boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
        self.source = source
        self.known = known or Known(BEGINNING)
        self.vouched: datetime.datetime | None = None
        self._is_synchronized = is_synchronized

    def mono_s(self) -> float:
        """Seconds since some moment of this boot; never goes back."""
        return time.monotonic()

    def since_boot_s(self) -> float:
        """The same, and it goes on while the host sleeps: what the time of a signed time is counted by."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> datetime.datetime:
        """Now in UTC, as far as the host knows."""
        return datetime.datetime.now(datetime.UTC)

    def age_by_s(self) -> float:
        """What the age of files is counted by, in seconds since 1970; by an untrusted clock none is old."""
        return self.wall().timestamp() if self.now().trusted else 0.0

    def host(self) -> Host:
        """All clocks of the host at once."""
        wall, mono_s, synchronized = self.wall(), self.since_boot_s(), self._is_synchronized()
        if synchronized:
            self.vouched = booted_at(wall, mono_s)
        elif self.vouched is not None:
            synchronized = goes_on(self.vouched, wall, mono_s)
        return Host(wall, mono_s, self.boot_id, synchronized)

    def now(self) -> Now:
        """What time it is, as far as the site may believe it."""
        return read(self.host(), self.known, self.source)

    def doubt(self) -> str:
        """Why the clock is not trusted, in words; empty if it is."""
        return doubt(self.host(), self.known, self.source)

    def stamp(self) -> Stamp:
        """For an event that happens now. While the clock is trusted, the floor rises with what is recorded."""
        host = self.host()
        now = read(host, self.known, self.source)
        self.known = raised(self.known, now)
        return Stamp(stamp_text(now.wall), host.mono_s, self.boot_id, now.trust)

    def learn(self, known: Known) -> None:
        """Take over what somebody has found out or written down about the time; the floor only rises."""
        self.known = Known(max(self.known.floor, known.floor), known.signed or self.known.signed)

    def repair(self, known: Known) -> None:
        """Go by `known`, even if its floor is lower: two roles have signed that."""
        self.known = known
