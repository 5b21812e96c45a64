"""A print and the connection after this one: what is written down while it runs, and what it proves afterwards."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from drivers.gcode.device import Device, standing_in
from drivers.gcode.memory import Memory, boot_id, recall
from drivers.gcode.resume import Found, Left, doubt
from drivers.gcode.stream import PROBE_NUMBER
from edge.driver import (
    At,
    Finished,
    LinkLostError,
    Lost,
    MachineError,
    Message,
    Motion,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Program,
    Recovery,
    Run,
)

RESERVE = 4000
"""Commands that may be sent ahead of the last durable reservation: one write to the disk for so many commands."""

BEAT_S = 1.0
"""How often a print's state goes to the host's memory."""


class Keeper:
    """Reserves commands before they are sent, and writes a heartbeat, from `start` to `end`."""

    def __init__(self, device: Device, run: Run, total: int, after: int) -> None:
        self._device = device
        self._name = f"remember {run.run_id}"
        left = Left(0, after, total, boot_id(), device.firmware.uuid, device.clock.mono_s(), dict(device.heaters))
        self._memory = Memory(device.context, run, left)
        self._acked = after
        self._suspended = False
        self._short = asyncio.Event()  # of commands that may be sent
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Nothing beyond what was acknowledged goes out until the first reservation is durable."""
        self._device.session.stream.allow(self._acked)
        if self._acked:
            self._short.set()
        self._keeping = asyncio.create_task(self._keep(), name=self._name)
        self._keeping.add_done_callback(self._kept)

    async def end(self) -> None:
        """Keep nothing any more, and let anything be sent."""
        self._device.session.stream.allow(PROBE_NUMBER)
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])

    async def leave(self) -> None:
        """The run is left standing, and all that was sent is acknowledged: write down where.

        Of one that has carried out nothing yet, no reservation may stay: with the counter at 0 it would look like one
        that has lost its place.
        """
        if self._acked:
            self.beat()
            return
        await self.end()
        await self._device.context.checkpoint(None)

    @property
    def acked(self) -> int:
        """Number of the program's last command that was acknowledged."""
        return self._acked

    def note(self, number: int) -> None:
        """The program's commands up to `number` are acknowledged."""
        self._acked = number
        if number >= self._memory.reserved - RESERVE // 2:
            self._short.set()

    def suspend(self) -> None:
        """The print is held: what goes out now are the driver's own commands."""
        self._suspended = True
        self._memory.hold(True)
        self.beat()
        self._device.session.stream.allow(PROBE_NUMBER)

    def go_on(self) -> None:
        """The program's commands go out again, and the next heartbeat says so."""
        self._suspended = False
        self._memory.hold(False)
        self._device.session.stream.allow(self._memory.reserved)

    def beat(self) -> None:
        """Write the heartbeat now."""
        try:
            self._memory.beat(self._acked, self._device.heaters)
        except OSError as error:
            # Without a heartbeat a print cannot go on after a crash; that is no reason to end it now.
            self._device.context.emit(Message(f"where the print stands cannot be written down: {error}"))

    async def _keep(self) -> None:
        """Write down every second where the print stands, and reserve more before it runs short."""
        while True:
            self.beat()
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._short.wait()
            except TimeoutError:
                continue
            self._short.clear()
            await self._reserve()
            self._device.session.go_on()

    async def _reserve(self) -> None:
        """Let the program go on, once it is durable how far it may have come."""
        number = max(self._memory.reserved, self._acked) + RESERVE
        await self._memory.reserve(number, self._acked, self._device.heaters)
        if not self._suspended:
            self._device.session.stream.allow(number)

    def _kept(self, keeping: asyncio.Task[None]) -> None:
        """Without a durable reservation not one more command may go out."""
        if not keeping.cancelled() and (error := keeping.exception()) is not None:
            reason = f"how far the print may come cannot be written down: {error}"
            self._device.session.fail(NotConfirmedError(reason))


async def recover(device: Device, run: Run, program: Program) -> Recovery:
    """As `Driver.recover`."""
    left = recall(device.context, run)
    if isinstance(left, str):
        return Lost(left)
    if left is None:
        return Finished(Outcome(OutcomeKind.FAILED, Motion.NONE, "not one command of it was sent"))
    if not device.known_profile.firmware.keeps_line_numbers:
        return Lost("this firmware cannot be asked how far it came")
    if left.serial != device.firmware.uuid:
        return Lost("another printer is there now", same_machine=False)
    try:
        counted, reason, device.in_part = await _doubt(device, left, program.path)
    except LinkLostError:
        raise
    except MachineError as error:
        reason = f"the printer could not be asked how far it came: {error}"
    if reason:
        return Lost(f"the print cannot go on: {reason}")
    return At({"after": counted}, f"the printer stands after command {counted} of {left.total}")


async def look_again(device: Device, run: Run, path: Path, after: int) -> None:
    """Between `recover` and now anything may have happened: all that was proven must still be so.

    Raises `NotConfirmedError`.
    """
    left = recall(device.context, run)
    if not isinstance(left, Left):
        raise NotConfirmedError("nothing proves any more where the print stands")
    counted, reason, _ = await _doubt(device, left, path)
    if reason or counted != after:
        raise NotConfirmedError(f"the print cannot go on: {reason or f'the printer counts line {counted} now'}")


async def _doubt(device: Device, left: Left, path: Path) -> tuple[int, str, bool]:
    """The firmware's counter, why the print must not go on from there, empty if it may, and whether it has homed."""
    counted = await device.session.probe()
    position = await device.position()
    await device.look_at_heaters()
    found = Found(
        boot_id=boot_id(),
        serial=device.firmware.uuid,
        restarted=device.booted,
        counted=counted,
        at_mono_s=device.clock.mono_s(),
        heaters=dict(device.heaters),
        position_mm=position.axes_mm,
    )
    expected = await asyncio.to_thread(standing_in, path, min(counted, left.total))
    # While the firmware is busy with what it had been told, the print does not stand still.
    stood = replace(left, at_mono_s=max(left.at_mono_s, device.busy_s))
    reason = doubt(stood, found, device.known_profile.firmware.resume_gap_max_s, expected)
    return counted, reason, expected.homed and not reason
