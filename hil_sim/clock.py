"""Simulated time: real time, faster, and never behind an event that is due almost now.

A simulated printer at 2000 times speed wants to sleep for microseconds between two moves, and an operating system
sleeps for a millisecond at least. So a wait that is shorter than `MAX_DEBT_S` of real time is not slept: the clock
jumps to its end, and real time catches up afterwards. The debt is bounded, so simulated time is never more than
`MAX_DEBT_S` of real time ahead, however many short waits follow each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_DEBT_S = 0.001
"""Real seconds the clock may run ahead; one tick of the event loop's timer."""


class ScaledClock:
    """Simulated seconds since this object was made; never goes back."""

    def __init__(self, speed: float = 1.0, real_s: Callable[[], float] = time.monotonic) -> None:
        """`speed`: simulated seconds per real second, above 0. `real_s`: monotonic real seconds."""
        self._speed = speed
        self._real_s = real_s
        self._origin_s = real_s()
        self._ahead_to_s = 0.0

    def _scaled_s(self) -> float:
        return (self._real_s() - self._origin_s) * self._speed

    def now_s(self) -> float:
        """Simulated seconds."""
        scaled_s = self._scaled_s()
        return scaled_s if scaled_s > self._ahead_to_s else self._ahead_to_s

    def wait_s(self, until_s: float) -> float:
        """Real seconds to sleep until simulated `until_s`; 0.0 means it is `until_s` (or later) already."""
        real_wait_s = (until_s - self._scaled_s()) / self._speed
        if real_wait_s > MAX_DEBT_S:
            return real_wait_s
        if until_s > self._ahead_to_s:
            self._ahead_to_s = until_s
        return 0.0
