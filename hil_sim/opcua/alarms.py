"""Events and alarms as clients see them: conditions that are raised, acknowledged and cleared (OPC 10000-9).

An event comes from the object where it belongs and, because that is where most clients subscribe, from the Server
object.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hil_sim.opcua.library import NodeId, RefusedError, events, ua
from hil_sim.opcua.space import BOOLEAN, BYTES, NODE, STRING, TEXT, TIME, UINT16, Argument, Space

ACKNOWLEDGE_METHOD = 9111
"""AcknowledgeableConditionType's Acknowledge, which clients may call instead of the instance's."""


async def emit(space: Space, event: Any, sources: Sequence[NodeId], text: str, severity: int) -> bytes:
    """Send an event from each of `sources` and from the Server object; its EventId."""
    now = datetime.now(UTC)
    event.EventId = uuid.uuid4().bytes
    event.Time = event.ReceiveTime = now
    event.LocalTime = ua.TimeZoneDataType()
    event.Message = ua.LocalizedText(text)
    event.Severity = severity
    event.SourceNode = sources[0]
    event.SourceName = str(sources[0].Identifier).rpartition("/")[2]
    service = space.server.iserver.subscription_service
    for source in (*sources, ua.NodeId(ua.ObjectIds.Server)):
        event.emitting_node = source
        await service.trigger_event(event)
    identifier: bytes = event.EventId
    return identifier


def plain_event(type_: NodeId, properties: Sequence[tuple[str, Any, Any]]) -> Any:
    """An event of `type_` with further properties: name, value, variant type."""
    event = events.BaseEvent()
    event.EventType = type_
    for name, value, kind in properties:
        event.add_property(name, value, kind)
    return event


@dataclass
class Alarm:
    """One condition."""

    name: str
    at: NodeId
    active: bool = False
    acknowledged: bool = True
    text: str = ""
    severity: int = 1
    clears_itself: bool = False
    """Its cause is over as soon as somebody has acknowledged it."""
    event_ids: list[bytes] = field(default_factory=list)


class Alarms:
    """The alarms that a machine can have, each a condition of its own."""

    def __init__(
        self, space: Space, parent: NodeId, type_: str, names: Sequence[str], sources: Sequence[NodeId]
    ) -> None:
        """`type_`: of the conditions. `sources`: where the events come from; the first is their source node."""
        self._space = space
        self._type = type_
        self._sources = sources
        self._alarms = {name: Alarm(name, self._build(parent, name)) for name in names}
        session = space.server.iserver.isession

        async def acknowledge(condition: NodeId, *variants: Any) -> Any:
            alarm = next((each for each in self._alarms.values() if each.at == condition), None)
            if alarm is None or len(variants) != 2:
                return ua.StatusCode(ua.StatusCodes.BadNodeIdInvalid)
            try:
                await self.acknowledge(alarm, variants[0].Value)
            except RefusedError as error:
                return ua.StatusCode(error.code)
            return []

        session.add_method_callback(ua.NodeId(ACKNOWLEDGE_METHOD), acknowledge)

    def active(self) -> list[Alarm]:
        """Those whose cause is still there."""
        return [each for each in self._alarms.values() if each.active]

    async def raise_(self, name: str, text: str, severity: int = 700, *, clears_itself: bool = False) -> None:
        """The cause is there."""
        alarm = self._alarms[name]
        alarm.active, alarm.acknowledged = True, False
        alarm.text, alarm.severity, alarm.clears_itself = text, severity, clears_itself
        await self._show(alarm)

    async def clear(self, name: str) -> None:
        """The cause is gone."""
        alarm = self._alarms[name]
        if alarm.active:
            alarm.active = False
            await self._show(alarm)

    async def forget(self) -> None:
        """As without power: nothing is active, and nothing is to be acknowledged."""
        for alarm in self._alarms.values():
            if alarm.active or not alarm.acknowledged:
                alarm.active, alarm.acknowledged = False, True
                await self._show(alarm)

    async def acknowledge(self, alarm: Alarm, event_id: bytes) -> None:
        """Raises `RefusedError` for an event of another alarm, or one that has been acknowledged."""
        if event_id not in alarm.event_ids:
            raise RefusedError(ua.StatusCodes.BadEventIdUnknown)
        if alarm.acknowledged:
            raise RefusedError(ua.StatusCodes.BadConditionBranchAlreadyAcked)
        alarm.acknowledged = True
        if alarm.clears_itself:
            alarm.active = False
        await self._show(alarm)

    def _build(self, parent: NodeId, name: str) -> NodeId:
        space = self._space
        at = space.object(parent, f"home:{name}", self._type, events=True)
        for variable, data_type, value in (
            ("EventId", BYTES, b""),
            ("EventType", NODE, space.node(self._type)),
            ("SourceNode", NODE, self._sources[0]),
            ("SourceName", STRING, str(self._sources[0].Identifier).rpartition("/")[2]),
            ("Time", TIME, datetime.now(UTC)),
            ("Message", TEXT, ua.LocalizedText("")),
            ("Severity", UINT16, 1),
            ("ConditionName", STRING, name),
            ("Retain", BOOLEAN, False),
        ):
            space.variable(at, variable, data_type, value)
        if self._type.startswith("mt:"):
            space.variable(at, "mt:ErrorCode", STRING, name)
        for variable, text, is_on in (
            ("EnabledState", "Enabled", True),
            ("ActiveState", "Inactive", False),
            ("AckedState", "Acknowledged", True),
        ):
            state = space.variable(at, variable, TEXT, ua.LocalizedText(text), "8995")
            space.variable(state, "Id", BOOLEAN, is_on)

        async def acknowledge(event_id: bytes, _comment: Any) -> tuple[Any, ...]:
            await self.acknowledge(self._alarms[name], event_id)
            return ()

        space.method(at, "Acknowledge", [Argument("EventId", BYTES), Argument("Comment", TEXT)], [], acknowledge)
        return at

    async def _show(self, alarm: Alarm) -> None:
        space, at = self._space, alarm.at
        retain = alarm.active or not alarm.acknowledged
        active = ua.LocalizedText("Active" if alarm.active else "Inactive")
        acked = ua.LocalizedText("Acknowledged" if alarm.acknowledged else "Unacknowledged")
        event = events.AlarmCondition()
        event.EventType = space.node(self._type)
        event.add_property("NodeId", at, ua.VariantType.NodeId)
        event.ConditionName = alarm.name
        event.Retain = retain
        event.EnabledState = ua.LocalizedText("Enabled")
        event.ActiveState, event.AckedState = active, acked
        for name, is_on in (
            ("EnabledState/Id", True),
            ("ActiveState/Id", alarm.active),
            ("AckedState/Id", alarm.acknowledged),
        ):
            event.add_property(name, is_on, ua.VariantType.Boolean)
        if self._type.startswith("mt:"):
            event.add_property("ErrorCode", alarm.name, ua.VariantType.String)
        event_id = await emit(space, event, (*self._sources, at), alarm.text, alarm.severity)
        alarm.event_ids = [*alarm.event_ids[-9:], event_id]
        for name, data_type, value in (
            ("EventId", BYTES, event_id),
            ("Time", TIME, event.Time),
            ("Message", TEXT, event.Message),
            ("Severity", UINT16, alarm.severity),
            ("Retain", BOOLEAN, retain),
            ("ActiveState", TEXT, active),
            ("ActiveState/Id", BOOLEAN, alarm.active),
            ("AckedState", TEXT, acked),
            ("AckedState/Id", BOOLEAN, alarm.acknowledged),
        ):
            node = at
            for part in name.split("/"):
                node = space.below(node, part)
            await space.write(node, data_type, value)
