"""The core of the grbl dialect against a simulated controller: any split of the bytes, any time between them."""

from __future__ import annotations

import re
from collections import deque

from hypothesis import example, given
from hypothesis import strategies as st

from drivers.gcode.events import Acked, Cause, Event, Failed
from drivers.gcode.framing import Wire
from drivers.gcode.grbl import GrblStream
from hil_sim.grbl.firmware import Options
from tests.helpers.grbl_rig import GrblRig

GOOD = st.sampled_from(["G0 X1 Y2", "G0 X40", "G1 X9 F600", "G4 P0.2", "M3 S1000", "M5", "G91", "G90", "G0 Z-1"])
BAD = st.sampled_from(["G999", "G2 X1 F100", "X", "M6"])
STEPS = st.lists(st.tuples(st.sampled_from("<>t?"), st.integers(1, 40)), max_size=120)
WINDOWS = st.integers(0, 90)
# Four seconds at most: a wire that keeps a stop's confirmation back for longer makes it an unconfirmed one, rightly.
SHORT_STEPS = st.lists(st.tuples(st.sampled_from("<>t?"), st.integers(1, 40)), max_size=40)
SHORT_TICK_S = 0.0025


class Loop:
    """A stream and a controller on a wire that carries as many bytes as it is told to, when it is told to."""

    def __init__(self, window_bytes: int, rx_bytes: int, tick_s: float = 0.05) -> None:
        self.tick_s = tick_s
        self.rig = GrblRig(Options(rx_bytes=rx_bytes))
        self.stream = GrblStream(Wire(window_bytes, stall_s=30.0, silence_s=60.0), 0.0)
        self.bound_bytes = max(0, min(window_bytes, rx_bytes))
        self.out = self.back = b""
        self.unanswered: deque[int] = deque()
        self.events: list[Event] = []
        self.stream.request("?")  # what `Bf:` says of the buffer is known before anything is sent
        self._write(self.stream.take(0.0))
        self.step(">", 1)
        self.step("<", 1000)

    def step(self, kind: str, amount: int) -> None:
        match kind:
            case ">":
                part, self.out = self.out[:amount], self.out[amount:]
                self._came(self.rig.firmware.feed(part, self.rig.now_s))
            case "<":
                part, self.back = self.back[:amount], self.back[amount:]
                self.events += self.stream.receive(part, self.rig.now_s)
            case "?":
                self.out += b"?"  # somebody else asks, too
            case _:
                self.rig.now_s += amount * self.tick_s
                self._came(self.rig.firmware.advance(self.rig.now_s))
                data, events = self.stream.tick(self.rig.now_s)
                self.out += data
                self.events += events
        self._write(self.stream.take(self.rig.now_s))

    def _came(self, data: bytes) -> None:
        self.back += data
        for _ in re.findall(rb"^(?:ok|error:\d+)\r$", data, re.MULTILINE):
            self.unanswered.popleft()
        if b"GrblHAL" in data:
            self.unanswered.clear()

    def _write(self, data: bytes) -> None:
        self.out += data
        for line in re.findall(rb"[^\n?!~\x18]+\n", data):
            self.unanswered.append(len(line))
            assert sum(self.unanswered) <= self.bound_bytes or len(self.unanswered) == 1

    def run(self, steps: list[tuple[str, int]]) -> None:
        self._write(self.stream.take(0.0))
        for kind, amount in steps:
            self.step(kind, amount)
        for _ in range(4000):
            if self.stream.drained or self.failures():
                return
            for kind in "><t":
                self.step(kind, 1000 if kind != "t" else round(0.05 / self.tick_s))
        raise AssertionError("it does not come to an end")

    def failures(self) -> list[Failed]:
        return [event for event in self.events if isinstance(event, Failed)]

    def acked(self) -> list[int]:
        return [event.number for event in self.events if isinstance(event, Acked)]


@given(st.lists(GOOD, max_size=25), WINDOWS, st.integers(20, 90), STEPS)
def test_a_program_is_carried_out_exactly_and_its_end_is_standstill(
    program: list[str], window_bytes: int, rx_bytes: int, steps: list[tuple[str, int]]
) -> None:
    loop = Loop(window_bytes, rx_bytes)
    loop.stream.begin(iter([*program, "G0 X3"]))
    loop.run(steps)
    if loop.failures():  # a G1 before the first F is the program's own fault
        assert "error:22" in loop.failures()[0].reason
        return
    assert loop.acked() == list(range(1, len(program) + 2))
    assert loop.rig.executed() == [*program, "G0 X3"]
    assert loop.rig.state() == "Idle"
    assert loop.stream.acked == len(program) + 1


@given(st.lists(GOOD, max_size=12), BAD, st.lists(GOOD, min_size=1, max_size=12), WINDOWS, SHORT_STEPS)
def test_a_refused_line_is_the_last_one_and_the_machine_stands(
    before: list[str], bad: str, after: list[str], window_bytes: int, steps: list[tuple[str, int]]
) -> None:
    loop = Loop(window_bytes, 90, SHORT_TICK_S)
    loop.stream.begin(iter(["F500", *before, bad, *after]))
    loop.run(steps)
    (failed,) = loop.failures()
    assert failed.cause is Cause.SAID
    assert f"line {len(before) + 2} ({bad}) was refused" in failed.reason
    assert loop.rig.executed() == ["F500", *before]
    assert loop.acked() == list(range(1, len(before) + 2))
    assert loop.rig.state() == "Idle"
    assert "ALARM" not in failed.reason


# Reports from before the hold arrive after it, and say Idle: they must not be taken for its confirmation.
@example(
    ["G0 X1 Y2", "G0 X1 Y2", "G0 X40"],
    5,
    25,
    [("t", 400), (">", 24), ("t", 80), ("?", 1), ("<", 4), (">", 8)],
)
@given(st.lists(GOOD, max_size=20), st.integers(0, 40), WINDOWS, SHORT_STEPS)
def test_a_stop_at_any_moment_leaves_a_machine_that_stands_where_it_says(
    program: list[str], moment: int, window_bytes: int, steps: list[tuple[str, int]]
) -> None:
    loop = Loop(window_bytes, 90, SHORT_TICK_S)
    loop.stream.begin(iter(["F500", *program]))
    loop._write(loop.stream.take(0.0))
    for kind, amount in steps[:moment]:
        loop.step(kind, amount)
    loop.stream.halt(loop.rig.now_s)
    loop.run(steps[moment:])
    assert loop.failures() == []
    assert loop.rig.state() == "Idle"
    assert loop.rig.executed() == ["F500", *program][: len(loop.rig.executed())]
    assert loop.stream.acked <= len(loop.rig.executed())


@given(st.binary(max_size=300), st.lists(st.integers(1, 9), max_size=40))
def test_noise_never_breaks_the_core(noise: bytes, sizes: list[int]) -> None:
    stream = GrblStream(Wire(128, 6.0, 30.0), 0.0)
    stream.begin(iter(["G0 X1", "G0 X2"]))
    stream.take(0.0)
    for size in sizes:
        stream.receive(noise[:size], 0.1)
        noise = noise[size:]
        stream.take(0.1)
    stream.receive(noise, 0.2)
    assert stream.acked <= 2
