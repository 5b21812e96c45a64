"""The daemon: everything wired by hand, started in order, and stopped in order: machines first, the journal last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from edge import api
from edge.artifacts import Artifacts
from edge.authority import Authority
from edge.checker import Checker
from edge.clock import SystemClock
from edge.dispatch import Dispatcher
from edge.intake import Intake
from edge.journal import Journal
from edge.logs import log_bug
from edge.model.event import Draft, EventKind
from edge.model.site import SiteConfig
from edge.plugins import Equipment
from edge.runner import ACTOR, Runner
from edge.schema import FILE_NAME
from edge.site import Site

log = logging.getLogger("edge.daemon")

DISTRIBUTION = "microfactory-edge"


PLAN_AGAIN_S = 5.0
"""Pause after a bug in planning, before it begins anew."""


async def run(config: SiteConfig, equipment: Sequence[Equipment], authority: Authority) -> int:
    """Serve the site until SIGTERM or SIGINT; the exit code. Raises `EdgeError` for what is wrong at the start."""
    state_dir = config.site.state_dir
    stop = _stop_on_signals()
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        journal = await stack.enter_async_context(Journal.open(state_dir / FILE_NAME, config.site.id, clock.stamp))
        artifacts = Artifacts.open(state_dir / "artifacts")
        _empty(state_dir / "incoming")
        await _begin(journal, clock)

        checker = Checker(lambda: dispatcher.wake())
        stack.push_async_callback(checker.close)
        runners = {
            item.machine.id: Runner(item, journal, artifacts, authority, clock, state_dir, lambda: dispatcher.wake())
            for item in equipment
        }
        dispatcher = Dispatcher(journal, state_dir, artifacts, authority, checker, clock, equipment, runners)
        processes = frozenset(process for item in equipment for process in item.machine.processes)
        intake = Intake(journal, artifacts, authority, processes, clock)
        site = Site(journal, state_dir, intake, dispatcher, equipment, runners, clock, version(DISTRIBUTION))

        await stack.enter_async_context(api.serve(site, config.site.socket, state_dir.stat().st_gid))
        log.info("site %s is up with %d machine%s; Ctrl-C ends it", config.site.id, len(runners), _s(len(runners)))
        log.info("it listens on %s", config.site.socket)
        code = await _work(stop, dispatcher, list(runners.values()))
        await journal.record([Draft(EventKind.SITE_STOPPED, ACTOR)])
    log.info("site %s has stopped; its journal is closed", config.site.id)
    return code


async def _begin(journal: Journal, clock: SystemClock) -> None:
    """Write down the start, and what the last daemon left open: nobody knows what became of those runs."""
    left = await journal.open_runs()
    reason = "the daemon ended while the run was going on"
    body = {"outcome": "UNKNOWN", "motion": "possible", "reason": reason, "evidence": {}}
    await journal.record(
        [
            Draft(EventKind.SITE_STARTED, ACTOR, {"boot_id": clock.boot_id}),
            *(
                Draft(EventKind.RUN_ENDED, ACTOR, body, run.job_id, run.part, run.step, run.run_id, run.machine)
                for run in left
            ),
        ]
    )
    for run in left:
        log.warning("run %s of job %s on %s is held: %s", run.run_id, run.job_id, run.machine, reason)


async def _work(stop: asyncio.Event, dispatcher: Dispatcher, runners: list[Runner]) -> int:
    """Plan and run machines until asked to stop; then stop the machines and wait for their runs to be recorded."""
    planning = asyncio.create_task(_keep_planning(dispatcher), name="planning")
    serving = [asyncio.create_task(runner.serve(), name=f"machine {runner.machine.id}") for runner in runners]
    stopping = asyncio.create_task(stop.wait(), name="signals")
    code = 0
    try:
        await asyncio.wait([planning, stopping, *serving], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping: machines first, then the journal")
        for task in (planning, *serving):
            if task.done() and (error := task.exception()) is not None:
                log.error("the daemon stops: internal error (%s)", log_bug(log, error))
                code = 2
    finally:
        planning.cancel()
        stopping.cancel()
        for runner in runners:
            runner.close()
        await asyncio.wait([planning, stopping, *serving])
    return code


async def _keep_planning(dispatcher: Dispatcher) -> None:
    """Plan until cancelled. A bug there must not stop the machines that work: it is told, and planning begins anew."""
    while True:
        planning = asyncio.create_task(dispatcher.serve(), name="dispatcher")
        try:
            await asyncio.wait([planning])
        finally:
            planning.cancel()
            await asyncio.wait([planning])
        error = planning.exception()
        if error is not None:
            dispatcher.trouble = f"internal error ({log_bug(log, error)})"
        await asyncio.sleep(PLAN_AGAIN_S)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _empty(directory: Path) -> None:
    """Make the directory for uploads, and remove what a killed daemon left in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for left in directory.iterdir():
        left.unlink()
