"""Any drafts in any order: what fits is recorded, what does not leaves no trace, and the fold is the same again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import IllegalTransitionError, JournalError
from edge.journal.journal import Journal, parked
from edge.journal.schema import FILE_NAME
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from tests import second_verifier
from tests.journal_kit import (
    SITE,
    accepted,
    began,
    cancelled,
    cleared,
    ended,
    envelope,
    foreign,
    hold,
    loaded,
    offline,
    online,
    order,
    release,
    released,
    request_failed,
    resolved,
    step,
    suspended,
    ticking,
)

JOBS, PARTS, STEPS, MACHINES = ("A", "B"), (1, 2), ("print", "face"), ("prn-1", "mill-1")
POLICIES = ("hold", "abort", "retry_before_motion", "retry")

where = st.fixed_dictionaries(
    {"job_id": st.sampled_from(JOBS), "part": st.sampled_from(PARTS), "step": st.sampled_from(STEPS)}
)
runs = st.integers(1, 6).map("run-{}".format)
machines = st.sampled_from(MACHINES)


LONG_AGO, LATE = "2026-10-01T10:00:00Z", "2026-11-28T10:00:00Z"


def taken_out(made_safe: bool) -> Draft:
    body = {"reason": "a new nozzle", "made_safe": made_safe}
    return Draft(EventKind.MAINTENANCE_BEGAN, "user:ada", body, machine="prn-1")


def refused(job_id: str, number: int, expires_at: str | None) -> Draft:
    """Of an order that may have waited to be judged."""
    raw = envelope(order(job_id, sequence=number))
    body = {
        "digest": hashlib.sha256(raw).hexdigest(),
        "payload_digest": hashlib.sha256(base64.b64decode(json.loads(raw)["payload"])).hexdigest(),
        "reason": "unsupported",
        "detail": "no",
        "expires_at": expires_at,
    }
    return Draft(EventKind.JOB_REFUSED, "usb", body, job_id)


@st.composite
def orders(draw: st.DrawFn) -> Draft:
    job_id, policy = draw(st.sampled_from(JOBS)), draw(st.sampled_from(POLICIES))
    first = step(on_failure=policy, max_attempts=draw(st.integers(1, 3)))
    return accepted(order(job_id, [first, step("face", "print")], quantity=2, sequence=draw(st.integers(1, 2000))))


drafts = st.one_of(
    orders(),
    st.builds(
        lambda run, machine, attempt, at: began(run, machine, attempt, **at), runs, machines, st.integers(1, 3), where
    ),
    st.builds(
        lambda run, outcome, motion, at: ended(run, outcome, motion, **at),
        runs,
        st.sampled_from(("SUCCEEDED", "STOPPED", "FAILED", "UNKNOWN")),
        st.sampled_from(("none", "possible")),
        where,
    ),
    st.builds(
        lambda run, word, at: resolved(run, word, **at), runs, st.sampled_from(("good", "scrapped", "retry")), where
    ),
    st.builds(cleared, runs | st.sampled_from(("cup", "box")), machines),
    st.builds(foreign, st.sampled_from(("cup", "box")), machines),
    st.builds(hold, st.sampled_from(JOBS)),
    st.builds(release, st.sampled_from(JOBS)),
    st.builds(lambda run, by, at: suspended(run, by, **at), runs, st.sampled_from(("request", "machine")), where),
    st.builds(lambda run, at: released(run, **at), runs, where),
    st.builds(
        lambda run, what, final, at: request_failed(run, what, final, **at),
        runs,
        st.sampled_from(("pause", "resume", "stop")),
        st.booleans(),
        where,
    ),
    st.builds(cancelled, st.sampled_from(JOBS)),
    st.builds(
        lambda job, number: parked(envelope(order(job, sequence=number)), "usb"),
        st.sampled_from((*JOBS, "C")),
        st.integers(1, 3),
    ),
    st.builds(lambda job: Draft(EventKind.JOB_DECLINED, "user:ada", {}, job), st.sampled_from((*JOBS, "C"))),
    st.builds(
        lambda job, floor: Draft(EventKind.JOB_EXPIRED, "site", {"floor": floor}, job),
        st.sampled_from((*JOBS, "C")),
        st.sampled_from(("2026-11-28T09:59:59.999Z", "2026-11-28T10:00:00.000Z")),
    ),
    st.builds(refused, st.sampled_from((*JOBS, "C")), st.integers(1, 3), st.sampled_from((None, LONG_AGO, LATE))),
    st.builds(taken_out, st.booleans()),
    st.builds(lambda: Draft(EventKind.MAINTENANCE_ENDED, "user:ada", {}, machine="prn-1")),
    st.builds(lambda machine, value: loaded(machine, material=value), machines, st.sampled_from(("PLA", "PETG"))),
    st.builds(
        lambda machine: Draft(EventKind.LOAD_OVERTAKEN, "site", {"configured": {"material": "ABS"}}, machine=machine),
        machines,
    ),
    st.builds(online, machines),
    st.builds(offline, machines),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(drafts, max_size=40))
def test_whatever_is_tried_the_journal_holds_together(tried: list[Draft]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_try(tried, Path(directory) / FILE_NAME))


async def _try(tried: list[Draft], path: Path) -> None:
    recorded = 0
    async with Journal.open(path, SITE, ticking()) as journal:
        await journal.record([accepted(order("A", [step(), step("face", "print")], quantity=2))])
        for draft in tried:
            with contextlib.suppress(IllegalTransitionError):
                await journal.record([draft])
                recorded += 1
            await journal.transact(_check_promises)
        assert journal.last_seq == recorded + 1
        report = await journal.verify()
        assert report.problems == ()
    assert second_verifier.verify(path) == (recorded + 1, "")


def _check_promises(transaction: Transaction) -> None:
    def none(query: str) -> None:
        found = transaction.connection.execute(query).fetchall()
        if found:
            raise JournalError(f"{query}: {found}")

    none(
        "SELECT * FROM runs r JOIN machines m USING (machine) WHERE r.ended_at IS NULL AND m.needs_clearing != r.run_id"
        " AND m.needs_clearing NOT IN (SELECT token FROM foreign_work)"
    )
    none("SELECT * FROM runs r JOIN machines m USING (machine) WHERE r.ended_at IS NULL AND m.needs_clearing IS NULL")
    none("SELECT machine FROM runs WHERE ended_at IS NULL GROUP BY machine HAVING count(*) > 1")
    none("SELECT * FROM parked p JOIN verdicts v USING (digest) WHERE p.given_up IS NULL AND v.seq > p.seq")
    none("SELECT * FROM steps WHERE attempt > max_attempts")
    none(
        "SELECT e.seq FROM events e JOIN steps s ON s.job_id = e.job_id WHERE e.kind = 'job_expired'"
        " AND s.state NOT IN ('COMPLETED', 'ABORTED')"
    )
    none("SELECT job_id FROM events WHERE kind = 'job_expired' GROUP BY job_id HAVING count(*) > 1")
    none("SELECT * FROM steps WHERE requested != 'none' AND state NOT IN ('RUNNING', 'SUSPENDED')")
    none("SELECT * FROM steps WHERE (suspended_by IS NOT NULL) != (state = 'SUSPENDED')")
    none("SELECT * FROM steps WHERE request_failure IS NOT NULL AND state NOT IN ('RUNNING', 'SUSPENDED')")
    none(
        "SELECT * FROM steps s WHERE state IN ('RUNNING', 'SUSPENDED') AND NOT EXISTS"
        " (SELECT 1 FROM runs r WHERE r.run_id = s.run_id AND r.ended_at IS NULL)"
    )
    none(
        "SELECT * FROM steps f JOIN steps p ON p.job_id = f.job_id AND p.part = f.part AND p.step = 'print'"
        " WHERE f.step = 'face' AND f.state IN ('ALLOWED_TO_START', 'RUNNING', 'SUSPENDED', 'HELD', 'COMPLETED')"
        " AND p.state != 'COMPLETED'"
    )
