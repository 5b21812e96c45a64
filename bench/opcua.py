"""Many machines over OPC UA in one daemon: its CPU and memory, and how soon what is asked of a machine is confirmed.

The daemon is `edge run` with a site of its own. Fifty machines are sessions on a server of the bench; their values
change all the time. Beside them two machine tools carry out a signed order each, and are held and released again and
again: a `hil-sim cnc`, and a node-opcua server where it is installed. Everything over None, then SignAndEncrypt.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.equipment import MissingError, usage
from edge.cli.client import call
from edge.errors import EdgeError
from tests.helpers.nodeopcua import SERVER, node_opcua
from tests.helpers.opcua import sim_server
from tests.helpers.site import SiteFolder, until
from tests.helpers.trust import step_document

MACHINES, VALUES, EVERY_S = 50, 20, 0.5
WATCH_S = float(os.environ.get("BENCH_OPCUA_S", "30"))
COMMANDS = int(os.environ.get("BENCH_OPCUA_COMMANDS", "100"))
"""Holds and releases of each machine tool, together."""

SETTLE_S = 5.0
ANSWER_S = 20
CORE_MAX, RSS_MAX_MIB, P99_MAX_MS = 0.40, 130.0, 500.0
URI = "urn:bench:edge"
PROGRAM = b"G21 G90\n" + b"G1 X410 F3000\nG1 X10 F3000\n" * 1000 + b"M30\n"
"""Hours of moving to and fro."""

PROFILE = """\
dialect = "opcua-mapped"
summary = "bench"
only_if_named = true
programs = "named"
namespaces = {{plc = "urn:bench"}}
machine = {{root = "plc:Machine"}}
[mapped]
state = "plc:State"
states = {{idle = [0], running = [1]}}
program = "plc:Program"
start = {{node = "plc:S"}}
stop = {{node = "plc:S"}}
[values]
{values}
"""
MACHINE = """
[[machines]]
id = "{id}"
driver = "opcua-jobcontrol"
profile = "{profile}"
processes = ["{process}"]
connection = {{endpoint = "{endpoint}", security = "{security}", application_uri = "{uri}"{machine}}}
limits = {{checked_by = "controller"}}
"""


@dataclass
class Found:
    """What was measured with one security policy; latencies by machine tool, in s."""

    cores: float
    rss_mib: float
    peak_mib: float
    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def report() -> tuple[list[str], int]:
    """Lines for people, and how many figures are missing."""
    lines = [
        f"OPC UA: {MACHINES} machines with {VALUES} values each every {EVERY_S:g} s, and two that work, in one daemon"
    ]
    missing = 0
    for security in ("None", "Basic256Sha256"):
        name = "None" if security == "None" else f"{security}, SignAndEncrypt"
        lines += ["", f"  {name}"]
        try:
            found = _measure(security)
        except (MissingError, AssertionError, EdgeError, OSError) as error:
            lines.append(f"    MISSING: {error}")
            missing += 1
            continue
        lines.append(_row("CPU of the daemon, of one core", f"{found.cores:.1%}", "40%", found.cores <= CORE_MAX))
        peak = found.peak_mib
        lines.append(_row("resident at most", f"{peak:.0f} MiB", f"{RSS_MAX_MIB:.0f} MiB", peak <= RSS_MAX_MIB))
        for machine, took_s in found.latencies_s.items():
            middle, p99 = 1000 * statistics.median(took_s), 1000 * _p99(took_s)
            what = f"hold or release, p50 {middle:.0f} ms: p99, {machine}"
            lines.append(_row(what, f"{p99:.0f} ms", f"{P99_MAX_MS:.0f} ms", p99 <= P99_MAX_MS))
        for machine, reason in found.missing.items():
            lines.append(f"    {machine}: MISSING: {reason}")
            missing += 1
    lines += ["", f"  the share is of {WATCH_S:g} s; {COMMANDS} holds and releases of each machine"]
    return lines, missing


def _row(what: str, found: str, most: str, reached: bool) -> str:
    return f"    {what:<52}{'<= ' + most:>11}{found:>10}  {'reached' if reached else 'NOT REACHED'}"


def _p99(took_s: list[float]) -> float:
    return sorted(took_s)[math.ceil(0.99 * len(took_s)) - 1]


@dataclass
class _Tool:
    """A machine tool that works; `trusts_us` has it trust a client's certificate."""

    id: str
    process: str
    endpoint: str
    browse_name: str = ""
    trusts_us: Any = None


def _measure(security: str) -> Found:
    secure = security != "None"
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        port = stack.enter_context(_values_server(folder / "server", secure))
        pki = ["--security", "encrypt", "--pki", str(folder / "sim")] if secure else []
        sim = stack.enter_context(sim_server("cnc", *pki, speed=1.0))

        def trusted_by_sim(certificate: Path) -> None:
            (folder / "sim" / "trusted").mkdir(exist_ok=True)
            shutil.copy(certificate, folder / "sim" / "trusted" / "edge.der")

        tools = [_Tool("hil-sim", "mill", sim.endpoint, "", trusted_by_sim)]
        missing = {}
        if not os.environ.get("EDGE_PEER_NODE") or not (SERVER.parent / "node_modules" / ".installed").exists():
            missing["node-opcua"] = "it is not installed; `make bench` does that"
        else:
            (folder / "peer").mkdir()
            options = ["--security", "encrypt" if secure else "none", "--blocks-per-s", "2"]
            peer = stack.enter_context(node_opcua(folder / "peer", *options))
            tools.append(_Tool("node-opcua", "turn", peer.endpoint, "Mill", lambda _: peer.tell("trust")))
        site = _site(folder / "site", f"opc.tcp://127.0.0.1:{port}/", tools, security)
        if secure:
            _trust(site, tools)
        found = _watched(site, tools)
        found.missing = missing
        return found


