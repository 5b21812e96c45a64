"""The ceremony of trust between a driver and an OPC UA server, as a person goes through it once, at both ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def password_in(folder: Path, password: str) -> Path:
    """The file `password` in `folder`, for nobody else to read."""
    path = folder / "password"
    path.write_text(f"{password}\n")
    path.chmod(0o600)
    return path


def way_in(folder: Path, user: str, password: str) -> dict[str, Any]:
    """What ``connection`` says of a server that wants both; the password is a file in `folder`."""
    folder.mkdir(exist_ok=True)
    return {"security": "Basic256Sha256", "user": user, "password_file": password_in(folder, password)}


def trusting(plugin: Any, machine: Any, state_dir: Path, trust_us: Callable[[], None]) -> None:
    """What `machine` shows is accepted here, and `trust_us` does the same at the machine."""
    seen = plugin.trust(machine, state_dir, None)
    assert not seen.settled
    assert seen.server_fingerprint
    assert not plugin.trust(machine, state_dir, seen.server_fingerprint).settled, "nobody has trusted us over there"
    trust_us()
    assert plugin.trust(machine, state_dir, None).settled
