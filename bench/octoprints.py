"""Many printers behind OctoPrints in one daemon: what it costs while nothing happens, and while all of them print.

The OctoPrints are simulated, and share one process: ``python -m bench.octoprints FOLDER COUNT``.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aiohttp import web

from bench.equipment import MissingError, usage
from edge.cli.client import call
from hil_sim.octoprint.faults import Faults
from hil_sim.octoprint.server import Options, Server
from tests.helpers.octoprint import OURS, table_of
from tests.helpers.site import SiteFolder, until

COUNT = 20
COMMANDS_PER_S = 20.0
"""Of each printer: what a sliced program has on average."""

WATCH_S = 20.0
SETTLE_S = 5.0
PROGRAM = b"G28\n" + b"G1 X100 F6000\nG1 X10\n" * 2000
IDLE_MAX, PRINTING_MAX = 0.10, 0.25


def report() -> tuple[list[str], int]:
    """Lines for people, and how many figures are missing."""
    try:
        idle, printing, rss_mib = _measure()
    except (MissingError, AssertionError) as error:
        return [f"{COUNT} OctoPrints in one daemon: MISSING: {error}"], 1

    def row(what: str, found: float, most: float) -> str:
        verdict = "reached" if found <= most else "NOT REACHED"
        return f"  {what:<40}{f'<= {most:.0%}':>10}{found:>10.1%}  {verdict}"

    head = f"{COUNT} simulated OctoPrints in one daemon, {WATCH_S:.0f} s each: CPU of the daemon, of one core"
    lines = [head, "", row("idle", idle, IDLE_MAX), row("all printing", printing, PRINTING_MAX)]
    return [*lines, f"  {'resident, printing':<40}{'':>10}{rss_mib:>6.0f} MiB"], 0


def _measure() -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        command = [sys.executable, "-m", "bench.octoprints", str(folder / "servers"), str(COUNT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as servers:
            assert servers.stdout is not None
            try:
                ports = servers.stdout.readline().split()
                if len(ports) != COUNT:
                    raise MissingError("the simulated OctoPrints did not start")
                return _watched(folder, [f"http://127.0.0.1:{port}" for port in ports])
            finally:
                servers.kill()


def _watched(folder: Path, urls: list[str]) -> tuple[float, float, float]:
    tables = [table_of(url, folder).replace("oct-1", f"oct-{index}") for index, url in enumerate(urls)]
    site = SiteFolder(folder, "".join(tables))
    daemon = site.start(ready="oct-0 is online")
    try:
        for index in range(1, len(urls)):
            daemon.wait_line(f"oct-{index} is online")
        idle = _share(daemon.process.pid)
        for bundle in [site.bundle(PROGRAM) for _ in urls]:
            with bundle.open("rb") as file:
                call(site.socket, "POST", "/v1/jobs", file)
        until(lambda: all(machine["progress"] for machine in site.live()["machines"]))
        printing = _share(daemon.process.pid)
        if any(machine["state"] != "EXECUTE" for machine in site.live()["machines"]):
            raise MissingError("not all of them were printing all the time")
        return idle, printing, usage(daemon.process.pid).rss_mib
    finally:
        daemon.process.kill()
        daemon.end()


def _share(pid: int) -> float:
    """CPU time over time, once things have settled."""
    time.sleep(SETTLE_S)
    before, began_s = usage(pid).cpu_s, time.monotonic()
    time.sleep(WATCH_S)
    return (usage(pid).cpu_s - before) / (time.monotonic() - began_s)


async def _serve(folder: Path, count: int) -> None:
    ports = []
    for index in range(count):
        options = Options(folder / str(index), {OURS: "edge"}, COMMANDS_PER_S)
        runner = web.AppRunner(Server(options, Faults(), lambda command: None).application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(str(runner.addresses[0][1]))
    print(*ports, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
