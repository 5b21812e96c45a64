"""The node-opcua server behaves as the companion specifications say, to a plain asyncua client.

What is asserted here comes from the specifications and the official node sets, never from our drivers or simulators:
what holds here may be relied upon when the drivers are tried against this server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, Node, ua
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.helpers.nodeopcua import PASSWORD, USER, Peer, node_opcua

UA = "http://opcfoundation.org/UA/"
DI, MACHINERY, JOBS = UA + "DI/", UA + "Machinery/", UA + "Machinery/Jobs/"
JOB_CONTROL, MACHINE_TOOL, ROBOTICS = UA + "ISA95-JOBCONTROL_V2/", UA + "MachineTool/", UA + "Robotics/"

NO_ERROR, UNKNOWN_ID, INVALID_STATUS, CANNOT_ACCEPT, INVALID_REQUEST = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 32
"""Bits of ReturnStatus: OPC 10031-4, 2.00, table 95."""

ALLOWED, NOT_ALLOWED, RUNNING, INTERRUPTED, ENDED, ABORTED = 2, 1, 3, 4, 5, 6
"""StateNumber of the states of ISA95JobOrderReceiverObjectType."""

IDLE, READY, EXECUTING = "Idle", "Ready", "Executing"
OK, SYSTEM_STATE, ACTIVE_ALARM, ACKNOWLEDGE_REQUIRED = 0, 1, 3, 4
"""Status of the methods of Robotics 1.02."""

READ, WRITE, WRITE_ERASE = 1, 2, 6
PATIENCE_S = 30.0

SHORT = [f"G1 X{n}" for n in range(20)]
LONG = [f"G1 X{n}" for n in range(50_000)]


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """One server for the tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("peer")
    with _with_programs(folder) as peer:
        yield peer


class Ua:
    """A client and the namespaces of its server, whatever their order."""

    def __init__(self, client: Client, namespaces: list[str]) -> None:
        self.client = client
        self.namespaces = namespaces

    def name(self, uri: str, name: str) -> str:
        return f"{self.namespaces.index(uri) if uri else 0}:{name}"

    async def at(self, node: Node, *steps: tuple[str, str]) -> Node:
        return await node.get_child([self.name(*step) for step in steps])

    async def mill(self, *steps: tuple[str, str]) -> Node:
        own = self.namespaces[1]
        return await self.at(self.client.nodes.objects, (MACHINERY, "Machines"), (own, "Mill"), *steps)

    async def control(self, *steps: tuple[str, str]) -> Node:
        return await self.mill(*BLOCKS, (JOBS, "JobManagement"), (JOBS, "JobOrderControl"), *steps)

    async def robot(self, *steps: tuple[str, str]) -> Node:
        own = self.namespaces[1]
        return await self.at(self.client.nodes.objects, (MACHINERY, "Machines"), (own, "Robot"), *steps)

    async def call(self, parent: Node, name: tuple[str, str], *arguments: object) -> Any:
        return await parent.call_method(self.name(*name), *arguments)

    async def job(self, method: str, job: object, comment: str = "") -> int:
        """A method of JobOrderControl and its ReturnStatus."""
        texts = ua.Variant([ua.LocalizedText(comment)] if comment else [], ua.VariantType.LocalizedText, is_array=True)
        argument = ua.Variant(job, ua.VariantType.String if isinstance(job, str) else ua.VariantType.ExtensionObject)
        return int(await self.call(await self.control(), (JOB_CONTROL, method), argument, texts))

    async def states(self) -> dict[str, list[int]]:
        """Of every order in the list: the numbers of its state and substate."""
        listed = await (await self.control((JOB_CONTROL, "JobOrderList"))).read_value()
        return {each.JobOrder.JobOrderID: [state.StateNumber for state in each.State] for each in listed}

    async def response(self, job_id: str) -> tuple[Any, int]:
        results = await self.mill(*BLOCKS, (JOBS, "JobManagement"), (JOBS, "JobOrderResults"))
        answer = await self.call(results, (JOB_CONTROL, "RequestJobResponseByJobOrderID"), job_id)
        return answer[0], answer[1]


