"""Which broker, and in words what it answers: reason codes of the OASIS standard MQTT Version 5.0, section 2.4."""

from __future__ import annotations

import enum
import socket
import ssl
from dataclasses import dataclass, field

from paho.mqtt.reasoncodes import ReasonCode

from edge.uplink.login import Login
from edge.uplink.port import Trouble, UplinkError
from edge.uplink.tls import TlsFiles, in_words


class Code(enum.IntEnum):
    """Those that mean something to a person here."""

    FIRST_FAILURE = 0x80
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SESSION_TAKEN_OVER = 0x8E
    PACKET_TOO_LARGE = 0x95
    QUOTA_EXCEEDED = 0x97


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is, and how it is spoken to. `tls` is None for a broker on this host without TLS."""

    host: str
    port: int
    tls: TlsFiles | None = field(default_factory=TlsFiles)
    login: Login | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def refused(code: ReasonCode, broker: Broker, said: str) -> UplinkError:
    """What its answer to CONNECT means; `said` is its reason string."""
    because = f"{code}: {said}" if said else str(code)
    if code.value == Code.QUOTA_EXCEEDED:
        return UplinkError(Trouble.FULL, f"the broker {broker} has no room for this site: {because}")
    if code.value in (Code.BAD_USER_NAME_OR_PASSWORD, Code.NOT_AUTHORIZED):
        if (login := broker.login) is not None:
            text = (
                f"the broker {broker} does not let this site in as the user {login.user!r}: the password in"
                f" {login.password_file} is wrong, or this user may not connect ({because})"
            )
            return UplinkError(Trouble.WRONG_PASSWORD, text)
        because += "; perhaps it wants uplink.user and uplink.password_file"
    return UplinkError(Trouble.REFUSED, f"the broker {broker} does not let this site in: {because}")


def not_taken(code: ReasonCode, broker: Broker, topic: str) -> UplinkError:
    """What its answer to a message means."""
    match code.value:
        case Code.NOT_AUTHORIZED:
            return UplinkError(Trouble.DENIED, f"the broker {broker} does not let this site write to {topic}")
        case Code.QUOTA_EXCEEDED:
            return UplinkError(Trouble.FULL, f"the broker {broker} has no room for a message for {topic}")
        case _:
            return UplinkError(Trouble.NOT_TAKEN, f"the broker {broker} does not take a message for {topic}: {code}")


def thrown_out(broker: Broker, farewell: ReasonCode) -> UplinkError:
    """What its DISCONNECT means."""
    match farewell.value:
        case Code.SESSION_TAKEN_OVER:
            text = f"another client has connected to {broker} under this site's name; do two daemons run?"
            return UplinkError(Trouble.TAKEN_OVER, text)
        case Code.PACKET_TOO_LARGE:
            return UplinkError(Trouble.TOO_LARGE, f"the broker {broker} ends the connection: a message is too large")
        case Code.QUOTA_EXCEEDED:
            return UplinkError(Trouble.FULL, f"the broker {broker} ends the connection: a quota of it is exhausted")
        case Code.FIRST_FAILURE:  # "Unspecified error"
            text = f"the broker {broker} ends the connection and does not say why; it may be full: see its log"
            return UplinkError(Trouble.ENDED, text)
        case _:
            return UplinkError(Trouble.ENDED, f"the broker {broker} ends the connection: {farewell}")


def ended(broker: Broker, failure: OSError | None, *, greeted: bool) -> UplinkError:
    """Why a connection is gone, if the broker has not said it."""
    files = broker.tls or TlsFiles()
    if isinstance(failure, ssl.SSLError) and not isinstance(failure, ssl.SSLEOFError):
        return in_words(failure, str(broker), files)
    if not greeted and broker.tls is not None and files.certificate is None:
        text = f"the broker {broker} ends the connection at once, as one does that wants a client certificate: give"
        return UplinkError(Trouble.NO_CERTIFICATE, f"{text} uplink.certificate and uplink.key")
    if not greeted and broker.tls is not None:
        text = (
            f"what answers at {broker} ends the connection at once: perhaps it does not accept the site's certificate,"
            " speaks no MQTT 5, or is full; see its log"
        )
        return UplinkError(Trouble.NO_MQTT, text)
    if not greeted:
        text = f"what answers at {broker} ends the connection at once: it wants TLS, or speaks no MQTT 5"
        return UplinkError(Trouble.NO_MQTT, text)
    return UplinkError(Trouble.LOST, f"the connection to the broker {broker} was lost")


def nonsense(broker: Broker) -> UplinkError:
    """What it sent is none of MQTT 5."""
    text = (
        f"the broker {broker} sends what MQTT 5 does not have; Mosquitto does so when a message is above its"
        " message_size_limit: give it max_packet_size instead"
    )
    return UplinkError(Trouble.NO_MQTT, text)


def unasked(broker: Broker, what: str) -> UplinkError:
    """It sends what it was told not to send."""
    return UplinkError(Trouble.NO_MQTT, f"the broker {broker} does not keep to MQTT 5: it sends {what}")


def unreached(broker: Broker, failure: OSError) -> UplinkError:
    """Why no connection was made."""
    if isinstance(failure, socket.gaierror):
        text = f"the name of the broker {broker} cannot be looked up: {failure.strerror}"
        return UplinkError(Trouble.UNREACHABLE, text)
    if isinstance(failure, TimeoutError):
        return UplinkError(Trouble.UNREACHABLE, f"the broker {broker} does not answer")
    if isinstance(failure, ConnectionResetError | ssl.SSLEOFError):
        text = f"the broker {broker} ends the connection before it says anything; it may be full: see its log"
        return UplinkError(Trouble.UNREACHABLE, text)
    return in_words(failure, str(broker), broker.tls or TlsFiles())
