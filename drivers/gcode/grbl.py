"""The line protocol of grbl and grblHAL, as a core without I/O: character counting, real-time bytes, safe stop. PURE.

Bytes go in by `receive`, bytes come out by `take`, time comes in as `now_s` (seconds on any monotonic clock). The
methods and events are those of `GcodeStream`, so that one session can carry either.

Rules

1. Every line is answered exactly once and in order, with ``ok`` or ``error:n``; an empty one, too. So counting is all
   the accounting there is: no line numbers, no checksum, no resend, and no way to ask afterwards how far it came. A
   link that damages bytes damages the work; a bare UART is for tests.
2. Bytes in flight never exceed the receive buffer: that of the profile, or what the controller itself reports as free
   while nothing is in flight (``Bf:``), whichever is less. Overflow loses bytes in silence.
3. ``?``, ``!``, ``~`` and Ctrl-X are picked out of the stream wherever they stand, also inside a line or a comment, and
   so are all bytes above 127. They need no room and no answer. A program line that contains one is never sent.
4. A line that was refused, or anything that breaks the accounting, stops the program, for plain grbl carries out the
   lines behind a refused one: feed hold (``!``), wait until the machine stands (``Hold:0``), reset (Ctrl-X), which
   empties the controller's buffers and keeps the position, and only when its banner came is `Failed` reported. ``Idle``
   does not confirm a hold: a held controller never says it, so such a report is from before. A reset in motion would
   lose the position; it comes only if the hold is not confirmed in `HOLD_S`.
5. An alarm latches at once: the controller has stopped by itself and is locked until a person unlocks it.
6. A program is finished when the last ``ok`` has come and then two reports in a row say ``Idle``. One is not enough:
   a report is printed before the moves that wait are started.
7. While an answer is owed, ``?`` goes out every `POLL_S`; a controller that lives answers at once, whatever it does.
   Only homing may be silent (grbl answers nothing meanwhile).
8. An idle controller that owes an answer for `Wire.stall_s` has lost a line or its answer. Nobody can tell which.
9. A failure latches. Nothing more is sent until a new stream is made.

Sources: gnea/grbl 1.1h grbl/protocol.c, grbl/serial.c, grbl/motion_control.c; grblHAL/core (build 20260817) protocol.c.
"""

from __future__ import annotations

import enum
import math
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from drivers.gcode import grbl_codes
from drivers.gcode.events import Acked, Answered, Cause, Event, Failed, Heard
from drivers.gcode.framing import Wire
from drivers.gcode.grbl_replies import Alarm, Banner, Refusal, Status, parse
from drivers.gcode.replies import LineSplitter, Ok, Reply

STATUS = b"?"
"""Ask for a `Status`. Source of these four: gnea/grbl 1.1h grbl/config.h, ``CMD_…``."""
HOLD = b"!"
"""Feed hold: decelerate along the path and wait. The position is kept."""
RESUME = b"~"
"""Go on after a hold, a door or M0."""
RESET = b"\x18"
"""Soft reset: drop every buffer and stop the spindle; in motion it loses the position."""

AT_ONCE = STATUS + HOLD + RESUME + RESET
"""What acts wherever it stands, of all that is sent here."""

SPOIL = "$"
"""A first line for a new connection. Half a line that a dead host left behind becomes an error with it, where a bare
line end would have it carried out; by itself it prints the help."""

FINAL = "G4 P0.01"
"""A last line for a program: a dwell is answered when all motion before it is done (grbl/motion_control.c)."""

POLL_S = 1.0
"""How often a busy controller is asked for its status."""
SETTLE_POLL_S = 0.2
"""The same at the end of a program and in a stop; grbl's documentation asks for 5 Hz at most (interface.md)."""
HOLD_S = 10.0
"""How long a feed hold may take to be confirmed: the deceleration of a heavy axis, and a slow link."""
RESET_S = 5.0
"""How long a reset may take to show its banner; a board that boots from USB takes 2 s."""
HOMING_S = 180.0
"""How long a controller that homes may say nothing."""

IDLE_REPORTS = 2

_NOT_IN_LINE = re.compile(r"[^ -~]|[?!~]")
_DWELL = re.compile(r"G0?4(?!\d).*?P *(\d+(?:\.\d*)?)", re.IGNORECASE)
_ERROR_NOT_IDLE = 8


class _Halt(enum.Enum):
    NO = enum.auto()
    HOLDING = enum.auto()  # `!` is out, the machine may still decelerate
    RESETTING = enum.auto()  # Ctrl-X is out, its banner has not come


