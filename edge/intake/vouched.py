"""That the kernel has vouched for the clock, kept for the next daemon of this boot.

In a file of the runtime directory, which is gone when the host is booted, and which nobody else may write
(`edge.folders`). One that cannot be read is as good as none: then somebody has to vouch again.
"""

from __future__ import annotations

import datetime
import json
import logging
from pathlib import Path

from edge.clock import SystemClock
from edge.files import replace_file
from edge.model.event import stamp_text

FILE_NAME = "clock.json"

NEWS = datetime.timedelta(milliseconds=500)
"""By how much the clock must have been set before it is written again; less is lost in reading two clocks."""

log = logging.getLogger("edge.time")


class VouchedFile:
    """The moment at which this boot began, by the clock that the kernel has vouched for."""

    def __init__(self, runtime_dir: Path) -> None:
        self._path = runtime_dir / FILE_NAME
        self._written: datetime.datetime | None = None
        self._told = False

    def recall(self, clock: SystemClock) -> None:
        """Let `clock` know what an earlier daemon of this boot has seen."""
        try:
            kept = json.loads(self._path.read_bytes())
            if kept["boot_id"] == clock.boot_id:
                booted = datetime.datetime.fromisoformat(kept["booted_at"])
                self._written = clock.vouched = booted.astimezone(datetime.UTC)
        except (OSError, ValueError, TypeError, KeyError):
            return

    def keep(self, clock: SystemClock) -> None:
        """Write down what `clock` has seen, if that is news. What fails is logged once, and tried again."""
        if clock.vouched is None or (self._written is not None and abs(clock.vouched - self._written) < NEWS):
            return
        content = json.dumps({"boot_id": clock.boot_id, "booted_at": stamp_text(clock.vouched)})
        try:
            replace_file(self._path, content.encode(), mode=0o600)
        except OSError as error:
            if not self._told:
                log.warning("%s cannot be written, so the next daemon has to see network time: %s", self._path, error)
            self._told = True
            return
        self._written, self._told = clock.vouched, False
