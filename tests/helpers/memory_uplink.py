"""An uplink in memory: what is published is kept, what comes is put in, and it can be lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from edge.uplink.port import Message, Trouble, UplinkError

LOST = UplinkError(Trouble.LOST, "the line was cut")


@dataclass
class MemoryMessage:
    topic: str
    payload: bytes
    acked: bool = False
    again: bool = False

    async def ack(self) -> None:
        self.acked = True


@dataclass
class MemoryUplink:
    """One connection. `refuses` gives what the broker says of a topic, or None."""

    published: list[tuple[str, bytes, bool]] = field(default_factory=list)
    refuses: Callable[[str], UplinkError | None] = lambda _: None
    coming: asyncio.Queue[MemoryMessage | None] = field(default_factory=asyncio.Queue)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
        if (error := self.refuses(topic)) is not None:
            raise error
        self.published.append((topic, payload, retain))

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self.coming.get()) is not None:
            yield message
        raise LOST

    def come(self, topic: str, *payloads: bytes) -> list[MemoryMessage]:
        """Something comes in."""
        messages = [MemoryMessage(topic, payload) for payload in payloads]
        for message in messages:
            self.coming.put_nowait(message)
        return messages

    def cut(self) -> None:
        self.coming.put_nowait(None)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[MemoryUplink]:
        yield self
