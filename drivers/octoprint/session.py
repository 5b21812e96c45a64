"""What OctoPrint is doing, as far as it says: by its push socket, and by asking when that is silent.

Whatever came last counts as seen, and its age is edge's to tell. An OctoPrint that does not answer is out of sight, and
what it does goes on; only after `patience_s` is it given up, which latches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import aiohttp

from drivers.octoprint import api
from drivers.octoprint.client import AnswerError, Client
from edge.driver import DriverContext, LinkLostError, MachineError, Motion, NotConfirmedError, ProtocolError

THROTTLE = 4
"""Push messages of the state come every 0.5 s times this (octoprint/server/util/sockjs.py); events come at once."""

POLL_S = 5.0
"""When the push socket was silent for so long, it is asked; while OctoPrint is offline it is always silent."""

LOOK_AGAIN_S = 0.5
"""How often those look again who wait for something to happen, if no news comes before."""

RETRY_S = 1.0
RELISTEN_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before the push socket is tried again; the last one repeats."""

LOCKED_OUT_S = 60.0
"""OctoPrint lets nobody in for a minute after three failed log-ins."""

OUT_OF_SIGHT_S = 3.0
"""So long without an answer is worth telling."""


log = logging.getLogger("drivers.octoprint")


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom it is told to."""

    job: Callable[[api.Job], None]
    heaters: Callable[[tuple[api.Heater, ...]], None]
    event: Callable[[api.Occurred], None]
    safe_mode: Callable[[str], None]
    out_of_sight: Callable[[str], None]


class Session:
    """One OctoPrint, watched by `listen` and `poll` as long as they run."""

    def __init__(self, client: Client, context: DriverContext, listener: Listener, patience_s: float) -> None:
        self._client = client
        self._context = context
        self._listener = listener
        self.patience_s = patience_s
        self.job: api.Job | None = None
        self.failure: MachineError | None = None
        self._heard_s = context.clock.mono_s()
        self._dark = False
        self._count = 0
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()  # somebody wants OctoPrint to be asked now

    # For those who wait

    @property
    def count(self) -> int:
        """Of news so far, for `news`."""
        return self._count

    async def news(self, seen: int, within_s: float | None = None) -> int:
        """Wait until there was more news than `seen`, a failure, or the time is over; the count by then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._count == seen and self.failure is None:
                    await self._news.wait()
        return self._count

    async def lost(self) -> MachineError:
        """Wait for the failure."""
        while self.failure is None:
            await self._news.wait()
        return self.failure

    def check(self, motion: Motion = Motion.POSSIBLE) -> None:
        """Raises what the failure means for a run, if there was one: before that has begun it has moved nothing."""
        failure = self.failure
        if failure is None:
            return
        if isinstance(failure, LinkLostError):
            raise failure
        if motion is Motion.NONE:
            raise MachineError(str(failure), Motion.NONE)
        raise NotConfirmedError(str(failure))

    def fail(self, error: MachineError) -> None:
        """Latch."""
        if self.failure is None:
            self.failure = error
            self._tell()

    def ended(self, watching: asyncio.Task[None]) -> None:
        """A task that watches has ended: if by a mistake of ours, nothing may look as if it were still seen."""
        if not watching.cancelled() and (error := watching.exception()) is not None:
            log.error("the watch over %s has ended", self._client.url, exc_info=error)
            self.fail(MachineError(f"{self._client.url} is not watched any more, by a mistake in the driver"))

    async def refresh(self) -> api.Job:
        """Ask now. Raises `MachineError`."""
        job = await self._client.job()
        self._saw(job)
        return job

    # The tasks

    async def listen(self) -> None:
        """Keep the push socket open, for ever."""
        failures = 0
        while True:
            began_s = self._context.clock.mono_s()
            pause_s = RELISTEN_S[min(failures, len(RELISTEN_S) - 1)]
            try:
                await self._listen()
            except AnswerError as error:
                pause_s = LOCKED_OUT_S if error.status == 429 else pause_s
            except MachineError:
                pass  # asking by REST tells whether, and why, nobody is there
            failures = 0 if self._context.clock.mono_s() - began_s > RELISTEN_S[-1] else failures + 1
            self._wanted.set()
            await asyncio.sleep(pause_s)

    async def _listen(self) -> None:
        async with self._client.listening() as socket:
            await socket.send_json({"throttle": THROTTLE})
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                for said in _understood(message.data):
                    if isinstance(said, api.Stale):
                        return
                    self._pushed(said)

    def _pushed(self, said: api.Push) -> None:
        match said:
            case api.Current(job=job, heaters=heaters):
                self._saw(job)
                self._listener.heaters(heaters)
            case api.Occurred():
                self._listener.event(said)
                self._tell()
                self._wanted.set()  # an event is a hint; the state is the fact
            case api.Greeting(safe_mode=safe_mode):
                self._listener.safe_mode(safe_mode)
            case api.Stale():
                pass

    async def poll(self) -> None:
        """Ask whenever the push socket has been silent, or somebody wants it; give up after `patience_s`."""
        clock = self._context.clock
        pause_s = POLL_S
        while self.failure is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            silent = clock.mono_s() - self._heard_s >= POLL_S
            if not silent and not self._wanted.is_set():
                pause_s = max(0.1, POLL_S - (clock.mono_s() - self._heard_s))
                continue
            self._wanted.clear()
            pause_s = POLL_S
            try:
                await self.refresh()
                if silent:
                    self._listener.heaters(await self._client.heaters())
            except MachineError as error:
                pause_s = RETRY_S
                self._unheard(error)

    # What is seen

    def _saw(self, job: api.Job) -> None:
        self._heard_s = self._context.clock.mono_s()
        self._dark = False
        self.job = job
        self._listener.job(job)
        self._tell()

    def _unheard(self, error: MachineError) -> None:
        """OctoPrint has not answered, or not as it should."""
        silent_s = self._context.clock.mono_s() - self._heard_s
        if silent_s >= self.patience_s:
            self.fail(LinkLostError(f"{error}; the last answer is {silent_s:.0f} s old"))
        elif silent_s >= OUT_OF_SIGHT_S and not self._dark:
            self._dark = True
            self._listener.out_of_sight(str(error))

    def _tell(self) -> None:
        self._count += 1
        news, self._news = self._news, asyncio.Event()
        news.set()


def _understood(text: str) -> list[api.Push]:
    try:
        return api.push(text)
    except api.NotUnderstoodError as error:
        raise ProtocolError(str(error)) from error
