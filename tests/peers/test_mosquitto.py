"""The uplink against a real Mosquitto: TLS with client certificates, an access list, kill -9, a bad line."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from edge.uplink.broker import Broker
from edge.uplink.mqtt import RECEIVE_MAXIMUM, MqttUplink, Will, connect
from edge.uplink.port import Message, Trouble, UplinkError
from edge.uplink.tls import TlsFiles
from tests.helpers.certificates import Authority
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.site import until
from tests.helpers.slow_line import SlowLine

SITE = "berlin-1"
IN, OUT, STATE, LINK = (f"mf/v1/{SITE}/{what}" for what in ("in", "out", "state", "link"))
DEADLINE_S = 30.0


@pytest.fixture(autouse=True)
def _needs_mosquitto(mosquitto: str) -> None:
    """See conftest.py."""


@contextlib.asynccontextmanager
async def site_at(
    broker: Broker, topics: tuple[str, ...] = (IN,), will: Will | None = None
) -> AsyncIterator[MqttUplink]:
    async with connect(broker, SITE, topics, will) as uplink:
        yield uplink


async def trouble_with(broker: Broker) -> UplinkError:
    with pytest.raises(UplinkError) as raised:
        async with connect(broker, SITE, [IN]):
            pass
    return raised.value


async def take(uplink: MqttUplink, count: int) -> list[Message]:
    found: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        messages = uplink.messages()
        while len(found) < count:
            found.append(await anext(messages))
        await messages.aclose()
    return found


# Who may come in


async def test_a_site_with_its_certificate_is_let_in_and_its_message_is_taken(broker: Mosquitto) -> None:
    async with connect(broker.at(CENTRE), CENTRE, [OUT]) as centre, site_at(broker.at(SITE)) as site:
        await site.publish(OUT, b"batch")
        (message,) = await take(centre, 1)
        assert (message.topic, message.payload) == (OUT, b"batch")
        await message.ack()


async def test_a_broker_of_another_authority_is_not_spoken_to(broker: Mosquitto, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").certificate
    files = dataclasses.replace(broker.files(SITE), ca=other)
    error = await trouble_with(Broker("127.0.0.1", broker.port, files))
    assert error.trouble is Trouble.WRONG_CA, error
    assert str(other) in str(error)


async def test_a_broker_whose_certificate_has_expired_is_not_spoken_to(tmp_path: Path) -> None:
    with Mosquitto.begin(tmp_path / "broker", valid=timedelta(hours=-1)) as broker:
        error = await trouble_with(broker.at(SITE))
    assert error.trouble is Trouble.BROKER_EXPIRED, error


async def test_a_broker_with_a_certificate_for_another_host_is_not_spoken_to(tmp_path: Path) -> None:
    with Mosquitto.begin(tmp_path / "broker", host="broker.example") as broker:
        error = await trouble_with(broker.at(SITE))
    assert error.trouble is Trouble.WRONG_HOST, error


async def test_a_site_without_a_certificate_is_told_so(broker: Mosquitto) -> None:
    error = await trouble_with(Broker("127.0.0.1", broker.port, TlsFiles(broker.authority.certificate)))
    assert error.trouble is Trouble.NO_CERTIFICATE, error


async def test_a_site_whose_certificate_another_authority_signed_is_told_so(broker: Mosquitto, tmp_path: Path) -> None:
    files = dataclasses.replace(Authority(tmp_path, "other").issue(SITE), ca=broker.authority.certificate)
    error = await trouble_with(Broker("127.0.0.1", broker.port, files))
    assert error.trouble in (Trouble.OURS_REFUSED, Trouble.LOST), error


async def test_a_site_whose_certificate_has_expired_is_told_before_it_is_shown(broker: Mosquitto) -> None:
    files = broker.authority.issue("late", valid=timedelta(hours=-1))
    error = await trouble_with(Broker("127.0.0.1", broker.port, files))
    assert error.trouble is Trouble.OURS_EXPIRED, error
    assert str(files.certificate) in str(error)


async def test_plain_mqtt_to_a_tls_port_and_tls_to_no_tls_port_are_named(broker: Mosquitto) -> None:
    error = await trouble_with(Broker("127.0.0.1", broker.port, None))
    assert error.trouble is Trouble.NO_MQTT, error


async def test_a_broker_that_is_not_there_is_unreachable(broker: Mosquitto) -> None:
    broker.end(signal.SIGTERM)
    error = await trouble_with(broker.at(SITE))
    assert error.trouble is Trouble.UNREACHABLE, error


# What may be written


async def test_a_denied_topic_is_an_error_although_the_broker_acknowledges_it(broker: Mosquitto) -> None:
    async with site_at(broker.at(SITE)) as site:
        with pytest.raises(UplinkError) as raised:
            await site.publish("mf/v1/munich-2/out", b"not mine")
        assert raised.value.trouble is Trouble.DENIED
        assert "mf/v1/munich-2/out" in str(raised.value)
        await site.publish(OUT, b"the connection goes on")


async def test_a_packet_that_is_too_large_is_told_before_it_is_sent(broker: Mosquitto) -> None:
    async with site_at(broker.at(SITE)) as site:
        assert site.max_packet_bytes == 262144
        with pytest.raises(UplinkError) as raised:
            await site.publish(OUT, bytes(262144))
        assert raised.value.trouble is Trouble.TOO_LARGE
        assert "262144" in str(raised.value)
        await site.publish(OUT, bytes(262144 - 100))


# What waits for a site


async def test_what_is_not_acknowledged_comes_again(broker: Mosquitto) -> None:
    async with connect(broker.at(CENTRE), CENTRE, []) as centre:
        async with site_at(broker.at(SITE)) as site:
            for number in range(4):
                await centre.publish(IN, b"%d" % number)
            first, *_ = await take(site, 4)
            await first.ack()
        async with site_at(broker.at(SITE)) as site:
            assert site.session_present
            assert [message.payload for message in await take(site, 3)] == [b"1", b"2", b"3"]


async def test_an_order_waits_for_a_site_that_is_away_and_for_a_broker_that_was_killed_twice(broker: Mosquitto) -> None:
    async with site_at(broker.at(SITE)):
        pass
    for number in range(2):
        async with connect(broker.at(CENTRE), CENTRE, []) as centre:
            await centre.publish(IN, b"order %d" % number)
        # It saves after the acknowledgement, not before.
        await asyncio.to_thread(until, lambda: broker.has_saved(b"order %d" % number))  # noqa: B023 - waited for
        broker.end(signal.SIGKILL)
        broker.start()
    async with site_at(broker.at(SITE)) as site:
        assert site.session_present
        assert [message.payload for message in await take(site, 2)] == [b"order 0", b"order 1"]


async def test_not_more_than_the_receive_maximum_are_on_their_way(broker: Mosquitto) -> None:
    async with (
        connect(broker.at(CENTRE), CENTRE, []) as centre,
        connect(broker.at(SITE), SITE, [IN], receive_maximum=5) as site,
    ):
        for number in range(12):
            await centre.publish(IN, b"%d" % number)
        held = await take(site, 5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(site.messages())
        await held[0].ack()
        assert [message.payload for message in await take(site, 1)] == [b"5"]


async def fill(broker: Mosquitto, count: int) -> None:
    """Have so many messages wait for the site, which is away: ``0``, ``1`` …"""
    async with site_at(broker.at(SITE)):
        pass
    async with connect(broker.at(CENTRE), CENTRE, []) as centre:
        for number in range(count):
            await centre.publish(IN, b"%d" % number)


async def test_all_that_waited_for_a_site_comes_over_one_connection_and_no_faster_than_it_is_taken(
    broker: Mosquitto,
) -> None:
    """Mosquitto 2.0.11 sends all of it as soon as the first are acknowledged, whatever the Receive Maximum is."""
    await fill(broker, 500)
    async with site_at(broker.at(SITE)) as site:
        for number in range(500):
            if number == RECEIVE_MAXIMUM:
                with pytest.raises(TimeoutError):  # now nobody takes one for a while
                    async with asyncio.timeout(0.5):
                        await site.lost()
                assert site.at_hand <= RECEIVE_MAXIMUM
            (message,) = await take(site, 1)
            assert message.payload == b"%d" % number
            await message.ack()


async def test_all_that_waited_comes_though_the_connection_ends_again_and_again(broker: Mosquitto) -> None:
    """Mosquitto sends what it has sent before, and was not acknowledged, ahead of its SUBACK."""
    await fill(broker, 500)
    found: list[int] = []
    while len(found) < 500:
        async with site_at(broker.at(SITE)) as site:
            for place in range(100):
                (message,) = await take(site, 1)
                if (number := int(message.payload)) == len(found):
                    found.append(number)
                assert number < len(found), "one that came before it is missing"
                if len(found) == 500:
                    break
                if place < 90:
                    await message.ack()


# The end of a connection


async def test_the_last_will_says_that_the_site_is_gone(broker: Mosquitto) -> None:
    async with (
        connect(broker.at(CENTRE), CENTRE, [LINK]) as centre,
        SlowLine(broker.port) as line,
        site_at(broker.at(SITE, line.port), will=Will(LINK, b"offline")) as site,
    ):
        await site.publish(LINK, b"online", retain=True)
        assert [message.payload for message in await take(centre, 1)] == [b"online"]
        line.cut()
        assert (await site.lost()).trouble is Trouble.LOST
        assert [message.payload for message in await take(centre, 1)] == [b"offline"]


async def test_a_killed_broker_ends_the_connection_and_what_waited_for_it(broker: Mosquitto) -> None:
    async with site_at(broker.at(SITE)) as site:
        reading = asyncio.create_task(take(site, 1), name="reader")
        broker.end(signal.SIGKILL)
        with pytest.raises(UplinkError) as raised:
            await reading
        assert raised.value.trouble is Trouble.LOST
        with pytest.raises(UplinkError):
            await site.publish(OUT, b"too late")


async def test_two_daemons_with_one_name_are_told(broker: Mosquitto) -> None:
    async with site_at(broker.at(SITE)) as site, site_at(broker.at(SITE)):
        # Mosquitto 2.0.11 hangs up without the reason code 0x8E; later ones send it.
        assert (await site.lost()).trouble in (Trouble.TAKEN_OVER, Trouble.LOST)
