"""Finding and reading site.toml, without validating machines: what the fast commands need.

Imports neither pydantic nor asyncio; `edge.model.site` validates the whole.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import ConfigError

ENVIRONMENT = "EDGE_CONFIG"
_EXAMPLES = {"id": "berlin-1", "state_dir": "state", "socket": "edge.sock"}
PLACES = (Path("site.toml"), Path("/etc/edge/site.toml"))


@dataclass(frozen=True, slots=True)
class SiteFile:
    """Where the site keeps what it keeps. `tables` is the whole file as it stands."""

    path: Path
    site: str
    state_dir: Path
    socket: Path
    tables: dict[str, Any]


def find(given: Path | None) -> Path:
    """The configuration file: `given`, ``$EDGE_CONFIG``, ``./site.toml``, ``/etc/edge/site.toml``, in that order."""
    if given is not None:
        return given
    if named := os.environ.get(ENVIRONMENT):
        return Path(named)
    for place in PLACES:
        if place.exists():
            return place
    looked = " nor ".join(str(place) for place in PLACES)
    expected = f"name one with --config or ${ENVIRONMENT}, or make one with `edge init`"
    raise ConfigError("site.toml", "", f"there is neither {looked}", expected)


def read(path: Path) -> SiteFile:
    """Parse the file and its ``[site]`` table. Raises `ConfigError`."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        new = "name one with --config, or make one with `edge init`"
        expected = new if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(path, "", f"cannot be read: {error.strerror}", expected) from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, "", f"not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, "", f"not TOML: {error}") from error
    site = tables.get("site")
    if not isinstance(site, dict):
        raise ConfigError(path, "site", "the table [site] is missing", 'it begins with id = "berlin-1"')
    return SiteFile(
        path=path,
        site=_text(path, site, "id"),
        state_dir=_place(path, site, "state_dir"),
        socket=_place(path, site, "socket"),
        tables=tables,
    )


def _text(path: Path, site: dict[str, Any], key: str) -> str:
    value = site.get(key)
    if not isinstance(value, str) or not value:
        problem = "is missing" if value is None else f"is {value!r}, must be a text"
        raise ConfigError(path, f"site.{key}", problem, f'write {key} = "{_EXAMPLES[key]}"')
    return value


def _place(path: Path, site: dict[str, Any], key: str) -> Path:
    """Paths in site.toml are relative to the file itself."""
    return (path.parent / _text(path, site, key)).absolute()
