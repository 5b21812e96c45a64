"""Structures as this server describes them, to and from their binary encoding. PURE.

asyncua keeps the types of all servers in one table of the process, by node id; with two servers that count their
namespaces otherwise it would read one's bytes by the other's definition. So each connection has its own `Types`, made
of the server's `DataTypeDefinition`s, and asyncua hands on the bytes as they are. Source: OPC 10000-6, 5.2.6 and 5.2.7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncua.common.utils import Buffer, NotEnoughData
from asyncua.ua import ua_binary

from drivers.opcua.library import (
    ExtensionObject,
    NodeId,
    StructureDefinition,
    StructureField,
    UaError,
    Variant,
    VariantType,
    ua,
)

_BUILT_IN = {number: VariantType(number) for number in range(1, 26)}
"""Built-in types have the numbers of their data types' nodes (OPC 10000-6, 5.1.2)."""
_ENUMERATION, _STRUCTURE = 29, 22
_ALIASES = {
    **dict.fromkeys((26, 27, 28), VariantType.Variant),  # Number, Integer, UInteger: a Variant in a structure
    290: VariantType.Double,  # Duration
    294: VariantType.DateTime,  # UtcTime
    295: VariantType.String,  # LocaleId
    12878: VariantType.String,  # NormalizedString
    12879: VariantType.String,  # DecimalString
    12881: VariantType.String,  # TimeString
    _ENUMERATION: VariantType.Int32,
}
_STANDARD: dict[int, Any] = {540: ua.RelativePath, 884: ua.Range, 887: ua.EUInformation, 7594: ua.EnumValueType}
"""Structures of the base namespace that those of companion specifications have in them; asyncua knows their fields."""
_NESTED_MAX = 32


class StructureError(ValueError):
    """A value does not fit the server's own description of its type, or the server does not describe it."""


