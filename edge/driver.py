"""The surface for driver authors: the only module of edge that a driver imports.

A plug-in (one object, named by an entry point in the group ``edge.drivers``) says which configuration its machines
take, checks programs without touching a machine, and opens drivers. A driver is one open connection to one machine.

Rules

1. A request is not a fact. `execute`, `pause`, `resume` and `stop` return when the machine has *confirmed*.
2. Any start at a machine happens at most once per `Run.run_id`.
3. Public verbs are idempotent and name the end state: stopping a stopped machine confirms that it is stopped.
4. Only `DriverError`s leave a driver. Everything else is a bug in the driver and ends the run as UNKNOWN.
5. Cancelling `execute` is a shielded `stop` with a deadline, then the cancellation is raised again.
6. Deadlines, not durations, cross this surface: they are values of `Clock.mono_s`.

All data here is plain and picklable; `check` runs in a worker process.
"""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeAlias, TypeVar

from pydantic import BaseModel

from edge.errors import (
    ConnectError,
    DriverError,
    IdentityError,
    LinkLostError,
    MachineError,
    Motion,
    NotAcceptableError,
    NotConfirmedError,
    ProtocolError,
)
from edge.model.machine import MachineState, Value

__all__ = [
    "STAGES",
    "At",
    "Capability",
    "Clock",
    "Condition",
    "Conditions",
    "ConnectError",
    "Driver",
    "DriverContext",
    "DriverError",
    "DriverPlugin",
    "Finished",
    "ForeignWork",
    "Identity",
    "IdentityError",
    "Json",
    "LinkHealth",
    "LinkLostError",
    "Lost",
    "Machine",
    "MachineError",
    "MachineState",
    "Message",
    "Motion",
    "NotAcceptableError",
    "NotConfirmedError",
    "Observation",
    "Outcome",
    "OutcomeKind",
    "Prediction",
    "ProfileInfo",
    "Program",
    "Progress",
    "ProtocolError",
    "Reading",
    "Recovery",
    "Resume",
    "Run",
    "StateSeen",
    "Step",
    "StillRunning",
    "Temperature",
    "Trust",
    "Value",
    "Wire",
    "shielded",
]

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"

ConnectionT = TypeVar("ConnectionT", bound=BaseModel)
LimitsT = TypeVar("LimitsT", bound=BaseModel)


class Capability(enum.StrEnum):
    """What an open driver can do, as the machine itself says."""

    PAUSE = "pause"  # pause and resume, both confirmed
    ABORT_AT_ONCE = "abort_at_once"  # abort acts even while a command blocks
    DETACH = "detach"  # a run can be left without stopping it, and found again by `recover`
    CARRIES_ON = "carries_on"  # the machine carries a run on by itself: it is left whenever the daemon stops


class OutcomeKind(enum.StrEnum):
    """How a run ended."""

    SUCCEEDED = "SUCCEEDED"  # the machine confirmed the end of the whole program
    STOPPED = "STOPPED"  # stopped on request, confirmed
    FAILED = "FAILED"  # the machine says that it failed
    UNKNOWN = "UNKNOWN"  # nobody knows: held until evidence or a named person resolves it


@dataclass(frozen=True, slots=True)
class Machine(Generic[ConnectionT, LimitsT]):
    """A configured piece of equipment, its tables already validated by the plug-in's own types.

    `profile` is ``auto`` or a profile's name; `profiles_dir` holds the site's own profiles, if any. `properties` are
    those of site.toml: what somebody has loaded since is matched before a run begins, and is no concern of a driver.
    """

    id: str
    driver: str
    profile: str
    processes: tuple[str, ...]
    connection: ConnectionT
    limits: LimitsT
    properties: Mapping[str, Value] = field(default_factory=dict)
    profiles_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A file of the job order, verified against its hash. `name` is its name in the order."""

    name: str
    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Step:
    """What the order says of this step, as far as a driver needs it."""

    id: str
    process: str
    parameters: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt of one step for one part. `run_id` is the identity that reaches the machine."""

    run_id: str
    job_id: str
    part: int
    step: Step
    attempt: int
    checkpoint: Json = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What `check` found. `duration_s` is None where nobody can tell; `facts` are shown to people.

    A run that is at work for much longer than `duration_s` asks for somebody who looks (docs/orders.md).

    `timeline`: pairs of progress in the driver's unit and the seconds of `duration_s` passed by then, up to the end of
    the program; empty where nobody can tell.
    """

    duration_s: float | None
    facts: Mapping[str, Value] = field(default_factory=dict)
    timeline: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the machine says it is. `serial` is its own unique identity (Marlin: ``UUID``), empty if it has none."""

    firmware: str
    version: str
    name: str = ""
    serial: str = ""
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Trust:
    """What two sides think of each other's certificates, in words for people; `settled`: both trust."""

    server: str
    server_fingerprint: str
    here: str
    ours: str
    our_fingerprint: str
    there: str
    settled: bool


