"""The uplink against a broker that says exactly what is wanted: every reason code has its own words."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import time
from pathlib import Path

import pytest

from edge.uplink import mqtt
from edge.uplink.broker import Broker
from edge.uplink.login import Login
from edge.uplink.mqtt import IN_FLIGHT, MAX_PACKET_BYTES, Will, connect
from edge.uplink.port import Trouble, UplinkError
from edge.uplink.tls import TlsFiles
from tests.helpers.certificates import Authority
from tests.helpers.mqtt_peer import MAXIMUM_PACKET_SIZE, RECEIVE_MAXIMUM, RETAIN_AVAILABLE, Peer
from tests.helpers.opcua import until

IN, OUT, LINK = "mf/v1/berlin-1/in", "mf/v1/berlin-1/out", "mf/v1/berlin-1/link"
DEADLINE_S = 20.0


async def trouble_with(broker: Broker) -> UplinkError:
    with pytest.raises(UplinkError) as raised:
        async with connect(broker, "berlin-1", [IN]):
            pass
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        (0x80, Trouble.NOT_TAKEN),
        (0x87, Trouble.DENIED),
        (0x90, Trouble.NOT_TAKEN),
        (0x97, Trouble.FULL),
        (0x99, Trouble.NOT_TAKEN),
    ],
)
async def test_a_message_that_the_broker_refuses_is_an_error_and_the_connection_goes_on(
    code: int, trouble: Trouble
) -> None:
    async with Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.puback = code
        with pytest.raises(UplinkError) as raised:
            await uplink.publish(OUT, b"batch")
        assert (raised.value.trouble, raised.value.ends_the_connection) == (trouble, False)
        assert OUT in str(raised.value)
        peer.puback = 0x10  # no matching subscribers: taken all the same
        await uplink.publish(OUT, b"batch")


async def test_nobody_is_told_that_a_message_was_taken_before_it_was() -> None:
    async with Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.puback = None
        sending = asyncio.create_task(uplink.publish(OUT, b"batch"), name="publish")
        async with asyncio.timeout(DEADLINE_S):
            while not peer.published:
                peer.seen.clear()
                await peer.seen.wait()
        assert not sending.done()
        peer.hang_up()
        with pytest.raises(UplinkError) as raised:
            await sending
        assert raised.value.trouble is Trouble.LOST


async def test_a_broker_that_takes_a_message_for_ever_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "TAKEN_S", 0.05)
    async with Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.puback = None
        with pytest.raises(UplinkError) as raised:
            await uplink.publish(OUT, b"batch")
    assert raised.value.ends_the_connection
    assert "did not take a message" in str(raised.value)


async def test_while_messages_come_the_broker_may_take_longer_for_its_answer_is_behind_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mqtt, "TAKEN_S", 1.0)
    async with asyncio.timeout(DEADLINE_S), Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.puback = None
        began_s = time.monotonic()
        publishing = asyncio.create_task(uplink.publish(OUT, b"batch"), name="test: publish")
        await asyncio.sleep(0)
        peer.send(IN, b"order", mid=1)
        with pytest.raises(UplinkError, match="did not take a message"):
            await publishing
        assert time.monotonic() - began_s >= 2 * mqtt.TAKEN_S
        assert uplink.at_hand == 1


async def test_what_the_broker_has_said_of_itself_binds_the_site() -> None:
    async with Peer() as peer:
        limit = bytes([MAXIMUM_PACKET_SIZE]) + (1000).to_bytes(4, "big")
        peer.properties = limit + bytes([RECEIVE_MAXIMUM, 0, 2, RETAIN_AVAILABLE, 0])
        async with connect(peer.broker, "berlin-1", [IN]) as uplink:
            for payload, retain, trouble in ((bytes(1000), False, Trouble.TOO_LARGE), (b"", True, Trouble.DENIED)):
                with pytest.raises(UplinkError) as raised:
                    await uplink.publish(OUT, payload, retain=retain)
                assert raised.value.trouble is trouble
            assert peer.published == []
            peer.puback = None
            sending = [asyncio.create_task(uplink.publish(OUT, b"%d" % n), name=f"publish {n}") for n in range(5)]
            async with asyncio.timeout(DEADLINE_S):
                while len(peer.published) < 2:
                    peer.seen.clear()
                    await peer.seen.wait()
            assert len(peer.published) == 2 < IN_FLIGHT
            peer.hang_up()
            done = await asyncio.gather(*sending, return_exceptions=True)
            assert all(isinstance(error, UplinkError) for error in done)


async def test_a_message_is_acknowledged_by_whoever_took_it_and_not_before() -> None:
    async with Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.send(IN, b"first", mid=7)
        peer.send(IN, b"second", mid=8)
        messages = uplink.messages()
        async with asyncio.timeout(DEADLINE_S):
            first, second = await anext(messages), await anext(messages)
        await messages.aclose()
        assert [first.payload, second.payload] == [b"first", b"second"]
        await second.ack()
        await peer.until(1, peer.acked)
        await first.ack()
        await peer.until(2, peer.acked)
        assert peer.acked == [8, 7]


async def test_an_acknowledgement_on_a_lost_connection_goes_nowhere() -> None:
    async with Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.send(IN, b"order", mid=7)
        messages = uplink.messages()
        message = await anext(messages)
        peer.hang_up()
        with pytest.raises(UplinkError):
            await anext(messages)
        await message.ack()
        assert peer.acked == []


async def test_what_comes_at_qos_0_takes_no_room_from_what_must_not_be_lost() -> None:
    async with Peer() as peer, connect(peer.broker, "berlin-1", [IN], receive_maximum=4) as uplink:
        for number in range(100):
            peer.send(IN, b"%d" % number, mid=0, qos=0)
        peer.send(IN, b"order", mid=1)
        async with asyncio.timeout(DEADLINE_S):
            await until(lambda: uplink.dropped > 0, DEADLINE_S)  # nobody takes them meanwhile
            async for message in uplink.messages():
                await message.ack()
                if message.payload == b"order":
                    break
        await peer.until(1, peer.acked)


async def test_a_broker_that_sends_more_at_once_than_was_allowed_is_read_no_faster_than_it_is_taken() -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        Peer() as peer,
        connect(peer.broker, "berlin-1", [IN], receive_maximum=2) as uplink,
    ):
        for number in range(1, 100):
            peer.send(IN, b"%d" % number, mid=number)
        await until(lambda: uplink.at_hand == 2, DEADLINE_S)
        messages = uplink.messages()
        for number in range(1, 100):
            message = await anext(messages)
            assert message.payload == b"%d" % number
            assert uplink.at_hand <= 2
            await message.ack()
        await peer.until(99, peer.acked)


async def test_what_waited_may_come_before_the_broker_has_said_that_it_may_be_listened_to() -> None:
    async with asyncio.timeout(DEADLINE_S), Peer() as peer:
        peer.session = [(IN, b"%d" % number) for number in range(100)]
        async with connect(peer.broker, "berlin-1", [IN], receive_maximum=2) as uplink:
            messages = uplink.messages()
            for number in range(100):
                message = await anext(messages)
                assert message.payload == b"%d" % number
                await message.ack()
            await peer.until(100, peer.acked)


async def test_a_session_that_is_there_may_lose_the_right_to_listen() -> None:
    async with asyncio.timeout(DEADLINE_S), Peer() as peer:
        peer.session, peer.suback = [], 0x87
        async with connect(peer.broker, "berlin-1", [IN]) as uplink:
            error = await uplink.lost()
    assert error.trouble is Trouble.REFUSED
    assert IN in str(error)


async def test_a_connection_can_be_ended_while_nothing_more_is_read_from_it() -> None:
    async with asyncio.timeout(DEADLINE_S), Peer() as peer:
        async with connect(peer.broker, "berlin-1", [IN], receive_maximum=2) as uplink:
            for number in range(1, 100):
                peer.send(IN, b"order", mid=number)
            await until(lambda: uplink.at_hand == 2, DEADLINE_S)
        assert uplink._ended.is_set()


async def test_a_packet_that_is_larger_than_was_allowed_is_not_waited_for() -> None:
    async with asyncio.timeout(DEADLINE_S), Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.begin(2**28 - 1, b"\0" * 1_000_000)
        error = await uplink.lost()
    assert error.trouble is Trouble.NO_MQTT
    assert "a packet of 268435455 bytes, this side takes 266240" in str(error)


async def test_what_is_sent_at_another_quality_than_was_asked_for_is_not_kept() -> None:
    async with asyncio.timeout(DEADLINE_S), Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        for mid in range(1, 1000):
            peer.send(IN, b"order", mid=mid, qos=2)
        error = await uplink.lost()
        assert len(uplink._client._in_messages) < 100
    assert error.trouble is Trouble.NO_MQTT
    assert "QoS 2" in str(error)


async def test_a_packet_of_the_size_that_was_allowed_is_taken() -> None:
    async with asyncio.timeout(DEADLINE_S), Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.send(IN, b"x" * (MAX_PACKET_BYTES - 64), mid=1)
        message = await anext(uplink.messages())
    assert len(message.payload) == MAX_PACKET_BYTES - 64


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        (0x8E, Trouble.TAKEN_OVER),
        (0x95, Trouble.TOO_LARGE),
        (0x97, Trouble.FULL),
        (0x80, Trouble.ENDED),
        (0x8B, Trouble.ENDED),
        (None, Trouble.LOST),
    ],
)
async def test_the_end_of_a_connection_says_why(code: int | None, trouble: Trouble) -> None:
    async with Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.hang_up(code)
        error = await uplink.lost()
        assert error.trouble is trouble


async def test_an_answer_that_mqtt_5_does_not_have_is_told_and_ends_the_connection() -> None:
    async with Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.puback = 0x95  # what Mosquitto 2.0.11 says above its message_size_limit; section 3.4.2.1 has no such code
        with pytest.raises(UplinkError) as raised:
            await uplink.publish(OUT, b"batch")
        assert raised.value.trouble is Trouble.NO_MQTT
        assert raised.value.ends_the_connection
        assert "message_size_limit" in str(raised.value)


@pytest.mark.parametrize(
    ("code", "trouble"),
    [(0x87, Trouble.REFUSED), (0x86, Trouble.REFUSED), (0x97, Trouble.FULL), (0x88, Trouble.REFUSED)],
)
async def test_a_site_that_is_not_let_in_is_told_why(code: int, trouble: Trouble) -> None:
    async with Peer() as peer:
        peer.connack = code
        assert (await trouble_with(peer.broker)).trouble is trouble


SECRET = "correct horse"


def login(folder: Path, content: bytes = SECRET.encode() + b"\n", mode: int = 0o600) -> Login:
    path = folder / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return Login("berlin-1", path)


async def test_user_and_password_go_with_connect_and_are_read_anew_for_each_connection(tmp_path: Path) -> None:
    async with Peer() as peer:
        broker = dataclasses.replace(peer.broker, login=login(tmp_path))
        async with connect(broker, "site", []):
            pass
        login(tmp_path, b"battery staple\r\nsecond line")
        async with connect(broker, "site", []):
            pass
        flags = peer.connects[0][7]
        assert flags & 0xC0 == 0xC0  # a user name and a password, section 3.1.2.8
        names = [body[body.index(b"berlin-1") + 8 :] for body in peer.connects]
        assert names == [b"\0\x0dcorrect horse", b"\0\x0ebattery staple"]


@pytest.mark.parametrize("code", [0x86, 0x87])
async def test_a_wrong_password_has_its_own_words_and_is_not_repeated(tmp_path: Path, code: int) -> None:
    async with Peer() as peer:
        peer.connack = code
        error = await trouble_with(dataclasses.replace(peer.broker, login=login(tmp_path)))
    assert error.trouble is Trouble.WRONG_PASSWORD
    assert "as the user 'berlin-1'" in str(error)
    assert str(tmp_path / "password") in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (SECRET.encode(), 0o640, "chmod 600"),
        (SECRET.encode(), 0o604, "chmod 600"),
        (b"\n" + SECRET.encode(), 0o600, "first line is empty"),
        (b"\xff" + SECRET.encode(), 0o600, "not UTF-8"),
        (SECRET.encode() * 6000, 0o600, "longer than 65535 bytes"),
        (None, 0o600, "No such file"),
    ],
)
async def test_a_password_file_that_cannot_be_used_is_named_and_nothing_of_it_said(
    tmp_path: Path, content: bytes | None, mode: int, words: str
) -> None:
    found = login(tmp_path, content or b"", mode)
    if content is None:
        found.password_file.unlink()
    error = await trouble_with(Broker("127.0.0.1", 1, None, found))
    assert error.trouble is Trouble.CONFIGURATION
    assert f"uplink.password_file: {found.password_file}" in str(error)
    assert words in str(error)
    assert SECRET not in str(error)
    assert SECRET not in repr(found)
    assert error.__cause__ is None or SECRET not in repr(error.__cause__)


async def test_what_may_be_lost_goes_at_qos_0_and_nobody_waits_for_an_answer() -> None:
    async with Peer() as peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.puback = None
        async with asyncio.timeout(DEADLINE_S):
            for number in range(3 * IN_FLIGHT):
                await uplink.publish(OUT, b"%d" % number, sure=False)
            while len(peer.published) < 3 * IN_FLIGHT:
                peer.seen.clear()
                await peer.seen.wait()
        assert {flags & 0x06 for flags, _ in peer.published} == {0}
        peer.hang_up()
        await uplink.lost()
        with pytest.raises(UplinkError):
            await uplink.publish(OUT, b"too late", sure=False)


async def test_what_may_be_lost_does_not_pile_up_on_a_line_that_takes_nothing() -> None:
    peer = Peer()
    peer.small = True
    async with peer, connect(peer.broker, "berlin-1", [IN]) as uplink:
        peer.reads.clear()
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):  # it is the line that takes nothing, for however long
                while sent < 100:
                    await uplink.publish(OUT, bytes(16 * 1024), sure=False)
                    sent += 1
        assert sent <= 8, "a fact would wait behind all of them"
        peer.reads.set()


async def test_a_site_that_may_not_listen_is_told_so() -> None:
    async with Peer() as peer:
        peer.suback = 0x87
        error = await trouble_with(peer.broker)
        assert error.trouble is Trouble.REFUSED
        assert IN in str(error)


async def test_who_hangs_up_at_once_speaks_no_mqtt_5_or_wants_tls(tmp_path: Path) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert (await trouble_with(Broker("127.0.0.1", port, None))).trouble is Trouble.NO_MQTT


async def test_tls_to_a_broker_that_speaks_none_is_named(tmp_path: Path) -> None:
    async with Peer() as peer:
        files = TlsFiles(Authority(tmp_path).certificate)
        error = await trouble_with(Broker(peer.broker.host, peer.broker.port, files))
        assert error.trouble in (Trouble.NO_TLS, Trouble.UNREACHABLE)


async def test_a_port_where_nobody_listens_and_a_name_that_nobody_has_are_named() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        error = await trouble_with(Broker("127.0.0.1", nobody.getsockname()[1], None))
        assert error.trouble is Trouble.UNREACHABLE
    error = await trouble_with(Broker("nobody.invalid", 1883, None))
    assert error.trouble is Trouble.UNREACHABLE
    assert "nobody.invalid" in str(error)


async def test_a_broker_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "CONNECT_S", 0.05)
    async with Peer() as peer:
        peer.connack = None
        assert "said nothing to CONNECT" in str(await trouble_with(peer.broker))


async def test_the_session_outlives_the_connection_and_the_will_goes_with_it() -> None:
    async with Peer() as peer:
        async with connect(peer.broker, "berlin-1", [IN], Will(LINK, b"offline")):
            pass
        (body,) = peer.connects
        flags = body[7]  # after the protocol's name and version, section 3.1.2.3
        assert flags & 0x02 == 0  # Clean Start
        assert flags & 0x3C == 0x2C  # a will, at QoS 1, retained
        assert LINK.encode() in body
        async with connect(peer.broker, "check", [], session_s=0):
            pass
        assert peer.connects[1][7] & 0x02


@pytest.mark.parametrize("field", ["ca", "certificate", "key"])
@pytest.mark.parametrize("content", [None, b"nonsense"])
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, field: str, content: bytes | None) -> None:
    good = Authority(tmp_path).issue("berlin-1")
    paths = {"ca": good.ca, "certificate": good.certificate, "key": good.key}
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(content)
    error = await trouble_with(Broker("127.0.0.1", 1, TlsFiles(**(paths | {field: bad}))))
    assert error.trouble is Trouble.CONFIGURATION
    assert f"uplink.{field}" in str(error)
    assert str(bad) in str(error)


async def test_a_key_of_another_certificate_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, other = authority.issue("berlin-1"), authority.issue("other")
    error = await trouble_with(Broker("127.0.0.1", 1, TlsFiles(good.ca, good.certificate, other.key)))
    assert error.trouble is Trouble.CONFIGURATION
    assert "does not belong to the certificate" in str(error)
