"""The shape of a profile of a G-code firmware, and which profile a firmware's own words fit.

A profile says what nobody can ask the machine. What a profile leaves out has the careful value: no window, no resume,
nothing harmless, no protection taken for granted. `docs/profiles.md` shows how to write one.
"""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

import firmware_profiles
from edge.driver import DriverError, IdentityError

MARLIN = "marlin"
GRBL = "grbl"
DIALECTS = (MARLIN, GRBL)

PLACES = frozenset({"x", "y", "z", "e", "feed", "nozzle_degc", "bed_degc", "standby_degc"})
"""What a macro may take from the driver, as ``{x}``: where the run was held (mm, mm/min) and how hot it was (degC)."""

_FILLED = ("pause", "resume", "standby")
_PLACE = re.compile(r"\{\w+\}")


def _command(value: str) -> str:
    try:
        places = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
    except ValueError as error:
        raise ValueError(f"braces belong to places such as {{x}}: {error}") from error
    if unknown := sorted(places - PLACES):
        raise ValueError(f"there is no place {{{unknown[0]}}}; there are: {', '.join(sorted(PLACES))}")
    if value != value.strip() or any(not (" " <= char <= "~" or char == "\x18") for char in value):
        raise ValueError("a command is one line of ASCII without blanks around it")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    return value


