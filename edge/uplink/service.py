"""The daemon's task that keeps the connection to the centre: takes what comes in, and says how the site is.

Rules

1. What came is acknowledged after its verdict is durable. If the journal cannot be written, it waits, and so does all
   that comes after it; nothing is acknowledged that could be lost.
2. A message that our own code stumbles over is counted, logged and acknowledged: it never blocks the rest.
3. Messages are judged in the order in which they came, several in one commit. No more of them are in memory than
   `RECEIVE_MAXIMUM`.
4. A new connection after each loss, after a pause that is drawn anew each time: many sites that lost one broker do not
   come back in step (full jitter).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from edge.clock import SystemClock
from edge.errors import IllegalTransitionError, JournalError, StoreClosedError
from edge.logs import log_bug
from edge.tasks import until_first
from edge.uplink.mqtt import RECEIVE_MAXIMUM
from edge.uplink.port import Message, Trouble, Uplink, UplinkError
from edge.uplink.topics import What, topic

log = logging.getLogger("edge.uplink")

ACTOR = "mqtt"
PAUSE_S = 1.0
PAUSE_MAX_S = 60.0
RETRY_S = 1.0
"""Pause before a message that was not taken, or could not be written down, is tried again."""

STATE_S = 1.0
"""The site's state is published no more often than this."""

STATE_AGAIN_S = 60.0
"""And no less often: whoever reads it sees by its age that the site is alive."""

OFFLINE_S = 60.0
"""A connection that is away for less than this is nobody's business."""

SILENT_S = 300.0
"""Events that wait longer than this for a collector's acknowledgement, with a broker that takes them."""

QUICK_S = 10.0
FLAPS = 3
"""So many connections in a row, each lost before `QUICK_S`, look like two clients under one name."""

GOODBYE_S = 2.0

Connect = Callable[[], AbstractAsyncContextManager[Uplink]]
Intake = Callable[[bytes, str], Awaitable[object]]
Look = Callable[[], Awaitable[Mapping[str, Any]]]


class Reporting(Protocol):
    """What sends the journal's tail: `edge.uplink.outbox`."""

    async def send(self, uplink: Uplink) -> None:
        """Send over one connection until cancelled. Raises `UplinkError`."""

    async def take_ack(self, raw: bytes, now_s: float) -> None:
        """What came as an acknowledgement; durable on return."""

    def waiting_s(self, now_s: float) -> float:
        """How long the oldest event that was sent waits for its acknowledgement, in seconds; 0 if none does."""

    def attention(self) -> list[str]:
        """What keeps events from being reported, in sentences."""

    def view(self) -> Mapping[str, Any]:
        """How reporting goes, as docs/json.md has it."""


