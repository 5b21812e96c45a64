"""Which machine an alarm belongs to, where a server has several: the one below whose object its source stands.

Rules

1. Ours is what has our object above it, and no other machine's. Another's is what has another machine's above it, and
   not ours. Whatever else there is (the server itself, no source at all, a source that is nowhere) may be anybody's.
2. Other machines are the objects that the profile finds beside ours, and, where ours stands in the folder Machines
   (OPC 40001-1, 7), all others in it. An object that has ours below it is no other machine.
3. A way up that does not come to its end proves nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

from drivers.opcua.client import Link
from drivers.opcua.library import NodeId
from drivers.opcua.nodemap import place
from drivers.opcua.places import OBJECTS
from drivers.opcua.words import RefusedError

MACHINES = place("m:Machines", {"m": "http://opcfoundation.org/UA/Machinery/"})

MOST_NODES = 64
"""So many on the way up are looked at; a machine's parts stand a few levels below it."""


class Whose(enum.Enum):
    """The machine that an alarm belongs to."""

    OURS = "ours"
    ANOTHERS = "another's"
    ANYBODYS = "anybody's"


class Sources:
    """Where the events of one link come from. Made by `learn`."""

    def __init__(self, root: NodeId, others: Collection[NodeId]) -> None:
        """`others`: the objects of other machines."""
        self._root = root
        self._others = frozenset(others)
        self._known: dict[NodeId, Whose] = {}

    async def whose(self, link: Link, source: object) -> Whose:
        """Whose machine's an event's SourceNode is. Raises `LinkError`."""
        if not isinstance(source, NodeId) or source.is_null():
            return Whose.ANYBODYS
        if source not in self._known:
            self._known[source] = await self._look_up(link, source)
        return self._known[source]

    async def _look_up(self, link: Link, source: NodeId) -> Whose:
        try:
            above = await _above(link, source)
        except RefusedError:
            return Whose.ANYBODYS
        match (self._root in above, bool(self._others & above)):
            case (True, False):
                return Whose.OURS
            case (False, True):
                return Whose.ANOTHERS
            case _:
                return Whose.ANYBODYS


async def learn(link: Link, root: NodeId, beside: Collection[NodeId]) -> Sources:
    """Which machines there are: ours is `root`, and `beside` those that the profile finds. Raises `LinkError`."""
    try:
        above = await _above(link, root)
        others = set(beside)
        machines = (await link.find_all(OBJECTS, {"machines": MACHINES})).get("machines")
        if machines in above:
            others |= {child.node for child in await link.children(machines) if child.is_object}
    except RefusedError:
        return Sources(root, ())  # then nothing is another machine's
    return Sources(root, others - above)


async def _above(link: Link, node: NodeId) -> frozenset[NodeId]:
    """A node and all that it belongs to. Raises `RefusedError` if the server does not show all, or `LinkError`."""
    found, new = {node}, [node]
    while new:
        if len(found) > MOST_NODES:
            raise RefusedError(f"more than {MOST_NODES} nodes are above {node.to_string()}", "BadTooManyMatches")
        if (each := new.pop()) != OBJECTS:
            higher = set(await link.parents(each)) - found
            found |= higher
            new += higher
    return frozenset(found)
