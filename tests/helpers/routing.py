"""What tests that mill share: a simulated router as a process, a machine for it, and what was carried out."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.gcode.config import Connection, Limits, Printer
from edge.driver import Machine
from tests.helpers.sim import START_S, ready_line

LIMITS = Limits(x_mm=(0, 300), y_mm=(0, 200), z_mm=(0, 80))
PREAMBLE = "G17 G21 G40 G54 G80 G90 G94 M5 M9"
FINAL = "G4 P0.01"
MOVES = ("G0", "G1", "G2", "G3", "G53", "X", "Y", "Z", "$H")


@dataclass(frozen=True)
class SimRouter:
    """A running ``hil-sim grbl``. `place` is its pty or ``tcp://host:port``; `log` what it has carried out."""

    process: subprocess.Popen[bytes]
    place: str
    log: Path
    plain: bool = False

    @property
    def connection(self) -> dict[str, object]:
        """As in site.toml."""
        return {"url": self.place} if self.place.startswith("tcp:") else {"port": self.place}

    def blocks(self) -> list[str]:
        """All that was carried out, in order; boots and alarms are left out."""
        rows = (line.split("\t", 2) for line in self.log.read_text().splitlines())
        return [text for _, number, text in rows if number != "!"]

    def happened(self) -> list[str]:
        """Boots and alarms."""
        rows = (line.split("\t", 2) for line in self.log.read_text().splitlines())
        return [text for _, number, text in rows if number == "!"]

    def program(self) -> list[str]:
        """Of the last program what was carried out, without what the driver adds to it."""
        blocks = self.blocks()
        if PREAMBLE not in blocks:
            return []
        last = len(blocks) - 1 - blocks[::-1].index(PREAMBLE)
        found = blocks[last + 1 :]
        return found[: found.index(FINAL)] if FINAL in found else found

    def moves(self) -> int:
        return sum(text.startswith(MOVES) for text in self.blocks())

    def press_hold(self) -> None:
        """The feed hold button at the machine; the second time the start button."""
        self.process.send_signal(signal.SIGUSR2)

    def reset(self) -> None:
        """The reset button."""
        self.process.send_signal(signal.SIGUSR1)


@contextlib.contextmanager
def sim_router(
    folder: Path, *options: str, tcp: bool = False, speed: float = 500.0, homed: bool = True, plain: bool = False
) -> Iterator[SimRouter]:
    """Start a router (grblHAL, or `plain` grbl 1.1), wait until it is ready, and stop it at the end."""
    log = folder / "executed.log"
    wire = ["--tcp", "127.0.0.1:0"] if tcp else ["--pty", str(folder / "router")]
    command = [sys.executable, "-m", "hil_sim.main", "grbl", *wire, "--speed", str(speed), "--log", str(log), *options]
    command += [*(["--homed"] if homed else []), *(["--plain"] if plain else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            kind, place = ready_line(process).split()[1:]
            yield SimRouter(process, f"tcp://{place}" if kind == "tcp" else place, log, plain)
        finally:
            process.terminate()
            process.wait(START_S)


def bench_router(router: SimRouter, limits: Limits = LIMITS, profiles_dir: Path | None = None) -> Printer:
    connection: dict[str, Any] = dict(router.connection)
    profile = "grbl" if router.plain else "grblhal"
    return Machine("m1", "gcode", profile, ("mill",), Connection(**connection), limits, profiles_dir=profiles_dir)
