"""Programs held against machines by their drivers, in a worker process, so that no stream waits for a big file."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

from edge.driver import DriverError, Prediction, Program, Step
from edge.errors import ArtifactError
from edge.logs import log_bug
from edge.plugins import AnyMachine, AnyPlugin, Equipment
from edge.running.planner import CheckResult, CheckState

T = TypeVar("T")

AGAIN_S = 10.0
"""Pause before a check that came to no result is made again."""

KILLS = 3
"""So many times a check has to end a worker of its own before its program is refused."""

log = logging.getLogger("edge.checker")

LONGEST_S = 10 * 366 * 86_400.0
"""Ten years: a prediction beyond that is a driver's mistake."""


class Checker:
    """Results by (program's SHA-256, machine), kept until `forget_all_but`: neither of the two changes.

    One check is made at a time, so that it is known which one ended the worker. What says nothing about the program (a
    killed worker, a disk that cannot be read now) is no result: the check is made again after a pause, and until then
    it is PENDING with the reason.
    """

    def __init__(self, on_result: Callable[[], None]) -> None:
        self._on_result = on_result
        self._results: dict[tuple[str, str], CheckResult] = {}
        self._damaged: dict[str, str] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._pool: ProcessPoolExecutor | None = None

    @property
    def results(self) -> Mapping[tuple[str, str], CheckResult]:
        """What is known so far; a pair that was asked for and is not done yet is PENDING."""
        return self._results

    def take_damaged(self) -> dict[str, str]:
        """Programs that were found not to be what their hash says, and why; each is told once."""
        taken, self._damaged = self._damaged, {}
        return taken

    def want(self, equipment: Equipment, step: Step, program: Program) -> None:
        """Check this pair, unless it is known or on its way."""
        key = (program.sha256, equipment.machine.id)
        if key in self._results:
            return
        self._results[key] = CheckResult(CheckState.PENDING)
        if key not in self._tasks:
            coroutine = self._check(key, equipment, step, program)
            self._tasks[key] = asyncio.create_task(coroutine, name=f"check {program.name}")

    def forget_all_but(self, programs: Collection[str]) -> None:
        """What is known of other programs than these is asked for no more."""
        for key in [key for key in self._results if key[0] not in programs]:
            del self._results[key]

    async def close(self) -> None:
        """Give up what is not done."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._end_worker()

    async def _check(self, key: tuple[str, str], equipment: Equipment, step: Step, program: Program) -> None:
        """Check until there is a result, or nobody wants one any more."""
        kills, alone = 0, False
        try:
            while (pause := await self._attempt(key, equipment, step, program, kills, alone)) is not None:
                kills, alone = kills + pause.of_its_own, alone or pause.killed
                if key in self._results:
                    self._results[key] = CheckResult(CheckState.PENDING, f"{pause.reason}; it is tried again")
                self._on_result()
                await asyncio.sleep(AGAIN_S)
        finally:
            del self._tasks[key]
            if key in self._results and self._results[key].state is CheckState.PENDING:
                del self._results[key]  # whatever ended this: who wants to know asks again
        self._on_result()

    async def _attempt(
        self, key: tuple[str, str], equipment: Equipment, step: Step, program: Program, kills: int, alone: bool
    ) -> _Again | None:
        """Check once; why that came to no result, if it did not.

        `alone`: a worker has ended while it was checked, so it gets one of its own. `kills`: how many of those it has
        ended.
        """
        async with self._turn:
            if key not in self._results:
                return None
            fresh, fails = False, "no worker process can be started"
            try:
                if self._pool is None or alone:
                    await self._start_worker()
                    fresh = True
                fails = "it cannot be read"
                made = await self._in_worker(check, equipment.plugin, equipment.machine, step, program)
                result = CheckResult(CheckState.SUITS, "", _in_numbers(made.duration_s), made.timeline)
            except DriverError as error:
                result = CheckResult(CheckState.REFUSED, str(error))
            except (ArtifactError, FileNotFoundError) as error:
                # What was found is about other bytes than the order names: it counts for nothing.
                self._results.pop(key, None)
                if isinstance(error, ArtifactError):
                    self._damaged[program.sha256] = str(error)
                return None
            except BrokenProcessPool:
                await self._end_worker()
                log.warning("the worker process was killed while it checked %s for %s", program.name, key[1])
                if kills + fresh < KILLS:
                    return _Again("the worker process was killed", killed=True, of_its_own=fresh)
                result = CheckResult(
                    CheckState.REFUSED, f"its check ended {KILLS} worker processes that had nothing else to do"
                )
            except OSError as error:
                await self._end_worker()  # it may be what could not be started
                return _Again(f"{fails}: {error.strerror or error}")
            except Exception as error:  # noqa: BLE001 - a plug-in's bug must not take the other machines down
                driver = equipment.machine.driver
                reason = f"internal error in the driver {driver} ({log_bug(log, error)})"
                result = CheckResult(CheckState.REFUSED, reason)
            if key in self._results:
                self._results[key] = result
            return None

    async def _in_worker(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _start_worker(self) -> None:
        """A new one, which has said that it is there: what ends it from now on is what it does."""
        await self._end_worker()
        # spawn: a fork of this process would share its sockets, its locks and its journal.
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_worker)
        await self._in_worker(os.getpid)

    async def _end_worker(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Again:
    """Why a check came to no result; `killed`: a worker has ended meanwhile, `of_its_own`: one started for it."""

    reason: str
    killed: bool = False
    of_its_own: bool = False


def _in_numbers(duration_s: float | None) -> float | None:
    """A prediction that no machine reaches is none."""
    return duration_s if duration_s is not None and 0 <= duration_s <= LONGEST_S else None


def check(plugin: AnyPlugin, machine: AnyMachine, step: Step, program: Program) -> Prediction:
    """In the worker process: the program's hash, then what the driver says. Raises `ArtifactError` or `DriverError`."""
    with program.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != program.sha256:
        raise ArtifactError(f"artifact {program.sha256} has changed on the disk: its hash is {found}")
    return plugin.check(machine, step, program)


def _worker() -> None:
    """The worker ends with the daemon, even a killed one, and leaves Ctrl-C at a terminal to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="watch the daemon", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
