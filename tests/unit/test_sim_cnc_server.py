"""`hil-sim cnc` as a process, asked by a plain OPC UA client."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.ua.uaerrors import BadInvalidArgument, BadNotWritable, BadTooManySessions, BadUserAccessDenied
from helpers.opcua_cnc import (
    CONTROL,
    MACHINES,
    NO_COMMENT,
    OK,
    RESULTS,
    SLOW,
    STATE,
    Events,
    ask,
    handle,
    job_states,
    order,
    store,
    upload,
)
from helpers.opcua_sim import DEADLINE_S, OpcuaSim, Peer, eventually, opcua_sim, peer, peer_of, plain_client

SQUARE = b"%\nG21 G90 G54\nT1 M6\nS8000 M3\nG0 X0 Y0 Z5\nG1 Z0 F500\nX100 F1000\nG2 X100 Y0 I-50 J0\nM5\nM30\n"


@pytest.fixture(scope="module")
def mill() -> Iterator[OpcuaSim]:
    """One machine for all tests that leave it as it was."""
    with opcua_sim("cnc", "--speed", "100") as sim:
        yield sim


@pytest.fixture
async def shop(mill: OpcuaSim) -> AsyncIterator[Peer]:
    mill.say("power-cycle")
    for line in ("door=closed", "mode=Automatic", "override=100"):
        mill.say(line)
    async with peer(mill, *MACHINES) as client:
        await client.client.load_data_type_definitions()
        for name in ("part.nc", "slow.nc"):
            if name not in [each.ID for each in await client.value(f"{CONTROL}/isa95:WorkMaster")]:
                await upload(client, name, SQUARE if name == "part.nc" else SLOW)
        yield client


async def test_the_machine_says_what_it_is(shop: Peer) -> None:
    assert (await shop.value("di:Identification/di:Manufacturer")).Text == "hil-sim"
    kind = shop.client.get_node(await shop.root.read_type_definition())
    assert (await kind.read_browse_name()).Name == "MachineToolType"
    override = await shop.node("mt:Monitoring/mt:MachineTool/mt:FeedOverride")
    units = await (await override.get_child("0:EngineeringUnits")).read_value()
    span = await (await override.get_child("0:EURange")).read_value()
    assert (units.DisplayName.Text, span.Low, span.High) == ("%", 0.0, 150.0)


async def test_a_job_order_runs_and_its_response_says_so(shop: Peer, mill: OpcuaSim) -> None:
    events = Events()
    subscription = await shop.client.create_subscription(50, events)
    job_event = shop.client.get_node(ua.NodeId(1006, await shop._index("isa95")))
    await subscription.subscribe_events(shop.client.nodes.server, job_event)
    assert await store(shop, "run-1", "part.nc") == OK
    await shop.until(STATE, "Ended")
    response, status = await shop.call(f"{RESULTS}/isa95:RequestJobResponseByJobOrderID", "run-1")
    assert (status, [each.StateNumber for each in response.JobState]) == (OK, [5, 1])
    assert response.StartTime < response.EndTime
    assert await job_states(shop) == {"run-1": ["Ended", "Completed"]}
    seen = [(await events.next()).JobState[0].StateText.Text for _ in range(3)]
    assert seen == ["AllowedToStart", "Running", "Ended"]
    assert [text for line, text in mill.carried_out() if line != "!"][-8:] == SQUARE.decode().split("\n")[2:-1]
    assert await ask(shop, "Clear", "run-1") == OK
    assert await job_states(shop) == {}
    await subscription.delete()


async def test_pause_resume_stop_and_abort(shop: Peer) -> None:
    assert await store(shop, "run-1", "slow.nc", "Store") == OK
    assert await job_states(shop) == {"run-1": ["NotAllowedToStart", "Waiting"]}
    assert await ask(shop, "Start", "run-1") == OK
    await shop.until(STATE, "Running")
    assert await ask(shop, "Pause", "run-1") == OK
    assert (await shop.value(STATE)).Text == "Interrupted"
    assert await job_states(shop) == {"run-1": ["Interrupted", "Held"]}
    where = await shop.value("mt:Monitoring/home:X/home:Position")
    await asyncio.sleep(0.2)
    assert await shop.value("mt:Monitoring/home:X/home:Position") == where
    assert await ask(shop, "Resume", "run-1") == OK
    assert await ask(shop, "Stop", "run-1") == OK
    assert await job_states(shop) == {"run-1": ["Ended", "Closed"]}
    assert await store(shop, "run-2", "slow.nc") == OK
    assert await ask(shop, "Abort", "run-2") == OK
    assert await ask(shop, "Abort", "run-2") == 1 << 3
    assert await ask(shop, "Abort", "run-9") == 1 << 1
    assert (await job_states(shop))["run-2"] == ["Aborted"]
    states = ua.ISA95StateDataType()
    states.StateNumber = 6
    found, status = await shop.call(f"{RESULTS}/isa95:RequestJobResponseByJobOrderState", [states])
    assert ([each.JobOrderID for each in found], status) == (["run-2"], OK)


async def test_a_second_job_waits_for_the_first(shop: Peer) -> None:
    assert await store(shop, "run-1", "slow.nc") == OK
    assert await store(shop, "run-2", "part.nc") == OK
    assert (await job_states(shop))["run-2"] == ["AllowedToStart", "Waiting"]
    assert await store(shop, "run-2", "part.nc") == 1 << 4
    assert await store(shop, "run-3", "nowhere.nc") == 1 << 4
    assert await ask(shop, "Stop", "run-1") == OK
    await eventually(lambda: job_states(shop), lambda states: states["run-2"] == ["Ended", "Completed"])


@pytest.mark.parametrize(("fault", "repair"), [("door=open", "door=closed"), ("mode=Manual", "mode=Automatic")])
async def test_nothing_begins_or_goes_on_while_a_person_has_the_machine(
    shop: Peer, mill: OpcuaSim, fault: str, repair: str
) -> None:
    assert await store(shop, "run-1", "slow.nc") == OK
    mill.say(fault)
    assert await job_states(shop) == {"run-1": ["Interrupted", "Suspended"]}
    assert await ask(shop, "Resume", "run-1") == 1 << 4
    mill.say(repair)
    assert (await shop.value(STATE)).Text == "Interrupted", "repair alone moves nothing"
    assert await ask(shop, "Resume", "run-1") == OK
    assert (await shop.value(STATE)).Text == "Running"


async def test_an_alarm_stops_the_program_until_somebody_has_reset_it(shop: Peer, mill: OpcuaSim) -> None:
    events = Events()
    subscription = await shop.client.create_subscription(50, events)
    alert = shop.client.get_node(ua.NodeId(39, await shop._index("mt")))
    await subscription.subscribe_alarms_and_conditions(shop.client.nodes.server, alert)
    assert await store(shop, "run-1", "slow.nc") == OK
    mill.say("alarm=coolant low")
    event = await events.next()
    while event.Message.Text != "coolant low":
        event = await events.next()
    item = "machinery:MachineryBuildingBlocks/machinery:MachineryItemState/CurrentState"
    assert (await shop.value(item)).Text == "OutOfService"
    assert await job_states(shop) == {"run-1": ["Interrupted", "Suspended"]}
    condition = "mt:Notification/mt:Messages/home:OperatorAlarm"
    assert await shop.value(f"{condition}/ActiveState/Id") is True
    await shop.call(f"{condition}/Acknowledge", event.EventId, ua.LocalizedText("seen"))
    assert await shop.value(f"{condition}/AckedState/Id") is True
    assert await shop.value(f"{condition}/Retain") is True, "its cause is still there"
    assert await ask(shop, "Resume", "run-1") == 1 << 4
    late = Events()
    refreshed = await shop.client.create_subscription(50, late)
    await refreshed.subscribe_events(shop.client.nodes.server, alert)
    condition_refresh = ua.NodeId(ua.ObjectIds.ConditionType_ConditionRefresh)
    number = ua.Variant(refreshed.subscription_id, ua.VariantType.UInt32)
    await shop.client.get_node(ua.NodeId(ua.ObjectIds.ConditionType)).call_method(condition_refresh, number)
    assert (await late.next()).Message.Text == "coolant low", "who comes later asks for what is retained"
    await refreshed.delete()
    mill.say("reset")
    assert await shop.value(f"{condition}/Retain") is False
    assert await ask(shop, "Resume", "run-1") == OK
    await subscription.delete()


async def test_an_emergency_stop_ends_the_job(shop: Peer, mill: OpcuaSim) -> None:
    assert await store(shop, "run-1", "slow.nc") == OK
    mill.say("estop=on")
    assert await job_states(shop) == {"run-1": ["Aborted"]}
    assert await shop.value("home:Safety/home:EmergencyStop") is True
    assert await store(shop, "run-2", "part.nc") == OK
    mill.say("reset")
    assert (await job_states(shop))["run-2"] == ["AllowedToStart", "Waiting"], "the button is still pressed"
    mill.say("estop=off")
    mill.say("reset")
    await eventually(lambda: job_states(shop), lambda states: states["run-2"] == ["Ended", "Completed"])


async def test_a_bad_program_aborts_its_job_with_an_alarm(shop: Peer) -> None:
    if "bad.nc" not in [each.ID for each in await shop.value(f"{CONTROL}/isa95:WorkMaster")]:
        await upload(shop, "bad.nc", b"G0 X1\nG0 X999\nM30\n")
    assert await store(shop, "run-1", "bad.nc") == OK
    await eventually(lambda: job_states(shop), lambda states: states == {"run-1": ["Aborted"]})
    message = await shop.value("mt:Notification/mt:Messages/home:ProgramAlarm/Message")
    assert message.Text == "line 2: X 1049.000 mm is outside of 0 to 500 mm"


async def test_files_are_read_back_moved_and_deleted(shop: Peer) -> None:
    content = bytes(range(256)) * 1024
    await upload(shop, "new.part", content)
    file = await shop.node("FileSystem/home:new.part")
    assert await (await file.get_child("0:Size")).read_value() == len(content)
    opened = await file.call_method("0:Open", ua.Variant(1, ua.VariantType.Byte))
    length = ua.Variant(100_000, ua.VariantType.Int32)
    pieces = [await file.call_method("0:Read", handle(opened), length) for _ in range(3)]
    assert b"".join(pieces) == content
    await file.call_method("0:SetPosition", handle(opened), ua.Variant(256, ua.VariantType.UInt64))
    assert await file.call_method("0:GetPosition", handle(opened)) == 256
    with pytest.raises(BadNotWritable):
        await file.call_method("0:Write", handle(opened), b"x")
    with pytest.raises(BadNotWritable):
        await file.call_method("0:Open", ua.Variant(6, ua.VariantType.Byte))
    await file.call_method("0:Close", handle(opened))
    system = await shop.node("FileSystem")
    moved = await shop.call("FileSystem/MoveOrCopy", file.nodeid, system.nodeid, False, "moved.nc")
    assert "moved.nc" in [each.ID for each in await shop.value(f"{CONTROL}/isa95:WorkMaster")]
    await shop.call("FileSystem/Delete", moved)
    assert "moved.nc" not in [(await each.read_browse_name()).Name for each in await system.get_children()]


async def test_a_client_that_is_cut_off_leaves_half_a_file_and_no_lock(shop: Peer, mill: OpcuaSim) -> None:
    async with plain_client(mill.endpoint) as other:
        half = await peer_of(other, *MACHINES)
        node, opened = await half.call("FileSystem/CreateFile", "half.nc", True)
        await other.get_node(node).call_method("0:Write", handle(opened), SLOW[:20])
    file = await shop.node("FileSystem/home:half.nc")
    assert await (await file.get_child("0:Size")).read_value() == 20
    open_count = await file.get_child("0:OpenCount")
    await eventually(open_count.read_value, lambda count: count == 0)
    await shop.call("FileSystem/Delete", file.nodeid)


async def test_arguments_of_the_wrong_type_are_refused(shop: Peer) -> None:
    with pytest.raises(BadInvalidArgument):
        await shop.call(f"{CONTROL}/isa95:Start", 5, NO_COMMENT)
    with pytest.raises(BadInvalidArgument):
        await shop.call(f"{CONTROL}/isa95:Start", "run-1", ua.LocalizedText("not an array"))


async def test_a_power_cycle_forgets_jobs_and_keeps_files(shop: Peer, mill: OpcuaSim) -> None:
    assert await store(shop, "run-1", "slow.nc") == OK
    mill.say("power-cycle")
    async with peer(mill, *MACHINES) as again:
        assert await job_states(again) == {}
        assert (await again.value(STATE)).Text == "Initializing"
        assert "slow.nc" in [each.ID for each in await again.value(f"{CONTROL}/isa95:WorkMaster")]
        _, status = await again.call(f"{RESULTS}/isa95:RequestJobResponseByJobOrderID", "run-1")
        assert status == 1 << 1


async def test_a_frozen_server_says_nothing_while_the_machine_goes_on(shop: Peer, mill: OpcuaSim) -> None:
    assert await store(shop, "run-1", "part.nc") == OK
    mill.say("freeze")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(shop.value(STATE), 1.0)
    mill.say("thaw")
    await shop.until(STATE, "Ended")


def test_a_frozen_simulator_can_be_ended() -> None:
    with opcua_sim("cnc") as sim:
        sim.say("freeze")
        sim.process.terminate()
        assert sim.process.wait(DEADLINE_S) == 0


async def test_a_full_session_table_and_dropped_connections(mill: OpcuaSim) -> None:
    mill.say("sessions=0")
    with pytest.raises(BadTooManySessions):
        await plain_client(mill.endpoint).connect()
    mill.say("sessions=off")
    async with peer(mill, *MACHINES) as client:
        assert mill.say("drop=1.5") is None
        with pytest.raises((ConnectionError, TimeoutError)):
            await client.value(STATE)
        with pytest.raises((ConnectionError, OSError)):
            await plain_client(mill.endpoint).connect()

        async def connects() -> bool:
            try:
                async with plain_client(mill.endpoint):
                    return True
            except (ConnectionError, OSError):
                return False

        assert await eventually(connects, bool)


async def test_users_and_passwords() -> None:
    with opcua_sim("cnc", "--user", "edge=secret", "--security", "none,encrypt") as sim:
        client = plain_client(sim.endpoint)
        client.set_user("edge")
        client.set_password("secret")
        async with client:
            assert (await (await peer_of(client, *MACHINES)).value(STATE)).Text == "Initializing"
        client.set_password("wrong")
        with pytest.raises(BadUserAccessDenied):
            await client.connect()
        with pytest.raises(BadUserAccessDenied):
            await plain_client(sim.endpoint).connect()


async def test_variants_that_clients_have_to_live_with() -> None:
    variants = [f"--variant={name}" for name in ("bare-status", "unknown-states", "namespaces-reversed")]
    with opcua_sim("cnc", "--speed", "100", *variants, "--without", "Pause") as sim:
        async with peer(sim, *MACHINES) as client:
            namespaces = await client.client.get_namespace_array()
            assert namespaces.index("http://opcfoundation.org/UA/DI/") > namespaces.index(
                "http://opcfoundation.org/UA/MachineTool/"
            )
            await client.client.load_data_type_definitions()
            await upload(client, "slow.nc", SLOW)
            assert await store(client, "run-1", "slow.nc") == 0
            assert await store(client, "run-1", "slow.nc") == 4
            assert (await client.value(f"{STATE}/Number"), (await client.value(STATE)).Text) == (77, "Churning")
            (listed,) = await client.value(f"{CONTROL}/isa95:JobOrderList")
            assert [each.StateNumber for each in listed.State] == [42]
            control = await client.node(CONTROL)
            names = [(await each.read_browse_name()).Name for each in await control.get_methods()]
            assert "Stop" in names
            assert "Pause" not in names
            assert order("x", "y").JobOrderID == "x"


async def test_wrong_data_types() -> None:
    with opcua_sim("cnc", "--variant", "wrong-types") as sim:
        async with peer(sim, *MACHINES) as client:
            assert await client.value(STATE) == "Initializing"
            assert await client.value("mt:Monitoring/mt:MachineTool/mt:FeedOverride") == "100 %"
            assert await client.value("mt:Monitoring/mt:MachineTool/mt:OperationMode") == "Automatic"


async def test_the_log_and_the_programs_are_files(tmp_path: Path) -> None:
    folder, log = tmp_path / "programs", tmp_path / "log"
    folder.mkdir()
    (folder / "part.nc").write_bytes(SQUARE)
    with opcua_sim("cnc", "--speed", "1000", "--dir", str(folder), "--log", str(log)) as sim:
        async with peer(sim, *MACHINES) as client:
            await client.client.load_data_type_definitions()
            await upload(client, "more.nc", SLOW)
            assert (folder / "more.nc").read_bytes() == SLOW
            assert await store(client, "run-1", "part.nc") == OK
            await client.until(STATE, "Ended")
    assert "\t4\tS8000 M3\n" in log.read_text()


def fault(sim: OpcuaSim, line: str) -> subprocess.CompletedProcess[str]:
    where = f"{sim.control[0]}:{sim.control[1]}"
    command = [sys.executable, "-m", "hil_sim.main", "fault", where, line]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_hil_sim_fault_says_what_the_machine_answers(mill: OpcuaSim) -> None:
    said = fault(mill, "override=50")
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    for line, why in (("fire", "no fault is called 'fire'"), ("door=ajar", "door=open or door=closed")):
        said = fault(mill, line)
        assert (said.returncode, said.stdout, said.stderr.count("\n")) == (2, "", 1)
        assert why in said.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "x"],
        ["--port", "70000"],
        ["--security", "tls"],
        ["--user", "edge"],
        ["--variant", "strange"],
        ["--speed", "0"],
        ["--port", "0", "--log", "/nonexistent/log"],
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "hil_sim.main", "cnc", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)


def test_a_port_in_use_is_one_line_and_exit_2(mill: OpcuaSim) -> None:
    port = mill.endpoint.rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "hil_sim.main", "cnc", "--port", port]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)
    assert result.returncode == 2
    assert result.stderr == f"hil-sim cnc: cannot listen on 127.0.0.1:{port}: Address already in use\n"


async def test_a_wipe_leaves_no_files_and_no_log(shop: Peer, mill: OpcuaSim) -> None:
    assert await store(shop, "run-1", "slow.nc") == OK
    mill.say("wipe")
    assert mill.carried_out() == []
    async with peer(mill, *MACHINES) as again:
        assert await job_states(again) == {}
        assert not await again.value(f"{CONTROL}/isa95:WorkMaster")
