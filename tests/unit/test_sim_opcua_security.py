"""Who may connect to a simulated machine: certificates, a trust list with a person in it, users."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asyncua import Client
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua import MessageSecurityMode
from asyncua.ua.uaerrors import BadCertificateUntrusted, BadCertificateUriInvalid, BadUserAccessDenied
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from helpers.opcua_cnc import MACHINES, STATE
from helpers.opcua_sim import DEADLINE_S, OpcuaSim, opcua_sim, peer_of

URI = "urn:test:client"


def certificate(folder: Path, uri: str = URI) -> tuple[Path, Path]:
    """A client's certificate (DER) and key (PEM)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test client")])
    now = datetime.now(UTC)
    names = [x509.UniformResourceIdentifier(uri), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    own, private = folder / "client.der", folder / "client.pem"
    own.write_bytes(built.public_bytes(serialization.Encoding.DER))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return own, private


async def secured(sim: OpcuaSim, own: Path, private: Path, pki: Path, mode: MessageSecurityMode) -> Client:
    """Not yet connected."""
    client = Client(sim.endpoint, timeout=DEADLINE_S)
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


async def test_the_server_keeps_its_certificate(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    with opcua_sim("cnc", "--security", "encrypt", "--pki", str(pki)):
        first = (pki / "own.der").read_bytes()
    with opcua_sim("cnc", "--security", "encrypt", "--pki", str(pki)):
        assert (pki / "own.der").read_bytes() == first
    assert (pki / "own.pem").stat().st_mode & 0o077 == 0
