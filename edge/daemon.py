"""The daemon: everything wired by hand, started in order, and stopped in order: machines first, the journal last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from edge import DISTRIBUTION, folders
from edge.artifacts.artifacts import Artifacts
from edge.artifacts.download import make_context
from edge.artifacts.fetch import Fetcher
from edge.artifacts.keeper import Keeper
from edge.clock import SystemClock
from edge.errors import IllegalTransitionError
from edge.guard.guard import Guard
from edge.guard.make_safe import record_notes
from edge.intake.actions import actions
from edge.intake.authority import Authority
from edge.intake.door import Remote
from edge.intake.intake import Intake
from edge.intake.nonce import NonceFile
from edge.intake.rootfolder import FOLDER_NAME, RootFolder
from edge.intake.spool import Spool
from edge.intake.timekeeping import TimeKeeper
from edge.intake.vouched import VouchedFile
from edge.journal.journal import Journal
from edge.journal.lookback import Witnesses
from edge.journal.prune import Pruner
from edge.journal.schema import FILE_NAME
from edge.journal.scribe import ACTOR
from edge.logs import log_bug
from edge.model.event import Draft, EventKind
from edge.model.site import SiteConfig
from edge.plugins import Equipment
from edge.running import trusted
from edge.running.checker import Checker
from edge.running.dispatch import Dispatcher
from edge.running.loads import record_overtaken
from edge.running.recovery import REASON, left_runs
from edge.running.runner import Runner
from edge.serving import api
from edge.serving.site import Site
from edge.serving.steering import can_pause
from edge.timefloor import Known
from edge.uplink.build import build, telemetry_of
from edge.uplink.firstword import FirstWord
from edge.uplink.outbox import Outbox
from edge.uplink.sitekey import open_key
from edge.uplink.telemetry import MachineValues

log = logging.getLogger("edge.daemon")

PLAN_AGAIN_S = 5.0
"""Pause after a bug in planning, fetching or the like, before it begins anew."""


SWITCH_S = 0.0001
"""How long the journal's writer or another thread may keep the interpreter from the loop that feeds the machines."""

NOT_WHOLE = "the journal may not be all that happened, so nobody knows what became of the run"
"""Why a run that is open in a held journal is not asked about: it may have ended long ago."""


RESTART = -1
"""What `run` returns when the daemon is to begin anew."""


class Service(Protocol):
    """A task of the site that goes on after a bug in it; `trouble` is told to people."""

    trouble: str

    async def serve(self) -> None:
        """Until cancelled."""


class Stop:
    """The wish to stop: by a signal, or to begin anew. A signal is the last word."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.restart = False
        self.signalled = False
        self.on_signal: Callable[[], None] = lambda: None

    def listen(self) -> None:
        """Take SIGTERM and SIGINT, until the running loop is closed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signal)

    def begin_anew(self) -> None:
        """Stop, leave standing what can stand, and start again."""
        self.restart = not self.signalled
        self.asked.set()

    def _signal(self) -> None:
        self.signalled, self.restart = True, False
        self.asked.set()
        self.on_signal()


