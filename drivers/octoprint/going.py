"""One run at an OctoPrint: what is asked of it, what people and printer were seen to do with it, and how it ended."""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from drivers.analysis import command_on
from drivers.octoprint import api
from edge.driver import Json, Motion, Outcome, OutcomeKind

PRINTER = "the printer"
SOMEBODY = "somebody"
"""Where OctoPrint does not say who it was."""


def ends_of(lines: Iterable[bytes]) -> array[int]:
    """Where each command of a program ends, in bytes from its beginning: what `filepos` is held against."""
    ends = array("Q")
    position = 0
    for line in lines:
        position += len(line)
        if command_on(line.decode("utf-8", "replace")):
            ends.append(position)
    return ends


@dataclass(slots=True)
class Going:
    """A run. `stop_asked`, `pause_asked`: by us. `we`: the name of our key's user.

    `begun`: OctoPrint prints it, or never will.
    """

    path: str
    we: str
    ends: array[int] = field(default_factory=lambda: array("Q"))
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    stop_asked: bool = False
    pause_asked: bool = False
    done: int = 0
    paused_by: str = ""
    cancelled_by: str = ""
    error: str = ""

    @property
    def total(self) -> int:
        """Commands of the program."""
        return len(self.ends)

    @property
    def explained(self) -> bool:
        """Whether it is known why the print did not come to its end."""
        return bool(self.stop_asked or self.cancelled_by or self.error)

    def of_another(self, job: api.Job) -> str:
        """Why what is printed of this file is not this run, in words; empty if nothing says so.

        OctoPrint forgets a print in which it was killed, and then anybody may begin the file again.
        """
        if not job.active or job.path != self.path or job.by in ("", self.we):
            return ""
        return f"{job.by} has begun {self.path} again in OctoPrint, which has no record of how the print ended"

    def came_to(self, filepos: int) -> int:
        """How many commands were sent to the printer by `filepos`. Never goes back: old news may come late."""
        self.done = max(self.done, bisect_right(self.ends, filepos))
        return self.done

    def saw(self, event: api.Occurred) -> str:
        """Remember who did what to the print; words for people, empty if it is nothing new to them."""
        if event.kind == "Error":
            self.error = event.error or event.reason
            return f"error: {self.error}"
        if event.kind == "FilamentChange":
            self.paused_by = f"{PRINTER}, for new filament"
            return "the printer wants new filament"
        if event.path != self.path:
            return ""
        match event.kind:
            case "PrintPaused":
                who = self._who(event, self.pause_asked)
                if not (who == PRINTER and self.paused_by):  # it has said more than that just before
                    self.paused_by = who
                return f"paused by {self.paused_by}"
            case "PrintResumed":
                self.paused_by = ""
                return f"resumed by {self._who(event, ours=not self.pause_asked)}"
            case "PrintCancelling" | "PrintCancelled":
                # `user` is absent when the printer did it (octoprint/printer/standard.py).
                self.cancelled_by = self._who(event, self.stop_asked)
                return f"cancelled by {self.cancelled_by}"
            case "PrintFailed" if event.reason != "cancelled":
                if event.error not in ("", "unknown"):
                    self.error = event.error
                self.error = self.error or "OctoPrint does not say why"
                return f"failed: {self.error}"
        return ""

    def held(self) -> str:
        """Why the print is held."""
        return f"paused by {self.paused_by or SOMEBODY} in OctoPrint"

    def ended(self, prints: api.Prints, job: api.Job | None) -> Outcome:
        """What OctoPrint's record of the file says; `job` as it was last seen. There must be a record."""
        evidence: dict[str, Json] = {
            "path": self.path,
            "prints": {"success": prints.success, "failure": prints.failure},
        }
        if prints.print_time_s is not None:
            evidence["print_time_s"] = round(prints.print_time_s, 1)
        if prints.total > 1:
            return unknown(f"{self.path} was printed {prints.total} times, and once was asked for", evidence)
        if prints.success:
            return Outcome(OutcomeKind.SUCCEEDED, Motion.POSSIBLE, "OctoPrint has printed it to its end", evidence)
        if self.stop_asked:
            return Outcome(OutcomeKind.STOPPED, Motion.POSSIBLE, "stopped on request", evidence)
        if self.cancelled_by:
            evidence["cancelled_by"] = self.cancelled_by
            return Outcome(
                OutcomeKind.STOPPED, Motion.POSSIBLE, f"cancelled by {self.cancelled_by} in OctoPrint", evidence
            )
        if error := self.error or (job.error if job is not None else ""):
            return Outcome(OutcomeKind.FAILED, Motion.POSSIBLE, f"the print failed: {error}", evidence)
        reason = "OctoPrint says that the print was cancelled or has failed, and not why"
        return Outcome(OutcomeKind.FAILED, Motion.POSSIBLE, reason, evidence)

    def _who(self, event: api.Occurred, ours: bool) -> str:
        if not event.user:
            return PRINTER
        return "this site" if event.user == self.we and ours else event.user


def unknown(reason: str, evidence: dict[str, Json]) -> Outcome:
    """Nobody knows how it ended."""
    return Outcome(OutcomeKind.UNKNOWN, Motion.POSSIBLE, reason, evidence)
