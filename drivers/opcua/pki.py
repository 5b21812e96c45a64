"""Certificates: our own, made on first use, and the servers that a person has trusted.

Below ``pki`` in the machine's state directory: ``own/certificate.der`` and ``own/key.pem``; ``trusted/`` and
``rejected/`` with one DER file for each server, named by its fingerprint. A server's certificate that nobody has looked
at lands in ``rejected`` and stays there until a person accepts it by its fingerprint. Nothing accepts all.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from drivers.opcua.disk import write
from edge.driver import ConnectError

VALID_FOR = datetime.timedelta(days=20 * 365)
"""A machine outlives its commissioning; a certificate that expires at night stops it. Renewing is a person's act."""

VALID_FROM = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
"""Our certificate may be made before the clock is right, and must not be 'not valid yet' for the server's clock."""


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """Ours: `certificate` (DER) and `key` (PEM) are files; `uri` is the application URI that both must name."""

    certificate: Path
    key: Path
    uri: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What is in a server's certificate, for people. `fingerprint`: SHA-1, as the panels of controllers show it."""

    der: bytes
    fingerprint: str
    sha256: str
    subject: str
    uris: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime


class Pki:
    """The certificates of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.trusted_dir = folder / "trusted"
        self.rejected_dir = folder / "rejected"

    def own(self, uri: str, *, renew: bool = False) -> OwnCertificate:
        """Ours, made if there is none for `uri`. Raises `ConnectError` if it cannot be written."""
        certificate, key = self._folder / "own" / "certificate.der", self._folder / "own" / "key.pem"
        try:
            if renew or not (certificate.exists() and key.exists()) or uri not in _read(certificate.read_bytes()).uris:
                _make(certificate, key, uri)
            return OwnCertificate(certificate, key, uri, _read(certificate.read_bytes()).fingerprint)
        except OSError as error:
            raise ConnectError(f"our certificate in {certificate.parent}: {error.strerror}") from error

    def is_trusted(self, server: ServerCertificate) -> bool:
        """Whether a person has accepted exactly this certificate."""
        with contextlib.suppress(OSError):
            return (self.trusted_dir / _file(server)).read_bytes() == server.der
        return False

    def reject(self, server: ServerCertificate) -> None:
        """Keep a certificate for a person to look at; at most a few, so that nobody fills the disk."""
        self.rejected_dir.mkdir(parents=True, exist_ok=True)
        older = sorted(self.rejected_dir.glob("*.der"), key=lambda path: path.stat().st_mtime)
        for path in older[: max(0, len(older) - REJECTED_MAX + 1)]:
            path.unlink(missing_ok=True)
        write(self.rejected_dir / _file(server), server.der)

    def accept(self, server: ServerCertificate) -> None:
        """A person has looked at it. It takes the place of what was trusted before: a machine has one certificate."""
        self.trusted_dir.mkdir(parents=True, exist_ok=True)
        write(self.trusted_dir / _file(server), server.der)
        for path in self.trusted_dir.glob("*.der"):
            if path.name != _file(server):
                path.unlink(missing_ok=True)
        (self.rejected_dir / _file(server)).unlink(missing_ok=True)

    def trusted(self) -> list[ServerCertificate]:
        """The accepted ones. Files that are no certificates are left out."""
        return [read for path in sorted(self.trusted_dir.glob("*.der")) if (read := _of_file(path)) is not None]


REJECTED_MAX = 10


def read_server(der: bytes) -> ServerCertificate:
    """The leading certificate of what the server sent, which may be a chain. Raises `ConnectError`."""
    try:
        return _read(der)
    except ValueError as error:
        raise ConnectError(f"the server's certificate cannot be read: {error}") from error


def application_uri(machine: str) -> str:
    """Who we are for the server of `machine`, unless the configuration says otherwise."""
    return f"urn:{socket.gethostname()}:microfactory-edge:{machine}"


def _of_file(path: Path) -> ServerCertificate | None:
    try:
        return _read(path.read_bytes())
    except (OSError, ValueError):
        return None


def _read(der: bytes) -> ServerCertificate:
    # A chain follows its leaf; the outer SEQUENCE says how long the leaf is (X.690, 8.1.3: two bytes of length).
    der = der[: int.from_bytes(der[2:4], "big") + 4]
    found = x509.load_der_x509_certificate(der)
    uris: tuple[str, ...] = ()
    with contextlib.suppress(x509.ExtensionNotFound):
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    return ServerCertificate(
        der,
        _grouped(hashlib.sha1(der, usedforsecurity=False).hexdigest()),
        hashlib.sha256(der).hexdigest(),
        found.subject.rfc4514_string(),
        uris,
        found.not_valid_before_utc,
        found.not_valid_after_utc,
    )


def _grouped(digits: str) -> str:
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2)).upper()


def _file(server: ServerCertificate) -> str:
    return f"{server.sha256}.der"


def _make(certificate: Path, key: Path, uri: str) -> None:
    """A self-signed application certificate as OPC 10000-6, 6.2.2 asks for: URI, host name, signing, encrypting."""
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    host = socket.gethostname()
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "edge"), x509.NameAttribute(NameOID.DOMAIN_COMPONENT, host)]
    )
    usage = x509.KeyUsage(True, True, True, True, False, True, False, False, False)
    alternative: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), _host(host)]
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(made.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(max(datetime.datetime.now(datetime.UTC), VALID_FROM) + VALID_FOR)
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(made.public_key()), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .sign(made, hashes.SHA256())
    )
    certificate.parent.mkdir(parents=True, exist_ok=True)
    write(
        key,
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        0o600,
    )
    write(certificate, built.public_bytes(serialization.Encoding.DER))


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
