"""The running site, as the local socket shows it: questions to journal and machines, and what people ask for."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from edge.driver import DriverError
from edge.errors import JournalError, UsageError
from edge.guard.make_safe import Made, event_of, leave_mark, leave_note, noted, record_notes, taken_out
from edge.intake.intake import Intake
from edge.intake.timekeeping import TimeKeeper
from edge.jobstate import Requested, StepState
from edge.journal import worktime
from edge.journal.journal import Journal
from edge.journal.maintenance import Maintenance
from edge.journal.rows import Row
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind, stamp_text
from edge.model.loaded import checked
from edge.model.machine import MachineState
from edge.model.order import OnRestart
from edge.plugins import Equipment
from edge.reading import status, views
from edge.reading.beginning import forgotten
from edge.reading.status import loaded_row
from edge.running import trusted
from edge.running.dispatch import Dispatcher
from edge.running.observed import Observed
from edge.running.runner import Runner
from edge.serving import metrics
from edge.serving.metrics import LoopLag
from edge.serving.steering import Steering
from edge.uplink import snapshot
from edge.uplink.service import UplinkService

T = TypeVar("T")

COMMANDS = "commands"
ACKNOWLEDGE_S = 15.0
"""How long a machine may take to confirm that somebody has taken note of something."""

log = logging.getLogger("edge.site")


TAKE_OUT_S = 2.0
"""How long machines that are made safe wait at most for the journal. Milliseconds are enough for one that works."""


class Site:
    """What the API serves."""

    def __init__(
        self,
        journal: Journal,
        state_dir: Path,
        intake: Intake,
        dispatcher: Dispatcher,
        equipment: Sequence[Equipment],
        runners: Mapping[str, Runner],
        time: TimeKeeper,
        version: str,
        begin_anew: Callable[[], None],
        look_at_config: Callable[[], object],
        storage: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._begin_anew = begin_anew
        self._look_at_config = look_at_config
        self._storage = storage
        self.uplink: UplinkService | None = None  # set by the daemon, whose uplink asks this site how it is
        self.lag = LoopLag()
        self.intake = intake
        self.incoming_dir = state_dir / "incoming"
        self._journal = journal
        self._state_dir = state_dir
        self._dispatcher = dispatcher
        self._equipment = equipment
        self._runners = runners
        self._clock = time.clock
        self.steering = Steering(journal, runners, self.job)
        self._daemon = {"pid": os.getpid(), "version": version, "since": stamp_text(time.clock.now().wall)}
        self._time = time

    # Questions

    async def status(self) -> dict[str, Any]:
        """The document of `edge.reading.status`."""
        configured = [configured_row(item) for item in self._equipment]
        live = {name: _live(runner) for name, runner in self._runners.items()}
        waits = self._waits()
        # What people ask for is passed on by way of the journal: one that takes nothing keeps it from the machines.
        trouble, storage = self._dispatcher.trouble or self._journal.trouble, self._storage()
        daemon = {**self._daemon, "clock": self._time.row()}
        uplink = None if self.uplink is None else self.uplink.view()
        return await self._ask(
            lambda snapshot: status.document(snapshot, configured, daemon, live, waits, trouble, storage, uplink)
        )

    async def jobs(self, *, all: bool) -> list[Row]:
        """Open jobs, or all of them, each with what it waits for."""
        waits = self._waits()
        rows = await self._ask(lambda snapshot: snapshot.jobs(all))
        return [views.with_waits(row, waits.get(row["job_id"], [])) for row in rows]

    async def job(self, job_id: str) -> Row:
        """All that is known of one job. Raises `UsageError` if there is none."""
        found = await self._ask(lambda snapshot: snapshot.job(job_id))
        if found is None:
            gone = await self._ask(lambda snapshot: forgotten(snapshot.connection, job_id))
            raise UsageError(gone or f"there is no job {job_id} here")
        return views.with_waits(found, [*self._waits().get(job_id, ()), *self._troubles(found)])

    def _troubles(self, job: Row) -> list[dict[str, str]]:
        """What is to say of runs that go on: what their machines say beside that they do, and that one takes long."""
        troubles = []
        at_work = {step["run_id"] for step in job["steps"] if step["state"] == StepState.RUNNING}
        for run in job["runs"]:
            runner = self._runners.get(run["machine"])
            if run["ended_at"] is not None or runner is None:
                continue
            seen, about = runner.seen, {"step": run["step"]}
            if seen.detail and seen.state is not MachineState.HELD:
                text = f"{run['machine']} is {seen.state}: {seen.detail}"
                troubles.append({"code": "machine", "text": text, "command": "", **about})
            if run["overrun"] and run["run_id"] in at_work and seen.state is not MachineState.OFFLINE:
                troubles.append({"code": "overrun", **_what_can_be_done(run, can_pause=runner.can_pause), **about})
        return troubles

    async def events(self, after: int, limit: int, wait_s: float, machine: str | None) -> list[Row]:
        """Events after `after`, oldest first; waits up to `wait_s` for the first one if there is none yet."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        while True:
            seen = self._journal.last_seq
            found = await self._ask(lambda snapshot: snapshot.events(after, limit, machine))
            if found or loop.time() >= deadline_s:
                return found
            await self._journal.wait_beyond(seen, deadline_s)

    async def state(self) -> dict[str, Any]:
        """What an issuer needs to know to choose this site: the payload of the topic ``…/state``."""
        document = await self.status()
        machines = zip(self._equipment, document["machines"], strict=True)
        stations = [self._station(item, row["properties"]) for item, row in machines]
        found = snapshot.state(document, stations, self._dispatcher.open, self._dispatcher.checks)
        uplink = document["uplink"] or {}
        return {
            "site": document["site"],
            "journal": document["journal"],
            "at": stamp_text(self._clock.now().wall),
            "clock": document["daemon"]["clock"],
            "version": self._daemon["version"],
            "last_seq": self._journal.last_seq,
            "acked_seq": (uplink.get("reporting") or {}).get("acked_seq"),
            **found,
        }

    async def metrics(self) -> str:
        """The page for Prometheus."""
        version = str(self._daemon["version"])
        return await metrics.text(self._journal, self._state_dir, self._runners, self.lag, version, self.uplink)

    def fingerprint(self) -> object:
        """Changes when `state` does, as far as anybody at the centre would care."""
        machines = [(runner.seen, runner.claimed, _percent(runner.observed)) for runner in self._runners.values()]
        return self._journal.last_seq, machines, self._dispatcher.waits

    def _station(self, item: Equipment, properties: Mapping[str, Row]) -> snapshot.Station:
        machine, counts = item.machine, {name: one["value"] for name, one in properties.items()}
        progress = self._runners[machine.id].observed.progress
        given = self._dispatcher.given.get(machine.id)
        done = progress.done if progress is not None and progress.unit == COMMANDS else None  # what predictions count
        return snapshot.Station(machine.id, machine.processes, counts, given, done)

    def time(self) -> dict[str, Any]:
        """The site's clock, and a nonce that a signed time may answer. Raises `OSError`."""
        return self._time.row_with_nonce()

    # Requests

    async def confirm(self, actor: str) -> dict[str, Any]:
        """A person says that nothing of this journal will be done twice. Raises `UsageError` if nobody waits for it."""

        def write(transaction: Transaction) -> str:
            if reason := transaction.held():
                transaction.record(Draft(EventKind.JOURNAL_CONFIRMED, actor, {"reason": reason}))
            return reason

        if not (reason := await self._journal.transact(write)):
            raise UsageError("this journal waits for nobody's word")
        return {"confirmed": reason, "actor": actor}

    async def clear(self, machine: str, run_id: str, actor: str) -> dict[str, Any]:
        """A person says that what `run_id` left on the machine has been taken off; it may name foreign work, too."""
        runner = self._known(machine)
        if runner.is_working:
            raise UsageError(f"{machine} is working; clear it when it stands still")
        draft = Draft(EventKind.MACHINE_CLEARED, actor, {"run_id": run_id}, machine=machine)
        await self._journal.record([draft])
        return {"machine": machine, "cleared": run_id, "actor": actor}

    async def load(self, machine: str, said: object, actor: str) -> dict[str, Any]:
        """A person says what is loaded now: values by property. What goes on there was matched before, and goes on.

        Raises `UsageError` for what site.toml does not name, or names with another type.
        """
        configured = self._known(machine).machine.properties
        values = checked(machine, said, configured)
        body = {name: {"value": value, "configured": configured[name]} for name, value in values.items()}
        await self._journal.record([Draft(EventKind.MACHINE_LOADED, actor, {"values": body}, machine=machine)])
        return loaded_row(next(row for row in (await self.status())["machines"] if row["id"] == machine))

    async def acknowledge(self, machine: str, token: str, comment: str, actor: str) -> dict[str, Any]:
        """A person has taken note of a condition of the machine. Raises `UsageError` if it does not confirm that."""
        runner = self._known(machine)
        try:
            deadline_s = self._clock.mono_s() + ACKNOWLEDGE_S
            found = await runner.acknowledge(token, actor, comment, deadline_s)
        except DriverError as error:
            raise UsageError(f"{machine}: {error}") from error
        return {"machine": machine, "acknowledged": asdict(found) | {"acknowledged": True}, "actor": actor}

    async def trusted(self) -> dict[str, Any]:
        """Record what people have accepted at machines, by the word that they left."""
        return {"recorded": await trusted.record(self._journal, self._state_dir)}

    async def make_safe(self, machines: Sequence[str], within_s: float, actor: str) -> list[dict[str, str]]:
        """Stop machines, all that are configured if none is named, and say what each has confirmed in so many seconds.

        They are out of service from the first moment, and stay so until `end_maintenance`. That is durable before
        anything is asked of them, unless the journal does not answer: what came of them is recorded afterwards.
        """
        for name in machines:
            self._known(name)
        log.warning("%s has machines made safe: %s", actor, ", ".join(machines) or "all")
        deadline_s = self._clock.mono_s() + within_s
        chosen = list(machines or self._runners)
        runners = [self._runners[name] for name in chosen]
        for runner in runners:
            runner.hold_back(actor)
        taking_out = [asyncio.create_task(self._take_out(chosen, actor), name="take machines out of service")]
        try:
            done, _ = await asyncio.wait(taking_out, timeout=min(TAKE_OUT_S, within_s / 2))
            if not done:
                taking_out.append(asyncio.create_task(self._mark(chosen, actor), name="mark machines out of service"))
            made = await asyncio.gather(*(runner.make_safe(actor, deadline_s) for runner in runners))
        finally:
            await asyncio.wait(taking_out)
        for task in taking_out:
            task.result()
        try:
            if made:
                await self._journal.record([event_of(noted(one, actor)) for one in made])
        except JournalError as error:
            log.error("left for the next daemon to write down, since the journal cannot be written: %s", error)
            await self._leave_notes(made, actor)
        return [{"id": one.machine, "confirmed": one.confirmed, "problem": one.problem} for one in made]

    async def _take_out(self, machines: Sequence[str], actor: str) -> None:
        """Durably; where the journal cannot be written, a mark for the next daemon says so."""
        try:
            await self._journal.record([taken_out(name, actor) for name in machines])
        except JournalError as error:
            log.error("left for the next daemon to write down, since the journal cannot be written: %s", error)
            await self._mark(machines, actor)

    async def _mark(self, machines: Sequence[str], actor: str) -> None:
        for name in machines:
            try:
                await asyncio.to_thread(leave_mark, self._state_dir, name, actor)
            except OSError as failure:
                log.error("only this daemon knows that %s is out of service: %s", name, failure)

    async def _leave_notes(self, made: Sequence[Made], actor: str) -> None:
        for one in made:
            try:
                await asyncio.to_thread(leave_note, self._state_dir, one, actor, None)
            except OSError as failure:  # who asked is to learn what came of the machines all the same
                what = one.problem or one.confirmed
                log.error(
                    "only this log knows what %s wanted made safe: %s: %s (%s)", actor, one.machine, what, failure
                )

    async def begin_maintenance(self, machine: str, reason: str, actor: str) -> dict[str, Any]:
        """Let nothing more begin on a machine; what goes on there goes on. Nothing is done if it is so already."""
        self._known(machine)

        def write(transaction: Transaction) -> Maintenance | None:
            if transaction.maintenance(machine) is None:
                body = {"reason": reason, "made_safe": False}
                transaction.record(Draft(EventKind.MAINTENANCE_BEGAN, actor, body, machine=machine))
            return transaction.maintenance(machine)

        out = await self._journal.transact(write)
        return {"machine": machine, "maintenance": out and out.as_json()}

    async def end_maintenance(self, machine: str, reason: str, actor: str) -> dict[str, Any]:
        """A person says that a machine may work again. Raises `UsageError` if it is in service."""
        runner = self._known(machine)
        await record_notes(self._journal, self._state_dir)  # of a journal that could not be written
        ended = Draft(EventKind.MAINTENANCE_ENDED, actor, {"reason": reason}, machine=machine)

        def write(transaction: Transaction) -> bool:
            if transaction.maintenance(machine) is None:
                if not runner.safe_by:
                    return False
                transaction.record(taken_out(machine, actor))  # nowhere could it be written before
            transaction.record(ended)
            return True

        if not await self._journal.transact(write):
            raise UsageError(f"{machine} is in service")
        runner.back_in_service()
        return {"machine": machine, "maintenance": None}

    def _known(self, machine: str) -> Runner:
        if machine not in self._runners:
            raise UsageError(f"there is no machine {machine}; there are: {', '.join(self._runners) or 'none'}")
        return self._runners[machine]

    async def restart(self, actor: str, *, force: bool = False) -> dict[str, Any]:
        """Stop the daemon and start it again; runs that can be found again are left standing.

        Raises `ConfigError` if it could not start again, and `UsageError` for a run that would be stopped, unless
        `force`.
        """
        await asyncio.to_thread(self._look_at_config)
        for run in [] if force else await self._ask(lambda snapshot: snapshot.open_runs()):
            if why := self._not_left_standing(run):
                raise UsageError(
                    f"job {run['job_id']} runs on {run['machine']}, and a restart would stop it: {why};"
                    " wait for its end, or say --force"
                )
        log.info("%s asks for a restart", actor)
        self._begin_anew()
        return {"restarting": True, "pid": self._daemon["pid"], "since": self._daemon["since"]}

    def _not_left_standing(self, run: Row) -> str:
        if run["state"] == StepState.SUSPENDED or run["requested"] == Requested.PAUSE:
            return "it is paused, and nobody could prove afterwards where it stands"
        runner = self._runners.get(run["machine"])
        if run["on_restart"] != OnRestart.RESUME:
            return f'its order says on_restart = "{run["on_restart"]}"'
        return "" if runner is None or runner.can_leave else "this machine cannot be asked about it later"

    def _waits(self) -> dict[str, list[dict[str, str]]]:
        """What the open jobs wait for, by job: the blockers of all their steps, in order."""
        found: dict[str, list[dict[str, str]]] = {}
        for key, blockers in self._dispatcher.waits.items():
            found.setdefault(key.job_id, []).extend(
                {"code": str(b.code), "text": b.text, "command": b.command, "step": key.step} for b in blockers
            )
        return found

    async def _ask(self, question: Callable[[views.Snapshot], T]) -> T:
        def run() -> T:
            with views.open_readonly(self._state_dir) as snapshot:
                return question(snapshot)

        return await asyncio.to_thread(run)


def configured_row(item: Equipment) -> Row:
    """What site.toml says of a machine, as far as `edge status` shows it."""
    machine = item.machine
    processes, properties = list(machine.processes), dict(machine.properties)
    return {"id": machine.id, "driver": machine.driver, "processes": processes, "properties": properties}


def _what_can_be_done(run: Row, *, can_pause: bool) -> dict[str, str]:
    """About a run that takes too long."""
    hold, cancel = f"edge job hold {run['job_id']}", f"edge job cancel {run['job_id']}"
    ways = f"pause it, or end it with `{cancel}`" if can_pause else "end it"
    text = f"the run on {run['machine']} {worktime.in_words(run['overrun'])}; nothing is stopped by itself"
    return {"text": f"{text}: look at the machine, and if it is stuck {ways}", "command": hold if can_pause else cancel}


def _percent(observed: Observed) -> int | None:
    share = observed.progress.share if observed.progress is not None else None
    return None if share is None else int(100 * share)


def _live(runner: Runner) -> dict[str, Any]:
    who = runner.identity
    seen = {**runner.observed.as_json(), "state": str(runner.seen.state), "detail": runner.seen.detail}
    return {**seen, "identity": asdict(who) if who is not None and seen["state"] != "OFFLINE" else None}
