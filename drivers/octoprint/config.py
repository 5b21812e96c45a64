"""What site.toml says of a printer behind an OctoPrint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from drivers.check import Limits
from edge.driver import Machine

__all__ = ["Connection", "Limits", "Printer"]


def _http(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write it as http://host or https://host, with the port and prefix if it has them")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("write the address alone; the key belongs into api_key_file")
    return value.rstrip("/")


def _absolute(value: Path | None) -> Path | None:
    if value is not None and not value.is_absolute():
        raise ValueError("write the whole path, from /")
    return value


def _plain(value: str) -> str:
    if not re.fullmatch(r"[ -~]{1,40}", value):
        raise ValueError("at most 40 ASCII characters")
    return value


class Connection(BaseModel):
    """Where OctoPrint is, and how we get in.

    `api_key_file` has the key of an OctoPrint user, readable by its owner alone; `edge machine identify` asks for one
    and writes it there. `app` is the name under which it asks. `ca`: certificates (PEM) to trust instead of the
    system's. `patience_s`: how long a print is believed to go on while OctoPrint does not answer; then its outcome is
    UNKNOWN. `keep_files`: how many files of earlier runs stay in OctoPrint's folder ``edge``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, AfterValidator(_http)]
    api_key_file: Annotated[Path, AfterValidator(_absolute)]
    app: Annotated[str, AfterValidator(_plain)] = "edge"
    ca: Annotated[Path | None, AfterValidator(_absolute)] = None
    patience_s: float = Field(default=600.0, gt=0)
    keep_files: int = Field(default=10, ge=0)


Printer: TypeAlias = Machine[Connection, Limits]
