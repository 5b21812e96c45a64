"""A machine on a bench, and what all tests of the contract share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge.driver import (
    Driver,
    DriverPlugin,
    Machine,
    MachineError,
    Motion,
    Outcome,
    OutcomeKind,
    Program,
    Progress,
    Run,
    Step,
)
from edge.testing.context import RecordingContext

T = TypeVar("T")
ErrorT = TypeVar("ErrorT", bound=Exception)


@dataclass(frozen=True)
class Bench:
    """A fresh machine, and what a test must know of it.

    `good` is carried out in seconds and makes progress; `long` makes progress at once and goes on until it is stopped;
    `bad` asks for what `machine.limits` forbid. `carried_out` tells what the machine itself says it has done of the
    last program, in order, without what it does to pause; `expected` is what that must be after `good`. `acts` counts
    whatever the machine has done that could move it. `unplug` breaks the connection for good.
    """

    plugin: DriverPlugin[Any, Any]
    machine: Machine[Any, Any]
    good: Program
    long: Program
    bad: Program
    expected: Sequence[str]
    carried_out: Callable[[], Sequence[str]]
    acts: Callable[[], int]
    unplug: Callable[[], None]
    process: str = "fdm"


@dataclass(frozen=True)
class Opened:
    """An open driver and what it has told."""

    driver: Driver
    context: RecordingContext


class OnABench(ABC):
    """What the tests share."""

    patience_s: float = 20.0
    """How long anything that must happen may take, in real time."""

    @abstractmethod
    def bench(self, folder: Path) -> AbstractAsyncContextManager[Bench]:
        """A fresh machine for one test; `folder` is empty and its own."""

    @asynccontextmanager
    async def _open(self, bench: Bench, folder: Path) -> AsyncIterator[Opened]:
        context = RecordingContext(folder)
        async with asyncio.timeout(self.patience_s):
            way = bench.plugin.open(bench.machine, context)
            driver = await way.__aenter__()
        try:
            yield Opened(driver, context)
        finally:
            await self._in_time(way.__aexit__(None, None, None))

    @asynccontextmanager
    async def _running(self, bench: Bench, opened: Opened) -> AsyncIterator[asyncio.Task[Outcome]]:
        """The long program under way: the machine has begun to carry it out."""
        task = asyncio.create_task(opened.driver.execute(self._run(), bench.long), name="run")
        try:
            await opened.context.seen(Progress, lambda progress: progress.done > 0, self.patience_s)
            yield task
        finally:
            if not task.done():
                task.cancel()
                await self._in_time(asyncio.wait([task]))

    async def _ends_badly(self, running: asyncio.Task[Outcome]) -> None:
        await self._in_time(asyncio.wait([running]))
        error = running.exception()
        if error is None:
            outcome = running.result()
            assert outcome.kind in (OutcomeKind.FAILED, OutcomeKind.UNKNOWN, OutcomeKind.STOPPED)
            assert outcome.motion is Motion.POSSIBLE
        else:
            assert isinstance(error, MachineError)
            assert error.motion is Motion.POSSIBLE

    async def _in_time(self, work: Awaitable[T]) -> T:
        async with asyncio.timeout(self.patience_s):
            return await work

    async def _at_once(self, work: Awaitable[None]) -> None:
        """A second is far more than any code needs that does not wait for the machine."""
        async with asyncio.timeout(1.0):
            await work

    def _deadline_s(self, opened: Opened) -> float:
        return opened.context.clock.mono_s() + self.patience_s

    def _run(self, run_id: str = "run-1") -> Run:
        return Run(run_id, "job-1", 1, Step("step-1", "any"), 1)

    def _step(self, bench: Bench) -> Step:
        return Step("step-1", bench.process)


@contextmanager
def raises(kind: type[ErrorT]) -> Iterator[list[ErrorT]]:
    """The block must raise this; what it raised is in the list afterwards."""
    caught: list[ErrorT] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    assert caught, f"{kind.__name__} was not raised"
