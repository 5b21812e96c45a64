"""The journal's tables, and where its file is. Read by the views, so it imports next to nothing.

`events` is the truth; every table of `DERIVED` is a fold over it. `refusals` counts what was not worth an event (bytes
without a valid signature), `checkpoints` is what a driver wants back after a restart, `uplink` how far the centre has
the events: they are overwritten in place.

`base` says which events were pruned; each `base_…` table is the folded table of that name as it was after the last of
them (`edge.journal.base`).

When a folded table changes, `FORMAT` goes up and the old number joins `FOLDED_ANEW`: the daemon that opens such a file
makes the folded tables anew from its events, and the kept tables that are missing. A file of which something was pruned
begins with its base, and that has the old shape: `BASE_CHANGES` has to say how it gets the new one. When a kept table
changes, all that is not enough.
"""

from __future__ import annotations

from collections.abc import Iterator

#: The journal's file in the site's `state_dir`.
FILE_NAME = "journal.sqlite"

#: Raised when a table changes its meaning; an older or newer edge then refuses the file instead of misreading it.
FORMAT = "5"

#: Formats whose kept tables are those of today.
FOLDED_ANEW = frozenset({"1", "2", "3", "4"})

#: For each of them whose files may be pruned, the statements that give its `base_…` tables the shape of today.
BASE_CHANGES: dict[str, str] = {"4": ""}  # `loaded` came, and nothing was loaded before

KEPT_TABLES = """
-- format, site, journal (its id); head_kept: there has been a head file beside this journal (`edge.journal.headfile`).
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY,
    hash TEXT NOT NULL,
    raw BLOB NOT NULL,
    kind TEXT NOT NULL,
    job_id TEXT,
    machine TEXT,
    at_wall TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_of_job ON events (job_id, seq) WHERE job_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_of_machine ON events (machine, seq) WHERE machine IS NOT NULL;

CREATE TABLE IF NOT EXISTS checkpoints (run_id TEXT PRIMARY KEY REFERENCES runs (run_id), value TEXT NOT NULL) STRICT;

-- minute: RFC 3339 in UTC, cut after the minute; empty for all that is older than the rows that are kept.
CREATE TABLE IF NOT EXISTS refusals (
    minute TEXT NOT NULL,
    reason TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (minute, reason)
) STRICT, WITHOUT ROWID;
"""

