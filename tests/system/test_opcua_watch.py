"""The shipped profiles that only watch, against servers that have the nodes which their sources name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from asyncua import Server, ua

from drivers.opcua import JOBCONTROL
from edge.driver import IdentityError, Machine, MachineState, Reading, StateSeen
from edge.testing import RecordingContext
from tests.helpers.opcua import until

WAIT_S = 30.0


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    async with server:
        assert server.bserver is not None
        yield f"opc.tcp://127.0.0.1:{server.bserver.port}/"


async def made(*namespaces: str) -> Server:
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    for uri in namespaces:
        await server.register_namespace(uri)
    return server


def machine(profile: str, endpoint: str) -> Machine[object, object]:
    way = JOBCONTROL.connection.model_validate({"endpoint": endpoint, "security": "None"})
    limits = JOBCONTROL.limits.model_validate({"checked_by": "controller"})
    return Machine("old-1", "opcua-jobcontrol", profile, ("mill",), way, limits)


def number(value: int) -> ua.Variant:
    return ua.Variant(value, ua.VariantType.Int32)


async def test_a_controller_with_the_companion_model_for_cnc_systems_is_watched(tmp_path: Path) -> None:
    server = await made("urn:test:other", "http://opcfoundation.org/UA/CNC")
    index = await server.get_namespace_index("http://opcfoundation.org/UA/CNC")
    interface = await server.nodes.objects.add_object(index, "whatever")
    await interface.add_property(index, "CncTypeName", "CNC 1")
    channels = await interface.add_object(index, "CncChannelList")
    channel = await channels.add_object(index, "Channel_1")
    status = await channel.add_variable(index, "ActProgramStatus", number(0))
    await channel.add_variable(index, "ActOperationMode", number(2))
    context = RecordingContext(tmp_path)
    async with serving(server) as endpoint, JOBCONTROL.open(machine("cnc-systems", endpoint), context) as driver:
        assert driver.identity.firmware == "CNC 1"
        await context.seen(StateSeen, lambda seen: "only watches" in seen.detail, WAIT_S)
        for value in (1, 2, 3):
            await status.write_value(number(value))
            await context.seen(StateSeen, lambda seen: seen.state is MachineState.EXECUTE, WAIT_S)
        await status.write_value(number(4))
        await until(lambda: context.of_kind(StateSeen)[-1].state is MachineState.STOPPED, WAIT_S)


async def test_what_a_profile_names_and_the_server_has_not_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = await made("http://opcfoundation.org/UA/CNC")
    index = await server.get_namespace_index("http://opcfoundation.org/UA/CNC")
    interface = await server.nodes.objects.add_object(index, "whatever")
    await interface.add_property(index, "CncTypeName", "CNC 1")
    channels = await interface.add_object(index, "CncChannelList")
    channel = await channels.add_object(index, "Channel_1")
    await channel.add_variable(index, "ActProgramStatus", number(0))
    context = RecordingContext(tmp_path)
    async with serving(server) as endpoint, JOBCONTROL.open(machine("cnc-systems", endpoint), context):
        (said,) = [r.getMessage() for r in caplog.records if "it is left out: " in r.getMessage()]
        assert "ActOperationMode" in said
        assert "ActProgramStatus" not in said


async def test_a_sinumerik_is_watched_by_the_identifiers_of_its_variables(tmp_path: Path) -> None:
    server = await made("urn:test:other", "SinumerikVarProvider")
    index = await server.get_namespace_index("SinumerikVarProvider")
    nodes = {}
    for path in ("/Channel/State/progStatus", "/Bag/State/opMode", "/Channel/State/actParts"):
        name = ua.NodeId(path, index)
        nodes[path] = await server.nodes.objects.add_variable(name, path.rpartition("/")[2], number(2))
    context = RecordingContext(tmp_path)
    async with serving(server) as endpoint, JOBCONTROL.open(machine("sinumerik-watch", endpoint), context):
        await context.seen(StateSeen, lambda seen: "only watches" in seen.detail, WAIT_S)
        await nodes["/Channel/State/progStatus"].write_value(number(3))
        await context.seen(StateSeen, lambda seen: seen.state is MachineState.EXECUTE, WAIT_S)
        await nodes["/Channel/State/actParts"].write_value(number(7))
        await context.seen(Reading, lambda seen: (seen.name, seen.value) == ("parts", 7.0), WAIT_S)


async def test_a_server_without_these_variables_is_refused_in_words(tmp_path: Path) -> None:
    server = await made("SinumerikVarProvider")
    async with serving(server) as endpoint:
        with pytest.raises(IdentityError, match="cannot be read: BadNodeIdUnknown"):
            async with (
                asyncio.timeout(WAIT_S),
                JOBCONTROL.open(machine("sinumerik-watch", endpoint), RecordingContext(tmp_path)),
            ):
                pass
