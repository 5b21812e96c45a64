"""Work that was not ours: written down once, and nothing begins on the machine before somebody has cleared it."""

from __future__ import annotations

from typing import Any

import pytest

from edge.driver import ForeignWork
from edge.errors import JournalError
from edge.journal import scribe
from edge.model.event import Draft, EventKind
from tests.helpers.rig import working_rig

CUP = ForeignWork("t1", "ada printed a cup")


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch) -> None:
    monkeypatch.setattr("edge.running.claim.CLAIM_RETRY_S", 0.01)
    monkeypatch.setattr(scribe, "RETRY_S", 0.01)
    monkeypatch.setattr(scribe, "LAST_WORDS_S", 0.1)


async def test_it_is_written_down_once_and_named_to_people(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        await site.until(lambda: site.script.context)
        assert site.script.context is not None
        for _ in range(3):
            site.script.context.emit(CUP)
        await site.until(lambda: site.events("foreign_work"))
        site.script.lose("the cable was pulled")
        await site.until(lambda: site.script.opened == 2)
        site.script.context.emit(CUP)
        site.script.context.emit(ForeignWork("t2", "bob printed a box"))
        await site.until(lambda: len(site.events("foreign_work")) == 2)
        bodies = [event["body"] for event in site.events("foreign_work")]
        assert [body["token"] for body in bodies] == ["t1", "t2"]
        assert site.ask(lambda snapshot: snapshot.clearing()) == {"prn-1": "t2"}
        (item,) = [i for i in site.ask(lambda s: s.attention()) if i["kind"] == "needs_clearing"]
        assert (item["text"], item["token"]) == ("prn-1 needs clearing: bob printed a box", "t2")
        assert item["command"] == "edge machine clear prn-1"


async def test_nothing_begins_between_seeing_it_and_writing_it_down(tmp_path, monkeypatch) -> None:
    async with working_rig(tmp_path) as site:
        assignment = await site.assignment()
        await site.until(lambda: site.script.context)
        assert site.script.context is not None
        transact, failed = site.journal.transact, []

        async def full(write: Any) -> Any:
            if len(failed) < 3:
                failed.append(site.runner.offer(assignment))
                raise JournalError("the disk is full")
            return await transact(write)

        monkeypatch.setattr(site.journal, "transact", full)
        site.script.context.emit(CUP)
        await site.until(lambda: site.events("foreign_work"))
        assert failed == [False] * 3
        await site.offer(assignment)
        await site.until(lambda: site.runner.claimed is None)
        assert (site.script.executed, site.events("run_began")) == ([], [])
        await site.journal.record([Draft(EventKind.MACHINE_CLEARED, "user:ada", {"run_id": "t1"}, machine="prn-1")])
        await site.offer(assignment)
        assert (await site.ended())["outcome"] == "SUCCEEDED"
