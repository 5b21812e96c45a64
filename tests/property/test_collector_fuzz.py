"""A site whose key was stolen: whatever it signs, the collector keeps it, alarms, and goes on for all other sites.

Nothing that it says becomes another site's fact, breaks a line of the hand-over in two, or commands a terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cli import collect
from edge.collector import ledger, ndjson, views
from edge.collector.schema import FILE_NAME
from edge.journal import chain
from edge.journal.chain import EMPTY, Head
from edge.trust import PayloadType, sign
from edge.uplink import batch
from edge.uplink.batch import Frame, Row
from edge.uplink.topics import What, topic
from tests.helpers.reporting import ROOT, SITE, SITE_KEY, alarms_of, collecting, fact
from tests.journal_kit import ticking

BOUNDED = settings(max_examples=30, deadline=None)
ALARMS = {str(kind) for kind in ledger.Alarm if kind is not ledger.Alarm.INTERNAL}

STATE = {"site": SITE, "journal": "0" * 32, "last_seq": 7, "attention": ["disk"], "capacity": {"fdm": {"free": 1}}}
VALUE = {"value": 1.5, "unit": "degC", "age_s": 1.0, "skipped": 0}
GAP = {"from": "a", "to": "b", "over_s": 1.0, "why": ["link"]}
TELEMETRY = {
    "site": SITE,
    "run": "r",
    "number": 3,
    "at": "2026-11-21T10:00:00.000Z",
    "clock": "trusted",
    "values": {"prn-1/state": VALUE},
    "skipped": 0,
    "dropped": 0,
    "gap": GAP,
}
FORGED = '\n{"number": 1, "site": "munich-1", "seq": 1, "event": {}}\n'

OVER_LINES = "body that has a line of its own"
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**63, 10**400, 1e308, float("inf"), [], {}, [[]] * 300, {"outcome": "UNKNOWN"}),
    *("", "\x00", "\x1b[2J", "\x9b2J", "\ud800", "x\udfff", "é\U0001f600", "a" * 5000, OVER_LINES),
    *("run_began", "run_ended", "run_resolved", "job_parked", "journal_held"),
)
ODD: st.SearchStrategy[Any] = st.sampled_from(ODD_VALUES) | st.sampled_from(ODD_VALUES) | st.text(max_size=20)


IN_EVENTS = ("kind", "job_id", "run_id", "machine", "at_wall", "body", "actor", "part", "at_mono_ms", "journal", "seq")
IN_BATCHES = ("follows", "begins", "piece", "first_seq", "last_seq", "prev_hash", "hash", "journal", "events")
ORIGIN = {"journal": f"{1:032x}", "seq": 1, "hash": "ab" * 32}

sometimes = st.integers(0, 3).map(lambda number: number == 0)
changes = st.dictionaries(st.sampled_from(IN_EVENTS), ODD, max_size=2)
odd_batches = st.dictionaries(
    st.sampled_from(IN_BATCHES), ODD | st.sampled_from(({"number": 1, "of": 2}, ORIGIN, True)), min_size=1, max_size=2
)
inserted = st.tuples(st.integers(0, 1000), st.sampled_from(("\n", "\t", " ", "\u2028", '{"a":' * 2000, "[" * 100_000)))


@dataclasses.dataclass(frozen=True)
class Made:
    """The next event of a journal, with odd values or written in an odd way, in a batch that may be odd, too."""

    journal: str
    changes: dict[str, Any]
    is_ascii: bool
    inserted: tuple[int, str] | None
    batch: dict[str, Any]

    def envelope(self, head: Head) -> bytes:
        raw, _ = chain.encode(SITE, self.journal, head.seq + 1, head.hash, ticking()(), fact())
        text = json.dumps(json.loads(raw) | self.changes, ensure_ascii=self.is_ascii)
        text = text.replace(json.dumps(OVER_LINES), f'{{"x":{FORGED}}}')
        if self.inserted is not None:
            number, junk = self.inserted
            places = [found.end() for found in re.finditer('": ', text)]
            place = places[number % len(places)]
            text = text[:place] + junk + text[place:]
        raw = text.encode("utf-8", "replace")
        row = Row(head.seq + 1, chain.digest(raw), raw)
        payload = json.loads(batch.pack(Frame(SITE, self.journal, head), [row]).payloads[0]) | self.batch
        return sign(PayloadType.BATCH, json.dumps(payload).encode(), [SITE_KEY])


made = st.builds(
    Made,
    st.integers(0, 3).map(lambda number: f"{number:032x}"),
    changes,
    st.booleans(),
    sometimes.flatmap(lambda yes: inserted if yes else st.none()),
    sometimes.flatmap(lambda yes: odd_batches if yes else st.just({})),
)


@st.composite
def words(draw: st.DrawFn) -> tuple[What, bytes]:
    """What a site says of itself, with odd values."""
    what, kind, seed = draw(
        st.sampled_from(
            (
                (What.STATE, PayloadType.STATE, STATE),
                (What.TELEMETRY, PayloadType.TELEMETRY, TELEMETRY),
                (What.LINK, None, {"site": SITE, "online": True, "at": None}),
            )
        )
    )
    document: dict[str, Any] = dict(seed)
    for key in draw(st.lists(st.sampled_from(sorted(document)), max_size=3)):
        document[key] = draw(
            ODD | st.sampled_from(({"\x1b[2J": VALUE}, {"\x9b": {"free": 2**63, "machines": 1}}, ["\x1b"]))
        )
    raw = json.dumps(document).encode()
    return what, raw if kind is None else sign(kind, raw, [SITE_KEY])


@BOUNDED
@given(st.lists(made | made | words(), min_size=10, max_size=40))
def test_whatever_a_site_signs_the_collector_goes_on(story: list[Made | tuple[What, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_knock(Path(folder), story))


async def _knock(folder: Path, story: list[Made | tuple[What, bytes]]) -> None:
    heads: dict[str, Head] = {}
    with mock.patch.object(ledger, "JOURNALS_MAX", 3):
        async with collecting(folder) as collector:
            for item in story:
                if isinstance(item, Made):
                    what, raw = What.OUT, item.envelope(heads.get(item.journal, EMPTY))
                else:
                    what, raw = item
                answer = await collector.take(topic(SITE, what), raw)
                if answer is not None:
                    assert answer[0] == topic(SITE, What.ACK)
                    ack = batch.open_ack(answer[1], ROOT)
                    heads[ack.journal] = ack.head
            assert await alarms_of(collector) == {
                kind: found for kind, found in (await alarms_of(collector)).items() if kind in ALARMS
            }
            (count,) = await collector.store.write(lambda c: c.execute("SELECT count(*) FROM events").fetchone())
            found, _ = await collector.store.write(ndjson._read)
            lines = b"".join([*found, *collector.told.values()]).splitlines()
    assert {json.loads(line)["site"] for line in lines} <= {SITE}
    assert sum("event" in json.loads(line) for line in lines) == count
    with contextlib.closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as connection:
        document = views.document(connection, [SITE])
    assert json.loads(json.dumps(document)) == document
    shown = "\n".join([*collect.screen(document), *collect.values(document)])
    assert all(line.isprintable() for line in shown.split("\n"))
