"""Whatever the link does, the firmware carries out the program: every command, in order, none twice.

The firmware is the simulated one, which shares no code with the stream.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.gcode.compact import compact
from drivers.gcode.events import Cause
from drivers.gcode.framing import Wire, program_lines
from edge.demo.meaning import as_meant
from hil_sim.faults import Faults
from hil_sim.printer.board import Options
from tests.helpers.wire import Bench, byte_by_byte, random_pieces, whole

PATIENT = Wire(max_resends=1000)
"""Corruption at any rate may refuse one line many times; when to give up is tested on its own."""

commands = st.one_of(
    st.builds("G1 X{} Y{} F6000".format, st.integers(0, 200), st.integers(0, 200)),
    st.builds("G1 X{:.3f} Z{:.2f}".format, st.floats(0, 200), st.floats(0, 3)),
    st.sampled_from(["G90", "M82", "G92 E0", "M105", "M114", "G28 X", "G4 P9000", "M400", "M117 half done", "T0"]),
)
programs = st.lists(commands, min_size=1, max_size=25)
seeds = st.integers(0, 2**16)


def killed_by_noise(bench: Bench) -> bool:
    """One flipped bit makes M112 of the M110 before a program, and the emergency parser looks at no checksum."""
    return ("!", "halt") in bench.log


def ways(seed: int) -> list[dict[str, object]]:
    """Bytes of either direction, whole and in pieces, at once and late."""
    return [{"pieces": whole}, {"pieces": byte_by_byte}, {"pieces": random_pieces(random.Random(seed)), "delay_s": 0.1}]


@settings(max_examples=60, deadline=None)
@given(programs, seeds, st.integers(0, 2), st.booleans(), st.sampled_from([0, 90]))
def test_any_split_of_the_bytes_with_any_kind_of_ok(
    program: list[str], seed: int, way: int, advanced_ok: bool, window: int
) -> None:
    options = Options(advanced_ok=advanced_ok)
    bench = Bench(Wire(window_bytes=window), options, seed=seed, **ways(seed)[way])  # type: ignore[arg-type]
    bench.print(program)
    assert bench.failure is None
    assert bench.program == program
    assert bench.acked == list(range(1, len(program) + 1))
    assert bench.stream.resends == 0


@settings(max_examples=150, deadline=None)
@given(programs, seeds, st.integers(0, 2), st.floats(0, 0.6), st.booleans(), st.booleans())
def test_any_corruption_of_one_line_in_flight(
    program: list[str], seed: int, way: int, rate: float, advanced_ok: bool, silent_resend: bool
) -> None:
    faults = Faults(corrupt=rate, no_ok_after_resend=silent_resend)
    options = Options(advanced_ok=advanced_ok)
    bench = Bench(PATIENT, options, faults, seed, **ways(seed)[way])  # type: ignore[arg-type]
    bench.print(program)
    assert (bench.failure is not None) == killed_by_noise(bench)
    assert bench.program == program[: len(bench.program) if bench.failure else None]


@settings(max_examples=150, deadline=None)
@given(programs, seeds, st.integers(0, 2), st.floats(0, 0.3), st.booleans(), st.sampled_from([0, 90]))
def test_any_garbled_answers(
    program: list[str], seed: int, way: int, rate: float, advanced_ok: bool, window: int
) -> None:
    options, wire = Options(advanced_ok=advanced_ok), Wire(window_bytes=window, max_resends=1000)
    bench = Bench(wire, options, Faults(garble=rate), seed, **ways(seed)[way])  # type: ignore[arg-type]
    bench.print(program)
    if bench.failure is None:
        bench.settle()
    assert bench.program == program[: len(bench.program) if bench.failure else None]


@settings(max_examples=60, deadline=None)
@given(programs, seeds, st.floats(0, 0.2), st.floats(0, 0.1), st.booleans())
def test_any_corruption_of_line_ends(
    program: list[str], seed: int, ends: float, lines: float, silent_resend: bool
) -> None:
    """Which the simulated firmware's own noise spares: two lines become one, and a line never ends."""
    bench = Bench(PATIENT, None, Faults(corrupt=lines, no_ok_after_resend=silent_resend), seed)
    noise, arrive = random.Random(seed), bench.firmware.feed

    def feed(data: bytes, now_s: float) -> bytes:
        noisy = (byte ^ 1 << noise.randrange(8) if byte == 10 and noise.random() < ends else byte for byte in data)
        return arrive(bytes(noisy), now_s)

    bench.firmware.feed = feed  # type: ignore[method-assign]
    bench.print(program)
    assert bench.program == program[: len(bench.program) if bench.failure else None]
    assert bench.failure is None or killed_by_noise(bench) or bench.failure.cause is Cause.SILENT


