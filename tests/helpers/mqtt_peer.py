"""A broker that says exactly what a test wants said: MQTT 5 by bytes (OASIS standard, section numbers below).

async with Peer() as peer:
    peer.puback = 0x97
    async with connect(peer.broker, "berlin-1", ["mf/v1/berlin-1/in"]) as uplink: …
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Self

from edge.uplink.broker import Broker

HOST = "127.0.0.1"
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 14
RECEIVE_MAXIMUM, MAXIMUM_PACKET_SIZE, RETAIN_AVAILABLE = 0x21, 0x27, 0x25
"""Properties of CONNACK, section 3.2.2.3."""


class Peer:
    """What it answers; None: nothing. `properties` go into CONNACK. `acked` are the messages acknowledged to it.

    With a session it says that it knows the client, and sends what waited, (topic, payload), right behind CONNACK.
    """

    def __init__(self) -> None:
        self.connack: int | None = 0
        self.suback: int | None = 1
        self.puback: int | None = 0
        self.properties = b""
        self.session: list[tuple[str, bytes]] | None = None
        self.published: list[tuple[int, bytes]] = []  # packet type's flags, body
        self.acked: list[int] = []
        self.connects: list[bytes] = []
        self.reads = asyncio.Event()  # cleared: it takes nothing more from the line
        self.reads.set()
        self.small = False  # the line holds hardly anything
        self.seen = asyncio.Event()
        self.broker = Broker(HOST, 0, None)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        with socket.socket() as listening:
            listening.bind((HOST, 0))
            if self.small:  # before the connection, since its window scale is agreed upon then
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
            self._server = await asyncio.start_server(self._serve, sock=listening.dup(), limit=1024)
        self.broker = Broker(HOST, self._server.sockets[0].getsockname()[1], None)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def hang_up(self, code: int | None = None) -> None:
        """End every connection, with a DISCONNECT (section 3.14) if there is a code."""
        for writer in self._writers:
            if code is not None:
                writer.write(packet(DISCONNECT, 0, bytes([code])))
                writer.close()
            else:
                writer.transport.abort()

    def send(self, topic: str, payload: bytes, mid: int, qos: int = 1) -> None:
        """PUBLISH to whoever is connected (section 3.3)."""
        identifier = mid.to_bytes(2, "big") if qos else b""
        for writer in self._writers:
            writer.write(packet(PUBLISH, qos << 1, text(topic) + identifier + b"\0" + payload))

    def _greeting(self) -> list[bytes]:
        if self.connack is None:
            return []
        properties = _length(len(self.properties)) + self.properties
        waited = [
            packet(PUBLISH, 1 << 1, text(topic) + mid.to_bytes(2, "big") + b"\0" + payload)
            for mid, (topic, payload) in enumerate(self.session or [], start=1)
        ]
        return [packet(CONNACK, 0, bytes([self.session is not None, self.connack]) + properties), *waited]

    def begin(self, size: int, content: bytes) -> None:
        """The beginning of a PUBLISH that says it has `size` bytes."""
        for writer in self._writers:
            writer.write(bytes([PUBLISH << 4]) + _length(size) + content)

    async def until(self, count: int, of: list[int]) -> None:
        """Wait until so many are there."""
        async with asyncio.timeout(20):
            while len(of) < count:
                self.seen.clear()
                await self.seen.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    await self.reads.wait()
                    kind, flags, body = await read_packet(reader)
                    for answer in self._answers(kind, flags, body):
                        writer.write(answer)
                    self.seen.set()
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    def _answers(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        if kind == CONNECT:
            self.connects.append(body)
            return self._greeting()
        if kind == SUBSCRIBE:
            topics = body[3:].count(b"mf/v1/")
            codes = b"" if self.suback is None else bytes([self.suback]) * topics
            return [packet(SUBACK, 0, body[:2] + b"\0" + codes)] if codes else []
        if kind == PUBLISH:
            self.published.append((flags, body))
            size = int.from_bytes(body[:2], "big")
            identifier = body[2 + size : 4 + size]
            if self.puback is None or not flags & 0x06:  # QoS 0 wants no answer
                return []
            return [packet(PUBACK, 0, identifier + bytes([self.puback, 0]))]
        if kind == PUBACK:
            self.acked.append(int.from_bytes(body[:2], "big"))
        return [packet(PINGREQ + 1, 0, b"")] if kind == PINGREQ else []


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """Type, flags and the rest of the next packet."""
    first = (await reader.readexactly(1))[0]
    size = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return first >> 4, first & 0x0F, await reader.readexactly(size)


def packet(kind: int, flags: int, body: bytes) -> bytes:
    """A control packet, section 2.1."""
    return bytes([kind << 4 | flags]) + _length(len(body)) + body


def _length(size: int) -> bytes:
    """A variable byte integer, section 1.5.5."""
    found = bytearray()
    while True:
        size, byte = divmod(size, 128)
        found.append(byte | (0x80 if size else 0))
        if not size:
            return bytes(found)


def text(text: str) -> bytes:
    """A UTF-8 string, section 1.5.4."""
    return len(text.encode()).to_bytes(2, "big") + text.encode()
