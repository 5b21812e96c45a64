"""Daemon, Mosquitto and collector as processes, each killed in turn: the centre has the site's whole journal."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import second_verifier
from tests.helpers.centre import NAME, Centre, reporting, site_at, site_events, uplink_table
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.site import until


@pytest.fixture(autouse=True)
def _needs_mosquitto(mosquitto: str) -> None:
    """See conftest.py."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto.begin(tmp_path / "broker") as broker:
        yield broker


@pytest.mark.timeout(240)
def test_whatever_dies_the_centre_has_every_event(tmp_path: Path, broker: Mosquitto) -> None:
    site = site_at(tmp_path / "site", uplink_table(broker, NAME))
    centre = Centre(tmp_path / "centre", uplink_table(broker, CENTRE), site)

    def something_happens() -> None:
        for _ in range(3):
            site.submit(site.bundle(site="paris-1"), code=2)

    def arrived() -> bool:
        return centre.database.exists() and centre.events() == site_events(site)

    site.start(ready="connected to the broker")
    try:
        centre.start()
        assert centre.daemon is not None
        assert site.daemon is not None
        something_happens()
        until(arrived)

        centre.daemon.end(signal.SIGKILL)
        something_happens()
        centre.start()
        until(arrived)

        broker.end(signal.SIGKILL)
        something_happens()
        broker.start()
        until(arrived)

        site.daemon.end(signal.SIGKILL)
        site.start(ready="connected to the broker")
        something_happens()
        until(arrived)

        until(lambda: centre.status()["sites"][0]["backlog"] == 0)
        found = centre.status()
        assert found["alarms"] == []
        assert found["sites"][0]["online"] is True
        until(lambda: reporting(site)["backlog"] == 0)
        assert reporting(site)["refused_acks"] == 0
    finally:
        for daemon in (site.daemon, centre.daemon):
            if daemon is not None:
                daemon.end()
    assert second_verifier.verify(site.state_dir / "journal.sqlite")[1] == ""
    handed = [json.loads(line) for line in centre.lines.read_bytes().splitlines()]
    assert {one["seq"]: one["hash"] for one in handed} == {seq: digest for seq, digest, _ in centre.events()}
