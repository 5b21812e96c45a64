"""Word that is left for the daemon while nobody else may write to the journal: a small file each, an event once.

A file is there whole or not at all, and on the disk before what it tells counts. The daemon makes an event of it and
then removes it. A file that is no such word is set aside and told; it keeps no other from being recorded.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from edge.files import give, replace_file, sync_directory
from edge.journal.journal import Journal
from edge.journal.transaction import Transaction
from edge.model.event import Draft

FILE_MODE = 0o640

log = logging.getLogger("edge.word")


@dataclass(frozen=True, slots=True)
class Word:
    """Who did something to a machine, and when by their clock. `ident` is the word's own; its event's body names it."""

    machine: str
    actor: str
    at_wall: str
    ident: str


W = TypeVar("W", bound=Word)


def leave(state_dir: Path, folder: str, name: str, word: Word) -> Path:
    """Leave word in a folder of the state directory, durably; where it is. One of the same name is replaced.

    Raises `OSError`.
    """
    place, owner = state_dir / folder, state_dir.stat()
    place.mkdir(exist_ok=True)
    give(place, owner)  # who reads and removes what is in it is the daemon
    sync_directory(state_dir)  # also if the folder is there: who made it may have been killed before this
    path = place / f"{name}.json"
    replace_file(path, json.dumps(asdict(word)).encode(), mode=FILE_MODE, owner=owner)
    return path


def read(state_dir: Path, folder: str, kind: type[W]) -> dict[Path, W]:
    """What was left, oldest first. A file that is no `kind` is set aside and told."""
    read = {path: _read(path, kind) for path in (state_dir / folder).glob("*.json")}
    found = [(path, word) for path, word in read.items() if word is not None]
    return dict(sorted(found, key=lambda item: item[1].at_wall))


def _read(path: Path, kind: type[W]) -> W | None:
    try:
        raw = path.read_bytes()
        try:
            return kind(**json.loads(raw))
        except (ValueError, TypeError) as error:
            log.error("%s cannot be understood, and is set aside: %s", path, error)
            path.rename(path.with_suffix(".unread"))
    except FileNotFoundError:
        pass  # recorded and removed meanwhile
    except OSError as error:
        log.error("%s cannot be read and set aside: %s", path, error.strerror)
    return None


async def record(journal: Journal, path: Path, word: Word, draft: Draft) -> None:
    """Make `draft` an event, once, also if a daemon died between the event and the file's removal.

    Raises `JournalError`.
    """

    def write(transaction: Transaction) -> None:
        known = transaction.connection.execute(
            "SELECT 1 FROM events WHERE machine = ? AND kind = ? AND instr(raw, ?)",
            (word.machine, draft.kind, word.ident.encode()),
        )
        if known.fetchone() is None:
            transaction.record(draft)

    await journal.transact(write)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.error("%s is in the journal now, and cannot be removed: %s", path, error.strerror)