BLOCKS = ((MACHINERY, "MachineryBuildingBlocks"),)
CONTROLLER = ((ROBOTICS, "Controllers"),)


def order(job_id: str, program: str) -> Any:
    return ua.ISA95JobOrderDataType(JobOrderID=job_id, WorkMasterID=[ua.ISA95WorkMasterDataType(ID=program)])


@asynccontextmanager
async def connected(peer: Peer, prepare: Callable[[Client], Awaitable[None]] | None = None) -> AsyncIterator[Ua]:
    client = Client(peer.endpoint, timeout=PATIENCE_S, watchdog_intervall=PATIENCE_S)
    if prepare:
        await prepare(client)
    async with client:
        if not hasattr(ua, "ISA95JobOrderDataType"):  # asyncua keeps them for the process, and it takes a second
            await client.load_data_type_definitions()
        yield Ua(client, await client.get_namespace_array())


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so; each question is a round trip to the server, which paces this."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            pass


def _with_programs(folder: Path, *options: str) -> Any:
    for machine in ("mill", "robot"):
        (folder / machine).mkdir(exist_ok=True)
        (folder / machine / "short.nc").write_text("\n".join(SHORT))
        (folder / machine / "long.nc").write_text("\n".join(LONG))
    return node_opcua(folder, *options)


# Who is there


async def test_machines_are_found_where_the_machinery_specification_says(peer: Peer) -> None:
    async with connected(peer) as ua_:
        machines = await ua_.at(ua_.client.nodes.objects, (MACHINERY, "Machines"))
        assert {(await node.read_browse_name()).Name for node in await machines.get_children()} >= {"Mill", "Robot"}
        type_node = await (await ua_.mill()).read_type_definition()
        assert await ua_.client.get_node(type_node).read_browse_name() == ua.QualifiedName(
            "MachineToolType", ua_.namespaces.index(MACHINE_TOOL)
        )
        serial = await ua_.mill((DI, "Identification"), (DI, "SerialNumber"))
        assert await serial.read_value() == "4711"


async def test_the_node_sets_are_the_official_ones(peer: Peer) -> None:
    """Versions from NamespaceMetadata, which the node sets themselves bring."""
    expected = {DI: "1.05.0", MACHINERY: "1.04.1", JOB_CONTROL: "2.0.0", JOBS: "1.0.1", MACHINE_TOOL: "1.02.0"}
    async with connected(peer) as ua_:
        namespaces = await ua_.client.nodes.server.get_child("0:Namespaces")
        versions = {}
        for uri in expected:
            metadata = await ua_.at(namespaces, (uri, uri))
            versions[uri] = await (await metadata.get_child("0:NamespaceVersion")).read_value()
    assert versions == expected


async def test_job_control_has_every_method_with_its_signature(peer: Peer) -> None:
    by_order, by_id = ("Store", "StoreAndStart", "Update"), ("Start", "RevokeStart", "Pause", "Resume", "Stop", "Abort")
    async with connected(peer) as ua_:
        for name in (*by_order, *by_id, "Cancel", "Clear"):
            method = await ua_.control((JOB_CONTROL, name))
            inputs = await (await method.get_child("0:InputArguments")).read_value()
            outputs = await (await method.get_child("0:OutputArguments")).read_value()
            first = ua.NodeId(3008, ua_.namespaces.index(JOB_CONTROL)) if name in by_order else ua.NodeId(12)
            assert [argument.DataType for argument in inputs] == [first, ua.NodeId(21)]
            assert [(argument.Name, argument.DataType) for argument in outputs] == [("ReturnStatus", ua.NodeId(9))]


async def test_the_state_machine_of_job_order_control_itself_has_no_state(peer: Peer) -> None:
    """It is meta data for the entries of the list (10031-4, 6.2.1)."""
    async with connected(peer) as ua_:
        current = await ua_.control(("", "CurrentState"))
        value = await current.read_data_value(raise_on_bad_status=False)
        assert value.StatusCode is not None
        assert not value.StatusCode.is_good()


# Job orders


