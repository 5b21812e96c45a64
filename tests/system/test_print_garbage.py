"""Garbage on the way from the printer: harmless if it says nothing, and never a success if it says what is not so."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from drivers.gcode import PLUGIN
from edge.driver import MachineError, NotConfirmedError, OutcomeKind
from edge.testing import RecordingContext
from tests.helpers.printing import (
    RUN,
    bench_machine,
    commands_in,
    impatient_profile,
    program_of,
    write_program,
)
from tests.helpers.sim import SimPrinter, sim_printer

PATIENCE_S = 60.0
PROGRAM = ["G28", *(f"G1 X{10 + i % 90} F6000" for i in range(300))]
NOISE = (b"\xff\xfe\x00", b"okay\n", b"\x80\x81\n", b"K\n", b"wait\n", b"\n\n", b"T:x /y\n", b"echo:\xc3\x28\n")


@asynccontextmanager
async def between(printer: SimPrinter, noise: tuple[bytes, ...], every: int) -> AsyncIterator[str]:
    """A TCP relay to the printer that says something of its own behind every so-many-th whole line of the printer's."""
    random_ = random.Random(5)
    relays: set[asyncio.Task[None]] = set()
    parts = urlsplit(printer.place)

    async def outward(host: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        while data := await host.read(4096):
            out.write(data)
        out.close()

    async def relay(host: asyncio.StreamReader, to_host: asyncio.StreamWriter) -> None:
        relays.add(asyncio.current_task())  # type: ignore[arg-type]  # a task runs this
        said, out = await asyncio.open_connection(parts.hostname, parts.port)
        sending = asyncio.create_task(outward(host, out), name="relay to the printer")
        try:
            count = 0
            while line := await said.readline():
                count += 1
                to_host.write(line)
                if count > 60 and count % every == 0:  # who it is, is said undisturbed
                    to_host.write(random_.choice(noise))
        except (asyncio.CancelledError, ConnectionError):
            pass  # the host is gone: that is its end
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            for writer in (out, to_host):
                writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in relays:
            task.cancel()
        await asyncio.wait(relays)


async def printed(folder: Path, noise: tuple[bytes, ...], every: int, window: str) -> tuple[object, list[str]]:
    """How a print through the relay ends, and what the printer has carried out."""
    program = write_program(folder / "program.gcode", PROGRAM)
    profiles = impatient_profile(folder, busy_interval_s=0.2, silence_s=5.0)
    with sim_printer(folder, tcp=True) as printer:
        async with between(printer, noise, every) as url:
            machine = bench_machine(printer, profiles)
            connection = machine.connection.model_copy(update={"url": url, "window": window})
            try:
                async with (
                    asyncio.timeout(PATIENCE_S),
                    PLUGIN.open(
                        dataclasses.replace(machine, connection=connection), RecordingContext(folder)
                    ) as driver,
                ):
                    return await driver.execute(RUN, program), program_of(printer)
            except MachineError as error:
                return error, program_of(printer)


@pytest.mark.parametrize("window", ["one", "full"])
async def test_garbage_that_means_nothing_changes_nothing(tmp_path: Path, window: str) -> None:
    outcome, done = await printed(tmp_path, NOISE, 3, window)
    assert getattr(outcome, "kind", outcome) is OutcomeKind.SUCCEEDED
    assert done == commands_in(tmp_path / "program.gcode")


@pytest.mark.parametrize("window", ["one", "full"])
@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (b"ok\n", "counts|counted"),
        (b"Resend: 7\n", "but acknowledged|were sent|was refused"),
        (b"start\n", "has restarted"),
        (b"Error:\x07 m\n", "stopped itself"),
        (b"!!\n", "it is halted"),
    ],
    ids=["ok", "Resend", "start", "Error", "!!"],
)
async def test_garbage_that_means_something_never_ends_in_a_success_that_is_none(
    tmp_path: Path, window: str, lie: bytes, words: str
) -> None:
    outcome, done = await printed(tmp_path, (lie,), 40, window)
    wanted = commands_in(tmp_path / "program.gcode")
    assert done == wanted[: len(done)], "whatever was said, nothing is left out and nothing is done twice"
    if isinstance(outcome, MachineError):
        assert isinstance(outcome, NotConfirmedError) or any(word in str(outcome) for word in words.split("|"))
    else:
        assert done == wanted
