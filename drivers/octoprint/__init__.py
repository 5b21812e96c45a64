"""3D printers behind an OctoPrint server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from drivers.check import check_program
from drivers.octoprint import profile as profiles
from drivers.octoprint.config import Connection, Limits, Printer
from edge.driver import Driver, DriverContext, DriverPlugin, Prediction, ProfileInfo, Program, Step


class OctoPrintPlugin(DriverPlugin[Connection, Limits]):
    """The entry point ``octoprint``."""

    connection = Connection
    limits = Limits

    def profiles(self, user_dir: Path | None) -> list[ProfileInfo]:
        return [ProfileInfo(name, p.summary, p.tried_on, p.hazards) for name, p in profiles.known(user_dir).items()]

    def preflight(self, machine: Printer) -> None:
        from drivers.octoprint import access

        profiles.candidates(machine.profile, machine.profiles_dir)
        access.preflight(machine.connection)

    def check(self, machine: Printer, step: Step, program: Program) -> Prediction:
        return check_program(program, machine.limits, *profiles.candidates(machine.profile, machine.profiles_dir))

    def authorise(self, machine: Printer, tell: Callable[[str], None]) -> None:
        from drivers.octoprint import access

        access.authorise(machine.connection, tell)

    def open(self, machine: Printer, context: DriverContext) -> AbstractAsyncContextManager[Driver]:
        from drivers.octoprint.driver import open_octoprint

        return open_octoprint(machine, context)


PLUGIN = OctoPrintPlugin()
