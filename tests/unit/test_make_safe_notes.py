"""What was done without a daemon reaches the journal once, whatever happens in between; what a run makes of it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from edge import execution
from edge import runner as runner_module
from edge.driver import ConnectError, MachineError, Motion, NotConfirmedError, Outcome, OutcomeKind, Run
from edge.errors import ConfigError, JournalError
from edge.make_safe import FOLDER, Made, all_safe, leave_note, made_safe, notes, record_notes
from edge.model.event import EventKind
from edge.model.order import OnRestart
from edge.plugins import Equipment
from edge.recovery import LeftRun
from edge.site import Site
from edge.timekeeping import TimeKeeper
from tests.helpers.fake_driver import FakePlugin, Script
from tests.helpers.rig import Rig, rig, working_rig
from tests.unit.test_site_config import SITE, complaint, load

RUN = {"run_id": "r" * 32, "job_id": "j", "part": 1, "step": "print", "machine": "prn-1", "on_restart": "hold"}


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch) -> None:
    monkeypatch.setattr(runner_module, "RECONNECT_S", (0.01,))
    monkeypatch.setattr(execution, "AFTER_STOP_S", 0.05)


def machine(site: Rig, name: str, script: Script) -> Equipment:
    return Equipment(dataclasses.replace(site.equipment.machine, id=name), FakePlugin(script))


async def test_a_note_becomes_an_event_once_even_if_the_daemon_dies_before_the_file_is_gone(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        leave_note(tmp_path, Made("prn-1", "heaters off"), "guard", RUN)
        (file,) = (tmp_path / FOLDER).iterdir()
        again = file.read_bytes()
        await record_notes(site.journal, tmp_path)
        assert list((tmp_path / FOLDER).iterdir()) == []
        file.write_bytes(again)
        await record_notes(site.journal, tmp_path)
        assert not file.exists()
        (event,) = site.events(EventKind.MAKE_SAFE)
        assert (event["actor"], event["machine"], event["run_id"]) == ("guard", "prn-1", RUN["run_id"])
        assert (event["body"]["confirmed"], event["body"]["problem"]) == ("heaters off", "")


async def test_two_notes_alike_are_two_events_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        leave_note(tmp_path, Made("prn-1", "heaters off"), "user:ada", None)
        time.sleep(0.002)  # noqa: ASYNC251 - the notes tell milliseconds
        leave_note(tmp_path, Made("prn-1", "heaters off"), "user:bob", None)
        await record_notes(site.journal, tmp_path)
        assert [event["actor"] for event in site.events(EventKind.MAKE_SAFE)] == ["user:ada", "user:bob"]


def test_a_later_note_about_the_same_run_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    leave_note(tmp_path, Made("prn-1", problem="silent"), "guard", RUN)
    leave_note(tmp_path, Made("prn-1", "heaters off"), "guard", RUN)
    (note,) = notes(tmp_path).values()
    assert (note.confirmed, note.problem) == ("heaters off", "")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"machine": 1, "colour": "red"}', b"\xff"])
async def test_what_is_no_note_is_set_aside_and_keeps_nothing_from_starting(tmp_path: Path, content: bytes) -> None:
    async with rig(tmp_path) as site:
        leave_note(tmp_path, Made("prn-1", "heaters off"), "guard", None)
        (tmp_path / FOLDER / "prn-1-x.json").write_bytes(content)
        await record_notes(site.journal, tmp_path)
        assert len(site.events(EventKind.MAKE_SAFE)) == 1
        assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["prn-1-x.unread"]


async def test_only_what_was_confirmed_for_this_very_run_counts(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:

        async def said(run_id: str) -> str:
            return await site.journal.transact(lambda transaction: made_safe(transaction, "prn-1", run_id))

        leave_note(tmp_path, Made("prn-1", problem="silent"), "guard", RUN)
        await record_notes(site.journal, tmp_path)
        assert await said(RUN["run_id"]) == ""
        leave_note(tmp_path, Made("prn-1", "heaters off"), "guard", RUN)
        await record_notes(site.journal, tmp_path)
        text = await said(RUN["run_id"])
        assert text.startswith("the guard made it safe at 20")
        assert text.endswith("Z: heaters off")
        assert await said("s" * 32) == ""


def test_a_run_whose_machine_was_made_safe_must_not_go_on() -> None:
    order: dict[str, Any] = {"on_restart": OnRestart.RESUME, "stop_requested": False}
    left = LeftRun(None, None, "prn-1", **order)  # type: ignore[arg-type]
    assert left.forbids == ""
    assert dataclasses.replace(left, made_safe="the guard did").forbids == "the guard did"


async def test_machines_are_made_safe_side_by_side_and_each_says_what_came_of_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        import threading

        meet = threading.Barrier(3)

        def confirms(deadline_s: float) -> str:
            meet.wait(10)
            return f"off before {deadline_s:g}"

        def is_away(deadline_s: float) -> str:
            meet.wait(10)
            raise ConnectError("the port is held by cat (process 7)")

        def stumbles(deadline_s: float) -> str:
            meet.wait(10)
            raise ZeroDivisionError

        scripts = [Script(make_safe=confirms), Script(make_safe=is_away), Script(make_safe=stumbles)]
        items = [machine(site, f"prn-{number}", script) for number, script in enumerate(scripts)]
        found = await asyncio.to_thread(all_safe, items, 5.0)
        assert found[:2] == [Made("prn-0", "off before 5"), Made("prn-1", "", "the port is held by cat (process 7)")]
        assert found[2].problem.startswith("internal error in the driver fake (id ")
        assert all_safe([], 5.0) == []


def test_how_long_the_guard_waits_is_a_number_of_seconds(tmp_path: Path) -> None:
    assert load(tmp_path, SITE).site.guard_after_s == 60.0
    assert load(tmp_path, SITE + "guard_after_s = 0\n").site.guard_after_s == 0
    for wrong in ("-1", "nan", "inf", '"a minute"'):
        assert complaint(tmp_path, SITE + f"guard_after_s = {wrong}\n").startswith("site.guard_after_s: is ")
    with pytest.raises(ConfigError):
        load(tmp_path, SITE + "guard_after = 5\n")


# With a daemon


async def test_a_run_is_stopped_and_says_who_wanted_it(tmp_path: Path) -> None:
    async with working_rig(tmp_path) as site:
        begun = site.script.work_until_stopped()
        await site.offer(await site.assignment())
        await begun.wait()
        made = await site.runner.make_safe("user:ada", site.clock.mono_s() + 10)
        assert made == Made("prn-1", "stopped and switched off")
        body = await site.ended()
        assert (body["outcome"], body["reason"]) == ("STOPPED", "user:ada had the machine made safe")
        assert (await site.runner.make_safe("user:bob", site.clock.mono_s() + 10)).problem == ""
        assert site.script.aborts == 0


async def test_a_run_that_fails_by_it_is_held_and_not_tried_again(tmp_path: Path) -> None:
    async with working_rig(tmp_path) as site:
        begun, aborted = asyncio.Event(), asyncio.Event()

        async def execute(run: Run) -> Outcome:
            begun.set()
            await aborted.wait()
            raise MachineError("aborted with M112")

        async def silent() -> None:
            raise NotConfirmedError("not in time")

        async def abort() -> None:
            aborted.set()

        site.script.execute, site.script.stop, site.script.abort = execute, silent, abort
        assignment = await site.assignment(steps=[retried()])
        await site.offer(assignment)
        await begun.wait()
        made = await site.runner.make_safe("user:ada", site.clock.mono_s() + 10)
        assert made.problem == "not stopped: not in time; it was told to abort, and nobody knows whether it has"
        body = await site.ended()
        assert (body["outcome"], body["motion"]) == ("UNKNOWN", "possible")
        (step,) = site.ask(lambda snapshot: snapshot.job(assignment.key.job_id))["steps"]
        assert step["state"] == "HELD"
        assert site.script.aborts == 1


def retried() -> dict[str, Any]:
    from tests.helpers.trust import step_document

    return step_document(on_failure="retry", max_attempts=3)


@pytest.mark.parametrize(
    ("error", "said"),
    [(ConnectError("not identified"), "and not aborted: not identified"), (ZeroDivisionError(), "internal error")],
)
async def test_an_abort_that_fails_is_said(tmp_path: Path, error: Exception, said: str) -> None:
    async with working_rig(tmp_path) as site:

        async def silent() -> None:
            raise NotConfirmedError("not in time")

        async def fails() -> None:
            raise error

        site.script.stop, site.script.abort = silent, fails
        await site.until(lambda: site.script.opened and site.runner.identity)
        assert said in (await site.runner.make_safe("user:ada", site.clock.mono_s() + 10)).problem


async def test_what_comes_later_is_not_held_by_it(tmp_path: Path) -> None:
    async with working_rig(tmp_path) as site:
        await site.until(lambda: site.runner.identity)
        await site.runner.make_safe("user:ada", site.clock.mono_s() + 10)

        async def fails(run: Run) -> Outcome:
            return Outcome(OutcomeKind.FAILED, Motion.POSSIBLE, "jammed")

        site.script.execute = fails
        body = await site.carry_out()
        assert (body["outcome"], body["reason"]) == ("FAILED", "jammed")


async def test_a_machine_that_is_away_says_why(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        made = await site.runner.make_safe("user:ada", site.clock.mono_s() + 10)
        assert made == Made("prn-1", problem="nobody can be asked: not connected yet")


async def test_a_journal_that_takes_nothing_does_not_hide_what_was_done(tmp_path: Path) -> None:
    async with working_rig(tmp_path) as rigged:
        await rigged.until(lambda: rigged.runner.identity)
        runners = {"prn-1": rigged.runner}
        site = Site(
            FullJournal(), tmp_path, None, None, [], runners, TimeKeeper(rigged.clock, None, None, int), "", int, int
        )  # type: ignore[arg-type]
        (said,) = await site.make_safe([], 10.0, "user:ada")
        assert said == {"id": "prn-1", "confirmed": "stopped and switched off", "problem": ""}
        (note,) = notes(tmp_path).values()
        assert (note.machine, note.actor, note.confirmed) == ("prn-1", "user:ada", "stopped and switched off")


class FullJournal:
    """Of a site whose disk is full."""

    async def record(self, drafts: object) -> None:
        raise JournalError("the disk is full")
