"""What the sessions of both dialects share: a stream on a `Link`, its time kept, and its failures latched."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from drivers.gcode.events import Acked, Answered, Cause, Event, Failed, Heard
from drivers.gcode.replies import Reply
from drivers.link import Link
from edge.driver import DriverContext, LinkLostError, MachineError, NotConfirmedError

T = TypeVar("T")


class Stream(Protocol):
    """The protocol core of a dialect."""

    @property
    def drained(self) -> bool: ...

    def request(self, command: str, expects: Callable[[Reply], bool] | None = None) -> None: ...

    def receive(self, data: bytes, now_s: float) -> list[Event]: ...

    def tick(self, now_s: float) -> tuple[bytes, list[Event]]: ...

    def take(self, now_s: float) -> bytes: ...

    def deadline_s(self) -> float | None: ...


StreamT = TypeVar("StreamT", bound=Stream)


class Line(Generic[StreamT]):
    """One connection. Every failure latches in `failure` and ends everything that waits."""

    def __init__(self, context: DriverContext, on_heard: Callable[[Reply], None], stream: StreamT) -> None:
        self._context = context
        self._clock = context.clock
        self._on_heard = on_heard
        self._on_acked: Callable[[int], None] = lambda number: None
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0  # the deadline that it is set for
        self._asked: deque[tuple[str, asyncio.Future[tuple[Reply, ...]]]] = deque()
        self._drained: list[asyncio.Future[None]] = []
        self._failed = self._loop.create_future()
        self._overhear: Callable[[bytes], None] | None = None  # told what comes, whatever has latched
        self._patient = False  # silence is no sign of anything now
        self.stream = stream
        self.failure: MachineError | None = None
        self.cause: Cause | None = None  # of a failure that the stream has found
        self.gone = False  # nothing can be heard over this link any more

    # Connection

    def attach(self, link: Link) -> None:
        """Talk over `link` from now on."""
        self._link = link

    def begin_anew(self, stream: StreamT) -> None:
        """Start the line protocol afresh on the same link; what waited is cancelled."""
        for future in self._waiting():
            future.cancel()
        self._forget_waiting()
        self.failure = self.cause = None
        if self._failed.done():
            self._failed = self._loop.create_future()
        self.stream = stream

    def close(self) -> None:
        """Let go of the link. Idempotent; sends nothing."""
        self.gone = True
        self.fail(NotConfirmedError("the connection was closed"))
        if self._link is not None:
            self._link.close()

    def overheard_by(self, overhear: Callable[[bytes], None]) -> None:
        """Have `overhear` called with what comes, whatever has latched; with nothing at all when no more will come.

        Whoever it was before hears nothing more.
        """
        if self._overhear is not None:
            self._overhear(b"")
        self._overhear = overhear

    async def pulse_dtr(self, down_s: float) -> bool:
        """Drop DTR for so long; False where the link has none. Resets most boards with a USB bridge."""
        if self._link is None or not self._link.set_dtr(False):
            return False
        try:
            await asyncio.sleep(down_s)
        finally:
            self._link.set_dtr(True)
        return True

    async def lost(self) -> MachineError:
        """Wait until this session has failed; why."""
        await asyncio.shield(self._failed)
        assert self.failure is not None
        return self.failure

    # What a driver asks for

    async def ask(self, command: str, expects: Callable[[Reply], bool] | None = None) -> tuple[Reply, ...]:
        """Send `command` beside the program; what was said until its answer. Raises `MachineError`."""
        self.check()
        answer: asyncio.Future[tuple[Reply, ...]] = self._loop.create_future()
        self._asked.append((command, answer))
        self.stream.request(command, expects)
        return await self._wait(answer)

    async def settle(self) -> None:
        """Wait until nothing of a program is in flight any more. Raises `MachineError`."""
        self.check()
        drained: asyncio.Future[None] = self._loop.create_future()
        self._drained.append(drained)
        await self._wait(drained)

    def check(self) -> None:
        """Raise the failure that has latched, if one has."""
        if self.failure is not None:
            raise self.failure

    def write_now(self, data: bytes) -> None:
        """Past every queue and window, for what must reach the firmware at once."""
        if self._link is not None:
            self._context.record_bytes(">", data)
            self._link.write(data)

    def fail(self, error: MachineError) -> None:
        """Latch: this connection is of no use any more."""
        if self.failure is not None:
            return
        self.failure = error
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in self._waiting():
            if not future.done():
                future.set_exception(error)
                future.exception()  # seen, even if the one who waits is cancelled before it can look
        self._forget_waiting()
        if not self._failed.done():
            self._failed.set_result(None)

    async def _wait(self, future: asyncio.Future[T]) -> T:
        self._after([], self._clock.mono_s())
        return await future

    def _waiting(self) -> Sequence[asyncio.Future[Any]]:
        return [*(future for _, future in self._asked), *self._drained]

    def _forget_waiting(self) -> None:
        self._asked.clear()
        self._drained.clear()

    # Between link and stream

    def received(self, data: bytes) -> None:
        """Bytes came from the link."""
        if self._overhear is not None:
            self._overhear(data)
        self._context.record_bytes("<", data)
        now_s = self._clock.mono_s()
        self._after(self.stream.receive(data, now_s), now_s)

    def link_lost(self, reason: str) -> None:
        """The link broke: what the machine does now, nobody knows."""
        self.gone = True
        if self._overhear is not None:
            self._overhear(b"")
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
        acked: Acked | None = None
        for event in events:
            if isinstance(event, Acked):
                acked = event  # the last of several in a row says it for all
                continue
            if acked is not None:
                self._on_acked(acked.number)
                acked = None
            self._handle(event)
        if acked is not None:
            self._on_acked(acked.number)
        if self.failure is not None:
            return  # latched: not one more line goes out, whatever the firmware still acknowledges
        try:
            data = self.stream.take(now_s)
        except OSError as error:  # the program is read while it is sent
            self.fail(MachineError(f"the program cannot be read on: {error.strerror}"))
            return
        if data:
            self.write_now(data)
        if self.failure is None:
            self._look_ahead(now_s)

    def _look_ahead(self, now_s: float) -> None:
        if self._drained and self.stream.drained:
            for future in self._drained:
                if not future.done():
                    future.set_result(None)
            self._drained.clear()
        deadline_s = self.stream.deadline_s()
        if deadline_s is None or self._patient:
            return
        # A timer that is early finds nothing to do and is set anew; one for each line would cost more than the line.
        if self._timer is None or deadline_s < self._timer_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_s = deadline_s
            self._timer = self._loop.call_later(max(0.0, deadline_s - now_s), self._tick)

    def _handle(self, event: Event) -> None:
        match event:
            case Answered(command=command, replies=replies):
                self._answered(command, replies)
            case Heard(reply=reply):
                self._on_heard(reply)
            case Failed(reason=reason, cause=cause):
                self.cause = cause
                unknown = cause in (Cause.SILENT, Cause.UNCLEAR)
                self.fail(NotConfirmedError(reason) if unknown else MachineError(reason))
            case _:
                raise AssertionError(f"{event} is not of this dialect")

    def _answered(self, command: str, replies: tuple[Reply, ...]) -> None:
        for index, (asked, future) in enumerate(self._asked):
            if asked == command:
                del self._asked[index]
                if not future.done():
                    future.set_result(replies)
                return
