"""Which sequence numbers of one (issuer, series) have been used.

Orders reach a site on several ways, so they may arrive out of order: number 42 on a stick after number 43 by network.
The window remembers each of the last 1,024 numbers up to the highest one used. Rules:

    1. A number above the highest is new.
    2. A number in the window is new if it was not used.
    3. A number below the window is taken for used: nobody can say that it was not.
    4. Using a number never makes another one new.

Numbers begin at 1. `to_bytes` is 8 bytes of `high` and 128 of bitmap, both big-endian; bit k of the bitmap, counted
from the least significant, stands for the number high - k.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import FormatError

WINDOW = 1024
_HIGH_BYTES = 8
_BITMAP_BYTES = WINDOW // 8
_MASK = (1 << WINDOW) - 1


@dataclass(frozen=True, slots=True)
class ReplayWindow:
    """The numbers used so far; `ReplayWindow()` is a series that has not begun."""

    high: int = 0
    bitmap: int = 0

    def check(self, sequence: int) -> bool:
        """Whether `sequence` is new."""
        behind = self.high - sequence
        return sequence >= 1 and (behind < 0 or (behind < WINDOW and not self.bitmap >> behind & 1))

    def mark(self, sequence: int) -> ReplayWindow:
        """The window after `sequence` was used.

        Raises:
            ValueError: `sequence` is not new; the caller has to `check` before it decides.
        """
        if not self.check(sequence):
            raise ValueError(f"sequence {sequence} is not new, the highest is {self.high}")
        if sequence > self.high:
            # A step of the whole window or more leaves nothing of the old bitmap; shifting by it would build a huge
            # number only to cut it off again.
            step = min(sequence - self.high, WINDOW)
            return ReplayWindow(sequence, (self.bitmap << step | 1) & _MASK)
        return ReplayWindow(self.high, self.bitmap | 1 << (self.high - sequence))

    def to_bytes(self) -> bytes:
        """136 bytes for the store."""
        return self.high.to_bytes(_HIGH_BYTES, "big") + self.bitmap.to_bytes(_BITMAP_BYTES, "big")

    @classmethod
    def from_bytes(cls, stored: bytes) -> ReplayWindow:
        """What `to_bytes` wrote.

        Raises:
            FormatError: it did not write that.
        """
        if len(stored) != _HIGH_BYTES + _BITMAP_BYTES:
            raise FormatError(f"a replay window has {len(stored)} bytes, must have {_HIGH_BYTES + _BITMAP_BYTES}")
        window = cls(int.from_bytes(stored[:_HIGH_BYTES], "big"), int.from_bytes(stored[_HIGH_BYTES:], "big"))
        if window.bitmap & 1 != (window.high > 0) or window.bitmap >> window.high:
            raise FormatError("a replay window's bitmap does not fit its highest number")
        return window
