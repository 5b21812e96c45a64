"""`edge demo`: the main job of the whole product, told in one terminal.

Everything is real: `hil-sim printer`, `edge run`, `edge collect` and an MQTT broker are processes of their own, the
order is signed with the command that a user would type and comes in over MQTT, and the print is real sliced G-code.
Only the printer is simulated, and its clock runs faster.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import resources
from pathlib import Path
from typing import IO, Any

from edge.cli import text
from edge.cli.client import call
from edge.demo import broker
from edge.demo.meaning import as_meant
from edge.errors import EdgeError
from edge.reading.status import UNSAFE

SPEED = 25.0
"""How much faster than a real printer the simulated one is: five minutes of heating and printing pass in 12 s."""

END = "M400"
"""What the driver sends last: the printer waits until it stands still."""

START_S = 30.0
PRINT_S = 80.0
LOOK_S = 0.2
BAR_COLUMNS = 24
INDENT = "  "

SITE = """\
[site]
id = "demo-1"
state_dir = "state"
socket = "edge.sock"
trust_root = "root.dsse.json"

[time]
source = "host"

[uplink]
kind = "mqtt"
url = "mqtt://127.0.0.1:BROKER"

[[machines]]
id = "prn-1"
driver = "gcode"
processes = ["fdm"]
connection = {port = "PRINTER", baud = 250000}
properties = {material = "PLA", nozzle_mm = 0.4}
limits = {x_mm = [0, 200], y_mm = [0, 200], z_mm = [0, 200], nozzle_degc = [0, 260], bed_degc = [0, 100]}
"""


CENTRE = """\
[collector]
state_dir = "state"

[uplink]
kind = "mqtt"
url = "mqtt://127.0.0.1:BROKER"

[[sites]]
id = "demo-1"
keys = ["../state/site.pub"]
"""

COLLECT = ("collect", "--config", "centre/collector.toml")

MODES_BASE = 890_000_000
"""The driver numbers what comes before a program's first command from here."""

IN = "mf/v1/demo-1/in"
"""Where the site takes orders."""


class DemoError(EdgeError):
    """The demo did not go as it must."""


