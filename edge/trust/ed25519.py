"""Ed25519 public keys that may be trusted: which 32 bytes are one, and what they are called.

Rules:

    1. A key's id is the SHA-256 of its 32 bytes, in lower-case hexadecimal. It is computed, never believed.
    2. A point of small order is no key: under the neutral element *any* message has a valid signature.
    3. The y coordinate is below 2^255 - 19, so that one point has one encoding and cannot pass for two keys.

Verification itself is `cryptography`'s (OpenSSL), which refuses S >= L as RFC 8032 section 5.1.7 asks.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19
_SIGN_BIT = 1 << 255

# The y coordinates of the eight points of edwards25519 whose order divides its cofactor, 8. The sign of x, the top bit
# of an encoding, tells the two points of one y apart; with it, and with y + p where that fits, there are 14 encodings.
# Source: the curve equation of RFC 8032 section 5.1 (a test derives them from it); libsodium refuses the same ones in
# crypto_core/ed25519/ref10/ed25519_ref10.c, ge25519_has_small_order.
_ORDER_8_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y = frozenset(
    {
        1,  # order 1, the neutral element
        _P - 1,  # order 2
        0,  # order 4, two points
        _ORDER_8_Y,  # order 8, two points
        _P - _ORDER_8_Y,  # order 8, two points
    }
)


def keyid_of(public: bytes) -> str:
    """The id of a public key."""
    return hashlib.sha256(public).hexdigest()


def weakness(public: bytes) -> str | None:
    """Why these bytes must not be trusted as a public key; None if they may."""
    if len(public) != PUBLIC_KEY_BYTES:
        return f"has {len(public)} bytes, must have {PUBLIC_KEY_BYTES}"
    y = int.from_bytes(public, "little") & ~_SIGN_BIT
    if y % _P in _SMALL_ORDER_Y:
        return "is a point of small order, under which signatures can be made without a private key"
    if y >= _P:
        return "is not the canonical encoding of its point"
    return None


def verifies(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` over `message` was made with the private key of `public`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True
