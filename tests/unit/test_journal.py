"""Events and projections, in one transaction."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge.errors import IllegalTransitionError, JournalError, StaleRevisionError
from edge.journal.audit import audit_file
from edge.journal.journal import Journal, OpenRun
from edge.journal.transaction import KnownVerdict, Transaction
from edge.model.event import Draft, EventKind
from edge.reading.views import open_readonly
from edge.replay import ReplayWindow
from tests import second_verifier
from tests.journal_kit import (
    JOB,
    MINUTE,
    SITE,
    accepted,
    began,
    cancelled,
    cleared,
    ended,
    envelope,
    foreign,
    hold,
    offline,
    online,
    order,
    refused,
    resolved,
    step,
    suspended,
    ticking,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    """A journal that must hold together after each test, in two opinions."""
    async with Journal.open(path, SITE, ticking()) as opened:
        yield opened
        report = await opened.verify()
        assert report.problems == ()
        assert report.events == opened.last_seq
        assert second_verifier.verify(path) == (opened.last_seq, "")


async def rows(journal: Journal, query: str) -> list[tuple[Any, ...]]:
    return await journal.transact(lambda transaction: transaction.connection.execute(query).fetchall())


async def states(journal: Journal) -> dict[str, str]:
    found = await rows(journal, "SELECT step || part, state FROM steps ORDER BY part, step")
    return dict(found)


async def test_events_are_numbered_and_chained_across_restarts(path: Path) -> None:
    async with Journal.open(path, SITE, ticking()) as journal:
        first, second = await journal.record([online(), offline()])
        assert (first.seq, second.seq, second.prev_hash) == (1, 2, first.hash)
        ident = journal.ident
        assert len(ident) == 32
    async with Journal.open(path, SITE, ticking()) as journal:
        assert (journal.ident, journal.last_seq) == (ident, 2)
        (third,) = await journal.record([online()])
        assert third.prev_hash == second.hash
        assert (await journal.verify()).ok


async def test_a_journal_of_another_site_is_refused(path: Path) -> None:
    async with Journal.open(path, SITE, ticking()):
        pass
    with pytest.raises(JournalError, match="'berlin-1', not of 'paris-1'"):
        async with Journal.open(path, "paris-1", ticking()):
            pass


async def test_a_database_that_is_no_journal_and_a_format_of_another_time_are_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE meta_of_something_else (n INTEGER)")
    with pytest.raises(JournalError, match="no journal"):
        async with Journal.open(path, SITE, ticking()):
            pass
    connection.execute("CREATE TABLE meta (key TEXT, value TEXT)")
    connection.execute("INSERT INTO meta VALUES ('format', '99')")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="format 99"):
        async with Journal.open(path, SITE, ticking()):
            pass


async def test_an_accepted_order_brings_its_steps_for_each_part(journal: Journal) -> None:
    steps = [step(), step("unload", "print", process="robot.tend"), step("face", "unload", max_attempts=3)]
    draft = accepted(order(steps=steps, quantity=2, priority=70, reference="PO-1"))
    (event,) = await journal.record([draft])
    assert await states(journal) == {
        "face1": "NOT_ALLOWED_TO_START",
        "print1": "ALLOWED_TO_START",
        "unload1": "NOT_ALLOWED_TO_START",
        "face2": "NOT_ALLOWED_TO_START",
        "print2": "ALLOWED_TO_START",
        "unload2": "NOT_ALLOWED_TO_START",
    }
    ((signed, *values),) = await rows(
        journal, "SELECT envelope, quantity, priority, reference, accepted_seq, revision, not_before FROM orders"
    )
    assert signed == envelope(order(steps=steps, quantity=2, priority=70, reference="PO-1"))
    assert values == [2, 70, "PO-1", event.seq, event.seq, None]
    assert await rows(journal, "SELECT max_attempts, on_failure FROM steps WHERE step = 'face'") == [(3, "hold")] * 2

    def ledger(transaction: Transaction) -> None:
        digest = transaction.digest_of(JOB)
        assert digest == draft.body["digest"]
        assert transaction.verdict_of(digest) == KnownVerdict(True, "", "", JOB, event.seq)
        assert transaction.digest_of("other") is None
        assert transaction.verdict_of("other") is None
        assert transaction.revision("other") is None
        assert transaction.window("orders@acme", "other") == ReplayWindow()
        window = transaction.window("orders@acme", "3f2a3f2a")
        assert window.high == 42
        assert not window.check(42)
        assert window.check(41)

    await journal.transact(ledger)


async def test_a_refused_order_is_remembered_and_does_not_touch_the_job_of_that_name(journal: Journal) -> None:
    await journal.record([accepted()])
    await journal.record([refused("cd" * 32, "conflict")])
    verdict = await journal.transact(lambda transaction: transaction.verdict_of("cd" * 32))
    assert verdict == KnownVerdict(False, "conflict", "too late", JOB, 2)
    assert await journal.transact(lambda transaction: transaction.revision(JOB)) == 1


@pytest.mark.parametrize(
    "draft",
    [
        accepted(),
        accepted(order(product="other")),
        refused(accepted().body["digest"]),
        Draft(EventKind.JOB_ACCEPTED, "intake", {"digest": "ab", "envelope": "?"}, job_id="01J9"),
        Draft(EventKind.JOB_ACCEPTED, "intake", {"digest": "ab"}, job_id="01J9"),
        Draft(EventKind.JOB_ACCEPTED, "intake", {**accepted(order("B")).body}, job_id="A"),
        accepted(order("B", steps=[step(on_failure="shrug")])),
        accepted(order("B", quantity="many")),
        cancelled("unknown"),
        began(step="polish"),
        began(attempt=2),
        began(job_id="unknown"),
        began(machine=None),  # type: ignore[arg-type]
        began(run_id=None),  # type: ignore[arg-type]
        ended("run-1", "SUCCEEDED"),
        ended(None, "SUCCEEDED"),  # type: ignore[arg-type]
        resolved("run-1", "good"),
        cleared("run-1"),
        Draft(EventKind.ARTIFACT_STORED, "intake", {"sha256": "ab", "size_bytes": "big"}),
    ],
)
async def test_an_event_that_does_not_fit_is_not_recorded(journal: Journal, draft: Draft) -> None:
    await journal.record([accepted()])
    with pytest.raises(IllegalTransitionError):
        await journal.record([online(), draft])
    assert journal.last_seq == 1
    assert await rows(journal, "SELECT count(*) FROM machines") == [(0,)], "nor is what came with it"


async def test_a_function_may_catch_a_refusal_and_go_on(journal: Journal) -> None:
    await journal.record([accepted(), began(), ended("run-1", "SUCCEEDED")])

    def fn(transaction: Transaction) -> None:
        with pytest.raises(IllegalTransitionError):
            transaction.record(accepted(order(product="other")))
        transaction.record(online())

    await journal.transact(fn)
    assert journal.last_seq == 4


async def test_a_run_that_succeeds_completes_its_step_and_lets_the_next_start(journal: Journal) -> None:
    await journal.record([accepted(order(steps=[step(), step("face", "print"), step("pack", "face", "print")]))])
    await journal.record([began()])
    assert await rows(journal, "SELECT state, machine, run_id, attempt FROM steps WHERE step = 'print'") == [
        ("RUNNING", "prn-1", "run-1", 1)
    ]
    assert await journal.open_runs() == [OpenRun("run-1", JOB, 1, "print", 1, "prn-1", "2026-11-21T10:00:01.000Z")]
    await journal.record([ended("run-1", "SUCCEEDED")])
    assert await journal.open_runs() == []
    assert await states(journal) == {
        "print1": "COMPLETED",
        "face1": "ALLOWED_TO_START",
        "pack1": "NOT_ALLOWED_TO_START",
    }
    assert await rows(journal, "SELECT outcome, motion, reason FROM runs") == [
        ("SUCCEEDED", "possible", "because SUCCEEDED")
    ]
    await journal.record([began("run-2", "mill-1", step="face"), ended("run-2", "SUCCEEDED", step="face")])
    assert (await states(journal))["pack1"] == "ALLOWED_TO_START"


async def test_a_machine_needs_clearing_from_the_beginning_of_a_run_until_that_run_is_named(journal: Journal) -> None:
    await journal.record([accepted(order(quantity=2)), online(), began()])
    with pytest.raises(IllegalTransitionError, match="has not ended"):
        await journal.record([cleared("run-1")])
    await journal.record([ended("run-1", "SUCCEEDED")])
    with pytest.raises(IllegalTransitionError, match="needs clearing by run-1"):
        await journal.record([began("run-2", part=2)])
    with pytest.raises(IllegalTransitionError, match="by run-1, not by run-0"):
        await journal.record([cleared("run-0")])
    await journal.record([cleared("run-1"), began("run-2", part=2)])
    assert await rows(journal, "SELECT needs_clearing, online FROM machines") == [("run-2", 1)]


async def test_work_that_was_not_ours_needs_clearing_by_its_token_and_is_there_once(journal: Journal) -> None:
    await journal.record([accepted(), foreign("cup")])
    with pytest.raises(IllegalTransitionError, match="needs clearing by cup"):
        await journal.record([began()])
    with pytest.raises(IllegalTransitionError, match="does not fit"):
        await journal.record([foreign("cup")])
    with pytest.raises(IllegalTransitionError, match="by cup, not by run-1"):
        await journal.record([cleared("run-1")])
    await journal.record([cleared("cup"), began()])
    await journal.record([foreign("box")])
    with pytest.raises(IllegalTransitionError, match="run run-1 has not ended"):
        await journal.record([cleared("box")])
    await journal.record([ended("run-1", "FAILED", "none")])
    assert await rows(journal, "SELECT needs_clearing FROM machines") == [("box",)], "the run was not all"
    await journal.record([cleared("box")])
    assert await rows(journal, "SELECT needs_clearing FROM machines") == [(None,)]


@pytest.mark.parametrize("outcome", ["FAILED", "STOPPED"])
async def test_a_run_that_moved_nothing_leaves_nothing_to_clear(journal: Journal, outcome: str) -> None:
    await journal.record([accepted(), began(), ended("run-1", outcome, "none")])
    assert await rows(journal, "SELECT needs_clearing FROM machines") == [(None,)]


@pytest.mark.parametrize(
    ("outcome", "motion"), [("FAILED", "possible"), ("STOPPED", "possible"), ("UNKNOWN", "none"), ("SUCCEEDED", "none")]
)
async def test_any_other_run_leaves_the_machine_to_be_cleared(journal: Journal, outcome: str, motion: str) -> None:
    await journal.record([accepted(), began(), ended("run-1", outcome, motion)])
    assert await rows(journal, "SELECT needs_clearing FROM machines") == [("run-1",)]


async def test_a_failed_run_is_tried_again_as_often_as_the_order_says(journal: Journal) -> None:
    await journal.record([accepted(order(steps=[step(on_failure="retry", max_attempts=2)]))])
    await journal.record([began(), ended("run-1", "FAILED", "none")])
    assert await states(journal) == {"print1": "ALLOWED_TO_START"}
    await journal.record([began("run-2", attempt=2), ended("run-2", "FAILED", "none")])
    assert await states(journal) == {"print1": "HELD"}
    with pytest.raises(IllegalTransitionError, match="attempt 2 of 2"):
        await journal.record([resolved("run-2", "retry")])


@pytest.mark.parametrize(
    ("resolution", "state", "successor"),
    [
        ("good", "COMPLETED", "ALLOWED_TO_START"),
        ("scrapped", "ABORTED", "ABORTED"),
        ("retry", "ALLOWED_TO_START", "NOT_ALLOWED_TO_START"),
    ],
)
async def test_an_unknown_run_is_held_until_somebody_says_what_became_of_it(
    journal: Journal, resolution: str, state: str, successor: str
) -> None:
    steps = [step(max_attempts=2, on_failure="retry"), step("face", "print"), step("pack", "face")]
    await journal.record([accepted(order(steps=steps)), began(), ended("run-1", "UNKNOWN")])
    assert (await states(journal))["print1"] == "HELD"
    with pytest.raises(IllegalTransitionError, match="not at run run-0"):
        await journal.record([resolved("run-0", resolution)])
    await journal.record([resolved("run-1", resolution)])
    assert (await states(journal))["print1"] == state
    assert (await states(journal))["face1"] == successor
    assert await rows(journal, "SELECT reason FROM steps WHERE step = 'print'") == [("looked at it",)]


async def test_cancelling_asks_what_runs_to_stop_and_ends_the_rest_at_once(journal: Journal) -> None:
    await journal.record([accepted(order(steps=[step(), step("face", "print"), step("pack", "face")], quantity=2))])
    await journal.record([began(), cancelled()])
    assert await states(journal) == {
        "print1": "RUNNING",
        "face1": "ABORTED",
        "pack1": "ABORTED",
        "print2": "ABORTED",
        "face2": "ABORTED",
        "pack2": "ABORTED",
    }
    assert await rows(journal, "SELECT requested FROM steps WHERE state = 'RUNNING'") == [("stop",)]
    await journal.record([ended("run-1", "STOPPED")])
    assert (await states(journal))["print1"] == "ABORTED"
    with pytest.raises(IllegalTransitionError, match="nothing is left to cancel"):
        await journal.record([cancelled()])


async def test_a_run_ends_once_and_is_resolved_once(journal: Journal) -> None:
    await journal.record([accepted(), began(), ended("run-1", "UNKNOWN")])
    with pytest.raises(IllegalTransitionError, match="cannot happen to a step that is HELD"):
        await journal.record([ended("run-1", "SUCCEEDED")])
    await journal.record([resolved("run-1", "good")])
    with pytest.raises(IllegalTransitionError, match="cannot happen to a step that is COMPLETED"):
        await journal.record([resolved("run-1", "scrapped")])


async def test_who_decides_from_what_is_no_longer_so_is_refused(journal: Journal) -> None:
    await journal.record([accepted(), online()])
    await journal.record([began()], expected_revision=1)
    with pytest.raises(StaleRevisionError, match="at revision 3, not 1"):
        await journal.record([cancelled()], expected_revision=1)
    with pytest.raises(StaleRevisionError, match="revision None"):
        await journal.record([cancelled("unknown")], expected_revision=1)
    assert journal.last_seq == 3


async def test_a_machine_is_online_until_it_or_the_site_goes(journal: Journal) -> None:
    await journal.record([online(), online("mill-1"), online(), offline("mill-1")])
    query = "SELECT machine, online, since FROM machines ORDER BY machine"
    at = "2026-11-21T10:00:00.000Z"
    assert await rows(journal, query) == [("mill-1", 0, at), ("prn-1", 1, at)]
    (started,) = await journal.record([Draft(EventKind.SITE_STARTED, "daemon")])
    assert await rows(journal, query) == [("mill-1", 0, at), ("prn-1", 0, started.at_wall)]


async def test_a_stored_artifact_is_known_by_its_hash(journal: Journal) -> None:
    draft = Draft(EventKind.ARTIFACT_STORED, "intake", {"sha256": "ab" * 32, "size_bytes": 7})
    await journal.record([draft, draft])
    assert await rows(journal, "SELECT * FROM artifacts") == [("ab" * 32, 7, 2)]


async def test_a_checkpoint_is_what_was_kept_last_and_no_event(journal: Journal) -> None:
    await journal.record([accepted(), began()])
    assert await journal.checkpoint_of("run-1") is None
    await journal.checkpoint("run-1", {"reserved": 4000})
    await journal.checkpoint("run-1", {"reserved": 8000})
    assert await journal.checkpoint_of("run-1") == {"reserved": 8000}
    assert journal.last_seq == 2
    with pytest.raises(IllegalTransitionError, match="run-2 has not begun"):
        await journal.checkpoint("run-2", 1)


async def test_refusals_are_counted_by_minute_and_reason(journal: Journal) -> None:
    for _ in range(3):
        await journal.transact(lambda transaction: transaction.count_refusal("malformed", MINUTE))
    assert await rows(journal, "SELECT * FROM refusals") == [(MINUTE, "malformed", 3)]
    assert journal.last_seq == 0


async def test_who_waits_for_news_is_woken_by_the_next_event(journal: Journal) -> None:
    waiting = asyncio.create_task(journal.wait_beyond(0))
    await journal.transact(lambda transaction: transaction.count_refusal("malformed", MINUTE))
    assert not waiting.done()
    await journal.record([online()])
    assert await waiting == 1
    assert await journal.wait_beyond(0) == 1
    assert await journal.wait_beyond(1, asyncio.get_running_loop().time()) == 1


async def test_a_cancelled_recorder_s_event_is_announced_all_the_same(journal: Journal) -> None:
    waiting = asyncio.create_task(journal.wait_beyond(0))
    recording = asyncio.create_task(journal.record([online()]))
    await asyncio.sleep(0)
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    assert await waiting == 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE steps SET state = 'COMPLETED'", "steps .*/1/print: state is not what the events say"),
        ("DELETE FROM verdicts", "verdicts .* is missing"),
        ("INSERT INTO artifacts VALUES ('ab', 1, 1)", "artifacts ab is there, and no event says so"),
        ("UPDATE events SET kind = 'online' WHERE seq = 2", "event 2: the columns beside its bytes"),
        ("UPDATE events SET raw = CAST(replace(raw, 'prn-1', 'prn-2') AS BLOB)", "event 2 was changed"),
        ("DELETE FROM events WHERE seq = 2", "event 2 is missing"),
        ("DELETE FROM events WHERE seq = 3", "steps .*state.* is not what the events say"),
        ("UPDATE meta SET value = 'x' WHERE key = 'journal'", "the events are those of journal"),
    ],
)
async def test_verifying_finds_what_was_changed_behind_the_journal_s_back(path: Path, damage: str, words: str) -> None:
    async with Journal.open(path, SITE, ticking()) as journal:
        await journal.record([accepted(), online(), began()])
        await rows(journal, damage)
        report = await journal.verify()
        assert not report.ok
        assert any(re.search(words, problem) for problem in report.problems), report.problems


def test_verifying_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be opened"):
        audit_file(tmp_path / "missing.sqlite")
    (tmp_path / "text").write_bytes(b"hello" * 1000)
    with pytest.raises(JournalError, match="cannot be read"):
        audit_file(tmp_path / "text")


async def test_verifying_finds_events_that_cannot_have_happened(path: Path) -> None:
    async with Journal.open(path, SITE, ticking()) as journal:
        await journal.record([accepted(), online()])

        def forge(transaction: Transaction) -> None:
            transaction.connection.execute("UPDATE steps SET state = 'ALLOWED_TO_START'")
            transaction.record(began())
            transaction.connection.execute("UPDATE steps SET state = 'ALLOWED_TO_START', attempt = 0")
            transaction.connection.execute("UPDATE machines SET needs_clearing = NULL")
            transaction.record(began("run-2"))

        await journal.transact(forge)
        report = await journal.verify()
        assert any("event 4 cannot have happened" in problem for problem in report.problems)


# An older journal


async def test_a_journal_of_an_older_format_is_folded_anew_and_loses_nothing(path: Path) -> None:
    async with Journal.open(path, SITE, ticking()) as journal:
        await journal.record([accepted(), began()])
        await journal.checkpoint("run-1", {"line": 7})
        await journal.transact(lambda transaction: transaction.count_refusal("malformed", MINUTE))
        before = await journal.transact(lambda t: t.connection.execute("SELECT seq, hash, raw FROM events").fetchall())
    connection = sqlite3.connect(path)
    for table, columns in {"orders": ("held_by", "held_since", "held_reason"), "steps": ("suspended_by",)}.items():
        for column in columns:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.execute("UPDATE meta SET value = '1' WHERE key = 'format'")
    connection.commit()
    connection.close()

    with (
        pytest.raises(JournalError, match=r"by an older edge; `edge run` .*brings it up to date"),
        open_readonly(path.parent),
    ):
        pass
    with pytest.raises(JournalError, match="by an older edge"):
        audit_file(path)
    async with Journal.open(path, SITE, ticking()) as journal:
        assert await journal.checkpoint_of("run-1") == {"line": 7}
        assert [run.run_id for run in await journal.open_runs()] == ["run-1"]
        after = await journal.transact(lambda t: t.connection.execute("SELECT seq, hash, raw FROM events").fetchall())
        counted = await journal.transact(lambda t: t.connection.execute("SELECT count FROM refusals").fetchall())
        assert (after, counted) == (before, [(1,)])
        await journal.record([hold(), suspended()])
        assert (await journal.verify()).problems == ()


async def test_a_journal_that_may_miss_a_run_declines_nothing(journal: Journal) -> None:
    """Put back to an older state, it does not know of a run; the centre would give the order to another site."""
    await journal.record([accepted(), Draft(EventKind.JOURNAL_HELD, "outbox", {"reason": "it was put back"})])
    declined = Draft(EventKind.JOB_DECLINED, "user:ada", {}, JOB)
    with pytest.raises(IllegalTransitionError, match=r"before somebody confirms this journal.*it was put back"):
        await journal.record([declined])
    await journal.record([Draft(EventKind.JOURNAL_CONFIRMED, "user:ada", {"reason": "it was put back"}), declined])
    assert await states(journal) == {"print1": "ABORTED"}
