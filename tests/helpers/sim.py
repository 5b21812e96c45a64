"""Simulated machines as the processes that a user would start."""

from __future__ import annotations

import contextlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.demo.meaning import as_meant

START_S = 30.0
MACRO_BASE = 900_000_000
"""What the driver sends by itself, to stop, is numbered from here."""
MODES_BASE = 890_000_000
"""And what it sends before a program, to set the modes, from here."""
QUESTIONS = ("M105", "M114")
"""What changes nothing; numbered while a print is held."""


@dataclass(frozen=True)
class SimPrinter:
    """A running ``hil-sim printer``. `place` is its pty or ``tcp://host:port``; `log` what it has carried out."""

    process: subprocess.Popen[bytes]
    place: str
    log: Path

    @property
    def connection(self) -> dict[str, object]:
        """As in site.toml."""
        return {"url": self.place} if self.place.startswith("tcp:") else {"port": self.place, "baud": 250000}

    def commands(self) -> list[tuple[str, str]]:
        """Line number (or ``-``) and text of every command carried out, in order; boots are left out.

        A program's are `as_meant`; what the driver sends by itself is as it was sent.
        """
        rows = (line.split("\t", 2) for line in self.log.read_text().splitlines())
        return [
            (number, as_meant(text) if number != "-" and int(number) < MODES_BASE else text)
            for _, number, text in rows
            if number != "!"
        ]

    def program(self) -> list[str]:
        """The commands of the last program, in order: those numbered since ``M110 N0``, less the driver's own."""
        found: list[str] = []
        for number, text in self.commands():
            if number == "0":
                found.clear()
            elif text == f"M110 N{number}" and int(number) < MODES_BASE:
                assert int(number) == len(found), "a print goes on where it stood"
            elif number != "-" and int(number) < MODES_BASE:
                assert int(number) == len(found) + 1
                found.append(text)
        return found

    def macros(self) -> list[str]:
        """The driver's own numbered commands, in order, without questions and without what sets the counter."""
        numbered = [text for number, text in self.commands() if number != "-" and int(number) > MACRO_BASE]
        return [text for text in numbered if text not in QUESTIONS]

    def modes(self) -> list[str]:
        """What the driver has sent before its programs, without what sets the counter."""
        return [text for number, text in self.commands() if number != "-" and MODES_BASE < int(number) < MACRO_BASE]

    def reset(self) -> None:
        """Press the reset button."""
        self.process.send_signal(signal.SIGUSR1)


@contextlib.contextmanager
def sim_printer(folder: Path, *options: str, tcp: bool = False, speed: float = 5000.0) -> Iterator[SimPrinter]:
    """Start a printer, wait until it is ready, and stop it at the end."""
    log = folder / "executed.log"
    wire = ["--tcp", "127.0.0.1:0"] if tcp else ["--pty", str(folder / "printer")]
    command = [sys.executable, "-m", "hil_sim.main", "printer", *wire, "--speed", str(speed), "--log", str(log)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE) as process:
        try:
            kind, place = ready_line(process).split()[1:]
            yield SimPrinter(process, f"tcp://{place}" if kind == "tcp" else place, log)
        finally:
            process.terminate()
            process.wait(START_S)


def ready_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    deadline_s = time.monotonic() + START_S
    ready, _, _ = select.select([process.stdout], [], [], deadline_s - time.monotonic())
    line = process.stdout.readline().decode() if ready else ""
    assert line.startswith("ready "), f"the simulator did not start: {line!r}"
    return line
