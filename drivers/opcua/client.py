"""One live connection to an OPC UA server, in the words of this family: it is used until it breaks, then thrown away.

asyncua's own reconnecting is not used: on a session that it has revived after the server was frozen, no notification
ever comes again. Its supervisor tasks are not started either; `drivers.opcua.session` watches the server's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from asyncua.client.ua_client import UaClientState
from asyncua.ua import ua_binary

from drivers.opcua.library import Client, DataValue, NodeId, StructureDefinition, UaError, Variant, VariantType, ua
from drivers.opcua.nodemap import BASE_URI, Name, Place, indices
from drivers.opcua.structures import StructureError, Types
from drivers.opcua.words import RefusedError, on_asking

REQUEST_S = 10.0
"""How long one answer may take. A frozen server is noticed earlier, by its clock."""

SESSION_S = 30.0
"""A session that was lost is given up by the server after so long: controllers allow few."""

KEEPALIVES = 10
"""Publishing intervals without news after which the server says that it is alive."""

FAILURES = (UaError, OSError, asyncio.TimeoutError, AssertionError, ValueError, TypeError)
"""What asyncua 2.1 lets out of a request: its own errors, the socket's, and those of values that it cannot read."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Method:
    """A method of an object on this server, and the (data type, is an array) that it wants for each argument."""

    object: NodeId
    node: NodeId
    inputs: tuple[tuple[NodeId, bool], ...]
    name: str


@dataclass(frozen=True, slots=True)
class Child:
    """What browsing shows of a node below another."""

    node: NodeId
    uri: str
    name: str
    is_object: bool


