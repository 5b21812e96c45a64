"""A printer that carries nothing of ours out: what its state is, and what others do at it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from drivers.gcode.device import STALL_BUSY_INTERVALS, Device
from drivers.gcode.others import Others, tells_of_card
from drivers.gcode.replies import Reply, Temperatures
from edge.driver import MachineError, MachineState, Motion

POLL_S = 5.0
"""How often an idle printer is asked for what it does not tell by itself; also what notices a dead connection."""

BUSY_S = 6.0
"""How long an idle printer counts as busy after it has said so, where nobody knows how often it does."""

CARD_QUESTIONS = 3
"""How often a printer is asked for its card at once. What is asked goes out unchecked: an answer to something else says
nothing."""


class Resting:
    """One printer. `at_rest`: whether it carries nothing of ours out; `aborted`: an abort tells what became of it."""

    def __init__(self, device: Device, at_rest: Callable[[], bool], aborted: Callable[[], bool]) -> None:
        self._device = device
        self._at_rest = at_rest
        self._aborted = aborted
        self._others = Others(device.context.emit)

    @property
    def prints(self) -> str:
        """The print of others that goes on from the card, in words; empty if there is none."""
        return self._others.prints

    async def keep_looking(self) -> None:
        """Ask for temperatures and for others' work, for ever. A silent printer fails the session.

        What is asked here goes out unchecked, and one flipped bit makes another command of it: M107 of M105, M25 of
        M27. So nothing is asked while a run goes on or is held or left standing, nor for temperatures that the printer
        reports by itself, nor for the card on a line that keeps erring.
        """
        device, session = self._device, self._device.session
        while session.failure is None:
            before = device.reports
            await asyncio.sleep(POLL_S)
            if session.stream.idle and self._at_rest():
                try:
                    if device.reports == before:
                        await device.look_at_heaters()
                    if self._at_rest() and not session.stream.distrusted:
                        await self.look_for_others()
                except MachineError:
                    return  # latched in the session; `lost` tells it
                if self._at_rest():
                    self.tell()

    async def look_for_others(self, *, closely: bool = False) -> bool:
        """Ask a printer with a card whether it prints from that; whether it has said so. Raises `MachineError`.

        `closely`: also for a print that stands paused.
        """
        firmware = self._device.known_profile.firmware
        if firmware.sd_card != "built-in" and not self._device.firmware.has("SDCARD"):
            return True
        for _ in range(CARD_QUESTIONS):
            if any(map(tells_of_card, await self._asked("M27"))):
                asks = firmware.names_open_file and (closely or self._others.is_open)
                if asks and not self._others.prints:
                    await self._asked("M27 C")
                return True
        return False

    async def _asked(self, question: str) -> tuple[Reply, ...]:
        was_heard = self._at_rest()  # as it was said; once more now, it would be older than what was said since
        replies = await self._device.session.ask(question)
        for reply in () if was_heard else replies:
            self._others.heard(reply, self._device.clock.mono_s(), 0.0)
        return replies

    async def must_be_free(self) -> None:
        """Never a line of ours into somebody else's work. Raises `MachineError`."""
        told = await self.look_for_others(closely=True)
        if doing := self._others.doing(self._device.clock.mono_s()):
            raise MachineError(f"not begun, for the printer is at work: {doing}", Motion.NONE)
        if not told:
            raise MachineError("not begun, for the printer does not say whether it prints from its card", Motion.NONE)

    def heard(self, reply: Reply) -> None:
        """Something that a printer at rest says, which has nothing to do for us."""
        if not self._at_rest():
            return
        now_s = self._device.clock.mono_s()
        before = self._others.doing(now_s)
        busy_s = self._device.known_profile.wire.busy_interval_s * STALL_BUSY_INTERVALS
        self._others.heard(reply, now_s, busy_s or BUSY_S)
        if isinstance(reply, Temperatures):
            for name, (_, target_degc) in reply.heaters.items():
                if (known := self._device.heaters.get(name)) is not None:
                    self._others.heated(name, known[1], target_degc)
        if self._others.doing(now_s) != before:
            self.tell()

    def tell(self) -> None:
        """The state of a printer that carries nothing out."""
        device = self._device
        if self._aborted():
            return
        if device.session.failure is not None:
            device.see(MachineState.ABORTED)
        elif doing := self._others.doing(device.clock.mono_s()):
            device.see(MachineState.EXECUTE, doing)
        elif reason := device.unprotected():
            device.see(MachineState.STOPPED, reason)
        else:
            device.see(MachineState.IDLE)
