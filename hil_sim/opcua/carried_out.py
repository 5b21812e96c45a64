"""What a machine behind an OPC UA server has carried out, for those who test drivers against it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

LOG_LINES = 200_000


class CarriedOut:
    """The newest lines, as `hil_sim.device.CommandLog` writes them."""

    def __init__(self, also: Callable[[float, str, str], None]) -> None:
        """`also`: told of each line, too."""
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._also = also

    def record(self, at_s: float, line: str, text: str) -> None:
        """`at_s`: simulated seconds. `line`: of the program; ``!`` is something else that happened."""
        self._lines.append(f"{at_s:.3f}\t{line}\t{text}")
        self._also(at_s, line, text)

    def lines(self) -> list[str]:
        """In order."""
        return list(self._lines)

    def clear(self) -> None:
        """Forget all."""
        self._lines.clear()
