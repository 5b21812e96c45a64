"""A connection that breaks in the middle of a run: the run stays open, and is judged when the machine is back."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge.driver import (
    At,
    ConnectError,
    Finished,
    LinkLostError,
    Lost,
    MachineState,
    NotConfirmedError,
    Outcome,
    Recovery,
    Run,
    StillRunning,
)
from edge.journal import scribe
from edge.model.event import Draft, EventKind
from edge.reading.status import document
from edge.running import execution
from edge.running import runner as runner_module
from tests.helpers.fake_driver import SUCCEEDED, Cut, confirm, succeed
from tests.helpers.rig import DEADLINE_S, Rig, rig
from tests.helpers.trust import step_document

CUT = "the cable was pulled"


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch) -> None:
    monkeypatch.setattr(runner_module, "RECONNECT_S", (0.01,))
    monkeypatch.setattr(scribe, "RETRY_S", 0.01)
    monkeypatch.setattr(scribe, "LAST_WORDS_S", 0.1)
    monkeypatch.setattr(execution, "AFTER_STOP_S", 0.05)


@dataclass
class Away:
    """A site whose machine is at work, and can be cut off. `recovery` is what it answers when it is back."""

    site: Rig
    cut: Cut
    job_id: str
    serving: asyncio.Task[None]
    back: asyncio.Event = field(default_factory=asyncio.Event)
    recovery: Recovery = field(default_factory=lambda: At({"after": 1}))

    async def pull(self) -> None:
        """Cut it off, and wait until that is known."""
        self.cut.cut.set()
        await self.site.until(lambda: self.site.runner.seen.state is MachineState.OFFLINE)

    def plug_in(self) -> None:
        """Let it be reached again; from now on it does what it is told."""
        self.site.script.execute, self.site.script.stop = succeed, confirm
        self.back.set()

    async def record(self, kind: EventKind) -> None:
        await self.site.journal.record([Draft(kind, "user:ada", {}, self.job_id)])

    async def open_runs(self) -> int:
        return len(await self.site.journal.open_runs())


@contextlib.asynccontextmanager
async def cut_off(folder: Path, on_restart: str = "resume", *, pulled: bool = True) -> AsyncIterator[Away]:
    """In the middle of a run, and cut off if `pulled`; nobody answers there until `Away.plug_in`."""
    async with rig(folder) as site:
        serving = asyncio.create_task(site.runner.serve(), name="runner")
        assignment = await site.assignment(steps=[step_document(on_restart=on_restart)])
        away = Away(site, site.script.work_until_cut(), assignment.key.job_id, serving)

        async def connect() -> None:
            if site.script.opened > 1 and not away.back.is_set():
                raise ConnectError("there is no such port")

        async def recover(run: Run) -> Recovery:
            return away.recovery

        site.script.open, site.script.recover = connect, recover
        try:
            await site.offer(assignment)
            await away.cut.begun.wait()
            if pulled:
                await away.pull()
            yield away
        finally:
            site.runner.close()
            async with asyncio.timeout(DEADLINE_S):
                await serving


async def test_the_run_stays_open_and_the_machine_is_shown_as_one_that_nobody_watches(tmp_path) -> None:
    async with cut_off(tmp_path) as away:
        site = away.site
        await site.until(lambda: site.events("machine_offline"))
        assert (site.events("run_ended"), await away.open_runs()) == ([], 1)
        live = {"prn-1": site.runner.observed.as_json()}
        known = {"clock": {"trust": "trusted"}}
        shown = site.ask(lambda snapshot: document(snapshot, [{"id": "prn-1", "properties": {}}], known, live, {}))
        assert (shown["level"], shown["attention"][0]["kind"]) == (2, "unwatched_run")
        assert site.runner.view(None).busy_with is not None, "it takes no other work"


@pytest.mark.parametrize("recovery", [At({"after": 1}), StillRunning()])
async def test_a_run_that_can_go_on_does_so_with_its_newest_checkpoint(tmp_path, recovery) -> None:
    async with cut_off(tmp_path, pulled=False) as away:
        site, away.recovery = away.site, recovery
        await site.runner.checkpoint({"sent": 4000})
        await away.pull()
        away.plug_in()
        assert (await site.ended())["outcome"] == "SUCCEEDED"
        first, second = site.script.executed
        assert (first.run_id, first.checkpoint) == (second.run_id, None)
        assert second.checkpoint == {"sent": 4000}
        kinds = [e["kind"] for e in site.ask(lambda s: s.events()) if e["kind"].startswith(("run_", "machine_"))]
        assert kinds == [
            "machine_online",
            "run_began",
            "machine_offline",
            "machine_online",
            "run_resumed",
            "run_ended",
        ]


async def test_a_machine_that_is_cut_off_again_and_again_is_judged_each_time(tmp_path) -> None:
    async with cut_off(tmp_path) as away:
        site = away.site

        async def cut_again(run: Run) -> Outcome:
            site.script.execute = succeed
            raise LinkLostError("and once more")

        away.plug_in()
        site.script.execute = cut_again
        assert (await site.ended())["outcome"] == "SUCCEEDED"
        assert (len(site.script.executed), len(site.events("run_resumed"))) == (3, 2)
        assert len(site.events("run_ended")) == 1


async def test_a_connection_that_breaks_while_the_machine_is_asked_decides_nothing(tmp_path) -> None:
    async with cut_off(tmp_path) as away:
        site, asked = away.site, []

        async def recover(run: Run) -> Recovery:
            asked.append(run)
            if len(asked) == 1:
                raise LinkLostError(CUT)
            return away.recovery

        site.script.recover = recover
        away.plug_in()
        assert ((await site.ended())["outcome"], len(asked)) == ("SUCCEEDED", 2)


async def test_what_the_machine_says_of_the_end_is_the_end(tmp_path) -> None:
    async with cut_off(tmp_path) as away:
        away.recovery = Finished(SUCCEEDED)
        away.plug_in()
        assert (await away.site.ended())["reason"] == "done"
        assert len(away.site.script.executed) == 1


async def test_a_machine_that_proves_nothing_is_made_safe_when_it_is_back(tmp_path) -> None:
    async with cut_off(tmp_path) as away:
        away.recovery = Lost("it was reset")
        away.plug_in()
        ended = await away.site.ended()
        assert (ended["outcome"], away.site.script.stops) == ("UNKNOWN", 1)
        assert ended["reason"] == f"{CUT}: it was reset; it was stopped and made safe, and confirmed it"


async def test_an_order_that_wants_it_held_has_it_stopped(tmp_path) -> None:
    async with cut_off(tmp_path, "hold") as away:
        away.plug_in()
        ended = await away.site.ended()
        assert (ended["outcome"], len(away.site.script.executed), away.site.script.stops) == ("STOPPED", 1, 1)
        assert ended["reason"] == f'{CUT}; the order says: on_restart = "hold"'
        assert away.site.step(away.job_id)["state"] == "HELD"


async def test_a_cancel_meanwhile_stops_it_when_it_is_back(tmp_path) -> None:
    async with cut_off(tmp_path) as away:
        await away.record(EventKind.CANCEL_REQUESTED)
        away.plug_in()
        ended = await away.site.ended()
        assert (ended["outcome"], len(away.site.script.executed), away.site.script.stops) == ("STOPPED", 1, 1)
        assert away.site.step(away.job_id)["state"] == "ABORTED"


async def test_a_cancel_that_the_machine_could_not_confirm_any_more_is_not_forgotten(tmp_path) -> None:
    async with cut_off(tmp_path, pulled=False) as away:
        site = away.site
        await away.record(EventKind.CANCEL_REQUESTED)
        assert site.runner.run_id is not None
        site.runner.stop(site.runner.run_id)
        await site.until(lambda: site.script.stops == 1)
        await away.pull()
        assert site.events("run_ended") == []
        away.plug_in()
        assert ((await site.ended())["outcome"], len(site.script.executed)) == ("STOPPED", 1)
        assert site.step(away.job_id)["state"] == "ABORTED"


@pytest.mark.parametrize("before", [True, False])
async def test_a_run_whose_machine_somebody_wanted_safe_does_not_go_on(tmp_path, before) -> None:
    async with cut_off(tmp_path, pulled=False) as away:
        site = away.site
        making = None
        if before:
            making = asyncio.create_task(site.runner.make_safe("user:ada", 0.0))
            await site.until(lambda: site.script.stops)
        await away.pull()
        made = await (making or site.runner.make_safe("user:ada", 0.0))
        assert made.problem
        away.plug_in()
        ended = await site.ended()
        assert (ended["outcome"], len(site.script.executed)) == ("STOPPED", 1)
        assert "user:ada" in ended["reason"]
        assert site.step(away.job_id)["state"] == "HELD"


async def test_a_held_run_does_not_go_on_by_itself(tmp_path) -> None:
    async with cut_off(tmp_path) as away:
        await away.record(EventKind.HOLD_REQUESTED)
        away.plug_in()
        ended = await away.site.ended()
        assert (ended["outcome"], len(away.site.script.executed)) == ("STOPPED", 1)
        assert away.site.step(away.job_id)["state"] == "HELD"


async def test_a_machine_that_does_not_come_back_in_time_leaves_the_run_unknown(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(runner_module, "AWAY_S", 0.05)
    async with cut_off(tmp_path) as away:
        ended = await away.site.ended()
        assert (ended["outcome"], ended["motion"]) == ("UNKNOWN", "possible")
        assert re.fullmatch(
            rf"{CUT}, and the machine could not be asked for \d+ s: there is no such port", ended["reason"]
        )
        assert away.site.step(away.job_id)["state"] == "HELD"
        away.plug_in()
        await away.site.until(lambda: away.site.runner.seen.state is MachineState.IDLE)
        assert len(away.site.script.executed) == 1


@pytest.mark.parametrize("leave", [True, False])
async def test_a_daemon_that_ends_meanwhile_leaves_the_run_to_its_successor(tmp_path, leave) -> None:
    async with cut_off(tmp_path) as away:
        away.site.runner.close(leave=leave)
        async with asyncio.timeout(DEADLINE_S):
            await away.serving
        assert (away.site.events("run_ended"), await away.open_runs()) == ([], 1)


async def test_a_connection_that_breaks_while_the_daemon_stops_the_run_is_unknown(tmp_path) -> None:
    async with cut_off(tmp_path, pulled=False) as away:
        away.site.runner.close()
        away.cut.cut.set()
        async with asyncio.timeout(DEADLINE_S):
            await away.serving
        ended = await away.site.ended()
        assert (ended["outcome"], ended["reason"]) == ("UNKNOWN", CUT)


async def test_a_machine_that_did_not_confirm_over_a_sound_connection_is_unknown_at_once(tmp_path) -> None:
    async with cut_off(tmp_path, pulled=False) as away:

        async def stop() -> None:
            raise NotConfirmedError("no answer")

        away.site.script.stop = stop
        assert away.site.runner.run_id is not None
        away.site.runner.stop(away.site.runner.run_id)
        ended = await away.site.ended()
        assert (ended["outcome"], ended["reason"]) == ("UNKNOWN", "no answer")
