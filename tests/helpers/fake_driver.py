"""A driver for a machine that is not there, and does what a test tells it to. A plug-in like any other.

script = Script()
script.execute = fails                      what `execute` does: a coroutine function of the run
plugin = FakePlugin(script)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edge.driver import (
    Capability,
    Driver,
    DriverContext,
    DriverPlugin,
    Identity,
    LinkLostError,
    Lost,
    Machine,
    MachineError,
    MachineState,
    Motion,
    NotAcceptableError,
    Outcome,
    OutcomeKind,
    Prediction,
    ProfileInfo,
    Program,
    Recovery,
    Resume,
    Run,
    StateSeen,
    Step,
)

SUCCEEDED = Outcome(OutcomeKind.SUCCEEDED, Motion.POSSIBLE, "done")
STOPPED = Outcome(OutcomeKind.STOPPED, Motion.POSSIBLE, "stopped on request")


class Connection(BaseModel):
    """``connection`` in site.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str = ""


class Limits(BaseModel):
    """``limits`` in site.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")


async def succeed(run: Run) -> Outcome:
    """The machine does what it is told."""
    return SUCCEEDED


async def confirm() -> None:
    """The machine confirms a stop."""


async def forget(run: Run) -> Recovery:
    """The machine remembers nothing."""
    return Lost("a machine that is not there remembers nothing")


def nothing(deadline_s: float) -> str:
    """There is nothing to make safe."""
    return ""


@dataclass
class Cut:
    """A connection in the middle of a run: `begun` is set by the machine, `cut` by the test."""

    begun: asyncio.Event
    cut: asyncio.Event


@dataclass
class Script:
    """What the machine does next, and what was asked of it."""

    execute: Callable[[Run], Awaitable[Outcome]] = succeed
    recover: Callable[[Run], Awaitable[Recovery]] = forget
    detach: Callable[[], Awaitable[None]] | None = None  # None: it cannot
    pause: Callable[[], Awaitable[None]] | None = None  # None: it cannot
    resume: Callable[[], Awaitable[None]] = confirm
    carries_on: bool = False
    stop: Callable[[], Awaitable[None]] = confirm
    open: Callable[[], Awaitable[None]] = confirm
    context: DriverContext | None = None
    executed: list[Run] = field(default_factory=list)
    abort: Callable[[], Awaitable[None]] = confirm
    make_safe: Callable[[float], str] = nothing
    stops: int = 0
    aborts: int = 0
    asked: list[str] = field(default_factory=list)  # "pause" and "resume", as they came
    opened: int = 0
    closed: int = 0
    lost: asyncio.Future[MachineError] | None = None

    def work_until_stopped(self) -> asyncio.Event:
        """Runs go on until they are stopped; an event that is set when one has begun."""
        begun, stopped = asyncio.Event(), asyncio.Event()

        async def execute(run: Run) -> Outcome:
            begun.set()
            await stopped.wait()
            return STOPPED

        async def stop() -> None:
            stopped.set()

        self.execute, self.stop = execute, stop
        return begun

    def say(self, state: MachineState, detail: str = "") -> None:
        """The machine says by itself how it is."""
        assert self.context is not None
        self.context.emit(StateSeen(state, detail))

    def lose(self, reason: str) -> None:
        """The connection breaks."""
        assert self.lost is not None
        self.lost.set_result(MachineError(reason))

    def work_until_cut(self) -> Cut:
        """Runs go on until the connection is cut, and stops come to nothing then."""
        cut = Cut(asyncio.Event(), asyncio.Event())

        async def execute(run: Run) -> Outcome:
            cut.begun.set()
            await cut.cut.wait()
            raise LinkLostError("the cable was pulled")

        async def stop() -> None:
            await cut.cut.wait()
            raise LinkLostError("the cable was pulled")

        self.execute, self.stop = execute, stop
        return cut


class FakeDriver(Driver):
    """One connection to it."""

    def __init__(self, script: Script) -> None:
        self._script = script

    @property
    def identity(self) -> Identity:
        return Identity("Fake", "1.0")

    @property
    def capabilities(self) -> frozenset[Capability]:
        able = {Capability.DETACH: self._script.detach, Capability.PAUSE: self._script.pause}
        found = {capability for capability, work in able.items() if work is not None}
        return frozenset(found | ({Capability.CARRIES_ON} if self._script.carries_on else set()))

    async def execute(self, run: Run, program: Program, resume: Resume | None = None) -> Outcome:
        self._script.executed.append(run)
        return await self._script.execute(run)

    async def recover(self, run: Run, program: Program) -> Recovery:
        return await self._script.recover(run)

    async def detach(self) -> None:
        assert self._script.detach is not None
        await self._script.detach()

    async def pause(self, deadline_s: float) -> None:
        assert self._script.pause is not None
        self._script.asked.append("pause")
        await self._script.pause()

    async def resume(self, deadline_s: float) -> None:
        self._script.asked.append("resume")
        await self._script.resume()

    async def stop(self, deadline_s: float) -> None:
        self._script.stops += 1
        await self._script.stop()

    async def abort(self) -> None:
        self._script.aborts += 1
        await self._script.abort()

    async def lost(self) -> MachineError:
        assert self._script.lost is not None
        return await asyncio.shield(self._script.lost)


class FakePlugin(DriverPlugin[Connection, Limits]):
    """Refuses programs that contain the word ``refuse``, and stumbles over ``stumble``."""

    connection = Connection
    limits = Limits

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()

    def __reduce__(self) -> tuple[type[FakePlugin], tuple[()]]:
        return FakePlugin, ()  # a worker process needs no script

    def profiles(self, user_dir: Path | None) -> list[ProfileInfo]:
        return []

    def preflight(self, machine: Machine[Connection, Limits]) -> None:
        if machine.connection.place == "nowhere":
            raise NotAcceptableError("place", "nowhere", "somewhere")

    def check(self, machine: Machine[Connection, Limits], step: Step, program: Program) -> Prediction:
        content = program.path.read_text()
        if "refuse" in content:
            raise NotAcceptableError("line 1 X", 900, 200, "mm")
        if "stumble" in content:
            raise RuntimeError("a bug")
        return Prediction(12.0)

    @asynccontextmanager
    async def open(self, machine: Machine[Connection, Limits], context: DriverContext) -> AsyncIterator[Driver]:
        script = self.script
        script.opened += 1
        await script.open()
        script.context = context
        script.lost = asyncio.get_running_loop().create_future()
        context.emit(StateSeen(MachineState.IDLE))
        try:
            yield FakeDriver(script)
        finally:
            script.closed += 1
            script.lost.cancel()

    def make_safe(self, machine: Machine[Connection, Limits], deadline_s: float) -> str:
        return self.script.make_safe(deadline_s)


PLUGIN = FakePlugin()
NO_PLUGIN = "this is no plug-in"
