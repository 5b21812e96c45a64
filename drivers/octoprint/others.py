"""Prints that somebody else has begun in OctoPrint: edge is told of each, since what they made stays on the plate."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from drivers.octoprint import api
from drivers.octoprint.going import SOMEBODY
from edge.driver import ForeignWork


class OthersPrints:
    """`tell` is called once for each print that is seen. OctoPrint has no name for a print, so each gets one here.

    A file in our folder may be of a run from before a restart, which edge asks about only after the print was seen. It
    is somebody else's when its run is known to be over, or if it ends and edge has never asked.
    """

    def __init__(self, tell: Callable[[ForeignWork], None]) -> None:
        self._tell = tell
        self._ours: set[str] = set()  # files of runs that edge has told of, and that are not over
        self._over: set[str] = set()  # and of those that are
        self._path: str | None = None  # what is being printed now, if it is not known to be ours
        self._unclaimed: ForeignWork | None = None  # that print, while it may still turn out to be ours

    def claimed(self, path: str) -> None:
        """A print of this file is a run of ours."""
        self._ours.add(path)
        if path == self._path:
            self._path = self._unclaimed = None

    def over(self, path: str) -> None:
        """The run of this file has ended: who prints it now is somebody else."""
        self._ours.discard(path)
        self._over.add(path)

    def seen(self, job: api.Job) -> None:
        """What OctoPrint is doing."""
        path = job.path if job.active and job.path not in self._ours else None
        if path == self._path:
            return
        if self._unclaimed is not None:
            self._tell(self._unclaimed)
        self._path, self._unclaimed = path, None
        if path is not None:
            what = path or "something"
            work = ForeignWork(secrets.token_hex(16), f"{job.by or SOMEBODY} printed {what} in OctoPrint")
            if path.startswith(f"{api.FOLDER}/") and path not in self._over:
                self._unclaimed = work
            else:
                self._tell(work)
