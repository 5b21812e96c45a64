"""A person in front of a machine behind OPC UA: sees its alarms and safety stops, and acknowledges them by name."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.opcua import SimServer, sim_server
from tests.helpers.site import SiteFolder, until
from tests.helpers.trust import step_document

MACHINE = """
[[machines]]
id = "robot-1"
driver = "opcua-robotics"
profile = "robotics-1.02"
processes = ["robot.tend"]
connection = {{endpoint = "{endpoint}", security = "None"}}
limits = {{checked_by = "controller"}}
"""
PROGRAM = b"move printer\nmove home\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[SiteFolder, SimServer]]:
    with sim_server("robot", speed=20.0) as server:
        site = SiteFolder(tmp_path, MACHINE.format(endpoint=server.endpoint))
        site.start(ready="robot-1 is online")
        try:
            yield site, server
        finally:
            assert site.daemon is not None
            site.daemon.end()


def conditions(site: SiteFolder) -> list[tuple[str, bool, bool]]:
    return [
        (one["text"], one["active"], one["acknowledged"]) for one in site.live()["machines"][0].get("conditions", [])
    ]


def test_after_a_safety_stop_nothing_starts_before_a_person_has_acknowledged_it(
    place: tuple[SiteFolder, SimServer],
) -> None:
    site, server = place
    server.say("estop=on")
    until(lambda: conditions(site) == [("emergency stop", True, False)] * 2)  # the stop itself, and the alarm for it
    job_id = site.submit(site.bundle(PROGRAM, steps=[step_document(process="robot.tend", requires={})]))["job_id"]
    several = site.edge("machine", "acknowledge", "robot-1")
    assert "several conditions, and none is over; name one" in " ".join(several.stderr.split())
    shown = site.json("machine", "show", "robot-1", code=1)
    stop, alarm = (one["token"] for one in shown["conditions"])
    status = " ".join(site.edge("status").stdout.split())
    assert "emergency stop, still there, and not acknowledged; reset it at the machine first" in status
    assert f"edge machine acknowledge robot-1 {alarm}" in status
    assert f"edge machine acknowledge robot-1 {stop}" not in status, "it would be refused"
    refused = site.edge("machine", "acknowledge", "robot-1", stop)
    assert refused.returncode != 0
    assert "reset it at the machine first" in refused.stderr

    server.say("estop=off")
    server.say("reset")
    until(lambda: conditions(site) == [("emergency stop", False, False)] * 2)
    stop, alarm = (one["token"] for one in site.json("machine", "show", "robot-1", code=1)["conditions"])
    until(lambda: site.json("why", job_id)["waits"])
    for told in (site.edge("status").stdout, site.edge("why", job_id).stdout):
        assert f"edge machine acknowledge robot-1 {stop}`" in " ".join(told.split()), "as it has to be typed"
    assert site.live()["machines"][0]["state"] == "STOPPED"
    assert server.starts() == 0, "a reset starts nothing"

    # A daemon that starts anew knows of it still.
    assert site.daemon is not None
    site.daemon.end()
    site.start(ready="robot-1 is online")
    until(lambda: conditions(site) == [("emergency stop", False, False)] * 2)
    assert site.live()["machines"][0]["state"] == "STOPPED"

    done = site.json("machine", "acknowledge", "robot-1", alarm, "--comment", "Ada looked")
    assert (done["machine"], done["acknowledged"]["text"]) == ("robot-1", "emergency stop")
    assert server.starts() == 0
    plain = site.edge("machine", "acknowledge", "robot-1")
    assert "emergency stop is acknowledged; the journal names" in plain.stdout.replace("\n", " ")
    assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"

    events = site.events("condition_acknowledged")
    assert [event["body"]["token"] for event in events] == [alarm, stop]
    assert events[0]["body"]["comment"] == "Ada looked"
    assert {(event["actor"], event["machine"]) for event in events} == {(f"user:{getpass.getuser()}", "robot-1")}
    assert "no open conditions" in site.edge("machine", "show", "robot-1").stdout
    assert "nothing that is to be acknowledged" in site.edge("machine", "acknowledge", "robot-1").stderr
    gone = site.edge("machine", "acknowledge", "robot-1", alarm)
    assert "there is no open condition" in gone.stderr


def test_after_a_stop_that_is_told_twice_one_word_is_enough(place: tuple[SiteFolder, SimServer]) -> None:
    site, server = place
    server.say("estop=on")
    until(lambda: conditions(site) == [("emergency stop", True, False)] * 2)
    server.say("estop=off")
    server.say("reset")
    until(lambda: conditions(site) == [("emergency stop", False, False)] * 2)
    stop, alarm = (one["token"] for one in site.live()["machines"][0]["conditions"])
    done = site.edge("machine", "acknowledge", "robot-1", "--comment", "Ada looked")
    assert (done.returncode, done.stdout.count("emergency stop is acknowledged")) == (0, 2)
    # What keeps work from starting is the last.
    events = [(event["body"]["token"], event["body"]["comment"]) for event in site.events("condition_acknowledged")]
    assert events == [(alarm, "Ada looked"), (stop, "Ada looked")]
    until(lambda: site.live()["machines"][0]["state"] == "IDLE")
    assert server.starts() == 0
