"""What the outbox sends next: the arithmetic of numbers, without bytes. PURE.

Rules:

    1. `acked` is the newest event that the collector has, by its own word. Everything after it is sent, in order.
    2. At most `WINDOW` sendings wait for their acknowledgement. What is sent is forgotten: the journal has it.
    3. Without an acknowledgement for `RESEND_S` after the broker has taken it, everything after `acked` is sent again:
       no carrier is believed, and a slow line is no silence. While nobody answers it is one sending at a time, after
       twice the time each, `RESEND_MAX_S` at most: a broker keeps all of it for a collector that is away.
    4. When the collector misses something, the same, at most once every `ASKED_S`: it asks for each batch that comes
       before its turn. What it asks sooner waits for that moment, unless it has meanwhile what it missed.
    5. A new connection begins with the newest acknowledged event, which the collector has already: its answer says
       whether it still knows this journal as we do.

Times are seconds of any clock that never goes back.
"""

from __future__ import annotations

from collections import deque

WINDOW = 4
RESEND_S = 30.0
RESEND_MAX_S = 15 * 60.0
ASKED_S = 1.0


class Window:
    """From where to send, and when again."""

    def __init__(self, acked: int, resend_s: float = RESEND_S) -> None:
        self.acked = acked
        self.next_seq = max(1, acked)
        self.resend_s = resend_s
        self._flights: deque[tuple[int, float]] = deque()  # last event, when it was sent
        self._asked_at = -ASKED_S
        self._asked_again = False
        self._unanswered = 0  # how often in turn it was given up

    @property
    def in_flight(self) -> int:
        """How many sendings wait for their acknowledgement."""
        return len(self._flights)

    @property
    def due_at(self) -> float | None:
        """When what was sent longest ago is given up, or is to be sent again as asked; None if nothing waits."""
        if self._asked_again:
            return self._asked_at + ASKED_S
        if not self._flights:
            return None
        return self._flights[0][1] + min(self.resend_s * (1 << self._unanswered), RESEND_MAX_S)

    def connected(self) -> None:
        """Nobody knows what became of what was sent before."""
        self._asked_again = False
        self._flights.clear()
        self.next_seq = max(1, self.acked)

    def may_send(self, last_seq: int, now: float) -> bool:
        """Whether the event `next_seq` is to be sent now; `last_seq` is the newest there is."""
        if self.due_at is not None and now >= self.due_at:
            if self._asked_again:
                self._asked_at = now
            else:
                self._unanswered = min(self._unanswered + 1, 10)
            self._go_back()
        room = 1 if self._unanswered else WINDOW
        return len(self._flights) < room and self.next_seq <= last_seq

    def sent(self, last_seq: int, now: float) -> None:
        """Everything up to `last_seq` is on its way."""
        self._flights.append((last_seq, now))
        self.next_seq = last_seq + 1

    def taken(self, now: float) -> None:
        """The broker has taken what was sent last: from now on its acknowledgement can come."""
        if self._flights:
            self._flights[-1] = (self._flights[-1][0], now)

    def acknowledged(self, seq: int) -> None:
        """The collector has everything up to `seq`."""
        self.acked = seq
        self._unanswered = 0
        self._asked_again = False
        while self._flights and self._flights[0][0] <= seq:
            self._flights.popleft()
        self.next_seq = max(self.next_seq, seq + 1)

    def asked(self, seq: int, now: float) -> None:
        """The collector has everything up to `seq`, and misses what follows."""
        self.acknowledged(seq)
        if now >= self._asked_at + ASKED_S:
            self._asked_at = now
            self._go_back()
        else:
            self._asked_again = True

    def _go_back(self) -> None:
        self._asked_again = False
        self._flights.clear()
        self.next_seq = self.acked + 1
