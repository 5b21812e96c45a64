"""DSSE envelopes: the specification's vector, and one reading for each envelope."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from edge.errors import EnvelopeError
from edge.trust.ed25519 import verifies, weakness
from edge.trust.envelope import MAX_SIGNATURES, Envelope, PayloadType, Signature, add_signature, pae, parse, sign
from edge.trust.keys import public_bytes
from tests.helpers.trust import keyid, private_key

SIG = base64.b64encode(bytes(64)).decode()


def document(**fields: object) -> dict:
    good = {"payloadType": "a/b", "payload": "e30=", "signatures": [{"keyid": "k", "sig": SIG}]}
    return good | fields


def raw(**fields: object) -> bytes:
    return json.dumps(document(**fields)).encode()


def test_pae_is_that_of_the_specification():
    # https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md#test-vectors
    assert (
        pae("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_the_envelope_of_the_specification_is_read_and_its_signature_is_over_our_pae():
    # The same section, with the key id of the reference implementation (implementation/signing_spec.py); its key is of
    # ECDSA over P-256, so that it is verified here and could be in no trust root.
    sig = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
    envelope = parse(
        json.dumps(
            {
                "payload": "aGVsbG8gd29ybGQ=",
                "payloadType": "http://example.com/HelloWorld",
                "signatures": [{"keyid": "66301bbf", "sig": sig}],
            }
        ).encode()
    )
    assert (envelope.payload_type, envelope.payload) == ("http://example.com/HelloWorld", b"hello world")
    (signature,) = envelope.signatures
    numbers = EllipticCurvePublicNumbers(
        46950820868899156662930047687818585632848591499744589407958293238635476079160,
        5640078356564379163099075877009565129882514886557779369047442380624545832820,
        SECP256R1(),
    )
    r, s = (int.from_bytes(half, "big") for half in (signature.sig[:32], signature.sig[32:]))
    key = numbers.public_key()
    key.verify(encode_dss_signature(r, s), envelope.signed_bytes, ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        key.verify(encode_dss_signature(r, s), envelope.signed_bytes + b" ", ECDSA(SHA256()))


def test_a_vector_without_key_id_is_more_than_we_accept():
    with pytest.raises(EnvelopeError, match="has no keyid"):
        parse(raw(signatures=[{"sig": SIG}]))


def test_pae_counts_bytes_not_characters():
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


# Secret key, public key, message, signature: TEST 1, 2 and 3 of RFC 8032, section 7.1.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_ed25519_vectors_of_rfc_8032_section_7_1(secret, public, message, signature):
    public, message, signature = (bytes.fromhex(text) for text in (public, message, signature))
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    assert public_bytes(key) == public
    assert key.sign(message) == signature
    assert verifies(public, signature, message)
    assert not verifies(public, signature, message + b"\x00")
    assert not verifies(public, signature[:32] + bytes(32), message)


def test_a_signature_with_s_not_below_l_is_refused():
    order_l = 2**252 + 27742317777372353535851937790883648493
    key = private_key("a")
    signature = key.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + order_l
    assert not verifies(public_bytes(key), signature[:32] + s.to_bytes(32, "little"), b"m")


def test_what_was_signed_comes_back():
    envelope = parse(sign(PayloadType.JOB, b"payload \xff", [private_key("a"), private_key("b")]))
    assert envelope.payload_type == PayloadType.JOB
    assert envelope.payload == b"payload \xff"
    assert [signature.keyid for signature in envelope.signatures] == [keyid("a"), keyid("b")]
    for name, signature in zip("ab", envelope.signatures, strict=True):
        assert verifies(public_bytes(private_key(name)), signature.sig, pae(PayloadType.JOB, b"payload \xff"))
    assert parse(envelope.to_bytes()) == envelope


def test_a_second_key_holder_adds_a_signature():
    once = sign(PayloadType.JOB, b"p", [private_key("a")])
    assert add_signature(parse(once), private_key("b")).to_bytes() == sign(
        PayloadType.JOB, b"p", [private_key("a"), private_key("b")]
    )


def test_signing_twice_with_one_key_leaves_one_signature():
    envelope = parse(sign(PayloadType.JOB, b"p", [private_key("a")]))
    assert add_signature(envelope, private_key("a")) == envelope


def test_an_envelope_full_of_signatures_takes_no_more():
    full = Envelope("a/b", b"", tuple(Signature(str(n), bytes(64)) for n in range(MAX_SIGNATURES)))
    with pytest.raises(EnvelopeError, match="at most 32"):
        add_signature(full, private_key("a"))


def test_an_unsigned_envelope_is_an_envelope():
    assert parse(raw(signatures=[])).signatures == ()


@pytest.mark.parametrize(
    ("hostile", "says"),
    [
        (b"", "not JSON"),
        (b"G28\n", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "has no payload"),
        (b"\xef\xbb\xbf" + raw(), "byte order mark"),
        (b'{"payload":"\xc0\xaf"}', "not UTF-8"),
        (b'{"payload":"","payload":""}', "'payload' stands twice"),
        (b'{"a":NaN}', "NaN is not a JSON number"),
        (b'{"a":-Infinity}', "must be finite"),
        (b'{"a":1e999}', "must be finite"),
        (b'{"a":' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 100_000, "nested deeper than 16"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "nested deeper than 16"),
        (b'{"a":"\\ud800"}', "half of a surrogate pair"),
        (b'{"a":"unfinished', "not JSON"),
        (raw() + b"x", "not JSON"),
        (raw(extra=1), "unknown field 'extra'"),
        (raw(payload=None), "payload is None"),
        (raw(payload="e30"), "standard base64"),
        (raw(payload="e3 0="), "standard base64"),
        (raw(payload="e31="), "does not re-encode"),
        (raw(payload="_-8="), "standard base64"),
        (raw(payload="é30="), "standard base64"),
        (raw(payloadType=1), "payloadType is 1"),
        (raw(payloadType="a\nb"), "printable"),
        (raw(payloadType="a" * 129), "printable"),
        (raw(signatures={}), "signatures is {}"),
        (raw(signatures=[{"keyid": "k", "sig": SIG}] * 33), "at most 32"),
        (raw(signatures=["x"]), r"signatures\[0\] is 'x'"),
        (raw(signatures=[{"sig": SIG}]), r"signatures\[0\] has no keyid"),
        (raw(signatures=[{"keyid": "k", "sig": SIG, "algorithm": "none"}]), "unknown field 'algorithm'"),
        (raw(signatures=[{"keyid": "k", "sig": base64.b64encode(bytes(63)).decode()}]), "63 bytes, must have 64"),
        (raw(signatures=[{"keyid": 7, "sig": SIG}]), r"signatures\[0\]\.keyid is 7"),
        (raw(payload="A" * 300_000), "at most 262144"),
    ],
)
def test_what_is_no_envelope_is_refused_in_words(hostile, says):
    with pytest.raises(EnvelopeError, match=says):
        parse(hostile)


def test_an_escaped_backslash_before_ud800_is_no_surrogate():
    assert parse(raw(payloadType="\\ud800")).payload_type == "\\ud800"


P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def _x_of(y: int) -> int | None:
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    for root in (pow(square, (P + 3) // 8, P), pow(square, (P + 3) // 8, P) * pow(2, (P - 1) // 4, P) % P):
        if root * root % P == square:
            return root
    return None


def _double(point: tuple[int, int]) -> tuple[int, int]:
    x, y = point
    k = D * x * x * y * y % P
    return 2 * x * y * pow(1 + k, -1, P) % P, (y * y + x * x) * pow(1 - k, -1, P) % P


# Every y of an order that divides 8, with both signs of x and with y + p where that has 255 bits.
_ORDER_8_Y = int("5fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826", 16)
SMALL_ORDER = [
    (y + add | sign_bit << 255).to_bytes(32, "little")
    for y in (0, 1, P - 1, _ORDER_8_Y, P - _ORDER_8_Y)
    for add in (0, P)
    if y + add < 2**255
    for sign_bit in (0, 1)
]


def test_the_small_order_keys_are_those_of_the_curve():
    assert len(SMALL_ORDER) == 14
    for encoding in SMALL_ORDER:
        y = int.from_bytes(encoding, "little") % 2**255 % P
        point = (_x_of(y), y)
        assert _double(_double(_double(point))) == (0, 1)


@pytest.mark.parametrize("public", SMALL_ORDER, ids=bytes.hex)
def test_a_small_order_key_is_refused(public):
    assert "small order" in weakness(public)


def test_the_neutral_element_would_verify_any_message():
    # Why the rule exists: no private key was used here.
    forged = (1).to_bytes(32, "little") + bytes(32)
    assert verifies((1).to_bytes(32, "little"), forged, b"any message")


def test_a_second_encoding_of_a_point_is_refused():
    assert "canonical" in weakness((P + 3).to_bytes(32, "little"))


def test_a_key_of_another_length_is_refused():
    assert weakness(bytes(31)) == "has 31 bytes, must have 32"


def test_an_ordinary_key_is_no_weak_one():
    assert weakness(public_bytes(private_key("a"))) is None
