"""From a run that is asked for to the one request that starts it, and to the machine's word that it knows the run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from drivers.opcua.equipment import Phase, Seen, Work
from drivers.opcua.sight import Sight
from drivers.opcua.words import RefusedError
from edge.driver import DriverContext, MachineError, Message, Motion, NotConfirmedError, Program

LOOK_S = 1.0
"""How often a run is asked about while nothing is told of it: what is told is a hint, what is asked is the fact."""

BEGIN_S = 30.0
"""How long a machine may keep an accepted run out of what it tells before that is UNKNOWN."""


class Start:
    """Starts runs, each at most once. `beginning` is held from the last look until the request's answer is there."""

    def __init__(self, sight: Sight, context: DriverContext) -> None:
        self._sight = sight
        self._context = context
        self._clock = context.clock
        self.beginning = asyncio.Lock()

    async def start(self, work: Work, program: Program | None) -> bool:
        """Prepare, and begin the run; False if a stop came first."""
        await asyncio.sleep(0)  # whoever stops a run that was just asked for comes first
        if work.stopped.is_set():
            return False
        if not await self._unless_stopped(work, self._surely_not_begun(self._prepare(work, program))):
            return False
        async with self.beginning:
            if work.stop_asked:
                await self.withdraw(work)
                return False
            await self._surely_not_begun(self._last_look(work))
            await self._context.checkpoint({**work.memory, "name": work.name})
            if work.stopped.is_set():  # while the checkpoint was written
                await self.withdraw(work)
                return False
            await self._begin(work)
        return True

    async def _unless_stopped(self, work: Work, preparing: Coroutine[None, None, None]) -> bool:
        """Carry it to its end, unless a stop comes first: a big program takes minutes."""
        task = asyncio.create_task(preparing, name=f"prepare {work.run.run_id}")
        try:
            while not task.done() and not work.stop_asked:
                work.stopped.clear()
                waiting = asyncio.create_task(work.stopped.wait(), name=f"stop of {work.run.run_id}")
                await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                await asyncio.wait([waiting])
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        if work.stop_asked:
            if not task.cancelled():
                task.exception()
            await self.withdraw(work)
            return False
        task.result()
        return True

    async def _surely_not_begun(self, preparing: Coroutine[None, None, None]) -> None:
        """Whatever fails before the start has moved nothing."""
        try:
            await preparing
        except NotConfirmedError:
            raise
        except MachineError as error:
            self._sight.check(Motion.NONE)
            raise MachineError(str(error), Motion.NONE) from error

    async def _prepare(self, work: Work, program: Program | None) -> None:
        link, equipment = self._sight.session.link, self._sight.equipment
        if (await equipment.look(link, work)).phase is not Phase.ABSENT:
            raise NotConfirmedError(f"the machine knows run {work.run.run_id} already; it was begun before")
        await equipment.tidy(link, work.name)
        if program is not None:
            await equipment.send(link, work.name, program)
        await equipment.prepare(link, work)

    async def _last_look(self, work: Work) -> None:
        link, equipment = self._sight.session.link, self._sight.equipment
        await equipment.catch_up(link)
        if words := equipment.busy_with(work):
            raise MachineError(words, Motion.NONE)
        if words := equipment.unprepared(work):
            raise MachineError(words, Motion.NONE)
        if words := equipment.refusal():
            raise MachineError(f"the machine cannot be started: {words}", Motion.NONE)

    async def withdraw(self, work: Work) -> None:
        """Take back what was prepared and never started. Nothing moves."""
        try:
            link = self._sight.session.link
            seen = await self._sight.equipment.look(link, work)
            if seen.phase is Phase.WAITING:
                await self._sight.equipment.stop(link, work, seen)
        except MachineError as error:
            self._context.emit(Message(f"what was prepared is still on the machine: {error}"))

    async def _begin(self, work: Work) -> None:
        """Ask for the start, once, and wait until the machine knows the run."""
        work.begun = True
        doubt = ""
        try:
            await self._sight.equipment.begin(self._sight.session.link, work)
        except RefusedError as error:
            await self._refused(work, error)
            return
        except MachineError as error:
            doubt = f": {error}"  # the answer was lost, and maybe the request: what the machine knows now tells
        until_s: float | None = None
        while until_s is None or self._clock.mono_s() < until_s:
            self._sight.check()
            count = self._sight.session.count
            seen = await self._sight.ask(work)
            if seen is not None:
                doubt = doubt or (f": {seen.detail}" if seen.detail else "")
                if seen.phase is not Phase.ABSENT:
                    return
                until_s = until_s or self._clock.mono_s() + BEGIN_S
            await self._sight.session.news(count, LOOK_S)
        raise NotConfirmedError(f"the start was asked for, and the machine knows nothing of it{doubt}")

    async def _refused(self, work: Work, error: RefusedError) -> None:
        """A no counts if the machine does not carry the run out: a server may count its statuses otherwise than we do.

        Returns if it does; raises `MachineError` if nothing has moved.
        """
        seen = await self._surely_seen(work)
        if seen.phase is Phase.WAITING:
            await self.withdraw(work)
            seen = await self._surely_seen(work)
        if seen.phase in (Phase.WAITING, Phase.ABSENT):
            raise MachineError(f"the machine has not started: {error}", Motion.NONE) from error
        self._context.emit(Message(f"the machine carries the run out, and its answer was a no: {error}"))

    async def _surely_seen(self, work: Work) -> Seen:
        """What the machine says of the run, however long it is out of reach."""
        while True:
            self._sight.check()
            count = self._sight.session.count
            if (seen := await self._sight.ask(work)) is not None:
                return seen
            await self._sight.session.news(count, LOOK_S)
