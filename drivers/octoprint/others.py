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
        self._ours: set[str] = set()  # files of runs that edge has told of, and that are not over
        self._unclaimed = ""  # what was printed from our folder, and edge has not told of; empty if nothing

    def claimed(self, path: str) -> None:
        """A print of this file is a run of ours: edge may tell of one from before a restart only after it was seen."""
        self._ours.add(path)
        if self._unclaimed == path:
            self._unclaimed = ""
            self._note.unlink(missing_ok=True)

    def over(self, path: str) -> None:
        """The run of this file has ended: who prints it now is somebody else."""
        self._ours.discard(path)

    def seen(self, job: api.Job) -> None:
        """What OctoPrint is doing."""
        if job.active and job.path not in self._ours and not self._note.exists():
            if job.path.startswith(f"{api.FOLDER}/"):
                self._unclaimed = job.path
            what = job.path or "something"
            self._note.write_text(f"{job.by or 'somebody'} printed {what} in OctoPrint\n", encoding="utf-8")

    def words(self) -> str:
        """Why nothing may be started; empty if the plate is clear as far as is known here."""
        try:
            said = self._note.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""
        return f"{said}: take it off, then remove {self._note}"
