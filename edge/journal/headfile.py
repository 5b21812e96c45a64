"""The head file: which event the journal must have, written down beside it. Shape in docs/journal.md.

Rules:

    1. It is written after the journal's commit, so a power cut leaves it behind the journal and never ahead of it.
    2. Two records of `SLOT_BYTES` are written in turn, each with its own hash: whatever becomes of the one that is
       being written, the one before it stays. No byte of the file is allocated after it was made, so a full disk does
       not keep it from being written.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from edge.errors import JournalError
from edge.files import replace_file

SLOT_BYTES = 4096
"""What disks and file systems write at once at the most: one record is never the neighbour of the other."""

SLOTS = 2
FILE_MODE = 0o640  # as the journal's

UNKNOWN = "-"

_RECORD = re.compile(
    rb"(?P<signed>microfactory-edge/head/v1 (?P<number>[1-9][0-9]{0,15}) (?P<journal>[0-9a-f]{32})"
    rb" (?P<seq>0|[1-9][0-9]{0,15}) (?P<hash>[0-9a-f]{64}) (?P<boot_id>[0-9a-zA-Z-]{1,64})"
    rb" (?P<floor>-|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z)) (?P<digest>[0-9a-f]{64}) *\n"
)


@dataclass(frozen=True, slots=True)
class Promise:
    """Journal `journal` has event `seq` with `hash`; 0 and 64 zeros for none.

    `number` counts the writes of the file. `boot_id`: in which boot of the host it was written. `floor`: what the
    journal then had as the latest time that has certainly passed, or `UNKNOWN`.
    """

    number: int
    journal: str
    seq: int
    hash: str
    boot_id: str
    floor: str = UNKNOWN

    def record(self) -> bytes:
        """The bytes of one slot."""
        said = f"microfactory-edge/head/v1 {self.number} {self.journal} {self.seq} {self.hash} {self.boot_id}"
        signed = f"{said} {self.floor}".encode("ascii")
        line = signed + b" " + hashlib.sha256(signed).hexdigest().encode("ascii")
        return line.ljust(SLOT_BYTES - 1) + b"\n"


def parse(raw: bytes) -> Promise | None:
    """The newest record of a head file that is whole; None if none is."""
    slots = (raw[at : at + SLOT_BYTES] for at in range(0, SLOTS * SLOT_BYTES, SLOT_BYTES))
    found = [promise for promise in map(_record, slots) if promise is not None]
    return max(found, key=lambda promise: promise.number, default=None)


def _record(slot: bytes) -> Promise | None:
    match = _RECORD.fullmatch(slot)
    if match is None or len(slot) != SLOT_BYTES:
        return None
    if hashlib.sha256(match["signed"]).hexdigest().encode("ascii") != match["digest"]:
        return None
    said = {name: value.decode("ascii") for name, value in match.groupdict().items()}
    seq, number = int(said["seq"]), int(said["number"])
    try:
        if said["floor"] != UNKNOWN:
            datetime.fromisoformat(said["floor"])
    except ValueError:
        return None
    return Promise(number, said["journal"], seq, said["hash"], said["boot_id"], said["floor"])


class HeadFile:
    """The head file at `path`. `promise` is what it says; `problem` why that is nothing, where a file is there."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        """`durable` waits for the disk with each write; a file that is gone with the boot needs none."""
        self.path = path
        self.promise: Promise | None = None
        self.problem = ""
        self._durable = durable
        self._descriptor = -1

    def read(self) -> None:
        """Look what it says."""
        self.promise, self.problem = None, ""
        try:
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                self.promise = parse(file.read(SLOTS * SLOT_BYTES))
        except FileNotFoundError:
            return
        except OSError as error:
            self.problem = f"cannot be read ({error.strerror})"
        else:
            self.problem = "" if self.promise is not None else "is damaged"

    def write(self, promise: Promise) -> None:
        """Say `promise` from now on, under the next number.

        Raises:
            JournalError: nobody knows what the file says now.
        """
        number = 1 if self.promise is None else self.promise.number + 1
        told = replace(promise, number=number)
        try:
            if self.promise is None:
                self.close()
                blank = b" " * (SLOT_BYTES - 1) + b"\n"
                slots = [blank, blank]
                slots[number % SLOTS] = told.record()
                replace_file(self.path, b"".join(slots), mode=FILE_MODE)
            else:
                self._write_slot(told.record(), number % SLOTS)
        except OSError as error:
            raise JournalError(f"{self.path} cannot be written: {error.strerror}") from error
        self.promise, self.problem = told, ""

    def _write_slot(self, record: bytes, slot: int) -> None:
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.pwrite(self._descriptor, record, slot * SLOT_BYTES) != len(record):
            raise JournalError(f"{self.path} cannot be written: the disk took a part of it only")
        if self._durable:
            os.fdatasync(self._descriptor)  # its size never changes

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
