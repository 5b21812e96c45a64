"""The simulated OctoPrint, as a process: its arguments, and that it answers as the real one was recorded."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.octoprint import OURS, sim_octoprint

TRANSCRIPTS = Path(__file__).parent.parent / "transcripts"


def refusal(*words: str) -> str:
    command = [sys.executable, "-m", "hil_sim.main", "octoprint", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


def test_what_is_typed_wrongly_is_one_line(tmp_path: Path) -> None:
    place = ("--http=127.0.0.1:0", f"--dir={tmp_path}")
    assert "is not HOST:PORT" in refusal("--http=here", f"--dir={tmp_path}")
    assert "is not NAME=KEY" in refusal(*place, "--user=ada")
    assert "is not a number above 0" in refusal(*place, "--rate=0")
    assert "no fault is called 'fire'" in refusal(*place, "--fault=fire")
    assert "needs an HTTP status" in refusal(*place, "--fault=status=bad")
    assert "cannot write the log" in refusal(*place, f"--log={tmp_path}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert "cannot listen on" in refusal(f"--http=127.0.0.1:{port}", f"--dir={tmp_path}")


def types(value: Any) -> Any:
    """The form of an answer: of each key its type; lists by their first element."""
    if isinstance(value, dict):
        return {key: types(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [types(value[0])] if value else []
    return type(value).__name__


def lacking(wanted: Any, found: Any, where: str = "") -> list[str]:
    """What the simulator says and the real one does not, or with another type. It may say less."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        odd = [f"{where}.{key}" for key in found if key not in wanted]
        return odd + [
            more for key in wanted.keys() & found for more in lacking(wanted[key], found[key], f"{where}.{key}")
        ]
    if isinstance(wanted, list) and isinstance(found, list):
        return lacking(wanted[0], found[0], f"{where}[]") if wanted and found else []
    alike = {wanted, found} <= {"int", "float"} or "NoneType" in (wanted, found)
    return [] if wanted == found or alike else [f"{where}: {wanted} {found}"]


@pytest.mark.parametrize(("version", "options"), [("1.11.8", []), ("2.0.0rc7", ["--newer"])])
def test_it_answers_in_the_form_of_the_real_one(tmp_path: Path, version: str, options: list[str]) -> None:
    rows = json.loads((TRANSCRIPTS / f"octoprint-{version}.json").read_text())
    recorded = {row["name"]: row for row in rows if "body" in row}
    with sim_octoprint(tmp_path, "--rate=10", *options) as server:
        uploads = tmp_path / "octoprint" / "uploads" / "edge"

        def same(name: str) -> None:
            row = recorded[name]
            asked = {"start": {"command": "select", "print": True}, "cancel": {"command": "cancel"}}
            body = asked.get(name.partition(",")[0])
            status, answer = server.ask(row["method"], row["path"], body, key=OURS)
            assert status == row["status"], name
            if status < 300:
                assert lacking(types(row["body"]), types(answer)) == [], name

        for name in ("version", "server", "currentuser", "job, idle", "printer, idle", "file, no folder"):
            same(name)
        uploads.mkdir(parents=True)
        (uploads / "run-1.gcode").write_text("G28\n" * 1000)
        for name in ("file, fresh", "folder", "file, missing", "start", "job, printing", "start, printing"):
            same(name)
        same("delete, printing")
        server.ask("POST", "/api/job", {"command": "cancel"})
        server.wait_state("Operational")
        same("cancel, idle")
        same("job, cancelled")
        server.fault("serial-error", "Thermal Runaway")
        same("job, after error")
        same("printer, offline")
        same("start, offline")


def test_what_it_stores_outlives_it(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        (tmp_path / "octoprint" / "uploads" / "a.gcode").write_text("G28\n")
        server.ask("POST", "/api/files/local/a.gcode", {"command": "select", "print": True})
        server.wait_state("Operational")
        server.kill()
        server.start()
        assert server.ask("GET", "/api/files/local/a.gcode")[0] == 200
