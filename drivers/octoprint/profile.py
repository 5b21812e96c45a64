"""What a program is held against of the profile of the firmware behind OctoPrint.

Which firmware that is, OctoPrint does not say by REST; a site that knows it names its profile.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

import firmware_profiles
from edge.driver import DriverError

DIALECT = "marlin"
"""OctoPrint speaks no other."""


class _Table(BaseModel):
    # The rest of a profile is about a serial line, which is OctoPrint's.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Match(_Table):
    only_if_named: bool = False


class Wire(_Table):
    line_max_bytes: int


class Forbidden(_Table):
    command: str
    reason: str


class ProgramTable(_Table):
    forbidden: tuple[Forbidden, ...] = ()
    harmless_if_unknown: tuple[str, ...] = ()


class Profile(_Table):
    dialect: str
    summary: str
    tried_on: str = "nothing yet"
    hazards: tuple[str, ...] = ()
    match: Match
    wire: Wire
    program: ProgramTable = ProgramTable()


def known(user_dir: Path | None, only: str | None = None) -> dict[str, Profile]:
    """All profiles that a machine can name, or the one named `only`. Raises `DriverError`."""
    try:
        return firmware_profiles.load_all(Profile, DIALECT, user_dir, only)
    except firmware_profiles.ProfileError as error:
        raise DriverError(str(error)) from error


def candidates(name: str, user_dir: Path | None) -> list[Profile]:
    """The named profile; for ``auto`` all of them, for nobody knows which firmware it is. Raises `DriverError`."""
    if name == "auto":
        return [profile for profile in known(user_dir).values() if not profile.match.only_if_named]
    if found := known(user_dir, name):
        return [found[name]]
    raise DriverError(f"there is no profile {name!r} for OctoPrint; there are: {', '.join(known(user_dir))}")
