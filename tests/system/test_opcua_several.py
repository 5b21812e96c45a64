"""Robot servers with several controllers, task controls or safety states: the worst counts, and nobody guesses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from asyncua import Node, Server, ua, uamethod

from drivers.opcua import ROBOTICS
from edge.driver import (
    Conditions,
    IdentityError,
    Machine,
    MachineError,
    MachineState,
    Motion,
    OutcomeKind,
    Run,
    StateSeen,
    Step,
)
from edge.testing import RecordingContext
from tests.helpers.opcua import PROFILES, program_of, until

WAIT_S = 30.0
DI, ROB, OWN = "http://opcfoundation.org/UA/DI/", "http://opcfoundation.org/UA/Robotics/", "urn:test:robot"
READY, EXECUTING, APPLICATION = 2, 3, 5
RUN = Run("run-1", "job-1", 1, Step("step-1", "any", {"controller_program": "weld"}), 1)


@dataclass
class Task:
    """A task control: what it says, and how often it was started."""

    program: Node
    state: Node | None = None
    reason: Node | None = None
    starts: int = 0

    async def end(self) -> None:
        assert self.state is not None
        assert self.reason is not None
        await self.reason.write_value(ua.Variant(APPLICATION, ua.VariantType.Int16))
        await self.state.write_value(ua.Variant(READY, ua.VariantType.UInt32))


@dataclass
class Cell:
    """A robot with the nodes of OPC 40010-1 that its profile names, and no others."""

    server: Server
    names: dict[str, int]
    tasks: dict[str, Task] = field(default_factory=dict)
    safety: dict[str, dict[str, Node]] = field(default_factory=dict)

    async def object(self, parent: Node, uri: str, name: str) -> Node:
        index = self.names[uri]
        for child in await parent.get_children():
            if await child.read_browse_name() == ua.QualifiedName(name, index):
                return child
        return await parent.add_object(index, name)

    async def add_task(self, system: Node, controller: str, name: str, *, operates: bool) -> None:
        at = await self.object(await self.object(system, ROB, "Controllers"), OWN, controller)
        at = await self.object(await self.object(at, ROB, "TaskControls"), OWN, name)
        parameters, rob = await self.object(at, DI, "ParameterSet"), self.names[ROB]
        task = self.tasks[name] = Task(await parameters.add_variable(rob, "TaskProgramName", ""))
        if not operates:
            return
        at = await self.object(await self.object(at, ROB, "TaskControlOperation"), ROB, "TaskControlStateMachine")
        state = await at.add_variable(0, "CurrentState", ua.LocalizedText("Idle"))
        task.state = await state.add_property(0, "Number", ua.Variant(1, ua.VariantType.UInt32))
        task.reason = await at.add_variable(rob, "LastTransitionReason", ua.Variant(0, ua.VariantType.Int16))
        number, text, mode = ua.VariantType.Int32, ua.VariantType.String, ua.VariantType.Int64

        async def now(state: int) -> Any:
            assert task.state is not None
            await task.state.write_value(ua.Variant(state, ua.VariantType.UInt32))
            return ua.Variant(0, number)

        @uamethod
        async def load(_parent: ua.NodeId, name: str) -> Any:
            await task.program.write_value(name)
            return await now(READY)

        @uamethod
        async def start(_parent: ua.NodeId) -> Any:
            task.starts += 1
            return await now(EXECUTING)

        @uamethod
        async def stop(_parent: ua.NodeId, _mode: int) -> Any:
            return await now(READY)

        await at.add_method(rob, "LoadByName", load, [text], [number])
        await at.add_method(rob, "Start", start, [], [number])
        await at.add_method(rob, "Stop", stop, [mode], [number])

    async def add_safety(self, system: Node, name: str) -> None:
        at = await self.object(await self.object(system, ROB, "SafetyStates"), OWN, name)
        at = await self.object(at, DI, "ParameterSet")
        values = {"EmergencyStop": False, "ProtectiveStop": False, "OperationalMode": 3}
        self.safety[name] = {
            what: await at.add_variable(self.names[ROB], what, value) for what, value in values.items()
        }


@asynccontextmanager
async def robot(
    *tasks: tuple[str, str, bool], safety: tuple[str, ...] = ("Safety",)
) -> AsyncIterator[tuple[Cell, str]]:
    """With task controls of controllers, which can be operated or not; and where it is reached."""
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    cell = Cell(server, {uri: await server.register_namespace(uri) for uri in (OWN, ROB, DI)})
    system = await cell.object(await cell.object(server.nodes.objects, DI, "DeviceSet"), OWN, "Cell")
    for controller, name, operates in tasks:
        await cell.add_task(system, controller, name, operates=operates)
    for name in safety:
        await cell.add_safety(system, name)
    async with server:
        assert server.bserver is not None
        yield cell, f"opc.tcp://127.0.0.1:{server.bserver.port}/"


def machine(endpoint: str, profile: str = "robotics-1.02", folder: Path | None = None) -> Machine[Any, Any]:
    way = ROBOTICS.connection.model_validate({"endpoint": endpoint, "security": "None"})
    limits = ROBOTICS.limits.model_validate({"checked_by": "controller"})
    return Machine("robot-1", "opcua-robotics", profile, ("robot.tend",), way, limits, profiles_dir=folder)


async def test_a_robot_is_not_safe_because_the_first_of_its_safety_states_is(tmp_path: Path) -> None:
    context, program = RecordingContext(tmp_path), program_of(tmp_path / "x.txt", ["x"])
    async with robot(("C1", "T1", True), safety=("S1", "S2", "S3")) as (cell, endpoint):
        stop, mode = cell.safety["S2"]["EmergencyStop"], cell.safety["S3"]["OperationalMode"]
        await stop.write_value(True)
        async with ROBOTICS.open(machine(endpoint), context) as driver:
            await context.seen(StateSeen, lambda seen: seen.detail == "emergency stop", WAIT_S)
            assert {seen.state for seen in context.of_kind(StateSeen)} == {MachineState.STOPPED}
            with pytest.raises(MachineError, match="emergency stop") as caught:
                await driver.execute(RUN, program)
            assert caught.value.motion is Motion.NONE
            await stop.write_value(ua.DataValue(StatusCode=ua.StatusCode(ua.StatusCodes.BadSensorFailure)))
            await mode.write_value(1)
            await context.seen(StateSeen, lambda seen: "not in automatic mode" in seen.detail, WAIT_S)
            with pytest.raises(MachineError, match="still there"):
                await driver.acknowledge("s1", "ada", context.clock.mono_s() + WAIT_S)
            await mode.write_value(3)
            await stop.write_value(False)
            await context.seen(StateSeen, lambda seen: "emergency stop is over, and nobody has" in seen.detail, WAIT_S)
            await driver.acknowledge("s1", "ada", context.clock.mono_s() + WAIT_S)
            await until(lambda: context.of_kind(StateSeen)[-1].state is MachineState.IDLE, WAIT_S)
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            await until(lambda: cell.tasks["T1"].starts == 1, WAIT_S)
            await cell.safety["S3"]["ProtectiveStop"].write_value(True)
            await context.seen(Conditions, lambda seen: "protective stop" in [each.text for each in seen.open], WAIT_S)
            await cell.tasks["T1"].end()
            assert (await asyncio.wait_for(running, WAIT_S)).kind is OutcomeKind.SUCCEEDED


@pytest.mark.parametrize("controllers", [("C1", "C1"), ("C1", "C2")])
async def test_which_of_several_task_controls_is_meant_is_said_by_a_person(
    tmp_path: Path, controllers: tuple[str, str]
) -> None:
    context, program = RecordingContext(tmp_path), program_of(tmp_path / "x.txt", ["x"])
    first, second = controllers
    async with robot((first, "T1", True), (second, "T2", True)) as (cell, endpoint):
        with pytest.raises(IdentityError, match=rf"several fit .*: {first}/T1/\w+, {second}/T2/\w+; a profile"):
            async with ROBOTICS.open(machine(endpoint), context):
                pass
        shipped = (PROFILES / "robotics-1.02.toml").read_text()
        named = shipped.replace("rob:TaskControls/*", "rob:TaskControls/own:T2")
        (tmp_path / "second.toml").write_text(named.replace("[namespaces]", f'[namespaces]\nown = "{OWN}"'))
        async with ROBOTICS.open(machine(endpoint, "second", tmp_path), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            await until(lambda: cell.tasks["T2"].starts == 1, WAIT_S)
            await until(lambda: context.of_kind(StateSeen)[-1].state is MachineState.EXECUTE, WAIT_S)
            await cell.tasks["T2"].end()
            assert (await asyncio.wait_for(running, WAIT_S)).kind is OutcomeKind.SUCCEEDED
            assert cell.tasks["T1"].starts == 0


async def test_what_a_task_control_says_is_not_taken_from_another_one(tmp_path: Path) -> None:
    """The first one is shown, and cannot be operated."""
    context, program = RecordingContext(tmp_path), program_of(tmp_path / "x.txt", ["x"])
    async with robot(("C1", "T1", False), ("C2", "T2", False), ("C2", "T3", True)) as (cell, endpoint):
        await cell.tasks["T1"].program.write_value("another")
        async with ROBOTICS.open(machine(endpoint), context) as driver:
            running = asyncio.create_task(driver.execute(RUN, program), name="run")
            await until(lambda: cell.tasks["T3"].starts == 1, WAIT_S)
            await cell.tasks["T3"].end()
            assert (await asyncio.wait_for(running, WAIT_S)).kind is OutcomeKind.SUCCEEDED