async def test_a_stored_order_waits_until_it_is_started_and_ends_completed(peer: Peer) -> None:
    async with connected(peer) as ua_:
        assert await ua_.job("Store", order("a-1", "short.nc")) == NO_ERROR
        assert (await ua_.states())["a-1"][0] == NOT_ALLOWED
        assert (await ua_.response("a-1"))[1] == INVALID_STATUS  # there is nothing to respond yet
        assert await ua_.job("Start", "a-1", "now") == NO_ERROR

        await until(lambda: _is(ua_, "a-1", [ENDED, 1]))  # 1: Completed
        assert peer.carried_out("mill") == SHORT

        response, status = await ua_.response("a-1")
        assert status == NO_ERROR
        assert response.JobOrderID == "a-1"
        assert response.StartTime < response.EndTime
        assert [state.StateText.Text for state in response.JobState] == ["Ended", "Completed"]
        data = {parameter.ID: parameter.Value.Value for parameter in response.JobResponseData}
        assert data["JobResult"] == 1  # Successful (40001-3, 9.2)

        assert await ua_.job("Clear", "a-1") == NO_ERROR
        assert await ua_.states() == {}
        assert (await ua_.response("a-1"))[1] == UNKNOWN_ID


async def test_what_is_wrong_is_a_bit_in_the_return_status(peer: Peer) -> None:
    async with connected(peer) as ua_:
        assert await ua_.job("Start", "nobody") == UNKNOWN_ID
        assert await ua_.job("Store", order("b-1", "no such program.nc")) == CANNOT_ACCEPT
        assert await ua_.job("Store", order("", "short.nc")) == INVALID_REQUEST
        assert await ua_.job("Store", order("b-2", "short.nc")) == NO_ERROR
        assert await ua_.job("Store", order("b-2", "short.nc")) == CANNOT_ACCEPT
        assert await ua_.job("Update", order("b-2", "long.nc")) == NO_ERROR
        for method in ("Pause", "Resume", "Stop", "Clear", "RevokeStart"):
            assert await ua_.job(method, "b-2") == INVALID_STATUS
        assert await ua_.job("Cancel", "b-2") == NO_ERROR
        assert await ua_.states() == {}


async def test_pause_resume_and_stop_are_confirmed_by_the_state(peer: Peer) -> None:
    async with connected(peer) as ua_:
        assert await ua_.job("StoreAndStart", order("c-1", "long.nc")) == NO_ERROR
        await until(lambda: _is(ua_, "c-1", [RUNNING]))
        assert await ua_.job("Pause", "c-1") == NO_ERROR
        await until(lambda: _is(ua_, "c-1", [INTERRUPTED, 1]))  # 1: Held
        acts = peer.acts("mill")
        assert await ua_.job("Pause", "c-1") == INVALID_STATUS
        assert peer.acts("mill") == acts
        assert await ua_.job("Resume", "c-1") == NO_ERROR
        await until(lambda: _is(ua_, "c-1", [RUNNING]))
        assert await ua_.job("Stop", "c-1") == NO_ERROR
        await until(lambda: _is(ua_, "c-1", [ENDED, 2]))  # 2: Closed
        assert peer.carried_out("mill") == LONG[: len(peer.carried_out("mill"))]
        assert await ua_.job("Clear", "c-1") == NO_ERROR


async def test_an_abort_is_legal_in_every_state_but_the_last_two(peer: Peer) -> None:
    async with connected(peer) as ua_:
        assert await ua_.job("Store", order("d-1", "long.nc")) == NO_ERROR
        assert await ua_.job("Abort", "d-1") == NO_ERROR
        assert await ua_.job("StoreAndStart", order("d-2", "long.nc")) == NO_ERROR
        await until(lambda: _is(ua_, "d-2", [RUNNING]))
        assert await ua_.job("Abort", "d-2") == NO_ERROR
        await until(lambda: _is(ua_, "d-2", [ABORTED]))
        response, _ = await ua_.response("d-2")
        data = {parameter.ID: parameter.Value.Value for parameter in response.JobResponseData}
        assert data["JobResult"] == 2  # Unsuccessful
        for job_id in ("d-1", "d-2"):
            assert await ua_.job("Abort", job_id) == INVALID_STATUS
            assert await ua_.job("Clear", job_id) == NO_ERROR


