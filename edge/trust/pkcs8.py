"""Private keys under a passphrase: PKCS#8 with PBES2 (RFC 8018), in PEM. `openssl pkey` reads it too.

    PBKDF2 with HMAC-SHA-256 and 600,000 rounds (as OWASP's password storage cheat sheet asks), AES-256 in CBC mode

`cryptography` reads any PBES2 file, but writes only 2,048 rounds, which a stolen file does not stand for long; so the
few bytes of ASN.1 are written here.
"""

from __future__ import annotations

import base64
import secrets
import textwrap

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

ROUNDS = 600_000
_SEQUENCE, _INTEGER, _OCTETS, _OID, _NULL = 0x30, 0x02, 0x04, 0x06, 0x05

# Object identifiers of RFC 8018, appendices A.2, A.4, B.1.2 and B.2.5, and their ASN.1 encoding.
_PBES2 = bytes.fromhex("2a864886f70d01050d")  # 1.2.840.113549.1.5.13
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")  # 1.2.840.113549.1.5.12
_HMAC_SHA256 = bytes.fromhex("2a864886f70d0209")  # 1.2.840.113549.2.9
_AES256_CBC = bytes.fromhex("60864801650304012a")  # 2.16.840.1.101.3.4.1.42


def encrypted_pem(key: Ed25519PrivateKey, passphrase: bytes) -> bytes:
    """The PEM file of `key` under `passphrase`."""
    salt, start = secrets.token_bytes(16), secrets.token_bytes(16)
    secret = PBKDF2HMAC(SHA256(), 32, salt, ROUNDS).derive(passphrase)
    padder = PKCS7(128).padder()
    plain = padder.update(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())) + padder.finalize()
    encryptor = Cipher(AES256(secret), CBC(start)).encryptor()
    rounds = ROUNDS.to_bytes(3, "big")  # its first bit is not set: no sign byte
    prf = _der(_SEQUENCE, _der(_OID, _HMAC_SHA256), _der(_NULL))
    derivation = _der(_SEQUENCE, _der(_OCTETS, salt), _der(_INTEGER, rounds), prf)
    scheme = _der(
        _SEQUENCE,
        _der(_SEQUENCE, _der(_OID, _PBKDF2), derivation),
        _der(_SEQUENCE, _der(_OID, _AES256_CBC), _der(_OCTETS, start)),
    )
    document = _der(
        _SEQUENCE,
        _der(_SEQUENCE, _der(_OID, _PBES2), scheme),
        _der(_OCTETS, encryptor.update(plain) + encryptor.finalize()),
    )
    lines = "\n".join(textwrap.wrap(base64.b64encode(document).decode(), 64))
    return f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{lines}\n-----END ENCRYPTED PRIVATE KEY-----\n".encode()


def _der(tag: int, *parts: bytes) -> bytes:
    """Tag, length and content; the length is below 256 in all that is written here."""
    content = b"".join(parts)
    length = bytes([len(content)]) if len(content) < 0x80 else bytes([0x81, len(content)])
    return bytes([tag]) + length + content