@dataclass(frozen=True, slots=True)
class ProfileInfo:
    """One profile that a plug-in knows. `tried_on`: the hardware that it was tried on, in words.

    `hazards`: sentences for the people at the machine.
    """

    name: str
    summary: str
    tried_on: str
    hazards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wire:
    """Where the bytes cross that a driver gives to `DriverContext.record_bytes`; `place` is a port or an address.

    `at_once`: bytes to the machine that act wherever they stand and belong to no line, such as grbl's ``?``.
    """

    place: str
    at_once: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, whether anything can have moved, the reason in words, and what the machine said in proof."""

    kind: OutcomeKind
    motion: Motion
    reason: str = ""
    evidence: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StillRunning:
    """The machine carries the run on by itself; `execute` with this attaches to it and starts nothing."""


@dataclass(frozen=True, slots=True)
class At:
    """The machine proves where it stands; `execute` with this goes on from there. `position` is the driver's own."""

    position: Json
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The machine itself says how the run ended."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Lost:
    """Nothing proves what became of the run; the reason in words.

    `same_machine`: whether this is the machine of the run, as far as anybody can tell; it is then stopped to make it
    safe. Another machine is left alone.
    """

    reason: str
    same_machine: bool = True


Recovery: TypeAlias = StillRunning | At | Finished | Lost
Resume: TypeAlias = StillRunning | At


