"""What was done without a daemon reaches the journal once, whatever happens in between; what a run makes of it."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge.driver import At, ConnectError, MachineError, Motion, NotConfirmedError, Outcome, OutcomeKind, Run
from edge.errors import ConfigError, JournalError, UsageError
from edge.guard.make_safe import FOLDER, Made, all_safe, leave_mark, leave_note, made_safe, notes, record_notes
from edge.intake.timekeeping import TimeKeeper
from edge.journal.journal import Journal
from edge.model.event import Draft, EventKind
from edge.model.order import OnRestart
from edge.plugins import Equipment
from edge.running import execution
from edge.running import runner as runner_module
from edge.running.recovery import GoesOn, LeftRun
from edge.serving.site import Site
from tests.helpers.fake_driver import FakePlugin, Script
from tests.helpers.rig import DEADLINE_S, Rig, rig, working_rig
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


async def test_nothing_begins_on_it_afterwards_until_it_is_back_in_service(tmp_path: Path) -> None:
    async with working_rig(tmp_path) as site:
        await site.until(lambda: site.runner.identity)
        await site.runner.make_safe("user:ada", site.clock.mono_s() + 10)
        assignment = await site.assignment()
        assert not site.runner.offer(assignment)
        site.runner.back_in_service()

        async def fails(run: Run) -> Outcome:
            return Outcome(OutcomeKind.FAILED, Motion.POSSIBLE, "jammed")

        site.script.execute = fails
        await site.offer(assignment)
        body = await site.ended()
        assert (body["outcome"], body["reason"]) == ("FAILED", "jammed"), "and what comes later is not held by it"


@pytest.mark.parametrize("claim", ["being checked", "on its way into the journal", "durable already"])
async def test_a_claim_in_flight_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claim: str) -> None:
    """Somebody makes the machine safe while the claim waits in the middle: nothing is sent to the machine."""
    async with working_rig(tmp_path) as rigged:
        reached, go_on = asyncio.Event(), asyncio.Event()
        record = rigged.journal.record

        async def wait() -> None:
            reached.set()
            await go_on.wait()

        async def recorded(drafts: Any, *more: Any) -> Any:
            if [draft.kind for draft in drafts] != [EventKind.RUN_BEGAN]:
                return await record(drafts, *more)
            if claim == "durable already":
                found = await record(drafts, *more)
                await wait()
                return found
            await wait()
            return await record(drafts, *more)

        loop, verified = asyncio.get_running_loop(), threading.Event()

        def verify(sha256: str) -> None:
            loop.call_soon_threadsafe(reached.set)
            assert verified.wait(DEADLINE_S)

        monkeypatch.setattr("edge.running.claim.CLAIM_RETRY_S", 0.01)
        assignment = await rigged.assignment()
        if claim == "being checked":
            monkeypatch.setattr(rigged.artifacts, "verify", verify)
        else:
            monkeypatch.setattr(rigged.journal, "record", recorded)
        await rigged.offer(assignment)
        await reached.wait()
        (said,) = await serving(rigged).make_safe(["prn-1"], 10.0, "user:ada")
        assert said["confirmed"] == "stopped and switched off"
        before = [event["kind"] for event in rigged.ask(lambda snapshot: snapshot.events())]
        assert before[-2:] == ["maintenance_began", "make_safe"], "out of service before anything is done"
        go_on.set()
        verified.set()
        await rigged.until(lambda: rigged.runner.claimed is None)
        assert rigged.script.executed == []
        step = rigged.step(assignment.key.job_id)
        if claim == "durable already":
            assert (await rigged.ended())["motion"] == "none"
            assert step["reason"] == "user:ada had the machine made safe before anything was sent"
            assert (step["state"], rigged.ask(lambda s: s.clearing())) == ("HELD", {"prn-1": None})
        else:
            assert (step["state"], rigged.events("run_began")) == ("ALLOWED_TO_START", [])
        assert (await rigged.journal.verify()).problems == ()


async def test_a_run_that_is_about_to_go_on_after_a_restart_does_not(tmp_path: Path) -> None:
    """The machine has said that it could, and is made safe before it does."""
    left = LeftRun(None, None, "prn-1", OnRestart.RESUME, stop_requested=False)  # type: ignore[arg-type]
    safe_by, stopped = ["", "user:ada had the machine made safe"], []

    async def stop(driver: object, left: LeftRun, why: str) -> Outcome:
        stopped.append(why)
        return Outcome(OutcomeKind.STOPPED, Motion.POSSIBLE, why)

    async with rig(tmp_path) as site:
        for said in (["user:ada had the machine made safe"], safe_by):
            recoverer = site.runner._recoverer
            recoverer._safe_by = lambda said=said: said.pop(0)  # type: ignore[misc]
            recoverer._stop = stop  # type: ignore[method-assign,assignment]
            recoverer._scribe = Willing()  # type: ignore[assignment]
            run = Run("r" * 32, "j", 1, None, 1)  # type: ignore[arg-type]
            await recoverer._go_on(None, dataclasses.replace(left, run=run), At({}))  # type: ignore[arg-type]
        assert stopped == ["user:ada had the machine made safe"] * 2


class Willing:
    """A scribe whose journal lets a run go on."""

    def draft(self, kind: EventKind, run: Run, body: object) -> Draft:
        return Draft(kind, "runner")

    async def durable(self, write: object, what: str) -> GoesOn:
        return GoesOn("")


def serving(rigged: Rig) -> Site:
    """The site as the API serves it, as far as machines are concerned."""
    runners, time = {"prn-1": rigged.runner}, TimeKeeper(rigged.clock, None, None, None, int)  # type: ignore[arg-type]
    return Site(rigged.journal, rigged.folder, None, None, [], runners, time, "", int, int)  # type: ignore[arg-type]


async def test_out_of_service_lasts_over_a_restart_until_a_person_ends_it(tmp_path: Path) -> None:
    async with working_rig(tmp_path) as rigged:
        await rigged.until(lambda: rigged.runner.identity)
        site = serving(rigged)
        await site.make_safe([], 10.0, "user:ada")
        (event,) = rigged.events("maintenance_began")
        assert (event["actor"], event["machine"], event["body"]["reason"]) == ("user:ada", "prn-1", "made safe")
        await site.make_safe([], 10.0, "user:bob")
        assert (await rigged.journal.verify()).problems == ()
    async with working_rig(tmp_path) as rigged:
        site, assignment = serving(rigged), await rigged.assignment()
        words = rigged.ask(lambda snapshot: snapshot.out_of_service())["prn-1"]
        assert words.startswith("out of service by ada since 20")
        assert words.endswith(" UTC: made safe")
        await rigged.offer(assignment)
        await rigged.until(lambda: rigged.runner.claimed is None)
        assert rigged.script.executed == [], "the journal refuses it, whatever the planner says"
        ended = await site.end_maintenance("prn-1", "looked at it", "user:cyd")
        assert ended == {"machine": "prn-1", "maintenance": None}
        (event,) = rigged.events("maintenance_ended")
        assert (event["actor"], event["body"]) == ("user:cyd", {"reason": "looked at it"})
        await rigged.offer(assignment)
        assert (await rigged.ended())["outcome"] == "SUCCEEDED"
        with pytest.raises(UsageError, match="prn-1 is in service"):
            await site.end_maintenance("prn-1", "", "user:cyd")
        with pytest.raises(UsageError, match="there is no machine prn-9"):
            await site.begin_maintenance("prn-9", "", "user:cyd")
        for who in ("cyd", "dan"):
            told = await site.begin_maintenance("prn-1", "nozzle", f"user:{who}")
        assert (told["maintenance"]["by"], told["maintenance"]["reason"]) == ("user:cyd", "nozzle")
        assert len(rigged.events("maintenance_began")) == 3
        assert (await rigged.journal.verify()).problems == ()


async def test_a_mark_that_was_left_without_a_daemon_becomes_one_event(tmp_path: Path) -> None:
    leave_mark(tmp_path, "prn-1", "user:ada")
    leave_note(tmp_path, Made("prn-1", "heaters off"), "user:ada", None)
    (mark,) = [path for path in (tmp_path / FOLDER).iterdir() if "-out-" in path.name]
    again = mark.read_bytes()
    async with rig(tmp_path) as site:
        await record_notes(site.journal, tmp_path)
        mark.write_bytes(again)
        await record_notes(site.journal, tmp_path)
        kinds = [event["kind"] for event in site.ask(lambda snapshot: snapshot.events())]
        assert sorted(kinds) == ["maintenance_began", "make_safe"]
        assert "prn-1" in site.ask(lambda snapshot: snapshot.out_of_service())


async def test_a_mark_counts_in_a_journal_that_is_held_and_after_its_confirmation(tmp_path: Path) -> None:
    leave_mark(tmp_path, "prn-1", "user:ada")
    async with working_rig(tmp_path) as site:
        await site.journal.record([Draft(EventKind.JOURNAL_HELD, "site", {"reason": "an old copy"})])
        await record_notes(site.journal, tmp_path)
        await site.journal.record([Draft(EventKind.JOURNAL_CONFIRMED, "user:ada", {"reason": "looked"})])
        await site.offer(await site.assignment())
        await site.until(lambda: site.runner.claimed is None)
        assert (site.events("run_began"), site.script.executed) == ([], [])
        assert (await site.journal.verify()).problems == ()


async def test_an_attempt_to_make_safe_that_got_no_answer_forbids_that_the_run_goes_on(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:

        async def said() -> str:
            return await site.journal.transact(lambda transaction: made_safe(transaction, "prn-1", RUN["run_id"]))

        body = {"reason": "nozzle", "made_safe": False}
        await site.journal.record([Draft(EventKind.MAINTENANCE_BEGAN, "user:ada", body, machine="prn-1")])
        assert await said() == "", "what goes on on a machine that takes no more work may go on"
        leave_mark(tmp_path, "prn-1", "user:bob")
        leave_note(tmp_path, Made("prn-1", problem="silent"), "user:bob", RUN)
        await record_notes(site.journal, tmp_path)
        assert await said() == "somebody had the machine made safe"


async def test_a_machine_that_is_away_says_why(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        made = await site.runner.make_safe("user:ada", site.clock.mono_s() + 10)
        assert made == Made("prn-1", problem="nobody can be asked: not connected yet")


async def test_a_machine_that_does_not_say_who_it_is_is_made_safe_as_without_a_daemon(tmp_path: Path) -> None:
    """One that waits for a person, or a controller that is held: it answers no question, and may heat or turn."""
    tries, again = asyncio.Event(), threading.Event()

    async def hang() -> None:
        tries.set()
        again.set()
        await asyncio.Event().wait()

    def switch_off(deadline_s: float) -> str:
        # Longer than the daemon pauses before it tries again.
        assert not again.wait(0.05), "it lets go of the machine, and does not try again meanwhile"
        return "spindle off"

    async with rig(tmp_path) as site:
        site.script.open, site.script.make_safe = hang, switch_off
        serving = asyncio.create_task(site.runner.serve(), name="runner")
        await tries.wait()
        tries.clear()
        again.clear()
        made = await site.runner.make_safe("user:ada", site.clock.mono_s() + 10)
        assert made == Made("prn-1", "spindle off")
        await tries.wait()
        site.runner.close()
        await serving


@pytest.mark.parametrize(
    ("problem", "said"),
    [("nothing answers", "nothing answers (not connected yet)"), ("not connected yet", "not connected yet")],
)
async def test_a_machine_that_cannot_be_made_safe_without_a_daemon_either_says_both(
    tmp_path: Path, problem: str, said: str
) -> None:
    def silent(deadline_s: float) -> str:
        raise ConnectError(problem)

    async with rig(tmp_path) as site:
        site.script.make_safe = silent
        made = await site.runner.make_safe("user:ada", site.clock.mono_s() + 10)
        assert made == Made("prn-1", problem=said)


async def test_a_journal_that_takes_nothing_does_not_hide_what_was_done(tmp_path: Path) -> None:
    async with working_rig(tmp_path) as rigged:
        await rigged.until(lambda: rigged.runner.identity)
        site, whole = serving(rigged), rigged.journal
        site._journal = FullJournal()  # type: ignore[assignment]
        (said,) = await site.make_safe([], 10.0, "user:ada")
        assert said == {"id": "prn-1", "confirmed": "stopped and switched off", "problem": ""}
        mark, note = notes(tmp_path).values()
        assert (mark.machine, mark.actor, mark.out_of_service) == ("prn-1", "user:ada", True)
        assert (note.machine, note.actor, note.confirmed) == ("prn-1", "user:ada", "stopped and switched off")
        assert not rigged.runner.offer(await rigged.assignment())
        site._journal = whole
        await site.end_maintenance("prn-1", "", "user:ada")
        kinds = [event["kind"] for event in rigged.ask(lambda snapshot: snapshot.events())]
        assert kinds[-3:] == ["maintenance_began", "make_safe", "maintenance_ended"]
        assert notes(tmp_path) == {}


async def test_a_disk_that_takes_nothing_at_all_does_not_keep_a_machine_from_being_made_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with working_rig(tmp_path) as rigged:
        await rigged.until(lambda: rigged.runner.identity)
        site, whole = serving(rigged), rigged.journal
        site._journal = FullJournal()  # type: ignore[assignment]
        monkeypatch.setattr("edge.serving.site.leave_mark", full)
        monkeypatch.setattr("edge.serving.site.leave_note", full)
        (said,) = await site.make_safe([], 10.0, "user:ada")
        assert said == {"id": "prn-1", "confirmed": "stopped and switched off", "problem": ""}
        site._journal = whole
        await site.end_maintenance("prn-1", "", "user:ada")
        assert len(rigged.events("maintenance_began")) == len(rigged.events("maintenance_ended")) == 1


async def test_a_journal_that_does_not_answer_keeps_no_machine_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.serving.site.TAKE_OUT_S", 0.0)
    async with working_rig(tmp_path) as rigged:
        await rigged.until(lambda: rigged.runner.identity)
        site, answers = serving(rigged), asyncio.Event()
        site._journal = SlowJournal(rigged.journal, answers)  # type: ignore[assignment]
        asked = asyncio.create_task(site.make_safe([], 10.0, "user:ada"))
        await rigged.until(lambda: rigged.script.stops)
        assert rigged.events("maintenance_began") == []
        await rigged.until(lambda: [note.out_of_service for note in notes(tmp_path).values()] == [True])
        answers.set()
        assert (await asked)[0]["problem"] == ""
        assert len(rigged.events("maintenance_began")) == 1
        site._journal = rigged.journal
        await site.end_maintenance("prn-1", "", "user:ada")
        assert notes(tmp_path) == {}, "the next daemon does not take it out again"
        assert rigged.ask(lambda snapshot: snapshot.out_of_service()) == {}


class SlowJournal:
    """Of a disk that hangs until `answers`."""

    def __init__(self, journal: Journal, answers: asyncio.Event) -> None:
        self._journal = journal
        self._answers = answers

    async def record(self, drafts: Any) -> None:
        await self._answers.wait()
        await self._journal.record(drafts)


class FullJournal:
    """Of a site whose disk is full."""

    async def record(self, drafts: object) -> None:
        raise JournalError("the disk is full")
