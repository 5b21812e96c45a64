"""The tables `[uplink]` and `[metrics]` of site.toml."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from edge.errors import ConfigError

PORTS = {"mqtt": 1883, "mqtts": 8883}
"""Registered with IANA for MQTT, and for MQTT over TLS."""

RIGHT = "write mqtts://HOST or mqtts://HOST:PORT"


def _never_or_slow(seconds: float) -> float:
    if not (seconds == 0 or seconds >= 1):
        raise ValueError(f"is {seconds:g}, must be 0 for never, or at least 1")
    return seconds


class UplinkTable(BaseModel):
    """``[uplink]``. Paths are relative to the file; without `ca`, the host's own authorities count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[Literal["mqtt"], Field(examples=["mqtt"])]
    url: Annotated[str, Field(examples=["mqtts://broker.acme:8883"])]
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    password_file: Path | None = None

    @property
    def host(self) -> str:
        """The broker's name or address."""
        return self._split.hostname or ""

    @property
    def port(self) -> int:
        """The broker's port."""
        return self._split.port or PORTS[self._split.scheme]

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return self._split.scheme == "mqtts"

    @property
    def _split(self) -> SplitResult:
        return urlsplit(self.url)

    def checked(self, file: Path) -> Self:
        """The same with absolute paths. Raises `ConfigError`; the files are looked at by `edge.uplink.tls`."""
        _check_url(self.url, file)
        if not self.tls and (self.ca or self.certificate or self.key):
            raise ConfigError(file, "uplink.url", f"is {self.url}, which speaks no TLS", "with certificates, " + RIGHT)
        for one, other in (("certificate", "key"), ("user", "password_file")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                missing, there = (other, one) if getattr(self, other) is None else (one, other)
                raise ConfigError(file, f"uplink.{missing}", "is missing", f"it belongs to uplink.{there}")
        names = ("ca", "certificate", "key", "password_file")
        paths: dict[str, Path | None] = {name: getattr(self, name) for name in names}
        here = {name: (file.parent / path).absolute() for name, path in paths.items() if path is not None}
        return self.model_copy(update=here)


class SiteUplinkTable(UplinkTable):
    """``[uplink]`` of site.toml.

    `first_word_s`: how long the first start since the host was booted waits for the collector's word on the journal,
    before it lets work begin without it.
    `keep_days`: how long the site keeps events that the collector has.
    `telemetry_every_s`: newest values go out so often at most; 0 for never.
    """

    first_word_s: Annotated[float, Field(ge=0, le=86_400, examples=[30])] = 30.0
    keep_days: Annotated[int, Field(ge=1, le=36_500, examples=[90])] = 90
    telemetry_every_s: Annotated[float, Field(le=86_400, allow_inf_nan=False), AfterValidator(_never_or_slow)] = 10.0


class MetricsTable(BaseModel):
    """``[metrics]``: `port` is on 127.0.0.1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: Annotated[int, Field(ge=1, le=65535, examples=[9464])]


def _check_url(url: str, file: Path) -> None:
    if "@" in url:  # what stands before it may be a password, and is not repeated
        problem = "has a name or a password in it"
        raise ConfigError(file, "uplink.url", problem, "they belong into uplink.user and uplink.password_file")
    try:
        split = urlsplit(url)
        known, host, _ = split.scheme in PORTS, split.hostname, split.port
    except ValueError as error:
        raise ConfigError(file, "uplink.url", f"is {url!r}: {error}", RIGHT) from error
    if not known or not host or split.path.strip("/") or split.query or split.fragment:
        raise ConfigError(file, "uplink.url", f"is {url!r}", RIGHT)
    if split.scheme == "mqtt" and not _is_loopback(host):
        problem = f"is {url}: anybody on the way could read and keep back what is sent"
        raise ConfigError(file, "uplink.url", problem, RIGHT + "; mqtt:// is for a broker on this very host")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
