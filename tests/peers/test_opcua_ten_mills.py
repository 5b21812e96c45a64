"""Ten mills on one node-opcua server that fails: the links of all ten break at the same moment."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.nodeopcua import PASSWORD, node_opcua
from tests.helpers.opcua_ten import COUNT, TenAtOnce

MACHINES = [f"mill{number + 1 if number else ''}" for number in range(COUNT)]


class OneServer:
    """It comes back where it was."""

    password = PASSWORD

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._folder = folder
        self._options = ("--port", str(port), "--mills", str(COUNT), "--sessions", "30", "--blocks-per-s", "0.5")
        self._running = contextlib.ExitStack()
        self.restart()

    def where(self, number: int) -> tuple[str, str]:
        return self._peer.endpoint, MACHINES[number].capitalize()

    def trust(self, number: int, certificate: Path) -> None:
        assert self._peer.tell("trust")["trusted"]

    def at_work(self) -> bool:
        return all(self._peer.carried_out(name) for name in MACHINES)

    def starts(self) -> list[int]:
        return [self._peer.starts(name) for name in MACHINES]

    def freeze(self) -> None:
        self._peer.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._peer.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._running.close()

    def restart(self) -> None:
        secure = ("--security", "encrypt", "--no-anonymous")
        self._peer = self._running.enter_context(node_opcua(self._folder, *secure, *self._options))


@pytest.mark.slow
class TestTenMillsOnNodeOpcua(TenAtOnce):
    @classmethod
    @contextlib.contextmanager
    def mills(cls, folder: Path) -> Iterator[OneServer]:
        (folder / "peer").mkdir()
        server = OneServer(folder / "peer")
        try:
            yield server
        finally:
            server.kill()
