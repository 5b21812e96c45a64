"""A recording of a wire as a test of the driver that talked over it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from drivers.gcode import PLUGIN
from drivers.gcode.config import Connection
from edge.driver import Identity, Machine, OutcomeKind
from edge.testing import Part, RecordingContext, parse, replayed
from tests.helpers.printing import LIMITS, RUN, bench_machine, write_program
from tests.helpers.sim import sim_printer

DEADLINE_S = 10.0
TRANSCRIPT = "> WHO\n~ 60\n< Turntable 1.2\n> ?\\\n> TURN 5\n< at \\\n< 5\n"


def recorded(text: str = TRANSCRIPT) -> Part:
    (part,) = parse(text)
    return part


async def test_it_says_what_it_said_once_it_hears_what_it_heard() -> None:
    async with replayed(recorded()) as table:
        reader, writer = await asyncio.open_connection(table.host, table.port)
        for piece in (b"WH", b"O\n?", b"TURN 5\n"):
            writer.write(piece)
        assert await reader.readexactly(len(b"Turntable 1.2\nat 5\n")) == b"Turntable 1.2\nat 5\n"
        await table.done(DEADLINE_S)
        writer.write(b"and more\n")  # nobody minds
        writer.close()


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"WHY\n", r"^crossing 1 of 6 in the transcript: b'WHO\\n' was sent then, and now b'WHY\\n'$"),
        (b"WHO\nTURN 5\n", r"^crossing 3 of 6 in the transcript: b'\?' was sent then, and now b'T'$"),
        (b"WHO\n?TURN", r"^crossing 4 of 6 in the transcript: b'TURN 5\\n' was sent then, and now b'TURN'$"),
    ],
)
async def test_what_is_not_sent_as_it_was_is_named_with_its_place(sent: bytes, complaint: str) -> None:
    async with replayed(recorded()) as table:
        _, writer = await asyncio.open_connection(table.host, table.port)
        writer.write(sent)
        with pytest.raises(AssertionError, match=complaint):
            await table.done(0.2)
        writer.close()


async def test_whoever_hangs_up_in_the_middle_is_told_where() -> None:
    async with replayed(recorded()) as table:
        _, writer = await asyncio.open_connection(table.host, table.port)
        writer.write(b"WHO\n")
        writer.write_eof()
        with pytest.raises(AssertionError, match=r"^crossing 3 of 6 .*b'\?' was sent then, and now b''"):
            await table.done(DEADLINE_S)
        writer.close()


async def printed(machine: Machine, folder: Path, context: RecordingContext) -> Identity:
    program = write_program(folder / "square.gcode", ["G28", "G90", "G1 X10 Y10 F3000", "G1 X20"])
    async with asyncio.timeout(DEADLINE_S), PLUGIN.open(machine, context) as driver:
        outcome = await driver.execute(RUN, program)
        assert outcome.kind is OutcomeKind.SUCCEEDED
        return driver.identity


async def test_a_print_that_was_recorded_is_printed_again_without_its_printer(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    with sim_printer(tmp_path) as printer:
        identity = await printed(bench_machine(printer), tmp_path, context)
    part = recorded(context.transcript())
    assert b"FIRMWARE_NAME:Marlin" in part.came
    async with replayed(part) as replay:
        connection = Connection(url=f"tcp://{replay.host}:{replay.port}", window="one")
        machine = Machine("p1", "gcode", "marlin-2.1", ("fdm",), connection, LIMITS)
        assert await printed(machine, tmp_path, RecordingContext(tmp_path)) == identity
        await replay.done(DEADLINE_S)
