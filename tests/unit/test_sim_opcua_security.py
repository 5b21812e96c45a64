"""Who may connect to a simulated machine: certificates, a trust list with a person in it, users."""

from __future__ import annotations

from pathlib import Path

import pytest
from asyncua import Client
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua import MessageSecurityMode
from asyncua.ua.uaerrors import (
    BadCertificateUntrusted,
    BadCertificateUriInvalid,
    BadIdentityTokenInvalid,
    BadUserAccessDenied,
)
from helpers.opcua_certificates import URI, certificate
from helpers.opcua_cnc import MACHINES, STATE
from helpers.opcua_sim import OpcuaSim, opcua_sim, peer_of, plain_client


async def secured(sim: OpcuaSim, own: Path, private: Path, pki: Path, mode: MessageSecurityMode) -> Client:
    """Not yet connected."""
    client = plain_client(sim.endpoint)
    client.application_uri = URI
    await client.set_security(SecurityPolicyBasic256Sha256, own, private, None, pki / "own.der", mode)
    return client


@pytest.mark.parametrize("mode", [MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt])
async def test_a_client_comes_in_when_a_person_has_trusted_it(tmp_path: Path, mode: MessageSecurityMode) -> None:
    own, private = certificate(tmp_path)
    pki = tmp_path / "pki"
    with opcua_sim("cnc", "--security", "sign,encrypt", "--pki", str(pki), "--user", "edge=secret") as sim:
        client = await secured(sim, own, private, pki, mode)
        client.set_user("edge")
        client.set_password("secret")
        with pytest.raises(BadCertificateUntrusted):
            await client.connect()
        (rejected,) = (pki / "rejected").iterdir()
        assert rejected.read_bytes() == own.read_bytes()
        rejected.rename(pki / "trusted" / rejected.name)
        client = await secured(sim, own, private, pki, mode)
        client.set_user("edge")
        client.set_password("secret")
        async with client:
            assert (await (await peer_of(client, *MACHINES)).value(STATE)).Text == "Initializing"
        client = await secured(sim, own, private, pki, mode)
        with pytest.raises(BadUserAccessDenied):
            await client.connect()


async def test_a_certificate_for_another_application_is_refused(tmp_path: Path) -> None:
    own, private = certificate(tmp_path, "urn:test:other")
    pki = tmp_path / "pki"
    with opcua_sim("robot", "--security", "encrypt", "--pki", str(pki)) as sim:
        (pki / "trusted" / "client.der").write_bytes(own.read_bytes())
        client = await secured(sim, own, private, pki, MessageSecurityMode.SignAndEncrypt)
        with pytest.raises(BadCertificateUriInvalid):
            await client.connect()


async def test_a_user_comes_in_with_a_certificate_that_is_on_the_list_and_no_other(tmp_path: Path) -> None:
    users = {}
    for name in ("ada", "eve"):
        (tmp_path / name).mkdir()
        users[name] = certificate(tmp_path / name)
    own, private = certificate(tmp_path)
    pki = tmp_path / "pki"
    mode = MessageSecurityMode.SignAndEncrypt
    with opcua_sim(
        "cnc", "--security", "encrypt", "--pki", str(pki), "--user-certificate", str(users["ada"][0])
    ) as sim:
        (pki / "trusted" / "client.der").write_bytes(own.read_bytes())

        async def come(user: tuple[Path, Path] | None) -> None:
            client = await secured(sim, own, private, pki, mode)
            if user is not None:
                await client.load_client_certificate(str(user[0]))
                await client.load_private_key(user[1])
            async with client:
                assert (await (await peer_of(client, *MACHINES)).value(STATE)).Text == "Initializing"

        await come(users["ada"])
        for other in (users["eve"], (own, private), None):
            with pytest.raises(BadUserAccessDenied):
                await come(other)
        with pytest.raises(BadIdentityTokenInvalid):
            await come((users["ada"][0], users["eve"][1]))  # who only has the certificate is nobody


async def test_the_server_keeps_its_certificate(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    with opcua_sim("cnc", "--security", "encrypt", "--pki", str(pki)):
        first = (pki / "own.der").read_bytes()
    with opcua_sim("cnc", "--security", "encrypt", "--pki", str(pki)):
        assert (pki / "own.der").read_bytes() == first
    assert (pki / "own.pem").stat().st_mode & 0o077 == 0
