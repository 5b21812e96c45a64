"""A `GrblStream` on a `Link`: moves the bytes, keeps the time, and lets tasks wait for what the stream reports.

It is a session of its own beside Marlin's: there are no numbers to probe for and nothing to interject, but real-time
bytes and a halt that the stream itself carries to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from drivers.gcode.framing import Wire
from drivers.gcode.grbl import GrblStream
from drivers.gcode.grbl_replies import Status
from drivers.gcode.line import Line
from drivers.gcode.replies import Reply
from edge.driver import DriverContext


class GrblSession(Line[GrblStream]):
    """One connection to a controller. `ask` gives refusals, too, as the last of what was said."""

    def __init__(self, context: DriverContext, on_heard: Callable[[Reply], None]) -> None:
        super().__init__(context, on_heard, GrblStream(Wire(), context.clock.mono_s()))

    def renew(self, wire: Wire) -> None:
        """As `begin_anew`."""
        self.begin_anew(GrblStream(wire, self._clock.mono_s()))

    async def look(self) -> Status:
        """What the machine does now. Raises `MachineError`."""
        (status,) = await self.ask("?")
        assert isinstance(status, Status), "the stream answers ? with nothing else"
        return status

    async def run(self, commands: Iterator[str], on_acked: Callable[[int], None]) -> None:
        """Send a program; returns when it is confirmed that all of it is done, or that it was halted.

        Raises `MachineError`.
        """
        self.check()
        self._on_acked = on_acked
        self.stream.begin(commands)
        await self.settle()

    async def halt(self) -> None:
        """Hold, stand, reset: nothing of what was sent is left in the controller. Raises `MachineError`."""
        self.check()
        self.stream.halt(self._clock.mono_s())
        await self.settle()