async def test_every_change_of_a_job_order_is_an_event_with_order_state_and_response(peer: Peer) -> None:
    seen: list[tuple[str, int]] = []
    done = asyncio.Event()

    class Handler:
        def event_notification(self, event: Any) -> None:
            seen.append((event.JobOrder.JobOrderID, event.JobState[0].StateNumber))
            assert event.JobResponse.JobOrderID == event.JobOrder.JobOrderID
            if event.JobState[0].StateNumber == ENDED:
                done.set()

    async with connected(peer) as ua_:
        subscription = await ua_.client.create_subscription(100, Handler())  # type: ignore[arg-type]
        kind = ua.NodeId(1006, ua_.namespaces.index(JOB_CONTROL))
        # A queue of 0 becomes one of 1 here: of two events between two publications the first is lost.
        await subscription.subscribe_events(await ua_.control(), kind, queuesize=100)
        assert await ua_.job("StoreAndStart", order("e-1", "short.nc")) == NO_ERROR
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
        await subscription.delete()
        assert seen == [("e-1", ALLOWED), ("e-1", RUNNING), ("e-1", ENDED)]
        assert await ua_.job("Clear", "e-1") == NO_ERROR


async def test_item_state_and_active_program_follow_the_order(peer: Peer) -> None:
    async with connected(peer) as ua_:
        item = await ua_.mill(*BLOCKS, (MACHINERY, "MachineryItemState"), ("", "CurrentState"))
        program = await ua_.mill((MACHINE_TOOL, "Production"), (MACHINE_TOOL, "ActiveProgram"))
        state = await ua_.at(program, (MACHINE_TOOL, "State"), ("", "CurrentState"))
        assert (await item.read_value()).Text == "NotExecuting"
        assert await ua_.job("StoreAndStart", order("f-1", "long.nc")) == NO_ERROR
        await until(lambda: _is(ua_, "f-1", [RUNNING]))
        assert (await item.read_value()).Text == "Executing"
        assert (await state.read_value()).Text == "Running"
        assert await (await state.get_child("0:Number")).read_value() == 1
        assert await (await ua_.at(program, (MACHINE_TOOL, "Name"))).read_value() == "long.nc"
        assert await ua_.job("Abort", "f-1") == NO_ERROR
        await until(lambda: _is(ua_, "f-1", [ABORTED]))
        assert (await state.read_value()).Text == "Aborted"
        assert await ua_.job("Clear", "f-1") == NO_ERROR


async def test_an_order_waits_while_the_machine_is_not_in_automatic(peer: Peer) -> None:
    async with connected(peer) as ua_:
        where = ((MACHINE_TOOL, "Monitoring"), (MACHINE_TOOL, "MachineTool"), (MACHINE_TOOL, "OperationMode"))
        mode = await ua_.mill(*where)
        peer.tell("mode", mode="Manual")
        assert await mode.read_value() == 0
        acts = peer.acts("mill")
        assert await ua_.job("StoreAndStart", order("g-1", "short.nc")) == NO_ERROR
        assert (await ua_.states())["g-1"][0] == ALLOWED
        assert peer.acts("mill") == acts
        peer.tell("mode", mode="Automatic")
        assert await mode.read_value() == 1
        await until(lambda: _is(ua_, "g-1", [ENDED, 1]))
        assert await ua_.job("Clear", "g-1") == NO_ERROR


async def test_an_alarm_in_mid_program_is_a_condition_that_a_person_acknowledges(peer: Peer) -> None:
    conditions: asyncio.Queue[Any] = asyncio.Queue()

    class Handler:
        def event_notification(self, event: Any) -> None:
            conditions.put_nowait(event)

    async with connected(peer) as ua_:
        subscription = await ua_.client.create_subscription(100, Handler())  # type: ignore[arg-type]
        await subscription.subscribe_alarms_and_conditions(await ua_.mill())
        assert await ua_.job("StoreAndStart", order("h-1", "long.nc")) == NO_ERROR
        await until(lambda: _is(ua_, "h-1", [RUNNING]))
        peer.tell("alarm", text="spindle overload", effect="abort")
        await until(lambda: _is(ua_, "h-1", [ABORTED]))
        async with asyncio.timeout(PATIENCE_S):
            while (event := await conditions.get()).Message.Text != "spindle overload":
                pass
        assert event.Severity == 700
        alert = await ua_.mill((MACHINE_TOOL, "Notification"), (MACHINE_TOOL, "Messages"), (ua_.namespaces[1], "Alert"))
        comment = ua.Variant(ua.LocalizedText("seen"), ua.VariantType.LocalizedText)
        await ua_.call(alert, ("", "Acknowledge"), ua.Variant(event.EventId, ua.VariantType.ByteString), comment)
        assert peer.tell("acknowledged", machine="mill")["acknowledged"]
        peer.tell("clear_alarm")
        await subscription.delete()
        assert await ua_.job("Clear", "h-1") == NO_ERROR


