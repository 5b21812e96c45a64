"""Making machines safe while no daemon runs, and the notes about it that the next daemon turns into events.

A machine that a person has made safe is out of service: that is noted, durably, before anything is done to it.

Who does it holds the journal's lock, so that no daemon starts meanwhile, and leaves a note for each machine in
`state_dir`/made-safe (`edge.journal.word`).
"""

from __future__ import annotations

import datetime
import json
import logging
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.errors import DriverError
from edge.journal import word
from edge.journal.journal import Journal
from edge.journal.maintenance import MADE_SAFE
from edge.journal.transaction import Transaction
from edge.journal.word import Word
from edge.logs import log_bug
from edge.model.event import Draft, EventKind, stamp_text
from edge.plugins import Equipment

GUARD = "guard"
"""The actor of what the guard does."""

FOLDER = "made-safe"
OUT = "somebody said `edge make-safe` while no daemon ran: it is out of service"
HELD = "making machines safe; try again when it has ended"
"""What stands in the lock file beside the process id."""

log = logging.getLogger("edge.make_safe")


@dataclass(frozen=True, slots=True)
class Made:
    """What came of one machine. Both texts are empty for one that has nothing to make safe."""

    machine: str
    confirmed: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Note(Word):
    """What came of it. `job_id`, `part`, `step` and `run_id` are of the run that was open, if one was.

    With `out_of_service` it says no more than that: somebody is about to make the machine safe.
    """

    confirmed: str
    problem: str
    job_id: str | None = None
    part: int | None = None
    step: str | None = None
    run_id: str | None = None
    out_of_service: bool = False


def all_safe(equipment: Sequence[Equipment], deadline_s: float) -> list[Made]:
    """Each machine by its plug-in, side by side; none of them keeps another from its turn.

    `deadline_s` is a time of the host's monotonic clock.
    """
    if not equipment:
        return []
    with ThreadPoolExecutor(len(equipment), "make-safe") as threads:
        return list(threads.map(lambda item: _one(item, deadline_s), equipment))


def _one(item: Equipment, deadline_s: float) -> Made:
    name = item.machine.id
    try:
        return Made(name, item.plugin.make_safe(item.machine, deadline_s))
    except DriverError as error:
        return Made(name, problem=str(error))
    except Exception as error:  # noqa: BLE001 - a plug-in's bug must not hide what came of the other machines
        return Made(name, problem=f"internal error in the driver {item.machine.driver} ({log_bug(log, error)})")


def leave_note(state_dir: Path, made: Made, actor: str, run: dict[str, Any] | None) -> None:
    """Leave word for the next daemon. A later note about the same run takes an earlier one's place.

    `run` is a row of `views.Snapshot.open_runs`. Raises `OSError`.
    """
    about = {key: run[key] for key in ("job_id", "part", "step", "run_id")} if run is not None else {}
    ident = secrets.token_hex(8)
    note = Note(made.machine, actor, _now(), ident, made.confirmed, made.problem, **about)
    word.leave(state_dir, FOLDER, f"{made.machine}-{note.run_id or ident}", note)


def leave_mark(state_dir: Path, machine: str, actor: str) -> None:
    """Leave word for the next daemon that a machine is out of service from now on. Raises `OSError`."""
    ident = secrets.token_hex(8)
    note = Note(machine, actor, _now(), ident, "", "", out_of_service=True)
    word.leave(state_dir, FOLDER, f"{machine}-out-{ident}", note)


def notes(state_dir: Path) -> dict[Path, Note]:
    """What was left, oldest first."""
    return word.read(state_dir, FOLDER, Note)


async def record_notes(journal: Journal, state_dir: Path) -> None:
    """Make an event of each note, once. Raises `JournalError`."""
    for path, note in notes(state_dir).items():
        await word.record(journal, path, note, event_of(note))
        log.warning("%s: %s", note.machine, OUT if note.out_of_service else told(note))


def event_of(note: Note) -> Draft:
    """The event of a note, or of what a running daemon has done."""
    if note.out_of_service:
        said = {"reason": MADE_SAFE, "made_safe": True, "at_wall": note.at_wall, "note": note.ident}
        return Draft(EventKind.MAINTENANCE_BEGAN, note.actor, said, machine=note.machine)
    body = {"at_wall": note.at_wall, "confirmed": note.confirmed, "problem": note.problem, "note": note.ident}
    return Draft(
        EventKind.MAKE_SAFE, note.actor, body, note.job_id, note.part, note.step, note.run_id, machine=note.machine
    )


def noted(made: Made, actor: str) -> Note:
    """A note that is made now, about no run."""
    return Note(made.machine, actor, _now(), "", made.confirmed, made.problem)


def taken_out(machine: str, actor: str) -> Draft:
    """The event of a machine that a running daemon takes out of service before it makes it safe."""
    return event_of(Note(machine, actor, _now(), "", "", "", out_of_service=True))


def made_safe(transaction: Transaction, machine: str, run_id: str) -> str:
    """Who made the machine of an open run safe, or has tried to, in words; empty if nobody has.

    The guard that has tried, and got no answer, is nobody: the machine may have gone on as it was.
    """
    rows = transaction.connection.execute(
        "SELECT raw FROM events WHERE machine = ? AND kind = ? ORDER BY seq DESC", (machine, EventKind.MAKE_SAFE)
    )
    for (raw,) in rows:
        event = json.loads(raw)
        body = event["body"]
        if event["run_id"] == run_id and body["confirmed"]:
            note = Note(machine, event["actor"], body["at_wall"], "", body["confirmed"], body["problem"])
            return told(replace(note, run_id=run_id))
    out = transaction.maintenance(machine)
    return "somebody had the machine made safe" if out is not None and out.made_safe else ""


def told(note: Note) -> str:
    """A note as a sentence."""
    who = "the guard" if note.actor == GUARD else note.actor
    if note.problem:
        return f"{who} could not make it safe at {note.at_wall}: {note.problem}"
    return f"{who} made it safe at {note.at_wall}: {note.confirmed or 'there was nothing to do'}"


def _now() -> str:
    return stamp_text(datetime.datetime.now(datetime.UTC))
