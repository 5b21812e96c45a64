"""A whole site with the real OctoPrint: what becomes of a print when something breaks in the middle of it."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from drivers.analysis import commands
from tests.helpers.octoprint import table_of
from tests.helpers.proxy import network
from tests.helpers.real_octoprint import RealOctoPrint
from tests.helpers.site import SiteFolder, until

READY = "oct-1 is online"
CUT_S = 30.0

PRINT = b"G28\nG90\nM104 S200\n" + b"G1 X200 F6000\nG1 X10 F6000\n" * 30 + b"M104 S0\n"
"""A quarter of a minute: the virtual printer takes a tenth of each move's time."""

TINY = re.sub(
    rb"(?m)^M190 ",
    b"M140 ",
    re.sub(rb"(?m)^M109 ", b"M104 ", resources.files("edge.demo").joinpath("tiny.gcode").read_bytes()),
)
"""Without the waiting for heat, which the virtual printer takes in real time."""


@contextlib.contextmanager
def printing_site(folder: Path, server: RealOctoPrint, url: str | None = None) -> Iterator[SiteFolder]:
    server.fresh()
    site = SiteFolder(folder, table_of(url or server.url, folder))
    try:
        site.start(ready=READY)
        yield site
    finally:
        if site.daemon is not None:
            site.daemon.end()


def begun(site: SiteFolder, program: bytes = PRINT, on_restart: str = "resume") -> str:
    """Submit a job, and wait until some of it is printed; its id."""
    job_id = str(site.submit(site.bundle(program, on_restart=on_restart))["job_id"])
    site.wait_event("run_began", job_id)
    until(lambda: (site.live()["machines"][0]["progress"] or {"done": 0})["done"] > 5)
    return job_id


def ended(site: SiteFolder, job_id: str) -> dict[str, Any]:
    """The body of the run's end; for long, for OctoPrint is not in a hurry."""
    deadline_s = time.monotonic() + 90.0
    while not (found := [event for event in site.events("run_ended") if event["job_id"] == job_id]):
        assert time.monotonic() < deadline_s, "the run has not ended"
        time.sleep(0.2)
    (event,) = found
    return dict(event["body"])


class Starts:
    """How many prints began since this was made: every program homes once."""

    def __init__(self, server: RealOctoPrint) -> None:
        self._server = server
        self._before = server.sent().count("G28")

    def count(self) -> int:
        return self._server.sent().count("G28") - self._before


def test_a_whole_print_is_carried_out_command_by_command(octoprint: RealOctoPrint, tmp_path: Path) -> None:
    with printing_site(tmp_path, octoprint) as site:
        before = len(octoprint.sent())
        job_id = begun(site, TINY)
        assert ended(site, job_id)["outcome"] == "SUCCEEDED"
        wanted = list(commands(TINY.decode().splitlines()))
        sent = octoprint.sent()[before:]
        first = sent.index(wanted[0])
        assert sent[first : first + len(wanted)] == wanted
        (machine,) = site.live()["machines"]
        assert machine["needs_clearing"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_daemon_killed_in_mid_print_finds_it_again(octoprint: RealOctoPrint, tmp_path: Path, when: str) -> None:
    with printing_site(tmp_path, octoprint) as site:
        starts = Starts(octoprint)
        job_id = begun(site)
        assert site.daemon is not None
        site.daemon.end(signal.SIGKILL)
        if when == "after":
            octoprint.wait_state("Operational")
        site.start(ready=READY)
        assert ended(site, job_id)["outcome"] == "SUCCEEDED"
        assert starts.count() == 1
        assert len(site.events("run_resumed")) == (1 if when == "before" else 0)


def test_an_octoprint_killed_in_mid_print_leaves_it_unknown(octoprint: RealOctoPrint, tmp_path: Path) -> None:
    with printing_site(tmp_path, octoprint) as site:
        starts = Starts(octoprint)
        job_id = begun(site)
        octoprint.kill()
        octoprint.start()
        body = ended(site, job_id)
        assert body["outcome"] == "UNKNOWN"
        assert "as after a restart" in body["reason"]
        assert starts.count() == 1
        assert site.json("status", code=2)["machines"][0]["needs_clearing"]


def test_a_network_cut_for_half_a_minute_ends_no_print(octoprint: RealOctoPrint, tmp_path: Path) -> None:
    with (
        network(octoprint.port) as between,
        printing_site(tmp_path, octoprint, f"http://127.0.0.1:{between.port}") as site,
    ):
        starts = Starts(octoprint)
        job_id = begun(site)
        between.cut()
        cut_s = time.monotonic()
        until(lambda: site.live()["machines"][0]["state"] == "OFFLINE")
        (machine,) = site.live()["machines"]
        assert "does not answer" in machine["detail"]
        assert machine["progress"]["age_s"] > 1.0
        time.sleep(max(0.0, cut_s + CUT_S - time.monotonic()))  # that it is so long is what is tested
        between.mend()
        assert ended(site, job_id)["outcome"] == "SUCCEEDED"
        assert starts.count() == 1


def test_a_print_cancelled_on_its_page_names_who_did_it(octoprint: RealOctoPrint, tmp_path: Path) -> None:
    with printing_site(tmp_path, octoprint) as site:
        starts = Starts(octoprint)
        job_id = begun(site)
        assert octoprint.ask("POST", "/api/job", {"command": "pause", "action": "pause"})[0] == 204
        until(lambda: site.live()["machines"][0]["state"] == "HELD")
        assert site.live()["machines"][0]["detail"] == "paused by ada in OctoPrint"
        assert octoprint.ask("POST", "/api/job", {"command": "pause", "action": "resume"})[0] == 204
        until(lambda: site.live()["machines"][0]["state"] == "EXECUTE")
        assert octoprint.ask("POST", "/api/job", {"command": "cancel"})[0] == 204
        body = ended(site, job_id)
        assert (body["outcome"], body["reason"]) == ("STOPPED", "cancelled by ada in OctoPrint")
        assert starts.count() == 1
        assert site.live()["machines"][0]["needs_clearing"]


def test_an_error_of_the_firmware_fails_the_print_in_its_words(octoprint: RealOctoPrint, tmp_path: Path) -> None:
    with printing_site(tmp_path, octoprint) as site:
        starts = Starts(octoprint)
        job_id = begun(site)
        octoprint.debug("trigger_fatal_error_marlin")
        body = ended(site, job_id)
        assert body["outcome"] == "FAILED"
        assert "Thermal Runaway" in body["reason"]
        until(lambda: site.live()["machines"][0]["state"] == "STOPPED")
        assert "not connected to its printer" in site.live()["machines"][0]["detail"]
        assert starts.count() == 1


def test_a_stop_that_is_asked_for_is_confirmed(octoprint: RealOctoPrint, tmp_path: Path) -> None:
    with printing_site(tmp_path, octoprint) as site:
        starts = Starts(octoprint)
        job_id = begun(site)
        assert site.edge("job", "cancel", job_id).returncode == 0
        body = ended(site, job_id)
        assert (body["outcome"], body["reason"]) == ("STOPPED", "stopped on request")
        assert starts.count() == 1
        assert octoprint.ask("GET", "/api/job")[1]["state"] == "Operational"
