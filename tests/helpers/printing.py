"""What tests that print share: a machine for a simulated printer, programs, and what was carried out of them."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from drivers.gcode.config import Connection, Limits, Printer
from edge.demo.meaning import as_meant
from edge.driver import Machine, Program, Run, Step
from tests.helpers.sim import SimPrinter

LIMITS = Limits(x_mm=(0, 220), y_mm=(0, 220), z_mm=(0, 250), nozzle_degc=(0, 260), bed_degc=(0, 100))
FINAL = "M400"
"""What the driver adds to a program."""

RUN = Run("run-1", "job-1", 1, Step("print", "fdm"), 1)


def bench_machine(printer: SimPrinter, profiles_dir: Path | None = None, profile: str = "marlin-2.1") -> Printer:
    connection: dict[str, Any] = dict(printer.connection)
    return Machine("p1", "gcode", profile, ("fdm",), Connection(**connection), LIMITS, profiles_dir=profiles_dir)


def impatient_profile(folder: Path, busy_interval_s: float, silence_s: float) -> Path:
    """A directory with a profile `marlin-2.1` that gives up sooner than the shipped one."""
    shipped = resources.files("firmware_profiles").joinpath("marlin-2.1.toml").read_text()
    assert "busy_interval_s = 2.0" in shipped
    assert "silence_s = 20.0" in shipped
    text = shipped.replace("busy_interval_s = 2.0", f"busy_interval_s = {busy_interval_s}")
    (folder / "marlin-2.1.toml").write_text(text.replace("silence_s = 20.0", f"silence_s = {silence_s}"))
    return folder


def program_at(path: Path) -> Program:
    data = path.read_bytes()
    return Program(path.name, path, hashlib.sha256(data).hexdigest(), len(data))


def write_program(path: Path, commands: list[str]) -> Program:
    path.write_text("".join(f"{command}\n" for command in commands))
    return program_at(path)


def commands_in(path: Path) -> list[str]:
    """The commands of a program as `as_meant`, read without any code of the driver's."""
    lines = (line.split(";")[0].strip() for line in path.read_text().splitlines())
    return [as_meant(line) for line in lines if line]


def program_of(printer: SimPrinter) -> list[str]:
    """What the printer has carried out of the last program, without what the driver adds to it."""
    done = printer.program()
    return done[:-1] if done[-1:] == [FINAL] else done
