"""Which sequence numbers of a series were accepted. PURE.

A number may come late (order 42 on a USB stick after 43 over the network), but not twice, and not from further back
than the window reaches. The bitmap is a big-endian integer of `SIZE` bits: bit i (0 is the lowest) says that `high - i`
was accepted. Nothing below the window is accepted any more.
"""

from __future__ import annotations

SIZE = 1024
EMPTY = (0, bytes(SIZE // 8))


def seen(high: int, bitmap: bytes, sequence: int) -> bool:
    """Whether `sequence` was accepted, or is too far back to tell."""
    behind = high - sequence
    if behind < 0:
        return False
    return behind >= SIZE or bool(int.from_bytes(bitmap) >> behind & 1)


def mark(high: int, bitmap: bytes, sequence: int) -> tuple[int, bytes]:
    """The window after `sequence` was accepted."""
    bits = int.from_bytes(bitmap)
    if sequence > high:
        # A jump beyond the window leaves nothing of it; without the limit the shift could be as long as the number.
        bits = bits << min(sequence - high, SIZE) | 1
        high = sequence
    elif high - sequence < SIZE:
        bits |= 1 << (high - sequence)
    return high, (bits & (1 << SIZE) - 1).to_bytes(SIZE // 8)