class Link:
    """A session on a server. Made by `connected`, on a running event loop."""

    def __init__(self, client: Client, namespaces: list[str], opened_s: float) -> None:
        """`opened_s`: when the secure channel was opened, by the event loop's clock."""
        self._client = client
        self._opened_s = opened_s
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.namespaces = namespaces
        self._index = indices(namespaces)
        self.types = Types()

    # Places

    def node_of(self, place: Place) -> NodeId | None:
        """The node that `place` names by its identifier; None if the server has not its namespace."""
        index = 0 if place.uri == BASE_URI else self._index.get(place.uri)
        if index is None:
            return None
        node: NodeId = ua.NodeId.from_string(f"ns={index};{place.kind}={place.identifier}")
        return node

    async def find(self, start: NodeId, place: Place) -> list[NodeId]:
        """Every node that `place` names, seen from `start`; there can be several only behind a star."""
        if place.kind:
            node = self.node_of(place)
            return [node] if node is not None else []
        return [way[-1] for way in await self.ways(start, place.names)]

    async def ways(self, start: NodeId, names: tuple[Name, ...]) -> list[tuple[NodeId, ...]]:
        """Every way down from `start`: what stands at each star, and last the node that is reached."""
        star = next((index for index, name in enumerate(names) if name.any), len(names))
        reached = await self._down([(start, names[:star])]) if star else [start]
        if star == len(names) or reached[0] is None:
            return [(node,) for node in reached if node is not None]
        found: list[tuple[NodeId, ...]] = []
        # A child is listed by each reference to it.
        for child in dict.fromkeys(child.node for child in await self.children(reached[0]) if child.is_object):
            found += [(child, *way) for way in await self.ways(child, names[star + 1 :])]
        return found

    async def find_each(self, places: Mapping[str, tuple[NodeId, Place]]) -> dict[str, list[NodeId]]:
        """By name, every node that each place names, seen from a start of its own. Few requests for many."""
        plain = [name for name, (_, place) in places.items() if not place.kind and not any(n.any for n in place.names)]
        reached = await self._down([(places[name][0], places[name][1].names) for name in plain])
        found = {name: [node] for name, node in zip(plain, reached, strict=True) if node is not None}
        for name, (start, place) in places.items():
            if name not in plain and (nodes := await self.find(start, place)):
                found[name] = nodes
        return found

    async def find_all(self, start: NodeId, places: Mapping[str, Place]) -> dict[str, NodeId]:
        """By name, the first node that each place names; those without one are left out."""
        found = await self.find_each({name: (start, place) for name, place in places.items()})
        return {name: nodes[0] for name, nodes in found.items()}

    async def _down(self, paths: Sequence[tuple[NodeId, tuple[Name, ...]]]) -> list[NodeId | None]:
        asked: list[ua.BrowsePath] = []
        where: list[int] = []
        found: list[NodeId | None] = [None] * len(paths)
        for position, (start, names) in enumerate(paths):
            elements = [self._element(name) for name in names]
            if all(element is not None for element in elements):
                asked.append(ua.BrowsePath(start, ua.RelativePath([item for item in elements if item is not None])))
                where.append(position)
        if not asked:
            return found
        for position, result in zip(where, await self._translated(asked), strict=True):
            if result.StatusCode.is_good() and result.Targets:
                found[position] = _node_id(result.Targets[0].TargetId)
        return found

    async def _translated(self, paths: list[Any]) -> Any:
        session = self._client.uaclient.session
        return await self._ask("looking up nodes", session.translate_browsepaths_to_nodeids(paths))

    def _element(self, name: Name) -> ua.RelativePathElement | None:
        index = 0 if name.uri == BASE_URI else self._index.get(name.uri)
        if index is None:
            return None
        element = ua.RelativePathElement()
        element.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
        element.IsInverse = False
        element.IncludeSubtypes = True
        element.TargetName = ua.QualifiedName(name.text, index)
        return element

    async def children(self, node: NodeId) -> list[Child]:
        """What is directly below a node."""
        found = await self._browse(node, ua.ObjectIds.HierarchicalReferences, ua.BrowseDirection.Forward)
        return [
            Child(_node_id(item.NodeId), self._uri(item.BrowseName), item.BrowseName.Name, item.NodeClass == OBJECT)
            for item in found
        ]

    async def parents(self, node: NodeId) -> list[NodeId]:
        """What a node is directly below, or a source of events of. Raises `RefusedError` or `LinkError`."""
        way = ua.BrowseDirection.Inverse
        found = await self._browse(node, ua.ObjectIds.HierarchicalReferences, way, surely=True)
        return [_node_id(item.NodeId) for item in found]

    def _uri(self, name: ua.QualifiedName) -> str:
        index = name.NamespaceIndex
        return self.namespaces[index] if index < len(self.namespaces) else ""

    async def _browse(
        self, node: NodeId, reference: int, way: ua.BrowseDirection, *, surely: bool = False
    ) -> list[Any]:
        """`surely`: a bad status is a `RefusedError`, and otherwise as if nothing was there."""
        wanted = ua.BrowseDescription()
        wanted.NodeId = node
        wanted.BrowseDirection = way
        wanted.ReferenceTypeId = ua.NodeId(reference)
        wanted.IncludeSubtypes = True
        wanted.NodeClassMask = ua.NodeClass.Unspecified
        wanted.ResultMask = ua.BrowseResultMask.All
        parameters = ua.BrowseParameters()
        parameters.View = ua.ViewDescription()
        parameters.RequestedMaxReferencesPerNode = 0
        parameters.NodesToBrowse = [wanted]
        session = self._client.uaclient.session
        result = (await self._ask("browsing", session.browse(parameters)))[0]
        found = list(result.References or ())
        while result.ContinuationPoint:
            following = ua.BrowseNextParameters(False, [result.ContinuationPoint])
            result = (await self._ask("browsing", session.browse_next(following)))[0]
            found += result.References or ()
        if surely and not result.StatusCode.is_good():
            name = result.StatusCode.name
            raise RefusedError(f"browsing {node.to_string()}: the server says {name}", name)
        return found

    # Values

    async def read(
        self, nodes: Sequence[NodeId], attribute: ua.AttributeIds = ua.AttributeIds.Value
    ) -> list[DataValue]:
        """One value for each node, good or bad. Raises `LinkError`."""
        if not nodes:
            return []
        session = self._client.uaclient.session
        found: list[DataValue] = await self._ask("reading", session.read_attributes(list(nodes), attribute))
        return found

    async def value(self, node: NodeId, what: str) -> Any:
        """One good value. Raises `RefusedError` for a bad one, and `LinkError`."""
        found = (await self.read([node]))[0]
        if found.StatusCode is not None and found.StatusCode.is_bad():
            raise RefusedError(f"{what} cannot be read: {found.StatusCode.name}", found.StatusCode.name)
        return found.Value.Value if found.Value is not None else None

    async def kind(self, node: NodeId, what: str) -> VariantType | None:
        """The built-in type that a variable has on the wire; None for a structure. `RefusedError` or `LinkError`."""
        return self.types.built_in(await self._data_type(node, what))

    async def write(self, node: NodeId, value: Any, what: str) -> None:
        """Write a value as the type that the variable has. Raises `RefusedError` or `LinkError`."""
        data_type = await self._data_type(node, what)
        try:
            variant = self.types.variant(data_type, isinstance(value, list), value)
            data = ua.DataValue(variant)
            session = self._client.uaclient.session
            results = await self._ask(f"writing {what}", session.write_attributes([node], [data]))
        except _Unpackable as error:
            raise RefusedError(f"{what} does not take {value!r}: {error}", "BadTypeMismatch") from error
        if not results[0].is_good():
            raise RefusedError(f"{what} does not take {value!r}: {results[0].name}", results[0].name)

    async def _data_type(self, node: NodeId, what: str) -> NodeId:
        found = (await self.read([node], ua.AttributeIds.DataType))[0]
        if found.Value is None or not isinstance(found.Value.Value, NodeId):
            raise RefusedError(f"{what} has no data type", "BadTypeMismatch")
        await self.learn([found.Value.Value])
        return found.Value.Value

    # Methods

    async def method(self, owner: NodeId, node: NodeId, name: str) -> Method:
        """What a method wants. Raises `RefusedError` if the server does not say, or `LinkError`."""
        names = ("InputArguments", "OutputArguments")
        arguments, results = await self._down([(node, (Name(BASE_URI, each),)) for each in names])
        inputs: tuple[tuple[NodeId, bool], ...] = ()
        if arguments is not None:
            said = await self.value(arguments, f"the arguments of {name}")
            inputs = tuple((item.DataType, item.ValueRank >= 1) for item in said or ())
        returned = await self.value(results, f"the results of {name}") if results is not None else ()
        await self.learn([*(data_type for data_type, _ in inputs), *(item.DataType for item in returned or ())])
        return Method(owner, node, inputs, name)

    async def call(self, method: Method, *values: Any) -> list[Any]:
        """Call it once; what it returns. Raises `RefusedError` if it has not been done, and `LinkError` in doubt."""
        if len(values) != len(method.inputs):
            reason = f"{method.name} of this server wants {len(method.inputs)} arguments, not {len(values)}"
            raise RefusedError(reason, "BadArgumentsMissing")
        try:
            arguments = [
                self.types.variant(data_type, array, value)
                for (data_type, array), value in zip(method.inputs, values, strict=True)
            ]
            _probe(arguments)
        except _Unpackable as error:
            raise RefusedError(f"{method.name} of this server does not take it: {error}", "BadTypeMismatch") from error
        request = ua.CallMethodRequest()
        request.ObjectId, request.MethodId, request.InputArguments = method.object, method.node, arguments
        result = (await self._ask(method.name, self._client.uaclient.session.call([request])))[0]
        if not result.StatusCode.is_good():
            name = result.StatusCode.name
            raise RefusedError(f"{method.name}: the server says {name}", name)
        return [variant.Value for variant in result.OutputArguments or ()]

    # Types

    async def learn(self, data_types: Iterable[NodeId]) -> None:
        """Read what the server says of these data types and of all that they consist of."""
        wanted = {data_type for data_type in data_types if not self.types.known(data_type)}
        while wanted:
            nodes = sorted(wanted, key=str)
            definitions = await self.read(nodes, ua.AttributeIds.DataTypeDefinition)
            names = await self.read(nodes, ua.AttributeIds.BrowseName)
            for node, definition, name in zip(nodes, definitions, names, strict=True):
                said = definition.Value.Value if definition.Value is not None else None
                if isinstance(said, StructureDefinition):
                    self.types.add(node, name.Value.Value.Name if name.Value else node.to_string(), said)
                elif isinstance(said, ua.EnumDefinition):
                    self.types.plain[node] = VariantType.Int32
                else:
                    self.types.plain[node] = await self._built_in_above(node)
            wanted = self.types.missing()

    async def _built_in_above(self, node: NodeId) -> VariantType:
        """A subtype of a built-in type is that type on the wire."""
        above = node
        for _ in range(16):
            found = await self._browse(above, ua.ObjectIds.HasSubtype, ua.BrowseDirection.Inverse)
            if not found:
                break
            above = _node_id(found[0].NodeId)
            if above == ua.NodeId(ua.ObjectIds.Structure):
                break
            if (kind := self.types.built_in(above)) is not None:
                return kind
        raise RefusedError(f"the server does not describe its data type {node.to_string()}", "BadTypeDefinitionInvalid")

    # Being told

    async def subscribe(
        self, watched: Mapping[NodeId, float], tell: Callable[[NodeId, DataValue], None], every_s: float
    ) -> dict[NodeId, str]:
        """Hear of every change of these nodes, each sampled every so many seconds.

        Those that the server does not let be watched, with the name of the status: of them nothing is ever told.
        """
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = every_s * 1000
        parameters.RequestedMaxKeepAliveCount = KEEPALIVES
        parameters.RequestedLifetimeCount = max(3 * KEEPALIVES, int(SESSION_S / every_s))
        parameters.PublishingEnabled = True
        handles = dict(enumerate(watched, 1))
        session = self._client.uaclient.session

        def published(result: ua.PublishResult) -> None:
            for notification in result.NotificationMessage.NotificationData or ():
                self._look_whether_it_ends("values", notification)
                for item in getattr(notification, "MonitoredItems", None) or ():
                    if item.ClientHandle in handles:
                        tell(handles[item.ClientHandle], item.Value)

        made = await self._ask("subscribing", session.create_subscription(parameters, published))
        items = [_monitored(number, node, watched[node]) for number, node in handles.items()]
        wanted = ua.CreateMonitoredItemsParameters()
        wanted.SubscriptionId = made.SubscriptionId
        wanted.ItemsToCreate = items
        wanted.TimestampsToReturn = ua.TimestampsToReturn.Both
        results = await self._ask("subscribing", session.create_monitored_items(wanted))
        pairs = zip(handles.values(), results, strict=True)
        return {node: result.StatusCode.name for node, result in pairs if not result.StatusCode.is_good()}

    async def subscribe_events(self, source: NodeId, tell: Callable[[Mapping[str, Any]], None]) -> int:
        """Hear of every event of `source` (an object, or the server): its standard fields, as far as it has them.

        What names the subscription to the server. Raises `RefusedError` or `LinkError`.
        """
        parameters = ua.CreateSubscriptionParameters()
        parameters.RequestedPublishingInterval = EVENTS_S * 1000
        parameters.RequestedMaxKeepAliveCount = int(5 / EVENTS_S)
        parameters.RequestedLifetimeCount = int(SESSION_S / EVENTS_S)
        parameters.PublishingEnabled = True
        session = self._client.uaclient.session

        def published(result: ua.PublishResult) -> None:
            for notification in result.NotificationMessage.NotificationData or ():
                self._look_whether_it_ends("events", notification)
                for item in getattr(notification, "Events", None) or ():
                    values = [variant.Value for variant in item.EventFields or ()]
                    tell(dict(zip(EVENT_FIELDS, values, strict=False)))

        made = await self._ask("subscribing", session.create_subscription(parameters, published))
        wanted = ua.CreateMonitoredItemsParameters()
        wanted.SubscriptionId = made.SubscriptionId
        item = _monitored(1, source, 0)
        item.ItemToMonitor.AttributeId = ua.AttributeIds.EventNotifier
        item.RequestedParameters.Filter = _event_filter()
        item.RequestedParameters.QueueSize = EVENTS_KEPT
        wanted.ItemsToCreate = [item]
        wanted.TimestampsToReturn = ua.TimestampsToReturn.Both
        subscription: int = made.SubscriptionId
        try:
            (result,) = await self._ask("subscribing", session.create_monitored_items(wanted))
            if not result.StatusCode.is_good():
                raise RefusedError(f"events cannot be watched: {result.StatusCode.name}", result.StatusCode.name)
        except RefusedError:
            with contextlib.suppress(RefusedError):  # what counts is why it is of no use
                await self._ask("unsubscribing", session.delete_subscriptions([subscription]))
            raise
        return subscription

    async def refresh(self, subscription: int) -> None:
        """Have every condition told to a subscription of events, the last one followed by a RefreshEndEvent.

        OPC 10000-9, 5.5.7. Raises `RefusedError`, as a server without conditions does, or `LinkError`.
        """
        owner, node = ua.NodeId(ua.ObjectIds.ConditionType), ua.NodeId(ua.ObjectIds.ConditionType_ConditionRefresh)
        await self.call(Method(owner, node, ((UINT32, False),), "ConditionRefresh"), subscription)

    def _look_whether_it_ends(self, what: str, notification: object) -> None:
        """A status change of a subscription is the last that it tells: OPC 10000-4, 7.25.4."""
        if isinstance(notification, ua.StatusChangeNotification) and not self._ended.done():
            self._ended.set_result(f"the server has ended its subscription of {what}: {notification.Status.name}")

    async def deaf(self) -> str:
        """Wait until the server has ended a subscription, on a connection that goes on; why."""
        return await asyncio.shield(self._ended)

    async def broken(self) -> str:
        """Wait until the transport is gone; why."""
        async with self._client.uaclient.subscribe_state() as states:
            await states.wait_for_state(UaClientState.DISCONNECTED)
        return "the connection was cut"

    async def renew(self) -> None:
        """Renew the secure channel again and again, before the server lets it expire."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._opened_s + self._client.secure_channel_timeout / 1000 * 0.75 - loop.time())
            self._opened_s = loop.time()
            await self._ask("renewing the secure channel", self._client.open_secure_channel(renew=True))
            self._client.uaclient.revolve_security_token()

    async def _ask(self, what: str, work: Any) -> Any:
        try:
            return await plainly(work)
        except FAILURES as error:
            raise on_asking(error, what) from error


EVENTS_S = 0.1
"""How often events are sent: an alarm decides like a state."""

EVENTS_KEPT = 1000
"""By the server for us: all conditions of a machine are told at once."""

UINT32 = ua.NodeId(ua.ObjectIds.UInt32)
EVENT_FIELDS = (
    "EventId",
    "EventType",
    "SourceNode",
    "SourceName",
    "Message",
    "Severity",
    "ActiveState",
    "AckedState",
    "ConditionId",
)
OBJECT = ua.NodeClass.Object
_Unpackable = (StructureError, UaError, ValueError, TypeError, AttributeError, OverflowError, KeyError)


def _probe(arguments: list[Variant]) -> None:
    """Encode them once: what does not fit is our refusal, and not a broken link."""
    for argument in arguments:
        try:
            ua_binary.variant_to_binary(argument)
        except Exception as error:  # the library's encoder lets out whatever its struct and attribute look-ups raise
            raise StructureError(f"{argument.Value!r} is no {argument.VariantType.name}") from error


def _monitored(handle: int, node: NodeId, every_s: float) -> ua.MonitoredItemCreateRequest:
    item = ua.MonitoredItemCreateRequest()
    item.ItemToMonitor.NodeId = node
    item.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    item.MonitoringMode = ua.MonitoringMode.Reporting
    item.RequestedParameters.ClientHandle = handle
    item.RequestedParameters.SamplingInterval = every_s * 1000
    item.RequestedParameters.QueueSize = 1
    item.RequestedParameters.DiscardOldest = True
    return item


def _event_filter() -> ua.EventFilter:
    found = ua.EventFilter()
    for name in EVENT_FIELDS:
        operand = ua.SimpleAttributeOperand()
        operand.TypeDefinitionId = ua.NodeId(ua.ObjectIds.BaseEventType)
        operand.AttributeId = ua.AttributeIds.Value
        path = [name]
        if name in ("ActiveState", "AckedState"):
            operand.TypeDefinitionId = ua.NodeId(ua.ObjectIds.AlarmConditionType)
            path = [name, "Id"]
        elif name == "ConditionId":
            operand.TypeDefinitionId = ua.NodeId(ua.ObjectIds.ConditionType)
            operand.AttributeId = ua.AttributeIds.NodeId
            path = []
        operand.BrowsePath = [ua.QualifiedName(part, 0) for part in path]
        found.SelectClauses.append(operand)
    return found


def _node_id(found: Any) -> NodeId:
    """A NodeId of this server, whatever kind of id it was sent as."""
    node: NodeId = ua.NodeId(found.Identifier, found.NamespaceIndex)
    return node


async def plainly(work: Awaitable[T]) -> T:
    """A cancellation that is one: before Python 3.12 asyncua raises a subclass, which `asyncio.timeout` lets pass."""
    try:
        return await work
    except asyncio.CancelledError:
        raise asyncio.CancelledError from None
