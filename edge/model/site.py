"""site.toml, validated. Machines' `connection` and `limits` are validated later, by the driver that each names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edge.errors import ConfigError
from edge.sitefile import SiteFile

SOCKET_PATH_MAX_BYTES = 107
"""Longest path of a Unix socket: sun_path has 108 bytes with its NUL (unix(7))."""

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Process: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


def _unique(values: list[str]) -> list[str]:
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"{value!r} stands {count} times")
    return values


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteTable(_Table):
    """``[site]``. Relative paths are relative to the file."""

    id: Name
    state_dir: Path
    socket: Path
    trust_root: Path
    profiles_dir: Path | None = None


class MachineTable(_Table):
    """One ``[[machines]]``."""

    id: Name
    driver: str
    profile: str = "auto"
    processes: Annotated[list[Process], Field(min_length=1), AfterValidator(_unique)]
    connection: dict[str, Any]
    properties: dict[str, str | int | float | bool] = {}
    limits: dict[str, Any] = {}


class SiteConfig(_Table):
    """The whole file."""

    site: SiteTable
    machines: list[MachineTable] = []


def validate(file: SiteFile) -> SiteConfig:
    """Check everything that needs no driver. Raises `ConfigError`."""
    try:
        config = SiteConfig.model_validate(file.tables)
    except ValidationError as error:
        raise config_error(file.path, "", error, SiteConfig) from error
    for name, count in Counter(machine.id for machine in config.machines).items():
        if count > 1:
            raise ConfigError(file.path, "machines.id", f"{name!r} stands {count} times", "each machine needs its own")
    here = file.path.parent
    site = config.site.model_copy(
        update={
            "state_dir": file.state_dir,
            "socket": file.socket,
            "trust_root": (here / config.site.trust_root).absolute(),
            "profiles_dir": (here / config.site.profiles_dir).absolute() if config.site.profiles_dir else None,
        }
    )
    if len(str(site.socket).encode()) > SOCKET_PATH_MAX_BYTES:
        raise ConfigError(
            file.path, "site.socket", f"{site.socket} is too long", f"{SOCKET_PATH_MAX_BYTES} bytes at most"
        )
    if site.profiles_dir is not None and not site.profiles_dir.is_dir():
        raise ConfigError(file.path, "site.profiles_dir", f"{site.profiles_dir} is no directory")
    return config.model_copy(update={"site": site})


def config_error(file: Path, prefix: str, error: ValidationError, schema: type[BaseModel]) -> ConfigError:
    """The first of pydantic's complaints, as one sentence about a field of a configuration file."""
    first = error.errors()[0]
    field = ".".join([*filter(None, [prefix]), *(str(part) for part in first["loc"])])
    match first["type"]:
        case "extra_forbidden":
            known = ", ".join(_fields_at(schema, first["loc"][:-1]))
            return ConfigError(file, field, "unknown key", f"known here: {known}" if known else "remove it")
        case "missing":
            return ConfigError(file, field, "is missing")
        case "value_error":
            problem = first["msg"].removeprefix("Value error, ")
        case _:
            problem = f"is {first['input']!r}: {first['msg'].lower()}"
    return ConfigError(file, field or "the table", problem)


def _fields_at(schema: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that a table of site.toml can have."""
    match place:
        case ("site",):
            return list(SiteTable.model_fields)
        case ("machines", int()):
            return list(MachineTable.model_fields)
        case _:
            return list(schema.model_fields)
