"""A machine of which only the recording of its wire is left, for a test of the driver that talked to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge.transcript import TO, Part


class Replay:
    """One connection over TCP: waits for what was sent then, byte for byte, and answers what was answered then.

    `host`, `port`: where the driver finds it. The seconds of the recording are not waited for.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self._at = 0
        self._wanted = self._got = b""
        self._ended = asyncio.get_running_loop().create_future()
        self._serving: asyncio.Task[None] | None = None
        self.host, self.port = "127.0.0.1", 0

    async def done(self, within_s: float) -> None:
        """Wait until all of it was replayed. Raises `AssertionError` for what was not sent as it was then."""
        try:
            async with asyncio.timeout(within_s):
                await asyncio.shield(self._ended)
        except TimeoutError:
            raise AssertionError(self._difference()) from None

    def _difference(self) -> str:
        so_far = f"crossing {self._at} of {len(self._part.crossed)} in {self._part.name or 'the transcript'}"
        return f"{so_far}: {self._wanted!r} was sent then, and now {self._got!r}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be the machine for one connection; what comes after the recording gets no answer."""
        if self._serving is not None:
            writer.close()
            return
        self._serving = asyncio.current_task()
        try:
            for crossed in self._part.crossed:
                self._at += 1
                if crossed.direction != TO:
                    writer.write(crossed.data)
                    continue
                self._wanted, self._got = crossed.data, b""
                while self._got != crossed.data:
                    more = await reader.read(len(crossed.data) - len(self._got))
                    self._got += more
                    if not more or not crossed.data.startswith(self._got):
                        self._ended.set_exception(AssertionError(self._difference()))
                        return
            self._ended.set_result(None)
            while await reader.read(4096):
                pass
        except OSError as error:
            if not self._ended.done():
                self._ended.set_exception(AssertionError(f"{self._difference()}; {error}"))
        finally:
            writer.close()

    async def close(self) -> None:
        """Hang up."""
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait([self._serving])
        if self._ended.done():
            self._ended.exception()  # seen, also if nobody asked
        self._ended.cancel()


@asynccontextmanager
async def replayed(part: Part) -> AsyncIterator[Replay]:
    """A machine that says again what it said in `part` of a transcript (`parse`), on a free port of 127.0.0.1."""
    replay = Replay(part)
    server = await asyncio.start_server(replay.serve, replay.host, 0)
    replay.port = server.sockets[0].getsockname()[1]
    try:
        yield replay
    finally:
        server.close()
        await replay.close()
        await server.wait_closed()
