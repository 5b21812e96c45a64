"""The line protocol of Marlin-like firmware, as a core without I/O: numbering, checksum, window, resend. PURE.

Bytes go in by `receive`, bytes come out by `take`, time comes in as `now_s` (seconds on any monotonic clock).

Rules

1. Program commands are numbered from 1, after ``N0 M110 N0``. Requests (polls) go out unnumbered. So the firmware's
   line counter is the index of the last program command that it took.
2. ``ok`` acknowledges the oldest line in flight; the firmware answers in order. The first ``ok`` after ``Resend``
   belongs to the ``Resend`` and acknowledges nothing. Some firmware sends none, so nothing goes out after a ``Resend``
   until its ``ok`` has come or `RESEND_OK_S` have passed: then an ``ok`` has one meaning only.
3. ``Resend: n`` says that everything below n was taken, whatever is still waiting for its ``ok``. Lines from n on go
   out again. The errors before it are printed when a line is read, before the ``ok``s of lines already queued, so they
   are never matched with the oldest line in flight.
4. Marlin flushes its receive buffer on an error and executes the tail of a cut line unchecked. So after any error one
   line is in flight at a time, until `CLEAN_LINES` were acknowledged; after `DISTRUST_ERRORS` errors it stays so, and
   only `FORGIVE_LINES` make up for one of them.
5. Nothing is guessed after a silence: a line with a number far ahead is refused by the firmware with the last number
   it took (`PROBE_NUMBER`), and that is the truth. One that says nothing at all is asked a few times more before it is
   given up; what it then still answers to the questions before moves nothing.
6. A line whose ``N`` was garbled is no numbered line to the firmware: it says that it does not know that command, and
   then ``ok``. The text is not the one sent, so that ``ok`` acknowledges nothing and the line goes out again. So does
   a request or a probe that comes back with one character changed: no need to wait until it is overdue.
7. What was interjected acts as it arrives, or never: it is not sent again, for by then it would answer something else.
8. A failure latches. Nothing more is sent until a new stream is made on a new connection.

Source of the protocol: Marlin/src/gcode/queue.cpp (2.1.2.1), `get_serial_commands` and `flush_and_request_resend`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator

from drivers.gcode.events import Acked, Answered, Cause, Event, Failed, Heard, Probed, Silent, Speaks
from drivers.gcode.framing import Outgoing, Wire, differs_in_one, first_word, numbered
from drivers.gcode.replies import (
    Boot,
    Busy,
    Fatal,
    LineError,
    LineSplitter,
    NotDone,
    Ok,
    Reply,
    Resend,
    UnknownCommand,
    parse,
)

_HALTED = re.compile(r"halt|kill|stopped|shutdown|m999", re.IGNORECASE)
"""What is in each of Marlin's and Smoothieware's last words (language.h, STR_ERR_KILLED, STR_THERMAL_RUNAWAY …)."""

_ALONE = (Ok(),)
"""What nearly every line of a stream says."""

PROBE_NUMBER = 999_999_999
"""Ahead of any program, and below 2**31 - 1, the largest line number that Marlin keeps (`long`, queue.cpp)."""

CLEAN_LINES = 1000
"""Lines acknowledged in a row without an error before more than one is in flight again."""

DISTRUST_ERRORS = 5
"""Errors after which a link is not trusted with more than one line in flight any more."""

FORGIVE_LINES = 1_000_000
"""Lines acknowledged in a row that make up for one error: a connection lasts for months, and a link that errs once in
many prints is none that keeps erring."""

RESEND_OK_S = 0.25
"""How long the ``ok`` of a ``Resend`` may take. Marlin prints both in one go; a USB adapter may hold 16 ms back."""

QUESTIONS = 3
"""How often the firmware is asked within the silence that its profile allows, and as often again when that is over."""

QUESTION_S = 5.0
"""How long a question after that silence waits for its answer at most."""


class GcodeStream:
    """One connection to one firmware."""

    def __init__(self, wire: Wire, now_s: float) -> None:
        self._wire = wire
        self._splitter = LineSplitter()
        self._source: Iterator[Outgoing] | None = None
        self._pulled = 0  # number of the last command taken from the source
        self._acked = 0  # number of the last command acknowledged
        self._allowed = PROBE_NUMBER  # number of the last command that may be sent
        self._requests: deque[Outgoing] = deque()
        self._again: deque[Outgoing] = deque()  # refused lines, to go out before anything new
        self._flight: deque[Outgoing] = deque()
        self._flight_bytes = 0
        self._probe_due = False
        self._probing = False
        self._probes_unanswered = 0  # in a row, though something was heard
        self._probes_out = 0  # sent since the last that was answered
        self._unheard = 0  # and since anything was heard at all
        self._late_answers = (0, 0)  # (line number, how many answers to earlier probes may still ask for it)
        self._resend_ok_until_s: float | None = None  # the `ok` of a `Resend` may come until then
        self._garbled = False  # the next `ok` is of a line that the firmware did not recognise
        self._stale_resends = 0
        self._refused: tuple[int, int] = (0, 0)  # (line number, how often in a row it was asked for again)
        self._errors = 0  # that nothing has made up for when `_clean` was last begun anew
        self._clean = CLEAN_LINES
        self._counts = False  # the firmware counts our lines: it has acknowledged `M110 N0`
        self._failure: Failed | None = None
        self._heard_s = now_s  # when the last byte came
        self._moved_s = now_s  # when the last sign came that commands move on
        self.resends = 0
        self.time_outs = 0

    # What to do

    def begin(self, lines: Iterator[Outgoing], after: int = 0, *, counted: bool = False) -> None:
        """Send `lines`, which are numbered from ``after + 1`` (`program_lines`).

        With `counted`, the firmware has counted up to `after` already and its counter is left alone; else it is set.
        """
        if not self.drained:
            raise RuntimeError("a program is begun only after the end of the one before it")
        self._source = lines
        self._pulled = self._acked = after
        self._counts = counted
        self._refused = (0, 0)
        if not counted:
            # Alone in flight until it is acknowledged: before it, the firmware counts from somebody else's last line.
            command = f"M110 N{after}"
            self._again.append(Outgoing(command, after, numbered(after, command), sets_counter=True))

    def allow(self, number: int) -> None:
        """Send no program command beyond `number` until more is allowed."""
        self._allowed = number

    def request(self, command: str, expects: Callable[[Reply], bool] | None = None) -> None:
        """Send `command` unnumbered as soon as there is room; `Answered` follows.

        Unnumbered is unchecked, and after a silence it is asked again: for questions, never for what moves.

        With `expects`, an ``ok`` before a reply that fits is somebody else's: of a command that the firmware had queued
        before this connection was made.
        """
        self._requests.append(Outgoing(command, None, command.encode("ascii") + b"\n", expects))

    def interject(self, command: str, now_s: float) -> bytes:
        """A request to be written now, whatever is in flight: for what the firmware acts upon as it arrives.

        It is sent once. Where it gets lost, its ``ok`` is missing until the firmware is asked after a stall.
        """
        if self._failure is not None:
            return b""
        line = Outgoing(command, None, command.encode("ascii") + b"\n", once=True)
        self._launch(line, now_s)
        return line.wire

    def cut(self) -> int:
        """Take nothing more from the program; the number of the last command sent. What is in flight stays so."""
        self._source = None
        return self._pulled

    def probe(self) -> None:
        """Ask the firmware for its counter; `Probed` follows."""
        self._probe_due = True

    def excuse(self, now_s: float) -> None:
        """The silence until now had a reason; time-outs begin anew."""
        self._moved_s = self._heard_s = now_s
        self._unheard = 0

    # What is so

    @property
    def idle(self) -> bool:
        """Nothing is in flight and nothing waits to be sent."""
        return not (self._flight or self._again or self._requests or self._source or self._probing or self._probe_due)

    @property
    def drained(self) -> bool:
        """Every program command that was or will be taken is acknowledged."""
        return self._source is None and all(line.number is None for line in (*self._flight, *self._again))

    @property
    def acked(self) -> int:
        """Number of the last program command that was acknowledged."""
        return self._acked

    @property
    def blocked(self) -> bool:
        """The firmware has said that it is busy with the oldest line in flight: it has taken that, and is at it."""
        return bool(self._flight) and self._flight[0].busy

    @property
    def distrusted(self) -> bool:
        """Whether the link has erred so often that one line at a time is in flight, until long after the last error."""
        return self._errors - self._clean // FORGIVE_LINES >= DISTRUST_ERRORS

    @property
    def window_bytes(self) -> int:
        """Bytes that may be in flight now; 0 is one line at a time."""
        return self._wire.window_bytes if self._clean >= CLEAN_LINES and not self.distrusted else 0

    # Bytes out

    def take(self, now_s: float) -> bytes:
        """The bytes to write now. Ask again after every `receive` and `tick`."""
        if self._failure is not None or self._probing or self._resend_ok_until_s is not None:
            return b""
        if self._probe_due:
            if self._flight and not self._probes_unanswered:
                return b""
            self._probe_due = False
            self._heard_s = now_s
            return self._start_probe(now_s)
        out: list[bytes] = []
        window_bytes = self.window_bytes
        while (line := self._next(window_bytes)) is not None:
            self._launch(line, now_s)
            out.append(line.wire)
        return b"".join(out)

    def _launch(self, line: Outgoing, now_s: float) -> None:
        if not self._flight:
            self._moved_s = self._heard_s = now_s
        self._flight.append(line)
        self._flight_bytes += len(line.wire)

    def _next(self, window_bytes: int) -> Outgoing | None:
        """The next line, if it has room. A line is taken off its queue only when it goes out."""
        if self._flight and (not window_bytes or (not self._counts and self._setting() is not None)):
            return None
        room_bytes = window_bytes - self._flight_bytes
        if queue := self._again or self._requests:
            return queue.popleft() if not self._flight or len(queue[0].wire) <= room_bytes else None
        if self._source is None or self._pulled >= self._allowed:
            return None
        line = next(self._source, None)
        if line is None:
            self._source = None
            return None
        self._pulled += 1
        if not self._flight or len(line.wire) <= room_bytes:
            return line
        self._again.append(line)
        return None

    def _start_probe(self, now_s: float) -> bytes:
        self._probing = True
        self._probes_out += 1
        self._unheard += 1
        self._moved_s = now_s
        return numbered(PROBE_NUMBER, "M105")

    # Bytes in

    def receive(self, data: bytes, now_s: float) -> list[Event]:
        """What `data` means."""
        events: list[Event] = []
        if self._unheard > QUESTIONS and data:
            events.append(Speaks(now_s - self._heard_s))
        self._unheard = 0
        self._heard_s = now_s
        for text in self._splitter.feed(data):
            for reply in _ALONE if text == "ok" else parse(text):
                if self._failure is not None:
                    return events
                events += self._reply(reply, now_s)
        return events

    def _reply(self, reply: Reply, now_s: float) -> list[Event]:
        match reply:
            case Ok(line=line):
                self._moved_s = now_s
                return self._ok(line)
            case Resend(line=line):
                self._moved_s = now_s
                self._resend_ok_until_s = now_s + RESEND_OK_S
                return self._resend(line)
            case LineError():
                # Not every one is followed by a `Resend`: Prusa's "Full RX Buffer" and "RX timeout" are not.
                self._moved_s = now_s
                if self._flight or not self._probing:  # else it is the answer to a probe that was asked for
                    self._begin_clean()
                return [Heard(reply)]
            case Busy():
                self._moved_s = now_s
                if self._flight:
                    self._flight[0].busy = True
                return [Heard(reply)]
            case Boot():
                return self._fail("the printer has restarted", Cause.RESTARTED)
            case Fatal(text=text):
                cause = Cause.HALTED if _HALTED.search(text) else Cause.SAID
                return self._fail(f"the printer stopped itself: {text}", cause)
            case UnknownCommand(command=command) if self._numbered_in_flight():
                code = first_word(self._flight[0].command)
                if first_word(command) == code:
                    if code in self._wire.harmless:
                        return [Heard(reply)]
                    return self._fail(f'the firmware does not know the command "{command}"', Cause.SAID)
                self._garbled = True
                return [Heard(reply)]
            case UnknownCommand(command=command) if self._is_garbled(command):
                self._garbled = True
                return [Heard(reply)]
            case NotDone(text=text) if any(line.number is not None for line in self._flight):
                return self._fail(f"the firmware did not carry out a command: {text}", Cause.SAID)
            case _:
                if self._flight and self._flight[0].number is None:
                    self._flight[0].replies.append(reply)
                return [Heard(reply)]

    def _setting(self) -> int | None:
        """The number that the firmware's counter is being set to, while that is in flight."""
        if self._counts:
            return None
        return next((line.number for line in self._flight if line.sets_counter), None)

    def _numbered_in_flight(self) -> bool:
        return bool(self._flight) and self._flight[0].number is not None

    def _ok(self, number: int | None) -> list[Event]:
        if self._resend_ok_until_s is not None:
            self._resend_ok_until_s = None
            return []
        if self._garbled:
            self._garbled = False
            return self._left_out()
        if number is not None:
            return self._acknowledge(number)
        if not self._flight or not self._flight[0].is_answered():
            return []
        return self._done(self._land())

    def _is_garbled(self, command: str) -> bool:
        """Whether what the firmware does not know is our probe or request, with one character changed on its way."""
        if self._probing:
            return differs_in_one(command, f"N{PROBE_NUMBER} M105")
        return bool(self._flight) and differs_in_one(command, self._flight[0].command)

    def _left_out(self) -> list[Event]:
        """The ``ok`` of a line that the firmware did not recognise."""
        if self._probing:
            self._probing = False
            self._probe_due = True
            self._probes_out -= 1
            self._probes_unanswered += 1
            return self._give_up_probing() if self._probes_unanswered > self._wire.max_resends else []
        if not self._flight:
            return []
        if (number := self._flight[0].number) is not None:
            return self._refuse(number)
        line = self._land()
        if line.once:
            return []
        line.replies.clear()
        self._again.appendleft(line)
        return self._asked_too_often(line)

    def _asked_too_often(self, line: Outgoing) -> list[Event]:
        line.asked_again += 1
        if line.asked_again <= self._wire.max_resends:
            return []
        return self._fail(f"{line.command} was sent {line.asked_again} times and never answered", Cause.UNCLEAR)

    def _give_up_probing(self) -> list[Event]:
        return self._fail("the printer talks, but does not say which line it took", Cause.UNCLEAR)

    def _acknowledge(self, number: int) -> list[Event]:
        """An ``ok`` with its line's number (ADVANCED_OK): also of the lines whose ``ok`` was lost before it."""
        if all(line.number != number for line in self._flight):
            return []
        events: list[Event] = []
        while True:
            line = self._land()
            events += self._done(line)
            if line.number == number:
                return events

    def _land(self) -> Outgoing:
        line = self._flight.popleft()
        self._flight_bytes -= len(line.wire)
        return line

    def _done(self, line: Outgoing) -> list[Event]:
        if line.number is None:
            return [Answered(line.command, tuple(line.replies))]
        self._clean += 1
        self._counts = True
        self._acked = line.number
        self._stale_resends = 0
        if line.number >= self._late_answers[0]:
            self._late_answers = (0, 0)
        return [Acked(line.number)]

    def _resend(self, number: int) -> list[Event]:
        if self._probing:
            return self._probe_answered(number - 1)
        if (base := self._setting()) is not None:
            number = base
        awaited, late = self._late_answers
        if late and number == awaited:
            self._late_answers = (awaited, late - 1)
            return []
        if self._stale_resends and number == self._refused[0]:
            # Lines that were behind the refused one are refused with the same words.
            self._stale_resends -= 1
            return []
        return self._refuse(number) or self._fits(number - 1)

    def _refuse(self, number: int) -> list[Event]:
        """The firmware has not taken line `number`: send it again, with what is behind it."""
        self.resends += 1
        self._begin_clean()
        self._errors += 1
        count = self._refused[1] + 1 if number == self._refused[0] else 1
        self._refused = (number, count)
        if count > self._wire.max_resends:
            return self._fail(f"line {number} was refused {count} times", Cause.SAID)
        behind = self._take_back(number)
        self._stale_resends = max(0, behind - 1)
        return []

    def _begin_clean(self) -> None:
        self._errors = max(0, self._errors - self._clean // FORGIVE_LINES)
        self._clean = 0

    def _take_back(self, number: int) -> int:
        """Move the lines from `number` on, and requests behind them, back to be sent again; how many they are."""
        kept = 0
        for line in self._flight:
            if line.number is not None and line.number >= number:
                break
            kept += 1
        else:
            return 0
        behind = [self._flight.pop() for _ in range(len(self._flight) - kept)]
        self._flight.extend(line for line in reversed(behind) if line.once)
        back = [line for line in behind if not line.once]
        self._flight_bytes -= sum(len(line.wire) for line in back)
        self._again.extendleft(back)
        return len(back)

    def _probe_answered(self, last_line: int) -> list[Event]:
        self._probing = False
        self._probes_unanswered = 0
        # The same answer comes once more for each question that was asked before this one, if only its answer was late.
        self._late_answers = (last_line + 1, max(0, self._probes_out - 1))
        self._probes_out = 0
        events: list[Event] = []
        # What the firmware took needs no ok; what it did not take goes out again. A request may or may not have been
        # carried out: it is asked again, for a request moves nothing.
        back = []
        while self._flight:
            line = self._land()
            if self._counts and line.number is not None and line.number <= last_line:
                events += self._done(line)
            elif not line.once:
                line.replies.clear()
                line.busy = False
                if failed := self._asked_too_often(line):
                    return [*events, *failed]
                back.append(line)
        self._again.extendleft(reversed(back))
        return [*events, *(self._fits(last_line) or [Probed(last_line)])]

    def _fits(self, last_line: int) -> list[Event]:
        """A firmware that took more than was sent, or less than it acknowledged, is not the one we talked to."""
        if not self._counts:
            return []  # it still counts from somebody else's last line
        if last_line > self._pulled:
            return self._fail(f"the printer counts line {last_line}, but {self._pulled} were sent", Cause.SAID)
        if last_line < self._acked:
            return self._fail(f"the printer counts line {last_line}, but acknowledged {self._acked}", Cause.SAID)
        return []

    def _fail(self, reason: str, cause: Cause) -> list[Event]:
        self._failure = Failed(reason, cause)
        return [self._failure]

    # Time

    def deadline_s(self) -> float | None:
        """When `tick` must be called, if nothing is received before."""
        if self._failure is not None:
            return None
        if self._resend_ok_until_s is not None:
            return self._resend_ok_until_s
        if not (self._flight or self._probing):
            return None
        silent_s = self._heard_s + self._wire.silence_s
        if self._unheard < QUESTIONS:
            return min(self._moved_s + self._wire.stall_s, silent_s)
        return silent_s + (self._unheard - QUESTIONS) * min(self._wire.stall_s, QUESTION_S)

    def tick(self, now_s: float) -> tuple[bytes, list[Event]]:
        """The deadline has come: bytes to write now (a probe), and what is known. Ask `take` afterwards."""
        deadline_s = self.deadline_s()
        if deadline_s is None or now_s < deadline_s:
            return b"", []
        if self._resend_ok_until_s is not None:
            self._resend_ok_until_s = None
            return b"", []
        self.time_outs += 1
        silent_s = now_s - self._heard_s
        silent = silent_s >= self._wire.silence_s
        if silent and (self._unheard >= 2 * QUESTIONS or not self._wire.counts):
            return b"", self._fail(f"the printer has said nothing for {silent_s:.0f} s", Cause.SILENT)
        if not self._wire.counts:
            return b"", self._fail("a command was not acknowledged, and this firmware cannot say why", Cause.UNCLEAR)
        if silent:
            self._unheard = max(self._unheard, QUESTIONS)
        elif self._probing and not self._unheard:
            self._probes_unanswered += 1
            if self._probes_unanswered > self._wire.max_resends:
                return b"", self._give_up_probing()
        # The line end first: what a broken line left in the firmware's buffer must not swallow the probe.
        return b"\n" + self._start_probe(now_s), [Silent(silent_s)] if silent else []
