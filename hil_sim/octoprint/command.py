"""`hil-sim octoprint`: its arguments, and the server as a process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from hil_sim.clock import ScaledClock
from hil_sim.device import CommandLog
from hil_sim.octoprint.faults import AT_ONCE, NAMES, Faults
from hil_sim.octoprint.server import Options, Server
from hil_sim.wire import WireError

COMMANDS_PER_S = 50.0


def add_arguments(machine: argparse.ArgumentParser, address: Callable[[str], tuple[str, int]]) -> None:
    machine.add_argument("--http", metavar="HOST:PORT", type=address, required=True, help="port 0 takes a free one")
    machine.add_argument("--dir", metavar="DIR", type=Path, required=True, help="uploads and what is known of them")
    machine.add_argument(
        "--user", metavar="NAME=KEY", type=_user, action="append", default=[], help="may be repeated; guest may nothing"
    )
    machine.add_argument("--rate", metavar="N", type=_rate, default=COMMANDS_PER_S, help="commands a second (50)")
    machine.add_argument("--log", metavar="FILE", type=Path, help="append each command that the printer carries out")
    machine.add_argument("--newer", action="store_true", help="the shapes of OctoPrint 2.0")
    machine.add_argument("--offline", action="store_true", help="not connected to its printer")
    machine.add_argument(
        "--fault", metavar="NAME[=ARG]", action="append", default=[], help=f"may be repeated: {', '.join(NAMES)}"
    )
    machine.epilog = f"While it runs, POST /hil/fault switches faults, also {', '.join(AT_ONCE)}."


def _user(text: str) -> tuple[str, str]:
    name, _, key = text.partition("=")
    if not (name and key):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=KEY")
    return key, name


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.0 < rate <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return rate


def run(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT. Raises `FaultError`, `WireError`, or `OSError` for the log."""
    faults = Faults.parse(arguments.fault)
    options = Options(arguments.dir, dict(arguments.user), arguments.rate, arguments.newer)
    log = CommandLog(arguments.log) if arguments.log else None
    clock = ScaledClock()

    def record(command: str) -> None:
        if log is not None:
            log.record(clock.now_s(), "-", command)

    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # connections that a fault has cut are no news
    try:
        asyncio.run(_serve(options, faults, record, arguments.http, offline=arguments.offline))
    finally:
        if log is not None:
            log.close()


async def _serve(
    options: Options, faults: Faults, record: Callable[[str], None], address: tuple[str, int], *, offline: bool
) -> None:
    server = Server(options, faults, record)
    if offline:
        server.printing.fail("", "Offline")
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise WireError(f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from error
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await web.SockSite(runner, listener).start()
        print(f"ready http {address[0]}:{listener.getsockname()[1]}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
        server.printing.forget()
