"""A `GcodeStream` on a `Link`: moves the bytes, keeps the time, and lets tasks wait for what the stream reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from drivers.gcode.events import Cause, Event, Failed, Probed, Silent, Speaks
from drivers.gcode.framing import Outgoing, Wire
from drivers.gcode.line import Line
from drivers.gcode.replies import Reply
from drivers.gcode.stream import GcodeStream
from edge.driver import DriverContext, LinkLostError


class Session(Line[GcodeStream]):
    """One connection to a firmware that numbers its lines."""

    def __init__(self, context: DriverContext, on_heard: Callable[[Reply], None]) -> None:
        super().__init__(context, on_heard, GcodeStream(Wire(), context.clock.mono_s()))
        self._probed: asyncio.Future[int] | None = None
        self.on_silence: Callable[[Silent | Speaks], None] = lambda event: None

    @property
    def restarted(self) -> bool:
        """Whether the failure is that the board has just booted."""
        return self.cause is Cause.RESTARTED

    def renew(self, wire: Wire) -> None:
        """As `begin_anew`."""
        self.begin_anew(GcodeStream(wire, self._clock.mono_s()))

    def follow(self, latched: Session) -> None:
        """Talk over the link of a session that has latched, which takes no part any more."""
        assert latched._link is not None
        self.attach(latched._link)
        latched.overheard_by(self._overheard)

    def _overheard(self, data: bytes) -> None:
        """As `received`, of bytes that are recorded already."""
        if not data:
            self.fail(LinkLostError("nothing more is heard over this link"))
            return
        now_s = self._clock.mono_s()
        self._after(self.stream.receive(data, now_s), now_s)

    # What a driver asks for

    async def probe(self) -> int:
        """The firmware's own line counter. Raises `MachineError`."""
        self.check()
        self._probed = self._loop.create_future()
        self.stream.probe()
        return await self._wait(self._probed)

    async def run(
        self, lines: Iterator[Outgoing], on_acked: Callable[[int], None], after: int = 0, *, counted: bool = False
    ) -> None:
        """Send a program, from the command behind `after`; returns when all, or all up to a `cut`, is acknowledged.

        Raises `MachineError`.
        """
        self.check()
        self._on_acked = on_acked
        self.stream.begin(lines, after, counted=counted)
        await self.settle()

    def go_on(self) -> None:
        """More of the program is allowed than before."""
        self._after([], self._clock.mono_s())

    def cut(self) -> None:
        """Send nothing more of the program."""
        self.stream.cut()
        self._after([], self._clock.mono_s())

    def interject(self, command: str) -> None:
        """Send `command` unnumbered, past everything that waits for its turn."""
        if self.failure is None:
            self.write_now(self.stream.interject(command, self._clock.mono_s()))
            self._after([], self._clock.mono_s())

    def be_patient(self, patient: bool) -> None:
        """Whether the firmware waits for a person and says nothing meanwhile: then silence is no sign of anything."""
        if self._patient and not patient:
            self.stream.excuse(self._clock.mono_s())
        self._patient = patient

    def _waiting(self) -> Sequence[asyncio.Future[Any]]:
        return [*super()._waiting(), *([self._probed] if self._probed is not None else [])]

    # Between link and stream

    def _handle(self, event: Event) -> None:
        match event:
            case Probed(last_line=last_line):
                if self._probed is not None and not self._probed.done():
                    self._probed.set_result(last_line)
            case Silent() | Speaks():
                self.on_silence(event)
            case Failed(reason=reason, cause=Cause.SILENT):
                # Like a cable that was pulled: once it speaks again, it can be asked how far it came.
                self.cause = event.cause
                self.fail(LinkLostError(reason))
            case _:
                super()._handle(event)
