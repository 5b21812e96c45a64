"""What went wrong on the way to an OPC UA server, in words for the technician in front of it."""

from __future__ import annotations

import asyncio
import enum
import os

from drivers.opcua.library import ua
from edge.driver import ConnectError, MachineError, Motion, ProtocolError


class Trouble(enum.StrEnum):
    """Kinds of failure that a person mends in different places. The values are for people, too."""

    UNTRUSTED_HERE = "untrusted here"
    UNTRUSTED_THERE = "untrusted there"
    WRONG_URI = "wrong URI"
    EXPIRED = "expired"
    USER_REFUSED = "user refused"
    NO_FREE_SESSION = "no free session"
    UNREACHABLE = "unreachable"
    FROZEN = "frozen"
    SECURITY = "no such security"
    OTHER = "refused"


class WayError(ConnectError):
    """The server cannot be used now. `trouble` says what kind of failure it is."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble = trouble


class LinkError(MachineError):
    """The link broke, or no answer came: what was asked may have been done, or not."""


class RefusedError(ProtocolError):
    """The server answered with a bad status: it has not been done. `status`: its name, as ``BadNodeIdUnknown``."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message, Motion.NONE)
        self.status = status


_SAID = {
    "BadCertificateUriInvalid": (
        Trouble.WRONG_URI,
        "the server at {place} does not take our certificate for our application URI {uri}; "
        "connection.application_uri and the certificate must name the same",
    ),
    "BadCertificateTimeInvalid": (
        Trouble.EXPIRED,
        "the server at {place} says that our certificate has expired or is not valid yet: look at the clocks of both "
        "sides; `edge machine trust {machine} --renew` makes a new certificate, which the server must then trust",
    ),
    "BadCertificateHostNameInvalid": (
        Trouble.WRONG_URI,
        "the server at {place} does not take the host name in our certificate",
    ),
    "BadTooManySessions": (
        Trouble.NO_FREE_SESSION,
        "the server at {place} has no free session: close another program that is connected to it, or wait until it "
        "gives up a lost one",
    ),
    "BadTcpNotEnoughResources": (
        Trouble.NO_FREE_SESSION,
        "the server at {place} takes no more connections: close another program that is connected to it",
    ),
    "BadUserSignatureInvalid": (
        Trouble.USER_REFUSED,
        "the server at {place} refuses the signature of the user certificate",
    ),
    "BadSecurityPolicyRejected": (
        Trouble.SECURITY,
        "the server at {place} does not take this security policy; its own settings say which it offers",
    ),
}
_UNTRUSTED_THERE = frozenset(
    {
        "BadSecurityChecksFailed",
        "BadCertificateUntrusted",
        "BadCertificateInvalid",
        "BadCertificateChainIncomplete",
        "BadCertificateUseNotAllowed",
        "BadCertificateIssuerUseNotAllowed",
        "BadCertificateIssuerRevocationUnknown",
        "BadCertificateRevocationUnknown",
        "BadCertificateRevoked",
        "BadCertificatePolicyCheckFailed",
    }
)
_USER_REFUSED = frozenset({"BadIdentityTokenRejected", "BadIdentityTokenInvalid", "BadUserAccessDenied"})
_NO_SESSION = frozenset({"BadTcpServerTooBusy", "BadMaxConnectionsReached", "BadResourceUnavailable"})


def untrusted_there(place: str, machine: str) -> str:
    """A sentence for a server that does not know our certificate."""
    return (
        f"the server at {place} does not trust our certificate yet: trust it there, in its list of rejected "
        f"certificates; `edge machine trust {machine}` shows its fingerprint"
    )


def on_connecting(error: BaseException, place: str, machine: str, uri: str, *, secure: bool) -> WayError:
    """What a failure while connecting means. The exceptions are those that asyncua 2.1 lets out."""
    if isinstance(error, WayError):
        return error
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return WayError(Trouble.FROZEN, f"the server at {place} takes the connection and does not answer: it is frozen")
    if isinstance(error, AssertionError) and secure:
        # asyncua's own, without a word, when the server closes the connection instead of opening the secure channel.
        return WayError(Trouble.UNTRUSTED_THERE, untrusted_there(place, machine))
    if isinstance(error, ua.UaStatusCodeError):
        return _on_status(ua.StatusCode(error.code).name, place, machine, uri)
    if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        if secure:
            # Some servers hang up on a certificate that they do not trust; a dead network looks otherwise.
            return WayError(
                Trouble.UNTRUSTED_THERE, f"{place} hung up. It is busy, or {untrusted_there(place, machine)}"
            )
        return WayError(Trouble.UNREACHABLE, f"the server at {place} hung up")
    if isinstance(error, OSError):
        # asyncio puts the address into the text; the numbers of gaierror are below 0.
        named = error.errno is not None and error.errno > 0
        why = os.strerror(error.errno or 0) if named else error.strerror or str(error)
        return WayError(Trouble.UNREACHABLE, f"nobody answers at {place}: {why}")
    return WayError(Trouble.OTHER, f"the server at {place} cannot be used: {str(error) or type(error).__name__}")


def _on_status(name: str, place: str, machine: str, uri: str) -> WayError:
    if name in _SAID:
        trouble, text = _SAID[name]
        return WayError(trouble, text.format(place=place, machine=machine, uri=uri))
    if name in _UNTRUSTED_THERE:
        return WayError(Trouble.UNTRUSTED_THERE, f"{untrusted_there(place, machine)} ({name})")
    if name in _USER_REFUSED:
        words = f"the server at {place} refuses the user: name, password or rights ({name})"
        return WayError(Trouble.USER_REFUSED, words)
    if name in _NO_SESSION:
        return WayError(Trouble.NO_FREE_SESSION, f"the server at {place} has no free session ({name})")
    if name == "BadTimeout":
        return WayError(Trouble.FROZEN, f"the server at {place} does not answer in time")
    return WayError(Trouble.OTHER, f"the server at {place} refuses the connection: {name}")


def on_asking(error: BaseException, what: str) -> MachineError:
    """What a failure of one request means: `RefusedError` if the server answered, otherwise `LinkError`."""
    if isinstance(error, ua.UaStatusCodeError):
        name = ua.StatusCode(error.code).name
        if name in _LINK:
            return LinkError(f"{what}: {name}")
        return RefusedError(f"{what}: the server says {name}", name)
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return LinkError(f"{what}: no answer in time")
    return LinkError(f"{what}: the link broke ({str(error) or type(error).__name__})")


_LINK = frozenset(
    {
        "BadSessionIdInvalid",
        "BadSessionClosed",
        "BadSessionNotActivated",
        "BadSecureChannelIdInvalid",
        "BadSecureChannelClosed",
        "BadConnectionClosed",
        "BadTimeout",
        "BadShutdown",
        "BadServerHalted",
        "BadCommunicationError",
        "BadRequestTimeout",
    }
)
"""The server says by these that this connection is over, or that it cannot say what became of the request."""