@dataclass(slots=True)
class _Line:
    command: str
    number: int | None
    expects: Callable[[Reply], bool] | None = None
    replies: list[Reply] = field(default_factory=list)

    @property
    def wire(self) -> bytes:
        return self.command.encode("ascii") + b"\n"

    def is_answered(self) -> bool:
        """Whether an ``ok`` can be this line's: an answer that must come before it has come."""
        return self.expects is None or any(map(self.expects, self.replies))


def unsendable(command: str) -> str | None:
    """Why `command` must not be put on the wire as a line; None if it may."""
    match = _NOT_IN_LINE.search(command)
    return match and f"{match.group()!r} acts on the controller wherever it stands, it is never part of a line"


class GrblStream:
    """One connection to one controller."""

    def __init__(self, wire: Wire, now_s: float) -> None:
        self._wire = wire
        self._splitter = LineSplitter()
        self._source: Iterator[str] | None = None
        self._running = False  # a program was begun, and its end is not confirmed
        self._pulled = 0  # number of the last command taken from the source
        self._acked = 0
        self._waiting: _Line | None = None  # taken from the source, without room yet
        self._requests: deque[_Line] = deque()
        self._flight: deque[_Line] = deque()
        self._flight_bytes = 0
        self._real_time = b""  # to go out with the next `take`
        self._looks = 0  # how many `request("?")` are unanswered
        self._rx_bytes: int | None = None  # what the controller says of its receive buffer
        self._idle_reports = 0
        self._halt = _Halt.NO
        self._halt_until_s = math.inf
        self._why: Failed | None = None  # what the halt is for; None if it was asked for
        self._alarm: Alarm | None = None  # heard during a halt
        self._failure: Failed | None = None
        self._heard_s = now_s  # when the last byte came
        self._idle_since_s: float | None = None  # since when the controller is idle and owes an answer
        self._polled_s = now_s
        self.resends = 0  # there are none in this dialect
        self.time_outs = 0

    # What to do

    def begin(self, commands: Iterator[str]) -> None:
        """Send `commands`, counted from 1. They are stripped, not empty, and without comments."""
        if self._flight or self._requests or self._running or self._halt is not _Halt.NO:
            raise RuntimeError("a program is begun only on an idle stream")
        self._source = commands
        self._running = True
        self._pulled = self._acked = self._idle_reports = 0

    def request(self, command: str, expects: Callable[[Reply], bool] | None = None) -> None:
        """Send `command` as soon as there is room; `Answered` follows, with the `Refusal` last if it was refused.

        ``?`` needs no room; its answer is the next `Status`. With `expects`, an answer before a reply that fits is
        somebody else's: of a line that was there before this connection was made.
        """
        if command == "?":
            self._looks += 1
            self._real_time += STATUS
            return
        if why := unsendable(command):
            raise ValueError(f"{command!r}: {why}")
        self._requests.append(_Line(command, None, expects))

    def cut(self) -> int:
        """Take nothing more from the program; the number of the last command sent. What is in flight stays so."""
        self._source = None
        if self._waiting is not None:
            self._waiting = None
            self._pulled -= 1
        return self._pulled

    def halt(self, now_s: float) -> None:
        """Stop for good: hold, stand, reset. Afterwards `drained`; a machine that lost its position `Failed`."""
        if self._failure is None and self._halt is _Halt.NO:
            self._start_halt(None, now_s)

    # What is so

    @property
    def idle(self) -> bool:
        """Nothing is in flight, nothing waits to be sent, and no program is unfinished."""
        return not (self._flight or self._requests or self._running or self._looks or self._halt is not _Halt.NO)

    @property
    def drained(self) -> bool:
        """Every program command that was or will be taken is acknowledged, and the machine stands still."""
        return not self._running and self._halt is _Halt.NO

    @property
    def halting(self) -> bool:
        """The machine is being stopped for good: a ``~`` now would let it go on."""
        return self._halt is not _Halt.NO

    @property
    def acked(self) -> int:
        """Number of the last program command that was acknowledged."""
        return self._acked

    @property
    def window_bytes(self) -> int:
        """Bytes that may be in flight now; 0 is one line at a time."""
        return self._wire.window_bytes if self._rx_bytes is None else min(self._wire.window_bytes, self._rx_bytes)

    # Bytes out

    def take(self, now_s: float) -> bytes:
        """The bytes to write now. Ask again after every `receive` and `tick`."""
        if self._failure is not None:
            return b""
        out = [self._urgent(now_s)]
        while self._halt is _Halt.NO and (line := self._next(now_s)) is not None:
            if not self._flight:
                self._heard_s = self._polled_s = now_s
                self._idle_since_s = None
            self._flight.append(line)
            self._flight_bytes += len(line.wire)
            out.append(line.wire)
        return b"".join((*out, self._urgent(now_s)))

    def _urgent(self, now_s: float) -> bytes:
        """The real-time bytes that are due."""
        if not self._real_time:
            return b""
        if not self._flight and self._looks <= 1:
            self._heard_s = now_s
        self._polled_s = now_s
        out, self._real_time = self._real_time, b""
        return out

    def _next(self, now_s: float) -> _Line | None:
        """The next line, if it has room. A line is taken off its queue only when it goes out."""
        if self._requests:
            return self._requests.popleft() if self._has_room(self._requests[0]) else None
        if self._waiting is None and self._source is not None:
            self._waiting = self._pull(now_s)
        if self._waiting is None or not self._has_room(self._waiting):
            return None
        line, self._waiting = self._waiting, None
        return line

    def _pull(self, now_s: float) -> _Line | None:
        assert self._source is not None
        command = next(self._source, None)
        if command is None:
            self._source = None
            self._settle_soon(now_s)
            return None
        if why := unsendable(command):
            self._stop_because(f"line {self._pulled + 1} ({command!r}): {why}", Cause.SAID, now_s)
            return None
        self._pulled += 1
        return _Line(command, self._pulled)

    def _has_room(self, line: _Line) -> bool:
        return not self._flight or self._flight_bytes + len(line.wire) <= self.window_bytes

    # Bytes in

    def receive(self, data: bytes, now_s: float) -> list[Event]:
        """What `data` means."""
        self._heard_s = now_s
        events: list[Event] = []
        for text in self._splitter.feed(data):
            if self._failure is not None:
                return events
            events += self._reply(parse(text), now_s)
        return events

    def _reply(self, reply: Reply, now_s: float) -> list[Event]:
        match reply:
            case Ok() | Refusal():
                return self._answer(reply, now_s)
            case Status():
                return self._status(reply, now_s)
            case Alarm(code=code):
                if self._halt is _Halt.NO:
                    return [Heard(reply), *self._fail(f"the controller stopped: {grbl_codes.alarm(code)}", Cause.SAID)]
                self._alarm = reply
                return [Heard(reply)]
            case Banner():
                if self._halt is _Halt.NO:
                    return [Heard(reply), *self._fail("the controller has restarted", Cause.RESTARTED)]
                return [Heard(reply), *self._halted(reply)]
            case _:
                if self._flight and self._flight[0].number is None:
                    self._flight[0].replies.append(reply)
                return [Heard(reply)]

    def _answer(self, reply: Ok | Refusal, now_s: float) -> list[Event]:
        """``ok`` or ``error:n``: the answer to the oldest line in flight."""
        self._idle_since_s = None
        if not self._flight:
            if self._running and self._halt is _Halt.NO:
                self._stop_because("the controller answered more lines than it was sent", Cause.SAID, now_s)
            return [Heard(reply)]
        line = self._flight[0]
        about_us = line.is_answered() or (isinstance(reply, Refusal) and reply.code == _ERROR_NOT_IDLE)
        if not about_us:
            return [Heard(reply)]
        self._flight.popleft()
        self._flight_bytes -= len(line.wire)
        if isinstance(reply, Refusal):
            return self._refused(line, reply, now_s)
        if line.number is None:
            return [Answered(line.command, tuple(line.replies))]
        self._acked = line.number
        self._settle_soon(now_s)
        return [Acked(line.number)]

    def _refused(self, line: _Line, reply: Refusal, now_s: float) -> list[Event]:
        if line.number is None:
            return [Answered(line.command, (*line.replies, reply))]
        if self._halt is _Halt.NO:
            said = grbl_codes.error(reply.code)
            self._stop_because(f"line {line.number} ({line.command}) was refused: {said}", Cause.SAID, now_s)
        return [Heard(reply)]

    def _status(self, status: Status, now_s: float) -> list[Event]:
        events: list[Event] = [Heard(status)]
        if self._looks:
            self._looks -= 1
            events.append(Answered("?", (status,)))
        free_bytes = status.rx_free_bytes
        if free_bytes is not None and not self._flight:
            self._rx_bytes = free_bytes
        idle = status.state == "Idle"
        self._idle_reports = self._idle_reports + 1 if idle else 0
        if not (idle and self._flight):
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        if self._settling and self._idle_reports >= IDLE_REPORTS:
            self._running = False
        if self._halt is _Halt.HOLDING and status.still:
            self._reset(now_s)
        elif self._halt is _Halt.NO and self._running and status.state == "Alarm":
            events += self._fail(f"the controller is locked by an alarm: {status.text}", Cause.SAID)
        return events

    # The end of a program, and the stop

    @property
    def _settling(self) -> bool:
        """All lines of the program are acknowledged; what is missing is that the machine stands."""
        lines = (*self._flight, self._waiting)
        return self._running and self._source is None and all(line is None or line.number is None for line in lines)

    def _settle_soon(self, now_s: float) -> None:
        if self._settling:
            self._idle_reports = 0
            self._real_time += STATUS
            self._heard_s = now_s

    def _stop_because(self, reason: str, cause: Cause, now_s: float) -> None:
        self._start_halt(Failed(reason, cause), now_s)

    def _start_halt(self, why: Failed | None, now_s: float) -> None:
        self._why = why
        self.cut()
        self._halt = _Halt.HOLDING
        self._halt_until_s = now_s + HOLD_S
        self._real_time += HOLD + STATUS

    def _reset(self, now_s: float) -> None:
        self._halt = _Halt.RESETTING
        self._halt_until_s = now_s + RESET_S
        self._real_time += RESET

    def _halted(self, banner: Banner) -> list[Event]:
        """The reset is confirmed: nothing of what was sent is left in the controller."""
        events: list[Event] = [Answered(x.command, (*x.replies, banner)) for x in self._flight if x.number is None]
        self._flight.clear()
        self._flight_bytes = 0
        self._idle_since_s = None
        self._running = False
        self._halt = _Halt.NO
        self._halt_until_s = math.inf
        alarm = None if self._alarm is None else grbl_codes.alarm(self._alarm.code)
        if self._why is not None:
            return [*events, *self._fail("; then ".join(filter(None, (self._why.reason, alarm))), self._why.cause)]
        return [*events, *self._fail(f"stopped, but {alarm}", Cause.SAID)] if alarm else events

    def _fail(self, reason: str, cause: Cause) -> list[Event]:
        self._failure = Failed(reason, cause)
        return [self._failure]

    # Time

    def deadline_s(self) -> float | None:
        """When `tick` must be called, if nothing is received before."""
        if self._failure is not None or self.idle:
            return None
        if self._halt is not _Halt.NO:
            return min(self._poll_at_s(), self._halt_until_s)
        return min(self._poll_at_s(), self._silent_at_s(), self._stalled_at_s())

    def _poll_at_s(self) -> float:
        hurry = self._halt is not _Halt.NO or self._settling
        return self._polled_s + (SETTLE_POLL_S if hurry else POLL_S)

    def _silent_at_s(self) -> float:
        homing = bool(self._flight) and self._flight[0].command.upper().startswith("$H")
        return self._heard_s + (max(self._wire.silence_s, HOMING_S) if homing else self._wire.silence_s)

    def _stalled_at_s(self) -> float:
        if self._idle_since_s is None:
            return math.inf
        dwell = _DWELL.search(self._flight[0].command)  # the controller says that it is idle while it dwells
        return self._idle_since_s + self._wire.stall_s + (float(dwell.group(1)) if dwell else 0.0)

    def tick(self, now_s: float) -> tuple[bytes, list[Event]]:
        """The deadline has come: bytes to write now, and what is known. Ask `take` afterwards."""
        deadline_s = self.deadline_s()
        if deadline_s is None or now_s < deadline_s:
            return b"", []
        match self._halt:
            case _Halt.HOLDING if now_s >= self._halt_until_s:
                self._reset(now_s)
            case _Halt.RESETTING if now_s >= self._halt_until_s:
                return b"", self._unheard("the stop was not confirmed")
            case _Halt.NO if now_s >= self._silent_at_s():
                return b"", self._unheard(f"nothing was heard for {now_s - self._heard_s:.0f} s")
            case _Halt.NO if now_s >= self._stalled_at_s():
                self.time_outs += 1
                command = self._flight[0].command
                self._stop_because(f'the controller is idle and has not answered "{command}"', Cause.SILENT, now_s)
            case _:
                self._polled_s = now_s
                return STATUS, []
        return b"", []

    def _unheard(self, reason: str) -> list[Event]:
        """What the machine does now, nobody knows."""
        self.time_outs += 1
        return self._fail(reason if self._why is None else f"{self._why.reason}; {reason}", Cause.SILENT)
