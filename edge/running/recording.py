"""Keeping what crosses a machine's wire, in a file that cannot fill the disk (`edge.transcript` has its form).

Rules

1. Whoever streams pays for an append to memory and nothing else. A thread writes it out.
2. One file and one older one, each of at most `FILE_BYTES`.
3. What was not written yet is lost with a daemon that is killed: `WRITE_EVERY_S` of it, and the beginning of a line
   that waits for its end. The disk is not asked to keep it, so a power cut loses what the system had not written.
4. A disk that is full, too slow or broken costs the recording, and is told; it never costs the print. What is kept
   free for the journal is not taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from edge.artifacts.keeper import RESERVE_BYTES
from edge.clock import SystemClock
from edge.driver import Wire
from edge.folders import recording
from edge.logs import log_bug
from edge.model.event import stamp_text
from edge.transcript import Writer, heading

FILE_BYTES = 32 * 1024 * 1024
"""At 250,000 baud, 25,000 bytes a second each way, a line that never rests fills that in a quarter of an hour. Most
prints send a tenth of it."""

WRITE_EVERY_S = 0.25
TIME_EVERY_S = 60.0
"""How often a remark says the time of day, where anything crosses: so that people find what a log speaks of."""

LINE_S = 0.5
"""How long the end of a line is waited for before its beginning is written as it is."""

HELD_PIECES = 32_768
"""What is kept in memory for a disk that is slow, some MiB: 20 s of a printer whose line never rests. Beyond that bytes
are missed, and the file says where."""

BATCH_PIECES = 1024
"""What is turned into text at once: were each as long as a driver reads at most, and all of it escaped, 16 MiB."""

CLOSE_S = 5.0
"""How long the end of the daemon waits for a disk that does not answer."""

TORN_BYTES = 8192
"""More than a line of the file has."""

BEGINS, MISSED = "=", "?"
"""In place of a direction: a connection; bytes that nobody has kept."""

Record: TypeAlias = Callable[[str, bytes], None]

log = logging.getLogger("edge.recording")


def nobody(direction: str, data: bytes) -> None:
    """Nobody records the wire."""


class Recorder:
    """Of one machine's wire. `trouble`: why nothing is recorded any more; empty if it is."""

    def __init__(self, state_dir: Path, machine: str, wire: Wire, clock: SystemClock) -> None:
        self.path = recording(state_dir, machine)
        self.trouble = ""
        self._older = self.path.with_name(f"{self.path.name}.1")
        self._place = f"{machine} {wire.place}"
        self._machine = machine
        self._clock = clock
        self._mono_s = clock.mono_s
        self._text = Writer(wire.at_once)
        self._pieces: deque[tuple[str, bytes, float]] = deque()
        self._deaf = False  # too much waits, or the recording has ended
        self._timed_s = self._mono_s()  # when the file last said what time it was
        self._closing = threading.Event()

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Write out what is recorded; at the end all of it."""
        thread = threading.Thread(target=self._main, name=f"record {self._machine}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closing.set()
            await asyncio.to_thread(thread.join, CLOSE_S)

    def begin(self) -> Record:
        """A connection begins; what records it, for the event loop's thread."""
        if self.trouble:
            return nobody
        now_s = self._mono_s()
        self._pieces.append((BEGINS, f"{self._when(now_s)} {self._place}".encode(), now_s))
        return self._record

    def _record(self, direction: str, data: bytes) -> None:
        if self._deaf:
            return
        self._pieces.append((direction, data, self._mono_s()))
        if len(self._pieces) >= HELD_PIECES:
            self._deaf = True
            self._pieces.append((MISSED, b"", self._mono_s()))

    # From here on: the thread.

    def _main(self) -> None:
        try:
            self.path.parent.mkdir(exist_ok=True)
            self._mend()
            while not self._closing.wait(WRITE_EVERY_S):
                self._write(self._mono_s() - LINE_S)
            self._write(None)
        except OSError as error:
            self._give_up(error.strerror or str(error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong here, the machine works on
            self._give_up(f"internal error ({log_bug(log, error)})")

    def _give_up(self, why: str) -> None:
        self._deaf = True
        self._pieces.clear()
        self.trouble = f"what crosses the wire of {self._machine} is not recorded any more: {self.path}: {why}"
        log.warning("%s", self.trouble)

    def _mend(self) -> None:
        """A daemon that was killed may have left the beginning of a line."""
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            size = file.seek(0, 2)
            begin = file.seek(max(0, size - TORN_BYTES))
            whole = begin + file.read(TORN_BYTES).rfind(b"\n") + 1
            if whole < size:
                file.truncate(whole)

    def _write(self, before_s: float | None) -> None:
        was_deaf = self._deaf  # then nothing was added since, and nothing is before the end of this
        while self._pieces:
            for _ in range(min(len(self._pieces), BATCH_PIECES)):
                direction, data, at_s = self._pieces.popleft()
                if direction == BEGINS:
                    self._text.begin(data.decode(), at_s)
                    self._timed_s = at_s
                    continue
                if direction == MISSED:
                    self._text.end(None)  # what comes behind a gap is no end of what came before it
                    self._text.remark("bytes are missing here: the disk was too slow")
                    continue
                if at_s - self._timed_s >= TIME_EVERY_S:
                    self._text.remark(self._when(at_s))
                    self._timed_s = at_s
                self._text.add(direction, data, at_s)
            self._append(self._text.take())
        self._text.end(before_s)
        if was_deaf:
            self._deaf = False
        self._append(self._text.take())

    def _append(self, text: str) -> None:
        """Open the file anew each time: who takes it away gets a new one."""
        if not text:
            return
        size = self.path.stat().st_size if self.path.exists() else 0
        if size and size + len(text) > FILE_BYTES:
            self.path.replace(self._older)
            size = 0
        if not size and not text.startswith("== "):
            text = heading(f"{self._when(self._mono_s())} {self._place} (goes on)") + "\n" + text
        if (free_bytes := shutil.disk_usage(self.path.parent).free) < RESERVE_BYTES + len(text):
            raise OSError(f"{free_bytes} bytes are free, and {RESERVE_BYTES} are kept for the journal")
        with self.path.open("a", encoding="ascii") as file:
            file.write(text)

    def _when(self, at_s: float) -> str:
        return stamp_text(self._clock.wall() - timedelta(seconds=self._mono_s() - at_s))
