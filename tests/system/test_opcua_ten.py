"""Ten simulated mills, each a process of its own, that fail at once."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.opcua import SimServer, sim_server
from tests.helpers.opcua_ten import COUNT, TenAtOnce

STARTED_AT_ONCE = 2
"""Each takes seconds of work before it is ready, and has a limit for that."""


@dataclass
class Sims:
    """Ten servers."""

    servers: list[SimServer]
    folder: Path
    password = "geheim"

    def where(self, number: int) -> tuple[str, str]:
        return self.servers[number].endpoint, ""

    def trust(self, number: int, certificate: Path) -> None:
        trusted = self.folder / f"theirs-{number}" / "trusted"
        trusted.mkdir(exist_ok=True)
        shutil.copy(certificate, trusted / "edge.der")

    def at_work(self) -> bool:
        return all(server.instructions() for server in self.servers)

    def starts(self) -> list[int]:
        return [server.starts() for server in self.servers]

    def freeze(self) -> None:
        for server in self.servers:
            server.freeze()

    def thaw(self) -> None:
        for server in self.servers:
            server.thaw()

    def kill(self) -> None:
        with ThreadPoolExecutor(COUNT) as pool:
            list(pool.map(SimServer.kill, self.servers))

    def restart(self) -> None:
        with ThreadPoolExecutor(STARTED_AT_ONCE) as pool:
            list(pool.map(SimServer.restart, self.servers))


@pytest.mark.slow
class TestTenSimulatedMills(TenAtOnce):
    @classmethod
    @contextlib.contextmanager
    def mills(cls, folder: Path) -> Iterator[Sims]:
        secure = ["--security", "encrypt", "--user", f"edge={Sims.password}"]
        options = [[*secure, "--pki", str(folder / f"theirs-{number}")] for number in range(COUNT)]
        servers = [sim_server("cnc", *each) for each in options]
        with contextlib.ExitStack() as stack, ThreadPoolExecutor(STARTED_AT_ONCE) as pool:
            yield Sims(list(pool.map(stack.enter_context, servers)), folder)
