"""The mill's nodes, as OPC 40501-1 (MachineTool 1.02) and OPC 40001 (Machinery) prescribe them.

What no specification has a node for (door, emergency stop, axis positions, spindle load and speed) stands in the
server's own namespace, where a vendor would put it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hil_sim.opcua.library import NodeId, ua
from hil_sim.opcua.names import CNC_TYPES, STRUCTURES
from hil_sim.opcua.space import (
    ADD_IN,
    BOOLEAN,
    DATA_VARIABLE_TYPE,
    DOUBLE,
    ORGANIZES,
    STRING,
    TEXT,
    UINT16,
    UINT32,
    Space,
    units,
)
from hil_sim.opcua.states import StateMachine, state_machine

NAMESPACES = ("di", "ia", "machinery", "isa95", "jobs", "mt", "home")
PERCENT = ("P1", "%")
TOOLS = 6


@dataclass
class Tool:
    """One tool's variables."""

    locked: NodeId
    reason: NodeId
    used_min: NodeId


@dataclass
class Nodes:
    """What is written while the mill runs."""

    machine: NodeId
    item_state: StateMachine
    operation_mode: StateMachine
    program_state: StateMachine
    program_name: NodeId
    program_number: NodeId
    program_job: NodeId
    job_control: NodeId
    job_results: NodeId
    job_state: StateMachine
    job_list: NodeId
    work_masters: NodeId
    file_system: NodeId
    messages: NodeId
    mode: NodeId
    power_on: NodeId
    feed_override: NodeId
    channel_mode: NodeId
    channel_state: NodeId
    channel_override: NodeId
    feed: NodeId
    block: NodeId
    spindle_rotates: NodeId
    spindle_override: NodeId
    spindle_load: NodeId
    spindle_speed: NodeId
    positions: dict[str, NodeId]
    tool_number: NodeId
    door_closed: NodeId
    emergency_stop: NodeId
    tools: dict[int, Tool] = field(default_factory=dict)
    classes: dict[str, Any] = field(default_factory=dict)


async def build(space: Space, name: str, travel_mm: dict[str, tuple[float, float]]) -> Nodes:
    """Types and instances. `travel_mm`: the axes' limits, by letter."""
    space.add_types(CNC_TYPES)
    space.add_variable_type("mt:61", "mt:ToolLifeType", DATA_VARIABLE_TYPE)
    await space.add_enumerations(("mt",))
    classes = await space.add_structures(STRUCTURES)
    for event, fields in (
        ("isa95:1006", (("isa95:JobOrder", "isa95:3008"), ("isa95:JobResponse", "isa95:3013"))),
        ("mt:39", (("mt:ErrorCode", STRING),)),
    ):
        for field_name, data_type in fields:
            at = ua.NodeId(f"{event}/{field_name}", 1)
            space.variable(space.node(event), field_name, data_type, ua.Variant(), at=at)
    at = ua.NodeId("isa95:1006/JobState", 1)
    space.variable(space.node("isa95:1006"), "isa95:JobState", "isa95:3006", [], at=at, array=True)
    machines = space.object(ua.NodeId(85), "machinery:Machines", "61", ORGANIZES, space.node("machinery:1001"))
    machine = space.object(machines, f"home:{name}", "mt:13", ORGANIZES, events=True)
    _identification(space, machine, name)
    file_system = space.object(machine, "FileSystem", "13353")

    blocks = space.object(machine, "machinery:MachineryBuildingBlocks", "61")
    item_state = state_machine(space, blocks, "machinery:MachineryItemState", "machinery:1002", reference=ADD_IN)
    mode = state_machine(space, blocks, "machinery:MachineryOperationMode", "machinery:1008", reference=ADD_IN)
    jobs = space.object(blocks, "jobs:JobManagement", "jobs:1003", ADD_IN)
    control = state_machine(space, jobs, "jobs:JobOrderControl", "isa95:1002", events=True)
    job_list = space.variable(control.at, "isa95:JobOrderList", "isa95:3015", [], DATA_VARIABLE_TYPE, array=True)
    masters = space.variable(control.at, "isa95:WorkMaster", "isa95:3007", [], DATA_VARIABLE_TYPE, array=True)
    space.variable(control.at, "isa95:MaxDownloadableJobOrders", UINT16, 16)
    for each in ("EquipmentID", "MaterialClassID", "MaterialDefinitionID", "PersonnelID", "PhysicalAssetID"):
        space.variable(control.at, f"isa95:{each}", STRING, [], DATA_VARIABLE_TYPE, array=True)
    results = space.object(jobs, "jobs:JobOrderResults", "isa95:1003")

    production = space.object(machine, "mt:Production", "mt:21")
    active = space.object(production, "mt:ActiveProgram", "mt:32")
    program_name = space.variable(active, "mt:Name", STRING, "")
    program_number = space.variable(active, "NumberInList", UINT16, 0)
    program_job = space.variable(active, "mt:JobIdentifier", STRING, "", DATA_VARIABLE_TYPE)
    program_state = state_machine(space, active, "mt:State", "mt:15").with_number()

    monitoring = space.object(machine, "mt:Monitoring", "mt:14")
    tool = space.object(monitoring, "mt:MachineTool", "mt:26")
    operation = space.variable(tool, "mt:OperationMode", "mt:65", 1, DATA_VARIABLE_TYPE)
    power_on = space.variable(tool, "mt:PowerOnDuration", UINT32, 0, DATA_VARIABLE_TYPE)
    override = space.analog(tool, "mt:FeedOverride", 100.0, (0.0, 150.0), units(*PERCENT))
    space.variable(tool, "mt:IsWarmUp", BOOLEAN, False, DATA_VARIABLE_TYPE)

    channel = space.object(monitoring, "home:Channel1", "mt:16")
    space.variable(channel, "mt:Name", STRING, "Channel1")
    channel_mode = space.variable(channel, "mt:ChannelMode", "mt:67", 0, DATA_VARIABLE_TYPE)
    channel_state = space.variable(channel, "mt:ChannelState", "mt:64", 2, DATA_VARIABLE_TYPE)
    channel_override = space.analog(channel, "mt:FeedOverride", 100.0, (0.0, 150.0), units(*PERCENT))
    space.analog(channel, "mt:RapidOverride", 100.0, (0.0, 100.0), units(*PERCENT))
    modifiers = space.object(channel, "mt:ChannelModifiers", "mt:33")
    for each in ("BlockSkip", "DryRun", "OptionalStop", "SingleStep", "TestMode"):
        space.variable(modifiers, f"mt:{each}", BOOLEAN, False, DATA_VARIABLE_TYPE)
    feed = space.analog(channel, "home:FeedRate", 0.0, (0.0, 10000.0), units("H81", "mm/min"))
    block = space.variable(channel, "home:ActiveBlock", STRING, "", DATA_VARIABLE_TYPE)
    positions: dict[str, NodeId] = {}
    for letter, span in travel_mm.items():
        axis = space.object(monitoring, f"home:{letter}", "mt:41")
        space.variable(axis, "mt:Name", STRING, letter)
        positions[letter] = space.analog(axis, "home:Position", 0.0, span, units("MMT", "mm"))

    spindle = space.object(monitoring, "home:Spindle1", "mt:22")
    space.variable(spindle, "mt:Name", STRING, "Spindle1")
    rotates = space.variable(spindle, "mt:IsRotating", BOOLEAN, False, DATA_VARIABLE_TYPE)
    spindle_override = space.analog(spindle, "mt:Override", 100.0, (50.0, 120.0), units(*PERCENT))
    load = space.analog(spindle, "home:Load", 0.0, (0.0, 200.0), units(*PERCENT))
    speed = space.analog(spindle, "home:Speed", 0.0, (0.0, 24000.0), units("RPM", "rpm"))

    equipment = space.object(machine, "mt:Equipment", "mt:12")
    tools = space.object(equipment, "mt:Tools", "mt:44")
    number = space.variable(equipment, "home:ActiveToolNumber", UINT32, 0, DATA_VARIABLE_TYPE)
    notification = space.object(machine, "mt:Notification", "mt:7")
    messages = space.object(notification, "mt:Messages", "mt:38", events=True)
    safety = space.object(machine, "home:Safety")
    door = space.variable(safety, "home:DoorClosed", BOOLEAN, True, DATA_VARIABLE_TYPE)
    stop = space.variable(safety, "home:EmergencyStop", BOOLEAN, False, DATA_VARIABLE_TYPE)
    return Nodes(
        machine=machine,
        item_state=item_state,
        operation_mode=mode,
        program_state=program_state,
        program_name=program_name,
        program_number=program_number,
        program_job=program_job,
        job_control=control.at,
        job_results=results,
        job_state=control,
        job_list=job_list,
        work_masters=masters,
        file_system=file_system,
        messages=messages,
        mode=operation,
        power_on=power_on,
        feed_override=override,
        channel_mode=channel_mode,
        channel_state=channel_state,
        channel_override=channel_override,
        feed=feed,
        block=block,
        spindle_rotates=rotates,
        spindle_override=spindle_override,
        spindle_load=load,
        spindle_speed=speed,
        positions=positions,
        tool_number=number,
        door_closed=door,
        emergency_stop=stop,
        tools={each: _tool(space, tools, each) for each in range(1, TOOLS + 1)},
        classes=classes,
    )


