"""The worker that holds programs against machines: what is a result, what is tried again, and what is remembered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.driver import Prediction, Program
from edge.running import checker as checker_module
from edge.running.checker import Checker
from edge.running.planner import CheckState

DEADLINE_S = 60.0


class Deadly:
    """Its check ends the worker process, as the kernel does when memory is short, while a file says so."""

    def check(self, machine: SimpleNamespace, step: object, program: Program) -> Prediction:
        content = program.path.read_text()
        if content.startswith("kill always") or (content.startswith("kill once") and not _done(program.path)):
            os.kill(os.getpid(), signal.SIGKILL)
        if content.startswith("broken disk once") and not _done(program.path):
            raise OSError(5, "Input/output error")
        return Prediction(12.0)


def _done(path: Path) -> bool:
    """Whether this was asked before."""
    mark = path.with_suffix(".done")
    with contextlib.suppress(FileExistsError):
        mark.touch(exist_ok=False)
        return False
    return True


class Bench:
    """A checker, the programs it is given, and what it says of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = asyncio.Event()
        self.said: dict[str, list[str]] = {}
        self.checker = Checker(self._on_result)
        self._equipment: Any = SimpleNamespace(plugin=Deadly(), machine=SimpleNamespace(id="prn-1", driver="deadly"))

    def program(self, content: str) -> Program:
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        path = self._folder / sha256
        path.write_text(content)
        return Program(name=content, sha256=sha256, size_bytes=len(content), path=path)

    def want(self, *programs: Program) -> None:
        for program in programs:
            self.checker.want(self._equipment, None, program)  # type: ignore[arg-type]

    def state(self, program: Program) -> CheckState | None:
        found = self.checker.results.get((program.sha256, "prn-1"))
        return found and found.state

    def reason(self, program: Program) -> str:
        return self.checker.results[program.sha256, "prn-1"].reason

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def suits(self, *programs: Program) -> None:
        """Wait until these are found to suit."""
        await self.until(lambda: all(self.state(program) is CheckState.SUITS for program in programs))

    def _on_result(self) -> None:
        for (sha256, _), result in self.checker.results.items():
            if result.reason:
                self.said.setdefault(sha256, []).append(result.reason)
        self._changed.set()


@contextlib.asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    made = Bench(folder)
    try:
        yield made
    finally:
        await made.checker.close()


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch) -> None:
    monkeypatch.setattr(checker_module, "AGAIN_S", 0.01, raising=False)


async def test_only_the_program_that_ends_each_worker_is_refused(tmp_path) -> None:
    async with bench(tmp_path) as made:
        big, small, other = (made.program(name) for name in ("kill always", "small", "other"))
        made.want(big, small, other)
        await made.until(lambda: made.state(big) is CheckState.REFUSED)
        await made.suits(small, other)
        assert made.reason(big) == "its check ended 3 worker processes that had nothing else to do"
        assert made.reason(small) == made.reason(other) == ""


async def test_checks_in_between_do_not_hide_which_program_ends_workers(tmp_path) -> None:
    async with bench(tmp_path) as made:
        big = made.program("kill always")
        made.want(big)
        for number in range(30):  # each gets a worker going that `big` finds
            if made.state(big) is CheckState.REFUSED:
                break
            made.want(small := made.program(f"small {number}"))
            await made.suits(small)
        await made.until(lambda: made.state(big) is CheckState.REFUSED)


async def test_a_worker_that_was_killed_once_is_no_result(tmp_path) -> None:
    async with bench(tmp_path) as made:
        program = made.program("kill once")
        made.want(program)
        await made.suits(program)
        assert set(made.said[program.sha256]) == {"the worker process was killed; it is tried again"}


async def test_an_idle_worker_that_is_killed_is_replaced(tmp_path) -> None:
    async with bench(tmp_path) as made:
        first, second = made.program("first"), made.program("second")
        made.want(first)
        await made.suits(first)
        os.kill(await made.checker._in_worker(os.getpid), signal.SIGKILL)
        made.want(second)
        await made.suits(second)


async def test_a_disk_that_cannot_be_read_now_is_no_result(tmp_path) -> None:
    async with bench(tmp_path) as made:
        program = made.program("broken disk once")
        made.want(program)
        await made.suits(program)
        assert set(made.said[program.sha256]) == {"it cannot be read: Input/output error; it is tried again"}


async def test_a_worker_that_cannot_be_started_is_no_result(tmp_path, monkeypatch) -> None:
    async with bench(tmp_path) as made:
        program, start = made.program("small"), made.checker._start_worker

        async def no_memory() -> None:
            monkeypatch.setattr(made.checker, "_start_worker", start)
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(made.checker, "_start_worker", no_memory)
        made.want(program)
        await made.suits(program)
        assert made.said[program.sha256][0].startswith("no worker process can be started: Cannot allocate memory")


async def test_what_nobody_names_any_more_is_forgotten_and_checked_anew(tmp_path) -> None:
    async with bench(tmp_path) as made:
        kept, gone = made.program("kept"), made.program("gone")
        made.want(kept, gone)
        await made.suits(kept, gone)
        made.checker.forget_all_but({kept.sha256})
        assert list(made.checker.results) == [(kept.sha256, "prn-1")]
        made.want(gone)
        await made.suits(gone)


async def test_what_is_forgotten_before_its_check_is_not_remembered_after_it(tmp_path) -> None:
    async with bench(tmp_path) as made:
        first, gone, last = (made.program(name) for name in ("first", "gone", "last"))
        made.want(first, gone, last)
        made.checker.forget_all_but({last.sha256})
        await made.suits(last)
        assert list(made.checker.results) == [(last.sha256, "prn-1")]
        assert list(made.checker._tasks) == []
