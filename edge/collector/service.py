"""The collector as a process: connected again and again, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.collector.collector import Collector, Keys
from edge.collector.ndjson import hand_on
from edge.errors import NotNowError
from edge.tasks import until_first
from edge.uplink.attempts import Attempts
from edge.uplink.port import Trouble, Uplink, UplinkError

PAUSE_S = 0.5
PAUSE_MAX_S = 30.0

log = logging.getLogger("edge.collector")

Connect = Callable[[], contextlib.AbstractAsyncContextManager[Uplink]]


async def run(
    path: Path,
    sites: Keys,
    key: Ed25519PrivateKey,
    connect: Connect,
    write: Callable[[bytes], None] | None,
    *,
    telemetry: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT. With `write`, each applied event goes there as a line, and so does `telemetry`.

    Raises:
        JournalError: the database cannot be used, now or ever.
        OSError: `write` failed.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Collector.open(path, sites, key) as collector:
        work: dict[str, Coroutine[Any, Any, object]] = {"collector: receive": _keep_serving(collector, connect)}
        if write is not None:
            work["collector: hand on"] = hand_on(collector, write, telemetry=telemetry)
        await until_first(work | {"signals": stop.wait()})


async def _keep_serving(collector: Collector, connect: Connect) -> None:
    attempts, told = Attempts(PAUSE_S, PAUSE_MAX_S), ""
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with connect() as uplink:
                attempts.up(loop.time())
                # Among those that are lost at once, again and again, it is said of one that stays.
                saying = loop.call_later(attempts.believed_after_s, log.info, "connected")
                try:
                    await collector.serve(uplink)
                finally:
                    saying.cancel()
        except (UplinkError, NotNowError) as error:  # what could not be kept is not acknowledged, and comes again
            stayed = attempts.down(loop.time())
            text = str(error)
            if attempts.flapping and isinstance(error, UplinkError) and error.trouble is Trouble.LOST:
                # Nobody has said why.
                text += ", again and again: perhaps another client connects under the collector's name"
            if text != told:
                log.error("%s", text)
            told = "" if stayed else text
        await asyncio.sleep(random.uniform(0.0, attempts.pause_s))
