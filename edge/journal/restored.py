"""A journal that was put back to an older state goes on under a new id: `begin_anew` is what finders call.

Rules:

    1. The chain goes on: the first event of the new id is the next number, hangs on the hash before it, and says which
       id it follows, where, and why. It is a `journal_held`: nothing begins before a person has confirmed.
    2. The new id is a new random one. So what the site records from now on is not taken for a second history of the old
       id, of which the centre may have more than is known here.
    3. What becomes of runs that were open is for those who ask the machines: a journal that is held at the start of the
       daemon is not believed about them (`edge.daemon`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from edge.journal import chain
from edge.journal.transaction import Transaction, head, ident_of
from edge.model.event import Draft, Event, EventKind


def begin_anew(transaction: Transaction, reason: str, actor: str, known: Mapping[str, object] | None = None) -> Event:
    """Go on under a new id, in this transaction.

    `reason`: how it is known that the journal was put back. `known`: what else the `journal_held` is to say.
    """
    last, before = head(transaction.connection), ident_of(transaction.connection)
    body: dict[str, object] = {"reason": reason, **(known or {})}
    if last != chain.EMPTY:  # nothing was ever said under an id without events
        body["follows"] = {"journal": before, "seq": last.seq, "hash": last.hash}
        new = (secrets.token_hex(16),)
        transaction.connection.execute("UPDATE meta SET value = ? WHERE key = 'journal'", new)
    return transaction.record(Draft(EventKind.JOURNAL_HELD, actor, body))
