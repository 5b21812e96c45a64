"""What a person is told of the site, and what his word is good for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.driver import MachineState, StateSeen
from edge.errors import UsageError
from edge.intake.nonce import NonceFile
from edge.intake.timekeeping import TimeKeeper
from edge.intake.vouched import VouchedFile
from edge.model.event import Draft, EventKind
from edge.running.dispatch import Dispatcher
from edge.serving.site import Site
from edge.timefloor import Source
from edge.trust import Reason
from tests.helpers.rig import Rig, rig


def site_of(parts: Rig) -> Site:
    time = TimeKeeper(parts.clock, parts.intake, NonceFile(parts.clock), VouchedFile(parts.folder), lambda: None)
    dispatcher: Dispatcher = None  # type: ignore[assignment]  # nobody plans here
    return Site(parts.journal, parts.folder, parts.intake, dispatcher, [], {}, time, "0", lambda: None, lambda: None)


def held(reason: str) -> Draft:
    return Draft(EventKind.JOURNAL_HELD, "outbox", {"reason": reason})


async def test_a_reason_that_comes_while_another_is_confirmed_still_holds(tmp_path: Path) -> None:
    async with rig(tmp_path) as parts:
        site = site_of(parts)
        await parts.journal.record([held("it is new")])
        confirming = asyncio.create_task(site.confirm("user:ada"))
        await asyncio.sleep(0)  # its question is asked
        await parts.journal.record([held("it was put back")])
        assert (await confirming)["confirmed"] == "it is new"
        assert await parts.journal.transact(lambda transaction: transaction.held()) == "it was put back"


async def test_a_journal_that_waits_for_nobody_is_not_confirmed(tmp_path: Path) -> None:
    async with rig(tmp_path) as parts:
        with pytest.raises(UsageError, match="waits for nobody's word"):
            await site_of(parts).confirm("user:ada")
        assert parts.events("journal_confirmed") == []


async def test_an_order_that_waits_for_the_time_is_not_said_to_be_unknown(tmp_path: Path) -> None:
    """Whoever believes that it is not here gives it to another site, and it is made twice."""
    async with rig(tmp_path) as parts:
        parts.clock.source = Source.SIGNED  # and nobody has signed one
        document = parts.order()
        verdict = await parts.intake.take(parts.ceremony.sign(json.dumps(document).encode()), "user:ada")
        assert verdict.reason is Reason.CLOCK_UNTRUSTED
        site = site_of(parts)
        site._dispatcher = SimpleNamespace(waits={})  # type: ignore[assignment]
        found = await site.job(document["job_id"])
        assert (found["parked"]["reason"], found["waits"][0]["code"]) == ("clock_untrusted", "clock")
        assert (await site.steering.decline(document["job_id"], "user:ada", ""))["state"] == "ABORTED"
        other = parts.order()["job_id"]
        with pytest.raises(UsageError, match=f"there is no job {other} here"):
            await site.job(other)


@pytest.mark.parametrize(("state", "codes"), [("RUNNING", ["overrun"]), ("INTERRUPTED", []), ("ENDED", [])])
async def test_why_says_that_a_run_takes_too_long_while_it_is_at_work(
    tmp_path: Path, state: str, codes: list[str]
) -> None:
    overrun = {"since": "2026-11-22T10:00:00.000Z", "worked_s": 99.0, "limit_s": 60.0, "predicted_s": None}
    run = {"run_id": "run-1", "machine": "prn-1", "job_id": "job-1", "step": "print", "ended_at": None}
    job = {"steps": [{"run_id": "run-1", "state": state}], "runs": [run | {"overrun": overrun}]}
    async with rig(tmp_path) as parts:
        site = site_of(parts)
        seen = StateSeen(MachineState.EXECUTE)
        site._runners = {"prn-1": SimpleNamespace(seen=seen, can_pause=True)}  # type: ignore[dict-item]
        found = site._troubles(job)
    assert [one["code"] for one in found] == codes
    assert all(one["command"] == "edge job hold job-1" for one in found)