# Files


async def test_a_program_is_written_in_chunks_and_read_back(peer: Peer) -> None:
    content = b"\n".join(b"G1 X%d" % n for n in range(30_000))
    async with connected(peer) as ua_:
        files = await ua_.mill(("", "FileSystem"))
        new, handle = await ua_.call(files, ("", "CreateFile"), "new.tmp", True)
        assert handle != 0
        node = ua_.client.get_node(new)
        for start in range(0, len(content), 50_000):
            chunk = content[start : start + 50_000]
            await node.call_method("0:Write", ua.Variant(handle, ua.VariantType.UInt32), chunk)
        # While it is open for writing, nobody else may open it, and it cannot be started.
        for mode in (READ, WRITE_ERASE):
            with pytest.raises(ua.UaStatusCodeError):
                await node.call_method("0:Open", ua.Variant(mode, ua.VariantType.Byte))
        assert await ua_.job("Store", order("i-1", "new.tmp")) == CANNOT_ACCEPT
        await node.call_method("0:Close", ua.Variant(handle, ua.VariantType.UInt32))
        assert await (await node.get_child("0:Size")).read_value() == len(content)

        moved = await ua_.call(files, ("", "MoveOrCopy"), new, files.nodeid, False, "new.nc")
        node = ua_.client.get_node(moved)
        handle = await node.call_method("0:Open", ua.Variant(READ, ua.VariantType.Byte))
        read = b""
        while chunk := await node.call_method(
            "0:Read", ua.Variant(handle, ua.VariantType.UInt32), ua.Variant(60_000, ua.VariantType.Int32)
        ):
            read += chunk
        assert read == content
        await node.call_method("0:Close", ua.Variant(handle, ua.VariantType.UInt32))
        assert (peer.mill / "new.nc").read_bytes() == content
        assert not (peer.mill / "new.tmp").exists()
        with pytest.raises(ua.uaerrors.BadBrowseNameDuplicated):
            await ua_.call(files, ("", "CreateFile"), "new.nc", False)
        await ua_.call(files, ("", "Delete"), moved)
        assert not (peer.mill / "new.nc").exists()


async def test_an_open_file_is_let_go_with_its_session(peer: Peer) -> None:
    async with connected(peer) as first:
        files = await first.mill(("", "FileSystem"))
        new, _ = await first.call(files, ("", "CreateFile"), "left.nc", True)
    async with connected(peer) as second:
        files = await second.mill(("", "FileSystem"))
        await until(lambda: _deleted(second, files, new))


# Robot


async def test_a_robot_gets_ready_runs_a_program_and_is_ready_again(peer: Peer) -> None:
    async with connected(peer) as ua_:
        robot = await Arm.of(ua_)
        assert await robot.state() == (IDLE, IDLE)
        assert await robot.task_call("LoadByName", "short.nc") == OK
        assert await robot.task_call("Start") == SYSTEM_STATE  # the system is not ready
        assert await robot.system_call("GetReady") == OK
        await until(lambda: robot.is_(READY, READY))
        assert await robot.substate() == "AtProgramStart"
        assert await (await robot.parameter("TaskProgramName")).read_value() == "short.nc"
        assert await (await robot.parameter("TaskProgramLoaded")).read_value() is True
        assert await robot.task_call("Start") == OK
        assert await robot.task_call("LoadByName", "long.nc") == SYSTEM_STATE
        await until(lambda: robot.is_(READY, READY))
        assert peer.carried_out("robot") == SHORT
        assert await robot.reason() == 5  # Application: the program has ended
        assert await robot.task_call("UnloadProgram") == OK
        assert await robot.system_call("StandDown") == OK
        assert await robot.state() == (IDLE, IDLE)


