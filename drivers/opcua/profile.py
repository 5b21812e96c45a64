"""The shape of profiles of OPC UA machines. `docs/opcua.md` shows how to write one.

A profile says where things are (`drivers.opcua.nodemap`) and what their values mean. What it leaves out has the careful
value: no condition met by silence, no run called good without the machine's word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

import firmware_profiles
from drivers.opcua.nodemap import Place, check_aliases, place
from edge.driver import DriverError

JOBS, ROBOTICS, MAPPED = "opcua-jobs", "opcua-robotics", "opcua-mapped"

Plain: TypeAlias = bool | int | float | str
Names: TypeAlias = dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], "Value"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Where(_Table):
    """Which object is the machine.

    `root`: a place seen from Objects; with a star there may be several, and those count that have all that `requires`
    names, seen from them.
    """

    root: str
    requires: tuple[str, ...] = Field(default=(), strict=False)


class IdentityTable(_Table):
    """Places of what the machine says of itself, seen from `root`. Those that it has not are left out."""

    firmware: str = ""
    version: str = ""
    name: str = ""
    serial: str = ""


class Condition(_Table):
    """What must hold before anything is started: `node` has one of `any`, or none of `never`; otherwise `words`.

    A state machine's ``CurrentState/Id`` has the browse name of the state. A node that the machine has not is left out,
    unless `required`. `safety`: breaking it while a run goes on holds the machine until a person has looked at it.
    """

    node: str
    any: tuple[Plain, ...] = Field(default=(), strict=False)
    never: tuple[Plain, ...] = Field(default=(), strict=False)
    words: str
    required: bool = False
    safety: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Condition:
        if bool(self.any) == bool(self.never):
            raise ValueError("give either any = [...] or never = [...]")
        return self

    def holds(self, value: Plain | None) -> bool:
        """Whether this value lets a run start. Nothing known is not enough, nor is what is not understood."""
        if value is None or not self.understands(value):
            return False
        found = any(_same(value, other) for other in self.any or self.never)
        return found if self.any else not found

    def understands(self, value: Plain) -> bool:
        """Whether the value is of a kind that the condition names: a text, a number, or yes and no."""
        return any(_kind(value) is _kind(other) for other in self.any or self.never)


class Value(_Table):
    """A value that people want to see. `unit`: only where the server does not say it (EngineeringUnits)."""

    node: str
    unit: str = ""


class AlarmTable(_Table):
    """`blocks_from`: an active alarm of this severity (1 to 1000) or more lets nothing start; 0 for none does."""

    blocks_from: int = Field(default=500, ge=0, le=1000)


class Files(_Table):
    """Where programs are put.

    `directory`: a FileDirectoryType. `suffix` is added to the run's name. `in_place`: the server cannot rename
    (MoveOrCopy), so a file has its final name while it is written; only where nothing on the machine starts a file by
    itself.
    """

    directory: str
    suffix: str = ""
    in_place: bool = False
    chunk_bytes: int = Field(default=65536, ge=512, le=1 << 20)


class Profile(_Table):
    """What all of them have. `tried_on`: the machines that it was tried on; the driver says so when it connects.

    `programs`: ``files`` (they are sent to the machine), ``named`` (they are there already; the step's parameter
    ``controller_program`` names one) or ``either``. `progress`: a number that says how much of the program is done, of
    as many as the variable `progress_of` says, or of `progress_total`.
    """

    dialect: str
    summary: str
    tried_on: str = "nothing yet"
    hazards: tuple[str, ...] = Field(default=(), strict=False)
    only_if_named: bool = False
    namespaces: dict[str, str] = {}
    machine: Where
    identity: IdentityTable = IdentityTable()
    programs: Literal["files", "named", "either"] = "files"
    files: Files | None = None
    conditions: tuple[Condition, ...] = Field(default=(), strict=False)
    alarms: AlarmTable = AlarmTable()
    values: Names = {}
    progress: str = ""
    progress_of: str = ""
    progress_total: float = Field(default=100.0, gt=0, strict=False)

    @model_validator(mode="after")
    def _places_are_well_formed(self) -> Profile:
        check_aliases(self.namespaces)
        for text in self.every_place():
            if text:
                self.place(text)
        if self.starts_programs and self.programs != "named" and self.files is None:
            raise ValueError('programs are sent to the machine: [files] is missing; or say programs = "named"')
        return self

    def every_place(self) -> list[str]:
        """All places that are named, some of them empty."""
        who = self.identity
        return [
            self.machine.root,
            *self.machine.requires,
            *(who.firmware, who.version, who.name, who.serial),
            *(condition.node for condition in self.conditions),
            *(value.node for value in self.values.values()),
            *(self.progress, self.progress_of),
            self.files.directory if self.files else "",
        ]

    @property
    def starts_programs(self) -> bool:
        """Whether anything is ever started by it; a machine that is only watched takes no programs."""
        return True

    @property
    def tells_progress(self) -> bool:
        """Whether the machine says how much of a program is done."""
        return bool(self.progress)

    def place(self, text: str) -> Place:
        """What `text` names in this profile's namespaces. Raises `ValueError`."""
        return place(text, self.namespaces)


