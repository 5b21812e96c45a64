"""The job orders of one machine (OPC 10031-4, ISA-95 job control 2.0). No I/O.

`TABLE` is the whole of what may follow what; a missing entry is refused with *invalid status*. The bits of a return
status are those of 10031-4, B.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum, IntFlag
from typing import Any

MAX_JOBS = 16


class JobState(IntEnum):
    """Numbers of ISA95JobOrderReceiverObjectType."""

    NOT_ALLOWED_TO_START = 1
    ALLOWED_TO_START = 2
    RUNNING = 3
    INTERRUPTED = 4
    ENDED = 5
    ABORTED = 6


class Status(IntFlag):
    """ReturnStatus."""

    OK = 1 << 0
    UNKNOWN_ID = 1 << 1
    INVALID_STATUS = 1 << 3
    CANNOT_ACCEPT = 1 << 4
    INVALID_REQUEST = 1 << 32


HELD, SUSPENDED, COMPLETED, CLOSED, WAITING, LOADED = "Held", "Suspended", "Completed", "Closed", "Waiting", "Loaded"
SUBSTATES = {HELD: 1, SUSPENDED: 2, COMPLETED: 1, CLOSED: 2, WAITING: 1, "Ready": 2, LOADED: 3}

_S = JobState
TABLE: dict[tuple[JobState, str], tuple[JobState, str]] = {
    (_S.NOT_ALLOWED_TO_START, "Start"): (_S.ALLOWED_TO_START, WAITING),
    (_S.NOT_ALLOWED_TO_START, "Update"): (_S.NOT_ALLOWED_TO_START, WAITING),
    (_S.NOT_ALLOWED_TO_START, "Abort"): (_S.ABORTED, ""),
    (_S.ALLOWED_TO_START, "RevokeStart"): (_S.NOT_ALLOWED_TO_START, WAITING),
    (_S.ALLOWED_TO_START, "begins"): (_S.RUNNING, ""),
    (_S.ALLOWED_TO_START, "Update"): (_S.ALLOWED_TO_START, WAITING),
    (_S.ALLOWED_TO_START, "Abort"): (_S.ABORTED, ""),
    (_S.RUNNING, "Pause"): (_S.INTERRUPTED, HELD),
    (_S.RUNNING, "is interrupted"): (_S.INTERRUPTED, SUSPENDED),
    (_S.RUNNING, "Stop"): (_S.ENDED, CLOSED),
    (_S.RUNNING, "ends"): (_S.ENDED, COMPLETED),
    (_S.RUNNING, "Abort"): (_S.ABORTED, ""),
    (_S.INTERRUPTED, "Resume"): (_S.RUNNING, ""),
    (_S.INTERRUPTED, "Stop"): (_S.ENDED, CLOSED),
    (_S.INTERRUPTED, "Abort"): (_S.ABORTED, ""),
}


@dataclass
class Job:
    """One job order and where it stands."""

    job_id: str
    order: Any
    """As the client gave it."""
    work_master: str
    state: JobState
    substate: str
    began_at: datetime | None = None
    ended_at: datetime | None = None


class Jobs:
    """The list of job orders, in the order in which they came."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.moved: list[tuple[Job, Job]] = []
        """Those that moved since somebody looked, each with a copy of what it was right after the move."""
        self.changed = False
        """Some have been removed."""

    def find(self, *states: JobState) -> Job | None:
        """The oldest that is in one of these states."""
        return next((job for job in self.jobs.values() if job.state in states), None)

    @property
    def active(self) -> Job | None:
        """The one whose program the machine has in its hands."""
        return self.find(JobState.RUNNING, JobState.INTERRUPTED)

    def store(self, job_id: str, order: Any, work_master: str, *, known: bool, start: bool) -> Status:
        """Take a job order; `known`: there is such a program. `start`: it may begin."""
        if not job_id or not work_master:
            return Status.INVALID_REQUEST
        if job_id in self.jobs or not known or len(self.jobs) >= MAX_JOBS:
            return Status.CANNOT_ACCEPT
        state = JobState.ALLOWED_TO_START if start else JobState.NOT_ALLOWED_TO_START
        self.jobs[job_id] = job = Job(job_id, order, work_master, state, WAITING)
        self._note(job)
        return Status.OK

    def allows(self, job_id: str, verb: str) -> Status:
        """Whether `move` would."""
        job = self.jobs.get(job_id)
        if job is None:
            return Status.UNKNOWN_ID
        return Status.OK if (job.state, verb) in TABLE else Status.INVALID_STATUS

    def move(self, job_id: str, verb: str, at: datetime) -> Status:
        """One step along `TABLE`."""
        status = self.allows(job_id, verb)
        if status is not Status.OK:
            return status
        job = self.jobs[job_id]
        job.state, job.substate = TABLE[job.state, verb]
        if job.state is JobState.RUNNING:
            job.began_at = job.began_at or at
        elif job.state in (JobState.ENDED, JobState.ABORTED):
            job.ended_at = at
        self._note(job)
        return Status.OK

    def remove(self, job_id: str, verb: str) -> Status:
        """Cancel one that has not begun, or Clear one that is over."""
        job = self.jobs.get(job_id)
        if job is None:
            return Status.UNKNOWN_ID
        waiting = (JobState.NOT_ALLOWED_TO_START, JobState.ALLOWED_TO_START)
        over = (JobState.ENDED, JobState.ABORTED)
        if job.state not in (waiting if verb == "Cancel" else over):
            return Status.INVALID_STATUS
        del self.jobs[job_id]
        self.changed = True
        return Status.OK

    def forget(self) -> None:
        """As a controller without power does: no list, and no results."""
        self.jobs.clear()
        self.moved.clear()
        self.changed = True

    def _note(self, job: Job) -> None:
        self.moved.append((job, replace(job)))