class Story:
    """One run of the demo in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, "EDGE_CONFIG": str(folder / "site.toml"), "PYTHONUNBUFFERED": "1"}
        self._environment["RUNTIME_DIRECTORY"] = str(folder)  # nothing is left behind
        self._port = _free_port()

    def tell(self) -> str:
        """The whole story; the last line."""
        _chapter("1. Keys, and who may order work here")
        self._edge("key", "new", "owner@demo")
        self._edge("key", "new", "orders@demo")
        self._edge("collect", "init", "centre")
        root = ["--root", "owner@demo.pub", "--issuer", "orders@demo.pub", "--collector", "centre/state/collector.pub"]
        self._edge("root", "new", "--name", "Demo", "--out", "root.dsse.json", *root)
        self._edge("root", "sign", "root.dsse.json", "--key", "owner@demo.key")
        with ExitStack() as stack:
            _chapter("2. A simulated printer, the daemon that drives it, a broker, and the centre")
            log = self._folder / "executed.log"
            printer = ["printer", "--pty", "printer", "--speed", f"{SPEED:g}", "--log", log.name]
            stack.enter_context(self._process("hil-sim", *printer, ready="ready"))
            broker = ["-m", "edge.demo.broker", str(self._port), "."]
            stack.enter_context(self._process("python", *broker, ready="broker ready"))
            self._configure("site.toml", SITE.replace("PRINTER", str(self._folder / "printer")))
            self._configure("centre/collector.toml", CENTRE)
            self._edge("check")
            stack.enter_context(self._process("edge", "run", ready="prn-1 is online"))
            self._edge("journal", "confirm")

            stack.enter_context(self._process("edge", *COLLECT, ready="connected"))

            _chapter("3. A signed order, over MQTT; its program follows on a stick")
            for name in ("order.toml", "tiny.gcode"):
                (self._folder / name).write_bytes(resources.files("edge.demo").joinpath(name).read_bytes())
            self._edge("job", "sign", "order.toml", "--key", "orders@demo.key", "--out", "order.mfjob")
            self._publish("order.mfjob")
            job_id = self._accepted()
            self._submit("order.mfjob")
            self._watch(job_id)

            _chapter("4. What must not happen: a forged order, and the same order again")
            _tamper(self._folder / "order.mfjob", self._folder / "forged.mfjob")
            self._publish("forged.mfjob")
            forged = self._submit("forged.mfjob")
            self._publish("order.mfjob")
            again = self._submit("order.mfjob")

            _chapter("5. How the site is now, and what the centre knows of it")
            self._edge("status", may_need_attention=True)
            reported = self._reported()
            self._edge(*COLLECT, "status", may_need_attention=True)
        _chapter("6. All have stopped: the journal's verdict, and the printer's own log")
        self._edge("verify")
        return self._verdict(log, forged, again, reported)

    # What is done

    def _edge(self, *words: str, may_need_attention: bool = False) -> None:
        """Type a command, and show what it says."""
        _typed("edge", *words)
        done = self._run("edge", *words)
        _said((done.stdout + done.stderr).splitlines())
        if done.returncode not in ((0, 1) if may_need_attention else (0,)):
            raise DemoError(f"`edge {' '.join(words)}` ended with exit code {done.returncode}")

    def _submit(self, bundle: str) -> Mapping[str, Any]:
        """Submit a bundle as a user would, and read the verdict as a script would."""
        _typed("edge", "job", "submit", bundle)
        done = self._run("edge", "job", "submit", "--json", bundle)
        if not done.stdout:
            raise DemoError(f"`edge job submit {bundle}` said: {done.stderr.strip()}")
        from edge.cli.jobs import receipt_lines

        receipt: Mapping[str, Any] = json.loads(done.stdout)
        _said(receipt_lines(Path(bundle), receipt))
        return receipt

    def _configure(self, name: str, content: str) -> None:
        (self._folder / name).write_text(content.replace("BROKER", str(self._port)), encoding="utf-8")

    def _publish(self, bundle: str) -> None:
        """Publish the order of a bundle, as whoever orders work does: MQTT 5, QoS 1."""
        import asyncio

        from edge.trust import read_envelope
        from edge.uplink.broker import Broker
        from edge.uplink.mqtt import connect

        raw = read_envelope(self._folder / bundle)

        async def publish() -> None:
            async with connect(Broker("127.0.0.1", self._port, None), "orders@demo", [], session_s=0) as uplink:
                await uplink.publish(IN, raw)

        asyncio.run(publish())
        _said([f"the order in {bundle} ({len(raw)} bytes) is published to {IN}"])

    def _accepted(self) -> str:
        """Wait for the site's verdict on what came over MQTT; the job's id."""
        deadline_s = time.monotonic() + START_S
        after = 0
        while time.monotonic() < deadline_s:
            for event in call(self._folder / "edge.sock", "GET", f"/v1/events?after={after}&wait=2"):
                after = event["seq"]
                if event["kind"] == "job_accepted":
                    _said([f"accepted: job {event['job_id']}, which came from {event['actor']}"])
                    return str(event["job_id"])
        raise DemoError("the order that was published was not accepted")

    def _reported(self) -> int:
        """Wait until the collector's chain ends as the journal's does; how many events that are."""
        deadline_s = time.monotonic() + START_S
        ours, theirs = None, None
        while time.monotonic() < deadline_s:
            ours = self._status()["last_event"]
            done = self._run("edge", *COLLECT, "status", "--json")
            theirs = next(iter(json.loads(done.stdout)["sites"]), None) if done.stdout else None
            if theirs is not None and (ours["seq"], ours["hash"]) == (theirs["seq"], theirs["hash"]):
                digest = ours["hash"][:16]
                _said([f"the collector's copy ends as the journal does: event {ours['seq']}, hash {digest}…"])
                return int(ours["seq"])
            time.sleep(LOOK_S)
        raise DemoError(f"the journal ends with {ours}, and the collector has {theirs}")

    def _run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_command(program), *words],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @contextmanager
    def _process(self, program: str, *words: str, ready: str) -> Iterator[None]:
        """Start a process, wait for the line that says it is ready, and stop it at the end."""
        _typed(program, *words, "&")
        with subprocess.Popen(
            [_command(program), *words],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                _said([_wait_for(process, ready)])
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=START_S)
        if process.returncode != 0:
            raise DemoError(f"{program} ended with exit code {process.returncode}")

    def _watch(self, job_id: str) -> None:
        """Show the print until it has ended."""
        deadline_s = time.monotonic() + PRINT_S
        shown, total = -1, 0
        while time.monotonic() < deadline_s:
            site = self._status()
            (machine,) = site["machines"]
            job = next((job for job in site["jobs"] if job["job_id"] == job_id), None)
            if job is None:
                self._progress(total, machine, 100)
                if sys.stdout.isatty():
                    print()
                return
            if site["level"] == UNSAFE or job["state"] == "INTERRUPTED":
                raise DemoError(site["attention"][0]["text"])
            seen = machine["progress"]
            total = seen["total"] if seen else total
            percent = 100 * seen["done"] // seen["total"] if seen else 0
            if sys.stdout.isatty() or percent >= shown + 20:
                shown = percent
                self._progress(seen["done"] if seen else 0, machine, percent)
            time.sleep(LOOK_S)
        raise DemoError(f"the print did not end within {PRINT_S:g} s")

    def _progress(self, done: int, machine: Mapping[str, Any], percent: int) -> None:
        heat = machine["temperatures"]
        degrees = "  ".join(f"{name} {heat[name]['actual_degc']:5.1f} degC" for name in ("T", "B") if name in heat)
        bar = "#" * (percent * BAR_COLUMNS // 100)
        line = f"{INDENT}[{bar:<{BAR_COLUMNS}}] {percent:3d} %  {done:>5} commands  {degrees}"
        start, end = ("\r", "") if sys.stdout.isatty() else ("", "\n")
        print(f"{start}{line:<78}".rstrip() if end else f"{start}{line:<78}", end=end, flush=True)

    def _status(self) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = call(self._folder / "edge.sock", "GET", "/v1/status")
        return answer

    def _verdict(self, log: Path, forged: Mapping[str, Any], again: Mapping[str, Any], reported: int) -> str:
        """Hold the printer's own log against the program, and both verdicts against what they must be."""
        wanted = [as_meant(command) for command in _commands(self._folder / "tiny.gcode")]
        carried_out = [as_meant(command) for command in _carried_out(log)]
        if carried_out != [*wanted, END]:
            raise DemoError(f"the printer carried out {len(carried_out)} commands, not exactly the program's and {END}")
        if forged["accepted"] or not again["accepted"] or not again["repeated"]:
            raise DemoError("a forged order was accepted, or a repeated one was not recognised")
        _said([f"the printer carried out {len(wanted)} commands, exactly the program's, in order"])
        _said([f"the collector has all {reported} events up to then: the one hash proves them all, in order"])
        return f"demo: ok - 1 job printed, {len(wanted)} commands; 1 forgery refused, 1 repeat ignored"