@dataclass(slots=True)
class Types:
    """What one server says of its data types.

    `definitions`: data type to its structure; `plain`: data type to the built-in type that is on the wire in its place
    (enumerations, subtypes of String …); `encodings`: node of a binary encoding to the data type.
    """

    definitions: dict[NodeId, StructureDefinition] = field(default_factory=dict)
    plain: dict[NodeId, VariantType] = field(default_factory=dict)
    encodings: dict[NodeId, NodeId] = field(default_factory=dict)
    names: dict[NodeId, str] = field(default_factory=dict)

    def built_in(self, data_type: NodeId) -> VariantType | None:
        """The built-in type that is on the wire; None for a structure."""
        if data_type.NamespaceIndex == 0:
            number: Any = data_type.Identifier
            return _BUILT_IN.get(number) or _ALIASES.get(number)
        return self.plain.get(data_type)

    def known(self, data_type: NodeId) -> bool:
        """Whether values of this type can be read and written."""
        return self.built_in(data_type) is not None or data_type in self.definitions or _standard(data_type) is not None

    def missing(self) -> set[NodeId]:
        """Data types that a definition needs and that are not known yet."""
        wanted = {item.DataType for definition in self.definitions.values() for item in definition.Fields or ()}
        return {data_type for data_type in wanted if not self.known(data_type)}

    def add(self, data_type: NodeId, name: str, definition: StructureDefinition) -> None:
        """The server's own `DataTypeDefinition` of a structure."""
        self.definitions[data_type] = definition
        self.names[data_type] = name
        self.encodings[definition.DefaultEncodingId] = data_type

    # To the server

    def variant(self, data_type: NodeId, array: bool, value: Any) -> Any:
        """`value` for an argument of this type; a structure is a mapping of its fields' names. `StructureError`."""
        kind = self.built_in(data_type)
        if kind is None:
            made = [self._object(data_type, item) for item in value] if array else self._object(data_type, value)
            return ua.Variant(made, VariantType.ExtensionObject, is_array=array)
        if kind is VariantType.Variant:
            return ua.Variant(value)
        return ua.Variant(value, kind, is_array=array)

    def _object(self, data_type: NodeId, value: Any) -> Any:
        definition = self._definition(data_type)
        return ua.ExtensionObject(definition.DefaultEncodingId, self.pack(data_type, value))

    def _definition(self, data_type: NodeId) -> StructureDefinition:
        if data_type not in self.definitions:
            raise StructureError(f"the server does not describe its data type {data_type.to_string()}")
        return self.definitions[data_type]

    def pack(self, data_type: NodeId, value: Mapping[str, Any], depth: int = 0) -> bytes:
        """The fields of a structure in their order; optional ones that `value` has not are left out."""
        if _standard(data_type) is not None:
            return ua_binary.struct_to_binary(value)
        definition, name = self._definition(data_type), self.names.get(data_type, "")
        fields = definition.Fields or []
        if unknown := set(value) - {item.Name for item in fields}:
            raise StructureError(f"{name} of this server has no field {sorted(unknown)[0]!r}")
        if definition.StructureType not in _STRUCTURES or depth > _NESTED_MAX:
            raise StructureError(f"{name} of this server is a {definition.StructureType.name}, which is not understood")
        body, mask, bit = b"", 0, 0
        for item in fields:
            there = value.get(item.Name) is not None
            if item.IsOptional:
                mask |= there << bit
                bit += 1
                if not there:
                    continue
            body += self._pack_field(item, value.get(item.Name), depth)
        if definition.StructureType == ua.StructureType.StructureWithOptionalFields:
            return ua_binary.Primitives.UInt32.pack(mask) + body
        return body

    def _pack_field(self, item: StructureField, value: Any, depth: int) -> bytes:
        if item.ValueRank >= 1:
            if value is None:
                return ua_binary.Primitives.Int32.pack(-1)
            return ua_binary.Primitives.Int32.pack(len(value)) + b"".join(self._pack(item, v, depth) for v in value)
        return self._pack(item, value, depth)

    def _pack(self, item: StructureField, value: Any, depth: int) -> bytes:
        kind = self.built_in(item.DataType)
        if kind is None:
            return self.pack(item.DataType, value if value is not None else {}, depth + 1)
        if kind is VariantType.Variant:
            return ua_binary.variant_to_binary(value if isinstance(value, Variant) else ua.Variant(value))
        if value is None:
            value = ua.get_default_value(kind)
        return ua_binary.pack_uatype(kind, value)

    # From the server

    def value(self, found: Any) -> Any:
        """What was read, with every structure as a mapping of its fields. Raises `StructureError`."""
        if isinstance(found, list | tuple):
            return [self.value(item) for item in found]
        if isinstance(found, Variant):
            return self.value(found.Value)
        if isinstance(found, ExtensionObject):
            if found.Body is None or found.TypeId.Identifier == 0:
                return None
            data_type = self.encodings.get(found.TypeId)
            if data_type is None:
                raise StructureError(
                    f"the server sent a structure {found.TypeId.to_string()} that it does not describe"
                )
            return self.unpack(data_type, found.Body)
        return found

    def unpack(self, data_type: NodeId, data: bytes) -> dict[str, Any]:
        """The fields of one structure. Raises `StructureError` for bytes that do not fit."""
        buffer = Buffer(data)
        try:
            found: dict[str, Any] = self._unpack_structure(data_type, buffer, 0)
            return found
        except (UaError, NotEnoughData, ValueError, TypeError, IndexError, OverflowError) as error:
            name = self.names.get(data_type, data_type.to_string())
            raise StructureError(f"a {name} of this server is not what it describes: {error}") from error

    def _unpack_structure(self, data_type: NodeId, buffer: Buffer, depth: int) -> Any:
        if (standard := _standard(data_type)) is not None:
            return ua_binary.struct_from_binary(standard, buffer)
        definition = self._definition(data_type)
        if definition.StructureType not in _STRUCTURES or depth > _NESTED_MAX:
            raise StructureError(f"it is a {definition.StructureType.name}")
        optional = definition.StructureType == ua.StructureType.StructureWithOptionalFields
        mask = ua_binary.Primitives.UInt32.unpack(buffer) if optional else 0
        found: dict[str, Any] = {}
        for item in definition.Fields or ():
            if item.IsOptional:
                there, mask = mask & 1, mask >> 1
                if not there:
                    continue
            found[item.Name] = self._unpack_field(item, buffer, depth)
        return found

    def _unpack_field(self, item: StructureField, buffer: Buffer, depth: int) -> Any:
        if item.ValueRank < 1:
            return self._unpack(item, buffer, depth)
        length = ua_binary.Primitives.Int32.unpack(buffer)
        if length > len(buffer):
            raise StructureError(f"{item.Name} would have {length} elements")
        return [self._unpack(item, buffer, depth) for _ in range(max(0, length))]

    def _unpack(self, item: StructureField, buffer: Buffer, depth: int) -> Any:
        kind = self.built_in(item.DataType)
        if kind is None:
            return self._unpack_structure(item.DataType, buffer, depth + 1)
        if kind is VariantType.Variant:
            return self.value(ua_binary.variant_from_binary(buffer))
        return self.value(ua_binary.unpack_uatype(kind, buffer))


def _standard(data_type: NodeId) -> Any:
    number: Any = data_type.Identifier
    return _STANDARD.get(number) if data_type.NamespaceIndex == 0 else None


_STRUCTURES = (ua.StructureType.Structure, ua.StructureType.StructureWithOptionalFields)
