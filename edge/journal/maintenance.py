"""A machine that is out of service: it takes no work until a person says otherwise. Imports next to nothing."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

MADE_SAFE = "made safe"
"""The reason of `edge make-safe`."""


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Who took it out of service, since when, and why. `made_safe`: somebody had it made safe meanwhile."""

    by: str
    since: str
    reason: str
    made_safe: bool

    @property
    def in_words(self) -> str:
        """``out of service by ada since 2026-11-21 10:00 UTC: made safe``."""
        at = datetime.datetime.fromisoformat(self.since)
        because = f": {self.reason}" if self.reason else ""
        return f"out of service by {self.by.removeprefix('user:')} since {at:%Y-%m-%d %H:%M} UTC{because}"

    def as_json(self) -> dict[str, str]:
        """As docs/json.md has it."""
        return {"by": self.by, "since": self.since, "reason": self.reason}


def back_command(machine: str) -> str:
    """What puts a machine back into service."""
    return f"edge machine maintain {machine} --end"
