"""A whole daemon ends in mid-program: the mill and the robot on node-opcua go on, and the next daemon finds them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.helpers.nodeopcua import PASSWORD, Peer, node_opcua
from tests.helpers.opcua_site import ceremony, mill, robot
from tests.helpers.opcua_trust import password_in
from tests.helpers.site import SiteFolder, until
from tests.helpers.trust import step_document

MACHINES = {"mill-1": ("mill", "mill"), "robot-1": ("robot", "robot.tend")}
"""Of the site: what the server calls each, and what it does."""

PROGRAM = "".join(f"G1 X{10 + number % 90} F3000\n" for number in range(3000)).encode()
SLOW, QUICK = 10.0, 10_000.0
"""Blocks per second: a program takes five minutes, more than a daemon takes to come back on the busiest host."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SiteFolder, Peer]]:
    """A site whose machines and people trust each other, over SignAndEncrypt and with a password."""
    folder = tmp_path_factory.mktemp("site")
    password_in(folder, PASSWORD)
    (folder / "peer").mkdir()
    with node_opcua(folder / "peer", "--security", "encrypt", "--no-anonymous") as peer:
        site = SiteFolder(folder, mill(folder, "mill-1", peer.endpoint) + robot(folder, "robot-1", peer.endpoint))
        for name in MACHINES:
            ceremony(site, name, lambda _: peer.tell("trust"))
        try:
            yield site, peer
        finally:
            if site.daemon is not None:
                site.daemon.end(signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_daemon_that_ends_in_mid_program_leaves_it_to_the_machines_and_finds_it_again(
    place: tuple[SiteFolder, Peer], number: signal.Signals
) -> None:
    site, peer = place
    peer.tell("speed", blocks_per_s=SLOW)
    before = starts(peer)
    begin(site)
    jobs = {}
    for name, (_, process) in MACHINES.items():
        step = step_document(process=process, requires={}, on_restart="resume")
        jobs[name] = site.submit(site.bundle(PROGRAM, steps=[step]))["job_id"]
    once = {name: count + 1 for name, count in before.items()}
    until(lambda: starts(peer) == once and all(done(peer).values()))
    assert site.daemon is not None
    site.daemon.end(number)
    left = done(peer)
    until(lambda: all(now > left[name] for name, now in done(peer).items()))
    begin(site)
    until(lambda: {machine["state"] for machine in site.live()["machines"]} == {"EXECUTE"})
    assert all(now < PROGRAM.count(b"\n") for now in done(peer).values()), "it is to be found in mid-program"
    peer.tell("speed", blocks_per_s=QUICK)
    for name, (theirs, _) in MACHINES.items():
        assert site.wait_event("run_ended", jobs[name])["body"]["outcome"] == "SUCCEEDED"
        assert peer.carried_out(theirs) == PROGRAM.decode().splitlines()
        site.json("machine", "clear", name)  # for the next
    assert starts(peer) == once
    began = [event["job_id"] for event in site.events("run_began")]
    assert [began.count(job) for job in jobs.values()] == [1, 1]


def begin(site: SiteFolder) -> None:
    if site.daemon is None or site.daemon.process.poll() is not None:
        daemon = site.start(ready="mill-1 is online")
        daemon.wait_line("robot-1 is online")


def starts(peer: Peer) -> dict[str, int]:
    return {name: peer.starts(theirs) for name, (theirs, _) in MACHINES.items()}


def done(peer: Peer) -> dict[str, int]:
    """How many blocks each machine has carried out."""
    return {name: len(peer.carried_out(theirs)) for name, (theirs, _) in MACHINES.items()}