def _site(folder: Path, endpoint: str, tools: list[_Tool], security: str) -> SiteFolder:
    folder.mkdir()
    (folder / "profiles").mkdir()
    rows = "\n".join(f'v{number}.node = "plc:V{number}"' for number in range(VALUES))
    (folder / "profiles" / "bench.toml").write_text(PROFILE.format(values=rows))

    def machine(name: str, profile: str, process: str, endpoint: str, browse_name: str = "") -> str:
        more = f', machine = "{browse_name}"' if browse_name else ""
        table = {"id": name, "profile": profile, "process": process, "endpoint": endpoint, "machine": more}
        return MACHINE.format(**table, security=security, uri=URI)

    tables = [machine(f"m-{number}", "bench", "none", endpoint) for number in range(MACHINES)]
    tables += [machine(each.id, "machinery-jobs", each.process, each.endpoint, each.browse_name) for each in tools]
    site = SiteFolder(folder, "".join(tables))
    text = site.config.read_text()
    site.config.write_text(text.replace("\ntrust_root", '\nprofiles_dir = "profiles"\ntrust_root', 1))
    return site


def _trust(site: SiteFolder, tools: list[_Tool]) -> None:
    """What technicians do at each machine; the fifty share one certificate, which takes a second to make."""
    machines = site.state_dir / "machines"
    for name in ("m-0", *(each.id for each in tools)):
        shown = site.json("machine", "trust", name, code=1)["trust"]
        site.json("machine", "trust", name, "--accept", shown["server_fingerprint"], code=None)
    for number in range(1, MACHINES):
        shutil.copytree(machines / "m-0", machines / f"m-{number}")
    for each in tools:
        each.trusts_us(machines / each.id / "pki" / "own" / "certificate.der")


def _watched(site: SiteFolder, tools: list[_Tool]) -> Found:
    daemon = site.start(ready="m-0 is online")
    try:
        for name in [*(f"m-{number}" for number in range(1, MACHINES)), *(each.id for each in tools)]:
            daemon.wait_line(f"{name} is online")
        time.sleep(SETTLE_S)
        ticks = _ticks(site)
        before, began_s = usage(daemon.process.pid), time.monotonic()
        time.sleep(WATCH_S)
        lasted_s = time.monotonic() - began_s
        cores = (usage(daemon.process.pid).cpu_s - before.cpu_s) / lasted_s
        slow = [name for name, tick in _ticks(site).items() if tick - ticks[name] < 0.8 * lasted_s / EVERY_S]
        if slow:
            raise MissingError(f"the values of {', '.join(slow)} did not come as often as they change")
        latencies_s = {each.id: _latencies(site, each) for each in tools}
        offline = [row["id"] for row in site.live()["machines"] if row["state"] == "OFFLINE"]
        if offline:
            raise MissingError(f"{', '.join(offline)} did not stay in sight")
        after = usage(daemon.process.pid)
        return Found(cores, after.rss_mib, after.peak_mib, latencies_s)
    finally:
        daemon.process.kill()
        daemon.end()


def _ticks(site: SiteFolder) -> dict[str, float]:
    """The oldest value of each of the fifty: they all count the server's ticks."""
    rows = [row for row in site.live()["machines"] if row["id"].startswith("m-")]
    return {row["id"]: min(seen["value"] for seen in row["readings"].values()) for row in rows}


def _latencies(site: SiteFolder, tool: _Tool) -> list[float]:
    """From the request over the daemon's socket until its answer says that the machine has confirmed it."""
    bundle = site.bundle(PROGRAM, steps=[step_document(process=tool.process, requires={})])
    job_id = site.submit(bundle)["job_id"]
    site.wait_event("run_began", job_id)
    until(lambda: any(row["id"] == tool.id and row["progress"] for row in site.live()["machines"]))
    took_s = []
    for number in range(COMMANDS):
        verb, goal = ("release", "RUNNING") if number % 2 else ("hold", "SUSPENDED")
        began_s = time.monotonic()
        answer = call(site.socket, "POST", f"/v1/jobs/{job_id}/{verb}?wait={ANSWER_S}", {"reason": ""})
        took_s.append(time.monotonic() - began_s)
        (step,) = answer["steps"]
        if step["request_failure"] or step["state"] != goal:
            why = step["request_failure"] or f"the run is {step['state']}"
            raise MissingError(f"{tool.id} did not confirm the {verb}: {why}")
    call(site.socket, "POST", f"/v1/jobs/{job_id}/cancel", {"reason": ""})
    site.wait_event("run_ended", job_id)
    return took_s


@contextlib.contextmanager
def _values_server(folder: Path, secure: bool) -> Iterator[int]:
    command = [sys.executable, "-m", "bench.opcua_server", str(folder), str(VALUES), str(EVERY_S), str(int(secure))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            if not said:
                raise MissingError("the server with the values did not start")
            yield int(said)
        finally:
            process.kill()
