"""Key files: made once, private to their owner, and never believed about themselves."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from edge.errors import KeyFileError
from edge.trust.keys import create_key, load_private_key, load_public_key, public_bytes, read_passphrase
from tests.helpers.trust import private_key


@pytest.fixture
def pair(tmp_path):
    return create_key("orders@acme", tmp_path)


def test_a_key_pair_is_two_files(tmp_path, pair):
    path, public = pair
    assert path == tmp_path / "orders@acme.key"
    assert load_public_key(tmp_path / "orders@acme.pub") == public
    assert public_bytes(load_private_key(path)) == public.public
    assert json.loads((tmp_path / "orders@acme.pub").read_text()) == {
        "name": "orders@acme",
        "algorithm": "ed25519",
        "public": public.public.hex(),
        "keyid": public.keyid,
    }


def test_a_public_key_in_the_place_of_a_private_one_is_named_as_such(tmp_path, pair):
    with pytest.raises(KeyFileError, match=r"orders@acme.pub is a public key; its private one is orders@acme.key"):
        load_private_key(tmp_path / "orders@acme.pub")


def test_a_private_key_is_its_owners_even_under_a_lax_umask(tmp_path):
    before = os.umask(0)
    try:
        path, _ = create_key("a", tmp_path / "new" / "directory")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("file", ["orders@acme.key", "orders@acme.pub"])
def test_no_key_file_is_overwritten(tmp_path, pair, file):
    (tmp_path / ("orders@acme.pub" if file.endswith("key") else "orders@acme.key")).unlink()
    before = (tmp_path / file).read_bytes()
    with pytest.raises(KeyFileError, match="is not overwritten"):
        create_key("orders@acme", tmp_path)
    assert (tmp_path / file).read_bytes() == before


@pytest.mark.parametrize("name", ["", "a/b", "../a", "-rf", "a" * 65])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(KeyFileError, match="name is"):
        create_key(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="cannot write"):
        create_key("a", tmp_path / "file")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_private_key_that_others_may_use_is_refused(pair, mode):
    path, _ = pair
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        load_private_key(path)


def test_a_private_key_that_is_not_there_is_named(tmp_path):
    with pytest.raises(KeyFileError, match=r"cannot read private key .*nix\.key: No such file"):
        load_private_key(tmp_path / "nix.key")


def pem(key, encryption) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no private key in PEM"),
        (b"\x00" * 5000, "no private key in PEM"),
        (pem(private_key("a"), BestAvailableEncryption(b"secret")), "is under a passphrase, and none was given"),
        (pem(generate_private_key(65537, 2048), NoEncryption()), "another algorithm"),
    ],
)
def test_a_file_without_a_usable_private_key_is_refused(tmp_path, content, says):
    path = tmp_path / "a.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=says):
        load_private_key(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"keyid": "0" * 64}, "keyid is 0000.*, must be"),
        ({"public": "01" + "00" * 31}, "small order"),
        ({"public": "01"}, "public is '01', must be 64"),
        ({"algorithm": "rsa"}, "algorithm is 'rsa'"),
        ({"comment": "x"}, "unknown field"),
    ],
)
def test_a_public_key_file_that_lies_is_refused(tmp_path, pair, change, says):
    path = tmp_path / "orders@acme.pub"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(KeyFileError, match=says):
        load_public_key(path)


@pytest.mark.parametrize(
    ("content", "says"), [(b"{", "not JSON"), (b" " * 5000, "at most 4096"), (None, "No such file")]
)
def test_a_public_key_that_cannot_be_read_is_named(tmp_path, content, says):
    path = tmp_path / "a.pub"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeyFileError, match=says):
        load_public_key(path)


# Under a passphrase

PASSPHRASE = b"correct horse battery staple"


def test_a_key_under_a_passphrase_opens_with_it_and_with_nothing_else(tmp_path):
    path, public = create_key("a", tmp_path, PASSPHRASE)
    content = path.read_bytes()
    assert content.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert public_bytes(load_private_key(path, lambda: PASSPHRASE)) == public.public
    with pytest.raises(KeyFileError, match="is not opened by this passphrase") as refused:
        load_private_key(path, lambda: b"incorrect horse")
    assert "horse" not in str(refused.value)
    with pytest.raises(KeyFileError, match="none was given"):
        load_private_key(path)


def test_a_key_under_a_passphrase_costs_a_thief_many_rounds(tmp_path):
    content = create_key("a", tmp_path, PASSPHRASE)[0].read_bytes()
    document = base64.b64decode(b"".join(content.splitlines()[1:-1]))
    assert b"\x02\x03" + (600_000).to_bytes(3, "big") in document
    assert create_key("b", tmp_path, PASSPHRASE)[0].read_bytes() != content


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_reads_a_key_under_a_passphrase(tmp_path):
    path, public = create_key("a", tmp_path, PASSPHRASE)
    words = [
        "openssl",
        "pkey",
        "-in",
        str(path),
        "-passin",
        f"pass:{PASSPHRASE.decode()}",
        "-pubout",
        "-outform",
        "DER",
    ]
    done = subprocess.run(words, capture_output=True, check=True, timeout=60)
    assert done.stdout.endswith(public.public)


def test_a_key_that_another_tool_put_under_a_passphrase_is_read(tmp_path):
    path = tmp_path / "a.key"
    path.write_bytes(pem(private_key("a"), BestAvailableEncryption(b"secret")))
    assert public_bytes(load_private_key(path, lambda: b"secret")) == public_bytes(private_key("a"))


def test_only_a_key_without_passphrase_must_be_its_owners(tmp_path):
    path, public = create_key("a", tmp_path, PASSPHRASE)
    path.chmod(0o644)
    assert public_bytes(load_private_key(path, lambda: PASSPHRASE)) == public.public


def test_a_passphrase_is_asked_only_where_one_is_needed(pair):
    def never() -> bytes:
        raise AssertionError

    assert public_bytes(load_private_key(pair[0], never)) == pair[1].public


def test_a_short_passphrase_makes_no_key(tmp_path):
    with pytest.raises(KeyFileError, match="has 5 bytes, must have 8 or more"):
        create_key("a", tmp_path, b"short")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [(b"secret one\n", 0o640, "may be used by others"), (b"\nsecret", 0o600, "no passphrase in its first line")],
)
def test_a_passphrase_file_that_is_no_good_is_named(tmp_path, content, mode, says):
    path = tmp_path / "pass"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"{path}.*{says}"):
        read_passphrase(path)
    with pytest.raises(KeyFileError, match="No such file"):
        read_passphrase(tmp_path / "nix")


def test_a_passphrase_is_the_first_line_of_its_file(tmp_path):
    path = tmp_path / "pass"
    path.write_bytes(b" two words \r\nmore\n")
    path.chmod(0o600)
    assert read_passphrase(path) == b" two words "