class UplinkService:
    """`serve` is the task. `fingerprint` changes when `look` would give another state; it is asked every second."""

    def __init__(
        self,
        *,
        where: str,
        site: str,
        connect: Connect,
        intake: Intake,
        look: Look,
        seal: Callable[[bytes], bytes],
        fingerprint: Callable[[], object],
        clock: SystemClock,
        reporting: Reporting | None = None,
    ) -> None:
        self._where = where
        self._site = site
        self._connect = connect
        self._intake = intake
        self._look = look
        self._seal = seal
        self._fingerprint = fingerprint
        self._clock = clock
        self._reporting = reporting
        self._online = False
        self._since_s = clock.mono_s()
        self._since = clock.stamp().at_wall
        self._error: UplinkError | None = None
        self._denied: dict[str, UplinkError] = {}
        self._flaps = 0
        self._waiting: set[int] = set()  # messages that the journal has not taken, by their number in `received`
        self._moved = asyncio.Event()
        self.trouble = ""  # a bug, or a journal that takes nothing; empty while all is well
        self.received = 0
        self.poison = 0
        self.connections = 0

    # How it is

    def view(self) -> dict[str, Any]:
        """The object ``uplink`` of `edge status --json`."""
        found = self._worst()
        return {
            "where": self._where,
            "online": self._online,
            "since": self._since,
            "trouble": None if found is None else str(found.trouble),
            "text": "" if found is None else str(found),
            "connections": self.connections,
            "received": self.received,
            "poison": self.poison,
            "attention": self._attention(),
            "reporting": None if self._reporting is None else dict(self._reporting.view()),
        }

    def _attention(self) -> list[str]:
        found = [f"the uplink does not work: {self.trouble}"] if self.trouble else []
        worst = self._worst()
        passing = worst is not None and worst.trouble in (Trouble.LOST, Trouble.UNREACHABLE)
        if worst is not None and not (passing and self._clock.mono_s() - self._since_s < OFFLINE_S):
            found.append(str(worst))
        return found if self._reporting is None else [*found, *self._reporting.attention()]

    def _worst(self) -> UplinkError | None:
        if self._error is not None:
            return self._error
        if self._flaps >= FLAPS and self._clock.mono_s() - self._since_s < QUICK_S:
            return self._flapping()  # connected again, and not for long enough to believe in it
        if self._denied:
            return next(iter(self._denied.values()))
        waiting_s = self._reporting.waiting_s(self._clock.mono_s()) if self._reporting is not None else 0.0
        if self._online and min(waiting_s, self._clock.mono_s() - self._since_s) > SILENT_S:
            text = f"the broker {self._where} takes what is reported, and no collector has acknowledged for"
            return UplinkError(Trouble.NO_ACKNOWLEDGEMENT, f"{text} {waiting_s / 60:.0f} minutes")
        return None

    # The task

    async def serve(self) -> None:
        """Connect again and again, until cancelled."""
        failures = 0
        while True:
            began_s = self._clock.mono_s()
            try:
                async with self._connect() as uplink:
                    failures = 0
                    await self._up(uplink)
            except UplinkError as error:
                self._went_down(error, self._clock.mono_s() - began_s)
            failures += 1
            await asyncio.sleep(random.uniform(0.0, min(PAUSE_MAX_S, PAUSE_S * 2**failures)))

    async def _up(self, uplink: Uplink) -> None:
        """Work over one connection. Raises `UplinkError` when it is lost."""
        self._turned(online=True)
        self.connections += 1
        self._error = None
        self._denied.clear()
        log.info("connected to the broker %s", self._where)
        work = {"uplink: receive": self._receive(uplink), "uplink: tell": self._tell(uplink)}
        if self._reporting is not None:
            work["uplink: report"] = self._report(uplink, self._reporting)
        try:
            await until_first(work)
        except asyncio.CancelledError:
            with contextlib.suppress(UplinkError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await uplink.publish(topic(self._site, What.LINK), self._link(online=False), retain=True)
            raise

    def _link(self, *, online: bool) -> bytes:
        return link(self._site, online=online, at=self._clock.stamp().at_wall)

    def _turned(self, *, online: bool) -> None:
        if self._online != online:
            self._online = online
            self._since_s, self._since = self._clock.mono_s(), self._clock.stamp().at_wall

    def _flapping(self) -> UplinkError:
        text = f"the connection to the broker {self._where} is lost again and again: perhaps another client connects"
        return UplinkError(Trouble.TAKEN_OVER, f"{text} under this site's name")

    def _went_down(self, error: UplinkError, lasted_s: float) -> None:
        was_up = self._online
        self._flaps = self._flaps + 1 if was_up and lasted_s < QUICK_S else 0
        if self._flaps >= FLAPS and error.trouble is Trouble.LOST:
            error = self._flapping()
        self._turned(online=False)
        if self._error is None or str(self._error) != str(error):
            log.warning("%s; trying again", error)
        self._error = error

    # What comes in

    async def _receive(self, uplink: Uplink) -> None:
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
        try:
            await self._take_in_turn(message, mine)
        finally:
            self._waiting.discard(mine)
            self._moved.set()

    async def _take_in_turn(self, message: Message, mine: int) -> None:
        while True:
            while min(self._waiting, default=mine) < mine:  # what came before waits for the journal
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
        elif message.topic == topic(self._site, What.ACK) and self._reporting is not None:
            await self._reporting.take_ack(message.payload, self._clock.mono_s())

    def _stumbled(self, message: Message, why: str) -> None:
        self.poison += 1
        log.error("a message of %d bytes from %s is put aside: %s", len(message.payload), message.topic, why)

    def _stuck(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.error("%s; what came waits", trouble)
        self.trouble = trouble

    # What goes out

    async def _tell(self, uplink: Uplink) -> None:
        await self._say(uplink, What.LINK, self._link(online=True))
        told: object = None
        told_s = 0.0
        while True:
            now_s, seen = self._clock.mono_s(), self._fingerprint()
            pause_s = STATE_S
            if seen != told or now_s - told_s >= STATE_AGAIN_S:
                payload = json.dumps(await self._look(), separators=(",", ":")).encode()
                await self._say(uplink, What.STATE, self._seal(payload))
                told, told_s = seen, self._clock.mono_s()
                pause_s = max(STATE_S, 10 * (told_s - now_s))  # a tenth of the time at most, on however slow a host
            await asyncio.sleep(pause_s)

    async def _report(self, uplink: Uplink, reporting: Reporting) -> None:
        watched = _Watched(uplink, self._was_told)
        while True:
            try:
                await reporting.send(watched)
            except UplinkError as error:
                if error.ends_the_connection:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _say(self, uplink: Uplink, what: What, payload: bytes) -> None:
        """Publish something retained; what the broker does not take is shown, and is no reason to hang up."""
        try:
            await _Watched(uplink, self._was_told).publish(topic(self._site, what), payload, retain=True)
        except UplinkError as error:
            if error.ends_the_connection:
                raise

    def _was_told(self, name: str, error: UplinkError | None) -> None:
        if error is None:
            self._denied.pop(name, None)
            return
        if str(self._denied.get(name)) != str(error):
            log.error("%s", error)
        self._denied[name] = error


class _Watched:
    """An uplink whose publishing is watched; nobody reads from it."""

    def __init__(self, uplink: Uplink, told: Callable[[str, UplinkError | None], None]) -> None:
        self._uplink = uplink
        self._told = told

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """See `Uplink`."""
        try:
            await self._uplink.publish(topic, payload, retain=retain)
        except UplinkError as error:
            if not error.ends_the_connection:
                self._told(topic, error)
            raise
        self._told(topic, None)

    def messages(self) -> AsyncIterator[Message]:
        """See `Uplink`."""
        return self._uplink.messages()


def link(site: str, *, online: bool, at: str | None = None) -> bytes:
    """The retained message on ``…/link``; `at` is missing in the last will, which the broker publishes."""
    return json.dumps({"site": site, "online": online, "at": at}).encode()
