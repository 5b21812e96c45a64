"""A stop that is confirmed: the program is cut, everything is off, and the firmware's counter proves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from drivers.gcode.device import Device
from drivers.gcode.macros import FINAL
from drivers.gcode.resume import MACRO_BASE
from drivers.stop import quietly
from edge.driver import LinkLostError, MachineError, NotConfirmedError

STOP_S = 120.0
"""How long a stop that nobody waits for may take: the move in the queue, then 10 mm upwards."""

BREAKS_MAX = 10
"""How often a stop ends a wait at most; all of them together must fit into the firmware's queue."""

TOO_LATE = "the printer did not confirm the stop in time"
ON_REQUEST = "stopped on request"


class Stopping:
    """The stops of one printer; at most one at a time. `on_asked` is called when one begins."""

    def __init__(self, device: Device, on_asked: Callable[[], None]) -> None:
        self._device = device
        self._on_asked = on_asked
        self._task: asyncio.Task[None] | None = None
        self._breaks = 0  # how often a stop may still end a wait
        self.asked = asyncio.Event()
        self.reason = ON_REQUEST

    @property
    def is_asked(self) -> bool:
        """Whether a stop was asked for since the run began; it may be done."""
        return self._task is not None

    @property
    def goes_on(self) -> bool:
        """Whether a stop is being carried out."""
        return self._task is not None and not self._task.done()

    def begin_run(self) -> None:
        """What was asked for before does not concern the run that begins."""
        self._task = None
        self.asked.clear()
        self.reason = ON_REQUEST

    async def confirmed(self) -> None:
        """Wait for the stop that was asked for. Raises `NotConfirmedError`."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def stop(self, deadline_s: float) -> None:
        """As `Driver.stop`."""
        self.asked.set()
        while True:
            stopping = self._task
            joins = stopping is not None and not stopping.done()
            if stopping is None or stopping.done():
                stopping = self._begin(deadline_s)
            await asyncio.wait([stopping], timeout=max(0.0, deadline_s - self._device.clock.mono_s()))
            if not stopping.done():
                raise NotConfirmedError(TOO_LATE)
            # What another caller's stop could not confirm by its own deadline may be confirmed by this one.
            if joins and stopping.exception() is not None and self._device.clock.mono_s() < deadline_s:
                continue
            stopping.result()
            return

    def stop_for(self, reason: str) -> None:
        """Stop without anybody who waits for it; the run ends with `reason`."""
        if not self.is_asked:
            self.reason = reason
            self.asked.set()
            self._begin(self._device.clock.mono_s() + STOP_S)

    async def quietly(self) -> None:
        """Stop for a caller that cannot take an answer: what happened goes to people."""
        await quietly(self.stop, self._device.context, STOP_S)

    async def close(self) -> None:
        """Wait for the end of a stop that is being carried out."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _begin(self, deadline_s: float) -> asyncio.Task[None]:
        task = asyncio.create_task(self._stop(deadline_s), name=f"stop {self._device.machine.id}")
        task.add_done_callback(_look_at)
        self._task = task
        self._on_asked()
        return task

    async def _stop(self, deadline_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._device.clock.mono_s())):
                await self._make_safe()
        except TimeoutError as error:
            raise NotConfirmedError(TOO_LATE) from error
        except LinkLostError:
            raise
        except MachineError as error:
            raise NotConfirmedError(f"the printer did not confirm the stop: {error}") from error
        if hot := [name for name, (_, target_degc) in self._device.heaters.items() if target_degc > 0]:
            raise NotConfirmedError(f"the printer still heats {', '.join(hot)} after the stop")

    async def _make_safe(self) -> None:
        """End the program where it is, then carry out the macros like a program: numbered, so each exactly once."""
        device, session = self._device, self._device.session
        macro = device.known_profile.macro
        session.cut()
        async with self._breaking_waits():
            await device.wire_free.wait()
            await session.settle()
        commands = (*macro.make_safe, *(macro.park if device.in_part else ()), FINAL)
        await device.run(commands, MACRO_BASE)
        await device.counted(MACRO_BASE + len(commands))
        device.in_part = False
        async with self._breaking_waits():  # unchecked, so it can arrive as one
            await device.look_at_heaters()

    @asynccontextmanager
    async def _breaking_waits(self) -> AsyncIterator[None]:
        """End waits for a temperature or a person meanwhile."""
        if self._device.known_profile.macro.break_wait and self._device.acts_at_once:
            self._breaks = BREAKS_MAX
        try:
            self.break_wait()
            yield
        finally:
            self._breaks = 0

    def break_wait(self) -> None:
        """The firmware says that it is busy: end a wait for a temperature or a person that a stop has found.

        Only then: it has taken the line, whose ``ok`` and that of this cannot be mistaken for each other. And again
        whenever it says so, for this goes out unchecked and can be lost.
        """
        session = self._device.session
        if self._breaks and session.stream.blocked:
            self._breaks -= 1
            session.interject(self._device.known_profile.macro.break_wait)


def _look_at(stopping: asyncio.Task[None]) -> None:
    """The failure of a stop is seen, even if whoever asked for it was cancelled meanwhile."""
    if not stopping.cancelled():
        stopping.exception()