async def test_a_stopped_robot_is_suspended_goes_on_or_is_reset(peer: Peer) -> None:
    async with connected(peer) as ua_:
        robot = await Arm.of(ua_)
        await robot.executing("long.nc")
        with pytest.raises(ua.UaStatusCodeError):
            await robot.task_call("Stop", ua.Variant(1, ua.VariantType.Int32))  # StopMode is Int64
        with pytest.raises(ua.uaerrors.BadInvalidArgument):
            await robot.stop(mode=77)  # not one of PossibleStopModes
        assert await robot.stop() == OK
        await until(lambda: robot.is_(READY, READY))
        assert await robot.substate() == "Suspended"
        assert await robot.reason() == 1  # External
        done = peer.carried_out("robot")
        assert await robot.task_call("Start") == OK
        await until(lambda: _more(peer, len(done)))
        assert await robot.stop(mode=0) == OK  # the configured default
        await until(lambda: robot.is_(READY, READY))
        assert peer.carried_out("robot") == LONG[: len(peer.carried_out("robot"))]
        ready = await ua_.at(robot.task, (ROBOTICS, "ReadySubstateMachine"))
        assert await ua_.call(ready, (ROBOTICS, "ResetToProgramStart")) == OK
        assert await robot.substate() == "AtProgramStart"
        await robot.down()


async def test_an_emergency_stop_takes_the_power_and_wants_a_person(peer: Peer) -> None:
    async with connected(peer) as ua_:
        robot = await Arm.of(ua_)
        await robot.executing("long.nc")
        peer.tell("estop", on=True)
        assert await robot.state() == (IDLE, READY)
        assert await robot.substate() == "Suspended"
        assert await (await robot.safety("EmergencyStop")).read_value() is True
        assert await robot.system_call("GetReady") == ACTIVE_ALARM
        peer.tell("estop", on=False)
        assert await robot.system_call("GetReady") == ACKNOWLEDGE_REQUIRED
        await robot.acknowledge()
        assert await robot.system_call("GetReady") == OK
        await robot.down()


async def test_a_protective_stop_keeps_the_power(peer: Peer) -> None:
    async with connected(peer) as ua_:
        robot = await Arm.of(ua_)
        await robot.executing("long.nc")
        peer.tell("protective_stop", on=True)
        assert await robot.state() == (READY, READY)
        assert await (await robot.safety("ProtectiveStop")).read_value() is True
        peer.tell("protective_stop", on=False)
        assert await robot.task_call("Start") == ACKNOWLEDGE_REQUIRED
        await robot.acknowledge()
        await robot.down()


async def test_out_of_automatic_a_robot_is_not_started_from_outside(peer: Peer) -> None:
    async with connected(peer) as ua_:
        robot = await Arm.of(ua_)
        peer.tell("operational_mode", mode=1)
        assert await (await robot.safety("OperationalMode")).read_value() == 1
        assert await robot.system_call("GetReady") == SYSTEM_STATE
        peer.tell("operational_mode", mode=4)
        assert await robot.system_call("GetReady") == OK
        await robot.down()


# Security


async def test_a_certificate_is_refused_until_a_person_trusts_it(tmp_path: Path) -> None:
    certificate, key = await _own_certificate(tmp_path)

    async def secure(client: Client) -> None:
        client.application_uri = "urn:example:client"
        client.set_user(USER)
        client.set_password(PASSWORD)
        await client.set_security(SecurityPolicyBasic256Sha256, certificate, key, server_certificate=peer.certificate)

    with _with_programs(tmp_path, "--security", "encrypt", "--no-anonymous") as peer:
        with pytest.raises((AssertionError, ConnectionError, asyncio.TimeoutError, ua.UaError)):
            async with connected(peer, secure):
                pass
        assert peer.tell("trust")["trusted"]
        async with connected(peer, secure) as ua_:
            assert await ua_.job("StoreAndStart", order("s-1", "short.nc")) == NO_ERROR
            await until(lambda: _is(ua_, "s-1", [ENDED, 1]))

        async def wrong(client: Client) -> None:
            await secure(client)
            client.set_password("guess")

        with pytest.raises(ua.UaStatusCodeError):
            async with connected(peer, wrong):
                pass


