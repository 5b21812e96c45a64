"""What one message changes in the collector's database, in the writer's transaction.

Rules:

    1. An event is applied if it is the next of its journal: its number is one more than the newest's, and it names the
       newest's hash. All events of a batch are applied together.
    2. What is here already is a repeat, if it has the same hash. Another hash is a fork: refused and alarmed.
    3. What comes before its turn is parked, at most `PARKED_MAX_BYTES` a site; what is nearest to its turn stays.
    4. The answer to a batch is the newest event that is here, whatever the batch was.
    5. An alarm is kept once for each site, journal and kind, and counted: nobody can fill the disk with alarms.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from edge import batch
from edge.batch import Batch, Fact
from edge.chain import EMPTY, Head
from edge.errors import BatchError

PARKED_MAX_BYTES = 16 * 1024 * 1024


class Alarm(enum.StrEnum):
    """What must not happen."""

    UNKNOWN_SITE = "unknown_site"  # nobody has told the collector of this site
    REFUSED = "refused"  # not signed by the site, cut, changed, or of another site
    BROKEN = "broken"  # signed by the site, and its events do not hold together
    FORK = "fork"  # signed by the site, and another history than the one that is here
    NEW_JOURNAL = "new_journal"  # a site that is known begins another journal: a person has to know why


@dataclass(frozen=True, slots=True)
class Answer:
    """What to acknowledge. `missing`: something has to come again. None of an answer is none at all."""

    journal: str
    head: Head
    missing: bool = False


class Ledger:
    """The database, for one transaction. `now` is RFC 3339 in UTC."""

    def __init__(self, connection: sqlite3.Connection, now: str) -> None:
        self._connection = connection
        self._now = now

    def take(self, found: Batch, payload: bytes) -> Answer | None:
        """A batch that its site has signed; None if there is nothing to say yet."""
        head = self._head(found.site, found.journal)
        answer = self._piece(found, payload, head) if found.piece else self._whole(found, payload, head)
        if answer is not None and answer.head.seq > head.seq:
            head = self._unpark(found.site, found.journal, answer.head)
            return Answer(found.journal, head, missing=self._has_parked(found.site, found.journal))
        return answer

    def alarm(self, site: str, journal: str, kind: Alarm, text: str) -> None:
        """Keep it, or count it."""
        self._connection.execute(
            "INSERT INTO alarms VALUES (?, ?, ?, ?, 1, ?, ?, NULL) ON CONFLICT DO UPDATE SET"
            " text = excluded.text, count = count + 1, last_at = excluded.last_at, cleared_at = NULL",
            (site, journal, kind, text, self._now, self._now),
        )

    def heads(self) -> list[tuple[str, str, Head]]:
        """Site, journal and newest event of each site's newest journal."""
        rows = self._connection.execute("SELECT site, journal, seq, hash, max(number) FROM journals GROUP BY site")
        return [(site, journal, Head(seq, digest)) for site, journal, seq, digest, _ in rows]

    def _head(self, site: str, journal: str) -> Head:
        row = self._connection.execute(
            "SELECT seq, hash FROM journals WHERE (site, journal) = (?, ?)", (site, journal)
        ).fetchone()
        return EMPTY if row is None else Head(*row)

    def _whole(self, found: Batch, payload: bytes, head: Head) -> Answer:
        try:
            facts = batch.facts(found)
        except BatchError as error:
            self.alarm(found.site, found.journal, Alarm.BROKEN, str(error))
            return Answer(found.journal, head)
        if found.first_seq > head.seq + 1:
            self._park(found, payload)
            return Answer(found.journal, head, missing=True)
        return Answer(found.journal, self._apply(found, facts, head))

    def _apply(self, found: Batch, facts: Sequence[Fact], head: Head) -> Head:
        """Apply what is new of a batch that begins at or before the next event."""
        for before in (Head(found.first_seq - 1, found.prev_hash), *(Head(f.row.seq, f.row.hash) for f in facts)):
            if before.seq <= head.seq and (here := self._hash(found, before.seq)) != before.hash:
                text = f"event {before.seq} is here with the hash {here}, and came again with {before.hash}"
                self.alarm(found.site, found.journal, Alarm.FORK, text)
                return head
        new = [fact for fact in facts if fact.row.seq > head.seq]
        if not new:
            return head
        self._connection.executemany(
            "INSERT INTO events (site, journal, seq, hash, kind, job_id, machine, at_wall, raw)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(found.site, found.journal, fact.row.seq, fact.row.hash, *_columns(fact), fact.row.raw) for fact in new],
        )
        for fact in new:
            self._fold(found.site, found.journal, fact)
        if head == EMPTY and (before_it := self._newest_journal(found.site)) is not None:
            text = f"a new journal begins, after journal {before_it}: the site was set up again, or its disk is lost"
            self.alarm(found.site, found.journal, Alarm.NEW_JOURNAL, text)
        head = Head(found.last_seq, found.hash)
        self._connection.execute(
            "INSERT INTO journals (site, journal, seq, hash, first_at, applied_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET seq = excluded.seq, hash = excluded.hash, applied_at = excluded.applied_at",
            (found.site, found.journal, head.seq, head.hash, self._now, self._now),
        )
        return head

    def _newest_journal(self, site: str) -> str | None:
        row = self._connection.execute(
            "SELECT journal FROM journals WHERE site = ? ORDER BY number DESC LIMIT 1", (site,)
        ).fetchone()
        return None if row is None else str(row[0])

    def _hash(self, found: Batch, seq: int) -> str | None:
        if seq == 0:
            return EMPTY.hash
        row = self._connection.execute(
            "SELECT hash FROM events WHERE (site, journal, seq) = (?, ?, ?)", (found.site, found.journal, seq)
        ).fetchone()
        return None if row is None else str(row[0])

    def _piece(self, found: Batch, payload: bytes, head: Head) -> Answer | None:
        if found.first_seq <= head.seq:
            if (here := self._hash(found, found.first_seq)) != found.hash:
                text = f"event {found.first_seq} is here with the hash {here}, and came again with {found.hash}"
                self.alarm(found.site, found.journal, Alarm.FORK, text)
            return Answer(found.journal, head)
        self._park(found, payload)
        if found.first_seq > head.seq + 1:
            return Answer(found.journal, head, missing=True)
        after = self._unpark(found.site, found.journal, head)
        return None if after == head else Answer(found.journal, after)

    # What came before its turn

    def _park(self, found: Batch, payload: bytes) -> None:
        piece = found.piece.number if found.piece else 0
        self._connection.execute(
            "INSERT OR REPLACE INTO parked VALUES (?, ?, ?, ?, ?, ?)",
            (found.site, found.journal, found.first_seq, piece, found.last_seq, payload),
        )
        # The farthest from its turn goes first; it comes again.
        self._connection.execute(
            "DELETE FROM parked WHERE rowid IN (SELECT rowid FROM (SELECT rowid, sum(length(payload))"
            " OVER (ORDER BY journal != ?, first_seq, piece) AS bytes FROM parked WHERE site = ?) WHERE bytes > ?)",
            (found.journal, found.site, PARKED_MAX_BYTES),
        )

    def _unpark(self, site: str, journal: str, head: Head) -> Head:
        """Apply what was parked and whose turn has come; the newest event after that."""
        while (following := self._parked_next(site, journal, head)) is not None:
            try:
                after = self._apply(following, batch.facts(following), head)
            except BatchError as error:
                self.alarm(site, journal, Alarm.BROKEN, str(error))
                after = head
            if after == head:  # alarmed: whatever it was, it is no good
                self._forget(site, journal, following.first_seq)
            head = after
        self._connection.execute(
            "DELETE FROM parked WHERE (site, journal) = (?, ?) AND last_seq <= ?", (site, journal, head.seq)
        )
        return head

    def _parked_next(self, site: str, journal: str, head: Head) -> Batch | None:
        rows = self._connection.execute(
            "SELECT payload FROM parked WHERE (site, journal) = (?, ?) AND first_seq <= ? AND last_seq > ?"
            " ORDER BY first_seq, piece",
            (site, journal, head.seq + 1, head.seq),
        )
        pieces: list[Batch] = []
        for (payload,) in rows:
            found = batch.read_batch(payload)
            if found.piece is None:
                return found
            if pieces and (found.hash, found.piece.of) != (pieces[0].hash, pieces[0].piece and pieces[0].piece.of):
                pieces = []  # those of another signing: the newest of each number are kept, and they come again
            pieces.append(found)
            if found.piece.of == len(pieces):
                return batch.joined(pieces)
        return None

    def _has_parked(self, site: str, journal: str) -> bool:
        return bool(
            self._connection.execute("SELECT 1 FROM parked WHERE (site, journal) = (?, ?)", (site, journal)).fetchone()
        )

    def _forget(self, site: str, journal: str, first_seq: int) -> None:
        self._connection.execute(
            "DELETE FROM parked WHERE (site, journal, first_seq) = (?, ?, ?)", (site, journal, first_seq)
        )

    # What follows from an event

    def _fold(self, site: str, journal: str, fact: Fact) -> None:
        fields, run_id = fact.fields, fact.fields["run_id"]
        match fields["kind"]:
            case "run_began":
                self._connection.execute(
                    "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, 'running')",
                    (site, journal, run_id or "", fields["job_id"], fields["machine"], fields["at_wall"]),
                )
            case "run_ended" if fields["body"].get("outcome") == "UNKNOWN":
                self._connection.execute(
                    "UPDATE runs SET state = 'unknown' WHERE (site, journal, run_id) = (?, ?, ?)",
                    (site, journal, run_id or ""),
                )
            case "run_ended" | "run_resolved":
                self._connection.execute(
                    "DELETE FROM runs WHERE (site, journal, run_id) = (?, ?, ?)", (site, journal, run_id or "")
                )
            case "job_parked":
                self._connection.execute(
                    "INSERT OR IGNORE INTO unjudged VALUES (?, ?, ?, ?)",
                    (site, journal, fields["job_id"], fields["at_wall"]),
                )
            case "job_accepted" | "job_refused" | "job_declined" | "cancel_requested":
                self._connection.execute(
                    "DELETE FROM unjudged WHERE (site, journal, job_id) = (?, ?, ?)", (site, journal, fields["job_id"])
                )
            case _:
                pass


def _columns(fact: Fact) -> tuple[object, ...]:
    fields = fact.fields
    return (fields["kind"], fields["job_id"], fields["machine"], fields["at_wall"])
