"""Who may connect: the server's own certificate, a folder of trusted ones, users with passwords or certificates.

Folder layout (`--pki DIR`): `own.der` and `own.pem` (made on first use), `trusted/*.der`, and `rejected/` where the
certificate of a client that was refused is left for a person to look at and move.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hil_sim.opcua.library import ua

POLICIES = {
    "none": ua.SecurityPolicyType.NoSecurity,
    "sign": ua.SecurityPolicyType.Basic256Sha256_Sign,
    "encrypt": ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
}
VALID_FOR = timedelta(days=3650)


user_token: ContextVar[bytes | None] = ContextVar("user_token", default=None)
"""The certificate (DER) that a session is being activated with as its user, whose signature fits; None for others.

The library hands a user manager one certificate, which is the client application's where the user has none.
"""


class Users(UserManager):
    """Names with passwords, and certificates. Somebody without either may come in if there are none, or if allowed."""

    def __init__(self, passwords: dict[str, str], certificates: Collection[bytes] = (), *, anonymous: bool) -> None:
        self._passwords = passwords
        self._certificates = certificates
        self._anonymous = anonymous or not (passwords or certificates)

    def get_user(
        self, iserver: Any, username: str | None = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        if (token := user_token.get()) is not None:
            return User(role=UserRole.User, name="certificate") if token in self._certificates else None
        if username is None:
            return User(role=UserRole.User) if self._anonymous else None
        expected = self._passwords.get(username)
        said = password.decode() if isinstance(password, bytes) else password or ""
        if expected is None or not hmac.compare_digest(expected.encode(), said.encode()):
            return None
        return User(role=UserRole.User, name=username)


def user_certificate(path: Path) -> bytes:
    """A user's certificate as DER, of a file in DER or PEM. Raises `OSError`, and `ValueError` for what is none."""
    raw = path.read_bytes()
    found = x509.load_pem_x509_certificate(raw) if raw.startswith(b"-----") else x509.load_der_x509_certificate(raw)
    return found.public_bytes(serialization.Encoding.DER)


class TrustedFolder:
    """Lets in clients whose certificate lies in `trusted/`; looked at anew for each session."""

    def __init__(self, folder: Path) -> None:
        self._trusted = folder / "trusted"
        self._rejected = folder / "rejected"
        for each in (self._trusted, self._rejected):
            each.mkdir(parents=True, exist_ok=True)

    async def __call__(self, certificate: x509.Certificate, application: Any) -> None:
        """Raises `ServiceError` for a client that may not come in."""
        der = certificate.public_bytes(serialization.Encoding.DER)
        if not any(path.read_bytes() == der for path in sorted(self._trusted.glob("*.der"))):
            name = certificate.fingerprint(hashes.SHA256()).hex()[:16]
            (self._rejected / f"{name}.der").write_bytes(der)
            raise ServiceError(ua.StatusCodes.BadCertificateUntrusted)
        now = datetime.now(UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ServiceError(ua.StatusCodes.BadCertificateTimeInvalid)
        if application.ApplicationUri not in _uris(certificate):
            raise ServiceError(ua.StatusCodes.BadCertificateUriInvalid)


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return list(names.value.get_values_for_type(x509.UniformResourceIdentifier))


def own_certificate(folder: Path, application_uri: str) -> tuple[Path, Path]:
    """Certificate (DER) and private key (PEM) of the server in `folder`, made if they are not there."""
    certificate_path, key_path = folder / "own.der", folder / "own.pem"
    if certificate_path.exists() and key_path.exists():
        return certificate_path, key_path
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hil-sim")])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    alternative = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier(application_uri),
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + VALID_FOR)
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_path.touch(0o600)
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    return certificate_path, key_path
