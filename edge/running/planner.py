"""Which machine does which step now, and the reason why each other step waits. PURE.

Rules

1. Steps go in this order: higher priority first (as ISA-95's job orders count it), earlier due date, first accepted.
2. A step goes to the first machine, in the order of the site's configuration, that can take it now.
3. A step that finds none has at least one `Blocker`, and the first one is the one to clear first.
4. Nothing here changes anything: a claim is made by recording ``run_began``, which looks again.
"""

from __future__ import annotations

import enum
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from edge.errors import UsageError
from edge.journal.maintenance import back_command
from edge.model.loaded import Property, typed
from edge.model.machine import MachineState, Value, in_words, same
from edge.model.order import AnyOf, Range, Requirement, lacking, unmet
from edge.timefloor import Now


class StepKey(NamedTuple):
    """One step for one part of one job."""

    job_id: str
    part: int
    step: str


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step that is allowed to start. Times are aware UTC. `program` is its artifact's SHA-256."""

    key: StepKey
    process: str
    requires: Mapping[str, Requirement]
    program: str
    program_name: str
    program_here: bool
    priority: int
    due_at: datetime | None
    not_before: datetime | None
    expires_at: datetime
    accepted_seq: int
    fetch: str = ""  # how far the program's download is; empty while nobody fetches it
    fetch_fails: bool = False  # from no source has anything come lately
    refusal: str = ""  # why the order's signature counts no longer; empty while it does
    held: str = ""  # who holds the job, and why; empty while nobody does


@dataclass(frozen=True, slots=True)
class MachineView:
    """A machine as it is now.

    `needs_clearing` names the run that left its part there, `busy_with` the one going on; `maintenance` says who took
    it out of service, empty while it is in service.
    """

    id: str
    processes: tuple[str, ...]
    properties: Mapping[str, Property]
    state: MachineState
    state_detail: str = ""
    needs_clearing: str | None = None
    busy_with: str | None = None
    maintenance: str = ""


class CheckState(enum.Enum):
    """Whether a program suits a machine."""

    PENDING = enum.auto()
    SUITS = enum.auto()
    REFUSED = enum.auto()


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the driver said of a program for a machine, in words if it refused; why there is no result yet, if PENDING.

    `duration_s` is its prediction, and `timeline` as in `edge.driver.Prediction`; None and empty if it makes none.
    """

    state: CheckState
    reason: str = ""
    duration_s: float | None = None
    timeline: tuple[tuple[int, float], ...] = ()


class Code(enum.StrEnum):
    """Why a step waits."""

    UNREADABLE = "unreadable"
    JOURNAL = "journal"
    HELD = "held"
    EXPIRED = "expired"
    CLOCK = "clock"
    NOT_BEFORE = "not_before"
    UNSIGNED = "unsigned"
    NO_PROGRAM = "no_program"
    FETCHING = "fetching"
    NO_MACHINE = "no_machine"
    UNMET = "requirement"
    REFUSED = "program_refused"
    CHECKING = "checking"
    MAINTENANCE = "maintenance"
    OFFLINE = "offline"
    NEEDS_CLEARING = "needs_clearing"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason to wait: in words, with the command that clears it (empty if only time or the machine does)."""

    code: Code
    text: str
    command: str = ""
    machine: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """`assignments` are to be claimed; every other step is in `waits`, with at least one blocker."""

    assignments: Mapping[StepKey, str]
    waits: Mapping[StepKey, tuple[Blocker, ...]]


def plan(
    steps: Sequence[OpenStep],
    machines: Sequence[MachineView],
    checks: Mapping[tuple[str, str], CheckResult],
    now: Now,
    held: str = "",
    too_early: str = "",
) -> Plan:
    """Assign what can start now. `checks` is by (program, machine); a missing entry has not been checked yet.

    `held` says why nothing at all begins before a person has confirmed the site's journal; empty if nobody needs to.
    `too_early` says why nothing begins yet, which passes by itself; empty if it may.
    """
    assignments: dict[StepKey, str] = {}
    waits: dict[StepKey, tuple[Blocker, ...]] = {}
    taken: dict[str, StepKey] = {}
    for step in sorted(steps, key=_urgency):
        of_order = _order_blockers(step, now, held, too_early)
        able = [machine for machine in machines if step.process in machine.processes]
        if not able:
            of_order.append(Blocker(Code.NO_MACHINE, f"no machine here does {step.process}"))
        of_machines: list[Blocker] = []
        for machine in able:
            found = _machine_blockers(step, machine, checks, taken)
            if not of_order and not found:
                assignments[step.key] = machine.id
                taken[machine.id] = step.key
                break
            of_machines += found[:1]
        else:
            # One that only has to wait is told of before one that somebody has to prepare.
            of_machines.sort(key=lambda blocker: blocker.code in (Code.UNMET, Code.REFUSED))
            waits[step.key] = (*of_order, *of_machines)
    return Plan(assignments, waits)


def _urgency(step: OpenStep) -> tuple[int, bool, float, int, StepKey]:
    due_s = step.due_at.timestamp() if step.due_at is not None else 0.0
    return -step.priority, step.due_at is None, due_s, step.accepted_seq, step.key


