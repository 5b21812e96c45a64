"""The hosts that people use today, each in an environment of its own, and each as its authors run it."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from bench.equipment import BAUD, WAIT_S, Figures, MissingError, Printers, measured, write_program

ENVIRONMENTS = Path(".venv")
PRINTCORE_HOST = Path("tests/peers/printcore_host.py")

HTTP_PORT = 5077
API_KEY = uuid.uuid4().hex
ASK_S = 1.0
"""How often OctoPrint is asked whether it has ended: seldom, for each answer costs CPU time of its process."""

# Headless, with nothing that talks to the Internet, and no plug-in that looks at files or lines for other reasons.
CONFIG = {
    "accessControl": {"autologinLocal": False},
    "api": {"key": API_KEY},
    "server": {
        "host": "127.0.0.1",
        "port": HTTP_PORT,
        "firstRun": False,
        "onlineCheck": {"enabled": False},
        "pluginBlacklist": {"enabled": False},
    },
    "plugins": {
        "_disabled": [
            "softwareupdate",
            "announcements",
            "tracking",
            "errortracking",
            "pluginmanager",
            "discovery",
            "achievements",
        ]
    },
}


def printcore(folder: Path, paced: Printers) -> Figures:
    """Printrun's printcore prints the program, in a script of a dozen lines. Raises `MissingError`."""
    python = _python("printrun")
    command = [str(python), str(PRINTCORE_HOST), str(paced.port(0)), str(write_program(folder / "bench.gcode"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:

        def wait_ended() -> None:
            said, _ = process.communicate(timeout=WAIT_S)
            if process.returncode:
                raise MissingError(f"printcore has failed: {said.strip()}")

        try:
            return measured(process.pid, paced, wait_ended)
        finally:
            process.kill()


def octoprint(folder: Path, paced: Printers) -> Figures:
    """OctoPrint's server prints the program from its uploads. Raises `MissingError`."""
    python = _python("octoprint")
    base = folder / "octoprint"
    (base / "uploads").mkdir(parents=True)
    port = str(paced.port(0))
    serial = {"autoconnect": True, "port": port, "additionalPorts": [port], "baudrate": BAUD}
    # YAML takes JSON.
    (base / "config.yaml").write_text(json.dumps(CONFIG | {"serial": serial}), encoding="utf-8")
    shutil.copy(write_program(folder / "bench.gcode"), base / "uploads" / "bench.gcode")
    # As root it wants to be told that this is meant.
    command = [str(python.with_name("octoprint")), "serve", "--basedir", str(base), "--iknowwhatimdoing"]
    with (folder / "octoprint.out").open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _wait_state(process, "Operational")
            _ask("POST", "/api/files/local/bench.gcode", {"command": "select", "print": True})
            return measured(process.pid, paced, lambda: _wait_state(process, "Operational"))
        finally:
            process.terminate()
            process.wait(WAIT_S)


def version(environment: str, distribution: str) -> str:
    """Of what is installed there; empty if nothing is."""
    try:
        program = f"from importlib.metadata import version; print(version({distribution!r}))"
        done = subprocess.run([_python(environment), "-c", program], capture_output=True, text=True, check=False)
    except MissingError:
        return ""
    return done.stdout.strip()


def _python(environment: str) -> Path:
    python = ENVIRONMENTS / environment / "bin" / "python"
    if not (ENVIRONMENTS / environment / ".installed").exists():
        raise MissingError(f"{ENVIRONMENTS / environment} is not installed; `make bench` does it, and says why not")
    return python


def _wait_state(process: subprocess.Popen[bytes], state: str) -> None:
    """Ask until the printer is in this state."""
    deadline_s = time.monotonic() + WAIT_S
    found = "nothing"
    while time.monotonic() < deadline_s:
        try:
            found = _ask("GET", "/api/job")["state"]
        except (OSError, http.client.HTTPException):
            found = "nothing"  # not up yet
        if found == state:
            return
        if re.search("error", found, re.IGNORECASE):
            break
        try:
            process.wait(ASK_S)
        except subprocess.TimeoutExpired:
            continue
        break
    raise MissingError(f"OctoPrint says {found!r} instead of {state!r}")


def _ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"X-Api-Key": API_KEY, "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{HTTP_PORT}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
        said = answer.read()
    return json.loads(said) if said else None
