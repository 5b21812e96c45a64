"""A simulated firmware on a bench of its own: no wire, and time passes when a test says so."""

from __future__ import annotations

from functools import reduce
from operator import xor

from hil_sim.faults import Faults
from hil_sim.printer.board import Options
from hil_sim.printer.firmware import Firmware


def numbered(number: int, command: str) -> str:
    """`command` as a host frames it, with its line end."""
    text = f"N{number} {command}"
    return f"{text}*{reduce(xor, text.encode(), 0)}\n"


class Rig:
    """A booted printer, its clock and its log."""

    def __init__(self, options: Options | None = None, faults: Faults | None = None, seed: int = 0) -> None:
        self.log: list[tuple[str, str]] = []
        self.now_s = 0.0
        self.firmware = Firmware(options or Options(), faults or Faults(), self._record, seed)
        self.banner = self.firmware.boot(0.0).decode()

    def _record(self, _at_s: float, number: str, text: str) -> None:
        self.log.append((number, text))

    def send(self, text: str) -> list[str]:
        """The lines that come back at once."""
        return self.firmware.feed(text.encode("latin-1"), self.now_s).decode("latin-1").splitlines()

    def wait(self, seconds: float) -> list[str]:
        """The lines that come while so much simulated time passes."""
        self.now_s += seconds
        return self.firmware.advance(self.now_s).decode("latin-1").splitlines()

    def executed(self) -> list[str]:
        """The commands that were carried out."""
        return [text for number, text in self.log if number != "!"]
