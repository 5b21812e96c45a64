"""Programs held against machines by their drivers, in a worker process, so that no stream waits for a big file."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from edge.driver import DriverError, Prediction, Program, Step
from edge.errors import ArtifactError
from edge.logs import log_bug
from edge.plugins import AnyMachine, AnyPlugin, Equipment
from edge.running.planner import CheckResult, CheckState

log = logging.getLogger("edge.checker")

LONGEST_S = 10 * 366 * 86_400.0
"""Ten years: a prediction beyond that is a driver's mistake."""


class Checker:
    """Results by (program's SHA-256, machine), kept as long as the daemon runs: neither of the two changes."""

    def __init__(self, on_result: Callable[[], None]) -> None:
        self._on_result = on_result
        self._results: dict[tuple[str, str], CheckResult] = {}
        self._damaged: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
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
        task = asyncio.create_task(self._check(key, equipment, step, program), name=f"check {program.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Give up what is not done."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def _check(self, key: tuple[str, str], equipment: Equipment, step: Step, program: Program) -> None:
        if self._pool is None:
            # spawn: a fork of this process would share its sockets, its locks and its journal.
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_worker)
        loop = asyncio.get_running_loop()
        try:
            made = await loop.run_in_executor(self._pool, check, equipment.plugin, equipment.machine, step, program)
            self._results[key] = CheckResult(CheckState.SUITS, "", _in_numbers(made.duration_s), made.timeline)
        except DriverError as error:
            self._results[key] = CheckResult(CheckState.REFUSED, str(error))
        except (ArtifactError, FileNotFoundError) as error:
            # What was found is about other bytes than the order names: it counts for nothing.
            del self._results[key]
            if isinstance(error, ArtifactError):
                self._damaged[program.sha256] = str(error)
        except BrokenProcessPool:
            self._pool = None
            self._results[key] = CheckResult(CheckState.REFUSED, "the worker process that checked it was killed")
        except OSError as error:
            self._results[key] = CheckResult(CheckState.REFUSED, f"it cannot be read: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - a plug-in's bug must not take the other machines down
            driver = equipment.machine.driver
            reason = f"internal error in the driver {driver} ({log_bug(log, error)})"
            self._results[key] = CheckResult(CheckState.REFUSED, reason)
        self._on_result()


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
