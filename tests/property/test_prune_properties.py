"""Whatever happens between two rounds of pruning, what is open is as in a journal that was never pruned."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import IllegalTransitionError
from edge.journal import schema
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.event import ClockTrust, Draft, Stamp, stamp_text
from tests import second_verifier
from tests.helpers.pruning import BEGAN, LATER, acknowledge, pruner
from tests.journal_kit import (
    SITE,
    accepted,
    began,
    cancelled,
    cleared,
    ended,
    foreign,
    hold,
    online,
    order,
    refused,
    release,
    resolved,
)

JOBS = 4
OUTCOMES = ("SUCCEEDED", "FAILED", "UNKNOWN", "STOPPED")

number = st.integers(0, JOBS - 1)
happening = st.one_of(
    st.tuples(st.sampled_from(("accept", "began", "cancel", "hold", "release", "clear", "foreign", "refuse")), number),
    st.tuples(st.sampled_from(OUTCOMES), number),
    st.tuples(st.sampled_from(("good", "scrapped")), number),
    st.tuples(st.just("days"), st.integers(1, 10)),
    st.tuples(st.just("prune"), st.integers(0, 100)),
)


def drafts(what: str, value: int, generation: int) -> list[Draft]:
    job_id, run_id, machine = f"job-{generation}-{value}", f"run-{generation}-{value}", f"prn-{value % 2}"
    where: dict[str, Any] = {"job_id": job_id}
    match what:
        case "accept":
            return [accepted(order(job_id))]
        case "began":
            return [began(run_id, machine, **where)]
        case "cancel":
            return [cancelled(job_id)]
        case "hold":
            return [hold(job_id)]
        case "release":
            return [release(job_id)]
        case "clear":
            return [cleared(run_id, machine)]
        case "foreign":
            return [foreign(f"token-{generation}-{value}", machine)]
        case "refuse":
            return [refused(f"{generation}-{value}", job_id=job_id)]
        case "days":
            return [online()]
        case "prune":
            return []
        case "good" | "scrapped":
            return [resolved(run_id, what, **where)]
        case _:
            return [ended(run_id, what, machine=machine, **where)]


class Hours:
    """A clock that goes on when it is told to, for two journals."""

    def __init__(self) -> None:
        self.hour = 0

    def stamp(self) -> Stamp:
        return Stamp(stamp_text(BEGAN + timedelta(hours=self.hour)), 3600.0 * self.hour, "boot-1", ClockTrust.TRUSTED)


@settings(max_examples=60, deadline=None)
@given(st.lists(happening, max_size=60))
def test_a_pruned_journal_says_what_one_says_that_was_never_pruned(plan: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_carry_out(plan, Path(directory)))


async def _carry_out(plan: list[tuple[str, int]], folder: Path) -> None:
    (folder / "whole").mkdir()
    hours, acked = Hours(), 0
    async with (
        Journal.open(folder / FILE_NAME, SITE, hours.stamp) as pruned,
        Journal.open(folder / "whole" / FILE_NAME, SITE, hours.stamp) as whole,
    ):
        for place, (what, value) in enumerate([*plan, ("days", 10), ("prune", 100)]):
            hours.hour += 24 * value if what == "days" else 1
            if what == "prune" and (acked := max(acked, pruned.last_seq * value // 100)):
                await acknowledge(pruned, acked)
                await pruner(folder, pruned, LATER).prune(0)
            for draft in drafts(what, value, place // 20):
                came = [await _record(journal, draft) for journal in (pruned, whole)]
                assert came[0] == came[1], draft
        await _compare(pruned, whole)
        report = await pruned.verify()
        assert report.problems == ()
        assert second_verifier.verify(folder / FILE_NAME) == (report.events, "")


async def _record(journal: Journal, draft: Draft) -> str:
    try:
        await journal.record([draft])
    except IllegalTransitionError:
        return "refused"
    return "recorded"


async def _compare(pruned: Journal, whole: Journal) -> None:
    """All is the same but for jobs that are forgotten, and those are none that anybody waits for."""
    for table in schema.DERIVED:
        found, right = [set(await _rows(journal, f"SELECT * FROM {table}")) for journal in (pruned, whole)]
        if table not in ("orders", "steps", "runs"):
            assert found == right, table
            continue
        assert found <= right, table
        at = 1 if table == "runs" else 0
        gone = {row[at] for row in right - found}
        assert not gone & {row[at] for row in found}, "a job is here whole, or not at all"
        waited_for = await _rows(
            whole,
            "SELECT job_id FROM steps WHERE state NOT IN ('COMPLETED', 'ABORTED')"
            " UNION SELECT job_id FROM machines JOIN runs ON run_id = needs_clearing",
        )
        assert not gone & {job_id for (job_id,) in waited_for}


async def _rows(journal: Journal, query: str) -> list[Any]:
    return await journal.transact(lambda transaction: transaction.connection.execute(query).fetchall())
