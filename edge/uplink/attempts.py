"""How one connection after the other went: when to try the next, and whether they are lost at once. PURE.

Rules

1. The pause doubles with each failure up to its longest. A connection that stayed for `QUICK_S` begins anew.
2. One that is lost sooner is no failure like one that nobody answered: it counts, but up to `FLAPS` only, so that
   whoever is thrown out at once, again and again, comes back slower, and not as slowly as to a broker that is away.
3. `FLAPS` of them in a row look like two clients under one name.

Times are seconds of any clock that never goes back.
"""

from __future__ import annotations

QUICK_S = 10.0
FLAPS = 3

_DOUBLINGS_MAX = 16
"""More than any pause needs. Without a bound the power is no float any more after a day without a network."""


class Attempts:
    """Of one client. `pause_s` is the longest pause before the next attempt; draw from nothing up to it."""

    def __init__(self, first_pause_s: float, longest_pause_s: float) -> None:
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._failures = 0
        self._flaps = 0
        self._up_at: float | None = None

    @property
    def flapping(self) -> bool:
        """The last connections were lost as soon as they were made."""
        return self._flaps >= FLAPS

    @property
    def believed_after_s(self) -> float:
        """How long a new connection must stay before it is worth a word."""
        return QUICK_S if self.flapping else 0.0

    @property
    def pause_s(self) -> float:
        """Before the next attempt, at most."""
        return min(self._longest_pause_s, self._first_pause_s * 2.0**self._failures)

    def stays(self, now: float) -> bool:
        """Whether there is a connection, and it was not lost at once."""
        return self._up_at is not None and now - self._up_at >= QUICK_S

    def up(self, now: float) -> None:
        """A connection is made."""
        self._up_at = now
        self._failures = min(self._failures, FLAPS)

    def down(self, now: float) -> bool:
        """The connection is lost, or could not be made; whether it had stayed."""
        stayed = self.stays(now)
        self._flaps = self._flaps + 1 if self._up_at is not None and not stayed else 0
        self._failures = 1 if stayed else min(self._failures + 1, _DOUBLINGS_MAX)
        self._up_at = None
        return stayed
