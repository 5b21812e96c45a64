"""Everything stops, at once: the last resort of software. The emergency stop of the machine is hardware.

With an emergency parser a Marlin acts on M112 as it arrives. Without one it acts on M108, M410 and M112 when it reads
their lines, unnumbered, and so only while its command queue has room (Marlin/src/gcode/queue.cpp,
`get_serial_commands`): M108 ends a wait for a temperature, M410 drops the queued moves, and both make that room. grbl
picks Ctrl-X out of what arrives and shows its banner anew. What confirms nothing within `CONFIRM_S` is reset by the DTR
line of its serial port, as far as the board listens to it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

from drivers.gcode import grbl_replies
from drivers.gcode.device import Device
from drivers.gcode.line import Line
from drivers.gcode.replies import Boot, LineSplitter, parse
from edge.driver import MachineError, MachineState, NotConfirmedError

CONFIRM_S = 2.0
"""How long a firmware may take to say that it has halted."""

PULSE_S = 0.1
"""How long DTR stays down; a board's capacitor makes a reset of its edge. Arduino's own tools take 50 to 250 ms."""

BOOT_S = 5.0
"""How long a board may take from its reset to its banner; a bootloader alone takes 2 s."""

_HALTED = re.compile(r"\bhalt(?:ed)?\b|kill\(\) called|emergency stop", re.IGNORECASE)
"""``Error:Printer halted. kill() called!`` (STR_ERR_KILLED, Marlin/src/core/language.h). An error alone is no proof."""

NOT_CONFIRMED = "NOT confirmed: use the emergency stop of the machine"


class Aborting:
    """The aborts of one machine, and what became of them, told by `see` as its state.

    `proof`: what a line that it says proves, in words; empty if it proves nothing.
    """

    def __init__(
        self,
        machine: str,
        session: Line[Any],
        see: Callable[[MachineState, str], None],
        proof: Callable[[str], str],
    ) -> None:
        self._machine = machine
        self._session = session
        self._see = see
        self._proof = proof
        self._splitter = LineSplitter()
        self._heard = ""
        self._news = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether an abort was asked for on this connection."""
        return self._watching is not None

    def abort(self, stop: bytes, failure: MachineError) -> None:
        """Write what stops the machine, and latch the session. Waits for nothing."""
        self._session.overheard_by(self._overhear)
        self._session.write_now(stop)
        self._session.fail(failure)
        if self._watching is None:
            self._see(MachineState.ABORTED, "not confirmed yet")
            self._watching = asyncio.create_task(self._watch(), name=f"abort {self._machine}")

    async def close(self) -> None:
        """Wait until it is known what became of the abort: closing the line would take its last resort."""
        if self._watching is not None:
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        self._see(MachineState.ABORTED, await self._became())

    async def _became(self) -> str:
        if await self._hears(CONFIRM_S):
            return self._heard
        if await self._session.pulse_dtr(PULSE_S) and await self._hears(BOOT_S):
            return "reset by its DTR line"
        return NOT_CONFIRMED

    async def _hears(self, within_s: float) -> bool:
        """Whether the firmware has halted or restarted, by its own words."""
        try:
            async with asyncio.timeout(within_s):
                while not self._heard and not self._session.gone:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return bool(self._heard)

    def _overhear(self, data: bytes) -> None:
        for text in self._splitter.feed(data):
            self._heard = self._heard or self._proof(text)
        self._news.set()


def marlin_proof(text: str) -> str:
    """`Aborting.proof` for Marlin and its like."""
    if _HALTED.search(text):
        return "halted, it confirmed"
    return "restarted, it says so" if parse(text) == [Boot()] else ""


def grbl_proof(text: str) -> str:
    """`Aborting.proof` for grbl."""
    return "reset, it confirmed" if isinstance(grbl_replies.parse(text), grbl_replies.Banner) else ""


def abort_marlin(aborting: Aborting, device: Device) -> None:
    """By the abort of its profile; identified or not."""
    profile = device.profile
    stop = profile.macro.abort if profile is not None else "M112"
    # Unidentified, the firmware may have half a line of somebody else's: the line end keeps it from ours.
    before = "" if profile is not None else "\n"
    lines = (stop,) if device.acts_at_once else ("M108", "M410", stop)
    data = (before + "".join(f"{line}\n" for line in lines)).encode("ascii")
    aborting.abort(data, NotConfirmedError(f"aborted with {stop}; the printer needs a reset by hand"))
