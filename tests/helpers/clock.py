"""A site's clock that a test sets: what the host says, whether the kernel vouches for it, and when it was booted."""

from __future__ import annotations

from datetime import UTC, datetime

from edge.clock import SystemClock
from edge.timefloor import Source

IN_1970, IN_2099 = datetime(1970, 1, 1, 0, 0, 30, tzinfo=UTC), datetime(2099, 6, 1, tzinfo=UTC)


class SetClock(SystemClock):
    """`at` is what the host says; None for the right time. Every new one is a new boot unless `boot_id` says which."""

    _boots = 0

    def __init__(
        self,
        at: datetime | None = None,
        *,
        synchronized: bool = False,
        source: Source = Source.NTP,
        boot_id: str = "",
    ) -> None:
        super().__init__(source, is_synchronized=lambda: self.synchronized)
        SetClock._boots += 1
        self.boot_id = boot_id or f"boot-{SetClock._boots}"
        self.at = at
        self.synchronized = synchronized

    def wall(self) -> datetime:
        return self.at or super().wall()