FOLDED_TABLES = """
-- digest: of the envelope. The same bytes again get the same verdict again. payload_digest: of what was refused, so
-- that other spellings of its envelope are no events. kind, at: of the event; it may be pruned. expires_at: of what was
-- refused, as events have times, null if that could not be read. A refusal is forgotten some time after that; see
-- `edge.journal.forgetting`.
CREATE TABLE verdicts (
    digest TEXT PRIMARY KEY,
    payload_digest TEXT,
    accepted INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    job_id TEXT,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at TEXT NOT NULL,
    expires_at TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX verdicts_of_job ON verdicts (job_id) WHERE kind = 'job_accepted';
CREATE INDEX verdicts_of_payload ON verdicts (payload_digest) WHERE payload_digest IS NOT NULL;
-- With `accepted`, counting the newest thousands reads the index alone.
CREATE INDEX verdicts_by_expiry ON verdicts (expires_at, seq, accepted) WHERE NOT accepted;

-- How many refusals were events, ever.
CREATE TABLE refused (reason TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- Signed orders that wait until somebody vouches for the clock: nothing is decided about them yet. seq: of the event,
-- and their turn. digest: of the envelope; payload_digest: other spellings of it take no place. given_up: `cancelled`
-- or `declined` if that was said before the order was judged; its id stays taken. expires_at: as events have times.
CREATE TABLE parked (
    seq INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    payload_digest TEXT NOT NULL UNIQUE,
    envelope BLOB NOT NULL,
    actor TEXT NOT NULL,
    job_id TEXT NOT NULL,
    issuer TEXT NOT NULL,
    product TEXT NOT NULL,
    reference TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    due_at TEXT,
    not_before TEXT,
    expires_at TEXT NOT NULL,
    parked_at TEXT NOT NULL,
    revision INTEGER NOT NULL,
    given_up TEXT
) STRICT;
CREATE INDEX parked_of_job ON parked (job_id);

-- payload: the order as JSON text. revision: the seq of the newest event about the job. held_by: who holds the job,
-- since when and why; null while nobody does. signers: names of keys, as JSON.
CREATE TABLE orders (
    job_id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    envelope BLOB NOT NULL,
    payload TEXT NOT NULL,
    issuer TEXT NOT NULL,
    series TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    product TEXT NOT NULL,
    reference TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    due_at TEXT,
    not_before TEXT,
    expires_at TEXT NOT NULL,
    accepted_seq INTEGER NOT NULL,
    accepted_at TEXT NOT NULL,
    revision INTEGER NOT NULL,
    held_by TEXT,
    held_since TEXT,
    held_reason TEXT,
    signers TEXT NOT NULL
) STRICT;

-- used: which sequence numbers of an issuer's series were accepted, as `edge.replay` writes it.
CREATE TABLE windows (
    issuer TEXT NOT NULL,
    series TEXT NOT NULL,
    used BLOB NOT NULL,
    PRIMARY KEY (issuer, series)
) STRICT, WITHOUT ROWID;

-- machine, run_id: of the newest run. reason: why it stands where it stands. since: when it came to its state.
-- request_failure: why the machine did not do what was asked of it last. suspended_by: `request` or `machine`.
CREATE TABLE steps (
    job_id TEXT NOT NULL REFERENCES orders (job_id),
    part INTEGER NOT NULL,
    step TEXT NOT NULL,
    process TEXT NOT NULL,
    state TEXT NOT NULL,
    requested TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    on_failure TEXT NOT NULL,
    machine TEXT,
    run_id TEXT,
    reason TEXT,
    since TEXT NOT NULL,
    request_failure TEXT,
    suspended_by TEXT,
    PRIMARY KEY (job_id, part, step)
) STRICT, WITHOUT ROWID;
CREATE INDEX steps_open ON steps (state) WHERE state NOT IN ('COMPLETED', 'ABORTED');

CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL,
    part INTEGER NOT NULL,
    step TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    machine TEXT NOT NULL,
    began_at TEXT NOT NULL,
    ended_at TEXT,
    outcome TEXT,
    motion TEXT,
    reason TEXT,
    FOREIGN KEY (job_id, part, step) REFERENCES steps (job_id, part, step)
) STRICT;
CREATE INDEX runs_of_step ON runs (job_id, part, step);
CREATE INDEX runs_open ON runs (run_id) WHERE ended_at IS NULL;

-- needs_clearing: the run, or the token of foreign work, that may have left something on the machine, the newest.
-- since: when `online` last changed. maintenance_*: who took the machine out of service, since when and why; null while
-- it is in service. made_safe: somebody had it made safe since it is out of service.
CREATE TABLE machines (
    machine TEXT PRIMARY KEY,
    needs_clearing TEXT,
    online INTEGER NOT NULL,
    since TEXT NOT NULL,
    maintenance_by TEXT,
    maintenance_since TEXT,
    maintenance_reason TEXT,
    made_safe INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Work on a machine that no run asked for. detail: who did what. began_at: when it was first told of.
CREATE TABLE foreign_work (
    machine TEXT NOT NULL,
    token TEXT NOT NULL,
    detail TEXT NOT NULL,
    began_at TEXT NOT NULL,
    PRIMARY KEY (machine, token)
) STRICT, WITHOUT ROWID;

-- What people have said is loaded in machines, the newest of each property. value: what they said; configured: what
-- site.toml said then; both as JSON. What counts of it, `edge.model.loaded` says.
CREATE TABLE loaded (
    machine TEXT NOT NULL,
    property TEXT NOT NULL,
    value TEXT NOT NULL,
    configured TEXT NOT NULL,
    loaded_by TEXT NOT NULL,
    since TEXT NOT NULL,
    PRIMARY KEY (machine, property)
) STRICT, WITHOUT ROWID;

-- The trust roots that the site went by; the highest version is in force. payload_digest: SHA-256, in hexadecimal.
CREATE TABLE roots (
    version INTEGER PRIMARY KEY,
    payload_digest TEXT NOT NULL,
    envelope BLOB NOT NULL,
    accepted_seq INTEGER NOT NULL
) STRICT;

-- Commands from the centre that were carried out: an id is good for one.
CREATE TABLE commands (command_id TEXT PRIMARY KEY, accepted_seq INTEGER NOT NULL) STRICT, WITHOUT ROWID;

-- One row. floor: the latest time that has certainly passed, RFC 3339 in UTC; signed_*: the signed time that vouches
-- for the clock, and the host's monotonic clock when its nonce was made; arrived_mono_ms: the same when it came. held:
-- why nothing begins before a person has confirmed this journal; null if nobody needs to.
CREATE TABLE standing (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    floor TEXT,
    signed_at TEXT,
    signed_mono_ms INTEGER,
    arrived_mono_ms INTEGER,
    signed_boot_id TEXT,
    held TEXT
) STRICT;
INSERT INTO standing VALUES (1, NULL, NULL, NULL, NULL, NULL, NULL);

-- Ids that this journal went on under, because it was put back to an older state. first_seq: the first event of
-- `journal`; before: the id until then.
CREATE TABLE branches (first_seq INTEGER PRIMARY KEY, journal TEXT NOT NULL, before TEXT NOT NULL) STRICT;

CREATE TABLE artifacts (
    sha256 TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    stored_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

#: No fold, and younger than the format: made wherever they are missing.
UPLINK_TABLES = """
-- One row. seq, hash: the newest event that the collector acknowledged, at: when, by its clock. behind: what the
-- collector has lost and cannot get from here any more; empty if all is well.
CREATE TABLE IF NOT EXISTS uplink (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL,
    at TEXT,
    behind TEXT NOT NULL
) STRICT;

-- One row, or none. seq, hash, journal: of the newest event that was pruned, with all before it. at: when.
CREATE TABLE IF NOT EXISTS base (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL,
    journal TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;
"""

TABLES = KEPT_TABLES + FOLDED_TABLES

#: Each table that is a fold over the events, with the columns that order it.
DERIVED = {
    "verdicts": "digest",
    "refused": "reason",
    "parked": "seq",
    "orders": "job_id",
    "windows": "issuer, series",
    "steps": "job_id, part, step",
    "runs": "run_id",
    "machines": "machine",
    "foreign_work": "machine, token",
    "loaded": "machine, property",
    "artifacts": "sha256",
    "roots": "version",
    "standing": "id",
    "commands": "command_id",
    "branches": "first_seq",
}


def statements(tables: str) -> Iterator[str]:
    """One by one, for a transaction that must not end."""
    yield from tables.split(";\n")


def problem(found: str | None) -> str:
    """What is wrong with a file of format `found`, for those who only read; empty if nothing is."""
    if found in FOLDED_ANEW:
        begins = "`edge run` (where one runs, `edge restart`)"
        return f"was written by an older edge; {begins} brings it up to date and loses nothing"
    return "" if found == FORMAT else f"has format {found}; this edge reads format {FORMAT}"
