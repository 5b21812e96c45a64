"""A FileSystem object (OPC 10000-20): files that clients make, write in pieces, read and remove.

A file is what has been written to it, from the first piece on: whoever is cut off leaves half a file behind. Handles
belong to the session that opened them, and end with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil_sim.opcua.host import session_id
from hil_sim.opcua.library import NodeId, RefusedError, ua
from hil_sim.opcua.space import BOOLEAN, BYTES, INT32, NODE, STRING, UINT16, UINT32, UINT64, Argument, Space

READ, WRITE, ERASE, APPEND = 1, 2, 4, 8
"""Bits of an open mode."""
MAX_PIECE_BYTES = 1024 * 1024
DISK_BYTES = 256 * 1024 * 1024


@dataclass
class _Handle:
    name: str
    mode: int
    position: int
    session: Any


class FileSystem:
    """Files in one folder of the address space."""

    def __init__(self, space: Space, at: NodeId, folder: Path | None, changed: Callable[[], None]) -> None:
        """`folder`: where files are kept, and read from now. `changed` is called when there are others."""
        self._space = space
        self._at = at
        self._folder = folder
        self._changed = changed
        self._files: dict[str, bytearray] = {}
        self._handles: dict[int, _Handle] = {}
        self._last_handle = 0
        self.corrupts = False
        """The next file that is written gets one wrong bit."""
        self.disk_bytes = DISK_BYTES
        self._directory_methods()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.iterdir()):
                if path.is_file():
                    self._files[path.name] = bytearray(path.read_bytes())
                    self._add(path.name)

    def names(self) -> list[str]:
        """All files."""
        return sorted(self._files)

    def content(self, name: str) -> bytes | None:
        """What is in a file; None if there is none."""
        found = self._files.get(name)
        return None if found is None else bytes(found)

    def clear(self) -> None:
        """No files any more, whoever has them open."""
        self._handles.clear()
        for name in self.names():
            self._remove(name)
        self._changed()

    def close_of(self, session: Any) -> None:
        """Close what a session has left open."""
        for handle in [number for number, each in self._handles.items() if each.session == session]:
            self._close(handle)

    async def publish(self) -> None:
        """Show sizes and how often each file is open."""
        for name, data in self._files.items():
            at = self._space.below(self._at, f"home:{name}")
            opened = sum(1 for each in self._handles.values() if each.name == name)
            await self._space.write(self._space.below(at, "Size"), UINT64, len(data))
            await self._space.write(self._space.below(at, "OpenCount"), UINT16, opened)

    # -- the directory

    def _directory_methods(self) -> None:
        space, at = self._space, self._at

        async def create_directory(_name: str) -> tuple[Any, ...]:
            raise RefusedError(ua.StatusCodes.BadNotSupported)

        async def create_file(name: str, opens: bool) -> tuple[Any, ...]:
            self._check_name(name)
            self._files[name] = bytearray()
            node = self._add(name)
            handle = self._open(name, READ | WRITE) if opens else 0
            self._changed()
            await self.publish()
            return node, handle

        async def delete(node: NodeId) -> tuple[Any, ...]:
            self._remove(self._name_of(node))
            self._changed()
            return ()

        async def move_or_copy(node: NodeId, target: NodeId, copies: bool, new_name: str) -> tuple[Any, ...]:
            name = self._name_of(node)
            if target != at:
                raise RefusedError(ua.StatusCodes.BadInvalidArgument)
            self._check_name(new_name or name)
            if not copies and any(each.name == name for each in self._handles.values()):
                raise RefusedError(ua.StatusCodes.BadInvalidState)
            self._files[new_name] = bytearray(self._files[name])
            made = self._add(new_name)
            self._save(new_name)
            if not copies:
                self._remove(name)
            self._changed()
            await self.publish()
            return (made,)

        space.method(
            at,
            "CreateDirectory",
            [Argument("DirectoryName", STRING)],
            [Argument("DirectoryNodeId", NODE)],
            create_directory,
        )
        space.method(
            at,
            "CreateFile",
            [Argument("FileName", STRING), Argument("RequestFileOpen", BOOLEAN)],
            [Argument("FileNodeId", NODE), Argument("FileHandle", UINT32)],
            create_file,
        )
        space.method(at, "Delete", [Argument("ObjectToDelete", NODE)], [], delete)
        space.method(
            at,
            "MoveOrCopy",
            [
                Argument("ObjectToMoveOrCopy", NODE),
                Argument("TargetDirectory", NODE),
                Argument("CreateCopy", BOOLEAN),
                Argument("NewName", STRING),
            ],
            [Argument("NewNodeId", NODE)],
            move_or_copy,
        )

    def _check_name(self, name: str) -> None:
        if not name or "/" in name or name in (".", ".."):
            raise RefusedError(ua.StatusCodes.BadInvalidArgument)
        if name in self._files:
            raise RefusedError(ua.StatusCodes.BadBrowseNameDuplicated)

    def _name_of(self, node: NodeId) -> str:
        for name in self._files:
            if self._space.below(self._at, f"home:{name}") == node:
                return name
        raise RefusedError(ua.StatusCodes.BadNotFound)

    def _remove(self, name: str) -> None:
        if any(each.name == name for each in self._handles.values()):
            raise RefusedError(ua.StatusCodes.BadInvalidState)
        del self._files[name]
        self._space.remove(self._space.below(self._at, f"home:{name}"))
        if self._folder is not None:
            (self._folder / name).unlink(missing_ok=True)

    # -- one file

    def _add(self, name: str) -> NodeId:
        space = self._space
        at = space.object(self._at, f"home:{name}", "11575")
        space.variable(at, "Size", UINT64, len(self._files[name]))
        space.variable(at, "Writable", BOOLEAN, True)
        space.variable(at, "UserWritable", BOOLEAN, True)
        space.variable(at, "OpenCount", UINT16, 0)
        space.variable(at, "MaxByteStringLength", UINT32, MAX_PIECE_BYTES)
        handle = Argument("FileHandle", UINT32)

        async def open_(mode: int) -> tuple[Any, ...]:
            opened = self._open(name, mode)
            await self.publish()
            return (opened,)

        async def close(number: int) -> tuple[Any, ...]:
            self._handle(name, number)
            self._close(number)
            await self.publish()
            return ()

        async def read(number: int, length: int) -> tuple[Any, ...]:
            return (self._read(self._handle(name, number), length),)

        async def write(number: int, data: bytes | None) -> tuple[Any, ...]:
            self._write(self._handle(name, number), data or b"")
            await space.write(space.below(at, "Size"), UINT64, len(self._files[name]))
            return ()

        async def get_position(number: int) -> tuple[Any, ...]:
            return (self._handle(name, number).position,)

        async def set_position(number: int, position: int) -> tuple[Any, ...]:
            self._handle(name, number).position = min(position, len(self._files[name]))
            return ()

        space.method(at, "Open", [Argument("Mode", "3")], [handle], open_)
        space.method(at, "Close", [handle], [], close)
        space.method(at, "Read", [handle, Argument("Length", INT32)], [Argument("Data", BYTES)], read)
        space.method(at, "Write", [handle, Argument("Data", BYTES)], [], write)
        space.method(at, "GetPosition", [handle], [Argument("Position", UINT64)], get_position)
        space.method(at, "SetPosition", [handle, Argument("Position", UINT64)], [], set_position)
        return at

    def _open(self, name: str, mode: int) -> int:
        if not mode & (READ | WRITE) or mode > 15 or (mode & (ERASE | APPEND) and not mode & WRITE):
            raise RefusedError(ua.StatusCodes.BadInvalidArgument)
        others = [each for each in self._handles.values() if each.name == name]
        if mode & WRITE and others:
            raise RefusedError(ua.StatusCodes.BadNotWritable)
        if any(each.mode & WRITE for each in others):
            raise RefusedError(ua.StatusCodes.BadNotReadable)
        if mode & ERASE:
            self._files[name].clear()
        position = len(self._files[name]) if mode & APPEND else 0
        self._last_handle += 1
        self._handles[self._last_handle] = _Handle(name, mode, position, session_id.get())
        return self._last_handle

    def _handle(self, name: str, number: int) -> _Handle:
        found = self._handles.get(number)
        if found is None or found.name != name or found.session != session_id.get():
            raise RefusedError(ua.StatusCodes.BadInvalidArgument)
        return found

    def _read(self, handle: _Handle, length: int) -> bytes:
        if not handle.mode & READ or length < 0:
            raise RefusedError(ua.StatusCodes.BadNotReadable if length >= 0 else ua.StatusCodes.BadInvalidArgument)
        end = handle.position + min(length, MAX_PIECE_BYTES)
        data = bytes(self._files[handle.name][handle.position : end])
        handle.position += len(data)
        return data

    def _write(self, handle: _Handle, data: bytes) -> None:
        if not handle.mode & WRITE:
            raise RefusedError(ua.StatusCodes.BadNotWritable)
        if len(data) > MAX_PIECE_BYTES:
            raise RefusedError(ua.StatusCodes.BadRequestTooLarge)
        content = self._files[handle.name]
        used = sum(len(each) for each in self._files.values())
        if used + max(0, handle.position + len(data) - len(content)) > self.disk_bytes:
            raise RefusedError(ua.StatusCodes.BadResourceUnavailable)
        if self.corrupts and data:
            data = bytes((data[0] ^ 1, *data[1:]))
            self.corrupts = False
        content[handle.position : handle.position + len(data)] = data
        handle.position += len(data)

    def _close(self, number: int) -> None:
        handle = self._handles.pop(number)
        if handle.mode & WRITE:
            self._save(handle.name)
            self._changed()

    def _save(self, name: str) -> None:
        if self._folder is not None:
            (self._folder / name).write_bytes(self._files[name])
