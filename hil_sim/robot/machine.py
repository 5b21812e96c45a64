"""The robot cell behind its nodes: operations in, motion, and what clients see of it.

A method's Status is 0 if it was accepted, and negative if not: `NOT_IN_STATE`, `UNKNOWN_PROGRAM`, `NOT_AUTOMATIC`,
`SAFETY`. OPC 40010-1 leaves the numbers to the vendor, but for 0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hil_sim.faults import FaultError
from hil_sim.opcua.alarms import Alarms
from hil_sim.opcua.carried_out import CarriedOut
from hil_sim.opcua.control import number, switch
from hil_sim.opcua.files import FileSystem
from hil_sim.opcua.host import unknown
from hil_sim.opcua.library import Variant, ua
from hil_sim.opcua.names import ENUMERATIONS
from hil_sim.opcua.space import (
    BOOLEAN,
    DOUBLE,
    EXPANDED_NODE,
    INT16,
    INT32,
    INT64,
    STRING,
    TEXT,
    UINT32,
    Argument,
    Space,
)
from hil_sim.robot import nodes
from hil_sim.robot.cell import BUILT_IN, STATIONS, Cell, CellError, State

FAULTS = ("alarm", "reset", "estop", "protective-stop", "mode", "override", "part", "start", "stop")
ALARMS = ("OperatorAlarm", "ProgramAlarm", "EmergencyStopAlarm", "ProtectiveStopAlarm")
MODES = ENUMERATIONS["rob:3006"][1]
AUTOMATIC, AUTOMATIC_EXTERNAL = 3, 4
OK, NOT_IN_STATE, UNKNOWN_PROGRAM, NOT_AUTOMATIC, SAFETY = 0, -1, -2, -3, -4
UNKNOWN_STATE_NODE = "rob:99999"

_STATES = {State.IDLE: ("Idle", 5005), State.READY: ("Ready", 5006), State.EXECUTING: ("Executing", 5007)}


class Machine:
    """One simulated cell."""

    application_uri = "urn:hil-sim:robot"

    def __init__(
        self,
        name: str,
        folder: Path | None,
        record: Callable[[float, str, str], None],
        variants: frozenset[str],
        *,
        operations: bool,
    ) -> None:
        """`record`: told what is carried out. `operations`: those of Robotics 1.02."""
        self._name = name
        self._folder = folder
        self.carried_out = CarriedOut(record)
        self._variants = variants
        self._operations = operations
        self.cell = Cell(self.carried_out.record)
        self.estop = self.protective_stop = False
        self.mode = AUTOMATIC_EXTERNAL
        self.now_s = 0.0
        self._files: FileSystem | None = None
        self._error_shown = ""

    async def build(self, space: Space) -> None:
        self._space = space
        self._nodes = await nodes.build(space, self._name, STATIONS, operations=self._operations)
        parent = self._nodes.conditions or self._nodes.system
        self._alarms = Alarms(space, parent, "2915", ALARMS, (self._nodes.system,))
        if self._nodes.programs is not None:
            self._files = FileSystem(space, self._nodes.programs, self._folder, lambda: None)
        self._add_methods()
        await self._publish()

    # -- operations

    def _add_methods(self) -> None:
        system, task = self._nodes.system_operation, self._nodes.task_operation
        if system is None or task is None:
            return
        status = [Argument("Status", INT32)]
        stop_mode = [Argument("StopMode", INT64)]
        name = [Argument("Name", STRING)]
        by_node = [Argument("Id", EXPANDED_NODE)]
        ready = task.substates["ReadySubstateMachine"].at
        for parent, method, inputs, handler in (
            (system.machine.at, "GetReady", [], self._get_ready),
            (system.machine.at, "StandDown", [], self._stand_down),
            (system.machine.at, "Start", [], self._start),
            (system.machine.at, "Stop", stop_mode, self._stop),
            (task.machine.at, "LoadByName", name, self._load_by_name),
            (task.machine.at, "LoadByNodeId", by_node, self._load_by_node),
            (task.machine.at, "Start", [], self._start),
            (task.machine.at, "Stop", stop_mode, self._stop),
            (task.machine.at, "UnloadByName", name, self._unload_by_name),
            (task.machine.at, "UnloadByNodeId", by_node, self._unload_by_node),
            (task.machine.at, "UnloadProgram", [], self._unload),
            (ready, "ResetToProgramStart", [], self._reset),
        ):
            self._space.method(parent, f"rob:{method}", inputs, status, self._answering(handler))

    def _answering(self, handler: Callable[..., int]) -> Callable[..., Awaitable[tuple[Any, ...]]]:
        async def answer(*values: Any) -> tuple[Any, ...]:
            status = handler(*values)
            await self._publish()
            if "wrong-types" in self._variants:
                return (ua.Variant(str(status), ua.VariantType.String),)
            return (status,)

        return answer

    def _blocked(self) -> int:
        if self.estop or self.protective_stop or self._alarms.active():
            return SAFETY
        return OK if self.mode in (AUTOMATIC, AUTOMATIC_EXTERNAL) else NOT_AUTOMATIC

    def _get_ready(self) -> int:
        return self._blocked() or _accepted(self.cell.get_ready(self.now_s))

    def _stand_down(self) -> int:
        return _accepted(self.cell.stand_down(self.now_s))

    def _start(self) -> int:
        return self._blocked() or _accepted(self.cell.start(self.now_s))

    def _stop(self, _mode: int) -> int:
        return _accepted(self.cell.stop(self.now_s))

    def _reset(self) -> int:
        return _accepted(self.cell.reset(self.now_s))

    def _unload(self) -> int:
        return _accepted(self.cell.unload(self.now_s))

    def _unload_by_name(self, name: str | None) -> int:
        return self._unload() if name == self.cell.program else UNKNOWN_PROGRAM

    def _unload_by_node(self, node: Any) -> int:
        return self._unload_by_name(self._file_at(node))

    def _load_by_name(self, name: str | None) -> int:
        text = self._program(name or "")
        if text is None:
            return UNKNOWN_PROGRAM
        try:
            return _accepted(self.cell.load(name or "", text, self.now_s))
        except CellError:
            return UNKNOWN_PROGRAM

    def _load_by_node(self, node: Any) -> int:
        return self._load_by_name(self._file_at(node))

    def _program(self, name: str) -> str | None:
        if self._files and (content := self._files.content(name)) is not None:
            return content.decode("latin-1")
        return BUILT_IN.get(name)

    def _file_at(self, node: Any) -> str:
        if self._files is None or self._nodes.programs is None:
            return ""
        wanted = ua.NodeId(node.Identifier, node.NamespaceIndex)
        names = self._files.names()
        return next((n for n in names if self._space.below(self._nodes.programs, f"home:{n}") == wanted), "")

    # -- time

    async def advance(self, now_s: float) -> None:
        self.now_s = max(self.now_s, now_s)
        self.cell.advance(self.now_s)
        if self.cell.error != self._error_shown:
            self._error_shown = self.cell.error
            if self.cell.error:
                await self._alarms.raise_("ProgramAlarm", self.cell.error, clears_itself=True)
        await self._publish()

    async def say(self, name: str, argument: str) -> Any:
        match name:
            case "alarm":
                self.cell.stop(self.now_s, at_once=True)
                await self._alarms.raise_("OperatorAlarm", argument or "something is wrong")
            case "reset":
                for alarm in self._alarms.active():
                    held = {"EmergencyStopAlarm": self.estop, "ProtectiveStopAlarm": self.protective_stop}
                    if not held.get(alarm.name):
                        await self._alarms.clear(alarm.name)
            case "estop":
                self.estop = switch(name, argument, "on", "off")
                if self.estop:
                    self.cell.halt(self.now_s, "emergency stop")
                    await self._alarms.raise_("EmergencyStopAlarm", "emergency stop", 1000)
            case "protective-stop":
                self.protective_stop = switch(name, argument, "on", "off")
                if self.protective_stop:
                    self.cell.halt(self.now_s, "protective stop")
                    await self._alarms.raise_("ProtectiveStopAlarm", "protective stop", 900)
            case "mode":
                if argument not in MODES:
                    raise FaultError(f"mode is one of {', '.join(MODES)}")
                self.mode = MODES.index(argument)
                if self._blocked():
                    self.cell.halt(self.now_s, f"mode {argument}")
            case _:
                return self._set(name, argument)
        return None

    def _set(self, name: str, argument: str) -> Any:
        match name:
            case "override":
                self.cell.override = min(100.0, number(name, argument))
            case "part":
                station, _, part = argument.partition(":")
                if station not in STATIONS:
                    raise FaultError(f"part is STATION:NAME, with a station of {', '.join(STATIONS)}")
                self.cell.stations[station] = part
            case "start" | "stop":
                accepted = getattr(self.cell, name)(self.now_s)
                if not accepted:
                    raise FaultError(f"the robot cannot {name} now")
            case "state":
                return {
                    "system": self.cell.system.name,
                    "task": self.cell.task.name,
                    "program": self.cell.program,
                    "stations": self.cell.stations,
                    "gripper": self.cell.gripper,
                    "runs": self.cell.runs,
                    "error": self.cell.error,
                }
            case _:
                raise unknown(name, FAULTS)
        return None

    async def power_cycle(self, now_s: float) -> None:
        await self.advance(now_s)
        self.carried_out.record(now_s, "!", "power-cycle")
        self.cell.power_up()
        self.estop = self.protective_stop = False
        self._error_shown = ""
        await self._alarms.forget()
        await self._publish()

    def wipe(self) -> None:
        if self._files is not None:
            self._files.clear()
        self.carried_out.clear()

    def session_closed(self, session_id: Any) -> None:
        if self._files is not None:
            self._files.close_of(session_id)

    # -- what clients see

    async def _publish(self) -> None:
        space, at, cell = self._space, self._nodes, self.cell
        wrong = "wrong-types" in self._variants
        name: Any = Variant(0 if not cell.program else 1) if wrong else cell.program
        await space.write(at.program_name, STRING, name)
        await space.write(at.program_loaded, BOOLEAN, bool(cell.program))
        await space.write(at.emergency_stop, BOOLEAN, self.estop)
        await space.write(at.protective_stop, BOOLEAN, self.protective_stop)
        await space.write(at.emergency_function, BOOLEAN, self.estop)
        await space.write(at.protective_function, BOOLEAN, self.protective_stop)
        await space.write(at.operational_mode, "rob:3006", Variant(MODES[self.mode]) if wrong else self.mode)
        await space.write(at.override, DOUBLE, cell.override)
        await space.write(at.in_control, BOOLEAN, cell.system is State.EXECUTING)
        await space.write(at.mass, DOUBLE, cell.payload_kg)
        for axis, degrees in zip(at.axes, cell.axes_deg(), strict=True):
            await space.write(axis, DOUBLE, round(degrees, 6))
        for station, part in cell.stations.items():
            await space.write(at.stations[station], STRING, part)
        await space.write(at.gripper, STRING, cell.gripper)
        await space.write(at.runs, UINT32, cell.runs)
        await space.write(at.last_error, STRING, cell.error)
        if self._files is not None:
            await self._files.publish()
        await self._publish_operations()

    async def _publish_operations(self) -> None:
        system, task, cell = self._nodes.system_operation, self._nodes.task_operation, self.cell
        if system is None or task is None:
            return
        await self._show(system, cell.system)
        await self._show(task, cell.task)
        idle = system.substates["IdleSubstateMachine"]
        if cell.system is not State.IDLE:
            await idle.show("", "", 0)
        elif cell.getting_ready:
            await idle.show("GettingReady", "rob:5017", 2)
        else:
            await idle.show("StandBy", "rob:5015", 1)
        executing = system.substates["ExecutingSubstateMachine"]
        if cell.system is not State.EXECUTING:
            await executing.show("", "", 0)
        elif cell.stopping:
            await executing.show("Stopping", "rob:5021", 2)
        else:
            await executing.show("Running", "rob:5020", 1)
        ready = task.substates["ReadySubstateMachine"]
        if cell.task is not State.READY:
            await ready.show("", "", 0)
        elif cell.stopped_midway:
            await ready.show("Suspended", "rob:5024", 2)
        else:
            await ready.show("AtProgramStart", "rob:5023", 1)

    async def _show(self, operation: nodes.Operation, state: State) -> None:
        text, node = _STATES[state]
        wrong = "wrong-types" in self._variants
        if "unknown-states" in self._variants and state is State.EXECUTING:
            await operation.machine.show("Churning", UNKNOWN_STATE_NODE, 99)
        else:
            await operation.machine.show(text, f"rob:{node}", int(state), as_string=wrong)
        if operation.shown and operation.shown != text:
            await self._space.write(operation.transition, TEXT, ua.LocalizedText(f"{operation.shown}To{text}"))
        operation.shown = text
        await self._space.write(operation.reason, INT16, int(self.cell.reason))
        await self._space.write(operation.reason_text, TEXT, ua.LocalizedText(nodes.REASONS[self.cell.reason]))


def _accepted(done: bool) -> int:
    return OK if done else NOT_IN_STATE
