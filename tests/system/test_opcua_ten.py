"""Ten machines that fail at once, with a run on each: seen soon, right again within a minute, nothing started twice."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from drivers.opcua import JOBCONTROL
from edge.driver import Machine
from tests.helpers.opcua import SimServer, sim_server
from tests.helpers.site import SiteFolder, until
from tests.helpers.trust import step_document

pytestmark = pytest.mark.slow

COUNT = 10
RIGHT_S = 60.0
SILENT_S = 2.5
"""Nothing has come for 5 s when a machine is called out of sight; what was told last was 2 s old at most."""

PROGRAM = b"G21 G90\n" + b"G1 X410 F3000\nG1 X10 F3000\n" * 1000 + b"M30\n"
"""Hours of moving to and fro."""

MACHINE = """
[[machines]]
id = "mill-{number}"
driver = "opcua-jobcontrol"
profile = "machinery-jobs"
processes = ["mill"]
connection = {{endpoint = "{endpoint}", user = "edge", password_file = "{folder}/password"}}
limits = {{checked_by = "controller"}}
"""


@contextlib.contextmanager
def all_of(contexts: list[contextlib.AbstractContextManager[SimServer]]) -> Iterator[list[SimServer]]:
    """Entered side by side, for each takes seconds."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(contexts)) as pool:
        yield list(pool.map(stack.enter_context, contexts))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[SiteFolder, list[SimServer]]]:
    """Ten mills behind SignAndEncrypt, each a process, each with a run that goes on."""
    password = tmp_path / "password"
    password.write_text("geheim\n")
    password.chmod(0o600)
    secure = ["--security", "encrypt", "--user", "edge=geheim"]
    options = [[*secure, "--pki", str(tmp_path / f"theirs-{number}")] for number in range(COUNT)]
    with all_of([sim_server("cnc", *each) for each in options]) as servers:
        tables = [
            MACHINE.format(number=number, endpoint=server.endpoint, folder=tmp_path)
            for number, server in enumerate(servers)
        ]
        site = SiteFolder(tmp_path, "".join(tables))
        for number, server in enumerate(servers):
            trust_each_other(tmp_path, number, server)
        try:
            begin_all(site, servers)
            yield site, servers
        finally:
            if site.daemon is not None:
                site.daemon.process.kill()  # it would leave the runs to the machines, and they end with the test
                site.daemon.end()


def trust_each_other(folder: Path, number: int, server: SimServer) -> None:
    """What a technician does at each machine."""
    way = {"endpoint": server.endpoint, "user": "edge", "password_file": folder / "password"}
    machine: Machine[Any, Any] = Machine(
        f"mill-{number}",
        "opcua-jobcontrol",
        "machinery-jobs",
        ("mill",),
        JOBCONTROL.connection.model_validate(way),
        JOBCONTROL.limits.model_validate({"checked_by": "controller"}),
    )
    state_dir = folder / "state" / "machines" / machine.id
    shown = JOBCONTROL.trust(machine, state_dir, None)
    JOBCONTROL.trust(machine, state_dir, shown.server_fingerprint)
    trusted = folder / f"theirs-{number}" / "trusted"
    trusted.mkdir(exist_ok=True)
    (trusted / "edge.der").write_bytes((state_dir / "pki" / "own" / "certificate.der").read_bytes())


def begin_all(site: SiteFolder, servers: list[SimServer]) -> None:
    daemon = site.start(ready="mill-0 is online")
    for number in range(1, COUNT):
        daemon.wait_line(f"mill-{number} is online")
    for _ in servers:
        site.submit(site.bundle(PROGRAM, steps=[step_document(process="mill", requires={})]))
    until(lambda: states(site) == {"EXECUTE"} and all(server.instructions() for server in servers))


def states(site: SiteFolder) -> set[str]:
    return {machine["state"] for machine in site.live()["machines"]}


def within(limit_s: float, holds: Callable[[], object], began_s: float) -> None:
    """Wait until it holds, at most until `limit_s` after `began_s`."""
    while not holds():
        assert time.monotonic() - began_s < limit_s, "not right yet"
        time.sleep(0.1)


def test_ten_servers_that_freeze_at_once_are_right_within_a_minute(place: tuple[SiteFolder, list[SimServer]]) -> None:
    site, servers = place
    for server in servers:
        server.freeze()
    until(lambda: states(site) == {"OFFLINE"})
    assert site.live()["level"] == 2, "runs that nobody looks at are UNSAFE"
    shown = [seen for machine in site.live()["machines"] for seen in machine["readings"].values()]
    assert len(shown) == COUNT
    assert all(seen["age_s"] > SILENT_S for seen in shown), "what is shown is old, and looks old"
    for server in servers:
        server.thaw()
    within(RIGHT_S, lambda: states(site) == {"EXECUTE"}, time.monotonic())
    assert [server.starts() for server in servers] == [1] * COUNT
    assert not site.events("run_ended")


def test_ten_servers_that_are_killed_at_once_are_right_within_a_minute_of_their_start(
    place: tuple[SiteFolder, list[SimServer]],
) -> None:
    site, servers = place
    with ThreadPoolExecutor(COUNT) as pool:
        list(pool.map(SimServer.kill, servers))
        until(lambda: states(site) == {"OFFLINE"})
        list(pool.map(SimServer.restart, servers))
    began_s = time.monotonic()
    within(RIGHT_S, lambda: states(site) == {"IDLE"} and len(ended(site)) == COUNT, began_s)
    assert ended(site) == ["UNKNOWN"] * COUNT, "they have forgotten, and nobody guesses"
    assert [server.starts() for server in servers] == [0] * COUNT, "nothing is started by itself"


def ended(site: SiteFolder) -> list[str]:
    return [event["body"]["outcome"] for event in site.events("run_ended")]
