"""A `GcodeStream` on a `Link`: moves the bytes, keeps the time, and lets tasks wait for what the stream reports."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from drivers.gcode.replies import Reply
from drivers.gcode.stream import Acked, Answered, Cause, Event, Failed, GcodeStream, Heard, Probed, Wire
from drivers.link import Link
from edge.driver import DriverContext, LinkLostError, MachineError, NotConfirmedError

T = TypeVar("T")


class Session:
    """One connection. Every failure latches in `failure` and ends everything that waits."""

    def __init__(self, context: DriverContext, on_heard: Callable[[Reply], None]) -> None:
        self._context = context
        self._clock = context.clock
        self._on_heard = on_heard
        self._on_acked: Callable[[int], None] = lambda number: None
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._asked: deque[tuple[str, asyncio.Future[tuple[Reply, ...]]]] = deque()
        self._probed: asyncio.Future[int] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._failed = self._loop.create_future()
        self.stream = GcodeStream(Wire(), self._clock.mono_s())
        self.failure: MachineError | None = None
        self.restarted = False  # the failure is that the board has just booted
        self.gone = False  # nothing can be heard over this link any more
        self._patient = False
        self.overhear: Callable[[bytes], None] = lambda data: None  # what comes, whatever has latched

    # Connection

    def attach(self, link: Link) -> None:
        """Talk over `link` from now on."""
        self._link = link

    def renew(self, wire: Wire) -> None:
        """Start the line protocol afresh on the same link; what waited is cancelled."""
        self._cancel_waiting()
        self.failure = None
        self.restarted = False
        if self._failed.done():
            self._failed = self._loop.create_future()
        self.stream = GcodeStream(wire, self._clock.mono_s())

    def close(self) -> None:
        """Let go of the link. Idempotent; sends nothing."""
        self.gone = True
        self.fail(NotConfirmedError("the connection was closed"))
        if self._link is not None:
            self._link.close()

    async def lost(self) -> MachineError:
        """Wait until this session has failed; why."""
        await asyncio.shield(self._failed)
        assert self.failure is not None
        return self.failure

    # What a driver asks for

    async def ask(self, command: str, expects: Callable[[Reply], bool] | None = None) -> tuple[Reply, ...]:
        """Send `command` unnumbered; what was said until its ``ok``. Raises `MachineError`."""
        self.check()
        answer: asyncio.Future[tuple[Reply, ...]] = self._loop.create_future()
        self._asked.append((command, answer))
        self.stream.request(command, expects)
        return await self._wait(answer)

    async def probe(self) -> int:
        """The firmware's own line counter. Raises `MachineError`."""
        self.check()
        self._probed = self._loop.create_future()
        self.stream.probe()
        return await self._wait(self._probed)

    async def run(
        self, commands: Iterator[str], on_acked: Callable[[int], None], after: int = 0, *, counted: bool = False
    ) -> None:
        """Send a program, from the command behind `after`; returns when all, or all up to a `cut`, is acknowledged.

        Raises `MachineError`.
        """
        self.check()
        self._on_acked = on_acked
        self.stream.begin(commands, after, counted=counted)
        await self.settle()

    def go_on(self) -> None:
        """More of the program is allowed than before."""
        self._after([], self._clock.mono_s())

    async def settle(self) -> None:
        """Wait until nothing of a program is in flight any more. Raises `MachineError`."""
        self.check()
        self._drained = self._loop.create_future()
        await self._wait(self._drained)

    def cut(self) -> None:
        """Send nothing more of the program."""
        self.stream.cut()
        self._after([], self._clock.mono_s())

    def interject(self, command: str) -> None:
        """Send `command` unnumbered, past everything that waits for its turn."""
        if self.failure is None:
            self.write_now(self.stream.interject(command, self._clock.mono_s()))
            self._after([], self._clock.mono_s())

    def check(self) -> None:
        """Raise the failure that has latched, if one has."""
        if self.failure is not None:
            raise self.failure

    def write_now(self, data: bytes) -> None:
        """Past every queue and window, for what must reach the firmware at once."""
        if self._link is not None:
            self._context.record_bytes(">", data)
            self._link.write(data)

    def be_patient(self, patient: bool) -> None:
        """Whether the firmware waits for a person and says nothing meanwhile: then silence is no sign of anything."""
        if self._patient and not patient:
            self.stream.excuse(self._clock.mono_s())
        self._patient = patient

    async def pulse_dtr(self, down_s: float) -> bool:
        """Drop DTR for so long; False where the link has none. Resets most boards with a USB bridge."""
        if self._link is None or not self._link.set_dtr(False):
            return False
        try:
            await asyncio.sleep(down_s)
        finally:
            self._link.set_dtr(True)
        return True

    def fail(self, error: MachineError) -> None:
        """Latch: this connection is of no use any more."""
        if self.failure is not None:
            return
        self.failure = error
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting = [future for _, future in self._asked] + [self._probed, self._drained]
        for future in waiting:
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()  # seen, even if the one who waits is cancelled before it can look
        self._asked.clear()
        if not self._failed.done():
            self._failed.set_result(None)

    async def _wait(self, future: asyncio.Future[T]) -> T:
        self._after([], self._clock.mono_s())
        return await future

    # Between link and stream

    def received(self, data: bytes) -> None:
        """Bytes came from the link."""
        self._context.record_bytes("<", data)
        self.overhear(data)
        now_s = self._clock.mono_s()
        self._after(self.stream.receive(data, now_s), now_s)

    def link_lost(self, reason: str) -> None:
        """The link broke: what the machine does now, nobody knows."""
        self.gone = True
        self.overhear(b"")
        self.fail(LinkLostError(f"the link to the machine broke: {reason}"))

    def _tick(self) -> None:
        self._timer = None
        if self._patient:
            return
        now_s = self._clock.mono_s()
        data, events = self.stream.tick(now_s)
        if data:
            self.write_now(data)
        self._after(events, now_s)

    def _after(self, events: list[Event], now_s: float) -> None:
        """Hand on what happened, write what has room now, and set the timer."""
        for event in events:
            self._handle(event)
        if self.failure is None:
            self._write_next(now_s)
        self._look_ahead(now_s)

    def _write_next(self, now_s: float) -> None:
        try:
            data = self.stream.take(now_s)
        except OSError as error:  # the program is read while it is sent
            self.fail(MachineError(f"the program cannot be read on: {error.strerror}"))
            return
        if data:
            self.write_now(data)

    def _look_ahead(self, now_s: float) -> None:
        if self.failure is not None:
            return  # latched: not one more line goes out, whatever the firmware still acknowledges
        if self._drained is not None and not self._drained.done() and self.stream.drained:
            self._drained.set_result(None)
        deadline_s = self.stream.deadline_s()
        if deadline_s is None or self._patient:
            return
        at_s = self._loop.time() + max(0.0, deadline_s - now_s)
        # A timer that is early finds nothing to do and is set anew; one for each line would cost more than the line.
        if self._timer is None or at_s < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at_s, self._tick)

    def _handle(self, event: Event) -> None:
        match event:
            case Acked(number=number):
                self._on_acked(number)
            case Answered(command=command, replies=replies):
                self._answered(command, replies)
            case Probed(last_line=last_line):
                if self._probed is not None and not self._probed.done():
                    self._probed.set_result(last_line)
            case Heard(reply=reply):
                self._on_heard(reply)
            case Failed(reason=reason, cause=cause):
                self.restarted = cause is Cause.RESTARTED
                self.fail(NotConfirmedError(reason) if cause is Cause.SILENT else MachineError(reason))

    def _answered(self, command: str, replies: tuple[Reply, ...]) -> None:
        for index, (asked, future) in enumerate(self._asked):
            if asked == command:
                del self._asked[index]
                if not future.done():
                    future.set_result(replies)
                return

    def _cancel_waiting(self) -> None:
        for future in [*(future for _, future in self._asked), self._probed, self._drained]:
            if future is not None:
                future.cancel()
        self._asked.clear()
