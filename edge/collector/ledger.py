"""What one message changes in the collector's database, in the writer's transaction.

Rules:

    1. An event is applied if it is the next of its journal: its number is one more than the newest's, and it names the
       newest's hash. All events of a batch are applied together.
    2. What is here already is a repeat, if it has the same hash. Another hash is a fork: refused and alarmed.
    3. What comes before its turn is parked, at most `PARKED_MAX_BYTES` and `PARKED_MAX` messages a site; what is
       nearest to its turn stays.
    4. The answer to a batch is the newest event that is here, whatever the batch was.
    5. A journal that was put back to an older state goes on under a new id: the batch that begins it hangs on an event
       of the old one that is here. What both have is kept once; what only the old one has stays, for it happened.
       Who still goes on under the old id has an old copy, and is answered with the newest event of the new one.
    6. A site that has pruned what is missing here says so (`Batch.begins`): the rest is taken, and the gap kept.
    7. An alarm is kept once for each site, journal and kind, and counted; those beyond `ALARMS_MAX` a site once for
       each kind. So nobody can fill the disk with alarms.
    8. A site that begins more than `JOURNALS_MAX` journals is not believed: its key is in other hands, or a program has
       gone wild. What begins another one is refused; those that are here go on.
"""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import BatchError
from edge.journal import chain
from edge.journal.chain import EMPTY, Head
from edge.model.order import MAX_SEQUENCE
from edge.uplink import batch
from edge.uplink.batch import Batch, Fact

PARKED_MAX_BYTES = 16 * 1024 * 1024
PARKED_MAX = 256
"""An honest site has few sendings on their way, each of `batch.MAX_PIECES` messages at most."""

JOURNALS_MAX = 100
"""Each is a new disk, or one that was put back: an honest site has a handful in its life."""

ALARMS_MAX = 200


