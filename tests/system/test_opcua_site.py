"""A whole site with a machine behind OPC UA: trust by the commands, an order, a daemon that ends and starts again."""

from __future__ import annotations

import getpass
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.folders import make_state_dir
from tests.helpers.opcua import SimServer, sim_server
from tests.helpers.opcua_site import ceremony
from tests.helpers.opcua_trust import password_in
from tests.helpers.site import SiteFolder, until

pytestmark = pytest.mark.slow

MACHINE = """
[[machines]]
id = "mill-1"
driver = "opcua-jobcontrol"
profile = "auto"
processes = ["fdm"]
connection = {{endpoint = "{endpoint}", user = "edge", password_file = "{folder}/password"}}
properties = {{material = "PLA", nozzle_mm = 0.4}}
limits = {{checked_by = "controller"}}
"""
PROGRAM = ("G21 G90\n" + "G1 X110 F3000\nG1 X10 F3000\n" * 30 + "M30\n").encode()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[SiteFolder, SimServer]]:
    password_in(tmp_path, "geheim")
    options = ["--security", "encrypt", "--user", "edge=geheim", "--pki", str(tmp_path / "theirs")]
    with sim_server("cnc", *options, speed=15.0) as server:
        site = SiteFolder(tmp_path, MACHINE.format(endpoint=server.endpoint, folder=tmp_path))
        try:
            yield site, server
        finally:
            if site.daemon is not None:
                site.daemon.end()


def trust_there(site: SiteFolder, certificate: Path) -> None:
    trusted = site.folder / "theirs" / "trusted"
    trusted.mkdir(exist_ok=True)
    shutil.copy(certificate, trusted / "edge.der")


def test_trust_is_settled_by_a_person_and_an_order_is_carried_out(place: tuple[SiteFolder, SimServer]) -> None:
    site, server = place
    ceremony(site, "mill-1", lambda certificate: trust_there(site, certificate))
    identity = site.json("machine", "identify", "mill-1")["identity"]
    assert (identity["firmware"], identity["profile"]) == ("Simulated mill", "machinery-jobs")
    site.start(ready="mill-1 is online")
    job_id = site.submit(site.bundle(PROGRAM))["job_id"]
    assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
    assert server.starts() == 1
    assert server.instructions() == PROGRAM.decode().splitlines()


def test_who_trusted_a_machine_is_in_the_journal_with_the_daemon_alive_or_not(
    place: tuple[SiteFolder, SimServer],
) -> None:
    site, _ = place
    make_state_dir(site.state_dir)
    fingerprint = site.json("machine", "trust", "mill-1", code=1)["trust"]["server_fingerprint"]
    assert site.edge("machine", "trust", "mill-1", "--accept", "AA:BB").returncode != 0
    site.json("machine", "trust", "mill-1", "--accept", fingerprint, code=1)
    site.start(ready="mill-1 is offline")
    site.json("machine", "trust", "mill-1", "--accept", fingerprint, code=1)
    found = site.events("machine_trusted")
    assert [(event["machine"], event["body"]["fingerprint"]) for event in found] == [("mill-1", fingerprint)] * 2
    assert {event["actor"] for event in found} == {f"user:{getpass.getuser()}"}
    assert not list((site.state_dir / "trusted-notes").iterdir())


def test_a_machine_without_trust_is_refused_in_words(place: tuple[SiteFolder, SimServer]) -> None:
    site, _ = place
    site.start(ready="mill-1 is offline: nobody here has trusted the certificate")
    refused = site.edge("machine", "identify", "mill-1")
    assert "nobody here has trusted" in refused.stderr


@pytest.mark.parametrize("hard", [False, True], ids=["stopped", "killed"])
def test_a_daemon_that_ends_in_mid_program_leaves_it_to_the_machine_and_finds_it_again(
    place: tuple[SiteFolder, SimServer], hard: bool
) -> None:
    import signal

    site, server = place
    ceremony(site, "mill-1", lambda certificate: trust_there(site, certificate))
    daemon = site.start(ready="mill-1 is online")
    job_id = site.submit(site.bundle(PROGRAM, on_restart="resume"))["job_id"]
    until(lambda: len(server.instructions()) > 5)
    daemon.end(signal.SIGKILL if hard else signal.SIGTERM)
    site.start(ready="mill-1 is online")
    assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
    assert server.starts() == 1
    assert server.instructions() == PROGRAM.decode().splitlines()
