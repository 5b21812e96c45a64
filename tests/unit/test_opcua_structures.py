"""Structures as a server describes them: what is written is read again, and what does not fit is said in words."""

from __future__ import annotations

from typing import Any

import pytest
from asyncua import ua
from asyncua.ua import ua_binary
from hypothesis import given
from hypothesis import strategies as st

from drivers.opcua.structures import StructureError, Types

STRING, INT32, VARIANT, UINT32, TEXT, PATH, NUMBER = 12, 6, 24, 7, 21, 540, 26


def node(number: int, index: int = 4) -> Any:
    return ua.NodeId(number, index)


def described(encoding: int, *fields: Any, kind: Any = ua.StructureType.StructureWithOptionalFields) -> Any:
    found = ua.StructureDefinition()
    found.DefaultEncodingId = node(encoding)
    found.StructureType = kind
    found.Fields = list(fields)
    return found


def field(name: str, kind: Any, *, array: bool = False, optional: bool = False) -> Any:
    found = ua.StructureField()
    found.Name = name
    found.DataType = ua.NodeId(kind) if isinstance(kind, int) else kind
    found.ValueRank = 1 if array else -1
    found.IsOptional = optional
    return found


def known() -> Types:
    """A parameter that nests itself, an order with optional fields, and a state with a standard structure."""
    types = Types()
    parameter = (
        field("ID", STRING),
        field("Value", VARIANT),
        field("Below", node(3003), array=True, optional=True),
    )
    types.add(node(3003), "Parameter", described(5005, *parameter))
    order = (
        field("JobOrderID", STRING),
        field("Text", TEXT, array=True, optional=True),
        field("Priority", 4, optional=True),
        field("Parameters", node(3003), array=True, optional=True),
        field("Kind", node(3099), optional=True),
    )
    types.add(node(3008), "Order", described(5014, *order))
    state = (
        field("BrowsePath", PATH),
        field("Number", UINT32),
        field("Amount", NUMBER),
        field("All", INT32, array=True),
    )
    types.add(node(3006), "State", described(5029, *state, kind=ua.StructureType.Structure))
    types.plain[node(3099)] = ua.VariantType.Int32
    return types


def there_and_back(types: Types, data_type: Any, value: Any) -> Any:
    variant = types.variant(data_type, False, value)
    again = ua_binary.variant_from_binary(ua.utils.Buffer(ua_binary.variant_to_binary(variant)))
    return types.value(again)


def test_optional_fields_that_are_not_there_are_left_out_and_stay_so() -> None:
    order = {"JobOrderID": "run-1", "Priority": 3}
    assert there_and_back(known(), node(3008), order) == order
    assert not known().missing()


@given(
    st.fixed_dictionaries(
        {"JobOrderID": st.text()},
        optional={
            "Priority": st.integers(-32768, 32767),
            "Kind": st.integers(0, 9),
            "Parameters": st.lists(
                st.fixed_dictionaries({"ID": st.text(), "Value": st.integers(0, 2**31)}, optional={}), max_size=3
            ),
        },
    )
)
def test_what_is_written_is_read_again(order: dict[str, Any]) -> None:
    assert there_and_back(known(), node(3008), order) == order


def test_structures_nest_and_standard_ones_are_read_by_the_library() -> None:
    types = known()
    nested = {"ID": "a", "Value": "x", "Below": [{"ID": "b", "Value": 1, "Below": [{"ID": "c", "Value": None}]}]}
    assert there_and_back(types, node(3003), nested) == nested
    path = ua.RelativePath()
    state = {"BrowsePath": path, "Number": 5, "Amount": 1.5, "All": [1, 2]}
    assert there_and_back(types, node(3006), state) == state
    empty = there_and_back(types, node(3006), {"BrowsePath": path})
    assert (empty["Number"], empty["All"]) == (0, [])


def test_an_array_of_structures_is_one_argument() -> None:
    types = known()
    variant = types.variant(node(3003), True, [{"ID": "a", "Value": 1}, {"ID": "b", "Value": 2}])
    assert [item["ID"] for item in types.value(variant)] == ["a", "b"]
    assert types.variant(ua.NodeId(STRING), False, "x").VariantType is ua.VariantType.String
    assert types.variant(ua.NodeId(VARIANT), False, 5).Value == 5
    assert types.value(ua.ExtensionObject()) is None


def test_each_connection_reads_by_the_definitions_of_its_own_server() -> None:
    """Two servers that count their namespaces otherwise use one node id for two structures."""
    one, other = Types(), Types()
    one.add(node(1), "A", described(9, field("A", STRING)))
    other.add(node(1), "B", described(9, field("B", INT32), field("C", INT32)))
    assert there_and_back(one, node(1), {"A": "x"}) == {"A": "x"}
    assert there_and_back(other, node(1), {"B": 1, "C": 2}) == {"B": 1, "C": 2}


@pytest.mark.parametrize(
    ("data_type", "value", "words"),
    [
        (node(3008), {"JobOrderID": "x", "Colour": "red"}, "Order of this server has no field 'Colour'"),
        (node(4000), {}, "does not describe its data type"),
    ],
)
def test_what_a_server_does_not_know_is_not_sent(data_type: Any, value: Any, words: str) -> None:
    with pytest.raises(StructureError, match=words):
        known().variant(data_type, False, value)


def test_kinds_of_structures_that_are_not_understood_are_said() -> None:
    types = known()
    types.add(node(7), "Either", described(8, field("A", INT32), kind=ua.StructureType.Union))
    with pytest.raises(StructureError, match="Union, which is not understood"):
        types.variant(node(7), False, {"A": 1})
    with pytest.raises(StructureError, match="a Either of this server is not what it describes: it is a Union"):
        types.unpack(node(7), b"\0" * 8)
    assert types.missing() == set()
    types.add(node(11), "New", described(12, field("A", node(13))))
    assert types.missing() == {node(13)}


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x00\x00\x00\x00\xff\xff\xff\x7f", b"\x1f\x00\x00\x00\x01\x00\x00\x00a"]
)
def test_bytes_that_do_not_fit_are_no_order(data: bytes) -> None:
    with pytest.raises(StructureError, match="is not what it describes"):
        known().unpack(node(3008), data)


def test_an_array_longer_than_the_bytes_and_an_unknown_structure_are_refused() -> None:
    types = known()
    types.add(node(1), "List", described(2, field("A", INT32, array=True), kind=ua.StructureType.Structure))
    with pytest.raises(StructureError, match="would have 1000000 elements"):
        types.unpack(node(1), (1_000_000).to_bytes(4, "little"))
    with pytest.raises(StructureError, match="that it does not describe"):
        types.value(ua.ExtensionObject(node(99), b"abc"))
