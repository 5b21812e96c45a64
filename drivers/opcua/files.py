"""Programs as files on the machine: FileDirectoryType and FileType (OPC 10000-20).

A file is written under a name of its own, closed, read back and compared by its hash, and only then renamed; whatever
breaks off leaves at most a ``.part`` that nothing can start, and that the next run removes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import Any

from drivers.opcua.client import Link, Method
from drivers.opcua.library import NodeId
from drivers.opcua.nodemap import BASE_URI, Name, Place
from drivers.opcua.profile import Profile
from drivers.opcua.words import RefusedError
from edge.driver import IdentityError, MachineError, Motion, Program

PREFIX, PART = "edge-", ".part"
_READ, _WRITE_FROM_SCRATCH = 1, 6
"""Open modes (OPC 10000-20, 4.2.2): bit 0 reads; bit 1 writes, bit 2 erases what is there."""

KEEP = 10
"""How many programs of earlier runs stay on the machine."""


class Folder:
    """A directory on the machine."""

    def __init__(self, node: NodeId, methods: dict[str, Method], chunk_bytes: int, *, in_place: bool) -> None:
        self._node = node
        self._methods = methods
        self._chunk_bytes = chunk_bytes
        self._in_place = in_place

    @classmethod
    async def open(cls, link: Link, node: NodeId, profile: Profile) -> Folder:
        """The directory that `node` is. Raises `MachineError`."""
        assert profile.files is not None
        wanted = {name: Place(name, (Name(BASE_URI, name),)) for name in ("CreateFile", "Delete", "MoveOrCopy")}
        # Part 20 calls the method Delete; its declaration in the node set has this other name as well.
        wanted["DeleteFileSystemObject"] = Place("", (Name(BASE_URI, "DeleteFileSystemObject"),))
        found = await link.find_all(node, wanted)
        methods = {name: await link.method(node, method, name) for name, method in found.items()}
        if "DeleteFileSystemObject" in methods:
            methods.setdefault("Delete", methods["DeleteFileSystemObject"])
        for name in ("CreateFile", "Delete") if profile.files.in_place else ("CreateFile", "Delete", "MoveOrCopy"):
            if name not in methods:
                hint = "; the profile may say files.in_place = true" if name == "MoveOrCopy" else ""
                raise IdentityError(f"the server's directory for programs has no method {name}{hint}")
        return cls(node, methods, profile.files.chunk_bytes, in_place=profile.files.in_place)

    async def put(self, link: Link, name: str, program: Program) -> None:
        """Raises `MachineError`; then nothing is there under `name`."""
        there = await self._listed(link)
        if name in there:
            raise MachineError(f"{name} is on the machine already: this run was prepared before", Motion.NONE)
        written = name if self._in_place else f"{name}{PART}"
        if written in there:
            await link.call(self._methods["Delete"], there[written])
        file = await self._create(link, written)
        try:
            await self._write(link, file, program)
            await self._compare(link, file, name, program)
            if not self._in_place:
                await link.call(self._methods["MoveOrCopy"], file, self._node, False, name)
        except BaseException:
            with contextlib.suppress(MachineError):
                await link.call(self._methods["Delete"], file)
            raise
        if name not in await self._listed(link):
            raise MachineError(f"the machine has not kept {name}", Motion.NONE)

    async def _create(self, link: Link, name: str) -> NodeId:
        made = await link.call(self._methods["CreateFile"], name, False)
        if not made or not isinstance(made[0], NodeId):
            raise MachineError(f"CreateFile did not answer with a file for {name}", Motion.NONE)
        return made[0]

    async def _write(self, link: Link, file: NodeId, program: Program) -> None:
        methods = await _file_methods(link, file)
        handle = await _open(link, methods, _WRITE_FROM_SCRATCH)
        reading = await asyncio.to_thread(program.path.open, "rb")
        try:
            while data := await asyncio.to_thread(reading.read, self._chunk_bytes):
                await link.call(methods["Write"], handle, data)
        finally:
            reading.close()
            await _close(link, methods, handle)

    async def _compare(self, link: Link, file: NodeId, name: str, program: Program) -> None:
        methods = await _file_methods(link, file)
        handle = await _open(link, methods, _READ)
        digest, size = hashlib.sha256(), 0
        try:
            while size <= program.size_bytes:
                answer = await link.call(methods["Read"], handle, self._chunk_bytes)
                data = answer[0] if answer else None
                if not data:
                    break
                digest.update(data)
                size += len(data)
        finally:
            await _close(link, methods, handle)
        with program.path.open("rb") as local:
            wanted = program.sha256 or await asyncio.to_thread(lambda: hashlib.file_digest(local, "sha256").hexdigest())
        if digest.hexdigest() != wanted:
            raise MachineError(f"the machine gives {name} back with other bytes ({size} of them)", Motion.NONE)

    async def tidy(self, link: Link, keep: str) -> None:
        """Remove parts, and programs of earlier runs beyond the last `KEEP`; what others put there is left alone."""
        there = await self._listed(link)
        ours = [name for name in there if name.startswith(PREFIX) and name != keep]
        parts = [name for name in ours if name.endswith(PART)]
        old = [name for name in ours if name not in parts]
        for name in [*parts, *old[: max(0, len(old) - KEEP)]]:
            with contextlib.suppress(RefusedError):
                await link.call(self._methods["Delete"], there[name])

    async def _listed(self, link: Link) -> dict[str, NodeId]:
        return {child.name: child.node for child in await link.children(self._node) if child.is_object}


async def _file_methods(link: Link, file: NodeId) -> dict[str, Method]:
    names = ("Open", "Close", "Read", "Write")
    found = await link.find_all(file, {name: Place(name, (Name(BASE_URI, name),)) for name in names})
    if missing := [name for name in names if name not in found]:
        raise MachineError(f"a file of the server has no method {missing[0]}", Motion.NONE)
    return {name: await link.method(file, node, name) for name, node in found.items()}


async def _open(link: Link, methods: dict[str, Method], mode: int) -> Any:
    answer = await link.call(methods["Open"], mode)
    if not answer:
        raise MachineError("Open did not answer with a handle", Motion.NONE)
    return answer[0]


async def _close(link: Link, methods: dict[str, Method], handle: Any) -> None:
    # A handle that stays open after a broken transfer is given up with the session.
    with contextlib.suppress(MachineError):
        await link.call(methods["Close"], handle)
