"""docs/trust.md says what bytes are: its vectors are made again and judged."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.model.command import Command
from edge.model.site import RemoteTable
from edge.trust import (
    PayloadType,
    admit,
    admit_command,
    check_files,
    keyid_of,
    load_root,
    pae,
    public_bytes,
    read_envelope,
    sign,
    verify_order,
    vouched,
)
from tests.helpers.trust import Ceremony, private_key, root_document, signed_root

PAGE = (Path(__file__).parents[2] / "docs" / "trust.md").read_text()
KEYS = {
    name: Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    for name, secret in re.findall(r"^\| ([\w@-]+) \| `([0-9a-f]{64})` \| `[0-9a-f]{64}` \|$", PAGE, re.MULTILINE)
}
VECTOR = re.compile(
    r"<!-- vector: (\w+) -->\n```text\n(.*?)\n```\n\nsignature  `([0-9a-f]{128})`\nenvelope  `([0-9a-f]{64})`"
)
SIGNERS = {
    "root": ("root-1", PayloadType.ROOT),
    "order": ("orders@acme", PayloadType.JOB),
    "command": ("ops@acme", PayloadType.COMMAND),
}
NOON = vouched(datetime(2026, 11, 21, 12, 0, tzinfo=UTC))


def envelopes() -> dict[str, bytes]:
    found = {}
    for name, payload, signature, digest in VECTOR.findall(PAGE):
        signer, kind = SIGNERS[name]
        raw = sign(kind, payload.encode(), [KEYS[signer]])
        assert KEYS[signer].sign(pae(kind, payload.encode())).hex() == signature
        assert hashlib.sha256(raw).hexdigest() == digest
        found[name] = raw
    return found


def test_every_vector_of_the_page_is_what_is_signed_and_judged():
    assert len(KEYS) == 3
    for name, key in KEYS.items():
        assert f"| {name} | `{key.private_bytes_raw().hex()}` | `{keyid_of(public_bytes(key))}` |" in PAGE
    made = envelopes()
    assert made.keys() == SIGNERS.keys()
    root = load_root(made["root"])
    site = Ceremony()
    assert admit(made["order"], site.snapshot(root=root), NOON).signers == ("orders@acme",)
    assert admit(made["order"], site.snapshot(root=root), NOON).accepted
    assert admit_command(made["command"], site.command_snapshot(root=root), NOON).accepted


def test_the_page_names_every_payload_type_field_and_switch():
    for kind in set(PayloadType) - {PayloadType.BATCH, PayloadType.STATE, PayloadType.TELEMETRY}:
        assert f"| `{kind.removeprefix('application/vnd.mf-edge.').removesuffix('.v1+json')}` |" in PAGE
    for field in Command.model_fields:
        assert f"`{field}`" in PAGE
    for field, info in RemoteTable.model_fields.items():
        assert f"{field} = {str(info.default).lower()}" in PAGE


def test_an_mes_signs_as_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = tmp_path / "orders@acme.key"
    key.write_bytes(private_key("orders@acme").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    (tmp_path / "bracket.gcode").write_text("G28\n")
    (source,) = re.findall(r"<!-- mes example -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    done: dict[str, Any] = {}
    exec(compile(source, "docs/trust.md", "exec"), done)
    verdict = verify_order(done["envelope"], load_root(signed_root(root_document())))
    assert (verdict.accepted, verdict.signers) == (True, ("orders@acme",)), verdict.detail
    assert read_envelope(tmp_path / "bracket.mfjob") == done["envelope"]
    assert check_files(tmp_path / "bracket.mfjob", done["order"]) == {"bracket.gcode": None}
