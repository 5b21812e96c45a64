"""The daemon's task that keeps the connection to the centre: takes what comes in, and says how the site is.

Rules

1. One connection at a time. Over it come messages (`inbox`), and go the journal's tail (`outbox`), the site's state,
   and newest values (`telemetry`), which wait for facts.
2. A new connection after each loss, after a pause that is drawn anew each time: many sites that lost one broker do not
   come back in step (full jitter).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from edge.clock import SystemClock
from edge.tasks import until_first
from edge.uplink.attempts import Attempts
from edge.uplink.inbox import Inbox, Intake
from edge.uplink.port import Trouble, Uplink, UplinkError
from edge.uplink.telemetry import Telemetry
from edge.uplink.topics import What, topic
from edge.uplink.watched import Watched

log = logging.getLogger("edge.uplink")

PAUSE_S = 1.0
PAUSE_MAX_S = 60.0
RETRY_S = 1.0
"""Pause before a message that was not taken is tried again."""

STATE_S = 1.0
"""The site's state is published no more often than this."""

STATE_AGAIN_S = 60.0
"""And no less often: whoever reads it sees by its age that the site is alive."""

OFFLINE_S = 60.0
"""A connection that is away for less than this is nobody's business."""

SILENT_S = 300.0
"""Events that wait longer than this for a collector's acknowledgement, with a broker that takes them."""

GOODBYE_S = 2.0

Connect = Callable[[], AbstractAsyncContextManager[Uplink]]
Look = Callable[[], Awaitable[Mapping[str, Any]]]


class Reporting(Protocol):
    """What sends the journal's tail: `edge.uplink.outbox`."""

    @property
    def backlog(self) -> int:
        """How many events are not acknowledged."""

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
    """`serve` is the task. `fingerprint` changes when `look` would give another state; it is asked every second.

    `foresee`: what will keep the site from connecting unless a person does something, in a sentence.
    """

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
        reporting: Reporting,
        telemetry: Telemetry,
        foresee: Callable[[], str] = lambda: "",
    ) -> None:
        self._where = where
        self._site = site
        self._connect = connect
        self._look = look
        self._seal = seal
        self._fingerprint = fingerprint
        self._clock = clock
        self._reporting = reporting
        self._telemetry = telemetry
        self._foresee = foresee
        self._online = False
        self._since_s = clock.mono_s()
        self._since = clock.stamp().at_wall
        self._error: UplinkError | None = None
        self._denied: dict[str, UplinkError] = {}
        self._said = ""  # in the log
        self._attempts = Attempts(PAUSE_S, PAUSE_MAX_S)
        self._flapping: UplinkError | None = None  # why the last connection was lost
        self.inbox = Inbox(site, intake, reporting.take_ack, clock)
        self.connections = 0

    @property
    def trouble(self) -> str:
        """A bug, or a journal that takes nothing; empty while all is well."""
        return self.inbox.trouble

    @trouble.setter
    def trouble(self, trouble: str) -> None:
        self.inbox.trouble = trouble

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
            "received": self.inbox.received,
            "poison": self.inbox.poison,
            "attention": self._attention(),
            "reporting": dict(self._reporting.view()),
            "telemetry": self._telemetry.view(),
        }

    def _attention(self) -> list[str]:
        found = [f"the uplink does not work: {self.trouble}"] if self.trouble else []
        worst = self._worst()
        passing = worst is not None and worst.trouble in (Trouble.LOST, Trouble.ENDED, Trouble.UNREACHABLE)
        passing = passing and not self._attempts.flapping  # what comes again and again does not pass
        if worst is not None and not (passing and self._clock.mono_s() - self._since_s < OFFLINE_S):
            found.append(str(worst))
        foreseen = self._foresee()
        return [*found, *self._reporting.attention(), *([foreseen] if foreseen else [])]

    def _worst(self) -> UplinkError | None:
        if self._error is not None:
            return self._error
        if self._attempts.flapping and not self._attempts.stays(self._clock.mono_s()):
            return self._flapping  # connected again, and not for long enough to believe in it
        if self._denied:
            return next(iter(self._denied.values()))
        waiting_s = self._reporting.waiting_s(self._clock.mono_s())
        if self._online and min(waiting_s, self._clock.mono_s() - self._since_s) > SILENT_S:
            text = f"the broker {self._where} takes what is reported, and no collector has acknowledged for"
            return UplinkError(Trouble.NO_ACKNOWLEDGEMENT, f"{text} {waiting_s / 60:.0f} minutes")
        return None

    # The task

    async def serve(self) -> None:
        """Connect again and again, until cancelled."""
        while True:
            try:
                async with self._connect() as uplink:
                    self._attempts.up(self._clock.mono_s())
                    await self._up(uplink)
            except UplinkError as error:
                self._went_down(error)
            await asyncio.sleep(random.uniform(0.0, self._attempts.pause_s))

    async def _up(self, uplink: Uplink) -> None:
        """Work over one connection. Raises `UplinkError` when it is lost."""
        self._turned(online=True)
        self.connections += 1
        self._error = None
        self._denied.clear()
        # Among those that are lost at once, again and again, it is said of one that stays.
        loop, later_s = asyncio.get_running_loop(), self._attempts.believed_after_s
        saying = loop.call_later(later_s, log.info, "connected to the broker %s", self._where)
        watched = Watched(uplink, self._was_told)
        work = {
            "uplink: receive": self.inbox.receive(uplink),
            "uplink: tell": self._tell(watched),
            "uplink: report": self._report(watched),
        }
        if self._telemetry.every_s:
            work["uplink: telemetry"] = self._telemetry.send(watched, lambda: self._reporting.backlog > 0)
        try:
            await until_first(work)
        except asyncio.CancelledError:
            with contextlib.suppress(UplinkError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await uplink.publish(topic(self._site, What.LINK), self._link(online=False), retain=True)
            raise
        finally:
            saying.cancel()

    def _link(self, *, online: bool) -> bytes:
        return link(self._site, online=online, at=self._clock.stamp().at_wall)

    def _turned(self, *, online: bool) -> None:
        if self._online != online:
            self._online = online
            self._since_s, self._since = self._clock.mono_s(), self._clock.stamp().at_wall

    def _went_down(self, error: UplinkError) -> None:
        stayed = self._attempts.down(self._clock.mono_s())
        if self._attempts.flapping and error.trouble is Trouble.LOST:  # nobody has said why
            text = f"the connection to the broker {self._where} is lost again and again: perhaps another client"
            error = UplinkError(Trouble.TAKEN_OVER, f"{text} connects under this site's name")
        self._flapping = error
        self._turned(online=False)
        if self._said != str(error):
            log.warning("%s; trying again", error)
        self._said = "" if stayed else str(error)
        self._error = error

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

    async def _report(self, uplink: Uplink) -> None:
        while True:
            try:
                await self._reporting.send(uplink)
            except UplinkError as error:
                if error.ends_the_connection:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _say(self, uplink: Uplink, what: What, payload: bytes) -> None:
        """Publish something retained; what the broker does not take is shown, and is no reason to hang up."""
        try:
            await uplink.publish(topic(self._site, what), payload, retain=True)
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


def link(site: str, *, online: bool, at: str | None = None) -> bytes:
    """The retained message on ``…/link``; `at` is missing in the last will, which the broker publishes."""
    return json.dumps({"site": site, "online": online, "at": at}).encode()
