"""Key files.

    NAME.key    the private key: PEM, PKCS#8, mode 0600. Under a passphrase, or refused when others may use the file
    NAME.pub    JSON {"name", "algorithm": "ed25519", "public", "keyid"}; goes into a trust root

A private key leaves this module only as an object that signs; its bytes stand in no message and no output.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from edge.errors import FormatError, KeyFileError
from edge.files import sync_directory, write_new
from edge.model.fields import KeyName, Sha256, StrictModel, problem_of
from edge.model.strictjson import load_object
from edge.trust.ed25519 import keyid_of, weakness
from edge.trust.pkcs8 import encrypted_pem
from edge.trust.root import RootKey

PRIVATE_SUFFIX = ".key"
PUBLIC_SUFFIX = ".pub"
SHORTEST_PASSPHRASE = 8
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_MAX_KEY_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key and whose it is. `public` is 32 bytes."""

    name: str
    public: bytes

    @property
    def keyid(self) -> str:
        """The SHA-256 of the public bytes, in hexadecimal."""
        return keyid_of(self.public)

    def to_bytes(self) -> bytes:
        """The content of a `.pub` file."""
        document = {"name": self.name, "algorithm": "ed25519", "public": self.public.hex(), "keyid": self.keyid}
        return json.dumps(document, indent=1).encode() + b"\n"


class _PublicKeyFile(StrictModel):
    """The shape of a `.pub` file: what a root says of a key, and its id."""

    name: KeyName
    algorithm: str
    public: str
    keyid: Sha256


def public_bytes(private_key: Ed25519PrivateKey) -> bytes:
    """The 32 public bytes that belong to a private key."""
    return private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def create_key(name: str, directory: Path, passphrase: bytes | None = None) -> tuple[Path, PublicKey]:
    """Make a key pair as `NAME.key` and `NAME.pub` in `directory`; the private file and the public key.

    Raises:
        KeyFileError: one of the files is there already, or cannot be written; or the passphrase is too short.
    """
    if passphrase is not None and len(passphrase) < SHORTEST_PASSPHRASE:
        raise KeyFileError(f"the passphrase has {len(passphrase)} bytes, must have {SHORTEST_PASSPHRASE} or more")
    private = Ed25519PrivateKey.generate()
    try:
        public = PublicKey(RootKey(name=name, public=public_bytes(private).hex()).name, public_bytes(private))
    except ValidationError as error:
        raise KeyFileError(problem_of(error, "the key")) from error
    path = directory / f"{name}{PRIVATE_SUFFIX}"
    public_path = directory / f"{name}{PUBLIC_SUFFIX}"
    for file in (path, public_path):
        if file.exists():
            raise KeyFileError(f"{file} is there already and is not overwritten; choose another name or directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if passphrase is None:
            pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        else:
            pem = encrypted_pem(private, passphrase)
        write_new(path, pem, mode=0o600)
        write_new(public_path, public.to_bytes(), mode=0o644)
        sync_directory(directory)
    except OSError as error:
        raise KeyFileError(f"cannot write {error.filename or path}: {error.strerror}") from error
    return path, public


def load_private_key(path: Path, passphrase: Callable[[], bytes] | None = None) -> Ed25519PrivateKey:
    """The private key in `path`; `passphrase` is asked only if the file is under one.

    Raises:
        KeyFileError: it is not there, is under a passphrase that was not given, is under none and others may use it,
            or it holds no Ed25519 key.
    """
    try:
        with path.open("rb") as file:
            # Asked of the open file, so that nobody can put another one in its place in between.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            pem = file.read(_MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise KeyFileError(f"cannot read private key {path}: {error.strerror}") from error
    if path.suffix == PUBLIC_SUFFIX:
        raise KeyFileError(f"{path} is a public key; its private one is {path.with_suffix(PRIVATE_SUFFIX).name}")
    secret = None
    if _ENCRYPTED in pem:
        if passphrase is None:
            raise KeyFileError(f"{path} is under a passphrase, and none was given")
        secret = passphrase()
    elif mode & 0o077:
        raise KeyFileError(f"{path} may be used by others (mode {mode:04o}); run: chmod 600 {path}")
    try:
        key = load_pem_private_key(pem, password=secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # What the library says of a wrong passphrase differs between its versions, and it must not repeat any of it.
        problem = "holds no private key in PEM (PKCS#8)" if secret is None else "is not opened by this passphrase"
        raise KeyFileError(f"{path} {problem}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds a key of another algorithm, must be Ed25519")
    return key


def read_passphrase(path: Path) -> bytes:
    """The first line of the file `path`, without its end.

    Raises:
        KeyFileError: it is not there, others may read it, or the line is empty.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyFileError(f"{path} may be used by others (mode {mode:04o}); run: chmod 600 {path}")
            secret = file.readline(_MAX_KEY_FILE_BYTES).rstrip(b"\r\n")
    except OSError as error:
        raise KeyFileError(f"cannot read the passphrase in {path}: {error.strerror}") from error
    if not secret:
        raise KeyFileError(f"{path} has no passphrase in its first line")
    return secret


def load_public_key(path: Path) -> PublicKey:
    """The public key in `path`.

    Raises:
        KeyFileError: it is not there, or must not be trusted.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read public key {path}: {error.strerror}") from error
    try:
        document = _PublicKeyFile.model_validate(load_object(raw, what="the key", max_bytes=_MAX_KEY_FILE_BYTES))
        key = RootKey.model_validate(document.model_dump(exclude={"keyid"}))
    except FormatError as error:
        raise KeyFileError(f"{path}: {error}") from error
    except ValidationError as error:
        raise KeyFileError(f"{path}: {problem_of(error, 'the key')}") from error
    weak = weakness(key.public_bytes)
    if weak:
        raise KeyFileError(f"{path}: the public key {weak}")
    if document.keyid != key.keyid:
        raise KeyFileError(f"{path}: keyid is {document.keyid}, must be {key.keyid}")
    return PublicKey(key.name, key.public_bytes)
