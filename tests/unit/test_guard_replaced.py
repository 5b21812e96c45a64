"""A host that has no room for a guard just now: it is tried again and again, and that costs nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import types
from pathlib import Path

import pytest

from edge.guard import guard as guard_module
from edge.guard.guard import Guard

DEADLINE_S = 30.0


class Refusing:
    """Stands for a call of the operating system that fails; `tries` counts how often it was made."""

    def __init__(self, number: int) -> None:
        self.tries = asyncio.Semaphore(0)
        self._number = number

    def __call__(self, *args: object, **options: object) -> None:
        self.tries.release()
        raise OSError(self._number, os.strerror(self._number))

    async def was_tried(self, times: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(times):
                await self.tries.acquire()


def config(tmp_path) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        site=types.SimpleNamespace(guard_after_s=30.0, state_dir=tmp_path), model_dump_json=lambda: "{}"
    )


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch) -> None:
    monkeypatch.setattr(guard_module, "AGAIN_S", 0.0)


async def test_a_guard_that_cannot_be_started_keeps_no_file_open(tmp_path, monkeypatch) -> None:
    refusing = Refusing(errno.ENOMEM)
    monkeypatch.setattr(subprocess, "Popen", refusing)
    before = descriptors()
    async with Guard.on_duty(config(tmp_path), tmp_path):  # type: ignore[arg-type]
        await refusing.was_tried(20)
        assert descriptors() == before
    assert descriptors() == before


async def test_a_guard_for_which_no_pipe_can_be_made_is_tried_again(tmp_path, monkeypatch) -> None:
    refusing = Refusing(errno.EMFILE)
    monkeypatch.setattr(os, "pipe", refusing)
    async with Guard.on_duty(config(tmp_path), tmp_path):  # type: ignore[arg-type]
        await refusing.was_tried(3)


async def test_a_guard_that_nobody_can_watch_is_ended(tmp_path, monkeypatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def noted(*args: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(start(*args, **options))  # type: ignore[call-overload]
        return started[-1]

    refusing = Refusing(errno.EPERM)
    monkeypatch.setattr(subprocess, "Popen", noted)
    monkeypatch.setattr(os, "pidfd_open", refusing)
    async with Guard.on_duty(config(tmp_path), tmp_path):  # type: ignore[arg-type]
        await refusing.was_tried(3)
    assert len(started) >= 3
    assert all(process.poll() is not None for process in started), "it would make safe after an orderly stop, too"
