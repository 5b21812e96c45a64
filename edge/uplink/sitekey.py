"""The site's own key: what it reports is signed with it. Made once, at the first start; it never leaves the site.

site.key   the private key, mode 0600
site.pub   the public key, for whoever keeps the list of sites at the centre
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.errors import KeyFileError
from edge.files import replace_file
from edge.trust.keys import PublicKey, load_private_key, public_bytes

PRIVATE_NAME = "site.key"
PUBLIC_NAME = "site.pub"


def open_key(directory: Path, name: str, private: str = PRIVATE_NAME, public: str = PUBLIC_NAME) -> Ed25519PrivateKey:
    """The key in `directory`, made if there is none; its public file says `name`.

    Raises:
        KeyFileError: it cannot be made, or others may read it.
    """
    path = directory / private
    try:
        if not path.exists():
            made = Ed25519PrivateKey.generate()
            replace_file(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
        key = load_private_key(path)
        content = PublicKey(name, public_bytes(key)).to_bytes()
        path = directory / public
        if not path.exists() or path.read_bytes() != content:
            replace_file(path, content)
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from error
    return key
