"""Newest values over a real Mosquitto: gaps are told, facts go first, nothing waits for a centre that is away."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import threading
from pathlib import Path
from typing import Any

from edge.journal.schema import FILE_NAME
from edge.uplink.mqtt import MqttUplink, connect
from tests.helpers.centre import NAME, site_events, uplink_table
from tests.helpers.large_journal import fill
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.reporting_printer import reporting_printer, told, value
from tests.helpers.site import SiteFolder, until
from tests.helpers.slow_line import SlowLine

OUT, VALUES = (f"mf/v1/{NAME}/{what}" for what in ("out", "telemetry"))
COLLECTOR = "collector"


def test_an_outage_is_a_gap_with_its_ends_and_its_reason(tmp_path: Path, broker: Mosquitto) -> None:
    with reporting_printer(tmp_path, uplink_table(broker, NAME), uplink_table(broker, CENTRE)) as (site, centre):
        site.start().end()  # it has its key now
        centre.start()  # first: what comes before anybody has subscribed comes again after half a minute only
        site.start()
        until(lambda: value(centre, "temperature/T") is not None)
        before = told(centre)
        assert before is not None
        broker.end(signal.SIGKILL)
        until(lambda: site.live()["uplink"]["trouble"])
        sent = site.live()["uplink"]["telemetry"]["sent"]
        threading.Event().wait(2.5)  # the outage itself: longer than the period
        assert site.live()["uplink"]["telemetry"]["sent"] <= sent + 1, "nothing is sent while nobody is there"
        broker.start()
        until(lambda: (told(centre) or before)["gap"] not in (None, before["gap"]))
        found = told(centre)
        assert found is not None
        assert found["run"] == before["run"]
        assert set(found["gap"]["why"]) <= {"link", "lost", "facts"}
        assert found["gap"]["from"] < found["gap"]["to"]
        until(lambda: centre.events() == site_events(site))
        assert centre.status()["alarms"] == []


def test_a_denied_topic_of_values_is_named_and_facts_go_on(tmp_path: Path, broker: Mosquitto) -> None:
    acl = broker.folder / "acl"
    acl.write_text(acl.read_text().replace("pattern write mf/v1/%u/telemetry\n", ""))
    broker.restart()
    with reporting_printer(tmp_path, uplink_table(broker, NAME), uplink_table(broker, CENTRE)) as (site, centre):
        site.start().end()  # it has its key now
        centre.start()  # first: what comes before anybody has subscribed comes again after half a minute only
        site.start()
        until(lambda: site.live()["uplink"]["trouble"] == "denied")
        words = "does not let this site write to mf/v1/berlin-1/telemetry"
        assert words in " ".join(site.edge("status").stdout.split())
        assert words in " ".join(site.edge("check").stderr.split())
        until(lambda: centre.events() == site_events(site))
        assert told(centre) is None


def test_values_wait_for_facts_on_a_slow_line_and_take_no_place_of_theirs(tmp_path: Path, broker: Mosquitto) -> None:
    """A backlog goes over a line of 30 kB/s. What the broker hands on is read in its order."""

    async def story() -> list[tuple[str, Any]]:
        async with SlowLine(broker.port) as line:
            line.refuses = True
            table = uplink_table(broker, NAME, line.port)
            with reporting_printer(tmp_path, table, uplink_table(broker, CENTRE)) as (site, centre):
                await asyncio.to_thread(backlog, site)
                await asyncio.to_thread(centre.start)
                await asyncio.to_thread(until, lambda: site.live()["uplink"]["telemetry"]["waiting"] > 3)
                facts = site_events(site)[-1][0]
                async with connect(broker.at(CENTRE), "listener", [OUT, VALUES], session_s=0) as listener:
                    line.bytes_per_s, line.refuses = 30_000, False
                    heard = await first_value(listener)
                assert heard[-2][1]["last_seq"] >= facts, "every fact was there before the first value"
                await asyncio.to_thread(until, lambda: centre.events() == site_events(site))
                await asyncio.to_thread(until, lambda: value(centre, "state") == "IDLE")
                return heard

    heard = asyncio.run(story())
    assert len(heard) > 5, "the backlog went in one piece, so nothing was tried"
    assert "facts" in heard[-1][1]["gap"]["why"]
    assert heard[-1][1]["skipped"] > 0


async def first_value(listener: MqttUplink) -> list[tuple[str, Any]]:
    """What the site sends, up to the first message of values."""
    heard: list[tuple[str, Any]] = []
    async with asyncio.timeout(100):
        async for message in listener.messages():
            await message.ack()
            heard.append((message.topic, payload_of(message.payload)))
            if message.topic == VALUES:
                break
    return heard


def backlog(site: SiteFolder) -> None:
    """A running daemon with facts of hundreds of kB that nobody has heard."""
    daemon = site.start()
    daemon.end(signal.SIGKILL)
    fill(site.state_dir / FILE_NAME, NAME, 1200)
    site.start()


def payload_of(raw: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(raw)["payload"]))
