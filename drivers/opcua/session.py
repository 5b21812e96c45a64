"""One supervised connection for one machine: found out of order, thrown away, and built anew.

Rules

1. The server's own clock is watched in every subscription. If it stands still for `Connection.silence_s`, everything
   that was seen is stale, whatever the socket says: the whole client goes, and a new one is built.
2. One session a machine: the old one is given back before the next is asked for.
3. Whoever waits here for news gets them also when the link goes and comes back; what is known then is asked anew.
4. After `Connection.patience_s` without the server the machine is lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from drivers.opcua.client import Link
from drivers.opcua.config import Connection
from drivers.opcua.connect import connected
from drivers.opcua.library import DataValue, NodeId, ua
from drivers.opcua.pki import Pki
from drivers.opcua.words import LinkError, RefusedError, WayError
from edge.driver import Clock, IdentityError, LinkHealth, MachineError, Motion, NotConfirmedError

CURRENT_TIME = ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime)

CLOCK_S = 1.0
"""How often the server's clock is looked at."""

PAUSES_S = (0.3, 0.6, 1.0, 1.5)
"""Before the next attempt; the last one repeats. 10 s after a server is back it is known what became of a run."""

log = logging.getLogger("edge.opcua")

Attach = Callable[[Link], Coroutine[Any, Any, Mapping[NodeId, float]]]
"""Make oneself at home on a new link, and say what is to be watched and how often (s). Raises `MachineError`."""