class Jobs(_Table):
    """Job management by OPC 10031-4 (ISA-95).

    `return_status`: ``bits`` as the specification has it (bit 0: no error), or ``number`` (0: no error). `program`: the
    order names it as the ID of its work master, or as the parameter `parameter_id`. `start`: ``store_and_start`` in one
    call, or ``store_then_start``. `ended_without_substate`: what an order is that has Ended and does not say Completed
    or Closed. `progress_id`: the ID of the parameter in JobResponseData that says how much of the order is done, of
    `progress_total`; no specification names one.
    """

    control: str
    results: str
    return_status: Literal["bits", "number"] = "bits"
    program: Literal["work_master", "parameter"] = "work_master"
    parameter_id: str = "Program"
    start: Literal["store_and_start", "store_then_start"] = "store_and_start"
    ended_without_substate: Literal["unknown", "succeeded"] = "unknown"
    progress_id: str = ""


class JobsProfile(Profile):
    """A machine with ISA-95 job management."""

    dialect: Literal["opcua-jobs"]
    jobs: Jobs

    @property
    def tells_progress(self) -> bool:
        return bool(self.progress or self.jobs.progress_id)

    def every_place(self) -> list[str]:
        return [*super().every_place(), self.jobs.control, self.jobs.results]


class Robot(_Table):
    """Places of a robot by OPC 40010-1, seen from the machine. `operation` may be missing there (Robotics 1.01)."""

    operation: str
    parameters: str
    system: str = ""
    stop_mode: int = 0


class RoboticsProfile(Profile):
    """A robot with the operations of Robotics 1.02."""

    dialect: Literal["opcua-robotics"]
    robot: Robot

    def every_place(self) -> list[str]:
        return [*super().every_place(), self.robot.operation, self.robot.parameters, self.robot.system]


