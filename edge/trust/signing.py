"""Signing job orders: what an MES, or a person with an order file, does.

With everything at hand, `sign_order(order, keys)` is all there is to it. `order_from_file` makes the order from a small
TOML file:

    product = "bracket-v3"
    site = "berlin-1"
    issuer = "orders@acme"            # optional: the name of the first key
    reference = "PO-1234/7"           # optional, as are quantity, priority, due_at, not_before, root_version_min
    expires_at = 2026-11-28T10:00:00Z # optional: seven days from now

    [[steps]]
    id = "print"
    process = "fdm"
    program = "tiny.gcode"            # a file, relative to this one
    requires = {material = "PLA", nozzle_mm = 0.4}

    [sources]                         # optional: where a site may fetch a program from
    "tiny.gcode" = ["https://files.acme/tiny.gcode"]

It fills in hashes and sizes. Sequence numbers come from a state file beside the private key, `<key>.series.json`; a
number is durably used up before it is signed. Lose that file, and the next order begins a new series; restore an old
one, and sites refuse the repeated numbers as `replayed`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePath
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from edge.errors import ConfigError, FormatError, KeyFileError
from edge.files import replace_file
from edge.model.command import Command, command_bytes
from edge.model.fields import StrictModel, problem_of
from edge.model.order import MAX_SEQUENCE, JobOrder, order_bytes
from edge.trust.envelope import MAX_ENVELOPE_BYTES, PayloadType, sign

DEFAULT_VALIDITY = timedelta(days=7)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MAX_STATE_BYTES = 4096
_MAX_ORDER_FILE_BYTES = 1024 * 1024
_MEDIA_TYPES = {".gcode": "text/x.gcode", ".gco": "text/x.gcode", ".g": "text/x.gcode", ".nc": "text/x.nc"}

# What stands in an order but not in an order file, because it is found out or counted.
_FILLED_IN = frozenset({"job_id", "issued_at", "series", "sequence", "artifacts"})


def new_job_id(at: datetime, randomness: bytes | None = None) -> str:
    """A ULID: 48 bits of milliseconds, 80 bits of `randomness` (10 bytes; fresh ones if None)."""
    chance = secrets.token_bytes(10) if randomness is None else randomness
    number = int(at.timestamp() * 1000) << 80 | int.from_bytes(chance, "big")
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def sign_order(order: JobOrder, keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """The envelope of `order`, signed by each of `keys`.

    Raises:
        FormatError: it is larger than any site takes.
    """
    raw = sign(PayloadType.JOB, order_bytes(order), keys)
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise FormatError(f"the signed order has {len(raw)} bytes, at most {MAX_ENVELOPE_BYTES} are allowed")
    return raw


def sign_command(command: Command, keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """The envelope of `command`, signed by each of `keys`."""
    return sign(PayloadType.COMMAND, command_bytes(command), keys)


class _SeriesState(StrictModel):
    series: str
    next: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]


def take_sequence(key_path: Path) -> tuple[str, int]:
    """The series of the private key `key_path` and a number of it that nobody else gets.

    Raises:
        KeyFileError: the state beside the key cannot be read or written.
    """
    state_path = key_path.with_name(f"{key_path.name}.series.json")
    try:
        # Held on the key, since the state file itself is replaced; released when the file is closed.
        with key_path.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = _series_state(state_path)
            following = {"series": state.series, "next": state.next + 1}
            replace_file(state_path, json.dumps(following).encode() + b"\n", mode=0o600)
    except OSError as error:
        raise KeyFileError(f"cannot count the orders of {key_path} in {state_path}: {error.strerror}") from error
    return state.series, state.next


def _series_state(path: Path) -> _SeriesState:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return _SeriesState(series=secrets.token_hex(16), next=1)
    try:
        return _SeriesState.read(raw, what="the series", max_bytes=_MAX_STATE_BYTES)
    except FormatError as error:
        raise KeyFileError(f"{path}: {error}; delete it to begin a new series") from error


@dataclass(frozen=True, slots=True)
class OrderFile:
    """An order made from a file, and the files its artifacts are in, by SHA-256."""

    order: JobOrder
    files: Mapping[str, Path]


def order_from_file(
    path: Path, *, job_id: str, series: str, sequence: int, now: datetime, issuer: str | None = None
) -> OrderFile:
    """The order that the TOML file `path` describes; `issuer` is used if the file names none.

    Raises:
        ConfigError: the file, or a program it names, is wrong.
    """
    document = _toml(path)
    for name in sorted(_FILLED_IN & document.keys()):
        raise ConfigError(path, name, "is filled in when the order is made", "remove it")
    sources = document.pop("sources", {})
    if not isinstance(sources, dict):
        raise ConfigError(path, "sources", "is no table", 'must be like: [sources] "a.gcode" = ["https://…"]')
    artifacts: dict[str, dict[str, object]] = {}
    files: dict[str, Path] = {}
    places: dict[str, Path] = {}
    for step in _steps(document, path):
        program = step.get("program")
        if isinstance(program, str):
            file = path.parent / program
            name = PurePath(program).name
            if places.setdefault(name, file) != file:
                raise ConfigError(path, "program", f"{program} and {places[name]} have one name", "rename one of them")
            step["program"] = name
            artifacts[name] = _artifact(file, path, sources.pop(name, []))
            files[str(artifacts[name]["sha256"])] = file
    for name in sources:
        raise ConfigError(path, "sources", f"'{name}' is the program of no step", "must be the file name of a program")
    document.setdefault("expires_at", now + DEFAULT_VALIDITY)
    if issuer is not None:
        document.setdefault("issuer", issuer)
    filled_in = {"job_id": job_id, "issued_at": now, "series": series, "sequence": sequence, "artifacts": artifacts}
    try:
        return OrderFile(JobOrder.model_validate(document | filled_in), files)
    except ValidationError as error:
        raise ConfigError(path, "", problem_of(error, "the order")) from error


def _toml(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_ORDER_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, "", f"cannot be read: {error.strerror}") from error
    if len(raw) > _MAX_ORDER_FILE_BYTES:
        raise ConfigError(path, "", f"has more than {_MAX_ORDER_FILE_BYTES} bytes", "must be an order file in TOML")
    try:
        return tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, "", f"is not TOML: {error}") from error


def _steps(document: dict[str, object], path: Path) -> list[dict[str, object]]:
    steps = document.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ConfigError(path, "steps", "is missing or no list of tables", "must be like: [[steps]] id = …")
    return steps


def _artifact(file: Path, path: Path, sources: object) -> dict[str, object]:
    try:
        with file.open("rb") as program:
            digest = hashlib.file_digest(program, "sha256").hexdigest()
            size_bytes = os.fstat(program.fileno()).st_size
    except OSError as error:
        raise ConfigError(path, "program", f"{file} cannot be read: {error.strerror}") from error
    media_type = _MEDIA_TYPES.get(file.suffix.lower(), "application/octet-stream")
    return {"sha256": digest, "size_bytes": size_bytes, "media_type": media_type, "sources": sources}