Command: TypeAlias = Annotated[str, AfterValidator(_command)]
Code: TypeAlias = Annotated[str, Field(pattern=r"^[A-Z]\d+(\.\d+)?$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(_Table):
    """Which machines this profile is for.

    `firmware_name`: a regular expression on the firmware's own name: what follows ``FIRMWARE_NAME:`` in the answer to
    M115, or for the grbl dialect `grbl_replies.identity` of the answer to ``$I``. `only_if_named`: never found by
    itself; the site's configuration must name it.
    """

    firmware_name: Annotated[str, AfterValidator(_pattern)]
    only_if_named: bool = False


class WireTable(_Table):
    """What the firmware's serial side takes.

    `line_max_bytes`: the size of its line buffer, with the terminating zero; number and checksum count.
    `busy_interval_s`: how often a blocking command says that it is alive; 0 where none does. `silence_s`: nothing at
    all for this long while an answer is owed means that it is dead. `proven_window`: several lines in flight are safe
    on a bare UART, too, proven on this firmware; native USB and TCP need no proof. `takes_compact`: its parser needs no
    blanks between words nor behind the line number, no zero before a point, and takes the E of ``X1.5E.03`` for a word.
    """

    rx_buffer_bytes: int = Field(ge=32)
    line_max_bytes: int = Field(ge=32)
    busy_interval_s: float = Field(ge=0)
    silence_s: float = Field(gt=0)
    proven_window: bool = False
    takes_compact: bool = False


class FirmwareTable(_Table):
    """How the firmware behaves.

    `keeps_line_numbers`: refuses a number out of sequence and says the last it took, so that it can be asked how far
    it came. `unknown_command`: ``said`` (it says so, and acknowledges), ``silent`` (it only acknowledges), ``refused``
    (an error in the acknowledgement's place). `emergency_parser`: acts on the abort as it arrives, past its queue;
    where the firmware itself reports ``Cap:EMERGENCY_PARSER``, that counts. `thermal_protection`: ``reported`` by the
    capability `thermal_protection_cap`, ``built-in`` where no build is without, or ``unknown``. `sd_card`: M27 tells of
    a print from it, where the capability ``SDCARD`` says so or in every build. `names_open_file`: M27 C tells the file
    that is open, and none when its print is over.
    `stepper_timeout_s`: motors are released after so long without a move, 0 if nobody knows; `resume_gap_max_s`: the
    longest gap after which a held program may still go on, 0 for none.
    """

    keeps_line_numbers: bool = False
    unknown_command: Literal["said", "silent", "refused"] = "silent"
    emergency_parser: bool = False
    thermal_protection: Literal["reported", "built-in", "unknown"] = "unknown"
    thermal_protection_cap: str = "THERMAL_PROTECTION"
    sd_card: Literal["reported", "built-in"] = "reported"
    names_open_file: bool = False
    stepper_timeout_s: float = Field(default=0.0, ge=0)
    resume_gap_max_s: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _resumable(self) -> FirmwareTable:
        if self.resume_gap_max_s and not self.keeps_line_numbers:
            raise ValueError("resume_gap_max_s is 0 for a firmware that keeps no line numbers: nobody knows its place")
        if self.resume_gap_max_s and not self.resume_gap_max_s < self.stepper_timeout_s:
            raise ValueError("resume_gap_max_s is below stepper_timeout_s: released motors have lost their place")
        return self


class Forbidden(_Table):
    """`command` must not be in a production program; `reason` goes on after "for it …"."""

    command: Code
    reason: str


class ProgramTable(_Table):
    """`harmless_if_unknown`: commands that only inform; a firmware that does not know them makes the same part."""

    forbidden: tuple[Forbidden, ...] = ()
    harmless_if_unknown: tuple[Code, ...] = ()


class Macro(_Table):
    """Commands of this firmware for what the driver does by itself. Empty where it has none; then it does not do it.

    `begin` is sent before a program, and neither moves nor heats: millimetres, absolute coordinates for all axes, the
    plane XY, speed and flow at 100 %, which is what the check takes for granted. `pause` retracts and moves away,
    `resume` comes back to where the run was held (modes and feed rate are restored by the driver); `standby` cools the
    nozzle of a held run. A stop is `make_safe`, which turns everything off without a move, and in the middle of a
    program `park`. `abort` stops everything at once, whatever it costs.
    """

    report_temperatures: Command = ""
    break_wait: Command = ""
    begin: tuple[Command, ...] = ()
    pause: tuple[Command, ...] = ()
    resume: tuple[Command, ...] = ()
    standby: tuple[Command, ...] = ()
    make_safe: tuple[Command, ...] = Field(min_length=1)
    park: tuple[Command, ...] = ()
    abort: Command = Field(min_length=1)

    @field_validator("resume")
    @classmethod
    def _comes_back(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value and not all(f"{{{place}}}" in " ".join(value) for place in "xyz"):
            raise ValueError("resume comes back to {x}, {y} and {z}")
        return value

    @model_validator(mode="after")
    def _places_are_filled(self) -> Macro:
        for name, value in self:
            if name not in _FILLED and (found := _PLACE.search(value if isinstance(value, str) else " ".join(value))):
                raise ValueError(f"{found[0]} has no meaning in {name}; places are for pause, resume and standby")
        return self


class Profile(_Table):
    """`tried_on`: the hardware that it was tried on; the driver says so when it connects. `hazards`: for people."""

    dialect: Literal["marlin", "grbl"]
    summary: str
    tried_on: str = "nothing yet"
    hazards: tuple[str, ...] = ()
    match: Match
    wire: WireTable
    firmware: FirmwareTable = FirmwareTable()
    program: ProgramTable = ProgramTable()
    macro: Macro

    @model_validator(mode="after")
    def _of_its_dialect(self) -> Profile:
        if self.dialect == GRBL and self.firmware.keeps_line_numbers:
            raise ValueError("firmware.keeps_line_numbers is false in the grbl dialect")
        if self.dialect == GRBL and self.wire.takes_compact:
            raise ValueError("wire.takes_compact is false in the grbl dialect, which sends no blanks anyway")
        if self.dialect == GRBL and self.macro.abort != "\x18":
            raise ValueError('macro.abort is "\\u0018" in the grbl dialect: only that acts at once')
        if "\x18" in self.macro.abort and self.dialect != GRBL:
            raise ValueError("macro.abort is a command, not a byte, in the marlin dialect")
        return self


def loaded(name: str, user_dir: Path | None) -> Profile:
    """The profile `name`, of whatever dialect. Raises `DriverError`."""
    try:
        return firmware_profiles.load(name, Profile, user_dir)
    except firmware_profiles.ProfileError as error:
        raise DriverError(str(error)) from error


def named(name: str, user_dir: Path | None, dialect: str = MARLIN) -> Profile:
    """The profile `name`. Raises `DriverError`, also if it is for another dialect."""
    profile = loaded(name, user_dir)
    if profile.dialect != dialect:
        raise DriverError(f"the profile {name!r} is for the dialect {profile.dialect!r}, not {dialect!r}")
    return profile


def known(user_dir: Path | None, dialect: str = MARLIN) -> dict[str, Profile]:
    """All profiles of a dialect, by name. Raises `DriverError`."""
    try:
        return firmware_profiles.load_all(Profile, dialect, user_dir)
    except firmware_profiles.ProfileError as error:
        raise DriverError(str(error)) from error


def all_known(user_dir: Path | None) -> dict[str, Profile]:
    """All profiles of all dialects, by name. Raises `DriverError`."""
    found = {name: profile for dialect in DIALECTS for name, profile in known(user_dir, dialect).items()}
    return dict(sorted(found.items()))


def fitting(firmware_name: str, configured: str, user_dir: Path | None, dialect: str = MARLIN) -> tuple[str, Profile]:
    """The profile for the firmware that calls itself `firmware_name`. Raises `IdentityError`."""
    if configured == "auto":
        profiles = {name: p for name, p in known(user_dir, dialect).items() if not p.match.only_if_named}
    else:
        profiles = {configured: named(configured, user_dir, dialect)}
    fits = [name for name, profile in profiles.items() if re.search(profile.match.firmware_name, firmware_name)]
    if len(fits) == 1:
        return fits[0], profiles[fits[0]]
    if configured != "auto":
        raise IdentityError(f"the firmware calls itself {firmware_name!r}, which profile {configured!r} does not fit")
    if not fits:
        advice = "; if it is a Marlin at heart, name the profile 'generic'" if dialect == MARLIN else ""
        raise IdentityError(
            f"the firmware calls itself {firmware_name!r}; no profile fits ({', '.join(profiles)}){advice}"
        )
    raise IdentityError(f"the firmware calls itself {firmware_name!r}; name one of the profiles {', '.join(fits)}")
