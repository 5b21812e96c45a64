"""Getting in, without a daemon: what is wrong with the way to an OctoPrint, and a first key for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from drivers.octoprint import api
from drivers.octoprint.client import AnswerError, connected, look, read_key
from drivers.octoprint.config import Connection
from edge.driver import ConnectError, MachineError

ASK_EVERY_S = 1.0
"""OctoPrint forgets a request that nobody has asked about for 5 s."""

DECIDE_S = 300.0


def preflight(connection: Connection) -> None:
    """Ask OctoPrint who it is, with our key: that disturbs nobody and touches no printer. Raises `ConnectError`."""
    _run(_preflight(connection))


def authorise(connection: Connection, tell: Callable[[str], None]) -> None:
    """See that there is a key that works; if there is none yet, ask for one, which a person grants in OctoPrint."""
    if not connection.api_key_file.exists():
        _run(_authorise(connection, tell))


async def _preflight(connection: Connection) -> None:
    key = read_key(connection.api_key_file)
    async with connected(connection, key) as client:
        await look(client)
        if reason := await client.ask(api.safe_mode, "/api/server"):
            raise ConnectError(safe_mode_words(connection.url, reason))
        job = await client.job()
        if job.phase in (api.Phase.OFFLINE, api.Phase.CONNECTING):
            raise ConnectError(offline_words(connection.url, job))


async def _authorise(connection: Connection, tell: Callable[[str], None]) -> None:
    file = connection.api_key_file
    if not os.access(file.parent, os.W_OK):
        raise ConnectError(
            f"api_key_file {file}: no permission to write in {file.parent}; name a file below the site's state_dir"
        )
    async with connected(connection, None) as client:
        token = await client.ask_for_key(connection.app)
        tell(f"open {connection.url} in a browser, and allow {connection.app!r} access there within five minutes")
        try:
            async with asyncio.timeout(DECIDE_S):
                while (key := await client.granted(token)) is None:  # noqa: ASYNC110 - it is told to those who ask
                    await asyncio.sleep(ASK_EVERY_S)
        except AnswerError as error:
            if error.status == 404:
                raise ConnectError(f"{connection.url}: access for {connection.app!r} was denied") from error
            raise
        except TimeoutError as error:
            raise ConnectError(f"{connection.url}: nobody has decided about the access in five minutes") from error
    _write_key(file, key)


def safe_mode_words(url: str, reason: str) -> str:
    return f"{url}: OctoPrint is in safe mode ({reason}): its plug-ins are off; restart it"


def offline_words(url: str, job: api.Job) -> str:
    because = f": {job.error}" if job.error else ""
    return f"{url}: OctoPrint is not connected to its printer ({job.state}{because}); connect it on its page"


def _write_key(file: Path, key: str) -> None:
    """Readable by its owner alone from the first byte on."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as out:
            out.write(f"{key}\n")
    except OSError as error:
        raise ConnectError(f"api_key_file {file}: {error.strerror}") from error


def _run(work: Coroutine[Any, Any, None]) -> None:
    """To its end, also where an event loop is running already: then in a thread of its own."""
    try:
        if asyncio._get_running_loop() is None:
            asyncio.run(work)
        else:
            with ThreadPoolExecutor(1, "ask OctoPrint") as pool:
                pool.submit(asyncio.run, work).result()
    except ConnectError:
        raise
    except MachineError as error:
        raise ConnectError(str(error)) from error
