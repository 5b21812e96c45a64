"""A `GcodeStream` and the simulated firmware on a bench: no I/O, and time passes only when both wait.

The two share no code. A `Bench` carries bytes between them in the pieces and with the delays that a test chooses.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator

from drivers.gcode.events import Acked, Event, Failed
from drivers.gcode.framing import Wire, program_lines
from drivers.gcode.stream import GcodeStream
from hil_sim.faults import Faults
from hil_sim.printer.board import Options
from hil_sim.printer.firmware import Firmware

TICKS_MAX = 20_000
"""Far more than any scenario needs; reaching it is a deadlock."""

Pieces = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    return [data] if data else []


def byte_by_byte(data: bytes) -> Iterable[bytes]:
    return (bytes([byte]) for byte in data)


def random_pieces(source: random.Random) -> Pieces:
    def cut(data: bytes) -> Iterator[bytes]:
        while data:
            size = source.randint(1, 40)
            yield data[:size]
            data = data[size:]

    return cut


class Bench:
    """One stream, one firmware, one clock. `log` holds (number, command) of everything carried out."""

    def __init__(
        self,
        wire: Wire | None = None,
        options: Options | None = None,
        faults: Faults | None = None,
        seed: int = 0,
        pieces: Pieces = whole,
        delay_s: float = 0.0,
    ) -> None:
        """`pieces` cuts what is sent either way; each piece takes `delay_s`, and pieces never overtake each other."""
        self.now_s = 0.0
        self.log: list[tuple[str, str]] = []
        self.events: list[Event] = []
        self.ticks = 0
        self._pieces = pieces
        self._delay_s = delay_s
        self._order = itertools.count()
        self._under_way: list[tuple[float, int, bool, bytes]] = []
        self.firmware = Firmware(options or Options(), faults or Faults(), self._record, seed)
        self.firmware.boot(0.0)  # nobody has opened the port yet: the banner is lost
        self.stream = GcodeStream(wire or Wire(), 0.0)

    def _record(self, _at_s: float, number: str, text: str) -> None:
        self.log.append((number, text))

    @property
    def program(self) -> list[str]:
        """The numbered commands carried out since the last ``M110 N0``; each number follows the one before it."""
        found: list[str] = []
        for number, text in self.log:
            if number == "0":
                found.clear()
            elif number not in "-!":
                found.append(text)
                assert int(number) == len(found), "carried out twice or left out"
        return found

    @property
    def failure(self) -> Failed | None:
        return next((event for event in self.events if isinstance(event, Failed)), None)

    @property
    def acked(self) -> list[int]:
        return [event.number for event in self.events if isinstance(event, Acked) and event.number]

    def print(self, commands: list[str], *, compact: bool = False) -> None:
        """Send a program, and let time pass until all of it is acknowledged or the stream has failed."""
        self.stream.begin(program_lines(commands, compact=compact))
        self.run()

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        self._send(self.stream.take(self.now_s))
        while not (self.failure or until() or (self.stream.idle and not self._under_way)):
            self._step()

    def settle(self) -> None:
        """Let the firmware finish what it has."""
        while self._under_way or self.firmware.next_wakeup_s() is not None:
            self._step()

    def _step(self) -> None:
        """Go to the next moment at which anything happens."""
        self.ticks += 1
        assert self.ticks < TICKS_MAX, "a deadlock, or as good as one"
        moments = [self._under_way[0][0] if self._under_way else None]
        moments += [self.firmware.next_wakeup_s(), self.stream.deadline_s()]
        self.now_s = max(self.now_s, min(moment for moment in moments if moment is not None))
        self._answer(self.firmware.advance(self.now_s))
        while self._under_way and self._under_way[0][0] <= self.now_s:
            _, _, to_firmware, data = heapq.heappop(self._under_way)
            if to_firmware:
                self._answer(self.firmware.feed(data, self.now_s))
            else:
                self.events += self.stream.receive(data, self.now_s)
                self._send(self.stream.take(self.now_s))
        deadline_s = self.stream.deadline_s()
        if deadline_s is not None and deadline_s <= self.now_s:
            data, events = self.stream.tick(self.now_s)
            self.events += events
            self._send(data + self.stream.take(self.now_s))

    def _send(self, data: bytes) -> None:
        self._carry(data, to_firmware=True)

    def _answer(self, data: bytes) -> None:
        self._carry(data, to_firmware=False)

    def _carry(self, data: bytes, *, to_firmware: bool) -> None:
        for piece in self._pieces(data):
            heapq.heappush(self._under_way, (self.now_s + self._delay_s, next(self._order), to_firmware, piece))
