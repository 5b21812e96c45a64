"""The uplink over MQTT 5: one connection to a broker, behind `edge.uplink.port`.

Rules

1. QoS 1 both ways, and QoS 0 for what may be lost. The session outlives the connection (Clean Start 0, Session Expiry
   Interval), so what comes for a site that is away waits at the broker.
2. A PUBACK's reason code is looked at: a message that the broker's access list forbids is acknowledged too, with 0x87.
3. A message that came is acknowledged by whoever has made it durable, never by this module.
4. Not more than `RECEIVE_MAXIMUM` messages are on their way in, and not more than the broker allows out. paho holds no
   broker to what CONNECT has said, and Mosquitto 2.0.11 sends all that waited as soon as the first are acknowledged: so
   nothing more is read while that many are here and nobody has taken them. One that sends larger packets, or QoS 2, is
   left before it fills the memory.

paho-mqtt works in a thread of its own, which blocks while it looks up the broker's name and greets it; everything that
it tells is handed to the event loop. Section numbers are those of the OASIS standard MQTT Version 5.0.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.uplink.broker import Broker, Code, ended, nonsense, not_taken, refused, thrown_out, unasked, unreached
from edge.uplink.login import read_password
from edge.uplink.port import Message, Trouble, UplinkError
from edge.uplink.tls import context_of

CONNECT_S = 10.0
"""For the TCP and TLS handshakes, each, and for the broker's CONNACK and SUBACK."""

TAKEN_S = 60.0
"""For the PUBACK: a packet of 256 KiB over a link of 5 kB/s takes 52 s."""

TAKEN_MAX_S = 900.0
"""For the PUBACK while messages come: the broker sends first what waited, and a slow link takes its time for that."""

CLOSE_S = 2.0
KEEP_ALIVE_S = 30
SESSION_S = 30 * 24 * 3600
RECEIVE_MAXIMUM = 32
"""Messages that came and are not acknowledged: so many share one commit of the journal."""

MAX_PACKET_BYTES = 260 * 1024
"""Of a packet that comes (section 3.1.2.11.4): an envelope has at most 256 KiB. The broker drops what is larger."""

IN_FLIGHT = 16
"""Messages that the broker has not taken yet; more wait."""

OVERHEAD_BYTES = 16
"""Of a PUBLISH beside topic and payload (section 3.3): header, lengths, identifier, an empty set of properties."""

UNSENT_BYTES = 32 * 1024
"""Of what was handed to the kernel and has not gone out (tcp(7)): a fact must not wait behind minutes of values that
"are on the line" in a buffer of megabytes."""