async def run(
    config: SiteConfig,
    equipment: Sequence[Equipment],
    authority: Authority,
    stop: Stop,
    look_at_config: Callable[[], Authority],
) -> int:
    """Serve the site until `stop`; the exit code, or `RESTART`.

    `look_at_config` gives what the file of the trust root says now, and raises `ConfigError` if the daemon could not
    start again.

    Raises `EdgeError` for what is wrong at the start.
    """
    sys.setswitchinterval(SWITCH_S)
    state_dir = config.site.state_dir
    runtime_dir = folders.make_runtime_dir(state_dir)
    stop.listen()
    clock, vouched = SystemClock(config.time.source), VouchedFile(runtime_dir)
    vouched.recall(clock)
    async with contextlib.AsyncExitStack() as stack:
        witnesses = Witnesses(state_dir, runtime_dir, clock.boot_id)
        stack.callback(witnesses.close)
        journal = await stack.enter_async_context(Journal.open(state_dir / FILE_NAME, config.site.id, clock.stamp))
        journal.bind(witnesses.keep)
        was_new = journal.last_seq == 0
        held = await witnesses.look_back(journal, is_first_start=folders.is_first_start(state_dir))
        clock.learn(await journal.transact(lambda transaction: transaction.known_time()))
        clock.learn(Known(authority.root.issued_at))
        authority.folder = RootFolder(state_dir / FOLDER_NAME)
        await authority.settle(journal)
        clock.learn(Known(authority.root.issued_at))
        artifacts = Artifacts.open(state_dir / "artifacts")
        _empty(state_dir / "incoming")
        await record_notes(journal, state_dir)
        await trusted.record(journal, state_dir)
        await record_overtaken(journal, equipment)
        askable = frozenset[str]() if held else {item.machine.id for item in equipment}
        left = await left_runs(journal, artifacts, authority, askable)
        await _begin(journal, clock, {run.run.run_id for run in left.values()}, NOT_WHOLE if held else REASON)
        await witnesses.kept(journal)
        folders.has_begun(state_dir)
        started_seq = journal.last_seq
        word: FirstWord | None = None

        checker = Checker(lambda: dispatcher.wake())
        stack.push_async_callback(checker.close)
        telemetry = None if config.uplink is None else telemetry_of(config.uplink, config.site.id, state_dir, clock)
        runners = {
            item.machine.id: Runner(
                item,
                journal,
                artifacts,
                authority,
                clock,
                state_dir,
                runtime_dir,
                lambda: dispatcher.wake(),
                left.get(item.machine.id),
                None if telemetry is None else MachineValues(telemetry, item.machine.id),
            )
            for item in equipment
        }
        keeper = Keeper(journal, state_dir, artifacts, clock, config.artifacts.max_bytes)
        processes = frozenset(process for item in equipment for process in item.machine.processes)
        machines = {item.machine.id: frozenset(item.machine.processes) for item in equipment}
        verbs = actions(lambda machine: can_pause(runners, machine), lambda machine: runners[machine].is_working)
        remote = Remote(machines, config.remote.allow_clear, config.remote.allow_release, verbs)
        nonce = NonceFile.open(state_dir, clock)
        intake = Intake(
            journal,
            artifacts,
            authority,
            processes,
            clock,
            remote=remote,
            nonce=nonce,
            max_bytes=config.artifacts.max_bytes,
            make_room=keeper.make_room,
        )
        time = TimeKeeper(clock, intake, nonce, vouched, lambda: dispatcher.wake())
        fetcher = Fetcher(
            journal,
            state_dir,
            artifacts,
            clock,
            make_context(config.artifacts.ca),
            arriving=lambda: intake.arriving,
            make_room=keeper.make_room,
            on_change=lambda: dispatcher.wake(),
        )
        dispatcher = Dispatcher(
            journal,
            state_dir,
            artifacts,
            authority,
            checker,
            clock,
            equipment,
            runners,
            fetcher.story,
            lambda: "" if word is None else word.waits_for,
        )
        storage: dict[str, Service] = {"keep files": keeper, "fetch files": fetcher}
        if config.spool is not None:
            storage["spool"] = Spool(config.spool.dir, intake.file, clock)

        def troubles() -> list[str]:
            kept = [service.trouble for service in storage.values()]
            return [authority.trouble, time.trouble, *kept, *(runner.not_recorded for runner in runners.values())]

        site = Site(
            journal,
            state_dir,
            intake,
            dispatcher,
            equipment,
            runners,
            time,
            version(DISTRIBUTION),
            stop.begin_anew,
            lambda: authority.could_begin_with(look_at_config()),
            lambda: [told for told in troubles() if told],
        )

        services: dict[str, Service] = {"planning": dispatcher, "time": time, "loop lag": site.lag}
        if config.uplink is not None and telemetry is not None:
            storage["prune"] = Pruner(journal, state_dir, clock, config.uplink.keep_days)
            key = open_key(state_dir, config.site.id)
            outbox = await Outbox.open(journal, key, lambda: authority.root)
            site.uplink = build(config.uplink, config.site.id, site, intake, key, clock, outbox, telemetry)
            wait_s = 0.0 if was_new or witnesses.have_watched else config.uplink.first_word_s
            word = FirstWord(outbox, started_seq, wait_s, lambda: dispatcher.wake())
            services |= {"uplink": site.uplink, "first word": word}
        services |= storage
        await stack.enter_async_context(api.serve(site, config.site.socket, state_dir.stat().st_gid))
        if config.metrics is not None:
            await stack.enter_async_context(api.serve_metrics(site, config.metrics.port))
        guard = await stack.enter_async_context(Guard.on_duty(config, runtime_dir))
        log.info("site %s is up with %d machine%s; Ctrl-C ends it", config.site.id, len(runners), _s(len(runners)))
        log.info("it listens on %s", config.site.socket)
        code = await _work(stop, services, list(runners.values()), journal)
        await journal.record([Draft(EventKind.SITE_STOPPED, ACTOR, {"restart": stop.restart})])
        await witnesses.kept(journal)  # of a journal that was confirmed meanwhile
        if stop.restart and code == 0:
            guard.hand_over()
        elif not await journal.open_runs():
            await guard.dismiss()
    log.info("site %s has stopped; its journal is closed", config.site.id)
    return RESTART if stop.restart and code == 0 else code


