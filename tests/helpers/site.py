"""A whole site as its operator has it: keys, a trust root, site.toml, a simulated printer and the daemon as processes.

with running_site(tmp_path) as site:
    job_id = site.submit(site.bundle(SHORT))["job_id"]
    site.wait_event("run_ended", job_id)
    assert site.edge("status").returncode == ATTENTION
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from edge.cli.client import call
from edge.folders import FIRST_START, make_state_dir
from edge.journal.schema import FILE_NAME
from edge.model.fields import time_text
from edge.trust import new_job_id, write_bundle
from tests.helpers.sim import SimPrinter, sim_printer
from tests.helpers.trust import Ceremony, order_document, root_document, signed_root

DEADLINE_S = 30.0

SHORT = b"G28\nG90\nG1 X10 Y10 F3000\nG1 X20 Y20\n"
LONG = b"G28\nG90\nM104 S200\nM140 S60\n" + b"G1 X100 F6000\nG1 X10 F6000\n" * 2000
"""Half an hour of moving to and fro, with the heaters on."""

SITE = """\
[site]
id = "berlin-1"
state_dir = "state"
socket = "edge.sock"
trust_root = "root.dsse.json"
"""

PRINTER = """
[[machines]]
id = "prn-1"
driver = "gcode"
processes = ["fdm"]
connection = {{port = "{port}", baud = 250000}}
properties = {{material = "PLA", nozzle_mm = 0.4}}
limits = {{x_mm = [0, 200], y_mm = [0, 200], z_mm = [0, 200], nozzle_degc = [0, 260], bed_degc = [0, 100]}}
"""

_AS_ANOTHER = """\
import os, sys, gettext, locale, shutil, tempfile, encodings.idna
from edge.cli import events, jobs, journal, machine, status
from edge.cli.main import main
uid, gid = map(int, sys.argv[1:3])
os.setgroups([]), os.setgid(gid), os.setuid(uid)
sys.exit(main(sys.argv[3:]))
"""


class Daemon:
    """A running `edge run`, and what it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as said:
            for line in said:
                with self._heard:
                    self.lines.append(line.rstrip("\n"))
                    self._heard.notify_all()

    def wait_line(self, words: str) -> str:
        """The first line that contains `words`."""

        def found() -> str | None:
            return next((line for line in self.lines if words in line), None)

        with self._heard:
            line = self._heard.wait_for(found, DEADLINE_S)
        assert line is not None, f"the daemon did not say {words!r} but {self.lines}"
        return line

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        assert not self._reader.is_alive(), "somebody still holds the daemon's output"
        return code


