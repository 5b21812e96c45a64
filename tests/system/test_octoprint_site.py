"""A whole site with a simulated OctoPrint: a daemon that stops, and how one gets a key."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

import pytest

from drivers.analysis import commands
from tests.helpers.octoprint import sim_octoprint, table_of
from tests.helpers.proxy import network
from tests.helpers.site import SiteFolder, until

READY = "oct-1 is online"
PROGRAM = b"G28\n" + b"G1 X100 F6000\nG1 X10\n" * 100
"""Four seconds at 50 commands a second."""


def test_a_daemon_that_stops_leaves_the_print_to_octoprint(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        site = SiteFolder(tmp_path, table_of(server.url, tmp_path))
        daemon = site.start(ready=READY)
        try:
            job_id = str(site.submit(site.bundle(PROGRAM, on_restart="resume"))["job_id"])
            site.wait_event("run_began", job_id)
            until(lambda: (site.live()["machines"][0]["progress"] or {"done": 0})["done"] > 5)
            assert daemon.end(signal.SIGTERM) == 0
            assert server.state() == "Printing"
            assert site.events("run_ended") == []
            daemon = site.start(ready=READY)
            ended = site.wait_event("run_ended", job_id)
            assert ended["body"]["outcome"] == "SUCCEEDED"
            assert server.starts() == 1
        finally:
            daemon.end()


@pytest.mark.parametrize("ended_meanwhile", [False, True])
def test_an_octoprint_that_is_out_of_reach_for_too_long_is_found_again(tmp_path: Path, ended_meanwhile: bool) -> None:
    rate = "--rate=50" if ended_meanwhile else "--rate=10"
    with sim_octoprint(tmp_path, rate) as server, network(server.port) as between:
        site = SiteFolder(tmp_path, table_of(f"http://127.0.0.1:{between.port}", tmp_path, patience_s=1.0))
        daemon = site.start(ready=READY)
        try:
            job_id = str(site.submit(site.bundle(PROGRAM, on_restart="resume"))["job_id"])
            site.wait_event("run_began", job_id)
            until(lambda: (site.live()["machines"][0]["progress"] or {"done": 0})["done"] > 5)
            between.go_away()
            site.wait_event("machine_offline")
            found = site.json("status", code=2)
            assert next(item["kind"] for item in found["attention"]) == "unwatched_run"
            if ended_meanwhile:
                server.wait_state("Operational")
            between.come_back()
            ended = site.wait_event("run_ended", job_id)
            assert (ended["body"]["outcome"], server.starts()) == ("SUCCEEDED", 1)
            assert server.commands() == list(commands(PROGRAM.decode().splitlines()))
            assert len(site.events("run_resumed")) == (0 if ended_meanwhile else 1)
        finally:
            daemon.end()


def test_somebody_elses_print_keeps_the_machine_from_work_until_it_is_cleared(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        site = SiteFolder(tmp_path, table_of(server.url, tmp_path))
        daemon = site.start(ready=READY)
        try:
            uploads = tmp_path / "octoprint" / "uploads"
            (uploads / "cup.gcode").write_bytes(PROGRAM)
            server.ask("POST", "/api/files/local/cup.gcode", {"command": "select", "print": True})
            told = site.wait_event("foreign_work")
            assert told["body"]["detail"] == "ada printed cup.gcode in OctoPrint"
            until(lambda: site.live()["machines"][0]["state"] == "EXECUTE")
            assert "it stands still" in site.edge("machine", "clear", "oct-1").stderr
            server.wait_state("Operational")
            daemon.end()
            daemon = site.start(ready=READY)
            job_id = str(site.submit(site.bundle(PROGRAM))["job_id"])
            until(lambda: "needs_clearing" in [wait["code"] for wait in site.json("why", job_id)["waits"]])
            assert "oct-1 needs clearing: ada printed cup.gcode" in " ".join(site.edge("status").stdout.split())
            assert site.json("machine", "clear", "oct-1")["cleared"] == told["body"]["token"]
            assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
            assert (server.starts(), len(site.events("foreign_work"))) == (2, 1)
        finally:
            daemon.end()


def test_a_wrong_key_is_said_by_check_and_status(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        site = SiteFolder(tmp_path, table_of(server.url, tmp_path, key="wrong"))
        done = site.edge("check")
        assert done.returncode == 2
        assert "oct-1: " in done.stderr
        assert "does not know this key" in done.stderr
        daemon = site.start(ready="oct-1 is offline")
        try:
            until(lambda: "does not know this key" in site.live()["machines"][0]["detail"])
        finally:
            daemon.end()


def test_a_key_is_asked_for_and_granted_by_a_person(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        site = SiteFolder(tmp_path, table_of(server.url, tmp_path))
        key = tmp_path / "octoprint.key"
        key.unlink()
        assert "no such file" in site.edge("check").stderr
        asking = subprocess.Popen(
            site.command("machine", "identify", "oct-1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        watchdog = threading.Timer(60.0, asking.kill)
        watchdog.start()
        assert asking.stderr is not None
        assert "allow 'edge' access" in asking.stderr.readline()
        (token,) = server.ask("GET", "/api/plugin/appkeys")[1]["pending"]
        assert server.ask("POST", f"/plugin/appkeys/decision/{token}", {"decision": True})[0] == 204
        said, trouble = asking.communicate()
        watchdog.cancel()
        assert (asking.returncode, "Traceback" in trouble) == (0, False)
        assert "firmware: OctoPrint" in said
        assert key.stat().st_mode & 0o777 == 0o600
        assert site.edge("check").returncode == 0
        # With a key, nobody is asked again.
        assert site.json("machine", "identify", "oct-1")["identity"]["version"] == "1.11.8"
        key.unlink()
        asking = subprocess.Popen(
            site.command("machine", "identify", "oct-1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert asking.stderr is not None
        asking.stderr.readline()
        (token,) = server.ask("GET", "/api/plugin/appkeys")[1]["pending"]
        server.ask("POST", f"/plugin/appkeys/decision/{token}", {"decision": False})
        _, trouble = asking.communicate(timeout=60)
        assert (asking.returncode, key.exists()) == (2, False)
        assert "was denied" in trouble