class Alarm(enum.StrEnum):
    """What must not happen."""

    UNKNOWN_SITE = "unknown_site"  # nobody has told the collector of this site
    REFUSED = "refused"  # not signed by the site, cut, changed, or of another site
    BROKEN = "broken"  # signed by the site, and its events do not hold together
    FORK = "fork"  # signed by the site, and another history than the one that is here
    NEW_JOURNAL = "new_journal"  # a site that is known begins another journal: a person has to know why
    RESTORED = "restored"  # a site's journal was put back: what is here and not there happened, and it does not know
    REPEATED = "repeated"  # signed by the site, which had said before that it knows it to be here: not sent by it now
    LOST = "lost"  # events were lost here after they had been acknowledged, and the site has pruned them
    INTERNAL = "internal"  # our own code has stumbled over something that the site has sent


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

    def take(self, found: Batch, payload: bytes, again: bool = False) -> Answer | None:
        """A batch that its site has signed; None if there is nothing to say yet. `again`: the broker gives it again."""
        if (head := self._head(found.site, found.journal)) is None:
            if self._count("journals", found.site) >= JOURNALS_MAX:
                text = f"the site has begun {JOURNALS_MAX} journals, and now another one: is its key in other hands?"
                self.alarm(found.site, "", Alarm.REFUSED, text)
                return None
            head = self._begin(found)
        elif not again:
            self._note_repeat(found, head)
        if found.begins and found.first_seq > head.seq + 1:
            head = self._skip(found, head)
        answer = self._piece(found, payload, head) if found.piece else self._whole(found, payload, head)
        if answer is not None and answer.head.seq > head.seq:
            head = self._unpark(found.site, found.journal, answer.head)
            answer = Answer(found.journal, head, missing=self._has_parked(found.site, found.journal))
        return answer and self._as_it_goes_on(found.site, answer)

    def _note_repeat(self, found: Batch, head: Head) -> None:
        """Alarm a batch that is here, by the site's own word: a site sends again what it does not know to be here."""
        if found.last_seq >= head.seq:
            return
        if self._hash(found.site, found.journal, found.last_seq) != found.hash:
            return  # a fork
        row = self._connection.execute("SELECT state FROM sites WHERE site = ?", (found.site,)).fetchone()
        said = {} if row is None or row[0] is None else json.loads(row[0])
        acked = said.get("acked_seq") if said.get("journal") == found.journal else None
        # The newest that it knows to be here it does send, at each new connection.
        if isinstance(acked, int) and found.last_seq < acked:
            text = (
                f"events {found.first_seq} to {found.last_seq} came again, though the site has said that it knows them"
                " to be here: somebody repeats what it once sent, or the broker crashed and gives again what it saved"
                " last, or the site's disk was put back"
            )
            self.alarm(found.site, found.journal, Alarm.REPEATED, text)

    def alarm(self, site: str, journal: str, kind: Alarm, text: str) -> None:
        """Keep it, or count it."""
        query = "SELECT 1 FROM alarms WHERE (site, journal, kind) = (?, ?, ?)"
        is_known = self._connection.execute(query, (site, journal, kind)).fetchone() is not None
        if not is_known and self._count("alarms", site) >= ALARMS_MAX:
            journal = ""
        self._connection.execute(
            "INSERT INTO alarms VALUES (?, ?, ?, ?, 1, ?, ?, NULL) ON CONFLICT DO UPDATE SET"
            " text = excluded.text, count = count + 1, last_at = excluded.last_at, cleared_at = NULL",
            (site, journal, kind, text, self._now, self._now),
        )

    def heads(self) -> list[tuple[str, str, Head]]:
        """Site, journal and newest event of each site's newest journal."""
        rows = self._connection.execute("SELECT site, journal, seq, hash, max(number) FROM journals GROUP BY site")
        return [(site, journal, Head(seq, digest)) for site, journal, seq, digest, _ in rows]

    def _count(self, table: str, site: str) -> int:
        """How many rows of one of our tables are about a site."""
        return int(self._connection.execute(f"SELECT count(*) FROM {table} WHERE site = ?", (site,)).fetchone()[0])

    def _head(self, site: str, journal: str) -> Head | None:
        row = self._connection.execute(
            "SELECT seq, hash FROM journals WHERE (site, journal) = (?, ?)", (site, journal)
        ).fetchone()
        return None if row is None else Head(*row)

    def _set_head(self, found: Batch, head: Head) -> None:
        """The newest event of this journal that is here; the journal is new if it was not here."""
        self._connection.execute(
            "INSERT INTO journals (site, journal, seq, hash, first_at, applied_at) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET seq = excluded.seq, hash = excluded.hash, applied_at = excluded.applied_at",
            (found.site, found.journal, head.seq, head.hash, self._now, self._now),
        )

    # Journals that do not begin with event 1

    def _begin(self, found: Batch) -> Head:
        """A journal that is not here: it may go on from one that is."""
        if found.follows is None:
            return EMPTY
        before = Head(found.first_seq - 1, found.prev_hash)
        first = found.hash if found.piece else chain.digest(found.events[0].encode())
        for (journal,) in self._connection.execute(
            "SELECT journal FROM journals WHERE site = ? ORDER BY number DESC", (found.site,)
        ).fetchall():
            known = (self._hash(found.site, journal, before.seq), self._hash(found.site, journal, found.first_seq))
            if (before.seq > 0 and known[0] == before.hash) or known[1] == first:
                self._set_head(found, before)
                self._connection.execute(
                    "UPDATE journals SET after_journal = ?, after_seq = ? WHERE (site, journal) = (?, ?)",
                    (journal, before.seq, found.site, found.journal),
                )
                return before
        return EMPTY

    def _shared(self, found: Batch, new: Sequence[Fact], head: Head) -> int:
        """How many of the next events are here already, as events of the journal that this one goes on from."""
        after = self._after(found.site, found.journal)
        if after is None or after[1] != head.seq:
            return 0
        count = 0
        while count < len(new) and self._hash(found.site, after[0], new[count].row.seq) == new[count].row.hash:
            count += 1
        self._connection.execute(
            "UPDATE journals SET after_seq = ? WHERE (site, journal) = (?, ?)",
            (head.seq + count, found.site, found.journal),
        )
        if count < len(new):
            self._restored(found, after[0], head.seq + count)
        return count

    def _restored(self, found: Batch, before: str, seq: int) -> None:
        """The first event that is of the new id alone comes after `seq`."""
        last = self._head(found.site, before) or EMPTY
        text = f"journal {before} was put back to an older state, and goes on as this one after event {seq}"
        unknown: set[str] = set()
        if last.seq > seq:
            rows = self._connection.execute(
                "SELECT json_extract(CAST(raw AS TEXT), '$.run_id') FROM events"
                " WHERE (site, journal, kind) = (?, ?, 'run_began') AND seq > ?",
                (found.site, before, seq),
            )
            unknown = {run_id for (run_id,) in rows}
            text += (
                f"; events {seq + 1} to {last.seq} of it happened, and the site does not know of them;"
                f" runs that began in them: {len(unknown)}"
            )
        self.alarm(found.site, found.journal, Alarm.RESTORED, text)
        for row in self._connection.execute(
            "SELECT run_id, job_id, machine, began_at, state FROM runs WHERE (site, journal) = (?, ?)",
            (found.site, before),
        ).fetchall():
            if row[0] not in unknown:
                self._connection.execute(
                    "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", (found.site, found.journal, *row)
                )
        self.fold_unjudged(found.site, found.journal)

    def _as_it_goes_on(self, site: str, answer: Answer) -> Answer:
        """The answer to a journal from which a newer one goes on: what that has, the site has to know, too."""
        if (newer := self._newer(site, answer.journal)) is None:
            return answer
        journal, head = newer
        while journal != answer.journal:
            if (after := self._after(site, journal)) is None:
                return answer
            journal = after[0]
        return Answer(answer.journal, head)

    def _newer(self, site: str, journal: str) -> tuple[str, Head] | None:
        """The site's newest journal, if it came after this one."""
        row = self._connection.execute(
            "SELECT journal, seq, hash FROM journals WHERE site = :site AND number >"
            " (SELECT number FROM journals WHERE site = :site AND journal = :journal) ORDER BY number DESC LIMIT 1",
            {"site": site, "journal": journal},
        ).fetchone()
        return None if row is None else (row[0], Head(row[1], row[2]))

    def _after(self, site: str, journal: str) -> tuple[str, int] | None:
        """The journal that this one goes on from, and the newest event that both have."""
        row = self._connection.execute(
            "SELECT after_journal, after_seq FROM journals WHERE (site, journal) = (?, ?)", (site, journal)
        ).fetchone()
        return None if row is None or row[0] is None else (row[0], row[1])

    def _skip(self, found: Batch, head: Head) -> Head:
        """What is missing here, the site does not have any more either: go on after it."""
        gap = (head.seq + 1, found.first_seq - 1)
        text = (
            f"events {gap[0]} to {gap[1]} were lost here, and the site has pruned them since they were acknowledged;"
            " what follows is taken. A backup of this database may have them"
        )
        self.alarm(found.site, found.journal, Alarm.LOST, text)
        row = (found.site, found.journal, *gap, self._now)
        self._connection.execute("INSERT OR REPLACE INTO gaps VALUES (?, ?, ?, ?, ?)", row)
        # A site prunes nothing of a job that is open, and only by a clock that somebody vouches for.
        for table in ("runs", "unjudged"):
            self._connection.execute(f"DELETE FROM {table} WHERE (site, journal) = (?, ?)", (found.site, found.journal))
        head = Head(found.first_seq - 1, found.prev_hash)
        self._set_head(found, head)
        return head

    # Batches and pieces

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
            if before.seq > head.seq:
                break
            here = head.hash if before.seq == head.seq else self._hash(found.site, found.journal, before.seq)
            if here not in (before.hash, None):  # None: it is in a gap
                text = f"event {before.seq} is here with the hash {here}, and came again with {before.hash}"
                self.alarm(found.site, found.journal, Alarm.FORK, text)
                return head
        new = [fact for fact in facts if fact.row.seq > head.seq]
        if not new:
            return head
        is_new = head == EMPTY and self._after(found.site, found.journal) is None
        if is_new and (before_it := self._newest_journal(found)) is not None:
            text = f"a new journal begins, after journal {before_it}: the site was set up again, or its disk is lost"
            self.alarm(found.site, found.journal, Alarm.NEW_JOURNAL, text)
        if (newer := self._newer(found.site, found.journal)) is not None:
            text = f"journal {found.journal} goes on, and journal {newer[0]} came after it: an old copy is at work"
            self.alarm(found.site, found.journal, Alarm.FORK, text)
        new = new[self._shared(found, new, head) :]
        self._connection.executemany(
            "INSERT INTO events (site, journal, seq, hash, kind, job_id, machine, at_wall, raw)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(found.site, found.journal, fact.row.seq, fact.row.hash, *_columns(fact), fact.row.raw) for fact in new],
        )
        for fact in new:
            self._fold(found.site, found.journal, fact)
        head = Head(found.last_seq, found.hash)
        self._set_head(found, head)
        return head

    def _newest_journal(self, found: Batch) -> str | None:
        """The site's newest journal but this one."""
        row = self._connection.execute(
            "SELECT journal FROM journals WHERE site = ? AND journal != ? ORDER BY number DESC LIMIT 1",
            (found.site, found.journal),
        ).fetchone()
        return None if row is None else str(row[0])

    def _hash(self, site: str, journal: str, seq: int) -> str | None:
        """The hash of an event of a journal, also of one that it has from the journal that it goes on from."""
        if seq == 0:
            return EMPTY.hash
        while (after := self._after(site, journal)) is not None and seq <= after[1]:
            journal = after[0]
        row = self._connection.execute(
            "SELECT hash FROM events WHERE (site, journal, seq) = (?, ?, ?)", (site, journal, seq)
        ).fetchone()
        return None if row is None else str(row[0])

    def _piece(self, found: Batch, payload: bytes, head: Head) -> Answer | None:
        if found.first_seq <= head.seq:
            if (here := self._hash(found.site, found.journal, found.first_seq)) not in (found.hash, None):
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
            "DELETE FROM parked WHERE rowid IN (SELECT rowid FROM (SELECT rowid,"
            " sum(length(payload)) OVER turn AS bytes, count(*) OVER turn AS count FROM parked WHERE site = ?"
            " WINDOW turn AS (ORDER BY journal != ?, first_seq, piece)) WHERE bytes > ? OR count > ?)",
            (found.site, found.journal, PARKED_MAX_BYTES, PARKED_MAX),
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

    def fold_unjudged(self, site: str, journal: str) -> None:
        """Which orders wait there, from all events of a journal, with those of the one that it goes on from."""
        parts = [(journal, MAX_SEQUENCE)]
        while (after := self._after(site, parts[0][0])) is not None:
            parts.insert(0, (after[0], min(after[1], parts[0][1])))
        query = "SELECT kind, job_id, at_wall FROM events WHERE (site, journal) = (?, ?) AND seq <= ? ORDER BY seq"
        for part, last_seq in parts:
            for kind, job_id, at_wall in self._connection.execute(query, (site, part, last_seq)):
                self._judged(site, journal, kind, job_id, at_wall)

    def _judged(self, site: str, journal: str, kind: str, job_id: str | None, at_wall: str) -> None:
        """What an event means for the orders that wait there."""
        match kind:
            case "job_parked":
                self._connection.execute(
                    "INSERT OR IGNORE INTO unjudged VALUES (?, ?, ?, ?)", (site, journal, job_id, at_wall)
                )
            case "job_accepted" | "job_refused" | "job_declined" | "cancel_requested":
                self._connection.execute(
                    "DELETE FROM unjudged WHERE (site, journal, job_id) = (?, ?, ?)", (site, journal, job_id)
                )
            case _:
                pass

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
                    "INSERT INTO runs VALUES (?, ?, ?, ?, ?, NULL, 'unknown')"
                    " ON CONFLICT DO UPDATE SET state = 'unknown'",
                    (site, journal, run_id or "", fields["job_id"], fields["machine"]),
                )
            case "run_ended" | "run_resolved":
                self._connection.execute(
                    "DELETE FROM runs WHERE (site, journal, run_id) = (?, ?, ?)", (site, journal, run_id or "")
                )
            case kind:
                self._judged(site, journal, kind, fields["job_id"], fields["at_wall"])


def _columns(fact: Fact) -> tuple[object, ...]:
    fields = fact.fields
    return (fields["kind"], fields["job_id"], fields["machine"], fields["at_wall"])
