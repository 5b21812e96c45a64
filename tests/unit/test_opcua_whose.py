"""Which machine of a server an alarm belongs to: told by what stands above its source."""

from __future__ import annotations

from typing import Any, cast

import pytest
from asyncua import ua

from drivers.opcua.client import Child, Link
from drivers.opcua.whose import MOST_NODES, Sources, Whose, learn
from drivers.opcua.words import RefusedError

OBJECTS, SERVER = ua.NodeId(ua.ObjectIds.ObjectsFolder), ua.NodeId(ua.ObjectIds.Server)


def node(name: str) -> ua.NodeId:
    return {"Objects": OBJECTS, "Server": SERVER}.get(name) or ua.NodeId(name, 2)


class Server:
    """Its nodes, each with what it is below. `hides`: what this node is below is not shown."""

    above: dict[str, list[str]] = {  # noqa: RUF012
        "Server": ["Objects"],
        "Machines": ["Objects"],
        "DeviceSet": ["Objects"],
        "Line": ["Machines"],
        "Mill": ["Machines", "Line", "Server"],
        "Mill 2": ["Machines", "Line", "Server"],
        "Lathe": ["Machines"],
        "Control": ["Mill", "Server"],
        "Axis": ["Control"],
        "Axis 2": ["Mill 2"],
        "Chiller": ["Mill", "Mill 2"],
        "Gateway": ["DeviceSet"],
        "Robot": ["DeviceSet"],
        "Robot 2": ["DeviceSet"],
        "Arm 2": ["Robot 2"],
        "Ring": ["Ring", "Axis 2"],
    }

    def __init__(self, hides: str = "") -> None:
        self.hides = hides
        self.asked: list[str] = []

    async def parents(self, of: ua.NodeId) -> list[ua.NodeId]:
        name = next((each for each in self.above if node(each) == of), None)
        self.asked.append(name or "")
        if name is None or name == self.hides:
            raise RefusedError("browsing: the server says BadNodeIdUnknown", "BadNodeIdUnknown")
        return [node(each) for each in self.above[name]]

    async def find_all(self, start: ua.NodeId, places: dict[str, Any]) -> dict[str, ua.NodeId]:
        assert start == OBJECTS
        return dict.fromkeys(places, node("Machines"))

    async def children(self, of: ua.NodeId) -> list[Child]:
        there = [name for name, above in self.above.items() if of in map(node, above)]
        return [Child(node(name), "", name, True) for name in there] + [Child(node("Count"), "", "Count", False)]


async def whose(root: str, source: str, beside: tuple[str, ...] = (), hides: str = "") -> Whose:
    link = cast(Link, Server(hides))
    sources = await learn(link, node(root), [node(each) for each in beside])
    return await sources.whose(link, node(source))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Mill", Whose.OURS),
        ("Axis", Whose.OURS),
        ("Mill 2", Whose.ANOTHERS),
        ("Axis 2", Whose.ANOTHERS),
        ("Ring", Whose.ANOTHERS),
        ("Lathe", Whose.ANOTHERS),
        ("Chiller", Whose.ANYBODYS),
        ("Line", Whose.ANYBODYS),
        ("Server", Whose.ANYBODYS),
        ("Gateway", Whose.ANYBODYS),
        ("Robot", Whose.ANYBODYS),
        ("Nowhere", Whose.ANYBODYS),
    ],
)
async def test_an_alarm_is_of_the_machine_below_which_its_source_stands(source: str, expected: Whose) -> None:
    assert await whose("Mill", source) is expected


async def test_the_machines_that_the_profile_finds_beside_ours_are_others() -> None:
    assert await whose("Robot", "Arm 2", beside=("Robot 2",)) is Whose.ANOTHERS
    assert await whose("Robot", "Arm 2") is Whose.ANYBODYS, "a device may be a part of ours"
    assert await whose("Mill", "Line", beside=("Line",)) is Whose.ANYBODYS, "ours is below it"


async def test_a_machine_that_is_not_in_the_folder_machines_may_be_one_of_those_there() -> None:
    assert await whose("Robot", "Mill", beside=("Robot 2",)) is Whose.ANYBODYS


async def test_what_the_server_does_not_show_proves_nothing() -> None:
    assert await whose("Mill", "Axis 2", hides="Mill 2") is Whose.ANYBODYS
    assert await whose("Mill", "Axis 2", hides="Mill") is Whose.ANYBODYS, "it may be that all of them are ours"
    assert await whose("Mill", "Axis", hides="Machines") is Whose.ANYBODYS


async def test_a_way_up_without_an_end_is_left() -> None:
    class Endless(Server):
        async def parents(self, of: ua.NodeId) -> list[ua.NodeId]:
            self.asked.append("")
            return [ua.NodeId(int(of.Identifier) + 1, 3)]

    server = Endless()
    link = cast(Link, server)
    assert await Sources(node("Mill"), ()).whose(link, ua.NodeId(1, 3)) is Whose.ANYBODYS
    assert len(server.asked) == MOST_NODES


async def test_a_source_is_looked_up_once_and_none_at_all_never() -> None:
    server = Server()
    link, sources = cast(Link, server), Sources(node("Mill"), [node("Mill 2")])
    for _ in range(3):
        assert await sources.whose(link, node("Axis")) is Whose.OURS
    assert server.asked.count("Axis") == 1
    server.asked.clear()
    for source in (None, ua.NodeId(), "Axis"):
        assert await sources.whose(link, source) is Whose.ANYBODYS
    assert server.asked == []
