"""`edge machine trust`: both sides' certificates, and what each thinks of the other's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from drivers.opcua.config import OpcUaMachine
from drivers.opcua.connect import connected, server_certificate
from drivers.opcua.pki import OwnCertificate, Pki, ServerCertificate, application_uri
from drivers.opcua.words import Trouble, WayError
from edge.driver import ConnectError, Trust


def trust(machine: OpcUaMachine, state_dir: Path, accept: str | None, *, renew: bool) -> Trust:
    """Ask the server for its certificate; with `accept`, its fingerprint, trust it. Raises `ConnectError`."""
    if not machine.connection.secure:
        raise ConnectError('connection.security is "None": no certificates are used, and anybody may listen and steer')
    pki = Pki(state_dir / "pki")
    own = pki.own(machine.connection.application_uri or application_uri(machine.id), renew=renew)
    return asyncio.run(_ask(machine, pki, own, accept))


async def _ask(machine: OpcUaMachine, pki: Pki, own: OwnCertificate, accept: str | None) -> Trust:
    server, server_uri = await server_certificate(machine.connection, machine.id, own.uri)
    if accept is not None:
        if _bare(accept) not in (_bare(server.fingerprint), server.sha256):
            raise ConnectError(
                f"the server shows another certificate than {accept}: {server.fingerprint}; look at the machine's own "
                "panel, and accept what stands there"
            )
        pki.accept(server)
    trusted = pki.is_trusted(server)
    if not trusted:
        pki.reject(server)
    here = "trusted" if trusted else f"not trusted; `edge machine trust {machine.id} --accept {server.fingerprint}`"
    there = await _there(machine, pki) if trusted else "not asked yet: first this side has to trust the server"
    return Trust(
        server=_facts(server, server_uri),
        server_fingerprint=server.fingerprint,
        here=here,
        ours=f"{own.uri}, in {own.certificate}",
        our_fingerprint=own.fingerprint,
        there=there,
        settled=trusted and there == "trusted",
    )


async def _there(machine: OpcUaMachine, pki: Pki) -> str:
    try:
        async with connected(machine.connection, machine.id, pki, lambda: datetime.now(UTC)):
            return "trusted"
    except WayError as error:
        if error.trouble in (Trouble.USER_REFUSED, Trouble.NO_FREE_SESSION):
            return "trusted" if error.trouble is Trouble.NO_FREE_SESSION else f"trusted, but {error}"
        return str(error)


def _facts(server: ServerCertificate, uri: str) -> str:
    return f"{uri or ', '.join(server.uris)} ({server.subject}), valid until {server.not_after:%Y-%m-%d}"


def _bare(fingerprint: str) -> str:
    return fingerprint.replace(":", "").replace(" ", "").lower()
