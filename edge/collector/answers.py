"""What is to be said to the sites over one connection: for each journal the newest answer, one at a time.

Rules

1. Nobody waits for an answer to be said. The broker's PUBACK comes behind all that it has sent before, and that is read
   no faster than it is taken: a reader that waited for PUBACKs would wait for itself.
2. A newer answer takes the place of one that is not said yet. So what is kept is bounded by the journals that are
   here, however much is taken meanwhile.
3. What asks for the rest is not replaced by what says the same without asking.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

from edge.collector.ledger import Answer

Say = Callable[[str, Answer], Awaitable[None]]


class Answers:
    """`say` publishes one, in tasks of `group`, which end when everything is said."""

    def __init__(self, group: asyncio.TaskGroup, say: Say) -> None:
        self._group = group
        self._say = say
        self._waiting: dict[tuple[str, str], Answer] = {}  # by site and journal
        self._speaking: set[tuple[str, str]] = set()

    def put(self, site: str, answer: Answer) -> None:
        """Have it said as soon as the one before it is."""
        key = (site, answer.journal)
        before = self._waiting.get(key)
        if before is not None and before.missing and before.head == answer.head:
            answer = dataclasses.replace(answer, missing=True)
        self._waiting[key] = answer
        if key not in self._speaking:
            self._speaking.add(key)
            self._group.create_task(self._speak(key), name="an answer to a site")

    async def _speak(self, key: tuple[str, str]) -> None:
        while (answer := self._waiting.pop(key, None)) is not None:
            await self._say(key[0], answer)
        self._speaking.discard(key)
