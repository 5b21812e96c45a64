"""Which nodes of a server a profile's places name: the machine itself, and what belongs to what is started.

A star in a place may stand for several objects. What lets a machine start must hold at every one of them. What starts
it is there once, or nobody knows which is meant; and what is said about it is looked for at the same objects.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from drivers.opcua.client import Link
from drivers.opcua.library import DataValue, NodeId, ua
from drivers.opcua.nodemap import Name, Place
from drivers.opcua.profile import Profile
from edge.driver import IdentityError

OBJECTS = ua.NodeId(ua.ObjectIds.ObjectsFolder)


async def locate(link: Link, profile: Profile) -> list[tuple[str, NodeId]]:
    """The objects of this server that fit the profile: browse name and node. Raises `MachineError`."""
    found = []
    for node in await link.find(OBJECTS, profile.place(profile.machine.root)):
        requires = {text: profile.place(text) for text in profile.machine.requires}
        if len(await link.find_all(node, requires)) == len(requires):
            (name,) = await _names(link, [node])
            found.append((name, node))
    return found


async def nodes_of(
    link: Link, root: NodeId, places: Mapping[str, Place], ours: Collection[str], started_by: str
) -> dict[str, NodeId]:
    """By name, the node that each place names, seen from `root`; those that the machine has not are left out.

    `started_by` is the name of what starts a run. If it is there, that and `ours` are there once each, or
    `IdentityError`. Where other places begin like its own, they are looked for at what stands for its stars.
    """
    stands: dict[tuple[Name, ...], NodeId] = {}
    first = places.get(started_by)
    if first is not None and not first.kind:
        ways = await link.ways(root, first.names)
        if len(ways) > 1:
            raise IdentityError(await _several(link, first, ways))
        stars = [index for index, name in enumerate(first.names) if name.any]
        stands = {first.names[: index + 1]: node for way in ways for index, node in zip(stars, way, strict=False)}
    found = await link.find_each({name: _seen_from(root, place, stands) for name, place in places.items()})
    for name, nodes in found.items():
        if len(nodes) > 1 and name in ours and started_by in found:
            raise IdentityError(await _several(link, places[name], [(node,) for node in nodes]))
    return {name: nodes[0] for name, nodes in found.items()}


def _seen_from(root: NodeId, place: Place, stands: Mapping[tuple[Name, ...], NodeId]) -> tuple[NodeId, Place]:
    """Where to look for a place from, and what is left of it."""
    for length in range(len(place.names) - 1, 0, -1):
        if (node := stands.get(place.names[:length])) is not None:
            return node, replace(place, names=place.names[length:])
    return root, place


async def _several(link: Link, place: Place, ways: Sequence[tuple[NodeId, ...]]) -> str:
    names = ["/".join(await _names(link, way)) for way in ways]
    return f"several fit {place.text}: {', '.join(names)}; a profile of your own names one where the star is"


async def _names(link: Link, nodes: Sequence[NodeId]) -> list[str]:
    return [_name(value) for value in await link.read(nodes, ua.AttributeIds.BrowseName)]


def _name(value: DataValue) -> str:
    said = value.Value.Value if value.Value is not None else None
    return said.Name or "" if isinstance(said, ua.QualifiedName) else ""
