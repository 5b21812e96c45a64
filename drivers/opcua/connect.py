"""Getting in: the endpoint, both sides' certificates, the user, a session; and giving the session back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

from asyncua.crypto import security_policies, uacrypto

from drivers.opcua.client import FAILURES, REQUEST_S, SESSION_S, Link, plainly
from drivers.opcua.config import Connection
from drivers.opcua.library import Client, ua
from drivers.opcua.pki import OwnCertificate, Pki, ServerCertificate, application_uri, read_server
from drivers.opcua.words import Trouble, WayError, on_connecting
from edge.driver import ConnectError

CONNECT_S = 6.0
"""How long a server may take for all of connecting: with RSA on a small controller 1 to 2 s."""

CLOSE_S = 1.0
CHANNEL_S = 3600.0


async def server_certificate(connection: Connection, machine: str, uri: str) -> tuple[ServerCertificate, str]:
    """The certificate of the endpoint with our security, and the server's application URI. Raises `WayError`."""
    endpoint = await _endpoint(connection, machine, uri)
    return read_server(endpoint.ServerCertificate or b""), endpoint.Server.ApplicationUri or ""


async def _endpoint(connection: Connection, machine: str, uri: str) -> ua.EndpointDescription:
    """The server's endpoint with our security. Raises `WayError`, with what it offers instead."""
    place = connection.endpoint
    try:
        async with asyncio.timeout(CONNECT_S):
            endpoints = await plainly(Client(place, timeout=CONNECT_S).connect_and_get_server_endpoints())
    except FAILURES as error:
        raise on_connecting(error, place, machine, uri, secure=False) from error
    offered = set()
    for endpoint in endpoints:
        policy, mode = (endpoint.SecurityPolicyUri or "").rpartition("#")[2], endpoint.SecurityMode.name
        offered.add(f"{policy}" if policy == "None" else f"{policy} {mode}")
        ours = (policy, mode) == (connection.security, connection.mode) and endpoint.ServerCertificate
        if ours or (policy == "None" and not connection.secure):
            return endpoint
    wanted = f"{connection.security} {connection.mode}" if connection.secure else "None"
    words = f"the server at {place} does not offer {wanted}; it offers: {', '.join(sorted(offered)) or 'nothing'}"
    raise WayError(Trouble.SECURITY, words)


@contextlib.asynccontextmanager
async def connected(
    connection: Connection, machine: str, pki: Pki, wall: Callable[[], datetime]
) -> AsyncIterator[Link]:
    """A `Link`, until the block is left. Raises `WayError`."""
    uri = connection.application_uri or application_uri(machine)
    client = Client(connection.endpoint, timeout=REQUEST_S)
    client.application_uri, client.name, client.description = uri, "edge", f"edge {machine}"
    client.session_timeout = int(SESSION_S * 1000)
    client.secure_channel_timeout = int(CHANNEL_S * 1000)
    entered = False
    try:
        try:
            async with asyncio.timeout(CONNECT_S):
                namespaces, opened_s = await plainly(_enter(client, connection, machine, uri, pki, wall))
        except ConnectError:
            raise
        except FAILURES as error:
            found = on_connecting(error, connection.endpoint, machine, uri, secure=connection.secure)
            if found.trouble is Trouble.OTHER:
                await _endpoint(connection, machine, uri)  # says so if it is only that ours is not offered
            raise found from error
        entered = True
        yield Link(client, namespaces, opened_s)
    finally:
        await _close(client, politely=entered)


async def _enter(
    client: Client, connection: Connection, machine: str, uri: str, pki: Pki, wall: Callable[[], datetime]
) -> tuple[list[str], float]:
    """The steps of connecting; the server's namespaces, and when the channel was asked for, by the loop's clock."""
    if connection.secure:
        own = await asyncio.to_thread(pki.own, uri)
        await _trusting(client, connection, machine, own, pki, wall)
    user = await _user(client, connection)
    opened_s = asyncio.get_running_loop().time()
    await client.connect_sessionless()
    await client.create_session()
    await client.activate_session(*user, certificate=client.user_certificate)
    return list(await client.get_namespace_array() or ()), opened_s


async def _trusting(
    client: Client, connection: Connection, machine: str, own: OwnCertificate, pki: Pki, wall: Callable[[], datetime]
) -> None:
    server, server_uri = await server_certificate(connection, machine, own.uri)
    if not await asyncio.to_thread(pki.is_trusted, server):
        await asyncio.to_thread(pki.reject, server)
        words = (
            f"nobody here has trusted the certificate of the server at {connection.endpoint} yet "
            f"(fingerprint {server.fingerprint}): compare it with the machine's own panel, then "
            f"`edge machine trust {machine} --accept {server.fingerprint}`"
        )
        raise WayError(Trouble.UNTRUSTED_HERE, words)
    # A clock that is behind, as after a power cut, proves nothing; only 'too late' counts.
    if wall() > server.not_after:
        words = f"the certificate of the server at {connection.endpoint} has expired on {server.not_after:%Y-%m-%d}"
        raise WayError(Trouble.EXPIRED, words)
    if server_uri and server_uri not in server.uris:
        words = (
            f"the server at {connection.endpoint} calls itself {server_uri}, and its certificate is for "
            f"{', '.join(server.uris) or 'nobody'}"
        )
        raise WayError(Trouble.WRONG_URI, words)
    policy = getattr(security_policies, f"SecurityPolicy{connection.security}")
    mode = ua.MessageSecurityMode[connection.mode]
    theirs = uacrypto.CertProperties(server.der, extension="der")
    await client.set_security(policy, own.certificate, own.key, server_certificate=theirs, mode=mode)


async def _user(client: Client, connection: Connection) -> tuple[str | None, str | None]:
    if connection.user_certificate is not None and connection.user_key is not None:
        for path in (connection.user_certificate, connection.user_key):
            if not path.is_file():
                raise WayError(Trouble.USER_REFUSED, f"{path}: there is no such file")
        await client.load_client_certificate(str(connection.user_certificate))
        await client.load_private_key(connection.user_key)
    if connection.user is None or connection.password_file is None:
        return None, None
    return connection.user, await asyncio.to_thread(_first_line, connection.password_file)


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").split("\n", 1)[0]
    except (OSError, UnicodeDecodeError) as error:
        raise WayError(Trouble.USER_REFUSED, f"the password in {path} cannot be read: {error}") from error


async def _close(client: Client, *, politely: bool) -> None:
    """Give the session back. A frozen server reads that when it wakes up: it has few sessions."""
    lower = client.uaclient
    publishing = lower.session._publish_task
    if lower.protocol is not None and not lower.protocol.is_closed:
        with contextlib.suppress(*FAILURES):
            async with asyncio.timeout(CLOSE_S if politely else 0.2):
                await plainly(lower.close_session(True))
        with contextlib.suppress(*FAILURES):
            await client.close_secure_channel()
    client.disconnect_socket()
    if publishing is not None:
        publishing.cancel()
        await asyncio.wait([publishing], timeout=CLOSE_S)
