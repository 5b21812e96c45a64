"""A controller with OPC 40502 (CNC systems) in the test's own process, whose server can be made to fail in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncua import Node, Server, ua

from drivers.opcua import JOBCONTROL
from drivers.opcua.profile import Plain
from edge.driver import Machine
from tests.helpers.opcua import PROFILES

CNC = "http://opcfoundation.org/UA/CNC"
MANUAL, AUTOMATIC = 0, 2
CHANNEL = "cnc:CncChannelList/*/"
STARTS = f"""[mapped]
program = "{CHANNEL}cnc:Program"
start = {{ node = "{CHANNEL}cnc:Start", value = true, reset = false }}
stop = {{ node = "{CHANNEL}cnc:Stop", value = true, reset = false }}
"""


@dataclass
class Controller:
    """It is in Automatic and its program stands. `refuses`: browse names of what may not be watched."""

    server: Server
    machine: Machine[Any, Any]
    nodes: dict[str, Node]
    above: dict[str, Node] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)

    async def say(self, name: str, value: Plain) -> None:
        await self.nodes[name].write_value(_variant(value))

    async def hide(self, name: str) -> None:
        """As if the server had not built it yet."""
        above = await self.nodes[name].get_parent()
        assert above is not None
        self.above[name] = above
        await above.delete_reference(self.nodes[name], ua.ObjectIds.HasComponent)

    async def build(self, name: str) -> None:
        """What was hidden."""
        await self.above.pop(name).add_reference(self.nodes[name], ua.ObjectIds.HasComponent)

    def cut(self) -> None:
        """Every connection, as when a switch loses its power."""
        for transport in self.server.iserver.asyncio_transports:
            transport.abort()

    async def end_events(self) -> None:
        """The subscriptions of events, by the server's own decision, which it tells (OPC 10000-4, 5.14.1)."""
        for subscription in list(self.server.iserver.subscription_service.subscriptions.values()):
            if subscription.monitored_item_srv._monitored_events:
                subscription.monitored_item_srv.delete_all_monitored_items()
                await subscription.enqueue_statuschange(ua.StatusCode(ua.StatusCodes.BadTimeout))
                subscription._keep_alive_count = subscription.data.RevisedMaxKeepAliveCount  # so that it is sent now


def _variant(value: Plain) -> ua.Variant:
    return ua.Variant(value, ua.VariantType.Int32) if type(value) is int else ua.Variant(value)


@asynccontextmanager
async def controller(folder: Path) -> AsyncIterator[Controller]:
    """A running one, with a profile in `folder` that starts it and shows the feedrate."""
    text = (PROFILES / "cnc-systems.toml").read_text().replace("[mapped]\n", STARTS)
    (folder / "ours.toml").write_text(f'{text}\n[values.feedrate]\nnode = "{CHANNEL}cnc:ActFeedrate"\n')
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(CNC)
    interface = await server.nodes.objects.add_object(index, "whatever")
    type_name = await interface.add_property(index, "CncTypeName", "CNC 1")
    channels = await interface.add_object(index, "CncChannelList")
    nodes = {"CncTypeName": type_name, "channels": channels, "channel": await channels.add_object(index, "Channel_1")}
    async with server:
        assert server.bserver is not None
        way = {"endpoint": f"opc.tcp://127.0.0.1:{server.bserver.port}/", "security": "None", "patience_s": 120.0}
        connection = JOBCONTROL.connection.model_validate(way)
        limits = JOBCONTROL.limits.model_validate({"checked_by": "controller"})
        machine: Machine[Any, Any] = Machine(
            "old-1", "opcua-jobcontrol", "ours", ("mill",), connection, limits, profiles_dir=folder
        )
        made = Controller(server, machine, nodes)
        numbers = {"ActProgramStatus": 0, "ActOperationMode": AUTOMATIC, "ActFeedrate": 1.0}
        for name, value in {**numbers, "Program": "", "Start": False, "Stop": False}.items():
            where = ua.NodeId(name, index), f"{index}:{name}"
            nodes[name] = await nodes["channel"].add_variable(*where, _variant(value))
        space = server.iserver.aspace
        add = space.add_datachange_callback

        def added(node: ua.NodeId, *which: Any) -> tuple[ua.StatusCode, int]:
            if node.Identifier in made.refuses:
                return ua.StatusCode(ua.StatusCodes.BadTooManyMonitoredItems), 0
            return add(node, *which)

        space.add_datachange_callback = added
        try:
            yield made
        finally:
            for session in list(server.iserver._external_sessions.values()):
                await session.close_session()  # of connections that were cut: the server keeps them
