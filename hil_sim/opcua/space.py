"""Builds an address space by name: nodes of companion specifications, with the server's own node ids.

A name is `mt:Monitoring` (namespace and browse name) or `FileSystem` (the base namespace); a type is `mt:14` or `61`
(namespace and number). Instances have string node ids made of their path, in a namespace of the server's own, so a
client that relies on their numbers notices.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from asyncua.common.structures104 import load_custom_struct, new_enum_field, new_struct_field
from asyncua.server.server import Server

from hil_sim.opcua.library import NodeId, RefusedError, Variant, ua
from hil_sim.opcua.names import ENUMERATIONS, URIS, ObjectType, Structure

PROPERTY, COMPONENT, ORGANIZES, ADD_IN = "46", "47", "35", "17604"
PROPERTY_TYPE, DATA_VARIABLE_TYPE, ANALOG_UNIT_RANGE_TYPE, ANALOG_UNIT_TYPE = "68", "63", "17570", "17497"
BOOLEAN, INT16, UINT16, INT32, UINT32, INT64, UINT64 = "1", "4", "5", "6", "7", "8", "9"
DOUBLE, STRING, BYTES, NODE, EXPANDED_NODE, TEXT = "11", "12", "15", "17", "18", "21"
TIME, DURATION, NUMBER = "294", "290", "26"
RANGE, UNITS = "884", "887"

_BUILT_IN = {TIME: ua.VariantType.DateTime, DURATION: ua.VariantType.Double, NUMBER: ua.VariantType.Double}

Handler = Callable[..., Awaitable[tuple[Any, ...]]]
"""A method's work: input values in, output values out. It may raise `RefusedError`."""


class Argument(NamedTuple):
    """One argument of a method."""

    name: str
    type: str
    array: bool = False


def units(code: str, name: str) -> Any:
    """UN/CEFACT `code` as OPC UA numbers it (Part 8, 5.6.3.3: the code's bytes as a number)."""
    return ua.EUInformation(
        NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact",
        UnitId=int.from_bytes(code.encode(), "big"),
        DisplayName=ua.LocalizedText(name),
        Description=ua.LocalizedText(name),
    )


def _variant_type(data_type: str) -> Any:
    """How a value of this data type travels."""
    if ":" in data_type:
        return ua.VariantType.Int32 if data_type in ENUMERATIONS else ua.VariantType.ExtensionObject
    if data_type in _BUILT_IN:
        return _BUILT_IN[data_type]
    number = int(data_type)
    return ua.VariantType(number) if number < 22 else ua.VariantType.ExtensionObject