class Session:
    """Made on a running event loop; `run` is its task.

    `attach` is called on every new link before anything else; `saw` gets every change of what it wants watched;
    `unwatched` gets what of that the server refuses, with the status, and raises `LinkError` if the link is of no use
    without it; `out_of_sight` is told when the link is gone, with the reason.
    """

    def __init__(
        self,
        machine: str,
        connection: Connection,
        pki: Pki,
        clock: Clock,
        attach: Attach,
        saw: Callable[[NodeId, DataValue], None],
        unwatched: Callable[[Mapping[NodeId, str]], None],
        out_of_sight: Callable[[str], None],
        told: Callable[[LinkHealth], None],
    ) -> None:
        self._machine = machine
        self._connection = connection
        self._pki = pki
        self._clock = clock
        self._attach = attach
        self._saw = saw
        self._unwatched = unwatched
        self._out_of_sight = out_of_sight
        self._told = told
        self._link: Link | None = None
        self._why = "not connected yet"
        self._heard_s = 0.0
        self._gone_since_s: float | None = None
        self._rebuilt = 0
        self._failed: asyncio.Future[MachineError] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.count = 0

    # For the driver

    @property
    def link(self) -> Link:
        """The live link. Raises `LinkError` while there is none."""
        if self.failure is not None:
            raise LinkError(str(self.failure))
        if self._link is None:
            raise LinkError(self._why)
        return self._link

    @property
    def in_sight(self) -> bool:
        """Whether there is a live link."""
        return self._link is not None

    @property
    def silent_s(self) -> float:
        """How long the server has said nothing, not even the time."""
        return self._clock.mono_s() - self._heard_s

    @property
    def failure(self) -> MachineError | None:
        """Why this connection can never be used again; None while it can."""
        return self._failed.result() if self._failed.done() else None

    async def lost(self) -> MachineError:
        """Wait until it can never be used again; why."""
        return await asyncio.shield(self._failed)

    def fail(self, error: MachineError) -> None:
        """Latch: from here on nothing is sent any more. The first reason stays."""
        if not self._failed.done():
            self._failed.set_result(error)
        self.tell()

    def tell(self) -> None:
        """Something is new: wake whoever waits for it."""
        self.count += 1
        self._news.set()

    async def news(self, count: int, within_s: float) -> None:
        """Wait until `count` is out of date, at most so long."""
        try:
            async with asyncio.timeout(within_s):
                while self.count == count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass

    async def ready(self) -> None:
        """Wait for the first link. Raises what made it fail: `ConnectError` or `IdentityError`."""
        await asyncio.shield(self._first)

    # Its task

    async def run(self) -> None:
        """Keep a link as long as the machine is not lost."""
        attempt = 0
        while self.failure is None:
            began_s = self._clock.mono_s()
            try:
                await self._live()
            except (IdentityError, WayError, LinkError, RefusedError, NotConfirmedError) as error:
                self._gone(error)
            except MachineError as error:
                self.fail(error)
                if not self._first.done():
                    self._first.set_exception(error)
            attempt = 0 if self._clock.mono_s() - began_s > 2 * PAUSES_S[-1] else attempt + 1
            pause_s = PAUSES_S[min(attempt, len(PAUSES_S) - 1)] * random.uniform(0.8, 1.2)
            try:
                async with asyncio.timeout(pause_s):
                    await self.lost()
            except TimeoutError:
                pass

    def ended(self, task: asyncio.Task[None]) -> None:
        """The task has ended: by itself only with a bug, which nobody may wait for in vain."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(NotConfirmedError(f"internal error in the connection: {error!r}"))
            if not self._first.done():
                self._first.set_exception(error)

    async def _live(self) -> None:
        """One link from its beginning to its end, which is always an error."""
        async with connected(self._connection, self._machine, self._pki, self._clock.wall) as link:
            # From the first moment: looking around may take longer than the keys of some servers last.
            renewing = asyncio.create_task(link.renew(), name=f"channel of {self._machine}")
            try:
                await self._use(link, renewing)
            finally:
                renewing.cancel()
                await asyncio.wait([renewing])
                if not renewing.cancelled():
                    renewing.exception()

    async def _use(self, link: Link, renewing: asyncio.Task[None]) -> None:
        clock = {CURRENT_TIME: CLOCK_S}
        watched = clock | dict(await self._attach(link)) | clock
        self._heard_s = self._clock.mono_s()
        refused = await link.subscribe(watched, self._changed, min(watched.values()))
        if CURRENT_TIME in refused:
            raise LinkError(f"the server does not let its clock be watched: {refused[CURRENT_TIME]}")
        if refused:
            self._unwatched(refused)
        self._link, self._gone_since_s = link, None
        if not self._first.done():
            self._first.set_result(None)
        if self._rebuilt:
            log.info("%s: the connection is back", self._machine)
        self.tell()
        try:
            await self._until_it_ends(link, renewing)
        finally:
            self._link = None

    async def _until_it_ends(self, link: Link, renewing: asyncio.Task[None]) -> None:
        work: list[asyncio.Task[Any]] = [
            asyncio.create_task(link.broken(), name=f"transport of {self._machine}"),
            asyncio.create_task(link.deaf(), name=f"subscriptions of {self._machine}"),
            asyncio.create_task(self._silent(), name=f"clock of {self._machine}"),
            renewing,
            asyncio.create_task(self.lost(), name=f"end of {self._machine}"),
        ]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            first = next(iter(done))
            if (error := first.exception()) is not None:
                raise error
            raise LinkError(str(first.result()))
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)

    async def _silent(self) -> str:
        limit_s = self._connection.silence_s
        # An event that is set at each notification would cost more.
        while (left_s := self._heard_s + limit_s - self._clock.mono_s()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)
        return f"the server's clock has stood still for {limit_s:g} s: it is frozen, or the network is gone"

    def _changed(self, node: NodeId, value: DataValue) -> None:
        self._heard_s = self._clock.mono_s()
        if node != CURRENT_TIME:
            self._saw(node, value)

    def _gone(self, error: MachineError) -> None:
        """The link is down: for a while that is the network's way, after `patience_s` it is lost."""
        if self.failure is not None:
            return
        self._why = str(error)
        if not self._first.done():
            self._first.set_exception(error)
            return
        now_s = self._clock.mono_s()
        if self._gone_since_s is None:
            self._gone_since_s = now_s
            self._rebuilt += 1
            self._told(LinkHealth(resends=0, time_outs=self._rebuilt))
            log.warning("%s: %s", self._machine, error)
        self._out_of_sight(str(error))
        self.tell()
        if isinstance(error, IdentityError):
            self.fail(error)
        elif now_s - self._gone_since_s >= self._connection.patience_s:
            reason = f"the machine has been out of reach for {self._connection.patience_s:g} s: {error}"
            self.fail(MachineError(reason, Motion.POSSIBLE))
