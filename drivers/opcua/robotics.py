"""A robot by OPC 40010-1 (Robotics 1.02): get ready, load a program by its name, start it, and read what it says.

A robot has no identity for a run. A program that was sent with the order has a name that no other run has, so what the
robot says of that name it says of the run. A program that was on the controller before proves nothing once the link has
been away: then the run is UNKNOWN, whatever the robot does now.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping, Sequence
from typing import Any

from drivers.opcua.client import Link, Method
from drivers.opcua.equipment import Equipment, Phase, Seen, Work, ended
from drivers.opcua.files import PREFIX
from drivers.opcua.library import NodeId
from drivers.opcua.profile import RoboticsProfile
from drivers.opcua.words import LinkError, RefusedError
from edge.driver import Capability, IdentityError, Json, MachineError, Motion, NotAcceptableError, OutcomeKind

IDLE, READY, EXECUTING = "Idle", "Ready", "Executing"
_NUMBERS = {1: IDLE, 2: READY, 3: EXECUTING}
AT_START, SUSPENDED = "AtProgramStart", "Suspended"
_READY_NUMBERS = {1: AT_START, 2: SUSPENDED}
_TASK = ("LoadByName", "Start", "Stop", "UnloadProgram", "UnloadByName")
_SYSTEM = ("GetReady", "StandDown")
READY_S = 30.0
"""How long drives and brakes may take to be ready."""


class Reason(enum.IntEnum):
    """LastTransitionReason (OPC 40010-1, 1.02)."""

    UNKNOWN = 0
    EXTERNAL = 1
    DIRECT = 2
    SYSTEM = 3
    ERROR = 4
    APPLICATION = 5


class RobotMachine(Equipment):
    """One task control, and the controller's system operation if it has one."""

    profile: RoboticsProfile
    started_by = "operation"
    _methods: dict[str, Method]
    _dirty = False  # something has changed that was not read yet
    _program = ""
    _state = ""
    _startable = ""  # what Start would begin

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.PAUSE}) if "ready state" in self._nodes else frozenset()

    def wanted(self) -> Mapping[str, str]:
        robot, alias = self.profile.robot, self._alias()
        found = {f"method {name}": f"{robot.operation}/{alias}{name}" for name in _TASK}
        if robot.system:
            found |= {f"method {name}": f"{robot.system}/{alias}{name}" for name in _SYSTEM}
            found |= {"system": robot.system, "system state": f"{robot.system}/CurrentState/Id"}
            found |= {"system number": f"{robot.system}/CurrentState/Number"}
        ready = f"{robot.operation}/{alias}ReadySubstateMachine"
        return {
            **found,
            "operation": robot.operation,
            "state": f"{robot.operation}/CurrentState/Id",
            "state number": f"{robot.operation}/CurrentState/Number",
            "reason": f"{robot.operation}/{alias}LastTransitionReason",
            "ready state": f"{ready}/CurrentState/Id",
            "ready number": f"{ready}/CurrentState/Number",
            "program": f"{robot.parameters}/{alias}TaskProgramName",
            "loaded": f"{robot.parameters}/{alias}TaskProgramLoaded",
        }

    def _alias(self) -> str:
        return next((f"{alias}:" for alias, uri in self.profile.namespaces.items() if uri.endswith("/Robotics/")), "")

    async def found(self, link: Link) -> None:
        owners = dict.fromkeys(_TASK, "operation") | dict.fromkeys(_SYSTEM, "system")
        self._methods = {}
        for name, owner in owners.items():
            if (node := self._nodes.get(f"method {name}")) and owner in self._nodes:
                self._methods[name] = await link.method(self._nodes[owner], node, name)
        if "state" not in self._nodes and "state number" not in self._nodes and self._operates:
            raise IdentityError("the robot does not tell the state of its task control")

    @property
    def _operates(self) -> bool:
        """Whether it can be started: Robotics 1.01 has no operations."""
        return "Start" in self._methods and "Stop" in self._methods

    def watched(self) -> Sequence[NodeId]:
        names = ("state", "state number", "reason", "ready state", "ready number", "program", "loaded", "system state")
        return [self._nodes[name] for name in names if name in self._nodes]

    def refusal(self) -> str:
        if not self._operates:
            missing = [name for name in ("Start", "Stop") if name not in self._methods]
            which = "no operations (Robotics 1.01)" if len(missing) > 1 else f"no method {missing[0]}"
            return f"the robot has {which}: it can be watched, and not started"
        return super().refusal()

    # A run

    async def prepare(self, link: Link, work: Work) -> None:
        if not self._operates:
            raise MachineError(self.refusal(), Motion.NONE)
        if words := self.refusal():
            raise MachineError(f"the robot cannot be started: {words}", Motion.NONE)
        said = await self._said(link)
        if words := self.busy_with(None):
            raise MachineError(words, Motion.NONE)
        await self._get_ready(link)
        if said.program:
            await self._unload(link, said.program)
        if "LoadByName" not in self._methods:
            raise MachineError("the robot has no method LoadByName", Motion.NONE)
        await self._call(link, "LoadByName", work.name)
        await self._reached(link, lambda said: said.program == work.name and said.state == READY, "load the program")
        work.memory["reason"] = (await self._said(link)).why

    async def _get_ready(self, link: Link) -> None:
        if "GetReady" not in self._methods or await self._system_state(link) in (READY, EXECUTING):
            return
        await self._call(link, "GetReady")
        loop = asyncio.get_running_loop()
        until_s = loop.time() + READY_S
        while await self._system_state(link) not in (READY, EXECUTING):
            if loop.time() > until_s:
                raise MachineError(f"the robot was not ready within {READY_S:.0f} s", Motion.NONE)
            await asyncio.sleep(0.2)

    async def _unload(self, link: Link, program: str) -> None:
        if "UnloadProgram" in self._methods:
            await self._call(link, "UnloadProgram")
        elif "UnloadByName" in self._methods:
            await self._call(link, "UnloadByName", program)

    async def _reached(self, link: Link, goal: Any, what: str) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + READY_S
        while not goal(await self._said(link)):
            if loop.time() > until_s:
                raise MachineError(f"the robot did not {what} within {READY_S:.0f} s", Motion.NONE)
            await asyncio.sleep(0.1)

    def unprepared(self, work: Work) -> str:
        # Start names no program: it would begin, or go on with, whatever somebody else has loaded.
        return "" if self._startable == work.name else f"{work.name} is not loaded any more, or not at its start"

    async def begin(self, link: Link, work: Work) -> None:
        await self._call(link, "Start")

    async def _call(self, link: Link, name: str, *values: Any) -> None:
        """Its Status: Int32 is 0 for no error (OPC 40010-1); the others belong to the specification or the vendor."""
        if name not in self._methods:
            raise RefusedError(f"the robot has no method {name}", "BadMethodInvalid")
        answer = await link.call(self._methods[name], *values)
        if not answer:
            return
        status = answer[0]
        if isinstance(status, bool) or not isinstance(status, int):
            raise LinkError(f"{name}: the robot answers with {status!r}, which is no number")
        if status != 0:
            raise RefusedError(f"{name}: the robot answers with the status {status}", "Status")

    async def look(self, link: Link, work: Work) -> Seen:
        said = await self._said(link)
        own_name = work.name.startswith(PREFIX)
        if work.begun and not own_name and not work.unbroken:
            reason = f"the link was away, and nothing proves that {work.name} is still carried out for this run"
            return ended(OutcomeKind.UNKNOWN, reason, said.evidence)
        if said.program != work.name:
            gone = "the robot has no program of this run loaded any more; nobody knows how it ended"
            return Seen(Phase.ABSENT, gone if work.begun else "")
        if said.state == EXECUTING:
            return Seen(Phase.RUNNING) if work.begun else Seen(Phase.ABSENT, "somebody else has started it")
        if not work.begun:
            return Seen(Phase.WAITING if said.state == READY else Phase.ABSENT)
        safety = "; ".join(condition.words for condition in self.broken(safety=True))
        if said.state not in (READY, IDLE):
            return Seen(Phase.RUNNING if work.ran else Phase.WAITING, _strange(said.state))
        if said.reason == Reason.APPLICATION and said.ready != SUSPENDED and self._about(work, said):
            return ended(OutcomeKind.SUCCEEDED, "", said.evidence)
        if not work.ran and not own_name:
            return Seen(Phase.WAITING, "the robot has not begun yet")
        if said.ready == SUSPENDED or (said.ready == "" and (safety or work.pause_asked)):
            if work.stop_asked:
                return ended(OutcomeKind.STOPPED, "stopped on request", said.evidence)
            return Seen(Phase.HELD, "" if work.pause_asked else safety or f"suspended ({said.why})")
        return self._at_rest(work, said, safety)

    def _about(self, work: Work, said: _Said) -> bool:
        """Whether the reason can be that of this run's end: the one that was there before it proves nothing."""
        return work.ran or work.memory.get("reason") != said.why

    def _at_rest(self, work: Work, said: _Said, safety: str) -> Seen:
        """Ready or Idle, our program, and no place in the middle of it."""
        if work.stop_asked:
            return ended(OutcomeKind.STOPPED, "stopped on request", said.evidence)
        match said.reason:
            case Reason.ERROR if self._about(work, said):
                because = safety or self.alarms.text or "the robot gives an error as the reason"
                return ended(OutcomeKind.FAILED, because, said.evidence)
            case Reason.SYSTEM if work.ran and not safety:
                return ended(OutcomeKind.SUCCEEDED, "", said.evidence)
            case Reason.EXTERNAL | Reason.DIRECT if work.ran:
                return ended(OutcomeKind.STOPPED, f"ended by somebody else ({said.why})", said.evidence)
            case _ if not work.ran:
                return Seen(Phase.WAITING, "the robot has not begun yet")
            case _:
                reason = "the program has ended, and the robot does not say why"
                return ended(OutcomeKind.UNKNOWN, reason, said.evidence)

    async def _said(self, link: Link) -> _Said:
        names = ("state", "state number", "reason", "ready state", "ready number", "program", "loaded")
        there = [name for name in names if name in self._nodes]
        read = await link.read([self._nodes[name] for name in there])
        values = {}
        for name, value in zip(there, read, strict=True):
            bad = value.StatusCode is not None and value.StatusCode.is_bad()
            values[name] = None if bad or value.Value is None else value.Value.Value
        state = await self._name(link, values.get("state"), values.get("state number"), _NUMBERS)
        ready = await self._name(link, values.get("ready state"), values.get("ready number"), _READY_NUMBERS)
        program, loaded = values.get("program"), values.get("loaded")
        if program is not None and not isinstance(program, str):
            raise RefusedError(f"TaskProgramName is {program!r}, which is no text", "BadTypeMismatch")
        reason: Any = values.get("reason")
        known = isinstance(reason, int) and not isinstance(reason, bool) and reason in set(Reason)
        self._program = program or "" if loaded is not False else ""
        self._state = state
        self._startable = self._program if state == READY and ready != SUSPENDED else ""
        return _Said(state, ready if state == READY else "", self._program, Reason(reason) if known else Reason.UNKNOWN)

    async def _name(self, link: Link, node: Any, number: Any, names: Mapping[int, str]) -> str:
        if isinstance(number, int) and number in names:
            return names[number]
        if isinstance(node, NodeId) and not node.is_null():
            return await self.state_name(link, node)
        return ""

    async def _system_state(self, link: Link) -> str:
        values = []
        for name in ("system state", "system number"):
            values.append(await link.value(self._nodes[name], name) if name in self._nodes else None)
        return await self._name(link, values[0], values[1], _NUMBERS)

    # What is asked of it

    async def pause(self, link: Link, work: Work) -> None:
        await self._call(link, "Stop", self.profile.robot.stop_mode)

    async def resume(self, link: Link, work: Work) -> None:
        if words := self.refusal():
            raise NotAcceptableError("resume", "asked", f"once this is over: {words}")
        await self._get_ready(link)
        await self._call(link, "Start")

    async def stop(self, link: Link, work: Work, seen: Seen) -> None:
        if (await self._said(link)).state not in (READY, IDLE):
            await self._call(link, "Stop", self.profile.robot.stop_mode)

    async def abort(self, link: Link, work: Work | None) -> None:
        if self._state == EXECUTING or work is not None:
            calls = [self._call(link, "Stop", self.profile.robot.stop_mode)]
            if "StandDown" in self._methods:
                calls.append(self._call(link, "StandDown"))
            await asyncio.gather(*calls, return_exceptions=True)

    async def rest(self, link: Link, work: Work | None) -> bool:
        """Nothing of ours is loaded any more."""
        said = await self._said(link)
        if said.state not in (READY, IDLE):
            return False
        if work is not None and said.program == work.name:
            await self._unload(link, work.name)
        return True

    def busy_with(self, work: Work | None) -> str:
        mine = work is not None and self._program == work.name
        if mine or not self._operates or self._state in (READY, IDLE):
            return ""
        if self._state != EXECUTING:
            return f"the robot is in {_strange(self._state)}"
        return f"the robot carries out {self._program or 'a program'} of somebody else"

    async def catch_up(self, link: Link) -> None:
        await super().catch_up(link)
        if "state" in self._nodes or "state number" in self._nodes:
            await self._said(link)


def _strange(state: str) -> str:
    return f"a state {state} that is not understood" if state else "a state that it does not tell"


class _Said:
    """What the task control says at one moment."""

    def __init__(self, state: str, ready: str, program: str, reason: Reason) -> None:
        self.state, self.ready, self.program, self.reason = state, ready, program, reason

    @property
    def why(self) -> str:
        return self.reason.name.lower()

    @property
    def evidence(self) -> dict[str, Json]:
        return {"state": self.state, "substate": self.ready, "program": self.program, "reason": self.why}
