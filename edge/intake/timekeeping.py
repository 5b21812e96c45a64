"""Looks whether somebody vouches for the clock, and lets the site know when that changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from edge.clock import SystemClock
from edge.errors import EdgeError
from edge.intake.intake import Intake
from edge.intake.nonce import NonceFile
from edge.intake.vouched import VouchedFile
from edge.model.event import ClockTrust, stamp_text

LOOK_S = 5.0
"""How often the kernel is asked whether its clock is synchronized: nothing announces it."""

log = logging.getLogger("edge.time")


class TimeKeeper:
    """What the site says of its clock."""

    def __init__(
        self, clock: SystemClock, intake: Intake, nonce: NonceFile, vouched: VouchedFile, on_change: Callable[[], None]
    ) -> None:
        self.clock = clock
        self._intake = intake
        self._nonce = nonce
        self._vouched = vouched
        self._on_change = on_change
        self.trouble = ""  # why what has waited cannot be judged; empty while that goes well

    def row(self) -> dict[str, Any]:
        """The clock as `edge status` shows it; shape in docs/json.md."""
        now = self.clock.now()
        return {
            "now": stamp_text(now.wall),
            "trust": str(now.trust),
            "floor": stamp_text(now.floor),
            "source": str(self.clock.source),
            "detail": self.clock.doubt(),
        }

    def row_with_nonce(self) -> dict[str, Any]:
        """The same, with a nonce to take along. Raises `OSError`."""
        return {**self.row(), "nonce": self._nonce.to_show().value}

    async def serve(self) -> None:
        """Judge what has waited for the time as soon as the clock is trusted or it is over, until cancelled."""
        seen: ClockTrust | None = None
        while True:
            now = self.clock.now()
            self._vouched.keep(self.clock)
            if now.trust is not seen:
                seen = now.trust
                self._tell(now.trusted)
                self._on_change()
            try:
                count = await self._intake.judge_parked()
            except (EdgeError, OSError) as error:
                self.trouble = f"orders that have waited for the time cannot be judged yet: {error}"
                log.error("%s", self.trouble)
            else:
                self.trouble = ""
                if count:
                    log.info("orders judged that have waited for the time: %d", count)
            await asyncio.sleep(LOOK_S)

    def _tell(self, trusted: bool) -> None:
        if trusted:
            log.info("the clock is trusted")
        else:
            log.warning("nobody vouches for this site's clock: what needs the time waits; see `edge time show`")
