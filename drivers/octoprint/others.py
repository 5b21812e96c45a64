"""A print that somebody else has begun in OctoPrint: what it left is on the plate, until a person says otherwise.

edge knows only of runs of its own what needs clearing. So this is kept here: a note in the machine's directory, which
outlives the daemon, and which the person who has taken the part off removes.
"""

from __future__ import annotations

from pathlib import Path

from drivers.octoprint import api

NOTE = "somebody-printed.txt"


class OthersPrint:
    """`folder` is the machine's own directory."""

    def __init__(self, folder: Path) -> None:
        self._note = folder / NOTE
        self._over: set[str] = set()  # files of ours whose run is over: who prints them now is somebody else

    def ours_is_over(self, path: str) -> None:
        self._over.add(path)

    def seen(self, job: api.Job) -> None:
        """A print is going on that is not the run of this moment. One of ours may be left from before a restart."""
        ours = job.path.startswith(f"{api.FOLDER}/") and job.path not in self._over
        if not ours and not self._note.exists():
            what = job.path or "something"
            self._note.write_text(f"{job.by or 'somebody'} printed {what} in OctoPrint\n", encoding="utf-8")

    def words(self) -> str:
        """Why nothing may be started; empty if the plate is clear as far as is known here."""
        try:
            said = self._note.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        return f"{said}: take it off, then remove {self._note}"
