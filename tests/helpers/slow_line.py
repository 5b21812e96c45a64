"""A TCP line on 127.0.0.1 that can be cut, stopped and slowed down.

async with SlowLine(broker.port) as line:
    ... line.port ...
    line.cut()              every connection is reset; new ones are let through, unless `line.refuses`
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

HOST = "127.0.0.1"


class SlowLine:
    """`bytes_per_s` slows both directions down; while `refuses`, nobody gets through."""

    def __init__(self, target: int, bytes_per_s: float | None = None) -> None:
        self._target = target
        self.bytes_per_s = bytes_per_s
        self.refuses = False
        self.port = 0
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """End every connection, without a goodbye."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self.refuses:
                return
            there, back = await asyncio.open_connection(HOST, self._target)
            self._writers.add(back)
            self.connections += 1
            try:
                both = [
                    asyncio.create_task(self._pass(reader, back), name="there"),
                    asyncio.create_task(self._pass(there, writer), name="back"),
                ]
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                for one in both:
                    one.cancel()
                await asyncio.wait(both)
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except OSError:  # the target is away
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                if self.bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