# Faults


async def test_a_server_that_loses_power_has_its_programs_and_none_of_its_orders(tmp_path: Path) -> None:
    with _with_programs(tmp_path) as peer:
        port = peer.endpoint.rsplit(":", 1)[1]
        async with connected(peer) as ua_:
            assert await ua_.job("StoreAndStart", order("p-1", "long.nc")) == NO_ERROR
            await until(lambda: _is(ua_, "p-1", [RUNNING]))
            peer.tell("lose_state")
            assert await ua_.states() == {}
            assert (await ua_.response("p-1"))[1] == UNKNOWN_ID
        peer.kill()
    with _with_programs(tmp_path, "--port", port) as peer:
        async with connected(peer) as ua_:
            assert await ua_.states() == {}
            assert await ua_.job("Store", order("p-1", "long.nc")) == NO_ERROR


async def test_a_full_session_table_refuses_until_a_session_ends(tmp_path: Path) -> None:
    with _with_programs(tmp_path, "--sessions", "1") as peer:
        async with connected(peer):
            with pytest.raises(ua.uaerrors.BadTooManySessions):
                async with connected(peer):
                    pass
        async with connected(peer):
            pass


async def test_a_dropped_connection_leaves_the_program_running(tmp_path: Path) -> None:
    with _with_programs(tmp_path) as peer:
        async with connected(peer) as ua_:
            assert await ua_.job("StoreAndStart", order("o-1", "long.nc")) == NO_ERROR
            await until(lambda: _is(ua_, "o-1", [RUNNING]))
            peer.tell("drop")
            with pytest.raises((ConnectionError, asyncio.TimeoutError)):
                await ua_.states()
        async with connected(peer) as ua_:
            assert (await ua_.states())["o-1"] == [RUNNING]
            assert peer.tell("carried_out", machine="mill")["starts"] == {"o-1": 1}


async def test_a_frozen_server_answers_late_and_has_lost_nothing(tmp_path: Path) -> None:
    with _with_programs(tmp_path) as peer:
        async with connected(peer) as ua_:
            assert await ua_.job("Store", order("q-1", "long.nc")) == NO_ERROR
            with peer.stopped():
                asked = asyncio.create_task(ua_.states(), name="asked of a frozen server")
                done, _ = await asyncio.wait([asked], timeout=0.5)
                assert not done
            assert (await asked)["q-1"][0] == NOT_ALLOWED


async def test_after_a_reset_the_machines_are_as_new(tmp_path: Path) -> None:
    with _with_programs(tmp_path) as peer:
        async with connected(peer) as ua_:
            assert await ua_.job("StoreAndStart", order("r-1", "long.nc")) == NO_ERROR
            await until(lambda: _is(ua_, "r-1", [RUNNING]))
            peer.tell("reset")
        async with connected(peer) as ua_:
            assert await ua_.states() == {}
            assert peer.acts("mill") == 0
            assert await ua_.job("Store", order("r-1", "long.nc")) == CANNOT_ACCEPT
            files = await ua_.mill(("", "FileSystem"))
            await ua_.call(files, ("", "CreateFile"), "long.nc", False)
            assert await ua_.job("Store", order("r-1", "long.nc")) == NO_ERROR


async def test_a_bare_number_can_be_the_return_status(tmp_path: Path) -> None:
    with _with_programs(tmp_path, "--odd", "Mill=status-as-number") as peer:
        async with connected(peer) as ua_:
            assert await ua_.job("Start", "nobody") == 1
            assert await ua_.job("Store", order("n-1", "short.nc")) == 0
            assert await ua_.job("Pause", "n-1") == 3


