"""A whole site at a real Mosquitto: orders come in, the state goes out, and what is wrong is said in words."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.trust import read_envelope
from edge.uplink.mqtt import MqttUplink, connect
from tests.helpers.certificates import Authority
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.site import SITE, SiteFolder, until
from tests.helpers.slow_line import SlowLine

NAME = "berlin-1"
IN, STATE, LINK = (f"mf/v1/{NAME}/{what}" for what in ("in", "state", "link"))
DEADLINE_S = 60.0


@pytest.fixture
def site(tmp_path: Path, broker: Mosquitto) -> Iterator[SiteFolder]:
    folder = tmp_path / "site"
    folder.mkdir()
    site = SiteFolder(folder, machines="")
    configure(site, broker)
    try:
        yield site
    finally:
        if site.daemon is not None:
            site.daemon.end()


def configure(site: SiteFolder, broker: Mosquitto, port: int | None = None, ca: Path | None = None) -> None:
    files = broker.files(NAME)
    site.config.write_text(
        SITE
        + f"""
[time]
source = "host"

[uplink]
kind = "mqtt"
url = "mqtts://127.0.0.1:{port or broker.port}"
ca = "{ca or files.ca}"
certificate = "{files.certificate}"
key = "{files.key}"
"""
    )


def connected(site: SiteFolder) -> None:
    site.start(ready="connected to the broker")


@contextlib.asynccontextmanager
async def centre(broker: Mosquitto, *topics: str) -> AsyncIterator[MqttUplink]:
    async with connect(broker.at(CENTRE), CENTRE, topics, session_s=0) as uplink:
        yield uplink


async def send(broker: Mosquitto, *payloads: bytes) -> None:
    async with centre(broker) as uplink:
        await asyncio.gather(*(uplink.publish(IN, payload) for payload in payloads))


async def first(uplink: MqttUplink, topic: str) -> bytes:
    async with asyncio.timeout(DEADLINE_S):
        async for message in uplink.messages():
            if message.topic == topic:
                return message.payload
    raise AssertionError("nothing came")


def payload_of(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(json.loads(raw)["payload"]))
    return found


def order(site: SiteFolder) -> tuple[str, bytes]:
    raw = read_envelope(site.bundle())
    return payload_of(raw)["job_id"], raw


def verdict(site: SiteFolder, job_id: str) -> dict[str, Any]:
    """There is no machine that prints here, so that every order is refused as unsupported: a verdict all the same."""
    return site.wait_event("job_refused", job_id)


def test_an_order_comes_in_once_however_often_it_is_sent(site: SiteFolder, broker: Mosquitto) -> None:
    connected(site)
    job_id, raw = order(site)
    asyncio.run(send(broker, raw, raw, raw))
    assert verdict(site, job_id)["actor"] == "mqtt"
    other, last = order(site)
    asyncio.run(send(broker, last))
    verdict(site, other)
    assert [event["job_id"] for event in site.events("job_refused")] == [job_id, other]


def test_an_order_that_was_not_acknowledged_comes_again_after_kill_9(site: SiteFolder, broker: Mosquitto) -> None:
    connected(site)
    for _ in range(3):
        assert site.daemon is not None
        site.daemon.end(signal.SIGKILL)
        job_id, raw = order(site)
        asyncio.run(send(broker, raw))
        connected(site)
        verdict(site, job_id)
    assert len(site.events("job_refused")) == 3


def test_a_broker_that_is_killed_twice_is_found_again_and_keeps_what_it_had(
    site: SiteFolder, broker: Mosquitto
) -> None:
    connected(site)
    until(lambda: broker.has_saved(IN.encode()))  # it saves after it has acknowledged, not before
    for _ in range(2):
        broker.end(signal.SIGKILL)
        until(lambda: not site.live()["uplink"]["online"])
        broker.start()
        job_id, raw = order(site)
        asyncio.run(send(broker, raw))
        verdict(site, job_id)
    assert site.live()["uplink"]["connections"] >= 3


def test_hostile_messages_do_not_keep_a_good_one_from_being_judged(site: SiteFolder, broker: Mosquitto) -> None:
    connected(site)
    job_id, raw = order(site)
    document = json.loads(raw)
    forged = json.dumps(document | {"signatures": [s | {"sig": "A" * 86 + "=="} for s in document["signatures"]]})
    hostile = [b"", b"\xff" * 1000, b"{" * 5000, b"[" * 200_000, forged.encode(), raw[:-20], b'{"payload": 1}']

    async def flood() -> None:
        async with centre(broker) as uplink:
            many = [uplink.publish(IN, hostile[number % len(hostile)] + b" " * (number % 7)) for number in range(700)]
            await asyncio.gather(*many)
            await uplink.publish(IN, raw)
            await asyncio.to_thread(verdict, site, job_id)

    asyncio.run(flood())
    found = site.live()
    assert found["uplink"]["received"] == 701
    assert found["uplink"]["poison"] == 0
    assert sum(notice.get("count", 0) for notice in found["notices"]) > 0


def test_the_state_is_retained_and_signed_and_the_link_says_whether_the_site_can_be_heard(
    site: SiteFolder, broker: Mosquitto
) -> None:
    async def look(topic: str) -> bytes:
        async with centre(broker, topic) as uplink:
            return await first(uplink, topic)

    async def until_link(online: bool) -> None:
        async with centre(broker, LINK) as uplink, asyncio.timeout(DEADLINE_S):
            while json.loads(await first(uplink, LINK))["online"] is not online:
                pass

    connected(site)
    asyncio.run(until_link(online=True))
    raw = asyncio.run(look(STATE))
    state = payload_of(raw)
    assert (state["site"], state["machines"], state["queue"]["jobs"]) == (NAME, [], 0)
    assert state["clock"]["trust"] in ("trusted", "floor", "unknown")
    assert len(json.loads(raw)["signatures"]) == 1
    assert site.daemon is not None
    site.daemon.end(signal.SIGKILL)
    asyncio.run(until_link(online=False))  # the last will
    connected(site)
    asyncio.run(until_link(online=True))
    site.daemon.end()
    asyncio.run(until_link(online=False))  # a goodbye


def test_a_line_that_is_cut_and_slow_loses_nothing(site: SiteFolder, broker: Mosquitto) -> None:
    orders = [order(site) for _ in range(10)]

    async def story() -> None:
        async with SlowLine(broker.port, bytes_per_s=20_000) as line:
            configure(site, broker, line.port)
            await asyncio.to_thread(connected, site)
            for number, (_, raw) in enumerate(orders):
                await send(broker, raw)
                if number % 3 == 0:
                    line.cut()
            for job_id, _ in orders:
                await asyncio.to_thread(verdict, site, job_id)
            assert line.connections > 1
            assert site.daemon is not None
            await asyncio.to_thread(site.daemon.end)

    asyncio.run(story())
    assert sorted(event["job_id"] for event in site.events("job_refused")) == sorted(job_id for job_id, _ in orders)


def test_what_is_wrong_is_said_by_check_and_by_status(site: SiteFolder, broker: Mosquitto) -> None:
    assert f"127.0.0.1:{broker.port} answers" in site.edge("check").stdout
    other = Authority(site.folder, "other").certificate  # a path below this folder may be as long as it is
    configure(site, broker, ca=other)
    assert "is not signed by uplink.ca" in " ".join(site.edge("check").stderr.split())
    site.start(ready="is not signed by uplink.ca")
    found = site.live()
    assert (found["uplink"]["trouble"], found["level"]) == ("wrong_ca", 1)
    assert any(item["kind"] == "uplink" and "uplink.ca" in item["text"] for item in found["attention"])
    assert "no connection to" in site.edge("status").stdout


def test_a_state_that_the_broker_denies_is_shown(site: SiteFolder, broker: Mosquitto) -> None:
    broker.end(signal.SIGTERM)
    acl = broker.folder / "acl"
    acl.write_text(acl.read_text().replace("pattern write mf/v1/%u/state\n", ""))
    broker.start()
    site.start(ready="does not let this site write to mf/v1/berlin-1/state")
    found = site.live()["uplink"]
    assert (found["online"], found["trouble"]) == (True, "denied")
    job_id, raw = order(site)
    asyncio.run(send(broker, raw))
    verdict(site, job_id)
