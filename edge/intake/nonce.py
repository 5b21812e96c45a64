"""The nonces that a signed time may answer: kept over restarts, since a person may carry the answer for hours.

Rules

1. What is shown to a person was made a few minutes ago at most: the time between its making and its answer is how wrong
   the answer may be (`edge.timefloor`, rule 4). Those that were shown before stay good, so that asking twice spoils
   nothing.
2. A nonce is good for one answer, for `ANSWER_MAX_S`, and until the host is booted. An accepted answer uses up every
   nonce that was made before it came: the journal says so, whatever became of the file.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from edge.clock import SystemClock
from edge.files import replace_file
from edge.timefloor import ANSWER_MAX_S, Known
from edge.trust.signedtime import NONCE_BYTES

FILE_NAME = "time-nonce.json"

FRESH_S = 600.0
"""How old a nonce may be to be shown."""


@dataclass(frozen=True, slots=True)
class Nonce:
    """`mono_s` is the host's monotonic clock when it was made, of the boot `boot_id`."""

    value: str
    mono_s: float
    boot_id: str

    def is_used(self, known: Known) -> bool:
        """Whether an answer to this or to a later one was accepted."""
        signed = known.signed
        if signed is None or signed.boot_id != self.boot_id:
            return False
        return int(self.mono_s * 1000) <= round(signed.arrived_mono_s * 1000)  # as events round it


class NonceFile:
    """The nonces that wait for an answer, and the file that they are kept in."""

    def __init__(self, clock: SystemClock, path: Path | None = None) -> None:
        """Without `path` they are gone with the process."""
        self._clock = clock
        self._path = path
        self._nonces: tuple[Nonce, ...] = ()

    @classmethod
    def open(cls, state_dir: Path, clock: SystemClock) -> Self:
        """Those of this site that can be read; a file that cannot be is as good as none."""
        made = cls(clock, state_dir / FILE_NAME)
        made._nonces = _read(state_dir / FILE_NAME)
        return made

    def waiting(self) -> Sequence[Nonce]:
        """Those whose answer can still vouch for the clock, the newest last."""
        boot_id, now_s = self._clock.boot_id, self._clock.since_boot_s()
        good = (n for n in self._nonces if n.boot_id == boot_id and 0 <= now_s - n.mono_s <= ANSWER_MAX_S)
        return tuple(nonce for nonce in good if not nonce.is_used(self._clock.known))

    def to_show(self) -> Nonce:
        """One for a person to take along; durable. Raises `OSError`."""
        waiting, now_s = self.waiting(), self._clock.since_boot_s()
        if waiting and now_s - waiting[-1].mono_s <= FRESH_S:
            return waiting[-1]
        made = Nonce(secrets.token_hex(NONCE_BYTES), now_s, self._clock.boot_id)
        nonces = (*waiting, made)
        if self._path is not None:
            replace_file(self._path, json.dumps([asdict(nonce) for nonce in nonces]).encode())
        self._nonces = nonces
        return made


def _read(path: Path) -> tuple[Nonce, ...]:
    try:
        kept = json.loads(path.read_bytes())
        return tuple(Nonce(str(one["value"]), float(one["mono_s"]), str(one["boot_id"])) for one in kept)
    except (OSError, ValueError, TypeError, KeyError):
        return ()
