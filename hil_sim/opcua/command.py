"""`hil-sim cnc` and `hil-sim robot`: their arguments, and the server as a process; `hil-sim fault`."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

from hil_sim.clock import ScaledClock
from hil_sim.cnc import nodes as cnc_nodes
from hil_sim.cnc.machine import Machine as Mill
from hil_sim.device import CommandLog
from hil_sim.faults import FaultError
from hil_sim.opcua.control import Control, say
from hil_sim.opcua.host import VARIANTS, Host, Machine, Options
from hil_sim.opcua.security import POLICIES, user_certificate
from hil_sim.robot import nodes as robot_nodes
from hil_sim.robot.machine import Machine as Robot

Address = Callable[[str], tuple[str, int]]


def add_arguments(machine: argparse.ArgumentParser, positive: Callable[[str], float]) -> None:
    """What both machines have."""
    machine.add_argument("--host", metavar="HOST", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    machine.add_argument("--port", metavar="N", type=_port, default=4840, help="port of the server; 0 takes a free one")
    machine.add_argument(
        "--control-port", metavar="N", type=_port, default=0, help="port that `hil-sim fault` speaks to"
    )
    machine.add_argument("--speed", metavar="N", type=positive, default=1.0, help="simulated seconds per real second")
    machine.add_argument("--name", metavar="NAME", help="the machine's browse name")
    machine.add_argument("--dir", metavar="DIR", type=Path, help="keeps programs here (default: forgets them)")
    machine.add_argument("--log", metavar="FILE", type=Path, help="append what is carried out to FILE")
    machine.add_argument(
        "--security", metavar="LIST", type=_security, default=("none",), help=f"of {','.join(POLICIES)} (none)"
    )
    machine.add_argument("--user", metavar="NAME=PASSWORD", type=_user, action="append", default=[], help="repeatable")
    machine.add_argument(
        "--user-certificate",
        metavar="FILE",
        type=_certificate,
        action="append",
        default=[],
        help="a user's; repeatable",
    )
    machine.add_argument("--anonymous", action="store_true", help="beside users, nobody in particular may connect, too")
    machine.add_argument("--pki", metavar="DIR", type=Path, help="own certificate, trusted/ and rejected/ clients")
    machine.add_argument("--session-timeout", metavar="S", type=positive, default=60.0, help="longest that is granted")
    machine.add_argument(
        "--variant", metavar="NAME", choices=VARIANTS, action="append", default=[], help=f"of {', '.join(VARIANTS)}"
    )
    machine.add_argument("--without", metavar="METHOD", action="append", default=[], help="has no such method")


def add_robot_arguments(machine: argparse.ArgumentParser) -> None:
    """What only a robot has."""
    machine.add_argument(
        "--robotics-1.01", dest="without_operations", action="store_true", help="no operations: can only be watched"
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _security(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(POLICIES):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(POLICIES)}")
    return names


def _user(text: str) -> tuple[str, str]:
    name, _, password = text.partition("=")
    if not (name and password):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PASSWORD")
    return name, password


def _certificate(text: str) -> bytes:
    try:
        return user_certificate(Path(text))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no certificate that can be read: {error}") from error


def run(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT. Raises `WireError`, or `OSError` for files."""
    options = Options(
        host=arguments.host,
        port=arguments.port,
        security=arguments.security,
        users=dict(arguments.user),
        user_certificates=frozenset(arguments.user_certificate),
        anonymous=arguments.anonymous,
        pki=arguments.pki,
        session_timeout_s=arguments.session_timeout,
        variants=frozenset(arguments.variant),
        without=frozenset(arguments.without),
    )
    log = CommandLog(arguments.log) if arguments.log else None
    record = log.record if log else _unrecorded
    machine: Machine
    namespaces: tuple[str, ...]
    if arguments.machine == "cnc":
        namespaces = cnc_nodes.NAMESPACES
        machine = Mill(arguments.name or "Mill", arguments.dir, record, options.variants)
    else:
        namespaces = robot_nodes.NAMESPACES
        operations = not arguments.without_operations
        machine = Robot(arguments.name or "Cell", arguments.dir, record, options.variants, operations=operations)
    try:
        asyncio.run(_serve(machine, options, arguments, namespaces))
    finally:
        if log:
            log.close()


def _unrecorded(_at_s: float, _line: str, _text: str) -> None:
    """No log was asked for."""


async def _serve(
    machine: Machine, options: Options, arguments: argparse.Namespace, namespaces: tuple[str, ...]
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Host(machine, options, ScaledClock(arguments.speed), namespaces) as host:
        control = Control((options.host, arguments.control_port), loop, host.say)
        control.start()
        try:
            print(f"ready opcua {host.endpoint} control {control.describe()}", flush=True)
            stopped = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait({stopped, host.time}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if host.time in done:
                host.time.result()  # a machine whose time stands still is no machine
        finally:
            await asyncio.to_thread(control.stop)


def fault(address: tuple[str, int], line: str) -> str:
    """What the machine's control channel answers, empty if nothing; `FaultError`, or `OSError` if it is not reached."""
    answer = say(address, line)
    if "error" in answer:
        raise FaultError(answer["error"])
    return "" if answer["ok"] is None else json.dumps(answer["ok"])
