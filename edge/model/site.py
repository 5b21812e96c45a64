"""site.toml, validated. Machines' `connection` and `limits` are validated later, by the driver that each names."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from edge.errors import ConfigError
from edge.model.fields import Process, SiteId, most_telling
from edge.model.machine import Value
from edge.model.strictjson import shown
from edge.model.uplink import MetricsTable, SiteUplinkTable
from edge.sitefile import SiteFile
from edge.timefloor import Source

SOCKET_PATH_MAX_BYTES = 107
"""Longest path of a Unix socket: sun_path has 108 bytes with its NUL (unix(7))."""


def _unique(values: list[str]) -> list[str]:
    for value, count in Counter(values).items():
        if count > 1:
            raise ValueError(f"'{value}' stands {count} times, must stand once")
    return values


def _value(value: object) -> Value:
    if not isinstance(value, str | int | float | bool) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"is {shown(value)}, must be a text, a finite number, true or false")
    return value


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteTable(_Table):
    """``[site]``. Relative paths are relative to the file."""

    id: Annotated[SiteId, Field(examples=["berlin-1"])]
    state_dir: Annotated[Path, Field(examples=["state"])]
    socket: Annotated[Path, Field(examples=["edge.sock"])]
    trust_root: Annotated[Path, Field(examples=["root.dsse.json"])]
    profiles_dir: Path | None = None
    guard_after_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 60.0
    """How long after the daemon's death the guard switches off machines with an open run; 0 for no guard."""


class RemoteTable(_Table):
    """``[remote]``: what this site takes from the centre though nobody stands at the machine."""

    allow_clear: bool = False
    allow_release: bool = False


class TimeTable(_Table):
    """``[time]``: whose word the site takes for the time, beside signed times."""

    source: Source = Source.NTP


class MachineTable(_Table):
    """One ``[[machines]]``."""

    id: Annotated[SiteId, Field(examples=["prn-1"])]
    driver: Annotated[str, Field(examples=["gcode"])]
    profile: str = "auto"
    processes: Annotated[list[Process], Field(min_length=1, examples=[["fdm"]]), AfterValidator(_unique)]
    connection: dict[str, Any]
    properties: dict[str, Annotated[Value, PlainValidator(_value)]] = {}
    limits: dict[str, Any] = {}
    record: Annotated[bool, Field(strict=True)] = False
    """Whether what crosses its wire is kept in the state directory, for people who look for a fault."""


class ArtifactsTable(_Table):
    """``[artifacts]``: the programs that orders name, and where they are fetched from.

    `max_bytes`: what all of them together may take; `ca`: the authorities that their sources' certificates are held
    against, instead of the host's.
    """

    max_bytes: Annotated[int, Field(ge=1, examples=[8_589_934_592])] = 8 * 1024**3
    ca: Path | None = None


class SpoolTable(_Table):
    """``[spool]``: a directory whose bundles are taken in."""

    dir: Annotated[Path, Field(examples=["/var/spool/edge"])]


class SiteConfig(_Table):
    """The whole file."""

    site: SiteTable
    time: TimeTable = TimeTable()
    artifacts: ArtifactsTable = ArtifactsTable()
    spool: SpoolTable | None = None
    machines: list[MachineTable] = []
    uplink: SiteUplinkTable | None = None
    metrics: MetricsTable | None = None
    remote: RemoteTable = RemoteTable()


def validate(file: SiteFile) -> SiteConfig:
    """Check everything that needs no driver. Raises `ConfigError`."""
    try:
        config = SiteConfig.model_validate(file.tables)
    except ValidationError as error:
        raise config_error(file.path, "", error, SiteConfig) from error
    for name, count in Counter(machine.id for machine in config.machines).items():
        if count > 1:
            raise ConfigError(file.path, "machines.id", f"'{name}' stands {count} times", "each machine needs its own")
    here = file.path.parent
    site = config.site.model_copy(
        update={
            "state_dir": file.state_dir,
            "socket": file.socket,
            "trust_root": (here / config.site.trust_root).absolute(),
            "profiles_dir": (here / config.site.profiles_dir).absolute() if config.site.profiles_dir else None,
        }
    )
    if (long := len(str(site.socket).encode())) > SOCKET_PATH_MAX_BYTES:
        raise ConfigError(
            file.path,
            "site.socket",
            f"{site.socket} has {long} bytes",
            f"the path of a socket has at most {SOCKET_PATH_MAX_BYTES}; choose a shorter one",
        )
    if site.profiles_dir is not None and not site.profiles_dir.is_dir():
        expected = "make it, or remove the key"
        raise ConfigError(file.path, "site.profiles_dir", f"{site.profiles_dir} is no directory", expected)
    artifacts, spool = config.artifacts, config.spool
    if artifacts.ca is not None:
        artifacts = artifacts.model_copy(update={"ca": (here / artifacts.ca).absolute()})
    if spool is not None:
        spool = spool.model_copy(update={"dir": (here / spool.dir).absolute()})
    uplink = config.uplink and config.uplink.checked(file.path)
    return config.model_copy(update={"site": site, "artifacts": artifacts, "spool": spool, "uplink": uplink})


def config_error(file: Path, prefix: str, error: ValidationError, schema: type[BaseModel]) -> ConfigError:
    """One of pydantic's complaints, as one sentence: the field, what stands there, and what would be right."""
    first = most_telling(error)
    place, name = first["loc"][:-1], str(first["loc"][-1]) if first["loc"] else ""
    field = prefix + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    field = field.removeprefix(".")
    table = _table_at(schema, place)
    match first["type"]:
        case "extra_forbidden":
            return ConfigError(file, field, "unknown key", f"known here: {', '.join(table.model_fields) or 'none'}")
        case "missing":
            known = table.model_fields.get(name)
            example = json.dumps(known.examples[0]) if known is not None and known.examples else "…"
            return ConfigError(file, field, "is missing", f"add {name} = {example}")
        case "value_error":
            return ConfigError(file, field, first["msg"].removeprefix("Value error, "))
        case _:
            right = re.sub(r"^\w+ should", "must", first["msg"])
            return ConfigError(file, field, f"is {shown(first['input'])}, {right}")


def _table_at(schema: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """The table that a field at `place` below `schema` belongs to."""
    match place:
        case (str(name), *more) if name in schema.model_fields:
            table = _table_in(schema.model_fields[name].annotation)
            rest = tuple(more[1:] if more and isinstance(more[0], int) else more)
            return schema if table is None else _table_at(table, rest)
        case _:
            return schema


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """The table that a field is, or a list of, or perhaps; None for any other field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for one in get_args(annotation) if (found := _table_in(one)) is not None), None)
