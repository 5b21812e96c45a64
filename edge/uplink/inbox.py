"""What comes from the centre, judged one after the other.

Rules

1. What came is acknowledged after its verdict is durable. If the journal cannot be written, it waits, and so does all
   that comes after it; nothing is acknowledged that could be lost.
2. A message that our own code stumbles over is counted, logged and acknowledged: it never blocks the rest.
3. Messages are judged in the order in which they came, several in one commit. What comes after a large one, which
   takes its turn at the intake, waits for its verdict: the cancellation of an order that is not known yet would be
   refused for good. No more of them are in memory than `RECEIVE_MAXIMUM`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from edge.clock import SystemClock
from edge.errors import IllegalTransitionError, JournalError, StoreClosedError
from edge.intake.intake import LARGE_BYTES
from edge.logs import log_bug
from edge.uplink.mqtt import RECEIVE_MAXIMUM
from edge.uplink.port import Message, Uplink
from edge.uplink.topics import What, topic

log = logging.getLogger("edge.uplink")

ACTOR = "mqtt"

RETRY_S = 1.0
"""Pause before a message that could not be written down is tried again."""

Intake = Callable[[bytes, str], Awaitable[object]]
TakeAck = Callable[[bytes, float], Awaitable[None]]


class Inbox:
    """`intake` judges what comes on ``…/in``, `take_ack` what comes on ``…/ack``; both are durable on return."""

    def __init__(self, site: str, intake: Intake, take_ack: TakeAck, clock: SystemClock) -> None:
        self._site = site
        self._intake = intake
        self._take_ack = take_ack
        self._clock = clock
        self._waiting: set[int] = set()  # messages that those behind them wait for, by their number in `received`
        self._moved = asyncio.Event()
        self.trouble = ""  # a journal that takes nothing; empty while all is well
        self.received = 0
        self.poison = 0

    async def receive(self, uplink: Uplink) -> None:
        """Take what comes over one connection, until it is lost. Raises `UplinkError`."""
        room = asyncio.Semaphore(RECEIVE_MAXIMUM)
        tasks: set[asyncio.Task[None]] = set()
        messages = uplink.messages()
        try:
            async for message in messages:
                await room.acquire()
                task = asyncio.create_task(self._take(message), name="a message from the centre")
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(lambda _: room.release())
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _take(self, message: Message) -> None:
        """Take one message until what follows from it is durable, and acknowledge it."""
        self.received += 1
        mine = self.received
        if len(message.payload) > LARGE_BYTES:
            self._waiting.add(mine)
        try:
            await self._take_in_turn(message, mine)
        finally:
            self._waiting.discard(mine)
            self._moved.set()

    async def _take_in_turn(self, message: Message, mine: int) -> None:
        while True:
            while min(self._waiting, default=mine) < mine:
                self._moved.clear()
                await self._moved.wait()
            try:
                await self._judge(message)
            except StoreClosedError:
                return  # the daemon stops; it comes again
            except IllegalTransitionError as error:
                self._stumbled(message, str(error))
            except JournalError as error:
                self._stuck(f"the journal cannot be written: {error}")
                self._waiting.add(mine)
                await asyncio.sleep(RETRY_S)
                continue
            except Exception as error:  # noqa: BLE001 - one message must not block the rest: logged whole, and counted
                self._stumbled(message, f"internal error ({log_bug(log, error)})")
            else:
                self._stuck("")
            await message.ack()
            return

    async def _judge(self, message: Message) -> None:
        if message.topic == topic(self._site, What.IN):
            await self._intake(message.payload, ACTOR)
        elif message.topic == topic(self._site, What.ACK):
            await self._take_ack(message.payload, self._clock.mono_s())

    def _stumbled(self, message: Message, why: str) -> None:
        self.poison += 1
        log.error("a message of %d bytes from %s is put aside: %s", len(message.payload), message.topic, why)

    def _stuck(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.error("%s; what came waits", trouble)
        self.trouble = trouble
