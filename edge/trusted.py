"""That a person has accepted a machine's certificate: word of it on the disk before it counts, then in the journal.

`edge machine trust --accept` needs no daemon, and a journal takes no second writer. So word
is left first; a daemon that runs is told to read it, and one that starts reads what is there. Word of an acceptance
that failed is taken back.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from edge import folders
from edge.journal import Journal
from edge.model.event import Draft, EventKind
from edge.transaction import Transaction

FOLDER = "trusted-notes"

log = logging.getLogger("edge.trusted")


@dataclass(frozen=True, slots=True)
class Word:
    """Who accepted which certificate of which machine, and when by their clock."""

    machine: str
    actor: str
    fingerprint: str
    at_wall: str
    ident: str


def leave(state_dir: Path, machine: str, actor: str, fingerprint: str, at_wall: str) -> Path:
    """Leave word, durably; where it is. Raises `OSError`."""
    word = Word(machine, actor, fingerprint, at_wall, secrets.token_hex(8))
    return folders.leave_word(state_dir, FOLDER, word.ident, asdict(word))


async def record(journal: Journal, state_dir: Path) -> int:
    """Make an event of all the word there is, once, and remove it; how many were read. Raises `JournalError`."""
    count = 0
    folder = state_dir / FOLDER
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            word = Word(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            log.error("%s cannot be understood, and is set aside: %s", path, error)
            path.rename(path.with_suffix(".unread"))
            continue
        await journal.transact(_recording(word))
        log.warning("%s accepted the certificate %s of %s", word.actor, word.fingerprint, word.machine)
        path.unlink(missing_ok=True)
        count += 1
    return count


def _recording(word: Word) -> Callable[[Transaction], None]:
    def write(transaction: Transaction) -> None:
        known = transaction.connection.execute(
            "SELECT 1 FROM events WHERE machine = ? AND kind = ? AND instr(raw, ?)",
            (word.machine, EventKind.MACHINE_TRUSTED, word.ident.encode()),
        )
        if known.fetchone() is None:
            body = {"fingerprint": word.fingerprint, "at_wall": word.at_wall, "note": word.ident}
            transaction.record(Draft(EventKind.MACHINE_TRUSTED, word.actor, body, machine=word.machine))

    return write
