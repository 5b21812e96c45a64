"""The first start since the host was booted waits a moment for the collector's word.

A state directory that was put back as a whole from an old copy looks whole, and after a boot nothing here knows better.
The collector does: it acknowledges what this start has recorded only if it has the same history before it, and says
otherwise what it has, which holds the journal (`edge.uplink.outbox`). So nothing begins before one of both; but a
network that is down must not stop a site, so the wait is bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger("edge.uplink")


class Told(Protocol):
    """What `FirstWord` asks of the outbox."""

    async def until_told(self, seq: int) -> None:
        """Until the collector has acknowledged event `seq`, or contradicted this journal."""


class FirstWord:
    """`serve` is the task. `waits_for` is why nothing begins yet; empty as soon as the wait is over."""

    def __init__(self, outbox: Told, seq: int, wait_s: float, on_change: Callable[[], None]) -> None:
        """`seq` is the event that this start has recorded. With 0 s nothing waits."""
        self._outbox = outbox
        self._seq = seq
        self._wait_s = wait_s
        self._on_change = on_change
        self.trouble = ""
        self.waits_for = ""
        if wait_s > 0:
            self.waits_for = (
                "since the host was booted the centre has not said whether this journal is the newest;"
                f" it is waited for up to {wait_s:g} s"
            )

    async def serve(self) -> None:
        """Wait once, then do nothing until cancelled."""
        if self.waits_for:
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._outbox.until_told(self._seq)
            except TimeoutError:
                log.warning("the centre has not said whether this journal is the newest; work begins without its word")
            self.waits_for = ""
            self._on_change()
        await asyncio.Event().wait()
