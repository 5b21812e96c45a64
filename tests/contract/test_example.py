"""The example of docs/drivers.md, as it stands there, keeps the contract."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from edge.driver import Machine, MachineError, NotAcceptableError, Program, Run, Step, Wire
from edge.testing import Bench, DriverContract, RecordingContext, parse, replayed

GUIDE = Path(__file__).parent.parent.parent / "docs" / "drivers.md"
TURN_S = 0.005


def example() -> types.ModuleType:
    """The first block of Python in the guide, as a module that can be pickled from."""
    if "turntable_example" not in sys.modules:
        (source,) = re.findall(r'```python\n(""".*?)```', GUIDE.read_text(), re.DOTALL)
        module = types.ModuleType("turntable_example")
        sys.modules["turntable_example"] = module
        exec(compile(source, str(GUIDE), "exec"), module.__dict__)
    return sys.modules["turntable_example"]


class Table:
    """A turntable with its own end of the wire."""

    def __init__(self) -> None:
        self.turned: list[str] = []
        self.turns = 0
        self._hosts: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._hosts.add(writer)
        if task := asyncio.current_task():
            self._serving.add(task)
        try:
            while line := (await reader.readline()).decode().strip():
                writer.write(f"{await self._answer(line)}\n".encode())
        except OSError:
            pass
        finally:
            self._hosts.discard(writer)
            writer.close()

    async def _answer(self, line: str) -> str:
        match line.split():
            case ["WHO"]:
                return "Turntable 1.2"
            case ["TURN", angle]:
                await asyncio.sleep(TURN_S)  # how long a turn takes; nobody waits for it but the host
                self.turned.append(angle)
                self.turns += 1
                return f"at {angle}"
            case _:
                return "stopped"

    def hang_up(self) -> None:
        for writer in self._hosts:
            writer.transport.abort()

    async def ended(self) -> None:
        if self._serving:
            await asyncio.wait(self._serving)


def written(path: Path, angles: list[str]) -> Program:
    path.write_text("\n".join(angles))
    return Program(path.name, path, "", path.stat().st_size)


@pytest.mark.parametrize("program", [b"10\nabc\n", b"10\nnan\n", b"10\n\xff\n"])
def test_a_program_that_is_none_is_refused_by_its_line(tmp_path: Path, program: bytes) -> None:
    file = tmp_path / "junk.txt"
    file.write_bytes(program)
    module = example()
    machine = Machine("table-1", "turntable", "auto", (), None, module.Limits(angle_deg=(0, 180)))
    with pytest.raises(NotAcceptableError, match=r"^line 2: "):
        module.PLUGIN.check(machine, Step("turn", "inspect"), Program(file.name, file, "", len(program)))


class TestTurntable(DriverContract):
    def bench(self, folder: Path) -> AbstractAsyncContextManager[Bench]:
        return self._bench(folder)

    @asynccontextmanager
    async def _bench(self, folder: Path) -> AsyncIterator[Bench]:
        table, module = Table(), example()
        server = await asyncio.start_server(table.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        good = [str(angle) for angle in range(0, 180, 10)]

        def unplug() -> None:
            server.close()
            table.hang_up()

        try:
            yield Bench(
                plugin=module.PLUGIN,
                machine=Machine(
                    "table-1",
                    "turntable",
                    "auto",
                    ("inspect",),
                    module.Connection(host="127.0.0.1", port=port),
                    module.Limits(angle_deg=(0, 180)),
                ),
                good=written(folder / "good.txt", good),
                long=written(folder / "long.txt", ["10", "20"] * 20_000),
                bad=written(folder / "bad.txt", ["10", "270"]),
                expected=good,
                carried_out=lambda: table.turned[-len(good) :],
                acts=lambda: table.turns,
                unplug=unplug,
                process="inspect",
            )
        finally:
            unplug()
            await server.wait_closed()
            await table.ended()


async def test_a_recording_of_the_example_becomes_a_test(tmp_path: Path) -> None:
    """What the guide says of `replayed`, with a recording of this table."""
    module, run = example(), Run("run-1", "job-1", 1, Step("turn", "inspect"), 1)
    program, limits = written(tmp_path / "angles.txt", ["10", "9.5"]), module.Limits(angle_deg=(0, 180))

    (part,) = parse("> WHO\n< Turntable 1.2\n> TURN 10\n~ 4.0\n< at 10\n> TURN 9.5\n~ 0.5\n< at 9\n")
    async with replayed(part) as table:
        connection, context = module.Connection(host=table.host, port=table.port), RecordingContext(tmp_path)
        machine = Machine("table-1", "turntable", "auto", ("inspect",), connection, limits)
        assert module.PLUGIN.wire(machine) == Wire(f"127.0.0.1:{table.port}")
        async with module.PLUGIN.open(machine, context) as driver:
            with pytest.raises(MachineError, match="at 9"):
                await driver.execute(run, program)
        await table.done(within_s=10)
    assert context.transcript() == "> WHO\n< Turntable 1.2\n> TURN 10\n< at 10\n> TURN 9.5\n< at 9\n"
