"""A simulated grblHAL on a bench of its own: no wire, and time passes when a test says so."""

from __future__ import annotations

from hil_sim.grbl.firmware import Firmware, Options


class GrblRig:
    """A booted controller, its clock and its log."""

    def __init__(self, options: Options | None = None) -> None:
        self.log: list[tuple[str, str]] = []
        self.now_s = 0.0
        self.firmware = Firmware(options or Options(), self._record)
        self.banner = self.firmware.boot(0.0).decode()

    def _record(self, _at_s: float, number: str, text: str) -> None:
        self.log.append((number, text))

    def send(self, text: str) -> list[str]:
        """The lines that come back at once."""
        return self.firmware.feed(text.encode("latin-1"), self.now_s).decode().split("\r\n")[:-1]

    def wait(self, seconds: float) -> list[str]:
        """The lines that come while so much simulated time passes."""
        self.now_s += seconds
        return self.firmware.advance(self.now_s).decode().split("\r\n")[:-1]

    def state(self) -> str:
        """What a status report calls the machine now."""
        (report,) = self.send("?")
        return report.strip("<>").split("|")[0]

    def executed(self) -> list[str]:
        """The lines that were carried out."""
        return [text for number, text in self.log if number != "!"]
