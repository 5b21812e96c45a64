"""The driver for one printer behind an OctoPrint.

One run from end to end: the program is uploaded as ``edge/<run id>.gcode`` with the run's id in its `userdata`, read
back and compared, and started if nothing else is going on. A checkpoint is durable before the one request that can
start it; the request is never repeated. What OctoPrint then does is watched, not steered: people may pause, resume and
cancel on its page, and are named. The end is what OctoPrint's own record of that file says. As each run has a file of
its own, the record is the run's, also after any restart; where there is none and nothing is going on, nobody knows.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from drivers.octoprint import api
from drivers.octoprint.access import offline_words, safe_mode_words
from drivers.octoprint.client import AnswerError, Client, connected, look, read_key
from drivers.octoprint.config import Printer
from drivers.octoprint.going import SOMEBODY, Going, ends_of, unknown
from drivers.octoprint.others import OthersPrints
from drivers.octoprint.session import LOOK_AGAIN_S, Listener, Session
from drivers.octoprint.starting import Starting
from drivers.octoprint.steering import Steering
from drivers.stop import quietly
from edge.driver import (
    Capability,
    ConnectError,
    Driver,
    DriverContext,
    Finished,
    Identity,
    Lost,
    MachineError,
    MachineState,
    Message,
    Motion,
    NotAcceptableError,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Program,
    Progress,
    Recovery,
    Resume,
    Run,
    StateSeen,
    StillRunning,
    Temperature,
    shielded,
)

IDLE_PATIENCE_S = 15.0
"""How long an OctoPrint without a run of ours may be silent before the machine is offline."""

RECORD_S = 10.0
"""How long the record of a print may come after its end; it has been there with it whenever we looked."""

REASON_S = 1.0
"""How long the reason may come after the end: it comes by another way."""
STOP_S = 120.0
"""How long a cancelled run may take to stop: what the printer is busy with, then OctoPrint's own script."""

TOO_LATE = "OctoPrint did not confirm the stop in time"


log = logging.getLogger("drivers.octoprint")


