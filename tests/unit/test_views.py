"""What the journal answers when nobody may write to it."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.errors import EdgeError, JournalError
from edge.journal.audit import audit
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.event import Draft, EventKind
from edge.reading import readonly
from edge.reading.views import Snapshot, open_readonly
from tests.journal_kit import (
    JOB,
    SITE,
    accepted,
    began,
    cancelled,
    cleared,
    ended,
    online,
    order,
    refused,
    root_of_project,
    step,
    ticking,
)

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
NOBODY = 65534

SECOND = "01J9ZK3V5Q8M2N4P6R7S9T0W2A"
THIRD = "01J9ZK3V5Q8M2N4P6R7S9T0W3B"


async def fill(state_dir: Path, *drafts: Draft) -> None:
    async with Journal.open(state_dir / FILE_NAME, SITE, ticking()) as journal:
        await journal.record(drafts)


async def test_a_job_is_shown_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    stored = Draft(EventKind.ARTIFACT_STORED, "intake", {"sha256": "ab" * 32, "size_bytes": 7})
    steps = [step(), step("face", "print")]
    await fill(tmp_path, accepted(order(steps=steps, quantity=2)), stored, began(), ended("run-1", "SUCCEEDED"))
    with open_readonly(tmp_path) as snapshot:
        job = snapshot.job(JOB)
        assert job is not None
        assert json.dumps(job)
        assert (job["state"], job["parts"]) == ("RUNNING", {"good": 0, "scrapped": 0, "open": 2})
        assert (job["signers"], job["revision"]) == (["orders@acme/1"], 4)
        assert job["order"]["product"] == "bracket-v3"
        assert job["artifacts"] == [{"name": "body.gcode", "sha256": "ab" * 32, "stored": True}]
        assert [(row["part"], row["step"], row["state"]) for row in job["steps"]] == [
            (1, "face", "ALLOWED_TO_START"),
            (1, "print", "COMPLETED"),
            (2, "face", "NOT_ALLOWED_TO_START"),
            (2, "print", "ALLOWED_TO_START"),
        ]
        assert [(run["run_id"], run["outcome"]) for run in job["runs"]] == [("run-1", "SUCCEEDED")]
        assert [event["kind"] for event in job["events"]] == ["job_accepted", "run_began", "run_ended"]
        assert "envelope" not in job["events"][0]["body"]
        assert job["envelope_bytes"] > 0
        assert snapshot.job("unknown") is None


async def test_open_jobs_come_in_the_order_of_priority_due_date_and_acceptance(tmp_path: Path) -> None:
    jobs = [
        order(JOB),
        order(SECOND, priority=90),
        order(THIRD, due_at="2026-11-22T00:00:00Z"),
        order("done", priority=99),
    ]
    await fill(tmp_path, *(accepted(each) for each in jobs), cancelled("done"))
    with open_readonly(tmp_path) as snapshot:
        assert [job["job_id"] for job in snapshot.jobs()] == [SECOND, THIRD, JOB]
        assert [job["job_id"] for job in snapshot.jobs(all=True)] == ["done", SECOND, THIRD, JOB]
        assert snapshot.summary()["jobs"] == {
            "NOT_ALLOWED_TO_START": 0,
            "ALLOWED_TO_START": 3,
            "RUNNING": 0,
            "INTERRUPTED": 0,
            "COMPLETED": 0,
            "CLOSED": 0,
            "ABORTED": 1,
        }


async def test_parts_are_counted_as_good_scrapped_and_open(tmp_path: Path) -> None:
    order_of_two = accepted(order(quantity=2))
    run = [began(), ended("run-1", "SUCCEEDED"), cleared("run-1"), began("run-2", part=2)]
    await fill(tmp_path, order_of_two, *run, cancelled(), ended("run-2", "STOPPED", part=2))
    with open_readonly(tmp_path) as snapshot:
        (job,) = snapshot.jobs(all=True)
        assert (job["state"], job["parts"]) == ("CLOSED", {"good": 1, "scrapped": 1, "open": 0})


async def test_a_machine_is_shown_with_the_run_on_it(tmp_path: Path) -> None:
    await fill(tmp_path, online("mill-1"), online(), accepted(), began())
    with open_readonly(tmp_path) as snapshot:
        mill, printer = snapshot.machines()
        assert (mill["machine"], mill["online"], mill["needs_clearing"], mill["run"]) == ("mill-1", True, None, None)
        assert printer["needs_clearing"] == printer["run"]["run_id"] == "run-1"
        assert snapshot.attention() == [], "a machine that is at work does not wait for anybody"


async def test_what_waits_for_a_person_comes_the_most_urgent_first(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
        await journal.record([accepted(), accepted(order(SECOND)), refused("cd" * 32, job_id=THIRD)])
        await journal.record([began(), ended("run-1", "FAILED")])
        await journal.record([began("run-2", "prn-2", job_id=SECOND), ended("run-2", "UNKNOWN", job_id=SECOND)])
        await journal.transact(lambda transaction: transaction.count_refusal("malformed", "2026-11-20T11:59Z"))
        for _ in range(2):
            await journal.transact(lambda transaction: transaction.count_refusal("malformed", "2026-11-20T12:00Z"))
    with open_readonly(tmp_path) as snapshot:
        found = snapshot.attention()
        assert json.dumps(found)
        assert [item["kind"] for item in found] == ["unknown_run", "held", "needs_clearing", "needs_clearing"]
        assert found[0]["text"] == (
            f"job {SECOND}, part 1, step print: nobody knows what became of its run on prn-2: because UNKNOWN"
        )
        assert found[0]["command"] == f"edge why {SECOND}"
        assert "is held: because FAILED" in found[1]["text"]
        assert found[2]["text"] == f"prn-1 needs clearing: what job {JOB} made is still on it"
        assert found[2]["command"] == "edge machine clear prn-1"
        refusals = snapshot.notices(NOW)
        assert [item["text"] for item in refusals] == [
            f"job {THIRD} was refused, expired: too late",
            "refused in the last day and only counted, as malformed: 2",
        ]
        assert snapshot.notices(NOW + datetime.timedelta(days=7)) == []
        assert snapshot.summary()["attention"] >= 4


async def test_events_are_read_on_from_where_the_reader_was(tmp_path: Path) -> None:
    await fill(tmp_path, online(), online("mill-1"), accepted(), began())
    with open_readonly(tmp_path) as snapshot:
        assert [event["seq"] for event in snapshot.events()] == [1, 2, 3, 4]
        assert [event["seq"] for event in snapshot.events(after_seq=1, limit=2)] == [2, 3]
        assert [event["kind"] for event in snapshot.events(machine="prn-1")] == ["machine_online", "run_began"]
        newest = snapshot.events(after_seq=3)[0]
        assert snapshot.summary()["last_event"] == {
            "seq": 4,
            "hash": newest["hash"],
            "at_wall": newest["at_wall"],
        }


async def test_an_empty_journal_has_a_summary(tmp_path: Path) -> None:
    await fill(tmp_path)
    with open_readonly(tmp_path) as snapshot:
        summary = snapshot.summary()
        assert (summary["site"], summary["last_event"], summary["machines"]) == (SITE, None, 0)


async def test_a_snapshot_does_not_move_while_the_daemon_writes(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
        await journal.record([online()])
        with open_readonly(tmp_path) as snapshot:
            await journal.record([online("mill-1")])
            assert len(snapshot.machines()) == 1
            assert audit(snapshot.connection).head.seq == 1
        with open_readonly(tmp_path) as snapshot:
            assert len(snapshot.machines()) == 2


def test_a_missing_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="there is no journal at"), open_readonly(tmp_path):
        pass


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"hello" * 1000)
    with pytest.raises(JournalError, match="cannot be read"), open_readonly(tmp_path):
        pass


def test_views_import_nothing_heavy() -> None:
    code = (
        "import sys; from edge.journal import audit; from edge.reading import views;"
        "print(*{'pydantic', 'asyncio', 'aiohttp', 'socket'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root_of_project()
    )
    assert done.stdout.strip() == ""


# Another user, who may read by group and may write nothing.

READER = """
# All of these before the interpreter's own files are out of reach.
import json, os, pathlib, shutil, sqlite3, sys, tempfile, urllib.parse
from edge.errors import EdgeError
from edge.reading import readonly, views
state_dir, limit = sys.argv[1:]
readonly.COPY_LIMIT_BYTES = int(limit)
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    with views.open_readonly(pathlib.Path(state_dir)) as snapshot:
        print(json.dumps(snapshot.summary()))
