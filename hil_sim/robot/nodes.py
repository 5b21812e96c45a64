"""The cell's nodes, as OPC 40010-1 (Robotics 1.02) prescribes them; the stations are the server's own."""

from __future__ import annotations

from dataclasses import dataclass, field

from hil_sim.opcua.library import NodeId, ua
from hil_sim.opcua.names import OPERATION_TYPES, ROBOT_TYPES
from hil_sim.opcua.space import (
    ADD_IN,
    BOOLEAN,
    DATA_VARIABLE_TYPE,
    DOUBLE,
    INT16,
    ORGANIZES,
    STRING,
    TEXT,
    UINT32,
    Space,
    units,
)
from hil_sim.opcua.states import StateMachine, state_machine

NAMESPACES = ("di", "ia", "rob", "home")
REASONS = ("Unknown", "External", "Direct", "System", "Error", "Application")


@dataclass
class Operation:
    """One state machine with its substates and the reason of its last transition."""

    machine: StateMachine
    transition: NodeId
    reason: NodeId
    reason_text: NodeId
    substates: dict[str, StateMachine]
    shown: str = ""
    """The state that clients saw last."""


@dataclass
class Nodes:
    """What is written while the robot runs."""

    system: NodeId
    controller: NodeId
    user_level: NodeId
    program_name: NodeId
    program_loaded: NodeId
    execution_mode: NodeId
    emergency_stop: NodeId
    protective_stop: NodeId
    operational_mode: NodeId
    emergency_function: NodeId
    protective_function: NodeId
    override: NodeId
    in_control: NodeId
    on_path: NodeId
    mass: NodeId
    axes: list[NodeId]
    stations: dict[str, NodeId]
    gripper: NodeId
    runs: NodeId
    last_error: NodeId
    programs: NodeId | None = None
    conditions: NodeId | None = None
    system_operation: Operation | None = None
    task_operation: Operation | None = None
    methods: dict[str, NodeId] = field(default_factory=dict)


async def build(space: Space, name: str, stations: tuple[str, ...], *, operations: bool) -> Nodes:
    """Types and instances. `operations`: those of 1.02; without, this is a robot with 1.01."""
    space.add_types(ROBOT_TYPES)
    await space.add_enumerations(("rob",))
    devices = space.object(ua.NodeId(85), "di:DeviceSet", "58", ORGANIZES, space.node("di:5001"))
    system = space.object(devices, f"home:{name}", "rob:1002", ORGANIZES, events=True)
    space.variable(system, "di:ComponentName", TEXT, ua.LocalizedText(name))
    controllers = space.object(system, "rob:Controllers", "61")
    controller = space.object(controllers, "home:Controller", "rob:1003", ORGANIZES)
    _device(space, controller, "Simulated robot controller")
    user = space.object(controller, "rob:CurrentUser", "rob:18175")
    level = space.variable(user, "rob:Level", STRING, "Operator")
    software = space.object(controller, "rob:Software", "61")
    main = space.object(software, "home:Main", "di:15063", ORGANIZES)
    space.variable(main, "di:SoftwareRevision", STRING, "1.0")
    tasks = space.object(controller, "rob:TaskControls", "61")
    task = space.object(tasks, "home:Task1", "rob:1011", ORGANIZES)
    space.variable(task, "di:ComponentName", TEXT, ua.LocalizedText("Task1"))
    parameters = space.object(task, "di:ParameterSet")
    program_name = space.variable(parameters, "rob:TaskProgramName", STRING, "", DATA_VARIABLE_TYPE)
    loaded = space.variable(parameters, "rob:TaskProgramLoaded", BOOLEAN, False, DATA_VARIABLE_TYPE)
    execution = space.variable(parameters, "rob:ExecutionMode", "rob:18191", 0, DATA_VARIABLE_TYPE)

    arms = space.object(system, "rob:MotionDevices", "61")
    arm = space.object(arms, "home:Robot1", "rob:1004", ORGANIZES)
    _device(space, arm, "Simulated six-axis robot")
    space.variable(arm, "rob:MotionDeviceCategory", "rob:18193", 1)
    motion = space.object(arm, "di:ParameterSet")
    override = space.variable(motion, "rob:SpeedOverride", DOUBLE, 100.0, DATA_VARIABLE_TYPE)
    in_control = space.variable(motion, "rob:InControl", BOOLEAN, False, DATA_VARIABLE_TYPE)
    on_path = space.variable(motion, "rob:OnPath", BOOLEAN, True, DATA_VARIABLE_TYPE)
    load = space.object(arm, "rob:FlangeLoad", "rob:1018")
    mass = space.analog(load, "rob:Mass", 0.0, None, units("KGM", "kg"))
    folder = space.object(arm, "rob:Axes", "61")
    axes = [_axis(space, folder, number) for number in range(1, 7)]
    space.object(arm, "rob:PowerTrains", "61")

    safeties = space.object(system, "rob:SafetyStates", "61")
    safety = space.object(safeties, "home:SafetyState1", "rob:1013", ORGANIZES)
    space.variable(safety, "di:ComponentName", TEXT, ua.LocalizedText("SafetyState1"))
    states = space.object(safety, "di:ParameterSet")
    emergency = space.variable(states, "rob:EmergencyStop", BOOLEAN, False, DATA_VARIABLE_TYPE)
    protective = space.variable(states, "rob:ProtectiveStop", BOOLEAN, False, DATA_VARIABLE_TYPE)
    mode = space.variable(states, "rob:OperationalMode", "rob:3006", 4, DATA_VARIABLE_TYPE)
    emergencies = space.object(safety, "rob:EmergencyStopFunctions", "61")
    button = space.object(emergencies, "home:Button", "rob:17230", ORGANIZES)
    space.variable(button, "rob:Name", STRING, "Emergency stop button")
    pressed = space.variable(button, "rob:Active", BOOLEAN, False, DATA_VARIABLE_TYPE)
    protectives = space.object(safety, "rob:ProtectiveStopFunctions", "61")
    fence = space.object(protectives, "home:Fence", "rob:17233", ORGANIZES)
    space.variable(fence, "rob:Name", STRING, "Fence door")
    space.variable(fence, "rob:Enabled", BOOLEAN, True, DATA_VARIABLE_TYPE)
    opened = space.variable(fence, "rob:Active", BOOLEAN, False, DATA_VARIABLE_TYPE)

    cell = space.object(system, "home:Cell")
    nodes = Nodes(
        system=system,
        controller=controller,
        user_level=level,
        program_name=program_name,
        program_loaded=loaded,
        execution_mode=execution,
        emergency_stop=emergency,
        protective_stop=protective,
        operational_mode=mode,
        emergency_function=pressed,
        protective_function=opened,
        override=override,
        in_control=in_control,
        on_path=on_path,
        mass=mass,
        axes=axes,
        stations={each: space.variable(cell, f"home:{each}", STRING, "", DATA_VARIABLE_TYPE) for each in stations},
        gripper=space.variable(cell, "home:Gripper", STRING, "", DATA_VARIABLE_TYPE),
        runs=space.variable(cell, "home:ProgramsCompleted", UINT32, 0, DATA_VARIABLE_TYPE),
        last_error=space.variable(cell, "home:LastError", STRING, "", DATA_VARIABLE_TYPE),
    )
    if operations:
        _add_operations(space, nodes, task)
    return nodes


