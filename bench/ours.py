"""Our host: a real site with a real daemon. Each printer gets a signed order; the journal must say that all succeeded.

with site(folder, paced, count) as daemon:
    daemon.submit()
    figures = measured(daemon.pid, paced, daemon.wait_ended)
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.equipment import BAUD, LINES, MissingError, Printers, program
from edge.cli.client import call
from tests.helpers.site import SiteFolder

MACHINE = """
[[machines]]
id = "prn-{index}"
driver = "gcode"
processes = ["fdm"]
connection = {{port = "{port}", baud = {baud}, window = "{window}"}}
properties = {{material = "PLA", nozzle_mm = 0.4}}
limits = {{x_mm = [0, 200], y_mm = [0, 200], z_mm = [0, 200]}}
"""


class OurSite:
    """A running `edge run` with its printers connected."""

    def __init__(self, folder: SiteFolder, count: int) -> None:
        self._folder = folder
        self._count = count
        daemon = folder.start(ready="prn-0 is online")
        for index in range(1, count):
            daemon.wait_line(f"prn-{index} is online")
        self.pid = daemon.process.pid

    def submit(self) -> None:
        """An order for each printer."""
        data = "".join(f"{command}\n" for command in program()).encode("ascii")
        for bundle in [self._folder.bundle(data) for _ in range(self._count)]:
            with bundle.open("rb") as file:
                receipt = call(self._folder.socket, "POST", "/v1/jobs", file)
            if not receipt["accepted"]:
                raise MissingError(f"an order is refused: {receipt['detail']}")

    def wait_ended(self) -> None:
        """Until every run has ended, each as SUCCEEDED, without a line sent twice."""
        after, open_runs = 0, self._count
        while open_runs:
            event = self._folder.wait_event("run_ended", after=after)
            after, open_runs = event["seq"], open_runs - 1
            evidence = event["body"]["evidence"]
            if event["body"]["outcome"] != "SUCCEEDED" or evidence["commands"] != LINES or evidence["resends"]:
                raise MissingError(f"a run did not succeed as it should: {json.dumps(event['body'])}")


@contextmanager
def site(folder: Path, paced: Printers, count: int = 1, window: str = "full") -> Iterator[OurSite]:
    """A daemon with `count` printers, ended at the end."""
    machines = [MACHINE.format(index=index, port=paced.port(index), baud=BAUD, window=window) for index in range(count)]
    made = SiteFolder(folder, "".join(machines))
    try:
        yield OurSite(made, count)
    finally:
        if made.daemon is not None:
            try:
                made.daemon.end()
            except subprocess.TimeoutExpired as error:
                made.daemon.end(signal.SIGKILL)
                raise MissingError("the daemon did not end when it was told to") from error
