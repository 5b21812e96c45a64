"""CNC machines and robot cells behind an OPC UA server."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from drivers.opcua.config import Connection, Limits, OpcUaMachine
from edge.driver import ConnectError, Driver, DriverContext, DriverPlugin, Prediction, ProfileInfo, Program, Step, Trust

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drivers.opcua.profile import AnyProfile


class OpcUaPlugin(DriverPlugin[Connection, Limits]):
    """The entry points ``opcua-jobcontrol`` and ``opcua-robotics``, which differ in the profiles that they know."""

    connection = Connection
    limits = Limits

    def __init__(self, dialects: tuple[str, ...]) -> None:
        self._dialects = dialects

    def profiles(self, user_dir: Path | None) -> list[ProfileInfo]:
        from drivers.opcua.profile import known

        return [
            ProfileInfo(name, p.summary, p.tried_on, p.hazards) for name, p in known(self._dialects, user_dir).items()
        ]

    def preflight(self, machine: OpcUaMachine) -> None:
        self._candidates(machine)
        way = machine.connection
        for path in (way.password_file, way.user_certificate, way.user_key):
            if path is not None and not path.is_file():
                raise ConnectError(f"{path}: there is no such file")
            if path is not None and not os.access(path, os.R_OK):
                raise ConnectError(f"{path}: no permission to read it; it must belong to the daemon's user")
        if way.password_file is not None and way.password_file.stat().st_mode & 0o077:
            raise ConnectError(f"{way.password_file} can be read by others; chmod 600 it")

    def _candidates(self, machine: OpcUaMachine) -> Mapping[str, AnyProfile]:
        from drivers.opcua.profile import candidates

        return candidates(machine.profile, self._dialects, machine.profiles_dir)

    def check(self, machine: OpcUaMachine, step: Step, program: Program) -> Prediction:
        from drivers.opcua.check import check_program

        return check_program(machine, step, program)

    def trust(self, machine: OpcUaMachine, state_dir: Path, accept: str | None, *, renew: bool = False) -> Trust:
        from drivers.opcua.ceremony import trust

        return trust(machine, state_dir, accept, renew=renew)

    def open(self, machine: OpcUaMachine, context: DriverContext) -> AbstractAsyncContextManager[Driver]:
        from drivers.opcua.driver import open_machine

        return open_machine(machine, context, self._dialects)


JOBCONTROL = OpcUaPlugin(("opcua-jobs", "opcua-mapped"))
ROBOTICS = OpcUaPlugin(("opcua-robotics", "opcua-mapped"))
