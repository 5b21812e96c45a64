"""What site.toml says of a machine behind an OPC UA server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from edge.driver import Machine


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    try:
        complete = parts.scheme == "opc.tcp" and parts.hostname and parts.port
    except ValueError:
        complete = False
    if not complete:
        raise ValueError("write it as opc.tcp://host:port, with the path if the server has one")
    if parts.username or parts.password:
        raise ValueError("write the address alone; name and password belong into user and password_file")
    return value


def _absolute(value: Path | None) -> Path | None:
    if value is not None and not value.is_absolute():
        raise ValueError("write the whole path, from /")
    return value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"the lower limit {value[0]:g} is above the upper limit {value[1]:g}")
    return value


def _plain(value: str) -> str:
    if not re.fullmatch(r"[!-~]{1,200}", value):
        raise ValueError("at most 200 ASCII characters without blanks")
    return value


File: TypeAlias = Annotated[Path | None, AfterValidator(_absolute)]
Range: TypeAlias = Annotated[tuple[float, float], AfterValidator(_ordered)]


class Connection(BaseModel):
    """Where the OPC UA server is, and how we get in.

    `security` is the security policy of the endpoint, ``None`` for none at all; `mode` belongs to it. `user` with
    `password_file` (first line, readable by its owner alone), or `user_certificate` with `user_key` (PEM or DER);
    neither: anonymous. A password crosses an open connection only with `plain_password`. `application_uri`: who we are,
    where a server wants a certain one. `machine`: the browse name of ours, where the server has several that fit the
    profile. `silence_s`: how long nothing may come before the connection is thrown away and built anew; `patience_s`:
    how long a run is believed to go on, and a machine to come back, while nobody answers; then its outcome is UNKNOWN.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: Annotated[str, AfterValidator(_endpoint)]
    security: Literal["None", "Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "Basic256Sha256"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    user: str | None = None
    password_file: File = None
    plain_password: bool = False
    user_certificate: File = None
    user_key: File = None
    application_uri: Annotated[str | None, AfterValidator(lambda value: value and _plain(value))] = None
    machine: str | None = None
    silence_s: float = Field(default=5.0, ge=2.0, le=300.0)
    patience_s: float = Field(default=600.0, gt=0)

    @model_validator(mode="after")
    def _one_way_in(self) -> Connection:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file belong together")
        if (self.user_certificate is None) != (self.user_key is None):
            raise ValueError("user_certificate and user_key belong together")
        if self.user is not None and self.user_certificate is not None:
            raise ValueError("give either user and password_file, or user_certificate and user_key")
        open_to_all = self.security == "None" or self.mode == "Sign"
        if self.user is not None and open_to_all and not self.plain_password:
            raise ValueError(
                "a password may be read by others on this connection; use SignAndEncrypt, or say plain_password = true"
            )
        return self

    @property
    def secure(self) -> bool:
        """Whether certificates are used."""
        return self.security != "None"


class Limits(BaseModel):
    """What a program may ask of this machine.

    `checked_by`: ``controller`` means that nobody here can read its programs, and the controller's own limits count;
    ``edge`` that programs are RS-274 and are held against `x_mm`, `y_mm` and `z_mm`, in machine coordinates. Either way
    a program has at most `program_max_bytes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checked_by: Literal["controller", "edge"]
    x_mm: Range | None = None
    y_mm: Range | None = None
    z_mm: Range | None = None
    program_max_bytes: int = Field(default=256 * 1024 * 1024, ge=1)

    @model_validator(mode="after")
    def _whose(self) -> Limits:
        axes = (self.x_mm, self.y_mm, self.z_mm)
        if self.checked_by == "edge" and None in axes:
            raise ValueError('checked_by = "edge" needs x_mm, y_mm and z_mm')
        if self.checked_by == "controller" and any(axes):
            raise ValueError('with checked_by = "controller" nobody would look at x_mm, y_mm and z_mm; leave them out')
        return self


OpcUaMachine: TypeAlias = Machine[Connection, Limits]