def _order_blockers(step: OpenStep, now: Now, held: str, too_early: str) -> list[Blocker]:
    cancel = f"edge job cancel {step.key.job_id}"
    found = []
    if held:
        found.append(Blocker(Code.JOURNAL, f"nothing begins yet: {held}", "edge journal confirm"))
    if too_early:
        found.append(Blocker(Code.JOURNAL, f"nothing begins yet: {too_early}"))
    if step.held:
        found.append(Blocker(Code.HELD, f"the job is {step.held}", f"edge job release {step.key.job_id}"))
    if step.refusal:
        found.append(Blocker(Code.UNSIGNED, step.refusal, cancel))
    passed = now.passed(step.expires_at)
    if passed:
        found.append(Blocker(Code.EXPIRED, f"the order was to start before {_time(step.expires_at)}", cancel))
    if passed is None:
        until = f"it may start before {_time(step.expires_at)}, and nobody vouches for this site's clock"
        found.append(Blocker(Code.CLOCK, until, "edge time show"))
    if step.not_before is not None and not now.passed(step.not_before):
        found.append(Blocker(Code.NOT_BEFORE, f"not before {_time(step.not_before)}"))
    if not step.program_here:
        again = "edge job submit FILE.mfjob"
        if step.fetch and not step.fetch_fails:
            found.append(Blocker(Code.FETCHING, f"its program {step.program_name} is being fetched: {step.fetch}"))
        elif step.fetch:
            text = f"its program {step.program_name} cannot be fetched yet: {step.fetch}"
            found.append(Blocker(Code.NO_PROGRAM, text, again))
        else:
            found.append(Blocker(Code.NO_PROGRAM, f"the file {step.program_name} has not arrived", again))
    return found


def _machine_blockers(
    step: OpenStep,
    machine: MachineView,
    checks: Mapping[tuple[str, str], CheckResult],
    taken: Mapping[str, StepKey],
) -> list[Blocker]:
    """What keeps this machine from taking the step, what lasts longest first."""
    found: list[Blocker] = []

    def add(code: Code, text: str, command: str = "") -> None:
        found.append(Blocker(code, f"{machine.id}: {text}", command, machine.id))

    unfit = not_fitting(step.requires, machine.properties)
    command = _load_command(step.requires, machine) if unfit else ""
    if unfit and not command:
        add(Code.UNMET, f"{unfit}; its properties are in site.toml")
    check = checks.get((step.program, machine.id), CheckResult(CheckState.PENDING))
    if check.state is CheckState.REFUSED:
        add(Code.REFUSED, f"refuses {step.program_name}: {check.reason}")
    if unfit and command:
        add(Code.UNMET, f"{unfit}; say so once it is in", command)
    if machine.maintenance:
        add(Code.MAINTENANCE, machine.maintenance, back_command(machine.id))
    if machine.state is MachineState.OFFLINE:
        add(Code.OFFLINE, f"offline: {machine.state_detail}" if machine.state_detail else "offline")
    elif machine.busy_with is not None or machine.id in taken:
        add(Code.BUSY, "busy")
    elif machine.state is not MachineState.IDLE:
        add(Code.BUSY, f"is {machine.state}" + (f": {machine.state_detail}" if machine.state_detail else ""))
    if machine.needs_clearing is not None and machine.needs_clearing != machine.busy_with:
        add(Code.NEEDS_CLEARING, "the last part is still on it", f"edge machine clear {machine.id}")
    if check.state is CheckState.PENDING and step.program_here:
        why = f": {check.reason}" if check.reason else ""
        add(Code.CHECKING, f"{step.program_name} is being checked{why}")
    return found


def not_fitting(requires: Mapping[str, Requirement], properties: Mapping[str, Property]) -> str | None:
    """Why a machine with these properties cannot take a step, in words; None if it can.

    Also right before a step begins: what is loaded may have changed since it was planned.
    """
    origins = {name: one.origin for name, one in properties.items()}
    return unmet(requires, _values(properties), origins)


def _values(properties: Mapping[str, Property]) -> dict[str, Value]:
    return {name: one.value for name, one in properties.items()}


def _load_command(requires: Mapping[str, Requirement], machine: MachineView) -> str:
    """What a person says once what the step needs is in the machine; empty if that cannot be loaded there."""
    words = []
    for name in lacking(requires, _values(machine.properties)):
        found = machine.properties.get(name)
        value = None if found is None else _to_load(name, requires[name], found.configured)
        if value is None:
            return ""
        words.append(f"{name}={value}")
    return shlex.join(["edge", "machine", "load", machine.id, *words])


def _to_load(name: str, wanted: Requirement, configured: Value) -> str | None:
    """The value as a person types it, ``VALUE`` if only they know which one it is; None if it is of another type."""
    match wanted:
        case Range():
            return None if isinstance(configured, str | bool) else "VALUE"
        case AnyOf(any=choices):
            return next((word for one in choices if (word := _to_load(name, one, configured)) is not None), None)
        case _:
            try:
                return in_words(wanted) if same(typed(name, wanted, configured), wanted) else None
            except UsageError:
                return None


def _time(value: datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M UTC")
