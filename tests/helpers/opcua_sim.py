"""`hil-sim cnc` and `hil-sim robot` as processes, and what a plain OPC UA client asks of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from asyncua import Client, Node, ua

START_S = 60.0
DEADLINE_S = 30.0
SHORT = {
    "di": "http://opcfoundation.org/UA/DI/",
    "machinery": "http://opcfoundation.org/UA/Machinery/",
    "jobs": "http://opcfoundation.org/UA/Machinery/Jobs/",
    "isa95": "http://opcfoundation.org/UA/ISA95-JOBCONTROL_V2/",
    "mt": "http://opcfoundation.org/UA/MachineTool/",
    "rob": "http://opcfoundation.org/UA/Robotics/",
}


@dataclass(frozen=True)
class OpcuaSim:
    """A running simulator: its process, where clients connect, and where faults are told."""

    process: subprocess.Popen[bytes]
    endpoint: str
    control: tuple[str, int]

    def say(self, line: str) -> Any:
        """`NAME[=ARG]`; what the machine answers. Fails if it refuses."""
        with socket.create_connection(self.control, DEADLINE_S) as connection:
            connection.sendall(f"{line}\n".encode())
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        assert "error" not in answer, answer["error"]
        return answer["ok"]

    def carried_out(self) -> list[tuple[str, str]]:
        """Line (or `!`) and text of all that was done."""
        rows = (row.split("\t", 2) for row in self.say("carried-out"))
        return [(line, text) for _, line, text in rows]


@contextlib.contextmanager
def opcua_sim(machine: str, *arguments: str) -> Iterator[OpcuaSim]:
    """Start a simulator on free ports, wait until it is ready, and stop it at the end."""
    command = [sys.executable, "-m", "hil_sim.main", machine, "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_S)
            words = process.stdout.readline().decode().split() if ready else []
            assert words[:2] == ["ready", "opcua"], f"the simulator did not start: {words}"
            host, _, port = words[4].rpartition(":")
            yield OpcuaSim(process, words[2], (host, int(port)))
        finally:
            process.terminate()
            assert process.wait(DEADLINE_S) in (0, -9)


class Peer:
    """A plain client, with nodes by browse path."""

    def __init__(self, client: Client, root: Node) -> None:
        self.client = client
        self.root = root

    async def node(self, path: str) -> Node:
        """`mt:Production/mt:ActiveProgram` below the machine; `home:` is the server's own namespace."""
        names = []
        for part in path.split("/"):
            short, _, name = part.rpartition(":")
            names.append(f"{await self._index(short)}:{name}")
        return await self.root.get_child(names)

    async def _index(self, short: str) -> int:
        if short == "home":
            return self.root.nodeid.NamespaceIndex
        return await self.client.get_namespace_index(SHORT[short]) if short else 0

    async def value(self, path: str) -> Any:
        return await (await self.node(path)).read_value()

    async def call(self, path: str, *arguments: Any) -> Any:
        """The method at the end of `path`."""
        parent, _, _ = path.rpartition("/")
        return await (await self.node(parent)).call_method(await self.node(path), *arguments)

    async def until(self, path: str, wanted: Any) -> Any:
        """Until a variable has this value (a text: of a LocalizedText), by the deadline."""
        node = await self.node(path)

        async def read() -> Any:
            value = await node.read_value()
            return value.Text if isinstance(value, ua.LocalizedText) else value

        return await eventually(read, lambda value: value == wanted)


async def eventually(look: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool]) -> Any:
    """What `look` gives when it is enough; fails at the deadline and says what it gave last."""
    until_s = time.monotonic() + DEADLINE_S
    while not enough(seen := await look()):
        assert time.monotonic() < until_s, f"still {seen!r}"
        await asyncio.sleep(0.02)
    return seen


def plain_client(endpoint: str) -> Client:
    """One that waits for an answer, and for a sign of life, as long as on a busy host it may take."""
    return Client(endpoint, timeout=DEADLINE_S, watchdog_intervall=DEADLINE_S)


@contextlib.asynccontextmanager
async def peer(sim: OpcuaSim, *path: str) -> AsyncIterator[Peer]:
    """A client without security; `path` leads from Objects to the machine, like `machinery:Machines`."""
    async with plain_client(sim.endpoint) as client:
        yield await peer_of(client, *path)


async def peer_of(client: Client, *path: str) -> Peer:
    """The machine is the only object of the server's own namespace below `path`."""
    node = client.nodes.objects
    for part in path:
        short, _, name = part.partition(":")
        node = await node.get_child(f"{await client.get_namespace_index(SHORT[short])}:{name}")
    (root,) = await node.get_children(nodeclassmask=ua.NodeClass.Object)
    return Peer(client, root)
