"""The daemon's side of the guard: a child that survives it, and switches machines off if no daemon comes back.

The guard holds the reading end of a pipe whose other end only the daemon has; that end closes with the daemon, however
it dies. An ordered stop dismisses the guard. A restart (the same process, another program) hands the pipe over: the
guard goes when the new daemon has one of its own, and acts if none comes. `edge.guard.wait` is the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from edge.guard import wait
from edge.journal.schema import FILE_NAME
from edge.journal.store import lock_of
from edge.model.site import SiteConfig

ENVIRONMENT = "EDGE_GUARD"
"""``descriptor:process id`` of the guard of the program that this process was before a restart."""

TOKEN_FILE = "guard"
AGAIN_S = 5.0
"""Pause before a guard that has ended by itself is replaced."""

GONE_S = 5.0
"""How long a dismissed guard may take to go, before it is killed."""

ACT = "import sys; sys.path[:] = {path!r}; from edge.guard.act import main; main()"
"""What the guard becomes: the runtime as this daemon finds it, wherever that was started."""

log = logging.getLogger("edge.guard")


class Guard:
    """One site's guard. Made by `on_duty`."""

    def __init__(self, config: SiteConfig, runtime_dir: Path) -> None:
        self._config = config
        self._token_file = runtime_dir / TOKEN_FILE
        self._token = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        self._watch: int | None = None
        self._again: asyncio.TimerHandle | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def on_duty(cls, config: SiteConfig, runtime_dir: Path) -> AsyncIterator[Guard]:
        """Start the guard and relieve every earlier one. After the block it is alone, unless it was dismissed before.

        Raises `OSError` if the runtime directory cannot be written.
        """
        guard = cls(config, runtime_dir)
        before = _handed_over()
        half = guard._token_file.with_suffix(".half")
        half.write_text(guard._token, encoding="ascii")
        half.replace(guard._token_file)
        guard._start()
        try:
            if before is not None:
                await _see_off(*before)
            yield guard
        finally:
            guard._let_go()

    async def dismiss(self) -> None:
        """The daemon ends in order, and leaves no run open."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        self._let_go()
        if process is not None and pipe is not None:
            await _see_off(pipe, process.pid)
            process.poll()

    def hand_over(self) -> None:
        """For the program that this process becomes next."""
        if self._process is not None and self._pipe is not None:
            os.set_inheritable(self._pipe, True)
            os.environ[ENVIRONMENT] = f"{self._pipe}:{self._process.pid}"
            self._pipe = None
        self._let_go()

    def _start(self) -> None:
        after_s = self._config.site.guard_after_s
        if not after_s:
            return
        lock = lock_of(self._config.site.state_dir / FILE_NAME)
        path = [str(Path(place).absolute()) for place in sys.path]
        waits = [sys.executable, "-I", "-S", wait.__file__, str(after_s)]
        with contextlib.ExitStack() as unneeded:
            try:
                reading, writing = os.pipe()
                unneeded.callback(os.close, reading)
                self._pipe = writing
                self._process = subprocess.Popen(
                    [*waits, lock, self._token_file, self._token, sys.executable, "-c", ACT.format(path=path)],
                    stdin=reading,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # the terminal's Ctrl-C is not for it
                )
                with open(writing, "wb", closefd=False) as pipe:
                    pipe.write(self._config.model_dump_json().encode())
                self._watch = os.pidfd_open(self._process.pid)
            except OSError as error:
                log.error("there is no guard: %s; trying again", error)
                if self._process is not None:  # one that nobody watches would act after an orderly stop, too
                    self._process.kill()
                    self._process.wait()
                self._replace_later()
                return
        asyncio.get_running_loop().add_reader(self._watch, self._ended)
        log.info("the guard is process %d; without a daemon for %g s it makes safe", self._process.pid, after_s)

    def _ended(self) -> None:
        assert self._process is not None
        log.warning("the guard has ended (%s); there will be another one", self._process.wait())
        self._replace_later()

    def _replace_later(self) -> None:
        self._let_go()
        self._process = None
        self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._start)

    def _let_go(self) -> None:
        """Look after it no more. What is still open of the pipe is closed: the guard counts from now."""
        if self._again is not None:
            self._again.cancel()
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            os.close(self._watch)
        if self._pipe is not None:
            os.close(self._pipe)
        self._again = self._watch = self._pipe = None


def _handed_over() -> tuple[int, int] | None:
    """Pipe and process of the guard from before a restart, if it is ours."""
    pipe, _, pid = os.environ.pop(ENVIRONMENT, "").partition(":")
    try:
        ended, _ = os.waitpid(int(pid), os.WNOHANG)
        os.set_inheritable(int(pipe), False)
    except (ValueError, OSError):
        return None  # none, or another process's
    if ended:
        os.close(int(pipe))
        return None
    return int(pipe), int(pid)


async def _see_off(pipe: int, pid: int) -> None:
    """Tell a guard to go, and wait until it has gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, wait.GO)
    os.close(pipe)
    watch = os.pidfd_open(pid)
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(watch, gone.set)
    try:
        async with asyncio.timeout(GONE_S):
            await gone.wait()
    except TimeoutError:
        signal.pidfd_send_signal(watch, signal.SIGKILL)
        await gone.wait()
    finally:
        loop.remove_reader(watch)
        os.close(watch)
    _reap(pid)


def _reap(pid: int) -> None:
    """It has ended already."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
