"""What a plain client does with a machine tool: store programs and job orders, follow events."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncua import ua

from helpers.opcua_sim import Peer

MACHINES = ("machinery:Machines",)
JOBS = "machinery:MachineryBuildingBlocks/jobs:JobManagement"
CONTROL = f"{JOBS}/jobs:JobOrderControl"
RESULTS = f"{JOBS}/jobs:JobOrderResults"
STATE = "mt:Production/mt:ActiveProgram/mt:State/CurrentState"
NO_COMMENT = ua.Variant([], ua.VariantType.LocalizedText, is_array=True)
OK = 1

SLOW = b"G21 G90 G54\nG53 G1 X400 F60\nM30\n"
"""400 s of simulated time."""


def handle(number: int) -> ua.Variant:
    return ua.Variant(number, ua.VariantType.UInt32)


async def upload(peer: Peer, name: str, content: bytes) -> None:
    """Make a file and write it, in pieces of 64 KiB."""
    node, opened = await peer.call("FileSystem/CreateFile", name, True)
    file = peer.client.get_node(node)
    for at in range(0, len(content), 65536):
        await file.call_method("0:Write", handle(opened), content[at : at + 65536])
    await file.call_method("0:Close", handle(opened))


def order(job_id: str, program: str) -> Any:
    """The client's types have to be loaded."""
    made = ua.ISA95JobOrderDataType()
    master = ua.ISA95WorkMasterDataType()
    master.ID = program
    made.JobOrderID, made.WorkMasterID = job_id, [master]
    return made


async def store(peer: Peer, job_id: str, program: str, verb: str = "StoreAndStart") -> int:
    """ReturnStatus."""
    return int(await peer.call(f"{CONTROL}/isa95:{verb}", order(job_id, program), NO_COMMENT))


async def ask(peer: Peer, verb: str, job_id: str) -> int:
    """ReturnStatus of a method with a job order's id."""
    return int(await peer.call(f"{CONTROL}/isa95:{verb}", job_id, NO_COMMENT))


async def job_states(peer: Peer) -> dict[str, list[str]]:
    """State texts of all job orders in the list, from the outermost in."""
    listed = await peer.value(f"{CONTROL}/isa95:JobOrderList")
    return {each.JobOrder.JobOrderID: [state.StateText.Text for state in each.State] for each in listed or []}


class Events:
    """Collects events of a subscription."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[Any] = asyncio.Queue()

    def event_notification(self, event: Any) -> None:
        self.seen.put_nowait(event)

    async def next(self) -> Any:
        return await asyncio.wait_for(self.seen.get(), 30.0)