class OctoPrintDriver(Driver):
    """A known OctoPrint. Made by `open_octoprint`."""

    def __init__(self, machine: Printer, context: DriverContext, client: Client, version: str, we: str) -> None:
        self._machine = machine
        self._context = context
        self._clock = context.clock
        self._client = client
        self._version = version
        self._we = we
        self._patience_s = machine.connection.patience_s
        listener = Listener(self._saw, self._heated, self._occurred, self.in_safe_mode, self._out_of_sight)
        self.session = Session(client, context, listener, min(self._patience_s, IDLE_PATIENCE_S))
        self._going: Going | None = None
        self._known: set[str] = set()  # files of runs that edge has told of
        self._others = OthersPrints(context.emit)
        self._stops = 0  # that are being carried out
        self._detached = False
        self._aborted = False
        self._shown: StateSeen | None = None
        self._starting = Starting(machine.connection.keep_files, client, self.session, context)
        self._steering = Steering(machine.id, client, self.session, context)

    @property
    def identity(self) -> Identity:
        return Identity("OctoPrint", self._version)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({Capability.PAUSE, Capability.DETACH, Capability.CARRIES_ON})

    async def lost(self) -> MachineError:
        return await self.session.lost()

    async def close(self) -> None:
        """Command nothing, but let an abort get through."""
        await self._steering.close()
        self.session.fail(MachineError("let go", Motion.NONE))  # nobody waits on for what is no longer looked at

    # A run

    async def execute(self, run: Run, program: Program, resume: Resume | None = None) -> Outcome:
        if resume is not None and not isinstance(resume, StillRunning):
            raise NotAcceptableError("resume", repr(resume), "what `recover` of this driver has found")
        if self._going is not None:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "one run at a time")
        if self._stops:
            raise NotAcceptableError(f"run {run.run_id}", "asked", "not while the printer is being stopped")
        self.session.check(Motion.NONE)
        self._going = going = Going(_path(run), self._we)
        self._known.add(going.path)
        self._others.claimed(going.path)
        self._detached = False
        self.session.patience_s = self._patience_s
        try:
            going.ends = await _ends_in(program)
            if resume is None and not await self._starting.start(going, run, program):
                return Outcome(OutcomeKind.STOPPED, Motion.NONE, "stopped before the print was asked for")
            going.begun.set()
            return await self._watch(going)
        except asyncio.CancelledError:
            if not self._detached:
                await shielded(quietly(self.stop, self._context, STOP_S), f"stop {self._machine.id}")
            raise
        finally:
            self._going = None
            going.begun.set()
            if not self._detached:
                self._others.over(going.path)
            self.session.patience_s = min(self._patience_s, IDLE_PATIENCE_S)
            self._show()

    async def _watch(self, going: Going) -> Outcome:
        """Until OctoPrint's record says how the print ended, or nobody knows."""
        while True:
            self.session.check()
            count, job = self.session.count, self.session.job
            if job is not None and (reason := going.of_another(job)):
                return unknown(reason, {"path": going.path, "begun_by": job.by})
            if job is not None and not (job.active and job.path == going.path):
                outcome = await self._settled(going)
                if outcome is not None:
                    return outcome
            await self.session.news(count)

    async def _settled(self, going: Going) -> Outcome | None:
        """How the print ended; None if it goes on, or OctoPrint cannot be asked now."""
        until_s: float | None = None
        while True:
            count = self.session.count
            reason = "OctoPrint has no record of how the print ended, as after a restart in mid-print"
            try:
                job = await self.session.refresh()
                if job.active and job.path == going.path:
                    return None
                found = await self._client.find(going.path)
            except AnswerError as error:
                reason = f"OctoPrint does not tell what became of the print: {error}"
            except MachineError:
                return None
            else:
                if found is not None and found.prints.total:
                    return await self._ended(going, found.prints)
                if found is None:
                    reason = f"{going.path} is no longer in OctoPrint, and its record with it"
            now_s = self._clock.mono_s()
            until_s = until_s or now_s + RECORD_S
            if now_s >= until_s:
                state = self.session.job.state if self.session.job else ""
                return unknown(reason, {"path": going.path, "state": state})
            await self.session.news(count, LOOK_AGAIN_S)

    async def _ended(self, going: Going, prints: api.Prints) -> Outcome:
        until_s = self._clock.mono_s() + REASON_S
        while prints.failure and not going.explained and (left_s := until_s - self._clock.mono_s()) > 0:
            await self.session.news(self.session.count, left_s)
        outcome = going.ended(prints, self.session.job)
        if outcome.kind is OutcomeKind.SUCCEEDED:
            self._context.emit(Progress(going.total, going.total))
        return outcome

    async def recover(self, run: Run, program: Program) -> Recovery:
        going = Going(_path(run), self._we)
        self._known.add(going.path)
        self._others.claimed(going.path)
        begun = run.checkpoint is not None
        while True:
            self.session.check(Motion.NONE)
            try:
                job = await self.session.refresh()
                found = await self._client.find(going.path)
                break
            except ConnectError:
                await asyncio.sleep(LOOK_AGAIN_S)
        if found is not None and found.run != run.run_id:
            return Lost(f"{going.path} in OctoPrint is not the file of this run", same_machine=False)
        if found is not None and found.prints.total:
            self._others.over(going.path)  # if it is being printed now, that is another print of it
            self._others.seen(job)
            return Finished(going.ended(found.prints, job))
        if begun and (reason := going.of_another(job)):
            self._others.over(going.path)
            self._others.seen(job)
            return Lost(reason, same_machine=False)
        if found is not None and job.active and job.path == going.path:
            return StillRunning()
        if not begun:
            reason = "the print had not been asked for"
            return Finished(Outcome(OutcomeKind.FAILED, Motion.NONE, reason))
        outcome = await self._settled(going)
        if outcome is None:
            return StillRunning()
        if outcome.kind is not OutcomeKind.UNKNOWN:
            return Finished(outcome)
        seen = self.session.job
        return Lost(outcome.reason, same_machine=seen is None or not seen.active)

    async def detach(self) -> None:
        try:
            async with self._starting.beginning:  # a print that is being asked for is let begin
                pass
        finally:
            self._detached = True  # also of one that has not begun in time: what is let go is not stopped

    # What is asked of it

    async def pause(self, deadline_s: float) -> None:
        going = await self._print_going("pause", deadline_s)
        going.pause_asked = True
        await self._steering.bring("pause", deadline_s, going.path, lambda job: job.phase is api.Phase.HELD)

    async def resume(self, deadline_s: float) -> None:
        going = await self._print_going("resume", deadline_s)
        going.pause_asked = False
        await self._steering.bring("resume", deadline_s, going.path, lambda job: job.state == "Printing")

    async def _print_going(self, verb: str, deadline_s: float) -> Going:
        """The print of this site, once OctoPrint has begun it. Raises `NotConfirmedError`."""
        going = self._going
        if going is None:
            raise NotAcceptableError(verb, "asked", "while a print of this site is going on")
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                await going.begun.wait()
        except TimeoutError as error:
            raise NotConfirmedError(f"OctoPrint has not begun the print in time to {verb} it") from error
        return going

    async def stop(self, deadline_s: float) -> None:
        self._detached = False
        if self._going is not None:
            self._going.stop_asked = True
        self._stops += 1
        try:
            async with asyncio.timeout(max(0.0, deadline_s - self._clock.mono_s())):
                async with self._starting.beginning:
                    pass  # from here on there is a print, or there will be none
                await self._steering.stop(self._known)
        except TimeoutError as error:
            raise NotConfirmedError(TOO_LATE) from error
        finally:
            self._stops -= 1

    async def abort(self) -> None:
        self._aborted = True
        await self._steering.abort()
        self._show()

    # What is seen

    def _saw(self, job: api.Job) -> None:
        going = self._going
        if going is not None and job.active and job.path == going.path and job.filepos is not None:
            self._context.emit(Progress(going.came_to(job.filepos), going.total))
        self._others.seen(job)
        self._show()

    def _show(self) -> None:
        """Tell the machine's state, if it is another one."""
        seen = self._state()
        if seen != self._shown:
            self._shown = seen
            self._context.emit(seen)

    def _state(self) -> StateSeen:
        job, going = self.session.job, self._going
        if self.session.failure is not None:
            state = MachineState.ABORTED if self._aborted else MachineState.OFFLINE
            return StateSeen(state, str(self.session.failure))
        if job is None:
            return StateSeen(MachineState.OFFLINE, "not asked yet")
        ours = going is not None and job.path == going.path
        whose = "" if ours else f"{job.by or SOMEBODY} prints {job.path or 'something'} in OctoPrint"
        match job.phase:
            case api.Phase.HELD:
                return StateSeen(MachineState.HELD, whose or (going.held() if going else ""))
            case api.Phase.BUSY:
                return StateSeen(MachineState.EXECUTE, whose)
            case api.Phase.READY if self._starting.safe_mode:
                return StateSeen(MachineState.STOPPED, safe_mode_words(self._client.url, self._starting.safe_mode))
            case api.Phase.READY:
                return StateSeen(MachineState.IDLE)
            case api.Phase.UNKNOWN:
                return StateSeen(MachineState.STOPPED, f"OctoPrint says {job.state!r}, which is not understood")
            case api.Phase.CONNECTING | api.Phase.OFFLINE:
                return StateSeen(MachineState.STOPPED, offline_words(self._client.url, job))

    def _heated(self, heaters: tuple[api.Heater, ...]) -> None:
        for heater in heaters:
            self._context.emit(Temperature(heater.name, heater.actual_degc, heater.target_degc))

    def _occurred(self, event: api.Occurred) -> None:
        words = self._going.saw(event) if self._going is not None else ""
        match event.kind:
            case "Disconnected":
                words = "OctoPrint has let go of its printer"
            case "Connected":
                words = "OctoPrint is connected to its printer"
            case "Error" if not words:
                words = f"error: {event.error or event.reason}"
        if words:
            self._context.emit(Message(words))
        self._show()

    def in_safe_mode(self, reason: str) -> None:
        self._starting.safe_mode = reason
        self._show()

    def _out_of_sight(self, reason: str) -> None:
        self._shown = StateSeen(MachineState.OFFLINE, reason)
        self._context.emit(self._shown)


