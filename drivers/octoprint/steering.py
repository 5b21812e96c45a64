"""What is asked of a print that is going on: to pause, to go on, to end. A 204 is a request; the state is the fact."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine

from drivers.octoprint import api
from drivers.octoprint.access import offline_words
from drivers.octoprint.client import Client
from drivers.octoprint.going import SOMEBODY
from drivers.octoprint.session import LOOK_AGAIN_S, Session
from edge.driver import DriverContext, LinkLostError, MachineError, Message, NotConfirmedError, Temperature

ASKED_IN = {"pause": "Printing", "resume": "Paused"}
"""The state in which OctoPrint does what it is asked; asking again changes nothing."""


class Steering:
    """Of one OctoPrint."""

    def __init__(self, machine: str, client: Client, session: Session, context: DriverContext) -> None:
        self._machine = machine
        self._client = client
        self._session = session
        self._context = context
        self._clock = context.clock
        self._aborting: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let an abort get through."""
        if self._aborting:
            await asyncio.wait(self._aborting, timeout=2.0)
        for task in self._aborting:
            task.cancel()

    async def bring(self, action: str, deadline_s: float, path: str, reached: Callable[[api.Job], bool]) -> None:
        """Ask to ``pause`` or ``resume`` until it is seen; asking again changes nothing. Raises `NotConfirmedError`."""
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                while True:
                    if self._session.failure is not None:
                        raise NotConfirmedError(f"OctoPrint did not confirm: {self._session.failure}")
                    count = self._session.count
                    try:
                        job = await self._session.refresh()
                        if job.path == path and reached(job):
                            return
                        if not job.active or job.path != path:
                            raise NotConfirmedError(f"the print was over before OctoPrint could {action} it")
                        # OctoPrint passes over what it is asked while a print starts, or is on its way to a pause.
                        if job.state == ASKED_IN[action]:
                            await self._client.post("/api/job", {"command": "pause", "action": action})
                    except NotConfirmedError:
                        raise
                    except MachineError:
                        pass  # what the next look finds counts
                    await self._session.news(count, LOOK_AGAIN_S)
        except TimeoutError as error:
            raise NotConfirmedError(f"OctoPrint did not {action} in time") from error

    async def stop(self, ours: Collection[str]) -> None:
        """End a print of one of `ours`, and see that nothing is heated. Raises `NotConfirmedError`."""
        await self._until_done(lambda: self._end_print(ours))
        await self._until_done(self._cool)

    async def _until_done(self, work: Callable[[], Coroutine[None, None, bool]]) -> None:
        """Try again until it is done, also while OctoPrint is out of sight. Raises `NotConfirmedError`."""
        while True:
            if (failure := self._session.failure) is not None:
                if isinstance(failure, LinkLostError):
                    raise failure
                raise NotConfirmedError(f"OctoPrint did not confirm the stop: {failure}")
            count = self._session.count
            try:
                if await work():
                    return
            except NotConfirmedError:
                raise
            except MachineError:
                pass  # what the next look finds counts
            await self._session.news(count, LOOK_AGAIN_S)

    async def _end_print(self, ours: Collection[str]) -> bool:
        """Whether no print of ours is going on; if one is, it is asked to end."""
        job = await self._session.refresh()
        if not job.active:
            return job.phase is not api.Phase.CONNECTING
        if job.path not in ours:
            raise NotConfirmedError(f"{job.by or SOMEBODY} prints {job.path} in OctoPrint, and is left alone")
        if job.state != "Cancelling":
            await self._client.post("/api/job", {"command": "cancel"})
        return False

    async def _cool(self) -> bool:
        """Whether nothing is heated, as OctoPrint's own script after a cancel should have seen to."""
        job = await self._session.refresh()
        if job.phase is not api.Phase.READY:
            words = offline_words(self._client.url, job)
            raise NotConfirmedError(f"nobody knows whether the heaters are off: {words}")
        heaters = await self._client.heaters()
        for heater in heaters:
            self._context.emit(Temperature(heater.name, heater.actual_degc, heater.target_degc))
        for path, body in api.cooling(heaters):
            await self._client.post(path, body)
        return not any(heater.target_degc > 0 for heater in heaters)

    async def abort(self) -> None:
        """M112, without waiting long whether OctoPrint takes it; it is over with this connection either way."""
        task = asyncio.create_task(self._send_abort(), name=f"abort {self._machine}")
        self._aborting.add(task)
        task.add_done_callback(self._aborting.discard)
        await asyncio.wait([task], timeout=0.5)
        self._session.fail(MachineError("aborted with M112; the printer needs a reset by hand, then connect it again"))

    async def _send_abort(self) -> None:
        """M112 passes OctoPrint's queue (octoprint/util/comm.py, `_gcode_M112_queuing`)."""
        try:
            await self._client.post("/api/printer/command", {"command": "M112"})
        except MachineError as error:
            self._context.emit(Message(f"not aborted: {error}"))
