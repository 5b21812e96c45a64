"""A network between two processes that a test can cut: bytes wait, as they do behind a pulled cable."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

START_S = 10.0


class Network:
    """Made by `network`. `port` is where the other side is reached through it."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._whole = asyncio.Event()
        self._whole.set()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._answering = True
        self.port = 0
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(START_S)

    def cut(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.clear)

    def deafen(self) -> None:
        """From now on requests arrive, and answers wait."""
        self._answering = False

    def drop(self) -> None:
        """Hang up on both sides; who connects again is let through."""
        self._loop.call_soon_threadsafe(self._hang_up)

    def go_away(self) -> None:
        """Hang up on both sides; who connects again is refused."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(START_S)

    def come_back(self) -> None:
        """Let through who connects, at the same port."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(START_S)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.set)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)
        self._loop.close()

    def _hang_up(self) -> None:
        self._answering = True
        for pump in self._pumps:
            pump.cancel()

    async def _serve(self) -> None:
        await self._listen()
        self._ready.set()
        await self._stop.wait()
        await self._close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._hang_up()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._whole.wait()
            far, other = await asyncio.open_connection("127.0.0.1", self._target)
            pumps = [asyncio.create_task(self._pump(reader, other)), asyncio.create_task(self._pump(far, writer, True))]
            self._pumps.update(pumps)
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                    self._pumps.discard(pump)
        for end in (writer, other):
            if end is not None:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._whole.wait()
                if answers and not self._answering:
                    await asyncio.Event().wait()  # for good: the connection is dropped next
                writer.write(data)
                await writer.drain()


@contextlib.contextmanager
def network(target: int) -> Iterator[Network]:
    """Between whoever connects to its `port` and what listens on loopback's port `target`."""
    made = Network(target)
    made.start()
    try:
        yield made
    finally:
        made.end()
