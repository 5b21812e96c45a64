"""That a person has accepted a machine's certificate: word of it on the disk before it counts, then in the journal.

`edge machine trust --accept` needs no daemon, and a journal takes no second writer. So word
is left first; a daemon that runs is told to read it, and one that starts reads what is there. Word of an acceptance
that failed is taken back.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

from edge.journal import word
from edge.journal.journal import Journal
from edge.journal.word import Word
from edge.model.event import Draft, EventKind

FOLDER = "trusted-notes"

log = logging.getLogger("edge.trusted")


@dataclass(frozen=True, slots=True)
class Accepted(Word):
    """A certificate that somebody has accepted; `fingerprint` as its plug-in shows it."""

    fingerprint: str


def leave(state_dir: Path, machine: str, actor: str, fingerprint: str, at_wall: str) -> Path:
    """Leave word, durably; where it is. Raises `OSError`."""
    accepted = Accepted(machine, actor, at_wall, secrets.token_hex(8), fingerprint)
    return word.leave(state_dir, FOLDER, accepted.ident, accepted)


async def record(journal: Journal, state_dir: Path) -> int:
    """Make an event of all the word there is, once, and remove it; how many were read. Raises `JournalError`."""
    found = word.read(state_dir, FOLDER, Accepted)
    for path, accepted in found.items():
        body = {"fingerprint": accepted.fingerprint, "at_wall": accepted.at_wall, "note": accepted.ident}
        draft = Draft(EventKind.MACHINE_TRUSTED, accepted.actor, body, machine=accepted.machine)
        await word.record(journal, path, accepted, draft)
        log.warning("%s accepted the certificate %s of %s", accepted.actor, accepted.fingerprint, accepted.machine)
    return len(found)
