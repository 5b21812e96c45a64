"""How long an abort takes while many printers are streamed to: one process, one event loop, a driver for each printer.

    python -m bench.aborts --printers 24 --least 16 --seconds 20 --program FILE --folder DIR

Whenever at least so many of them stream, aborts one at a random moment and connects to it anew. Prints a JSON list of
pairs: printer, and the moment (time.monotonic) at which its abort was due, before the event loop came to it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
import time
from pathlib import Path

import uvloop

from bench.equipment import BAUD, WAIT_S
from drivers.gcode.config import Connection, Limits, Printer
from drivers.gcode.driver import open_printer
from edge.driver import Driver, Json, Machine, MachineError, Observation, Program, Progress, Run, Step
from edge.running.observed import Observed
from edge.testing.context import HostClock

LIMITS = Limits(x_mm=(0, 200), y_mm=(0, 200), z_mm=(0, 200))
PAUSE_MAX_S = 0.02
"""An abort is due a random time up to this after enough printers stream."""


class Streams:
    """Which printers stream now."""

    def __init__(self, least: int) -> None:
        self.drivers: dict[int, Driver] = {}
        self._least = least
        self._enough = asyncio.Event()

    def add(self, index: int, driver: Driver) -> None:
        self.drivers[index] = driver
        self._look()

    def remove(self, index: int) -> None:
        self.drivers.pop(index, None)
        self._look()

    def _look(self) -> None:
        if len(self.drivers) >= self._least:
            self._enough.set()
        else:
            self._enough.clear()

    async def enough(self) -> None:
        """Wait until enough of them stream."""
        async with asyncio.timeout(WAIT_S):
            await self._enough.wait()


class Context:
    """What the daemon gives to a driver, without its journal."""

    def __init__(self, folder: Path, streams: Streams, index: int) -> None:
        folder.mkdir()
        self.clock = HostClock()
        self.state_dir = self.runtime_dir = folder
        self.driver: Driver | None = None
        self._observed = Observed(self.clock.mono_s, lambda: None)
        self._streams = streams
        self._index = index

    def emit(self, observation: Observation) -> None:
        self._observed.add(observation)
        if isinstance(observation, Progress) and self.driver is not None and self._index not in self._streams.drivers:
            self._streams.add(self._index, self.driver)

    async def checkpoint(self, value: Json) -> None:
        pass

    def record_bytes(self, direction: str, data: bytes) -> None:
        pass


async def keep_printing(machine: Printer, context: Context, streams: Streams, index: int, program: Program) -> None:
    """Print the program, again and again; connect anew after an abort."""
    run = Run("run", "job", 1, Step("print", "fdm"), 1)
    while True:
        async with open_printer(machine, context) as driver:
            context.driver = driver
            try:
                while True:
                    await driver.execute(run, program)
                    streams.remove(index)
            except MachineError:
                pass  # aborted
            finally:
                context.driver = None
                streams.remove(index)


async def abort_some(streams: Streams, until_s: float) -> list[tuple[int, float]]:
    """Abort one after the other until the time is over; which, and when each was due."""
    chance = random.Random(1)
    asked: list[tuple[int, float]] = []
    loop = asyncio.get_running_loop()
    while loop.time() < until_s:
        await streams.enough()
        due_s = loop.time() + chance.uniform(0, PAUSE_MAX_S)
        due = asyncio.Event()
        loop.call_at(due_s, due.set)
        await due.wait()
        if not streams.drivers:
            continue
        index = chance.choice(sorted(streams.drivers))
        await streams.drivers[index].abort()
        streams.remove(index)
        asked.append((index, due_s))
    return asked


async def measure(folder: Path, path: Path, count: int, least: int, seconds: float) -> list[tuple[int, float]]:
    """The aborts of so many seconds."""
    data = path.read_bytes()
    program = Program(path.name, path, hashlib.sha256(data).hexdigest(), len(data))
    streams = Streams(least)
    printing = []
    for index in range(count):
        connection = Connection(port=str(folder / f"printer-{index}"), baud=BAUD, window="full")
        machine = Machine(f"prn-{index}", "gcode", "auto", ("fdm",), connection, LIMITS)
        context = Context(folder / f"machine-{index}", streams, index)
        work = keep_printing(machine, context, streams, index, program)
        printing.append(asyncio.create_task(work, name=f"print on {index}"))
    aborting = asyncio.create_task(abort_some(streams, time.monotonic() + seconds), name="abort")
    await asyncio.wait([aborting, *printing], return_when=asyncio.FIRST_COMPLETED)
    for task in printing:
        task.cancel()
    await asyncio.wait(printing)
    return aborting.result()


def main() -> int:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--printers", type=int, required=True)
    parser.add_argument("--least", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    measured = measure(args.folder, args.program, args.printers, args.least, args.seconds)
    print(json.dumps(uvloop.run(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
