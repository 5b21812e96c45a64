"""What a simulated OctoPrint does with its printer: a job that goes on by time, and the states and events of it.

The printer itself is as simple as can be: each command takes the same time, and heaters are at once as warm as told.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

from hil_sim.octoprint.files import Files

Tell = Callable[[str, dict[str, Any] | None], None]

END_SCRIPT = ("M104 S0", "M140 S0", "M84")
"""What OctoPrint sends after a cancel (octoprint/templates, snippets `disable_hotends` and `disable_bed`)."""

_HEAT = re.compile(r"M(104|109|140|190) S([\d.]+)")
_NOT_A_WORD = re.compile(r"\s+")


class Printing:
    """One job at a time. `tell` is called for each event; `record` for each command that the printer carries out."""

    def __init__(
        self, files: Files, commands_per_s: float, newer: bool, tell: Tell, record: Callable[[str], None]
    ) -> None:
        self._files = files
        self._pause_s = 1.0 / commands_per_s
        self._newer = newer
        self._tell = tell
        self._record = record
        self.state = "Operational"
        self.error = ""
        self.selected: str | None = None
        self.user: str | None = None
        self.position: int | None = None
        self.targets = {"tool0": 0.0, "bed": 0.0}
        self._began_s = 0.0
        self._seconds: float | None = None
        self._job: asyncio.Task[None] | None = None
        self._going_on = asyncio.Event()

    @property
    def busy(self) -> bool:
        return self._job is not None

    @property
    def connected(self) -> bool:
        return not self.state.startswith(("Offline", "Error"))

    # What is asked of it

    def start(self, path: str, user: str) -> None:
        self.selected, self.user, self.position = path, user, 0
        self._event("FileSelected", user=user)
        self._going_on.set()
        self._began_s = time.monotonic()
        self._become("Starting")
        self._event("PrintStarted", user=None if self._newer else user)
        self._job = asyncio.create_task(self._print(path), name=f"print {path}")

    def pause(self, user: str | None) -> None:
        if self.state == "Printing":
            self._going_on.clear()
            self._become("Pausing")
            self._event("PrintPaused", user=user)

    def resume(self, user: str | None) -> None:
        if self.state == "Paused":
            self._become("Resuming")
            self._event("PrintResumed", user=user)
            self._become("Printing")
            self._going_on.set()

    def cancel(self, user: str | None) -> None:
        if self._job is not None and self.state != "Cancelling":
            self._become("Cancelling")
            self._event("PrintCancelling", user=user)
            self._job.cancel()
            self._job = asyncio.create_task(self._cancelled(user), name="cancel")

    def command(self, text: str) -> None:
        """One command by hand."""
        self._carry_out(text)
        if text == "M112":
            self.fail("printer halted", "Offline after error")

    def heat(self, name: str, target_degc: float) -> None:
        code = "M140" if name == "bed" else "M104"
        self._carry_out(f"{code} S{target_degc:g}")

    def fail(self, error: str, state: str) -> None:
        """The printer, or the way to it, has failed; an empty error is a line that was pulled."""
        printed = self._job is not None
        if self._job is not None:
            self._job.cancel()
            self._job = None
        if error:
            self._tell("Error", {"error": error, "reason": "firmware"})
        if printed and self.selected is not None:
            self._files.count(self.selected, success=False, seconds=0.0)
            self._event("PrintFailed", reason="error", error="unknown" if self._newer else error)
        self.error = "" if self._newer else error
        self.selected = self.position = None
        self._tell("Disconnected", None)
        self._become(state)

    def connect(self) -> None:
        if not self.connected:
            self.error = ""
            self._become("Connecting")
            self._become("Operational")
            self._tell("Connected", {"port": "SIM", "baudrate": 115200})

    def forget(self) -> None:
        """As after kill -9: the print is over, and there is no record of it. The printer keeps its heat."""
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self.selected = self.position = self.user = None
        self.state, self.error = "Operational", ""

    # How it is shown

    def job(self) -> dict[str, Any]:
        size = self._files.place(self.selected).stat().st_size if self._there() and self.selected else None
        name = self.selected.rpartition("/")[2] if self.selected else None
        file = {"name": name, "path": self.selected, "origin": "local" if name else None, "size": size}
        completion = None if self.position is None or not size else 100.0 * self.position / size
        seconds = None if self.position is None else int(self._seconds or time.monotonic() - self._began_s)
        progress = {"completion": completion, "filepos": self.position, "printTime": seconds, "printTimeLeft": None}
        return {"job": {"file": file, "user": self.user}, "progress": progress}

    def temperatures(self) -> dict[str, Any]:
        return {name: {"actual": degc or 21.3, "target": degc, "offset": 0} for name, degc in self.targets.items()}

    def _there(self) -> bool:
        return self.selected is not None and self._files.place(self.selected).exists()

    async def _print(self, path: str) -> None:
        with self._files.place(path).open("rb") as file:
            await asyncio.sleep(self._pause_s)
            self._become("Printing")
            for line in file:
                if not self._going_on.is_set():
                    self._become("Paused")
                    await self._going_on.wait()
                command = line.split(b";")[0].strip().decode("latin-1")
                if command:
                    self._carry_out(command)
                    await asyncio.sleep(self._pause_s)
                self.position = file.tell() if not file.closed else self.position
                if command.startswith("M600"):
                    self._tell("FilamentChange", None)
                    self.pause(None)
        self._become("Finishing")
        self._seconds = time.monotonic() - self._began_s
        self._files.count(path, success=True, seconds=self._seconds)
        self._event("PrintDone", time=self._seconds)
        self._tell("MetadataStatisticsUpdated", {"storage": "local", "path": path})
        self._job = None
        self._become("Operational")

    async def _cancelled(self, user: str | None) -> None:
        await asyncio.sleep(self._pause_s)
        for command in END_SCRIPT:
            self._carry_out(command)
        path = self.selected or ""
        self._files.count(path, success=False, seconds=0.0)
        self._event("PrintCancelled", user=user, reason="cancelled")
        self._event("PrintFailed", user=user, reason="cancelled")
        self.position = None
        self._job = None
        self._become("Operational")

    def _carry_out(self, command: str) -> None:
        self._record(command)
        if heat := _HEAT.match(_NOT_A_WORD.sub(" ", command)):
            self.targets["tool0" if heat[1] in ("104", "109") else "bed"] = float(heat[2])

    def _become(self, state: str) -> None:
        self.state = state
        self._tell("PrinterStateChanged", {"state_id": state.upper(), "state_string": state})

    def _event(self, kind: str, user: str | None = None, **more: Any) -> None:
        """Of the job. `user` is absent where nobody did it."""
        path = self.selected or ""
        payload = {"name": path.rpartition("/")[2], "path": path, "origin": "local", **more}
        if not self._newer:
            payload["owner"] = self.user
        self._tell(kind, payload | ({} if user is None else {"user": user}))
