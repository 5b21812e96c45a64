"""The real OctoPrint as a process, with its virtual printer behind it, in a fresh base directory."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.octoprint import ADAS, OURS, ask

START_S = 90.0
"""It takes 3 s, and more on a machine that does other things as well."""

CONFIG: dict[str, Any] = {
    "accessControl": {"autologinLocal": False},
    "server": {
        "host": "127.0.0.1",
        "firstRun": False,
        "onlineCheck": {"enabled": False},
        "pluginBlacklist": {"enabled": False},
        "seenWizards": {
            "corewizard": 4,
            "tracking": 1,
            "backup": None,
            "classicwebcam": None,
            "achievements": 1,
            "errortracking": None,
        },
        # Killed while it starts, it would come back in safe mode.
        "ignoreIncompleteStartup": True,
    },
    "serial": {"autoconnect": True, "port": "VIRTUAL", "baudrate": 115200, "log": True},
    "plugins": {
        "_disabled": [
            *("softwareupdate", "announcements", "tracking", "errortracking", "pluginmanager", "discovery"),
            "achievements",
        ],
        "virtual_printer": {"enabled": True, "throttle": 0.0, "simulated_errors": [], "okWithLinenumber": False},
    },
}


@dataclass
class RealOctoPrint:
    """``octoprint serve``; `edge` and `ada` have accounts in the group users."""

    program: Path
    base: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """A base directory of its own, with two users whose keys are known."""
        self.base.mkdir(parents=True)
        # YAML takes JSON.
        config = {**CONFIG, "server": {**CONFIG["server"], "port": self.port}}
        (self.base / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
        groups = {"edge": ("users", OURS), "ada": ("users", ADAS), "admin": ("admins", None)}
        account = {"active": True, "password": "", "permissions": [], "settings": {}}
        users = {name: {**account, "groups": [group], "apikey": key} for name, (group, key) in groups.items()}
        (self.base / "users.yaml").write_text(json.dumps({"_version": 2, **users}), encoding="utf-8")

    def start(self) -> None:
        command = [str(self.program), "--basedir", str(self.base), "serve", "--iknowwhatimdoing"]
        with (self.base / "serve.out").open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "HOME": str(self.base)})
        self.wait_state("Operational")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, method: str, path: str, body: Any = None, key: str = ADAS) -> tuple[int, Any]:
        return ask(self.url, method, path, body, key)

    def debug(self, what: str) -> None:
        """Have the virtual printer misbehave (octoprint/plugins/virtual_printer, `_debug_command`)."""
        status, _ = self.ask("POST", "/api/printer/command", {"command": f"!!DEBUG:{what}"})
        assert status == 204, what

    def wait_state(self, state: str) -> None:
        deadline_s = time.monotonic() + START_S
        found = "nothing"
        while found != state:
            assert time.monotonic() < deadline_s, f"OctoPrint is {found}, not {state}"
            assert self.process is None or self.process.poll() is None, (self.base / "serve.out").read_text()[-2000:]
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, job = self.ask("GET", "/api/job")
                found = job["state"] if status == 200 else f"HTTP {status}"
            time.sleep(0.05)

    def fresh(self) -> None:
        """As a person leaves it: nothing going on, connected to its printer, without our files."""
        if self.process is None:
            self.start()
        if self.ask("GET", "/api/job")[1]["state"] != "Operational":
            self.ask("POST", "/api/job", {"command": "cancel"})
            self.ask("POST", "/api/connection", {"command": "connect"})
            self.wait_state("Operational")
        status, folder = self.ask("GET", "/api/files/local/edge")
        for file in folder["children"] if status == 200 else ():
            self.ask("DELETE", f"/api/files/local/{file['path']}")

    def sent(self) -> list[str]:
        """Numbered commands that went to the printer, in order, with ``M110`` where the count begins anew."""
        found: list[str] = []
        for log in sorted((self.base / "logs").glob("serial.log*"), reverse=True):
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                _, _, command = line.partition(" - Send: N")
                if command:
                    found.append(command.partition(" ")[2].rpartition("*")[0])
        return found

    def commands(self) -> list[str]:
        """What was sent since the last count began: the program, without what OctoPrint asks by itself."""
        sent = self.sent()
        begins = [i for i, command in enumerate(sent) if command.startswith("M110")]
        return sent[begins[-1] + 1 :] if begins else sent


@contextlib.contextmanager
def real_octoprint(program: Path, folder: Path, port: int) -> Iterator[RealOctoPrint]:
    """Prepare one, start it, and end it at the end."""
    server = RealOctoPrint(program, folder / "octoprint", port)
    server.prepare()
    try:
        server.start()
        yield server
    finally:
        server.kill()