_SUBSCRIPTION = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says in our name when the connection is lost; it is retained."""

    topic: str
    payload: bytes


@contextlib.asynccontextmanager
async def connect(
    broker: Broker,
    client_id: str,
    topics: Sequence[str],
    will: Will | None = None,
    session_s: int = SESSION_S,
    receive_maximum: int = RECEIVE_MAXIMUM,
) -> AsyncIterator[MqttUplink]:
    """One connection, until the block is left; `topics` are what is listened to. Raises `UplinkError`.

    With `session_s` 0 nothing waits for this client while it is away.
    """
    context = None if broker.tls is None else context_of(broker.tls, datetime.datetime.now(datetime.UTC))
    uplink = MqttUplink(broker, client_id, context, will, session_s, receive_maximum)
    try:
        await uplink.open(topics)
        yield uplink
    finally:
        await uplink.close()


@dataclass(frozen=True, slots=True)
class MqttMessage:
    """A message of a broker, bound to the connection that it came on."""

    topic: str
    payload: bytes
    again: bool
    qos: int
    _acknowledge: Callable[[], object]

    async def ack(self) -> None:
        """See `edge.uplink.port.Message`."""
        self._acknowledge()


class MqttUplink:
    """See `edge.uplink.port.Uplink`. Made by `connect`."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        context: ssl.SSLContext | None,
        will: Will | None,
        session_s: int,
        receive_maximum: int,
    ) -> None:
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._client = _client(client_id, context, will)
        if broker.login is not None:
            self._client.username_pw_set(broker.login.user, read_password(broker.login.password_file))
        self._connecting = _connecting(session_s, receive_maximum)
        self._clean = session_s == 0
        self._greeted: asyncio.Future[tuple[ReasonCode, Properties | None]] = self._loop.create_future()
        self._topics: Sequence[str] = ()
        self._granted: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[UplinkError] = self._loop.create_future()
        self._taken: dict[int, asyncio.Future[ReasonCode]] = {}
        self._arrived: asyncio.Queue[MqttMessage] = asyncio.Queue()
        self._came_count = 0
        self._room = threading.Semaphore(receive_maximum)  # for messages of QoS 1 in `_arrived`
        self._unsure_max = 2 * receive_maximum  # so many messages there, and those of QoS 0 are dropped
        self._window = asyncio.Semaphore(IN_FLIGHT)
        self._farewell: ReasonCode | None = None
        self._said_nonsense = False
        self._unasked = ""
        self._closing = False
        self._ended = threading.Event()
        self._keeps = True
        self.dropped = 0  # messages of QoS 0 for which there was no room
        self.session_present = False  # whether the broker has kept what came while the site was away
        self.max_packet_bytes: int | None = None  # that the broker takes

    @property
    def at_hand(self) -> int:
        """Messages that have come, and that nobody has taken yet."""
        return self._arrived.qsize()

    # From the event loop

    async def open(self, topics: Sequence[str]) -> None:
        """Connect and subscribe. Raises `UplinkError`."""
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        # With it, what is sent from here is left to the thread; without it paho would write from both.
        client.on_socket_register_write = _leave_it_to_the_thread
        threading.Thread(target=self._run, name=f"mqtt {self._broker}", daemon=True).start()
        code, properties = await self._answer(self._greeted, 3 * CONNECT_S, "said nothing to CONNECT")
        if code.value >= Code.FIRST_FAILURE:
            said = getattr(properties, "ReasonString", "")
            raise refused(code, self._broker, said)
        self._keeps = getattr(properties, "RetainAvailable", 1) == 1
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self._window = asyncio.Semaphore(min(IN_FLIGHT, getattr(properties, "ReceiveMaximum", IN_FLIGHT)))
        if topics:
            self._topics = topics
            client.subscribe([(topic, _SUBSCRIPTION) for topic in topics])
            # With a session the broker listens already, and what waited comes first: that must be taken before SUBACK.
            if not self.session_present:
                await self._answer(self._granted, CONNECT_S, "said nothing to SUBSCRIBE")

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
        """See `edge.uplink.port.Uplink`."""
        size = len(topic.encode()) + len(payload) + OVERHEAD_BYTES
        if self.max_packet_bytes is not None and size > self.max_packet_bytes:
            raise UplinkError(
                Trouble.TOO_LARGE,
                f"a message for {topic} has {size} bytes, the broker {self._broker} takes {self.max_packet_bytes}",
            )
        if retain and not self._keeps:
            raise UplinkError(Trouble.DENIED, f"the broker {self._broker} keeps no retained message, as {topic} needs")
        async with self._window if sure else contextlib.nullcontext():
            self._raise_if_lost()
            sent = self._client.publish(topic, payload, qos=1 if sure else 0, retain=retain)
            if sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._raise_if_lost()
                raise self._lost_in_words()
            self._taken[sent.mid] = answer = self._loop.create_future()
            try:
                # At QoS 0 paho answers when the last byte is on the line, so that no two wait for a slow one.
                code = await self._answer(answer, TAKEN_S, f"did not take a message for {topic}", TAKEN_MAX_S)
            finally:
                del self._taken[sent.mid]
        if code.value >= Code.FIRST_FAILURE:
            raise not_taken(code, self._broker, topic)

    async def messages(self) -> AsyncIterator[Message]:
        """See `edge.uplink.port.Uplink`."""
        while True:
            arrival = asyncio.create_task(self._arrived.get(), name="next message")
            waits: list[asyncio.Future[Any]] = [arrival, self._lost]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if not arrival.done():
                    raise self._lost.result()
                message = arrival.result()
            finally:
                arrival.cancel()
            if message.qos:
                self._room.release()
            yield message

    async def lost(self) -> UplinkError:
        """Wait until the connection is lost; why."""
        return await asyncio.shield(self._lost)

    async def close(self) -> None:
        """Say goodbye, if anybody is there to hear it, and let go of the connection."""
        self._closing = True
        self._room.release()  # the thread may wait for it
        self._client.disconnect()
        # A thread that still looks up the broker's name cannot be stopped; it ends by itself, and nobody listens to it.
        await asyncio.to_thread(self._ended.wait, CLOSE_S)
        left: list[asyncio.Future[Any]] = [self._greeted, self._granted, self._lost, *self._taken.values()]
        for future in left:
            future.cancel()

    async def _answer(self, answer: asyncio.Future[Any], within_s: float, otherwise: str, max_s: float = 0.0) -> Any:
        """Wait for it; up to `max_s` as long as a message has come `within_s`."""
        waits: list[asyncio.Future[Any]] = [answer, self._lost]
        until_s, before = self._loop.time() + max_s, -1
        while before < 0 or (before < self._came_count and self._loop.time() < until_s):
            before = self._came_count
            await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            self._raise_if_lost()
        raise UplinkError(Trouble.LOST, f"the broker {self._broker} {otherwise} within {within_s:g} s")

    def _raise_if_lost(self) -> None:
        if self._lost.done():
            raise self._lost.result()

    def _lost_in_words(self, failure: OSError | None = None) -> UplinkError:
        if self._farewell is not None:
            return thrown_out(self._broker, self._farewell)
        if self._said_nonsense:
            return nonsense(self._broker)
        if self._unasked:
            return unasked(self._broker, self._unasked)
        return ended(self._broker, failure, greeted=self._greeted.done())

    # In the thread

    def _run(self) -> None:
        failure: Exception | None = None
        try:
            self._client.connect(
                self._broker.host,
                self._broker.port,
                keepalive=KEEP_ALIVE_S,
                clean_start=self._clean,
                properties=self._connecting,
            )
            at = self._client.socket()
            if isinstance(at, socket.socket):
                at.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            if self._closing:  # it was given up meanwhile
                self._client.disconnect()
            while (result := self._client.loop(1.0)) == MQTTErrorCode.MQTT_ERR_SUCCESS and not self._unasked:
                self._unasked = _unasked_for(self._client)
            if self._unasked and at is not None:
                at.close()
            self._said_nonsense = result == MQTTErrorCode.MQTT_ERR_PROTOCOL
            failure = getattr(at, "failure", None)
        except Exception as error:  # noqa: BLE001 - the end of a thread: told to the event loop, which raises it
            failure = error
        finally:
            self._ended.set()
            self._tell(self._over, failure)

    def _tell(self, tell: Callable[..., None], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(tell, *values)

    def _on_connect(
        self, _: Client, __: Any, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        self._tell(self._connected, flags.session_present, code, properties)

    def _on_disconnect(
        self, _: Client, __: Any, flags: DisconnectFlags, code: ReasonCode, ___: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._farewell = code

    def _on_subscribe(self, _: Client, __: Any, ___: int, codes: list[ReasonCode], ____: Properties | None) -> None:
        self._tell(self._subscribed, codes)

    def _on_publish(self, _: Client, __: Any, mid: int, code: ReasonCode, ___: Properties | None) -> None:
        self._tell(self._was_taken, mid, code)

    def _on_message(self, client: Client, _: Any, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # nobody listens there
        acknowledge = functools.partial(client.ack, message.mid, message.qos)
        if message.qos and not self._closing:
            self._room.acquire()
        self._tell(self._came, MqttMessage(topic, bytes(message.payload), message.dup, message.qos, acknowledge))

    # What the thread has told

    def _connected(self, session_present: bool, code: ReasonCode, properties: Properties | None) -> None:
        self.session_present = session_present
        _settle(self._greeted, (code, properties))

    def _subscribed(self, codes: list[ReasonCode]) -> None:
        for topic, granted in zip(self._topics, codes, strict=False):
            if granted.value >= Code.FIRST_FAILURE:
                text = f"the broker {self._broker} does not let the site listen to {topic}: {granted}"
                _settle(self._lost, UplinkError(Trouble.REFUSED, text))
                return
        _settle(self._granted, None)

    def _was_taken(self, mid: int, code: ReasonCode) -> None:
        if mid in self._taken:
            _settle(self._taken[mid], code)

    def _came(self, message: MqttMessage) -> None:
        self._came_count += 1
        if message.qos == 0 and self.at_hand >= self._unsure_max:
            self.dropped += 1
        else:
            self._arrived.put_nowait(message)

    def _over(self, failure: Exception | None) -> None:
        if isinstance(failure, OSError) and not self._greeted.done():
            _settle(self._lost, unreached(self._broker, failure))
        elif failure is None or isinstance(failure, OSError):
            _settle(self._lost, self._lost_in_words(failure))
        elif not self._lost.done():
            self._lost.set_exception(failure)  # our bug, or paho's: for the boundary that writes tracebacks


def _unasked_for(client: Client) -> str:
    """What the broker sends although it was told not to, as far as paho has it; empty while there is nothing."""
    size = client._in_packet["remaining_length"]
    if size > MAX_PACKET_BYTES:
        return f"a packet of {size} bytes, this side takes {MAX_PACKET_BYTES}"
    return "a message at QoS 2, this side has asked for QoS 1" if client._in_messages else ""


def _client(client_id: str, context: ssl.SSLContext | None, will: Will | None) -> Client:
    client = Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = CONNECT_S
    client.max_inflight_messages_set(0)  # `MqttUplink._window` counts them
    if context is not None:
        client.tls_set_context(context)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=True)
    return client


def _connecting(session_s: int, receive_maximum: int) -> Properties:
    """The properties of CONNECT (section 3.1.2.11)."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = session_s
    properties.ReceiveMaximum = receive_maximum
    properties.MaximumPacketSize = MAX_PACKET_BYTES
    return properties


def _settle(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _leave_it_to_the_thread(*_: object) -> None:
    """The thread looks after every write."""
