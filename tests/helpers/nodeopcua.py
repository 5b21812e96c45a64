"""The node-opcua server of tests/peers/opcua as a process: a machine tool and a robot that speak by others' code."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.opcua_trust import way_in

SERVER = Path(__file__).parent.parent / "peers" / "opcua" / "server.js"
START_S = 120.0
ANSWER_S = 20.0
USER, PASSWORD = "edge", "secret"


@dataclass(frozen=True)
class Peer:
    """A running server. `certificate` is its application certificate (PEM)."""

    process: subprocess.Popen[bytes]
    endpoint: str
    certificate: Path
    folder: Path

    @property
    def mill(self) -> Path:
        """The folder behind the mill's FileSystem."""
        return self.folder / "mill"

    @property
    def robot(self) -> Path:
        """The folder behind the robot's Programs."""
        return self.folder / "robot"

    def tell(self, do: str, **fields: object) -> dict[str, Any]:
        """One command on the control channel, and its answer; see tests/peers/opcua/README.md."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        self.process.stdin.flush()
        answer = _line(self.process, ANSWER_S)
        assert answer.get("ok"), answer
        return answer

    def carried_out(self, machine: str) -> list[str]:
        """The blocks of the last program that `mill` or `robot` has carried out, in order."""
        return list(self.tell("carried_out", machine=machine)["lines"])

    def starts(self, machine: str) -> int:
        """How many programs the machine has begun, resumed ones apart."""
        said = self.tell("carried_out", machine=machine)["starts"]
        return sum(said.values()) if isinstance(said, dict) else int(said)

    def acts(self, machine: str) -> int:
        """How often the machine has done anything that moves it."""
        return int(self.tell("carried_out", machine=machine)["acts"])

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Frozen: the process stands still, its sockets stay."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a power cut at the controller."""
        self.process.kill()
        self.process.wait(ANSWER_S)


@contextlib.contextmanager
def node_opcua(folder: Path, *options: str) -> Iterator[Peer]:
    """Start a server that keeps programs and certificates in `folder`, and end it. `make peers` installs what it needs.

    Started again on the same folder it has the same certificate, trusts whom it trusted and has its programs, but has
    lost its job orders. With ``--port`` it comes back where it was.
    """
    node = os.environ.get("EDGE_PEER_NODE")
    if not node or not (SERVER.parent / "node_modules" / ".installed").exists():
        pytest.fail("node-opcua is missing: run these tests with `make peers`, which installs it")
    command = [node, str(SERVER), "--folder", str(folder), *options]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    with process:
        try:
            ready = _line(process, START_S)
            yield Peer(process, str(ready["endpoint"]), Path(str(ready["certificate"])), folder)
        finally:
            process.kill()
            process.wait(ANSWER_S)
            with contextlib.suppress(BrokenPipeError):
                process.communicate()


class NodeMachine:
    """The machine tool (`kind` is ``cnc``) or the robot of a server of its own, and what can happen to it."""

    def __init__(self, kind: str, folder: Path, *, secure: bool = False) -> None:
        """`secure`: nobody is taken in the open, nor without user and password."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.kind = kind
        self._name = "mill" if kind == "cnc" else "robot"
        self._folder = folder
        security = ("--security", "encrypt", "--no-anonymous") if secure else ("--security", "none")
        self._options = ("--port", str(port), *security)
        self.way = way_in(folder, USER, PASSWORD) if secure else {}
        self._running = contextlib.ExitStack()
        self.restart()

    def as_new(self, blocks_per_s: float) -> None:
        if self.peer.process.poll() is not None:
            self.restart()
        self.peer.tell("reset")
        self.peer.tell("speed", blocks_per_s=blocks_per_s)
        self.allow_sessions()
        self.endpoint = self.peer.endpoint

    @property
    def programs(self) -> Path:
        return self._folder / self._name

    def instructions(self) -> list[str]:
        return self.peer.carried_out(self._name)

    def starts(self) -> int:
        return self.peer.starts(self._name)

    def freeze(self) -> None:
        self.peer.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.peer.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, also for a process that stands still."""
        self._running.close()

    def restart(self) -> None:
        self.peer = self._running.enter_context(node_opcua(self._folder, *self._options))
        self.endpoint = self.peer.endpoint

    def trust(self, state_dir: Path) -> None:
        assert self.peer.tell("trust")["trusted"]

    def replace_certificate(self) -> None:
        self.peer.certificate.unlink()

    def power_cycle(self) -> None:
        self.peer.tell("lose_state")

    def alarm(self, text: str) -> None:
        self.peer.tell("alarm", text=text, effect="none")

    def refuse_sessions(self) -> None:
        self.peer.tell("sessions", limit=0)
        self.peer.tell("drop")

    def allow_sessions(self) -> None:
        self.peer.tell("sessions", limit=10)


def _line(process: subprocess.Popen[bytes], patience_s: float) -> dict[str, Any]:
    """One JSON line. The server says nothing but one for each command, so none is left in a buffer."""
    assert process.stdout is not None
    deadline_s = time.monotonic() + patience_s
    ready, _, _ = select.select([process.stdout], [], [], deadline_s - time.monotonic())
    line = process.stdout.readline() if ready else b""
    assert line, "the node-opcua server did not answer; its words are in server.log"
    answer: dict[str, Any] = json.loads(line)
    return answer
