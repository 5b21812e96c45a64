"""Newest values for whoever watches: no facts, never in the journal, and sent only when no fact waits.

One message a period at most, not retained:

    site      whose
    run       random for each start of the daemon
    number    1, 2, 3, … within `run`: a gap is a message that was lost
    values    {key: {value, age_s, skipped}}: those that changed since the last message. `skipped` values of this key
              came between the last message and this one, and were not sent
    dropped   how many values came under more than `MAX_KEYS` keys and were not kept
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from edge.uplink.port import Uplink
from edge.uplink.topics import What, topic

PERIOD_S = 5.0
MAX_KEYS = 1024


@dataclass(slots=True)
class _Newest:
    value: float | int | str | bool
    at_s: float
    skipped: int


class Telemetry:
    """The newest value of each key. `now_s` is seconds of any clock that never goes back."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._run = secrets.token_hex(8)
        self._number = 0
        self._values: dict[str, _Newest] = {}
        self._dropped = 0

    def put(self, key: str, value: float | int | str | bool, now_s: float) -> None:
        """A value was seen; it takes the place of the one before."""
        before = self._values.get(key)
        if before is None and len(self._values) >= MAX_KEYS:
            self._dropped += 1
            return
        self._values[key] = _Newest(value, now_s, 0 if before is None else before.skipped + 1)

    def take(self, now_s: float) -> bytes | None:
        """What to send, which counts as sent; None if nothing has changed."""
        if not self._values:
            return None
        self._number += 1
        document = {
            "site": self._site,
            "run": self._run,
            "number": self._number,
            "values": {
                key: {"value": seen.value, "age_s": round(now_s - seen.at_s, 3), "skipped": seen.skipped}
                for key, seen in self._values.items()
            },
            "dropped": self._dropped,
        }
        self._values, self._dropped = {}, 0
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

    async def send(self, uplink: Uplink, facts_wait: Callable[[], bool], period_s: float = PERIOD_S) -> None:
        """Send over one connection, until cancelled; while `facts_wait`, nothing. Raises `UplinkError`."""
        loop = asyncio.get_running_loop()
        while True:
            if not facts_wait() and (payload := self.take(loop.time())) is not None:
                await uplink.publish(topic(self._site, What.TELEMETRY), payload)
            await asyncio.sleep(period_s)
