"""What people have said is loaded, held against the site.toml that the daemon has begun with.

What site.toml has overtaken is written down once, so that it never counts again (rule 3 of `edge.model.loaded`). A
machine that site.toml does not name now keeps what was loaded in it: nobody has said anything else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edge.journal.journal import Journal
from edge.journal.scribe import ACTOR
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from edge.model.loaded import overtaken
from edge.plugins import Equipment

log = logging.getLogger("edge.loads")


async def record_overtaken(journal: Journal, equipment: Sequence[Equipment]) -> None:
    """Write down what counts no more because site.toml says something else by now. Raises `JournalError`."""

    def write(transaction: Transaction) -> dict[str, list[str]]:
        found = {}
        for machine in (item.machine for item in equipment):
            if gone := overtaken(machine.properties, transaction.loaded(machine.id)):
                transaction.record(Draft(EventKind.LOAD_OVERTAKEN, ACTOR, {"configured": gone}, machine=machine.id))
                found[machine.id] = list(gone)
        return found

    for name, gone in (await journal.transact(write)).items():
        log.warning("%s: site.toml has changed, and overtakes what was loaded: %s", name, ", ".join(gone))
