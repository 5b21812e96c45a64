"""The nonce that a signed time has to answer: kept over restarts, since a person may carry the answer for hours.

One nonce stands at a time. It is used up right before its answer is accepted: a power cut in between costs that answer,
and no answer counts twice. After a restart of the host an answer still tells what has passed, and vouches for nothing.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from edge.clock import SystemClock
from edge.trust.files import replace_file
from edge.trust.signedtime import NONCE_BYTES

FILE_NAME = "time-nonce.json"


@dataclass(frozen=True, slots=True)
class Nonce:
    """`mono_s` is the host's monotonic clock when it was made, of the boot `boot_id`."""

    value: str
    mono_s: float
    boot_id: str


class NonceFile:
    """The nonce that stands, and the file that it is kept in."""

    def __init__(self, current: Nonce, path: Path | None) -> None:
        self.current = current
        self._path = path

    @classmethod
    def in_memory(cls, clock: SystemClock) -> Self:
        """One that is gone with the process."""
        return cls(_made(clock), None)

    @classmethod
    def open(cls, state_dir: Path, clock: SystemClock) -> Self:
        """The nonce of this site; a new one if there is none, or none that can be read. Raises `OSError`."""
        path = state_dir / FILE_NAME
        kept = _read(path)
        made = cls(kept or _made(clock), path)
        if kept is None:
            made._stand(made.current)
        return made

    def renew(self, clock: SystemClock) -> None:
        """The nonce that stands was answered. Raises `OSError`, and then it still stands."""
        self._stand(_made(clock))

    def _stand(self, nonce: Nonce) -> None:
        if self._path is not None:
            replace_file(self._path, json.dumps(asdict(nonce)).encode())
        self.current = nonce


def _made(clock: SystemClock) -> Nonce:
    return Nonce(secrets.token_hex(NONCE_BYTES), clock.mono_s(), clock.boot_id)


def _read(path: Path) -> Nonce | None:
    try:
        kept = json.loads(path.read_bytes())
        return Nonce(str(kept["value"]), float(kept["mono_s"]), str(kept["boot_id"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
