"""`hil-sim robot` as a process, asked by a plain OPC UA client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from asyncua import ua
from asyncua.ua.uaerrors import BadNoMatch
from helpers.opcua_cnc import handle
from helpers.opcua_sim import OpcuaSim, Peer, opcua_sim, peer

DEVICES = ("di:DeviceSet",)
CONTROLLER = "rob:Controllers/home:Controller"
TASK = f"{CONTROLLER}/rob:TaskControls/home:Task1"
TASK_MACHINE = f"{TASK}/rob:TaskControlOperation/rob:TaskControlStateMachine"
SYSTEM_MACHINE = f"{CONTROLLER}/rob:SystemOperation/rob:SystemOperationStateMachine"
SAFETY = "rob:SafetyStates/home:SafetyState1/di:ParameterSet"
READY_STATE = f"{TASK_MACHINE}/rob:ReadySubstateMachine"
ANY_STOP = ua.Variant(0, ua.VariantType.Int64)
OK, NOT_IN_STATE, UNKNOWN_PROGRAM, NOT_AUTOMATIC, SAFETY_STOP = 0, -1, -2, -3, -4


@pytest.fixture(scope="module")
def robot() -> Iterator[OpcuaSim]:
    """One cell for all tests that leave it as it was."""
    with opcua_sim("robot", "--speed", "50") as sim:
        yield sim


@pytest.fixture
async def cell(robot: OpcuaSim) -> AsyncIterator[Peer]:
    robot.say("power-cycle")
    for line in ("mode=AUTOMATIC_EXTERNAL", "part=magazine:blank", "part=mill:", "part=tray:", "part=printer:"):
        robot.say(line)
    async with peer(robot, *DEVICES) as client:
        yield client


async def ready(cell: Peer, program: str) -> None:
    assert await cell.call(f"{SYSTEM_MACHINE}/rob:GetReady") == OK
    await cell.until(f"{SYSTEM_MACHINE}/CurrentState", "Ready")
    assert await cell.call(f"{TASK_MACHINE}/rob:LoadByName", program) == OK


async def test_a_program_moves_a_part(cell: Peer) -> None:
    assert (await cell.value(f"{SYSTEM_MACHINE}/rob:IdleSubstateMachine/CurrentState")).Text == "StandBy"
    await ready(cell, "load-mill")
    assert await cell.value(f"{TASK}/di:ParameterSet/rob:TaskProgramName") == "load-mill"
    assert await cell.value(f"{TASK}/di:ParameterSet/rob:TaskProgramLoaded") is True
    assert await cell.call(f"{TASK_MACHINE}/rob:Start") == OK
    assert (await cell.value(f"{TASK_MACHINE}/CurrentState")).Text == "Executing"
    assert (await cell.value(f"{SYSTEM_MACHINE}/rob:ExecutingSubstateMachine/CurrentState")).Text == "Running"
    await cell.until(f"{TASK_MACHINE}/CurrentState", "Ready")
    assert await cell.value("home:Cell/home:mill") == "blank"
    assert await cell.value(f"{TASK_MACHINE}/rob:LastTransitionReason") == 5
    assert await cell.call(f"{TASK_MACHINE}/rob:UnloadProgram") == OK
    assert await cell.call(f"{SYSTEM_MACHINE}/rob:StandDown") == OK


async def test_states_are_those_of_the_type(cell: Peer) -> None:
    state = cell.client.get_node(await cell.value(f"{TASK_MACHINE}/CurrentState/Id"))
    assert (await state.read_browse_name()).Name == "Idle"
    assert await (await state.get_child("0:StateNumber")).read_value() == 1


async def test_stop_start_and_back_to_the_program_s_start(cell: Peer) -> None:
    await ready(cell, "wait")
    assert await cell.call(f"{TASK_MACHINE}/rob:Start") == OK
    assert await cell.call(f"{TASK_MACHINE}/rob:Stop", ANY_STOP) == OK
    await cell.until(f"{READY_STATE}/CurrentState", "Suspended")
    assert await cell.call(f"{READY_STATE}/rob:ResetToProgramStart") == OK
    assert (await cell.value(f"{READY_STATE}/CurrentState")).Text == "AtProgramStart"


async def test_out_of_turn_and_unknown_are_refused_by_status(cell: Peer) -> None:
    assert await cell.call(f"{TASK_MACHINE}/rob:Start") == NOT_IN_STATE
    assert await cell.call(f"{TASK_MACHINE}/rob:LoadByName", "nothing") == UNKNOWN_PROGRAM
    assert await cell.call(f"{SYSTEM_MACHINE}/rob:StandDown") == NOT_IN_STATE


async def test_a_program_from_a_file_is_loaded_by_its_node(cell: Peer, robot: OpcuaSim) -> None:
    programs = f"{CONTROLLER}/rob:Programs"
    node, opened = await cell.call(f"{programs}/CreateFile", "own", True)
    file = cell.client.get_node(node)
    await file.call_method("0:Write", handle(opened), b"move tray\nmove home\n")
    await file.call_method("0:Close", handle(opened))
    assert await cell.call(f"{SYSTEM_MACHINE}/rob:GetReady") == OK
    await cell.until(f"{SYSTEM_MACHINE}/CurrentState", "Ready")
    where = ua.Variant(ua.ExpandedNodeId(node.Identifier, node.NamespaceIndex), ua.VariantType.ExpandedNodeId)
    assert await cell.call(f"{TASK_MACHINE}/rob:LoadByNodeId", where) == OK
    assert await cell.call(f"{TASK_MACHINE}/rob:Start") == OK
    await cell.until(f"{TASK_MACHINE}/CurrentState", "Ready")
    assert [text for line, text in robot.carried_out() if line != "!"][-2:] == ["move tray", "move home"]
    await cell.call(f"{programs}/Delete", node)


@pytest.mark.parametrize(
    ("fault", "variable"),
    [("estop", "EmergencyStop"), ("protective-stop", "ProtectiveStop")],
)
async def test_a_safety_stop_holds_until_a_person_has_reset_it(
    cell: Peer, robot: OpcuaSim, fault: str, variable: str
) -> None:
    await ready(cell, "wait")
    assert await cell.call(f"{TASK_MACHINE}/rob:Start") == OK
    robot.say(f"{fault}=on")
    assert await cell.value(f"{SAFETY}/rob:{variable}") is True
    assert (await cell.value(f"{TASK_MACHINE}/CurrentState")).Text == "Ready"
    assert (await cell.value(f"{SYSTEM_MACHINE}/CurrentState")).Text == "Idle"
    robot.say(f"{fault}=off")
    assert await cell.call(f"{SYSTEM_MACHINE}/rob:GetReady") == SAFETY_STOP
    robot.say("reset")
    assert await cell.call(f"{SYSTEM_MACHINE}/rob:GetReady") == OK


async def test_a_person_with_the_mode_switch_stops_it(cell: Peer, robot: OpcuaSim) -> None:
    await ready(cell, "wait")
    assert await cell.call(f"{TASK_MACHINE}/rob:Start") == OK
    robot.say("mode=MANUAL_REDUCED_SPEED")
    assert await cell.value(f"{SAFETY}/rob:OperationalMode") == 1
    assert (await cell.value(f"{TASK_MACHINE}/CurrentState")).Text == "Ready"
    assert await cell.call(f"{SYSTEM_MACHINE}/rob:GetReady") == NOT_AUTOMATIC


async def test_it_goes_on_moving_while_its_server_is_frozen(cell: Peer, robot: OpcuaSim) -> None:
    await ready(cell, "load-mill")
    assert await cell.call(f"{TASK_MACHINE}/rob:Start") == OK
    robot.say("freeze=1")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cell.value(f"{TASK_MACHINE}/CurrentState"), 0.3)
    await cell.until(f"{TASK_MACHINE}/CurrentState", "Ready")
    assert await cell.value("home:Cell/home:mill") == "blank"


async def test_robotics_1_01_has_no_operations_and_still_shows_what_goes_on() -> None:
    with opcua_sim("robot", "--robotics-1.01", "--speed", "50") as sim:
        async with peer(sim, *DEVICES) as cell:
            assert await cell.value(f"{TASK}/di:ParameterSet/rob:TaskProgramName") == ""
            for path in (f"{CONTROLLER}/rob:SystemOperation", f"{TASK}/rob:TaskControlOperation"):
                with pytest.raises(BadNoMatch):
                    await cell.node(path)


async def test_variants() -> None:
    variants = [f"--variant={name}" for name in ("unknown-states", "wrong-types", "namespaces-reversed")]
    with opcua_sim("robot", "--speed", "50", "--without", "UnloadProgram", *variants) as sim:
        async with peer(sim, *DEVICES) as cell:
            assert await cell.value(f"{TASK}/di:ParameterSet/rob:TaskProgramName") == 0
            assert await cell.value(f"{SAFETY}/rob:OperationalMode") == "AUTOMATIC_EXTERNAL"
            assert await cell.call(f"{SYSTEM_MACHINE}/rob:GetReady") == "0"
            await cell.until(f"{SYSTEM_MACHINE}/CurrentState", "Ready")
            assert await cell.call(f"{TASK_MACHINE}/rob:LoadByName", "wait") == "0"
            assert await cell.call(f"{TASK_MACHINE}/rob:Start") == "0"
            assert (await cell.value(f"{TASK_MACHINE}/CurrentState")).Text == "Churning"
            with pytest.raises(BadNoMatch):
                await cell.node(f"{TASK_MACHINE}/rob:UnloadProgram")
