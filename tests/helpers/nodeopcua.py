"""The node-opcua server of tests/peers/opcua as a process: a machine tool and a robot that speak by others' code."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SERVER = Path(__file__).parent.parent / "peers" / "opcua" / "server.js"
START_S = 60.0
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


def _line(process: subprocess.Popen[bytes], patience_s: float) -> dict[str, Any]:
    """One JSON line. The server says nothing but one for each command, so none is left in a buffer."""
    assert process.stdout is not None
    deadline_s = time.monotonic() + patience_s
    ready, _, _ = select.select([process.stdout], [], [], deadline_s - time.monotonic())
    line = process.stdout.readline() if ready else b""
    assert line, "the node-opcua server did not answer; its words are in server.log"
    answer: dict[str, Any] = json.loads(line)
    return answer
