"""Everything stops, at once: the last resort of software. The emergency stop of the machine is hardware.

With an emergency parser the firmware acts on M112 as it arrives. Without one it acts on M108, M410 and M112 when it
reads their lines, unnumbered, and so only while its command queue has room (Marlin/src/gcode/queue.cpp,
`get_serial_commands`): M108 ends a wait for a temperature, M410 drops the queued moves, and both make that room. What
confirms nothing within `CONFIRM_S` is reset by the DTR line of its serial port, as far as the board listens to it.
"""

from __future__ import annotations

import asyncio
import enum
import re

from drivers.gcode.device import Device
from drivers.gcode.replies import Boot, LineSplitter, parse
from edge.driver import MachineState, NotConfirmedError

CONFIRM_S = 2.0
"""How long a firmware may take to say that it has halted."""

PULSE_S = 0.1
"""How long DTR stays down; a board's capacitor makes a reset of its edge. Arduino's own tools take 50 to 250 ms."""

BOOT_S = 5.0
"""How long a board may take from its reset to its banner; a bootloader alone takes 2 s."""

_HALTED = re.compile(r"\bhalt(?:ed)?\b|kill\(\) called|emergency stop", re.IGNORECASE)
"""``Error:Printer halted. kill() called!`` (STR_ERR_KILLED, Marlin/src/core/language.h). An error alone is no proof."""

NOT_CONFIRMED = "NOT confirmed: use the emergency stop of the machine"


class _Word(enum.Enum):
    HALTED = enum.auto()
    BOOTED = enum.auto()


class Aborting:
    """The aborts of one printer, and what became of them, told as the machine's state."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._splitter = LineSplitter()
        self._heard: set[_Word] = set()
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether an abort was asked for on this connection."""
        return self._watching is not None

    def abort(self) -> None:
        """Write what stops the machine, and latch the session. Waits for nothing."""
        device, session = self._device, self._device.session
        profile = device.profile
        stop = profile.macro.abort if profile is not None else "M112"
        # Unidentified, the firmware may have half a line of somebody else's: the line end keeps it from ours.
        before = "" if profile is not None else "\n"
        lines = (stop,) if device.acts_at_once else ("M108", "M410", stop)
        session.overheard_by(self._overhear)
        session.write_now((before + "".join(f"{line}\n" for line in lines)).encode("ascii"))
        session.fail(NotConfirmedError(f"aborted with {stop}; the printer needs a reset by hand"))
        if self._watching is None:
            device.see(MachineState.ABORTED, "not confirmed yet")
            self._watching = asyncio.create_task(self._watch(), name=f"abort {device.machine.id}")

    async def close(self) -> None:
        """Wait until it is known what became of the abort: closing the line would take its last resort."""
        if self._watching is not None:
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        self._device.see(MachineState.ABORTED, await self._became())

    async def _became(self) -> str:
        if await self._hears(CONFIRM_S):
            return "halted, it confirmed" if _Word.HALTED in self._heard else "restarted, it says so"
        if await self._device.session.pulse_dtr(PULSE_S):
            self._heard.clear()
            if await self._hears(BOOT_S):
                return "reset by its DTR line"
        return NOT_CONFIRMED

    async def _hears(self, within_s: float) -> bool:
        """Whether the firmware has halted or restarted, by its own words."""
        try:
            async with asyncio.timeout(within_s):
                while not self._heard and not self._device.session.gone:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return bool(self._heard)

    def _overhear(self, data: bytes) -> None:
        for text in self._splitter.feed(data):
            if _HALTED.search(text):
                self._heard.add(_Word.HALTED)
            elif parse(text) == [Boot()]:
                self._heard.add(_Word.BOOTED)
        self._news.set()
