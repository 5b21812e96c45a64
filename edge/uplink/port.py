"""What the runtime asks of a way to the centre. `edge.uplink.mqtt` is the one there is.

Rules

1. A connection is one object. It is never used again after a loss: a new one is made.
2. `publish` returns when the broker has taken the message. That is no proof of delivery: a broker may lose what it has
   taken, and only a collector's signed acknowledgement says that it has arrived.
3. A message that is not acknowledged comes again on the next connection. So it is acknowledged after what follows from
   it is durable, and never before.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from typing import Protocol

from edge.errors import EdgeError


class Trouble(enum.StrEnum):
    """Why the centre cannot be reached, or does not take something. The value is what `edge status --json` shows."""

    CONFIGURATION = "configuration"  # a file that [uplink] names cannot be used
    UNREACHABLE = "unreachable"  # nobody answers there, or the network is down
    NO_TLS = "no_tls"  # what answers speaks no TLS
    WRONG_CA = "wrong_ca"  # the broker's certificate is of an authority that [uplink] ca does not name
    BROKER_EXPIRED = "broker_expired"  # the broker's certificate has expired, or is not valid yet
    WRONG_HOST = "wrong_host"  # the broker's certificate is for another host name
    NO_CERTIFICATE = "no_certificate"  # the broker wants a client certificate, and none is configured
    OURS_EXPIRED = "ours_expired"  # the site's certificate has expired
    OURS_REFUSED = "ours_refused"  # the broker does not accept the site's certificate
    WRONG_PASSWORD = "wrong_password"  # the broker does not accept the user's name or password
    REFUSED = "refused"  # the broker does not let this client in
    NO_MQTT = "no_mqtt"  # what answers speaks no MQTT 5
    DENIED = "denied"  # the broker does not let the site write or read this topic
    FULL = "full"  # a quota of the broker is exhausted
    TOO_LARGE = "too_large"  # the message is larger than the broker takes
    TAKEN_OVER = "taken_over"  # somebody else has connected under the site's name
    NOT_TAKEN = "not_taken"  # the broker refused the message for another reason, or did not answer in time
    ENDED = "ended"  # the broker has ended the connection, for a reason of its own
    LOST = "lost"  # the connection was lost
    NO_ACKNOWLEDGEMENT = "no_acknowledgement"  # the broker takes everything, and no collector acknowledges


class UplinkError(EdgeError):
    """The way to the centre failed, or did not take a message. `str()` says in words what is wrong and where."""

    def __init__(self, trouble: Trouble, sentence: str) -> None:
        super().__init__(sentence)
        self.trouble = trouble

    @property
    def ends_the_connection(self) -> bool:
        """Whether a new connection is needed; otherwise only this one message was not taken."""
        return self.trouble not in (Trouble.DENIED, Trouble.FULL, Trouble.TOO_LARGE, Trouble.NOT_TAKEN)


class Message(Protocol):
    """Something that came for the site."""

    @property
    def topic(self) -> str:
        """Where it was published."""

    @property
    def payload(self) -> bytes:
        """Whatever anybody who may write there has sent."""

    @property
    def again(self) -> bool:
        """The broker has given it before, and was not told that it was taken."""

    async def ack(self) -> None:
        """Say that it need not come again. On a connection that is gone it does nothing: it comes again."""


class Uplink(Protocol):
    """One connection to the centre."""

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
        """Hand over a message; returns when the broker has taken it. Raises `UplinkError`.

        One that is not `sure` may be lost: it returns when the message is on the line, and nobody says what becomes of
        it there.
        """

    def messages(self) -> AsyncIterator[Message]:
        """What comes, oldest first, for one reader. Raises `UplinkError` when the connection is lost."""