class Space:
    """The address space of one server while it is built, and the values of its variables afterwards."""

    def __init__(self, server: Server, home: str, order: Sequence[str]) -> None:
        """`home`: URI of the instances' namespace. `order`: short names of the namespaces, as they are registered."""
        self.server = server
        self._home_uri = home
        self._order = order
        self.index: dict[str, int] = {}
        self._last: dict[NodeId, Any] = {}
        self._odd: set[NodeId] = set()
        self.left_out: frozenset[str] = frozenset()
        """Browse names of methods that this machine does not have."""

    async def open(self) -> None:
        """Register the namespaces."""
        for short in self._order:
            uri = self._home_uri if short == "home" else URIS[short]
            self.index[short] = await self.server.register_namespace(uri)

    def name(self, text: str) -> Any:
        """`mt:Monitoring` as a browse name."""
        short, _, bare = text.rpartition(":")
        return ua.QualifiedName(bare, self.index[short] if short else 0)

    def node(self, text: str) -> NodeId:
        """`mt:14` as a node id."""
        short, _, number = text.rpartition(":")
        found: NodeId = ua.NodeId(int(number), self.index[short] if short else 0)
        return found

    def below(self, parent: NodeId, name: str) -> NodeId:
        """Where an instance goes."""
        bare = name.rpartition(":")[2]
        path = f"{parent.Identifier!s}/{bare}" if parent.NamespaceIndex == self.index["home"] else bare
        found: NodeId = ua.NodeId(path, self.index["home"])
        return found

    # -- types

    def add_types(self, types: Sequence[ObjectType]) -> None:
        """Object types, supertypes first."""
        for each in types:
            short = each.node.partition(":")[0]
            self._add(
                ua.NodeClass.ObjectType,
                self.node(each.node),
                self.node(each.supertype),
                self.name(f"{short}:{each.name}"),
                "45",
                ua.ObjectTypeAttributes(IsAbstract=False),
            )
            for number, state, state_number in each.states:
                at = self.node(f"{short}:{number}")
                self.object(self.node(each.node), f"{short}:{state}", type_="2307", at=at)
                value = ua.Variant(state_number, ua.VariantType.UInt32)
                self.variable(at, "StateNumber", UINT32, value, at=ua.NodeId(f"{at.to_string()}/StateNumber", 1))

    def add_variable_type(self, node: str, name: str, supertype: str) -> None:
        """One variable type."""
        attributes = ua.VariableTypeAttributes(
            IsAbstract=False, DataType=ua.NodeId(24), ValueRank=ua.ValueRank.Any, ArrayDimensions=[]
        )
        attributes.Value = ua.Variant()
        at = self.node(node)
        self._add(ua.NodeClass.VariableType, at, self.node(supertype), self.name(name), "45", attributes)

    async def add_enumerations(self, prefixes: Sequence[str]) -> None:
        """Those of the namespaces with these short names."""
        for node, (name, values) in ENUMERATIONS.items():
            short = node.partition(":")[0]
            if short not in prefixes:
                continue
            at = self._data_type(node, f"{short}:{name}", "29")
            definition = ua.EnumDefinition()
            for number, text in enumerate(values):
                field = new_enum_field(text)
                field.Value = number
                definition.Fields.append(field)
            await self.server.get_node(at).write_data_type_definition(definition)
            texts = [ua.LocalizedText(text) for text in values]
            variant = ua.Variant(texts, ua.VariantType.LocalizedText)
            strings = ua.NodeId(f"{at.to_string()}/EnumStrings", 1)
            self.variable(at, "EnumStrings", TEXT, variant, at=strings, array=True)

    async def add_structures(self, structures: Sequence[Structure]) -> dict[str, Any]:
        """Structures with a binary encoding; the Python class of each, by name."""
        classes: dict[str, Any] = {}
        for each in structures:
            short = each.node.partition(":")[0]
            at = self._data_type(each.node, f"{short}:{each.name}", "22")
            encoding = self.node(each.encoding)
            attributes = ua.ObjectAttributes(EventNotifier=0)
            self._add(ua.NodeClass.Object, encoding, at, self.name("Default Binary"), "38", attributes, "76")
            optional = any(field.optional for field in each.fields)
            kind = ua.StructureType.StructureWithOptionalFields if optional else ua.StructureType.Structure
            definition = ua.StructureDefinition(
                DefaultEncodingId=encoding, BaseDataType=ua.NodeId(22), StructureType=kind
            )
            definition.Fields = [
                new_struct_field(field.name, self.node(field.type), array=field.array, optional=field.optional)
                for field in each.fields
            ]
            node = self.server.get_node(at)
            await node.write_data_type_definition(definition)
            classes[each.name] = await load_custom_struct(node)
        return classes

    def _data_type(self, node: str, name: str, supertype: str) -> NodeId:
        attributes = ua.DataTypeAttributes(IsAbstract=False)
        return self._add(
            ua.NodeClass.DataType, self.node(node), self.node(supertype), self.name(name), "45", attributes
        )

    # -- instances

    def object(
        self,
        parent: NodeId,
        name: str,
        type_: str = "58",
        reference: str = COMPONENT,
        at: NodeId | None = None,
        *,
        events: bool = False,
    ) -> NodeId:
        """An object; `events`: clients may subscribe to its events."""
        attributes = ua.ObjectAttributes(EventNotifier=1 if events else 0)
        where = at or self.below(parent, name)
        return self._add(ua.NodeClass.Object, where, parent, self.name(name), reference, attributes, type_)

    def variable(
        self,
        parent: NodeId,
        name: str,
        data_type: str,
        value: Any,
        kind: str = PROPERTY_TYPE,
        at: NodeId | None = None,
        *,
        array: bool = False,
    ) -> NodeId:
        """A variable that clients may read. A property unless `kind` says otherwise."""
        where = at or self.below(parent, name)
        variant = self._variant(value, data_type, array=array)
        attributes = ua.VariableAttributes(
            DataType=self.node(data_type),
            ValueRank=ua.ValueRank.OneDimension if array else ua.ValueRank.Scalar,
            ArrayDimensions=[0] if array else None,
            AccessLevel=ua.AccessLevel.CurrentRead.mask,
            UserAccessLevel=ua.AccessLevel.CurrentRead.mask,
            MinimumSamplingInterval=0.0,
            Historizing=False,
        )
        attributes.Value = variant
        reference = PROPERTY if kind == PROPERTY_TYPE else COMPONENT
        self._add(ua.NodeClass.Variable, where, parent, self.name(name), reference, attributes, kind)
        self._last[where] = value
        return where

    def analog(self, parent: NodeId, name: str, value: float, span: tuple[float, float] | None, unit: Any) -> NodeId:
        """A Double with its units, and its range if `span` is given."""
        kind = ANALOG_UNIT_RANGE_TYPE if span else ANALOG_UNIT_TYPE
        at = self.variable(parent, name, DOUBLE, value, kind)
        if span:
            self.variable(at, "EURange", RANGE, ua.Range(Low=span[0], High=span[1]))
        self.variable(at, "EngineeringUnits", UNITS, unit)
        return at

    def method(
        self,
        parent: NodeId,
        name: str,
        inputs: Sequence[Argument],
        outputs: Sequence[Argument],
        handler: Handler,
        classes: dict[str, Any] | None = None,
    ) -> None:
        """A method whose arguments are checked before `handler` is called. `classes`: of structures, by type."""
        if name.rpartition(":")[2] in self.left_out:
            return
        at = self.below(parent, name)
        attributes = ua.MethodAttributes(Executable=True, UserExecutable=True)
        self._add(ua.NodeClass.Method, at, parent, self.name(name), COMPONENT, attributes)
        for label, arguments in (("InputArguments", inputs), ("OutputArguments", outputs)):
            if arguments:
                self.variable(at, label, "296", [self._argument(each) for each in arguments], array=True)

        async def call(_parent: NodeId, *variants: Variant) -> Any:
            refusal = self._refusal(variants, inputs, classes or {})
            if refusal is not None:
                return refusal
            try:
                values = await handler(*(variant.Value for variant in variants))
            except RefusedError as error:
                return ua.StatusCode(error.code)
            return [
                value if isinstance(value, Variant) else self._variant(value, each.type, array=each.array)
                for value, each in zip(values, outputs, strict=True)
            ]

        self.server.iserver.isession.add_method_callback(at, call)

    def remove(self, at: NodeId) -> None:
        """Take a node away, with everything below it."""
        service = self.server.iserver.node_mgt_service
        for each in [node for node in self._last if str(node.Identifier).startswith(f"{at.Identifier!s}/")]:
            self._last.pop(each)
        nodes = [
            node
            for node in self.server.iserver.aspace._nodes
            if node.NamespaceIndex == at.NamespaceIndex and str(node.Identifier).startswith(f"{at.Identifier!s}/")
        ]
        items = [ua.DeleteNodesItem(NodeId=node, DeleteTargetReferences=True) for node in (*nodes, at)]
        service.delete_nodes(ua.DeleteNodesParameters(NodesToDelete=items))

    # -- values

    async def write(self, at: NodeId, data_type: str, value: Any, *, array: bool = False) -> None:
        """Give a variable a value, if it has another one."""
        if self._last.get(at) == value:
            return
        self._last[at] = value
        variant = self._variant(value, data_type, array=array)
        now = datetime.now(UTC)
        space = self.server.iserver.aspace
        if isinstance(value, Variant) or at in self._odd:
            # A type of the caller's own, which may not be the variable's: the library would not take it as a change.
            self._odd.add(at)
            space[at].attributes[ua.AttributeIds.Value].value = None
        shown = ua.DataValue(variant, SourceTimestamp=now, ServerTimestamp=now)
        status = await space.write_attribute_value(at, ua.AttributeIds.Value, shown)
        status.check()

    def _variant(self, value: Any, data_type: str, *, array: bool = False) -> Variant:
        if isinstance(value, Variant):
            return value
        made: Variant = ua.Variant(value, _variant_type(data_type), is_array=array)
        return made

    def _argument(self, each: Argument) -> Any:
        rank = ua.ValueRank.OneDimension if each.array else ua.ValueRank.Scalar
        dimensions = [0] if each.array else []
        return ua.Argument(Name=each.name, DataType=self.node(each.type), ValueRank=rank, ArrayDimensions=dimensions)

    def _refusal(self, variants: Sequence[Variant], inputs: Sequence[Argument], classes: dict[str, Any]) -> Any:
        if len(variants) < len(inputs):
            return ua.StatusCode(ua.StatusCodes.BadArgumentsMissing)
        if len(variants) > len(inputs):
            return ua.StatusCode(ua.StatusCodes.BadTooManyArguments)
        results = [self._fits(variant, each, classes) for variant, each in zip(variants, inputs, strict=True)]
        if all(results):
            return None
        codes = [ua.StatusCodes.Good if fits else ua.StatusCodes.BadTypeMismatch for fits in results]
        refusal = ua.CallMethodResult()
        refusal.StatusCode = ua.StatusCode(ua.StatusCodes.BadInvalidArgument)
        refusal.InputArgumentResults = [ua.StatusCode(code) for code in codes]
        return refusal

    def _fits(self, variant: Variant, each: Argument, classes: dict[str, Any]) -> bool:
        if variant.Value is None:
            return each.array or each.type == STRING
        if bool(variant.is_array) is not each.array:
            return False
        if ":" in each.type and each.type in classes:
            values = variant.Value if each.array else [variant.Value]
            return all(isinstance(value, classes[each.type]) for value in values)
        return bool(variant.VariantType == _variant_type(each.type))

    def _add(
        self,
        node_class: Any,
        at: NodeId,
        parent: NodeId,
        name: Any,
        reference: str,
        attributes: Any,
        type_: str = "",
    ) -> NodeId:
        attributes.DisplayName = ua.LocalizedText(name.Name)
        attributes.Description = ua.LocalizedText()
        attributes.WriteMask = attributes.UserWriteMask = 0
        item = ua.AddNodesItem()
        item.ParentNodeId = parent
        item.ReferenceTypeId = self.node(reference)
        item.RequestedNewNodeId = at
        item.BrowseName = name
        item.NodeClass = node_class
        item.NodeAttributes = attributes
        if type_:
            item.TypeDefinition = self.node(type_)
        (result,) = self.server.iserver.node_mgt_service.add_nodes([item])
        result.StatusCode.check()
        return at