@asynccontextmanager
async def open_octoprint(machine: Printer, context: DriverContext) -> AsyncIterator[Driver]:
    """Identify, and watch until the block is left. Leaving commands nothing."""
    key = read_key(machine.connection.api_key_file)
    async with connected(machine.connection, key) as client:
        version, who = await look(client)
        log.warning("%s: this driver was tried with OctoPrint's virtual printer, not with a real one", machine.id)
        driver = OctoPrintDriver(machine, context, client, version, who.name)
        try:
            driver.in_safe_mode(await client.ask(api.safe_mode, "/api/server"))
            await driver.session.refresh()
        except AnswerError as error:
            raise ConnectError(str(error)) from error
        watching = [
            asyncio.create_task(driver.session.listen(), name=f"listen to {machine.id}"),
            asyncio.create_task(driver.session.poll(), name=f"ask {machine.id}"),
        ]
        for task in watching:
            task.add_done_callback(driver.session.ended)
        try:
            yield driver
        finally:
            await driver.close()
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)


async def _ends_in(program: Program) -> array[int]:
    def read(path: Path) -> array[int]:
        with path.open("rb") as file:
            return ends_of(file)

    try:
        return await asyncio.to_thread(read, program.path)
    except OSError as error:
        raise MachineError(f"{program.name} cannot be read: {error.strerror}", Motion.NONE) from error


def _path(run: Run) -> str:
    return f"{api.FOLDER}/{run.run_id}.gcode"
