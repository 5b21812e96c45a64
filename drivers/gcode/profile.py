"""The shape of a profile of Marlin-like firmware, and which profile a firmware's own words fit."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

import firmware_profiles
from edge.driver import DriverError, IdentityError


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(_Table):
    """`firmware_name`: a regular expression on what follows ``FIRMWARE_NAME:`` in the answer to M115."""

    firmware_name: str

    @field_validator("firmware_name")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return value


class WireTable(_Table):
    """What the firmware's serial side takes. `busy_interval_s` is 0 where it has no busy protocol.

    `keeps_line_numbers`: its line counter survives the host, and it says it when asked with a number far ahead.
    `proven_window`: several lines in flight are safe even where single bytes get lost or changed.
    """

    rx_buffer_bytes: int = Field(ge=32)
    line_max_bytes: int = Field(ge=32)
    busy_interval_s: float = Field(ge=0)
    keeps_line_numbers: bool
    proven_window: bool
    silence_s: float = Field(gt=0)


class Forbidden(_Table):
    command: str = Field(pattern=r"^[A-Z]\d+(\.\d+)?$")
    reason: str


class ProgramTable(_Table):
    forbidden: tuple[Forbidden, ...]


class Resume(_Table):
    """`gap_max_s`: how long a print may stand still with a hot nozzle, and still be worth going on with."""

    gap_max_s: float = Field(ge=0)


class Macro(_Table):
    """Commands of this firmware for what the driver does by itself. Empty where it has none.

    `stop` moves nothing, so that a machine that stands still can be stopped again; `park` follows it in a program.
    """

    report_temperatures: str
    break_wait: str
    stop: tuple[str, ...]
    park: tuple[str, ...]
    abort: str


class Profile(_Table):
    dialect: str
    summary: str
    match: Match
    wire: WireTable
    program: ProgramTable
    resume: Resume
    macro: Macro


DIALECT = "marlin"


def named(name: str, user_dir: Path | None) -> Profile:
    """The profile `name`. Raises `DriverError`."""
    try:
        return firmware_profiles.load(name, Profile, user_dir)
    except firmware_profiles.ProfileError as error:
        raise DriverError(str(error)) from error


def known(user_dir: Path | None) -> dict[str, Profile]:
    """All profiles of this dialect. Raises `DriverError`."""
    try:
        return firmware_profiles.load_all(Profile, DIALECT, user_dir)
    except firmware_profiles.ProfileError as error:
        raise DriverError(str(error)) from error


def fitting(firmware_name: str, configured: str, user_dir: Path | None) -> tuple[str, Profile]:
    """The profile for the firmware that calls itself `firmware_name`. Raises `IdentityError`."""
    profiles = known(user_dir) if configured == "auto" else {configured: named(configured, user_dir)}
    fits = [name for name, profile in profiles.items() if re.search(profile.match.firmware_name, firmware_name)]
    if len(fits) == 1:
        return fits[0], profiles[fits[0]]
    if configured != "auto":
        raise IdentityError(f"the firmware calls itself {firmware_name!r}, which profile {configured!r} does not fit")
    if not fits:
        raise IdentityError(f"the firmware calls itself {firmware_name!r}; no profile fits ({', '.join(profiles)})")
    raise IdentityError(f"the firmware calls itself {firmware_name!r}; name one of the profiles {', '.join(fits)}")
