"""The collector's tables. Read by `edge collect status`, so it imports next to nothing.

`events` is the copy of every site's journal. What a table means is in docs/collector.md, for whoever reads it with
other tools or writes a collector of his own.
"""

from __future__ import annotations

#: The database in the collector's `state_dir`.
FILE_NAME = "collector.sqlite"

#: Raised when a table changes its meaning.
FORMAT = "2"

FIRST_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- One row for each journal that a site has had; the newest of a site has the highest number. seq, hash: the newest
-- event that is here. applied_at: when it came, RFC 3339 in UTC. after_journal, after_seq: the site was put back to an
-- older state and goes on under this id: events up to after_seq are those of after_journal. Null for any other.
CREATE TABLE journals (
    number INTEGER PRIMARY KEY,
    site TEXT NOT NULL,
    journal TEXT NOT NULL,
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL,
    first_at TEXT NOT NULL,
    applied_at TEXT NOT NULL,
    after_journal TEXT,
    after_seq INTEGER,
    UNIQUE (site, journal)
) STRICT;

-- number: the order in which the events came here; they are never changed and never removed.
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    site TEXT NOT NULL,
    journal TEXT NOT NULL,
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL,
    kind TEXT NOT NULL,
    job_id TEXT,
    machine TEXT,
    at_wall TEXT NOT NULL,
    raw BLOB NOT NULL,
    UNIQUE (site, journal, seq)
) STRICT;

-- Batches that came before their turn, and pieces of events whose other pieces have not come. Bounded.
CREATE TABLE parked (
    site TEXT NOT NULL,
    journal TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (site, journal, first_seq, piece)
) STRICT;

-- Runs that have no end, and runs whose end is unknown and unresolved: a fold over the events.
CREATE TABLE runs (
    site TEXT NOT NULL,
    journal TEXT NOT NULL,
    run_id TEXT NOT NULL,
    job_id TEXT,
    machine TEXT,
    began_at TEXT,
    state TEXT NOT NULL,
    PRIMARY KEY (site, journal, run_id)
) STRICT, WITHOUT ROWID;

-- What a site says of itself, unproven: the newest of its topics `link` and `state`.
CREATE TABLE sites (
    site TEXT PRIMARY KEY,
    link TEXT,
    link_at TEXT,
    state TEXT,
    state_at TEXT
) STRICT, WITHOUT ROWID;

-- What must not happen and did, once for each site, journal and kind. cleared_at: when a person has seen it.
CREATE TABLE alarms (
    site TEXT NOT NULL,
    journal TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    cleared_at TEXT,
    PRIMARY KEY (site, journal, kind)
) STRICT, WITHOUT ROWID;
"""

GAPS = """
-- Events that were lost here after they had been acknowledged, and that the site has pruned since.
CREATE TABLE gaps (
    site TEXT NOT NULL,
    journal TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (site, journal, first_seq)
) STRICT, WITHOUT ROWID;
"""

TABLES = FIRST_TABLES + GAPS

#: What brings a database of an older format up to date.
CHANGES = {
    "1": """
ALTER TABLE journals ADD COLUMN after_journal TEXT;
ALTER TABLE journals ADD COLUMN after_seq INTEGER;
"""
    + GAPS
}

#: What came with a later version of edge: made where it is missing, and no reason for another `FORMAT`.
ADDED = """
-- Orders that wait at a site until somebody vouches for its clock, and that no event has judged or given up: a fold.
CREATE TABLE IF NOT EXISTS unjudged (
    site TEXT NOT NULL,
    journal TEXT NOT NULL,
    job_id TEXT NOT NULL,
    since TEXT NOT NULL,
    PRIMARY KEY (site, journal, job_id)
) STRICT, WITHOUT ROWID;

-- What a site says of itself, unproven, and no fact: the newest value of each key. value: JSON. seen_at: when it was
-- seen, by this host's clock. number: of the message that it came with. skipped: values before it that were not sent.
CREATE TABLE IF NOT EXISTS telemetry (
    site TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    unit TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    number INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    PRIMARY KEY (site, key)
) STRICT, WITHOUT ROWID;

-- Of these messages: the newest (run: one start of the site's daemon; number: counted from 1 in it), how many were lost
-- on the way, and how many values the site has not sent, in this run. gap: the newest gap that was told or seen, JSON.
CREATE TABLE IF NOT EXISTS telemetry_heard (
    site TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    number INTEGER NOT NULL,
    came_at TEXT NOT NULL,
    lost INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    gap TEXT
) STRICT, WITHOUT ROWID;
"""