except EdgeError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A state directory as on a site: its group may read."""
    directory = Path(tempfile.mkdtemp(prefix="edge-test-"))
    if os.getuid() == 0:
        os.chown(directory, -1, NOBODY)
    directory.chmod(0o2750)
    yield directory
    directory.chmod(0o750)
    shutil.rmtree(directory)


def read_as_another(state_dir: Path, limit: int = readonly.COPY_LIMIT_BYTES) -> dict[str, Any]:
    if os.getuid() != 0:
        state_dir.chmod(0o550)
    private = Path(tempfile.mkdtemp(prefix="edge-test-"))
    private.chmod(0o1777)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(state_dir), str(limit)],
        capture_output=True,
        text=True,
        cwd=root_of_project(),
        env={**os.environ, "TMPDIR": str(private)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    private.rmdir()  # empty: the copy is gone
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_another_user_of_the_group_reads_while_the_daemon_lives(shared: Path) -> None:
    async with Journal.open(shared / FILE_NAME, SITE, ticking()) as journal:
        await journal.record([online()])
        assert read_as_another(shared)["last_event"]["seq"] == 1
        shared.chmod(0o2750)


async def test_another_user_of_the_group_reads_after_the_daemon_ended(shared: Path) -> None:
    await fill(shared, online())
    assert read_as_another(shared)["last_event"]["seq"] == 1


async def test_another_user_of_the_group_reads_what_only_the_log_has_after_a_crash(shared: Path) -> None:
    async with Journal.open(shared / FILE_NAME, SITE, ticking()) as journal:
        await journal.record([online()])
        kept = {path: path.read_bytes() for path in shared.iterdir() if not path.name.endswith("-shm")}
    for path, content in kept.items():
        path.write_bytes(content)
        path.chmod(0o640)
        if os.getuid() == 0:
            os.chown(path, -1, NOBODY)
    assert (shared / f"{FILE_NAME}-wal").stat().st_size > 0
    assert read_as_another(shared)["last_event"]["seq"] == 1


async def test_another_user_is_told_which_permission_is_missing(shared: Path) -> None:
    await fill(shared, online())
    assert f"without write permission for {shared}" in read_as_another(shared, limit=1000)["error"]
    (shared / FILE_NAME).chmod(0o600)
    if os.getuid() == 0:
        assert "permission to read" in read_as_another(shared)["error"]
        shared.chmod(0o700)
        assert "permission to enter" in read_as_another(shared)["error"]


async def test_a_journal_that_changes_all_the_time_is_not_copied_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(tmp_path, online())
    looks = iter(range(100))
    monkeypatch.setattr(readonly, "_look_at", lambda *files: [(next(looks), 0, 0)])
    monkeypatch.setattr(readonly, "_may_not_write_beside", lambda error: True)
    opened = readonly._open

    def refuse(path: Path, stack: Any, mode: str = "ro") -> Any:
        if mode == "ro":
            raise sqlite3.OperationalError("unable to open database file")
        return opened(path, stack, mode)

    monkeypatch.setattr(readonly, "_open", refuse)
    with pytest.raises(EdgeError, match="changes faster than it can be copied"), open_readonly(tmp_path):
        pass


async def test_a_snapshot_is_only_for_reading(tmp_path: Path) -> None:
    await fill(tmp_path, online())

    def write(snapshot: Snapshot) -> None:
        snapshot.connection.execute("DELETE FROM events")

    with pytest.raises(JournalError, match="readonly"), open_readonly(tmp_path) as snapshot:
        write(snapshot)