@settings(max_examples=60, deadline=None)
@given(programs, seeds, st.data(), st.booleans(), st.sampled_from([0, 90]))
def test_any_lost_ok(program: list[str], seed: int, data: st.DataObject, advanced_ok: bool, window: int) -> None:
    lost = data.draw(st.integers(1, len(program) + 1))
    bench = Bench(Wire(window_bytes=window), Options(advanced_ok=advanced_ok), Faults(drop_ok=lost), seed)
    bench.print(program)
    assert bench.failure is None
    assert bench.program == program


@settings(max_examples=150, deadline=None)
@given(programs, seeds, st.floats(0, 0.3), st.booleans())
def test_corruption_of_several_lines_in_flight_never_leaves_out_or_doubles_a_command(
    program: list[str], seed: int, rate: float, silent_resend: bool
) -> None:
    # Marlin carries out the tail of a line that its flush has cut, unchecked and with an `ok` of its own. So a stream
    # with a window may see more `ok`s than it sent lines; then it must fail rather than go on.
    bench = Bench(Wire(90, max_resends=1000), None, Faults(corrupt=rate, no_ok_after_resend=silent_resend), seed)
    bench.print(program)
    if bench.failure is None:
        bench.stream.probe()
        bench.run()
    if bench.failure is None:
        assert bench.program == program
    else:
        assert bench.program == program[: len(bench.program)]


@settings(max_examples=40, deadline=None)
@given(programs, seeds, st.floats(0, 0.3), st.data())
def test_a_cut_program_ends_at_the_command_that_was_sent_last(
    program: list[str], seed: int, rate: float, data: st.DataObject
) -> None:
    bench = Bench(PATIENT, None, Faults(corrupt=rate), seed)
    bench.stream.begin(program_lines(program))
    stop_at = data.draw(st.integers(0, len(program)))
    bench.run(until=lambda: len(bench.acked) >= stop_at)
    last = bench.stream.cut()
    bench.run()
    assert (bench.failure is not None) == killed_by_noise(bench)
    assert bench.program == program[: len(bench.program) if bench.failure else last]


@pytest.mark.parametrize("way", range(3), ids=["whole", "byte_by_byte", "pieces"])
def test_a_second_program_starts_at_one_again(way: int) -> None:
    bench = Bench(**ways(1)[way])  # type: ignore[arg-type]
    bench.print(["G90", "G28"])
    bench.print(["G91", "M82", "M400"])
    assert bench.program == ["G91", "M82", "M400"]


@settings(max_examples=60, deadline=None)
@given(programs, seeds, st.sampled_from([0, 90]), st.sampled_from([0.0, 0.1]))
def test_compact_moves_are_the_same_moves_to_the_firmware(
    program: list[str], seed: int, window: int, corrupt: float
) -> None:
    wire = Wire(window_bytes=window, max_resends=1000)
    bench = Bench(wire, Options(), Faults(corrupt=corrupt if not window else 0.0), seed=seed)
    bench.print([compact(command) for command in program], compact=True)
    if killed_by_noise(bench):
        return
    assert bench.failure is None
    assert [as_meant(text) for text in bench.program] == [as_meant(command) for command in program]
    if corrupt and not window:
        return
    plain = Bench(Wire())
    plain.print(program)
    assert bench.firmware.feed(b"M114\n", bench.now_s) == plain.firmware.feed(b"M114\n", plain.now_s)
