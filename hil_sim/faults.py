"""What can go wrong, on purpose: named on the command line as `--fault NAME[=ARG]`, any number of times.

| name | argument | what happens |
|---|---|---|
| `cancel-after` | N | after N executed commands somebody cancels at the display: the host is asked to |
| `corrupt` | share, 0 to 1 | this share of the incoming lines has one bit flipped before the firmware sees them |
| `die-after` | N | the board resets after N executed commands: banner, line counter 0, heaters off |
| `drop-ok` | N | the Nth `ok` of a numbered line is never sent |
| `garble` | share, 0 to 1 | this share of the lines that the printer sends has one bit flipped on its way |
| `halt-after` | N | after N executed commands thermal protection kills the firmware, which is silent from then on |
| `lose-answers` | N | the first N answers to a question (`M108`, `M876`) never arrive |
| `no-ok-after-resend` | | `Resend: n` comes without an `ok` after it, as some firmware does |
| `pause-after` | N | after N executed commands somebody presses Pause at the display, and Resume a minute later |
| `run-out-after` | N | after N executed commands the filament runs out: the firmware pauses, and carries out an M600 |
| `sd-print-after` | N | after N executed commands somebody starts a print from the SD card, of ten minutes |
| `silent-after` | N | after N executed commands the firmware hangs: reads, does and answers nothing until a reset |

A router has those of `GRBL_NAMES`, where N counts blocks and `ok`s of any line, and one of its own:

| name | argument | what happens |
|---|---|---|
| `alarm-after` | N | a limit switch is hit after N executed blocks: ``ALARM:1``, and nothing more until a reset |

The commands are counted from the start of the simulator, over resets; each counted fault happens once.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

_PIECE = re.compile(rb"[^\r\n]+|[\r\n]")


class FaultError(ValueError):
    """A fault that does not exist, or an argument that does not fit it; the text is for the person who typed it."""


@dataclass(frozen=True)
class Faults:
    """The faults of one run; the defaults are none. Field names are the fault names with `_` for `-`."""

    corrupt: float = 0.0
    garble: float = 0.0
    die_after: int | None = None
    drop_ok: int | None = None
    halt_after: int | None = None
    lose_answers: int | None = None
    no_ok_after_resend: bool = False
    sd_print_after: int | None = None
    silent_after: int | None = None
    run_out_after: int | None = None
    pause_after: int | None = None
    cancel_after: int | None = None
    alarm_after: int | None = None

    @classmethod
    def parse(cls, texts: Iterable[str], names: Sequence[str] = ()) -> Faults:
        """From `NAME` or `NAME=ARG` texts, of which the machine has `names` (a printer's); raises `FaultError`."""
        names = names or NAMES
        values: dict[str, float | int | bool] = {}
        for text in texts:
            name, _, argument = text.partition("=")
            key = name.replace("-", "_")
            if name not in names:
                raise FaultError(f"no fault is called {name!r}; there are {', '.join(names)}")
            if key == "no_ok_after_resend":
                if argument:
                    raise FaultError(f"fault {name} takes no argument")
                values[key] = True
            elif key in ("corrupt", "garble"):
                values[key] = _share(name, argument)
            else:
                values[key] = _count(name, argument)
        return cls(**values)  # type: ignore[arg-type]  # the loop has given each field its type


GRBL_NAMES = ("alarm-after", "die-after", "drop-ok", "silent-after")
NAMES = tuple(name for f in fields(Faults) if (name := f.name.replace("_", "-")) != "alarm-after")
"""Those of a printer."""


def _share(name: str, argument: str) -> float:
    try:
        share = float(argument)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise FaultError(f"fault {name} needs a share between 0 and 1, like {name}=0.01")
    return share


def _count(name: str, argument: str) -> int:
    if not (argument.isascii() and argument.isdigit() and int(argument) > 0):
        raise FaultError(f"fault {name} needs a count from 1, like {name}=100")
    return int(argument)


class LineNoise:
    """Flips one bit in one byte of some lines, as a bad cable does. The line end itself is spared.

    A flipped bit may itself make a line end (`*` is one bit away from it): then the firmware sees two short lines.
    """

    def __init__(self, share: float, seed: int) -> None:
        """`share` of the lines, 0 to 1; the same `seed` and the same input give the same noise."""
        self._share = share
        self._random = random.Random(seed)
        self._at_line_start = True

    def disturb(self, data: bytes) -> bytes:
        """The bytes as the firmware gets them. Of a line that comes in several reads, the first part is disturbed."""
        parts: list[bytes] = []
        for part in _PIECE.findall(data):
            if part in b"\r\n":
                self._at_line_start = True
                parts.append(part)
                continue
            if self._at_line_start and self._random.random() < self._share:
                damaged = bytearray(part)
                damaged[self._random.randrange(len(part))] ^= 1 << self._random.randrange(7)
                parts.append(bytes(damaged))
            else:
                parts.append(part)
            self._at_line_start = False
        return b"".join(parts)
