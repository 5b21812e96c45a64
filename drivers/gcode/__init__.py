"""3D printers and other machines that take G-code line by line over a serial port or TCP.

The machine's profile says which dialect it speaks. ``auto`` finds Marlin and its like; grbl is never guessed at, for
what the one takes as a question is a command or noise to the other: its profile is named.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from drivers import link, ports
from drivers.check import check_program
from drivers.gcode import grbl_check
from drivers.gcode import profile as profiles
from drivers.gcode.config import Connection, Limits, Printer
from drivers.gcode.profile import GRBL, Profile
from edge.driver import Driver, DriverContext, DriverError, DriverPlugin, Prediction, ProfileInfo, Program, Step, Wire


class GcodePlugin(DriverPlugin[Connection, Limits]):
    """The entry point ``gcode``."""

    connection = Connection
    limits = Limits

    def profiles(self, user_dir: Path | None) -> list[ProfileInfo]:
        return [ProfileInfo(name, p.summary, p.tried_on, p.hazards) for name, p in profiles.all_known(user_dir).items()]

    def preflight(self, machine: Printer) -> None:
        profile = _named(machine)
        if machine.limits.homing == "program" and not _is_grbl(profile):
            raise DriverError(f"{machine.id}: limits.homing = 'program' is for profiles of the grbl dialect")
        if profile is None:
            profiles.known(machine.profiles_dir)  # the firmware's is found among them: each has to be whole
        if machine.connection.port is not None:
            link.look_at_port(ports.find(machine.connection.port))

    def check(self, machine: Printer, step: Step, program: Program) -> Prediction:
        profile = _named(machine)
        if profile is not None and _is_grbl(profile):
            return grbl_check.check_program(program, machine.limits, profile)
        if profile is None:
            # Which firmware is there is known only once it answers; until then a program must suit every profile.
            known = profiles.known(machine.profiles_dir).values()
            candidates = [profile for profile in known if not profile.match.only_if_named]
        else:
            candidates = [profile]
        return check_program(program, machine.limits, *candidates)

    def wire(self, machine: Printer) -> Wire:
        from drivers.gcode.grbl import AT_ONCE

        try:
            at_once = AT_ONCE if _is_grbl(_named(machine)) else b""
        except DriverError:  # no profile that can be used: nothing will cross, and `preflight` says why
            at_once = b""
        to = machine.connection
        return Wire(to.place if to.port is None else f"{to.port}, {to.baud} baud", at_once)

    def open(self, machine: Printer, context: DriverContext) -> AbstractAsyncContextManager[Driver]:
        from drivers.gcode.driver import open_printer
        from drivers.gcode.grbl_driver import open_grbl

        return open_grbl(machine, context) if _is_grbl(_named(machine)) else open_printer(machine, context)

    def make_safe(self, machine: Printer, deadline_s: float) -> str:
        from drivers.gcode import grbl_driver, safe

        by_dialect = grbl_driver.make_safe if _is_grbl(_named(machine)) else safe.stop_printer
        return safe.make_safe(by_dialect, machine, deadline_s)


def _named(machine: Printer) -> Profile | None:
    """The profile that the site names; None for ``auto``. Raises `DriverError`."""
    return None if machine.profile == "auto" else profiles.loaded(machine.profile, machine.profiles_dir)


def _is_grbl(profile: Profile | None) -> bool:
    return profile is not None and profile.dialect == GRBL


PLUGIN = GcodePlugin()