def _add_operations(space: Space, nodes: Nodes, task: NodeId) -> None:
    space.add_types(OPERATION_TYPES)
    nodes.programs = space.object(nodes.controller, "rob:Programs", "13353")
    system = space.object(nodes.controller, "rob:SystemOperation", "rob:1028", ADD_IN)
    nodes.conditions = space.object(system, "rob:Conditions", "61")
    nodes.system_operation = _operation(
        space,
        system,
        "rob:SystemOperationStateMachine",
        "rob:1021",
        {"rob:IdleSubstateMachine": "rob:1009", "rob:ExecutingSubstateMachine": "rob:1007"},
    )
    control = space.object(task, "rob:TaskControlOperation", "rob:1008", ADD_IN)
    nodes.task_operation = _operation(
        space, control, "rob:TaskControlStateMachine", "rob:1025", {"rob:ReadySubstateMachine": "rob:1012"}
    )


def _operation(space: Space, parent: NodeId, name: str, type_: str, substates: dict[str, str]) -> Operation:
    machine = state_machine(space, parent, name, type_)
    transition = space.variable(machine.at, "LastTransition", TEXT, ua.LocalizedText(""), "2767")
    space.variable(transition, "Id", "17", ua.NodeId())
    reason = space.variable(machine.at, "rob:LastTransitionReason", INT16, 0, "11238")
    values = [
        ua.EnumValueType(Value=number, DisplayName=ua.LocalizedText(text), Description=ua.LocalizedText(text))
        for number, text in enumerate(REASONS)
    ]
    space.variable(reason, "EnumValues", "7594", values, array=True)
    text = space.variable(reason, "ValueAsText", TEXT, ua.LocalizedText(REASONS[0]))
    found = {each.rpartition(":")[2]: state_machine(space, machine.at, each, kind) for each, kind in substates.items()}
    return Operation(machine, transition, reason, text, found)


def _device(space: Space, at: NodeId, model: str) -> None:
    space.variable(at, "di:Manufacturer", TEXT, ua.LocalizedText("hil-sim"))
    space.variable(at, "di:Model", TEXT, ua.LocalizedText(model))
    space.variable(at, "di:ProductCode", STRING, "SIM-R")
    space.variable(at, "di:SerialNumber", STRING, "SIM-0002")


def _axis(space: Space, folder: NodeId, number: int) -> NodeId:
    at = space.object(folder, f"home:Axis{number}", "rob:16601", ORGANIZES)
    space.variable(at, "rob:MotionProfile", "rob:3008", 1)
    parameters = space.object(at, "di:ParameterSet")
    return space.analog(parameters, "rob:ActualPosition", 0.0, None, units("DD", "°"))