class Arm:
    """The robot's two state machines."""

    def __init__(self, ua_: Ua, system: Node, task: Node, nodes: dict[str, Node]) -> None:
        self.ua, self.system, self.task, self.nodes = ua_, system, task, nodes

    @classmethod
    async def of(cls, ua_: Ua) -> Arm:
        own = ua_.namespaces[1]
        controller = await ua_.robot((ROBOTICS, "Controllers"), (own, "Controller"))
        task = await ua_.at(controller, (ROBOTICS, "TaskControls"), (own, "TaskControl"))
        safety = await ua_.robot((ROBOTICS, "SafetyStates"), (own, "Safety"))
        return cls(
            ua_,
            await ua_.at(controller, (ROBOTICS, "SystemOperation"), (ROBOTICS, "SystemOperationStateMachine")),
            await ua_.at(task, (ROBOTICS, "TaskControlOperation"), (ROBOTICS, "TaskControlStateMachine")),
            {"controller": controller, "task": task, "safety": safety},
        )

    async def system_call(self, name: str, *arguments: object) -> int:
        return int(await self.ua.call(self.system, (ROBOTICS, name), *arguments))

    async def task_call(self, name: str, *arguments: object) -> int:
        return int(await self.ua.call(self.task, (ROBOTICS, name), *arguments))

    async def stop(self, mode: int = 1) -> int:
        return await self.task_call("Stop", ua.Variant(mode, ua.VariantType.Int64))

    async def state(self) -> tuple[str, str]:
        system = await self.system.get_child("0:CurrentState")
        task = await self.task.get_child("0:CurrentState")
        return (await system.read_value()).Text, (await task.read_value()).Text

    async def is_(self, system: str, task: str) -> bool:
        return await self.state() == (system, task)

    async def substate(self) -> str:
        current = await self.ua.at(self.task, (ROBOTICS, "ReadySubstateMachine"), ("", "CurrentState"))
        return str((await current.read_value()).Text)

    async def reason(self) -> int:
        return int(await (await self.ua.at(self.task, (ROBOTICS, "LastTransitionReason"))).read_value())

    async def parameter(self, name: str) -> Node:
        return await self.ua.at(self.nodes["task"], (DI, "ParameterSet"), (ROBOTICS, name))

    async def safety(self, name: str) -> Node:
        return await self.ua.at(self.nodes["safety"], (DI, "ParameterSet"), (ROBOTICS, name))

    async def executing(self, program: str) -> None:
        assert await self.system_call("GetReady") == OK
        await until(self._system_is_ready)
        assert await self.task_call("LoadByName", program) == OK
        assert await self.task_call("Start") == OK
        assert await self.state() == (EXECUTING, EXECUTING)

    async def down(self) -> None:
        """As it was found: nothing loaded, standing by."""
        await self.task_call("UnloadProgram")
        assert await self.system_call("StandDown") == OK
        assert await self.state() == (IDLE, IDLE)

    async def acknowledge(self) -> None:
        own = self.ua.namespaces[1]
        where = ((ROBOTICS, "SystemOperation"), (ROBOTICS, "Conditions"), (own, "Stop"))
        condition = await self.ua.at(self.nodes["controller"], *where)
        event_id = await (await condition.get_child("0:EventId")).read_value()
        comment = ua.Variant(ua.LocalizedText("seen"), ua.VariantType.LocalizedText)
        await self.ua.call(condition, ("", "Acknowledge"), ua.Variant(event_id, ua.VariantType.ByteString), comment)

    async def _system_is_ready(self) -> bool:
        return (await self.state())[0] == READY


async def _is(ua_: Ua, job_id: str, states: list[int]) -> bool:
    return (await ua_.states()).get(job_id) == states


async def _more(peer: Peer, than: int) -> bool:
    return len(peer.carried_out("robot")) > than


async def _deleted(ua_: Ua, files: Node, file: ua.NodeId) -> bool:
    try:
        await ua_.call(files, ("", "Delete"), file)
    except ua.uaerrors.BadInvalidState:
        return False
    return True


async def _own_certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "client.der", folder / "client.pem"
    await setup_self_signed_certificate(
        key, certificate, "urn:example:client", "localhost", [ExtendedKeyUsageOID.CLIENT_AUTH], {"commonName": "client"}
    )
    return certificate, key
