"""Simulated machines behind OPC UA, as processes, and what site.toml says of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edge.driver import Machine, Program
from tests.helpers.opcua_trust import trusting, way_in
from tests.helpers.sim import START_S, ready_line

USER, PASSWORD = "edge", "geheim"
PROFILES = Path(__file__).parent.parent.parent / "firmware_profiles"


class Served(Protocol):
    """A machine behind an OPC UA server, whoever wrote it, and what can happen to it; `kind`: ``cnc`` or ``robot``."""

    kind: str
    endpoint: str
    way: dict[str, Any]
    """How to get in, as ``connection`` has it; empty where everybody may."""

    @property
    def programs(self) -> Path:
        """The folder in which the machine keeps its programs."""

    def trust(self, state_dir: Path) -> None:
        """A person at the machine trusts the certificate that our side has in `state_dir`."""

    def replace_certificate(self) -> None:
        """Started anew it has another one. It does not run meanwhile."""

    def instructions(self) -> list[str]:
        """What was carried out of the last program."""

    def starts(self) -> int:
        """How many programs were started, resumed ones apart, since the server began."""

    def freeze(self) -> None:
        """The process stands still, its sockets stay."""

    def thaw(self) -> None: ...

    def kill(self) -> None: ...

    def restart(self) -> None:
        """Begin anew at the same place, with nothing remembered but its files."""

    def power_cycle(self) -> None:
        """The controller forgets what it forgets without power."""

    def alarm(self, text: str) -> None:
        """One that is severe, and stays."""

    def refuse_sessions(self) -> None:
        """Every connection is cut, and there is no session to be had."""

    def allow_sessions(self) -> None: ...


@dataclass
class SimServer:
    """A running ``hil-sim cnc`` or ``hil-sim robot``."""

    process: subprocess.Popen[bytes]
    kind: str
    endpoint: str
    control: tuple[str, int]
    options: tuple[str, ...]
    way: dict[str, Any] = field(default_factory=dict)

    @property
    def programs(self) -> Path:
        return self._folder("--dir")

    @property
    def trusted(self) -> Path:
        """The certificate of ours that the machine trusts."""
        return self._folder("--pki") / "trusted" / "edge.der"

    def _folder(self, option: str) -> Path:
        return Path(self.options[self.options.index(option) + 1])

    def trust(self, state_dir: Path) -> None:
        self.trusted.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(state_dir / "pki" / "own" / "certificate.der", self.trusted)

    def replace_certificate(self) -> None:
        for name in ("own.der", "own.pem"):
            (self._folder("--pki") / name).unlink()

    def say(self, line: str) -> Any:
        """One line on the control channel, and its answer."""
        with socket.create_connection(self.control, START_S) as channel, channel.makefile("rwb") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            answer = json.loads(file.readline())
        assert "error" not in answer, answer["error"]
        return answer["ok"]

    def log(self) -> list[tuple[str, str]]:
        """Line and text of everything carried out; ``!`` is what is no instruction."""
        rows = (line.split("\t", 2) for line in self.say("carried-out"))
        return [(number, text) for _, number, text in rows]

    def instructions(self) -> list[str]:
        """What was carried out of the last program."""
        found: list[str] = []
        for number, text in self.log():
            if number == "!" and text.startswith("start "):
                found.clear()
            elif number != "!":
                found.append(text)
        return found

    def starts(self) -> int:
        """How many programs were started, resumed ones apart."""
        return sum(number == "!" and text.startswith("start ") for number, text in self.log())

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(START_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def restart(self) -> None:
        """Begin anew at the same place, with nothing remembered but its files."""
        port = self.endpoint.rstrip("/").rpartition(":")[2]
        self.process, _, self.control = _started(self.kind, port, self.options)

    def power_cycle(self) -> None:
        self.say("power-cycle")

    def alarm(self, text: str) -> None:
        self.say(f"alarm={text}")

    def refuse_sessions(self) -> None:
        self.say("sessions=0")
        self.say("drop")

    def allow_sessions(self) -> None:
        self.say("sessions=off")


def _started(kind: str, port: str, options: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], str, tuple[str, int]]:
    command = [sys.executable, "-m", "hil_sim.main", kind, "--port", port, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        _, _, endpoint, _, control = ready_line(process).split()
    except BaseException:
        process.kill()  # nobody else knows of it
        process.communicate()
        raise
    host, _, number = control.rpartition(":")
    return process, endpoint, (host, int(number))


@contextlib.contextmanager
def sim_server(kind: str, *options: str, speed: float = 1.0, pki: Path | None = None) -> Iterator[SimServer]:
    """Start one, wait until it is ready, and stop it at the end.

    `pki`: where a server that takes nobody in the open has its certificates; otherwise `options` say how it is secured.
    """
    everything = ("--speed", str(speed), *options)
    way: dict[str, Any] = {}
    if pki is not None:
        everything += ("--security", "encrypt", "--user", f"{USER}={PASSWORD}", "--pki", str(pki))
        way = way_in(pki, USER, PASSWORD)
    process, endpoint, control = _started(kind, "0", everything)
    server = SimServer(process, kind, endpoint, control, everything, way)
    try:
        yield server
    finally:
        server.thaw()
        server.process.terminate()
        server.process.wait(START_S)
        if server.process.stdout is not None:
            server.process.stdout.close()


def plugin_of(kind: str) -> Any:
    from drivers.opcua import JOBCONTROL, ROBOTICS

    return JOBCONTROL if kind == "cnc" else ROBOTICS


def machine_of(server: Served, **more: Any) -> Machine[Any, Any]:
    """As site.toml would have it. `more`: further keys of ``connection``; `limits`, `profile`, `profiles_dir`."""
    plugin = plugin_of(server.kind)
    limits = more.pop("limits", {"checked_by": "controller", "program_max_bytes": 64_000_000})
    profile, profiles_dir = more.pop("profile", "auto"), more.pop("profiles_dir", None)
    known = {"endpoint": server.endpoint, "security": "None", "patience_s": 3.0, "silence_s": 5.0}
    connection = {**known, **server.way, **more}
    return Machine(
        "mill-1" if server.kind == "cnc" else "robot-1",
        "opcua-jobcontrol" if server.kind == "cnc" else "opcua-robotics",
        profile,
        ("mill" if server.kind == "cnc" else "robot.tend",),
        plugin.connection.model_validate(connection),
        plugin.limits.model_validate(limits),
        profiles_dir=profiles_dir,
    )


def trust_each_other(server: Served, machine: Machine[Any, Any], state_dir: Path) -> None:
    """Both sides' certificates, if they are used."""
    if machine.connection.secure:
        trusting(plugin_of(server.kind), machine, state_dir, lambda: server.trust(state_dir))


def program_of(path: Path, lines: list[str]) -> Program:
    path.write_text("".join(f"{line}\n" for line in lines))
    return Program(path.name, path, hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


async def until(holds: Callable[[], object], within_s: float) -> None:
    """Look again and again until it holds. Raises `TimeoutError`."""
    async with asyncio.timeout(within_s):
        while True:
            if holds():
                return
            await asyncio.sleep(0.02)
