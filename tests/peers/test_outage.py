"""The scripted outage: 10,000 events, and everything between journal and collector fails while they are reported."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.journal.schema import FILE_NAME
from tests import second_verifier
from tests.helpers.centre import NAME, Centre, Events, ended, reporting, site_at, site_events, uplink_table
from tests.helpers.forgetful import Forgetful
from tests.helpers.large_journal import fill
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.site import SiteFolder
from tests.helpers.slow_line import SlowLine

EVENTS = 10_000
SLOW_BYTES_PER_S = 2_000_000
DEADLINE_S = 120.0


def until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline_s, "what was waited for did not come"
        pause.wait(0.05)


def kill_site(site: SiteFolder) -> None:
    assert site.daemon is not None
    site.daemon.end(signal.SIGKILL)


def backlog_of_a_site_that_is_alone(site: SiteFolder) -> None:
    """The daemon begins with no broker there, is killed, and its journal grows by `EVENTS`."""
    site.start(ready="is up")
    kill_site(site)
    fill(site.state_dir / FILE_NAME, NAME, EVENTS)


def something_happens(site: SiteFolder) -> None:
    site.submit(site.bundle(site="paris-1"), code=2)


def lose_what_was_not_synced(centre: Centre) -> None:
    """Kill the collector and take away its log: all that was committed since the last checkpoint."""
    for _ in range(5):
        before = centre.count()
        assert centre.daemon is not None
        centre.daemon.end(signal.SIGKILL)
        for name in ("-wal", "-shm"):
            centre.database.with_name(centre.database.name + name).unlink()
        if centre.count() < before:
            return
        centre.start()  # it had just made a checkpoint
        until(lambda: centre.count() > before)  # noqa: B023 - waited for
    raise AssertionError("nothing was lost, so nothing is tried")


def as_journal(path: Path, events: Events, like: Path) -> Path:
    """The collector's copy as a journal's file, for those who verify journals."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("ATTACH ? AS site", (str(like),))
        for table in ("meta", "base"):  # of a journal of which nothing was pruned
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM site.{table}")
        connection.execute("CREATE TABLE events (seq, hash, raw)")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", events)
        connection.commit()
    return path


def assert_the_copy_is_the_journal(site: SiteFolder, centre: Centre, folder: Path) -> None:
    """By bytes and in the order in which they were applied, which also means: no gap and no repeat."""
    journal, copied = site_events(site), centre.events()
    assert len(journal) > EVENTS
    assert copied == journal
    assert second_verifier.verify(site.state_dir / FILE_NAME) == (len(journal), "")
    copy = as_journal(folder / "copy.sqlite", copied, site.state_dir / FILE_NAME)
    assert second_verifier.verify(copy) == (len(journal), "")
    assert centre.status()["alarms"] == []


def all_arrived(site: SiteFolder, centre: Centre) -> None:
    """Wait until the site, too, knows that everything has arrived."""
    until(lambda: reporting(site)["backlog"] == 0)
    assert (reporting(site)["refused_acks"], reporting(site)["stopped"]) == (0, "")


@pytest.mark.timeout(300)
def test_after_the_scripted_outage_the_copy_equals_the_journal(tmp_path: Path, mosquitto: str) -> None:
    broker = Mosquitto(tmp_path / "broker")

    async def story() -> None:
        async with SlowLine(broker.port, bytes_per_s=SLOW_BYTES_PER_S) as line:
            site = site_at(tmp_path / "site", uplink_table(broker, NAME, line.port))
            centre = Centre(tmp_path / "centre", uplink_table(broker, CENTRE), site)
            with ended(site, centre):
                await asyncio.to_thread(outage, site, centre, line, asyncio.get_running_loop())
                assert_the_copy_is_the_journal(site, centre, tmp_path)

    def outage(site: SiteFolder, centre: Centre, line: SlowLine, loop: asyncio.AbstractEventLoop) -> None:
        def cut(*, refuses: bool) -> None:
            async def change() -> None:
                line.refuses = refuses
                line.cut()

            asyncio.run_coroutine_threadsafe(change(), loop).result()

        def at_least(events: int) -> None:
            until(lambda: centre.count() >= events)
            assert centre.count() < EVENTS, "what was to be tried came too late: the line is not slow enough"

        cut(refuses=True)
        backlog_of_a_site_that_is_alone(site)  # the daemon is killed for the first time
        broker.start()
        centre.start()
        site.start(ready="is up")
        something_happens(site)
        cut(refuses=False)

        at_least(500)
        broker.end(signal.SIGKILL)
        broker.start()

        at_least(2000)
        kill_site(site)
        site.start(ready="is up")

        at_least(3500)
        cut(refuses=True)
        something_happens(site)
        until(lambda: not site.live()["uplink"]["online"])
        cut(refuses=False)

        at_least(5000)
        lose_what_was_not_synced(centre)
        something_happens(site)
        centre.start()

        at_least(6500)
        broker.end(signal.SIGKILL)
        kill_site(site)
        site.start(ready="is up")
        broker.start()

        at_least(8000)
        cut(refuses=False)
        something_happens(site)
        all_arrived(site, centre)

    try:
        asyncio.run(story())
    finally:
        broker.end(signal.SIGTERM)


@pytest.mark.timeout(300)
def test_a_broker_that_acknowledges_and_forgets_one_message_in_ten_loses_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with Forgetful(random.Random(7), forgets=0.1) as broker:
            table = f'[uplink]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
            site = site_at(tmp_path / "site", table)
            centre = Centre(tmp_path / "centre", table, site)
            with ended(site, centre):
                await asyncio.to_thread(report, site, centre)
                assert_the_copy_is_the_journal(site, centre, tmp_path)
            of_batches = [topic for topic in broker.forgotten if topic.endswith("/out")]
            assert len(of_batches) >= 3, "hardly anything was forgotten, so hardly anything is tried"
            assert len(of_batches) < len(broker.forgotten), "no acknowledgement was forgotten"

    def report(site: SiteFolder, centre: Centre) -> None:
        backlog_of_a_site_that_is_alone(site)
        centre.start()
        site.start(ready="is up")

        def through() -> bool:
            # Work goes on at the site: a batch that was lost shows by the next one, without waiting for RESEND_S.
            something_happens(site)
            deadline_s = time.monotonic() + 2.0
            while reporting(site)["backlog"]:
                if time.monotonic() > deadline_s:
                    return False
            return True

        until(through)
        assert (reporting(site)["refused_acks"], reporting(site)["stopped"]) == (0, "")

    asyncio.run(story())