class SiteFolder:
    """A site's folder. `ceremony` has the keys that its root trusts."""

    def __init__(self, folder: Path, machines: str | None = None, *, guard_after_s: float = 0) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.config = folder / "site.toml"
        self.socket = folder / "edge.sock"
        self.ceremony = Ceremony()
        self.daemon: Daemon | None = None
        self._sequence = 0
        (folder / "root.dsse.json").write_bytes(signed_root(root_document()))
        site = SITE + f'guard_after_s = {guard_after_s}\n\n[time]\nsource = "host"\n'
        self.config.write_text(site + (PRINTER.format(port=folder / "printer") if machines is None else machines))

    # As a shell runs it

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "edge.cli.main", "--config", str(self.config), *words]

    def edge(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command; no traceback, and no line wider than a terminal unless it is an error."""
        return self._checked(self.command(*words), words, **more)

    def edge_as(self, uid: int, gid: int, *words: str) -> subprocess.CompletedProcess[str]:
        """The same as another user, who may have no permission to read this project's files: it is loaded before."""
        program = [sys.executable, "-c", _AS_ANOTHER, str(uid), str(gid), "--config", str(self.config), *words]
        return self._checked(program, words, cwd="/", env={"HOME": "/"})

    def _checked(self, program: list[str], words: tuple[str, ...], **more: Any) -> subprocess.CompletedProcess[str]:
        more.setdefault("cwd", self.folder)
        done = subprocess.run(program, capture_output=True, text=True, timeout=DEADLINE_S, check=False, **more)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        if "--json" not in words and words[:1] != ("events",):  # one event is one line: `grep` has it whole
            lines = done.stdout.replace(str(self.folder), "").splitlines()  # nobody can break a path in two
            assert max((len(line) for line in lines), default=0) <= 80, done.stdout
        return done

    def json(self, *words: str, code: int | None = 0) -> Any:
        """The document of a command with ``--json``."""
        done = self.edge(*words, "--json")
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def start(self, *, ready: str = "prn-1 is online") -> Daemon:
        """Start the daemon and wait for a line of it; the first time as after `edge init`."""
        make_state_dir(self.state_dir)
        if not (self.state_dir / FILE_NAME).exists():
            (self.state_dir / FIRST_START).touch()
        process = subprocess.Popen(
            self.command("run"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={**os.environ, "RUNTIME_DIRECTORY": str(self.folder)},  # so that nothing stays in /dev/shm
        )
        self.daemon = Daemon(process)
        self.daemon.wait_line(ready)
        return self.daemon

    # Orders

    def bundle(self, program: bytes = SHORT, *, files: bool = True, on_restart: str = "hold", **fields: Any) -> Path:
        """A signed order that prints `program`, as a bundle; `fields` override."""
        now = datetime.now(UTC).replace(microsecond=0)
        self._sequence += 1
        sha256 = hashlib.sha256(program).hexdigest()
        artifact = {"sha256": sha256, "size_bytes": len(program), "media_type": "text/x.gcode", "sources": []}
        order = order_document(
            job_id=new_job_id(now),
            issued_at=time_text(now - timedelta(minutes=1)),
            expires_at=time_text(now + timedelta(days=7)),
            sequence=self._sequence,
            artifacts={"body.gcode": artifact},
        )
        order["steps"][0]["on_restart"] = on_restart
        return self.sealed(order | fields, {sha256: program} if files else {})

    def sealed(self, order: dict[str, Any], programs: dict[str, bytes], **signing: Any) -> Path:
        """Sign an order and put it into a bundle with its programs."""
        raw = self.ceremony.sign(json.dumps(order).encode(), **signing)
        paths = {}
        for sha256, program in programs.items():
            paths[sha256] = self.folder / f"{sha256[:8]}.gcode"
            paths[sha256].write_bytes(program)
        path = self.folder / f"order-{self._sequence}.mfjob"
        write_bundle(path, raw, paths)
        return path

    def submit(self, bundle: Path, *, code: int = 0) -> dict[str, Any]:
        """`edge job submit`, as a script reads it."""
        receipt: dict[str, Any] = self.json("job", "submit", str(bundle), code=code)
        return receipt

    # What happened

    def wait_event(self, kind: str, job_id: str | None = None, after: int = 0) -> dict[str, Any]:
        """The first such event after `after`, from the running daemon, as soon as it is there."""
        deadline_s = time.monotonic() + DEADLINE_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            query = urlencode({"after": after, "wait": int(left_s) + 1})
            for event in call(self.socket, "GET", f"/v1/events?{query}"):
                after = event["seq"]
                if event["kind"] == kind and job_id in (None, event["job_id"]):
                    return dict(event)
        raise AssertionError(f"no {kind} came")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """All events of a kind, from the journal's file."""
        lines = self.edge("events", "-n", "10000", "--json").stdout.splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def live(self) -> dict[str, Any]:
        """The status document of the running daemon."""
        return dict(call(self.socket, "GET", "/v1/status"))

    def printed(self, program: bytes = SHORT) -> str:
        """Submit a job and wait for its end; its id."""
        job_id = str(self.submit(self.bundle(program))["job_id"])
        self.wait_event("run_ended", job_id)
        return job_id

    def begun(self, commands: int = 20, program: bytes = LONG, on_restart: str = "hold") -> str:
        """Submit a long job and wait until the printer is well into it; its id."""
        job_id = str(self.submit(self.bundle(program, on_restart=on_restart))["job_id"])
        self.wait_event("run_began", job_id)
        until(lambda: ((self.live()["machines"][0]["progress"] or {"done": 0})["done"]) >= commands)
        return job_id


def until(condition: Callable[[], object]) -> None:
    """Look again and again until it holds; fails at the deadline."""
    deadline_s = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, "what was waited for did not come"
        pause.wait(0.02)


def starts(printer: SimPrinter) -> int:
    """How many programs were begun on a simulated printer: their first commands, less those of a stop."""
    return sum(number == "1" and text != "M104 S0" for number, text in printer.commands())


@contextlib.contextmanager
def site_with_printer(
    folder: Path, *options: str, speed: float = 2000.0, start: bool = True, guard_after_s: float = 0
) -> Iterator[tuple[SiteFolder, SimPrinter]]:
    """A site whose only machine is a simulated printer; both are ended at the end."""
    site = SiteFolder(folder, guard_after_s=guard_after_s)
    with sim_printer(folder, *options, speed=speed) as printer:
        try:
            if start:
                site.start()
            yield site, printer
        finally:
            if site.daemon is not None:
                site.daemon.end()
