"""How a print begins: the program is in OctoPrint byte by byte, nothing else goes on, and it is asked for once."""

from __future__ import annotations

import asyncio

from drivers.octoprint import api
from drivers.octoprint.access import offline_words, safe_mode_words
from drivers.octoprint.client import AnswerError, Client
from drivers.octoprint.going import SOMEBODY, Going
from drivers.octoprint.session import LOOK_AGAIN_S, Session
from edge.driver import DriverContext, MachineError, Message, Motion, NotConfirmedError, Program, Run

BEGIN_S = 30.0
"""How long OctoPrint may take to begin a print that it was asked for; it takes 50 ms."""


class Starting:
    """At one OctoPrint, which keeps the files of the last `keep_files` runs."""

    def __init__(self, keep_files: int, client: Client, session: Session, context: DriverContext) -> None:
        self._keep_files = keep_files
        self._client = client
        self._session = session
        self._context = context
        self._clock = context.clock
        self.beginning = asyncio.Lock()  # held from the last look before a print is asked for until it has begun
        self.safe_mode = ""  # why OctoPrint is in it, if it is

    async def start(self, going: Going, run: Run, program: Program) -> bool:
        """Upload, and begin the print; False if a stop came first."""
        await self._tidy(going.path)
        await self._put(going, run, program)
        async with self.beginning:
            await self._ready()
            await self._context.checkpoint({"path": going.path})
            if going.stop_asked:
                return False
            await self._begin(going)
        return True

    async def _put(self, going: Going, run: Run, program: Program) -> None:
        """Have the program in OctoPrint, byte by byte, under the run's own name."""
        left = await self._client.find(going.path)
        if left is not None:
            if left.prints.total or (await self._session.refresh()).path == going.path:
                raise NotConfirmedError(f"{going.path} is in OctoPrint already; this run was begun before")
            await self._client.delete(going.path)
        name = going.path.rpartition("/")[2]
        await self._client.upload(name, program.path, {"run": run.run_id, "job": run.job_id})
        found = await self._client.find(going.path)
        if found is None or found.run != run.run_id:
            raise MachineError(f"OctoPrint has not kept {going.path} with the run's id", Motion.NONE)
        if await self._client.sha256(going.path) != program.sha256:
            await self._client.delete(going.path)
            raise MachineError(f"OctoPrint gives {going.path} back with other bytes", Motion.NONE)

    async def _tidy(self, but: str) -> None:
        """Remove the files of earlier runs, whose ends are durable by now; what others put there is left alone."""
        try:
            files = [file for file in await self._client.folder(api.FOLDER) if file.run and file.path != but]
            files.sort(key=lambda file: file.date_s, reverse=True)
            for file in files[self._keep_files :]:
                await self._client.delete(file.path)
        except MachineError as error:
            self._context.emit(Message(f"files of earlier runs are not removed: {error}"))

    async def _ready(self) -> None:
        """The last look before the print is asked for. Raises `MachineError`."""
        job = await self._session.refresh()
        if job.active:
            raise MachineError(f"{job.by or SOMEBODY} prints {job.path or 'something'} in OctoPrint", Motion.NONE)
        if job.phase is not api.Phase.READY:
            raise MachineError(offline_words(self._client.url, job), Motion.NONE)
        if self.safe_mode:
            raise MachineError(safe_mode_words(self._client.url, self.safe_mode), Motion.NONE)

    async def _begin(self, going: Going) -> None:
        """Ask for the print, once, and wait until it is a fact."""
        try:
            await self._client.start(going.path)
        except AnswerError as error:
            if error.status < 500:
                raise MachineError(f"OctoPrint has not begun the print: {error}", Motion.NONE) from error
        except MachineError:
            pass  # the answer was lost, and maybe the request: what OctoPrint does now tells
        until_s: float | None = None
        while until_s is None or self._clock.mono_s() < until_s:
            self._session.check()
            if going.done:  # it has told how far it is; whatever it says now, the print began
                return
            count = self._session.count
            try:
                job = await self._session.refresh()
                found = await self._client.find(going.path)
            except MachineError:
                await self._session.news(count, LOOK_AGAIN_S)
                continue
            if (job.active and job.path == going.path) or (found is not None and found.prints.total):
                return
            until_s = until_s or self._clock.mono_s() + BEGIN_S
            await self._session.news(self._session.count, LOOK_AGAIN_S)
        raise NotConfirmedError(f"the print was asked for, and OctoPrint has not begun it for {BEGIN_S:.0f} s")