def _identification(space: Space, machine: NodeId, name: str) -> None:
    at = space.object(machine, "di:Identification", "mt:11", ADD_IN)
    space.variable(at, "di:Manufacturer", TEXT, ua.LocalizedText("hil-sim"))
    space.variable(at, "di:ProductInstanceUri", STRING, f"urn:hil-sim:cnc:{name}")
    space.variable(at, "di:SerialNumber", STRING, "SIM-0001")
    space.variable(at, "di:Model", TEXT, ua.LocalizedText("Simulated mill"))
    space.variable(at, "di:SoftwareRevision", STRING, "1.0")
    space.variable(at, "machinery:Location", STRING, "")


def _tool(space: Space, tools: NodeId, number: int) -> Tool:
    at = space.object(tools, f"home:Tool{number}", "mt:50")
    space.variable(at, "mt:Name", STRING, f"Tool {number}", DATA_VARIABLE_TYPE)
    space.variable(at, "mt:Identifier", STRING, f"T{number}", DATA_VARIABLE_TYPE)
    space.variable(at, "mt:ControlIdentifier1", UINT32, number, DATA_VARIABLE_TYPE)
    space.variable(at, "mt:ControlIdentifierInterpretation", "mt:69", 0, DATA_VARIABLE_TYPE)
    locked = space.variable(at, "mt:Locked", BOOLEAN, False, DATA_VARIABLE_TYPE)
    reason = space.variable(locked, "mt:ReasonForLocking", "mt:66", 4)
    life = space.object(at, "mt:ToolLife")
    used = space.variable(life, "home:CuttingTime", DOUBLE, 0.0, "mt:61")
    space.variable(used, "mt:EngineeringUnits", "887", units("MIN", "min"))
    space.variable(used, "mt:Indication", "mt:68", 0)
    space.variable(used, "mt:IsCountingUp", BOOLEAN, True)
    space.variable(used, "mt:StartValue", DOUBLE, 0.0)
    space.variable(used, "mt:WarningValue", DOUBLE, 54.0)
    space.variable(used, "mt:LimitValue", DOUBLE, 60.0)
    return Tool(locked, reason, used)
