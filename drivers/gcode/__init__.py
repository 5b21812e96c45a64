"""3D printers and other machines that take G-code line by line over a serial port or TCP."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from drivers import link, ports
from drivers.check import check_program
from drivers.gcode import profile as profiles
from drivers.gcode.config import Connection, Limits, Printer
from edge.driver import Driver, DriverContext, DriverPlugin, Prediction, ProfileInfo, Program, Step


class GcodePlugin(DriverPlugin[Connection, Limits]):
    """The entry point ``gcode``."""

    connection = Connection
    limits = Limits

    def profiles(self, user_dir: Path | None) -> list[ProfileInfo]:
        return [ProfileInfo(name, p.summary, p.tried_on) for name, p in profiles.known(user_dir).items()]

    def preflight(self, machine: Printer) -> None:
        if machine.profile != "auto":
            profiles.named(machine.profile, machine.profiles_dir)
        if machine.connection.port is not None:
            link.look_at_port(ports.find(machine.connection.port))

    def check(self, machine: Printer, step: Step, program: Program) -> Prediction:
        if machine.profile == "auto":
            # Which firmware is there is known only once it answers; until then a program must suit every profile.
            known = profiles.known(machine.profiles_dir).values()
            candidates = [profile for profile in known if not profile.match.only_if_named]
        else:
            candidates = [profiles.named(machine.profile, machine.profiles_dir)]
        return check_program(program, machine.limits, *candidates)

    def open(self, machine: Printer, context: DriverContext) -> AbstractAsyncContextManager[Driver]:
        from drivers.gcode.driver import open_printer

        return open_printer(machine, context)


PLUGIN = GcodePlugin()
