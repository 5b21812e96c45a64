"""A simulated OctoPrint as a process, and what tests ask of an OctoPrint with people's keys."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivers.octoprint.config import Connection, Limits, Printer
from edge.driver import Machine

START_S = 30.0
OURS, ADAS, GUESTS = "ours-0123456789", "adas-0123456789", "guests-0123456789"
LIMITS = Limits(x_mm=(0, 220), y_mm=(0, 220), z_mm=(0, 250), nozzle_degc=(0, 260), bed_degc=(0, 100))


def machine_at(url: str, folder: Path, key: str = OURS, **connection: Any) -> Printer:
    """A machine behind the OctoPrint at `url`; its key file is written."""
    file = folder / "octoprint.key"
    if not file.exists():
        file.touch(0o600)
        file.write_text(f"{key}\n")
    return Machine(
        "oct-1", "octoprint", "marlin-2.1", ("fdm",), Connection(url=url, api_key_file=file, **connection), LIMITS
    )


def ask(url: str, method: str, path: str, body: Any = None, key: str = ADAS) -> tuple[int, Any]:
    """One request as a person's browser makes it: status and answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"X-Api-Key": key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=START_S) as answer:
            said = answer.read()
            return answer.status, json.loads(said) if said else None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


@dataclass
class SimOctoPrint:
    """``hil-sim octoprint``; ada is a person with an account, the site is another."""

    folder: Path
    options: Sequence[str] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "executed.log"

    def start(self) -> None:
        users = [f"--user={name}={key}" for name, key in (("edge", OURS), ("ada", ADAS), ("guest", GUESTS))]
        place = [f"--http=127.0.0.1:{self.port}", f"--dir={self.folder / 'octoprint'}", f"--log={self.log}"]
        command = [sys.executable, "-m", "hil_sim.main", "octoprint", *place, *users, *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], START_S)
        line = self.process.stdout.readline().decode() if ready else ""
        assert line.startswith("ready http "), f"the simulator did not start: {line!r}"
        self.port = int(line.rpartition(":")[2])

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def ask(self, method: str, path: str, body: Any = None, key: str = ADAS) -> tuple[int, Any]:
        return ask(self.url, method, path, body, key)

    def fault(self, name: str, argument: str = "") -> None:
        status, _ = self.ask("POST", "/hil/fault", {"name": name, "argument": argument})
        assert status == 204, name

    def commands(self) -> list[str]:
        """What the printer has carried out, in order."""
        return [line.split("\t", 2)[2] for line in self.log.read_text().splitlines()]

    def starts(self) -> int:
        """How many prints were begun: each program of the tests begins with G28."""
        return self.commands().count("G28")

    def state(self) -> str:
        return str(self.ask("GET", "/api/job")[1]["state"])

    def wait_state(self, state: str) -> None:
        deadline_s = time.monotonic() + START_S
        while (found := self.state()) != state:
            assert time.monotonic() < deadline_s, f"OctoPrint is {found}, not {state}"
            time.sleep(0.05)


@contextlib.contextmanager
def sim_octoprint(folder: Path, *options: str) -> Iterator[SimOctoPrint]:
    """Start one, and end it at the end."""
    server = SimOctoPrint(folder, options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


MACHINE = """
[[machines]]
id = "oct-1"
driver = "octoprint"
profile = "marlin-2.1"
processes = ["fdm"]
connection = {{url = "{url}", api_key_file = "{key}", patience_s = {patience_s}}}
properties = {{material = "PLA", nozzle_mm = 0.4}}
limits = {{x_mm = [0, 220], y_mm = [0, 220], z_mm = [0, 250], nozzle_degc = [0, 260], bed_degc = [0, 100]}}
"""


def table_of(url: str, folder: Path, patience_s: float = 600.0, key: str = OURS) -> str:
    """The machine of `machine_at` as site.toml has it; its key file is written."""
    file = folder / "octoprint.key"
    file.touch(0o600)
    file.write_text(f"{key}\n")
    return MACHINE.format(url=url, key=file, patience_s=patience_s)
