"""A site's disk put back to a backup, and old events pruned: daemon, Mosquitto and collector as processes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.folders import make_state_dir
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.reading.views import open_readonly
from tests import second_verifier
from tests.helpers.centre import NAME, Centre, Events, ended, site_at, site_events, uplink_table
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.pruning import hourly, work
from tests.helpers.site import SiteFolder, until


@pytest.fixture(autouse=True)
def _needs_mosquitto(mosquitto: str) -> None:
    """See conftest.py."""


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[SiteFolder, Centre]]:
    """A site that believes its host's clock, and a centre; neither is started."""
    with Mosquitto.begin(tmp_path / "broker") as broker:
        site = site_at(tmp_path / "site", uplink_table(broker, NAME))
        site.config.write_text(site.config.read_text() + '\n[time]\nsource = "host"\n')
        centre = Centre(tmp_path / "centre", uplink_table(broker, CENTRE), site)
        with ended(site, centre):
            yield site, centre


LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


def something_happens(site: SiteFolder) -> None:
    for _ in range(3):
        site.submit(site.bundle(site="paris-1"), code=2)


def chain_at(centre: Centre) -> Events:
    """The newest journal, with what it has from the one that it goes on from."""
    with contextlib.closing(sqlite3.connect(centre.database)) as connection:
        return connection.execute(
            "WITH newest AS (SELECT * FROM journals ORDER BY number DESC LIMIT 1)"
            " SELECT seq, hash, raw FROM events WHERE journal = (SELECT journal FROM newest)"
            " OR (journal = (SELECT after_journal FROM newest) AND seq <= (SELECT after_seq FROM newest)) ORDER BY seq"
        ).fetchall()


def ends(site: SiteFolder) -> None:
    assert site.daemon is not None
    site.daemon.end()
    site.daemon = None


@pytest.mark.timeout(240)
def test_a_site_that_was_put_back_goes_on_under_a_new_id_and_waits_for_a_person(
    tmp_path: Path, both: tuple[SiteFolder, Centre]
) -> None:
    site, centre = both
    site.start(ready="connected to the broker")
    centre.start()
    something_happens(site)
    until(lambda: centre.database.exists() and centre.events() == site_events(site))
    ends(site)
    shutil.copytree(site.state_dir, tmp_path / "backup")
    site.start(ready="connected to the broker")
    something_happens(site)
    until(lambda: centre.events() == site_events(site))
    before = centre.events()
    old = site.json("verify")["journal"]
    ends(site)
    until(lambda: centre.count() >= len(before))
    before = centre.events()

    shutil.rmtree(site.state_dir)
    shutil.copytree(tmp_path / "backup", site.state_dir)
    site.start(ready="connected to the broker")
    until(lambda: "journal_held" in [item["kind"] for item in site.json("status", code=None)["attention"]])
    until(lambda: centre.status()["sites"][0]["journals"] == 2)
    site.json("journal", "confirm")
    something_happens(site)
    until(lambda: chain_at(centre) == site_events(site))
    assert centre.events()[: len(before)] == before, "what happened stays"
    (restored,) = [alarm for alarm in centre.status()["alarms"] if alarm["kind"] == "restored"]
    assert f"journal {old} was put back to an older state" in restored["text"]
    assert "happened, and the site does not know of them" in restored["text"]
    assert restored["journal"] == site.json("verify")["journal"] != old
    ends(site)
    assert second_verifier.verify(site.state_dir / FILE_NAME)[1] == ""


async def _old_work(path: Path) -> None:
    async with Journal.open(path, NAME, hourly()) as journal:
        await work(journal, 60)


@pytest.mark.timeout(240)
def test_old_events_go_when_the_collector_has_them_and_everybody_says_where_the_journal_begins(
    both: tuple[SiteFolder, Centre], monkeypatch: pytest.MonkeyPatch
) -> None:
    site, centre = both
    monkeypatch.setattr("tests.helpers.pruning.BEGAN", LONG_AGO)
    make_state_dir(site.state_dir)
    asyncio.run(_old_work(site.state_dir / FILE_NAME))
    site.start(ready="connected to the broker")
    centre.start()
    until(lambda: centre.database.exists() and centre.events() == site_events(site))
    until(lambda: site.json("status", code=None)["uplink"]["reporting"]["backlog"] == 0)
    whole = site_events(site)
    ends(site)
    site.start(ready="old events were pruned")
    status = site.json("status", code=None)
    begins = status["pruned"]["seq"] + 1
    assert 100 < begins <= len(whole)
    assert f"events before {begins} were pruned" in " ".join(site.edge("status").stdout.split())
    assert f"events before {begins} were pruned" in " ".join(site.edge("events", "-n", "1000").stdout.split())
    assert f"events before {begins} were pruned" in " ".join(site.edge("verify").stdout.split())
    gone = " ".join(site.edge("why", "job-0").stderr.split())
    assert "job job-0 was accepted as event" in gone
    assert "the collector has them" in gone
    something_happens(site)
    until(lambda: centre.count() >= whole[-1][0] + 4)
    assert centre.events()[: len(whole)] == whole, "the collector has them"
    assert site.json("verify")["ok"]
    ends(site)
    with open_readonly(site.state_dir) as snapshot:
        assert snapshot.connection.execute("SELECT min(seq) FROM events").fetchone() == (begins,)
    assert second_verifier.verify(site.state_dir / FILE_NAME)[1] == ""