class States(_Table):
    """The state word's values, by what they mean. A value that is in none of them is not understood."""

    idle: tuple[Plain, ...] = Field(default=(), strict=False)
    running: tuple[Plain, ...] = Field(min_length=1, strict=False)
    held: tuple[Plain, ...] = Field(default=(), strict=False)
    ended: tuple[Plain, ...] = Field(default=(), strict=False)
    failed: tuple[Plain, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _tell_apart(self) -> States:
        seen: list[tuple[str, Plain]] = []
        for name in ("idle", "running", "held", "ended", "failed"):
            for value in getattr(self, name):
                for other, known in seen:
                    if _same(value, known):
                        raise ValueError(f"the value {value!r} is both {other} and {name}")
                seen.append((name, value))
        return self


class Trigger(_Table):
    """How something is asked of a controller: a `method` is called, or `node` is written `value`.

    `reset`: what is written afterwards, once the controller has reacted, where it wants an edge.
    """

    node: str = ""
    value: Plain = True
    reset: Plain | None = None
    method: str = ""
    arguments: tuple[Plain, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _one_of_both(self) -> Trigger:
        if bool(self.node) == bool(self.method):
            raise ValueError("give either node and value, or method")
        return self


class Mapped(_Table):
    """A controller without a companion model.

    `state`: its state word. `program`: the variable that names the program. `run_tag`: a variable of ours on the
    controller that keeps its value when it is switched off: without it no run can be found again after a restart.
    `cycles`: a counter that the controller raises at each program's end; with it a program that is faster than we look
    is not missed. `ended_is_idle`: a program that has ended without fault leaves the state `idle`, and not `ended`.
    Without `start` and `stop` the machine is watched, and never started.
    """

    state: str
    states: States
    program: str = ""
    run_tag: str = ""
    cycles: str = ""
    start: Trigger | None = None
    stop: Trigger | None = None
    abort: Trigger | None = None
    pause: Trigger | None = None
    resume: Trigger | None = None
    ended_is_idle: bool = False
    begin_s: float = Field(default=30.0, gt=0, strict=False)

    @model_validator(mode="after")
    def _whole(self) -> Mapped:
        if (self.start is None) != (self.stop is None):
            raise ValueError("start and stop belong together; without both the machine is only watched")
        if self.start is not None and not self.program:
            raise ValueError(
                "program is missing: the variable that names the program; without start it can be left out"
            )
        return self


class MappedProfile(Profile):
    """A machine whose variables and methods are named one by one."""

    dialect: Literal["opcua-mapped"]
    mapped: Mapped

    @property
    def starts_programs(self) -> bool:
        return self.mapped.start is not None

    def every_place(self) -> list[str]:
        mapped = self.mapped
        triggers = [t for t in (mapped.start, mapped.stop, mapped.abort, mapped.pause, mapped.resume) if t is not None]
        named = [place for trigger in triggers for place in (trigger.node, trigger.method)]
        return [*super().every_place(), mapped.state, mapped.program, mapped.run_tag, mapped.cycles, *named]


AnyProfile: TypeAlias = JobsProfile | RoboticsProfile | MappedProfile
SCHEMAS: dict[str, type[AnyProfile]] = {JOBS: JobsProfile, ROBOTICS: RoboticsProfile, MAPPED: MappedProfile}

ProfileT = TypeVar("ProfileT", bound=BaseModel)


def known(dialects: tuple[str, ...], user_dir: Path | None, only: str | None = None) -> dict[str, AnyProfile]:
    """All profiles of these dialects, by name, or the one named `only`. Raises `DriverError`."""
    found: dict[str, AnyProfile] = {}
    try:
        for dialect in dialects:
            found.update(firmware_profiles.load_all(SCHEMAS[dialect], dialect, user_dir, only))
    except firmware_profiles.ProfileError as error:
        raise DriverError(str(error)) from error
    return dict(sorted(found.items()))


def candidates(name: str, dialects: tuple[str, ...], user_dir: Path | None) -> dict[str, AnyProfile]:
    """The named profile; for ``auto`` all that may be found by themselves. Raises `DriverError`."""
    if name == "auto":
        return {key: profile for key, profile in known(dialects, user_dir).items() if not profile.only_if_named}
    if found := known(dialects, user_dir, name):
        return found
    if (other := firmware_profiles.dialect_of(name, user_dir)) is not None:
        problem = f"says dialect = {other!r}" if other else "says no dialect"
        raise DriverError(f"the profile {name!r} {problem}; this driver takes: {', '.join(dialects)}")
    raise DriverError(
        f"there is no profile {name!r} for this driver; there are: {', '.join(known(dialects, user_dir))}"
    )


def _same(value: Plain, other: Plain) -> bool:
    # In Python True == 1.
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def _kind(value: Plain) -> type:
    return type(value) if isinstance(value, bool | str) else float