STAGES = "stages"


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` in `unit`.

    `stages` is for a machine that says no more than that a run has begun or ended: 1 or 2 of 2. Nobody makes a share of
    the work out of that.
    """

    done: int
    total: int
    unit: str = "commands"

    @property
    def share(self) -> float | None:
        """How much of the work is done, 0 to 1; None if the machine does not say."""
        return None if self.unit == STAGES or not self.total else self.done / self.total


@dataclass(frozen=True, slots=True)
class Temperature:
    """One heater, by Marlin's names: ``T`` (``T0`` …) a nozzle, ``B`` the bed, ``C`` the chamber."""

    name: str
    actual_degc: float
    target_degc: float


@dataclass(frozen=True, slots=True)
class Reading:
    """One measured value, such as a spindle's load; `unit` as the machine says it, for people."""

    name: str
    value: float
    unit: str = ""


@dataclass(frozen=True, slots=True)
class StateSeen:
    """The machine's state as observed; `detail` in words. Nothing is begun before a machine is told as ``IDLE``."""

    state: MachineState
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LinkHealth:
    """Counters of one connection since it was opened."""

    resends: int
    time_outs: int


@dataclass(frozen=True, slots=True)
class Message:
    """Something the machine says to people."""

    text: str


@dataclass(frozen=True, slots=True)
class ForeignWork:
    """Work on the machine that no run of edge asked for; what that made is on it until somebody clears it.

    `token` names this piece of work: the same whenever it is told of again, never that of another one. A machine that
    has no name for it gets one made up. Only 32 lower-case hexadecimal digits can be cleared from the centre, too.
    `detail`: who did what, in words, as in "ada printed cup.gcode in OctoPrint".
    """

    token: str
    detail: str


@dataclass(frozen=True, slots=True)
class Condition:
    """Something on the machine that a person is to take note of: an alarm, or a safety stop.

    `token` names this occurrence of it: lower-case letters and digits, never those of another one. `active`: its cause
    is still there. `severity`: 1 to 1000, as the machine ranks it (OPC 10000-9). `refused`: why nobody can acknowledge
    it now; empty if they can. `alone`: only by its own token, for it may be another machine's.
    """

    token: str
    text: str
    severity: int
    active: bool
    acknowledged: bool
    refused: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Conditions:
    """All that the machine has open: active, or not acknowledged yet."""

    open: tuple[Condition, ...]


Observation: TypeAlias = Conditions | Progress | Temperature | Reading | StateSeen | LinkHealth | Message | ForeignWork


class Clock(Protocol):
    """Time as edge tells it. `mono_s` never goes back; `wall` is aware UTC and can be wrong."""

    def mono_s(self) -> float: ...

    def wall(self) -> datetime: ...


class DriverContext(Protocol):
    """What edge gives to an open driver."""

    @property
    def clock(self) -> Clock: ...

    @property
    def state_dir(self) -> Path:
        """A directory of this machine's own, kept across restarts."""
        ...

    @property
    def runtime_dir(self) -> Path:
        """A directory of this machine's own that is cheap to write to, and gone when the host is booted."""
        ...

    def emit(self, observation: Observation) -> None:
        """Tell what is seen. Synchronous, never blocks; the latest of each kind (and name) is kept.

        `ForeignWork` is more than seen: it goes into the journal, once for each token, and keeps the machine from work.
        """
        ...

    async def checkpoint(self, value: Json) -> None:
        """Keep `value` for the current run; returns once it is durable. It comes back as `Run.checkpoint`."""
        ...

    def record_bytes(self, direction: str, data: bytes) -> None:
        """Keep what crossed the wire, if the site records it. `direction` is ``>`` to the machine, ``<`` from it.

        For the event loop's thread, for each write as a whole right before it and each read right after it. Never
        blocks, and costs next to nothing. Only for machines of which `DriverPlugin.wire` says where that is; never
        give it a password or a key.
        """
        ...


class Driver(ABC):
    """One open connection to one machine."""

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """As read from the machine, never from the configuration."""

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """As read from the machine, never from the configuration."""

    @abstractmethod
    async def execute(self, run: Run, program: Program, resume: Resume | None = None) -> Outcome:
        """Carry the program out, or go on with it. Motion begins here; returns when the machine confirms the end.

        Raises `MachineError` with what is known about motion; `NotConfirmedError` becomes UNKNOWN. `LinkLostError`
        ends nothing: the run stays open until the machine is connected again, and `recover` is asked.
        """

    @abstractmethod
    async def recover(self, run: Run, program: Program) -> Recovery:
        """After the connection or the daemon was lost, at a new one: what became of `run`, by what the machine says.

        Moves nothing. The reasons that it gives say what is known now; edge says before them why it had to ask.
        Raises `LinkLostError` where the connection breaks again meanwhile: then it is asked again.
        """

    async def detach(self) -> None:
        """Let go of the run without stopping it. `execute` does not return any more; cancelling it then stops nothing.

        Only where `Capability.DETACH` is there. Returns when all that was sent is acknowledged. Raises `MachineError`.
        """
        raise NotAcceptableError("detach", "asked", f"{self.identity.firmware} is stopped when the daemon stops")

    async def pause(self, deadline_s: float) -> None:
        """Hold the run, and return when it is confirmed. Only where `Capability.PAUSE` is there.

        Raises `NotConfirmedError`, and `NotAcceptableError` where nothing can be paused now, in words for the person
        who asked. Neither ends the run. A `stop` meanwhile is not kept waiting. A machine that holds by itself (a
        prompt, no filament) is told as ``StateSeen(MachineState.HELD, text)`` while `execute` goes on, with the text
        that a person needs, and as ``StateSeen(MachineState.EXECUTE)`` when it goes on. Each new text is written down.
        """
        raise NotAcceptableError("pause", "asked", f"{self.identity.firmware} cannot be paused by this driver")

    async def resume(self, deadline_s: float) -> None:
        """Go on with a held run, and return when it is confirmed. Only where `Capability.PAUSE` is there.

        It also answers a machine that holds by itself. Raises as `pause`.
        """
        raise NotAcceptableError("resume", "asked", f"{self.identity.firmware} cannot be resumed by this driver")

    async def acknowledge(self, token: str, comment: str, deadline_s: float) -> None:
        """A person has taken note of a condition; return when the machine has confirmed it. Starts and moves nothing.

        `comment` says who, and what they had to say. Raises `NotConfirmedError`, and `NotAcceptableError` for a token
        that is not open any more, or if the machine refuses.
        """
        raise NotAcceptableError("acknowledge", "asked", f"{self.identity.firmware} has no conditions for this driver")

    @abstractmethod
    async def stop(self, deadline_s: float) -> None:
        """End what is going on, make the machine safe (heaters off), and return when it is confirmed.

        Raises `NotConfirmedError` when the machine has not confirmed by `deadline_s`.
        """

    @abstractmethod
    async def abort(self) -> None:
        """Stop now, whatever it costs. Legal in every state, from any task; waits on no lock, queue or window."""

    @abstractmethod
    async def lost(self) -> MachineError:
        """Wait until the machine can no longer be used over this connection; the reason."""


class DriverPlugin(ABC, Generic[ConnectionT, LimitsT]):
    """What an entry point in the group ``edge.drivers`` names: one object.

    `connection` and `limits` are the typed shapes of these tables in site.toml; they refuse unknown keys
    (``extra="forbid"``).
    """

    connection: ClassVar[type[BaseModel]]
    limits: ClassVar[type[BaseModel]]

    @abstractmethod
    def profiles(self, user_dir: Path | None) -> list[ProfileInfo]:
        """The profiles that a machine of this driver can name."""

    @abstractmethod
    def preflight(self, machine: Machine[ConnectionT, LimitsT]) -> None:
        """Look, without opening anything: is the port there, does another process hold it, does the profile exist.

        Raises `ConnectError`, or `DriverError` for a profile that cannot be used.
        """

    @abstractmethod
    def check(self, machine: Machine[ConnectionT, LimitsT], step: Step, program: Program) -> Prediction:
        """Read the program and hold it against the machine's limits. Offline, no motion, in a worker process.

        Raises `NotAcceptableError`.
        """

    def wire(self, machine: Machine[ConnectionT, LimitsT]) -> Wire | None:
        """What ``record = true`` in site.toml records of `machine`; None, and it is refused, if there is no such thing.

        Looks at nothing but `machine` and its profile, and raises nothing. Of a wire that is named here everything is
        kept in a file that people send to others: there must be no password or key in what crosses it.
        """
        return None

    def authorise(self, machine: Machine[ConnectionT, LimitsT], tell: Callable[[str], None]) -> None:
        """Get what the machine wants to see before it lets anybody in, if that is missing: a key, a certificate.

        `tell` says what a person must do for it meanwhile; it may take minutes. Raises `ConnectError`.
        """
        return

    def trust(
        self, machine: Machine[ConnectionT, LimitsT], state_dir: Path, accept: str | None, *, renew: bool = False
    ) -> Trust:
        """What both sides think of each other's certificates. `accept`: the fingerprint that a person has compared.

        `state_dir` is the machine's own directory; `renew` makes a new certificate of ours. Raises `ConnectError`.
        """
        raise ConnectError(f"the driver {machine.driver} uses no certificates")

    @abstractmethod
    def open(
        self, machine: Machine[ConnectionT, LimitsT], context: DriverContext
    ) -> AbstractAsyncContextManager[Driver]:
        """Entering connects, identifies, and refuses a mismatch; leaving lets go without commanding anything.

        Raises `ConnectError` or `IdentityError`.
        """

    def make_safe(self, machine: Machine[ConnectionT, LimitsT], deadline_s: float) -> str:
        """Switch off what heats, blows or turns, without a move; what the machine confirmed, in words.

        For when no daemon runs: synchronous, from a thread or process of its own, with no journal and no open driver.
        `deadline_s` is a time of the host's monotonic clock. Empty if nothing was asked of the machine: people are told
        to look at it.

        Raises `ConnectError`, `IdentityError` or `NotConfirmedError`.
        """
        return ""


async def shielded(work: Coroutine[None, None, None], name: str) -> None:
    """Carry `work` to its end even if the caller is cancelled meanwhile; the cancellation is raised afterwards.

    For clean-up that touches a machine. `work` must have a deadline of its own.
    """
    task = asyncio.create_task(work, name=name)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    task.result()
