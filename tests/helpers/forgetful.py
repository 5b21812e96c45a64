"""A broker that acknowledges everything and forgets some of it: MQTT 5 by bytes, without sessions.

async with Forgetful(random.Random(7), forgets=0.1) as broker:
    ... mqtt://127.0.0.1:{broker.port} ...
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from typing import Self

from tests.helpers.mqtt_peer import (
    CONNACK,
    CONNECT,
    HOST,
    PINGREQ,
    PUBACK,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    packet,
    read_packet,
    text,
)


class Forgetful:
    """`forgets` is the share of messages to `…/out` and `…/ack` that nobody gets; `forgotten` counts them."""

    def __init__(self, chances: random.Random, forgets: float) -> None:
        self._chances = chances
        self._forgets = forgets
        self.port = 0
        self.passed: list[str] = []
        self.forgotten: list[str] = []
        self._numbers = itertools.count()
        self._filters: dict[asyncio.StreamWriter, list[str]] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._filters:
            writer.transport.abort()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._filters[writer] = []
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    self._take(writer, *await read_packet(reader))
                    await writer.drain()
        finally:
            del self._filters[writer]
            self._tasks.discard(task)
            writer.transport.abort()

    def _take(self, writer: asyncio.StreamWriter, kind: int, flags: int, body: bytes) -> None:
        if kind == CONNECT:
            writer.write(packet(CONNACK, 0, b"\0\0\0"))
        elif kind == SUBSCRIBE:
            filters = _filters(body)
            self._filters[writer] += filters
            writer.write(packet(SUBACK, 0, body[:2] + b"\0" + b"\1" * len(filters)))
        elif kind == PUBLISH:
            topic, payload = self._published(writer, flags, body)
            counts = topic.endswith(("/out", "/ack"))
            if counts and self._chances.random() < self._forgets:
                self.forgotten.append(topic)
            else:
                self.passed.append(topic)
                self._hand_on(topic, payload)
        elif kind == PINGREQ:
            writer.write(packet(PINGREQ + 1, 0, b""))

    def _published(self, writer: asyncio.StreamWriter, flags: int, body: bytes) -> tuple[str, bytes]:
        size = 2 + int.from_bytes(body[:2], "big")
        topic, rest = body[2:size].decode(), body[size:]
        if not flags >> 1 & 3:  # QoS 0 has no number, and wants no answer
            return topic, rest[1 + rest[0] :]
        writer.write(packet(PUBACK, 0, rest[:2] + b"\0\0"))
        assert rest[2] < 0x80, "nobody here has that many properties"
        return topic, rest[3 + rest[2] :]

    def _hand_on(self, topic: str, payload: bytes) -> None:
        for writer, filters in self._filters.items():
            if any(_matches(one, topic) for one in filters):
                mid = next(self._numbers) % 0xFFFF + 1
                writer.write(packet(PUBLISH, 2, text(topic) + mid.to_bytes(2, "big") + b"\0" + payload))


def _filters(body: bytes) -> list[str]:
    found, rest = [], body[3 + body[2] :]
    while rest:
        size = 2 + int.from_bytes(rest[:2], "big")
        found.append(rest[2:size].decode())
        rest = rest[size + 1 :]  # behind it are the options
    return found


def _matches(wanted: str, topic: str) -> bool:
    ours, theirs = wanted.split("/"), topic.split("/")
    return len(ours) == len(theirs) and all(one in ("+", other) for one, other in zip(ours, theirs, strict=True))
