"""Commands from the centre at a site: carried out once, named, and refused where they come too late."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edge.driver import MachineError, MachineState, Motion, NotConfirmedError, Outcome, Run, StateSeen
from edge.intake import decisions
from edge.intake.actions import actions
from edge.intake.door import Remote
from edge.intake.intake import LARGE_BYTES, Intake
from edge.jobstate import Resolution
from edge.model.event import Draft, EventKind
from edge.model.fields import time_text
from edge.serving.steering import can_pause
from edge.trust import PayloadType, Verb, new_job_id
from edge.uplink.inbox import Inbox
from edge.uplink.port import UplinkError
from tests.helpers.fake_driver import confirm
from tests.helpers.memory_uplink import MemoryUplink
from tests.helpers.rig import Rig, rig, working_rig
from tests.helpers.trust import OPERATOR, Ceremony, command_document, step_document
from tests.unit.test_dispatch import dispatching

MACHINES = {"prn-1": frozenset({"fdm"})}


def let_in(site: Rig, **remote: Any) -> None:
    """Give the site an operator, and what it lets the centre do."""
    site.ceremony = Ceremony(operators=(OPERATOR,))
    site.authority.root = site.ceremony.root
    processes = frozenset({"fdm"})
    site.intake = Intake(
        site.journal, site.artifacts, site.authority, processes, site.clock, remote=Remote(MACHINES, **remote)
    )


def command(site: Rig, verb: str = "cancel", /, signers: tuple[str, ...] = (OPERATOR,), **fields: Any) -> bytes:
    now = datetime.now(UTC).replace(microsecond=0)
    fresh = {
        "command_id": new_job_id(now),
        "issued_at": time_text(now),
        "expires_at": time_text(now + timedelta(minutes=5)),
        "verb": verb,
    }
    return site.ceremony.sign(json.dumps(command_document(**(fresh | fields))).encode(), signers, PayloadType.COMMAND)


async def test_a_job_is_cancelled_once_and_the_events_name_the_key(tmp_path) -> None:
    async with rig(tmp_path) as site:
        let_in(site)
        job_id = (await site.submit()).job_id
        raw = command(site, job_id=job_id)
        verdict = await site.intake.take(raw, "mqtt")
        assert (verdict.accepted, verdict.repeated) == (True, False)
        (taken,), (asked,) = site.events("command_accepted"), site.events("cancel_requested")
        assert taken["actor"] == asked["actor"] == f"key:{OPERATOR}"
        assert (taken["job_id"], taken["body"]["verb"], taken["body"]["via"]) == (job_id, "cancel", "mqtt")
        assert asked["body"] == {"reason": "not wanted"}
        assert asked["seq"] == taken["seq"] + 1
        assert site.step(job_id)["state"] == "ABORTED"
        again = await site.intake.take(raw, "usb")
        assert (again.accepted, again.repeated, again.detail) == (True, True, verdict.detail)
        other = await site.intake.take(raw + b"\n", "usb")
        assert (other.accepted, other.reason) == (False, "replayed")
        assert len(site.events("cancel_requested")) == 1
        assert (await site.journal.verify()).problems == ()


async def test_what_cannot_be_done_is_refused_and_leaves_nothing_behind(tmp_path) -> None:
    async with rig(tmp_path) as site:
        let_in(site)
        job_id = (await site.submit()).job_id
        await site.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, job_id)])
        revision = site.ask(lambda snapshot: snapshot.job(job_id))["revision"]
        raw = command(site, job_id=job_id)
        for repeated in (False, True):
            verdict = await site.intake.take(raw, "mqtt")
            assert (verdict.accepted, verdict.reason, verdict.repeated) == (False, "not_possible", repeated)
        assert site.events("command_accepted") == []
        (refused,) = site.events("command_refused")
        assert (refused["actor"], refused["job_id"]) == ("mqtt", job_id)
        assert refused["body"]["signers"] == [OPERATOR]
        assert "has ended" in refused["body"]["detail"]
        assert site.ask(lambda snapshot: snapshot.job(job_id))["revision"] == revision
        assert (await site.journal.verify()).problems == ()
        notices = [notice["text"] for notice in site.ask(lambda snapshot: snapshot.notices())]
        assert any(text.startswith(f"a command for job {job_id} was refused, not_possible") for text in notices)


async def test_the_centre_declines_a_job_and_its_id_stays_used(tmp_path) -> None:
    async with rig(tmp_path) as site:
        let_in(site)
        job_id = (await site.submit()).job_id
        verdict = await site.intake.take(command(site, "decline", job_id=job_id), "mqtt")
        assert verdict.accepted
        assert site.ask(lambda snapshot: snapshot.job(job_id))["state"] == "ABORTED"
        assert [event["actor"].split(":")[0] for event in site.events("job_declined")] == ["key"]
        again = await site.intake.take(command(site, "decline", job_id=job_id), "mqtt")
        assert (again.accepted, again.reason) == (False, "not_possible")


async def steer(site: Rig, verb: str, job_id: str, **fields: Any) -> Any:
    """A command that is bound to the job as it is now."""
    revision = site.ask(lambda snapshot: snapshot.job(job_id))["revision"]
    return await site.intake.take(command(site, verb, **({"job_id": job_id, "if_revision": revision} | fields)), "mqtt")


async def test_a_waiting_job_is_held_and_released_as_by_a_person_here(tmp_path) -> None:
    async with rig(tmp_path) as site:
        let_in(site)
        job_id = (await site.submit()).job_id
        for _ in range(2):  # the second finds it held, and changes nothing
            assert (await steer(site, "hold", job_id)).accepted
        (held,) = site.events("hold_requested")
        assert (held["actor"], held["body"]) == (f"key:{OPERATOR}", {"reason": "not wanted"})
        assert site.ask(lambda snapshot: snapshot.job(job_id))["held"]["by"] == f"key:{OPERATOR}"
        for _ in range(2):
            assert (await steer(site, "release", job_id)).accepted, "nothing can have moved"
        assert len(site.events("release_requested")) == 1
        assert len(site.events("command_accepted")) == 4
        assert (await steer(site, "retry", job_id)).reason == "not_possible", "nothing is in doubt"
        assert (await site.journal.verify()).problems == ()


async def test_a_run_is_paused_from_the_centre_and_released_only_if_the_site_says_so(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, _checker):
        let_in(site)
        site.script.pause = confirm
        begun = site.script.work_until_stopped()
        job_id = str((await site.submit()).job_id)
        await begun.wait()
        run_id = site.script.executed[0].run_id
        bound = {"run_id": run_id, "if_revision": None}
        assert (await steer(site, "hold", job_id, **bound)).accepted
        await site.until(lambda: site.step(job_id)["state"] == "SUSPENDED")
        assert (await steer(site, "release", job_id, **bound)).reason == "not_allowed"
        let_in(site, allow_release=True)
        assert (await steer(site, "release", job_id, **bound)).accepted
        await site.until(lambda: site.step(job_id)["state"] == "RUNNING")
        assert site.script.asked == ["pause", "resume"]


async def test_a_run_that_cannot_be_paused_is_not_held_by_a_command_either(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, _checker):
        let_in(site, actions=actions(lambda name: can_pause({"prn-1": site.runner}, name), bool))
        begun = site.script.work_until_stopped()
        job_id = str((await site.submit()).job_id)
        await begun.wait()
        verdict = await steer(site, "hold", job_id, run_id=site.script.executed[0].run_id, if_revision=None)
        assert (verdict.reason, site.events("hold_requested")) == ("not_possible", [])
        assert "prn-1 cannot be paused" in verdict.detail


@pytest.mark.parametrize(("verb", "state"), [("retry", "ALLOWED_TO_START"), ("scrap", "ABORTED")])
async def test_a_run_in_doubt_is_resolved_from_the_centre(tmp_path, verb, state) -> None:
    async with working_rig(tmp_path) as site:
        let_in(site)

        async def doubtful(run: Run) -> Outcome:
            raise NotConfirmedError("the link broke")

        site.script.execute = doubtful
        assignment = await site.assignment(steps=[step_document(max_attempts=2)])
        await site.offer(assignment)
        await site.ended()
        job_id, run_id = assignment.key.job_id, site.script.executed[0].run_id
        bound = {"run_id": run_id, "if_revision": None}
        if verb == "retry":
            assert (await steer(site, verb, job_id, **bound)).reason == "not_allowed"
            let_in(site, allow_release=True)
        assert (await steer(site, verb, job_id, **bound)).accepted
        (event,) = site.events("run_resolved")
        assert (event["actor"], event["run_id"], site.step(job_id)["state"]) == (f"key:{OPERATOR}", run_id, state)


async def test_an_earlier_attempt_that_can_have_moved_counts_though_the_newest_did_not(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        let_in(site)

        async def jammed(run: Run) -> Outcome:
            raise MachineError("jammed", Motion.NONE if run.attempt == 2 else Motion.POSSIBLE)

        site.script.execute = jammed
        assignment = await site.assignment(steps=[step_document(max_attempts=3)])
        job_id = assignment.key.job_id
        await site.offer(assignment)
        await site.ended()
        found = site.ask(lambda snapshot: snapshot.job(job_id))
        asked = decisions.resolve(found, Resolution.RETRY, "user:ada", "")
        await site.journal.record(asked)
        (run_id,) = site.ask(lambda snapshot: snapshot.clearing()).values()
        await site.journal.record([Draft(EventKind.MACHINE_CLEARED, "user:ada", {"run_id": run_id}, machine="prn-1")])
        (row,) = site.ask(lambda snapshot: snapshot.startable())
        await site.offer(replace(assignment, attempt=2, revision=row["revision"]))
        assert (await site.ended(2))["motion"] == "none"
        assert (await steer(site, "retry", job_id)).reason == "not_allowed"


async def test_a_retry_beyond_what_the_order_allows_is_refused_and_leaves_nothing_behind(tmp_path) -> None:
    async with working_rig(tmp_path) as site:
        let_in(site, allow_release=True)

        async def doubtful(run: Run) -> Outcome:
            raise NotConfirmedError("the link broke")

        site.script.execute = doubtful
        assignment = await site.assignment()
        await site.offer(assignment)
        await site.ended()
        verdict = await steer(site, "retry", assignment.key.job_id)
        assert (verdict.reason, site.events("command_accepted")) == ("not_possible", [])
        assert "attempt 1 of 1" in verdict.detail


async def test_an_action_that_stops_halfway_has_done_nothing(tmp_path) -> None:
    async with rig(tmp_path) as site:

        def twice(transaction: Any, asked: Any, actor: str) -> None:
            for _ in range(2):  # the second finds the job ended
                transaction.record(Draft(EventKind.CANCEL_REQUESTED, actor, {}, asked.job_id))

        let_in(site, actions={Verb.CANCEL: twice})
        job_id = (await site.submit()).job_id
        verdict = await site.intake.take(command(site, job_id=job_id), "mqtt")
        assert verdict.reason == "not_possible"
        assert (site.events("cancel_requested"), site.events("command_accepted")) == ([], [])
        assert site.step(job_id)["state"] == "ALLOWED_TO_START"


async def test_a_running_job_is_stopped_by_a_command_that_is_bound_to_its_run(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, _checker):
        let_in(site)
        begun = site.script.work_until_stopped()
        job_id = (await site.submit()).job_id
        await begun.wait()
        run_id = site.script.executed[0].run_id
        stale = await site.intake.take(command(site, job_id=job_id, run_id=secrets.token_hex(16)), "mqtt")
        assert (stale.reason, site.events("cancel_requested")) == ("stale", [])
        assert (await site.intake.take(command(site, job_id=job_id, run_id=run_id), "mqtt")).accepted
        assert (await site.ended())["outcome"] == "STOPPED"
        # What waited somewhere and comes now is about a job that has moved on.
        late = await site.intake.take(command(site, "hold", job_id=job_id, if_revision=1), "mqtt")
        assert late.reason == "stale"


async def test_a_machine_is_cleared_from_the_centre_only_if_the_site_says_so(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, _checker):
        let_in(site)
        await site.submit()
        await site.ended()
        (run_id,) = site.ask(lambda snapshot: snapshot.clearing()).values()
        asked = {"job_id": None, "machine": "prn-1", "run_id": run_id}
        assert (await site.intake.take(command(site, "clear", **asked), "mqtt")).reason == "not_allowed"
        let_in(site, allow_clear=True, actions=actions(bool, lambda machine: site.runner.is_working))
        site.runner.emitted(StateSeen(MachineState.EXECUTE, "somebody prints from the card"))
        working = await site.intake.take(command(site, "clear", **asked), "mqtt")
        assert (working.reason, "prn-1 is working" in working.detail) == ("not_possible", True)
        site.runner.emitted(StateSeen(MachineState.IDLE))
        assert (await site.intake.take(command(site, "clear", **asked), "mqtt")).accepted
        (cleared,) = site.events("machine_cleared")
        assert (cleared["actor"], cleared["machine"]) == (f"key:{OPERATOR}", "prn-1")
        assert site.ask(lambda snapshot: snapshot.clearing()) == {"prn-1": None}
        assert (await site.intake.take(command(site, "clear", **asked), "mqtt")).reason == "stale"


@pytest.mark.parametrize(
    ("fields", "signers", "reason", "events"),
    [
        ({"site": "paris-1"}, (OPERATOR,), "wrong_site", 1),
        ({"job_id": "01J9ZK3V5Q8M2N4P6R7S9T0W1Z"}, (OPERATOR,), "unknown", 1),
        ({"verb": 7}, (OPERATOR,), "malformed", 1),
        ({}, ("orders@acme",), "threshold", 0),
        ({}, (), "threshold", 0),
    ],
)
async def test_a_refused_command_is_an_event_only_if_operators_signed_it(
    tmp_path, fields, signers, reason, events
) -> None:
    async with rig(tmp_path) as site:
        let_in(site)
        raw = command(site, signers=signers, **fields)
        for _ in range(3):
            assert (await site.intake.take(raw, "mqtt")).reason == reason
        assert len(site.events("command_refused")) == events
        (notice,) = site.ask(lambda snapshot: snapshot.notices())
        assert notice.get("count") == (None if events else 3)


async def test_a_refused_command_is_refused_in_every_spelling(tmp_path) -> None:
    async with rig(tmp_path) as site:
        let_in(site)
        job_id = (await site.submit()).job_id
        revision = site.ask(lambda snapshot: snapshot.job(job_id))["revision"]
        raw = command(site, "release", job_id=job_id, if_revision=site.journal.last_seq + 3)
        assert (await site.intake.take(raw, "mqtt")).reason == "stale"
        assert (await site.intake.take(command(site, "hold", job_id=job_id, if_revision=revision), "mqtt")).accepted
        assert site.ask(lambda snapshot: snapshot.job(job_id))["revision"] == site.journal.last_seq, "as it says"
        for number in range(3):
            assert (await site.intake.take(raw + b" " * number, "mqtt")).reason == "stale", "whatever came since"
        assert site.events("release_requested") == []


async def test_other_spellings_of_a_command_do_not_grow_the_journal(tmp_path) -> None:
    async with rig(tmp_path) as site:
        let_in(site)
        raw = command(site, job_id=(await site.submit()).job_id)
        assert (await site.intake.take(raw, "mqtt")).accepted
        for number in range(1, 20):
            assert (await site.intake.take(raw + b" " * number, "mqtt")).reason == "replayed"
        assert len(site.events("command_refused")) == 1


async def test_a_command_never_overtakes_the_order_that_came_before_it(tmp_path) -> None:
    """A large order takes its turn among a few, and what is not known yet cannot be cancelled: it would begin."""
    async with rig(tmp_path) as site:
        let_in(site)
        order = site.order()
        large = site.ceremony.sign(json.dumps(order, indent=500).encode())
        assert len(large) > LARGE_BYTES
        acks: list[bytes] = []

        async def take_ack(raw: bytes, now_s: float) -> None:
            acks.append(raw)

        uplink = MemoryUplink()
        receiving = asyncio.create_task(Inbox("berlin-1", site.intake.take, take_ack, site.clock).receive(uplink))
        came = uplink.come("mf/v1/berlin-1/in", large, command(site, job_id=order["job_id"]))
        came += uplink.come("mf/v1/berlin-1/ack", b"acknowledged")
        await site.until(lambda: all(message.acked for message in came))
        uplink.cut()
        with pytest.raises(UplinkError):
            await receiving
        (job,) = site.ask(lambda snapshot: snapshot.jobs(all=True))
        assert job["state"] == "ABORTED"
        assert site.events("command_refused") == []
        assert acks == [b"acknowledged"]
