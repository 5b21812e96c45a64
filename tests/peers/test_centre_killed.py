"""Daemon, Mosquitto and collector as processes, each killed in turn: the centre has the site's whole journal."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests import second_verifier
from tests.helpers.centre import NAME, Centre, ended, reporting, site_at, site_events, uplink_table
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.sim import sim_printer
from tests.helpers.site import PRINTER, SHORT, SITE, SiteFolder, starts, until


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
    with ended(site, centre):
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
    assert second_verifier.verify(site.state_dir / "journal.sqlite")[1] == ""
    handed = [json.loads(line) for line in centre.lines.read_bytes().splitlines()]
    assert {one["seq"]: one["hash"] for one in handed} == {seq: digest for seq, digest, _ in centre.events()}


@pytest.mark.timeout(240)
def test_the_collector_notices_a_state_directory_that_was_put_back_as_a_whole_before_the_boot(
    tmp_path: Path, broker: Mosquitto
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    site = SiteFolder(folder)
    table = uplink_table(broker, NAME) + "first_word_s = 3600\n"
    head = SITE + 'guard_after_s = 0\n\n[time]\nsource = "host"\n\n'
    site.config.write_text(head + table + PRINTER.format(port=folder / "printer"))
    centre = Centre(tmp_path / "centre", uplink_table(broker, CENTRE), site)
    with ended(site, centre):
        site.start(ready="connected to the broker")  # without the printer, so that the order waits
        centre.start()
        job_id = str(site.submit(site.bundle(SHORT))["job_id"])
        until(lambda: reporting(site)["backlog"] == 0)
        assert site.daemon is not None
        assert site.daemon.end() == 0
        shutil.copytree(site.state_dir, tmp_path / "old")
        with sim_printer(folder, speed=2000.0) as printer:
            site.start()
            site.wait_event("run_ended", job_id)
            until(lambda: reporting(site)["backlog"] == 0)
            assert (site.daemon.end(), starts(printer)) == (0, 1)
            shutil.rmtree(site.state_dir)
            shutil.copytree(tmp_path / "old", site.state_dir)
            (runtime,) = folder.glob("edge-*")
            shutil.rmtree(runtime)  # as a boot does

            broker.end(signal.SIGTERM)
            site.start()
            until(lambda: [wait["code"] for wait in site.json("why", job_id)["waits"]] == ["journal"])
            said = " ".join(site.edge("why", job_id).stdout.split())
            assert "the centre has not said whether this journal is the newest" in said
            broker.start()
            held = site.wait_event("journal_held")
            assert "the collector has event" in held["body"]["reason"]
            until(lambda: "edge journal confirm" in site.edge("why", job_id).stdout)
            assert starts(printer) == 1
