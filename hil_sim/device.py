"""Ties a machine's firmware to a wire and a clock, in one event loop and without a thread."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hil_sim.clock import ScaledClock
from hil_sim.wire import Pace, Wire


class Firmware(Protocol):
    """A machine without its wire: bytes and simulated seconds in, bytes out. Time never goes back."""

    def boot(self, now_s: float) -> bytes: ...

    def feed(self, data: bytes, now_s: float) -> bytes: ...

    def advance(self, now_s: float) -> bytes: ...

    def next_wakeup_s(self) -> float | None:
        """When `advance` has something to do; None if nothing happens without further bytes."""


class CommandLog:
    """The log of executed commands: `t_s<TAB>number<TAB>text`, one line each, written at once.

    `t_s` are simulated seconds since the simulator started, `number` is the line's N or `-`. A `!` in its place marks
    what is no command: `boot` (each start of the firmware) and `halt` (killed). Text that is not ASCII is Latin-1.
    """

    def __init__(self, path: Path) -> None:
        """Appends to `path`; raises OSError if it cannot."""
        # Unbuffered: a line is with the operating system before the firmware's answer is on the wire.
        self._file = path.open("ab", buffering=0)

    def record(self, at_s: float, number: str, text: str) -> None:
        self._file.write(f"{at_s:.3f}\t{number}\t{text}\n".encode("latin-1"))

    def close(self) -> None:
        self._file.close()


class Device:
    """Moves bytes between `wire` and `firmware`, and wakes the firmware when it has asked for it."""

    def __init__(
        self,
        firmware: Firmware,
        clock: ScaledClock,
        wire: Wire,
        baud: int | None,
        reset_on_open: bool,
        note: Callable[[str], None],
    ) -> None:
        """`baud`: pace both directions at ten bits a byte of real time; None: as fast as they come."""
        self._firmware = firmware
        self._clock = clock
        self._wire = wire
        self._reset_on_open = reset_on_open
        self._note = note
        self._timer: asyncio.TimerHandle | None = None
        self._timer_for_s: float | None = None
        self._held = False
        self._inbound = Pace(baud, self._deliver, self._wire.resume_reading)
        self._outbound = Pace(baud, wire.send, None)

    def start(self) -> None:
        """Power the machine up and begin to listen."""
        self._wire.start(self._on_bytes, self._on_open, self._on_close)
        self._outbound.push(self._firmware.boot(self._clock.now_s()))

    def press_reset(self) -> None:
        """The reset button of the board."""
        self._note("reset")
        self._outbound.push(self._firmware.boot(self._clock.now_s()))
        self._keep_time()

    def press_hold(self) -> None:
        """The button at the machine that holds it, and the next time the one that lets it go on."""
        self._note("go on" if self._held else "hold")
        self._deliver(b"~" if self._held else b"!")
        self._held = not self._held

    def stop(self) -> None:
        """Let go of timers and of the wire."""
        if self._timer is not None:
            self._timer.cancel()
        self._inbound.clear()
        self._outbound.clear()
        self._wire.close()

    def _on_open(self) -> None:
        self._note("opened by a host")
        if self._reset_on_open:
            self.press_reset()

    def _on_close(self) -> None:
        self._note("closed by the host")
        self._inbound.clear()
        self._outbound.clear()

    def _on_bytes(self, data: bytes) -> None:
        if self._inbound.push(data):
            # What is still on its way at this baud rate has not left the host: reading goes on when it is delivered.
            self._wire.pause_reading()

    def _deliver(self, data: bytes) -> None:
        self._outbound.push(self._firmware.feed(data, self._clock.now_s()))
        self._keep_time()

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_for_s = None
        self._outbound.push(self._firmware.advance(self._clock.now_s()))
        self._keep_time()

    def _keep_time(self) -> None:
        """Do what is due at once, and set the timer for what is due next."""
        while (due_s := self._firmware.next_wakeup_s()) is not None:
            if due_s == self._timer_for_s:
                return
            wait_s = self._clock.wait_s(due_s)
            if wait_s > 0.0:
                break
            self._outbound.push(self._firmware.advance(self._clock.now_s()))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_for_s = due_s
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_timer)


def note_to_stderr(text: str) -> None:
    """A note for a person who watches."""
    sys.stderr.write(f"hil-sim: {text}\n")
    sys.stderr.flush()