def main(args: argparse.Namespace) -> int:
    """Run the demo in a folder of its own, which is removed unless something went wrong."""
    broker.check()
    folder = Path(tempfile.mkdtemp(prefix="edge-demo-"))
    print(f"The main job of edge, in {folder}.")
    print(f"The printer is simulated, {SPEED:g} times as fast as a real one.")
    began_s = time.monotonic()
    try:
        last = Story(folder).tell()
    except (EdgeError, subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        why = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        print("\n".join(text.wrap(f"demo: failed - {why}; what is left is in {folder}", "")), file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 2
    if not args.keep:
        shutil.rmtree(folder)
    print(f"\nThat took {time.monotonic() - began_s:.0f} s.\n{last}")
    return 0


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _chapter(title: str) -> None:
    print(f"\n{text.colour(title, 'green')}", flush=True)


def _typed(*words: str) -> None:
    """A command line as a person would type it, continued where a terminal ends."""
    lines = [f"$ {words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 > text.WIDTH:
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {word}"
    print("\n".join(text.colour(line, "bold") for line in lines), flush=True)


def _said(lines: Sequence[str]) -> None:
    """What a command answered."""
    for line in lines:
        shown = f"{INDENT}{line}".rstrip()
        indent = " " * (len(shown) - len(shown.lstrip()))
        print("\n".join([shown] if len(shown) <= text.WIDTH else text.wrap(shown, indent, indent + "  ")), flush=True)


def _command(name: str) -> str:
    """The command `name` of this installation."""
    return str(Path(sys.executable).with_name(name))


def _wait_for(process: subprocess.Popen[bytes], words: str) -> str:
    """The first line of a process that contains `words`."""
    assert process.stdout is not None
    deadline_s = time.monotonic() + START_S
    said: list[str] = []
    for line in _lines(process.stdout, deadline_s):
        said.append(line)
        if words in line:
            return line
    raise DemoError(f"{process.args!r} did not say {words!r} but: {' / '.join(said) or 'nothing'}")


def _lines(pipe: IO[bytes], deadline_s: float) -> Iterator[str]:
    """The lines of a pipe until it is closed or the deadline has come."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline_s - time.monotonic())):
            data = os.read(pipe.fileno(), 4096)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from (line.decode() for line in lines)


def _tamper(bundle: Path, forged: Path) -> None:
    """A copy of the bundle with another product in the order, and the signatures as they were."""
    import base64

    from edge.trust import read_envelope, write_bundle

    envelope = json.loads(read_envelope(bundle))
    payload = base64.b64decode(envelope["payload"]).replace(b"calibration piece", b"something else!!!")
    envelope["payload"] = base64.b64encode(payload).decode()
    write_bundle(forged, json.dumps(envelope).encode(), {})


def _commands(program: Path) -> Iterator[str]:
    for line in program.read_text(encoding="utf-8").splitlines():
        command = line.partition(";")[0].strip()
        if command:
            yield command


def _carried_out(log: Path) -> list[str]:
    """The program's commands in the printer's own log, from line 1; the driver numbers its own from far away."""
    rows = [line.split("\t", 2) for line in log.read_text(encoding="utf-8").splitlines()]
    return [command for _, number, command in rows if number.isdigit() and 0 < int(number) < MODES_BASE]