async def _begin(journal: Journal, clock: SystemClock, recoverable: Collection[str], why: str) -> None:
    """Write down the start, and the runs that nobody can be asked about any more."""
    left = [run for run in await journal.open_runs() if run.run_id not in recoverable]
    body = {"outcome": "UNKNOWN", "motion": "possible", "reason": why, "evidence": {}}
    await journal.record([Draft(EventKind.SITE_STARTED, ACTOR, {"boot_id": clock.boot_id})])
    for run in left:
        ended = Draft(EventKind.RUN_ENDED, ACTOR, body, run.job_id, run.part, run.step, run.run_id, run.machine)
        try:
            await journal.record([ended])
        except IllegalTransitionError as error:  # one row that is damaged must not keep the site from starting
            log.error("run %s on %s cannot be ended: %s", run.run_id, run.machine, error)
        else:
            log.warning("run %s of job %s on %s is held: %s", run.run_id, run.job_id, run.machine, why)


async def _work(stop: Stop, services: Mapping[str, Service], runners: list[Runner], journal: Journal) -> int:
    """Plan and run machines until asked to stop; then stop the machines and wait for their runs to be recorded.

    Raises `JournalError` if the journal's file is damaged: it is checked meanwhile, and no run begins before that.
    """
    kept = [asyncio.create_task(_keep_going(service, name), name=name) for name, service in services.items()]
    serving = [asyncio.create_task(runner.serve(), name=f"machine {runner.machine.id}") for runner in runners]
    stopping = asyncio.create_task(stop.asked.wait(), name="signals")
    checking = asyncio.create_task(_check(journal, stop), name="check the journal")
    code = 0
    try:
        await asyncio.wait([*kept, stopping, *serving], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping: machines first, then the journal")
        for task in (*kept, *serving):
            if task.done() and (error := task.exception()) is not None:
                log.error("the daemon stops: internal error (%s)", log_bug(log, error))
                code = 2
    finally:
        for service in kept:
            service.cancel()
        stopping.cancel()
        checking.cancel()
        stop.on_signal = lambda: _close(runners, leave=False)  # also a restart that is under way ends as a stop
        _close(runners, leave=stop.restart)
        await asyncio.wait([*kept, stopping, checking, *serving])
    if not checking.cancelled():
        checking.result()
    return code


async def _check(journal: Journal, stop: Stop) -> None:
    """Check a large journal; the daemon does not go on with one that is damaged."""
    if journal.is_sound:
        return
    log.info("the journal's file is large and is checked now; no run begins before that")
    try:
        await journal.check()
    finally:
        if not journal.is_sound:
            stop.asked.set()
    log.info("the journal's file is sound")


def _close(runners: list[Runner], *, leave: bool) -> None:
    for runner in runners:
        runner.close(leave=leave)


async def _keep_going(service: Service, name: str) -> None:
    """Serve until cancelled. A bug there must not stop the machines that work: it is told, and it begins anew."""
    while True:
        serving = asyncio.create_task(service.serve(), name=f"{name}, this time")
        try:
            await asyncio.wait([serving])
        finally:
            serving.cancel()
            await asyncio.wait([serving])
        error = serving.exception()
        if error is not None:
            service.trouble = f"internal error ({log_bug(log, error)}) in {name}"
        await asyncio.sleep(PLAN_AGAIN_S)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _empty(directory: Path) -> None:
    """Make the directory for uploads, and remove what a killed daemon left in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for left in directory.iterdir():
        left.unlink()
