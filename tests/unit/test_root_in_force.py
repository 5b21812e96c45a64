"""A new trust root at a site: taken once and for good, and felt by every order at once."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.driver import At
from edge.errors import ConfigError, JournalError
from edge.intake.authority import Authority
from edge.intake.rootfolder import RootFolder
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.event import Draft, EventKind
from edge.running.planner import Code
from edge.running.recovery import left_runs
from edge.timefloor import Source
from edge.trust import PayloadType
from tests.helpers.fake_driver import confirm
from tests.helpers.rig import Rig, rig
from tests.helpers.trust import ISSUER, keyid, root_document, signed_root
from tests.unit.test_dispatch import code, dispatching
from tests.unit.test_runner_left import left_rig

LOST = {"compromise": False, "reason": "lost"}
STOLEN = {"compromise": True, "reason": "stolen"}


def version(number: int, signers: tuple[str, ...] = ("root-1",), **fields: Any) -> bytes:
    return signed_root(root_document(version=number, **fields), signers)


def revoking(number: int, entry: dict[str, Any], **fields: Any) -> bytes:
    return signed_root(root_document(version=number, **fields) | {"revoked": {keyid(ISSUER): entry}})


async def begin_with(site: Rig, raw: bytes, folder: Path) -> None:
    """As the daemon does at its start, with `raw` in the file that site.toml names."""
    file = folder / "root.dsse.json"
    file.write_bytes(raw)
    made = Authority.load(file)
    await made.settle(site.journal)
    site.authority.__dict__.update(made.__dict__)


def in_force(site: Rig) -> int:
    return site.ask(lambda snapshot: snapshot.root_in_force())["version"]


# Taking it


async def test_the_file_is_what_a_site_begins_with(tmp_path) -> None:
    async with rig(tmp_path) as site:
        await begin_with(site, version(3), tmp_path)
        (event,) = site.events("root_accepted")
        assert (event["actor"], event["body"]["version"], event["body"]["signers"]) == ("site", 3, ["root-1"])
        await begin_with(site, version(3), tmp_path)
        assert (len(site.events("root_accepted")), in_force(site)) == (1, 3)


async def test_a_chain_of_versions_is_taken_one_after_the_other(tmp_path) -> None:
    async with rig(tmp_path) as site:
        await begin_with(site, version(1), tmp_path)
        early = await site.intake.take(version(3), "user:ada")
        assert (early.accepted, early.reason) == (False, "gap")
        for number in (2, 3):
            verdict = await site.intake.take(version(number), "user:ada")
            assert (verdict.accepted, verdict.repeated, site.authority.root.version) == (True, False, number)
        again = await site.intake.take(version(3), "user:eve")
        assert (again.accepted, again.repeated, in_force(site)) == (True, True, 3)
        assert [(e["actor"], e["body"]["version"]) for e in site.events("root_accepted")] == [
            ("site", 1),
            ("user:ada", 2),
            ("user:ada", 3),
        ]
        assert (await site.journal.verify()).problems == ()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (version(1), "rollback"),
        (version(2, expires_at="2030-01-01T00:00:00Z"), "conflict"),
        (version(4), "gap"),
        (version(3, name="Other"), "not_successor"),
        (signed_root({"version": 3}), "malformed"),
    ],
)
async def test_what_root_keys_signed_and_does_not_follow_is_one_event(tmp_path, raw, reason) -> None:
    async with rig(tmp_path) as site:
        await begin_with(site, version(2), tmp_path)
        for repeated in (False, True, True):
            verdict = await site.intake.take(raw, "user:ada")
            assert (verdict.accepted, verdict.reason, verdict.repeated) == (False, reason, repeated)
        for number in range(1, 20):
            assert (await site.intake.take(raw + b" " * number, "mqtt")).repeated
        (event,) = site.events("root_refused")
        assert (event["body"]["reason"], event["body"]["signers"]) == (reason, ["root-1"])
        assert in_force(site) == site.authority.root.version == 2
        notices = [notice["text"] for notice in site.ask(lambda snapshot: snapshot.notices())]
        assert notices[0].startswith(f"a trust root was refused, {reason}: ")


@pytest.mark.parametrize("raw", [version(3, ("stranger",)), version(3, ()), version(2, ("stranger",), name="Other")])
async def test_a_root_that_nobody_who_may_has_signed_is_counted(tmp_path, raw) -> None:
    async with rig(tmp_path) as site:
        await begin_with(site, version(2), tmp_path)
        for _ in range(3):
            assert (await site.intake.take(raw, "mqtt")).reason == "threshold"
        assert site.events("root_refused") == []
        (notice,) = site.ask(lambda snapshot: snapshot.notices())
        assert (notice["reason"], notice["count"]) == ("threshold", 3)


async def test_two_roots_of_one_version_are_told_until_a_newer_one_comes(tmp_path) -> None:
    async with rig(tmp_path) as site:
        await begin_with(site, version(2), tmp_path)
        await site.intake.take(version(2, expires_at="2030-01-01T00:00:00Z"), "user:ada")
        (told,) = site.ask(lambda snapshot: snapshot.attention())
        assert (told["kind"], told["command"]) == ("root_conflict", "edge root show FILE")
        assert (await site.intake.take(version(3), "user:ada")).accepted
        assert site.ask(lambda snapshot: snapshot.attention()) == []


async def test_other_messages_come_through_the_same_door(tmp_path) -> None:
    async with rig(tmp_path) as site:
        order = await site.intake.take(site.ceremony.sign(json.dumps(site.order()).encode()), "usb")
        assert order.accepted
        assert (await site.intake.take(b"garbage", "usb")).reason == "malformed"
        assert (await site.intake.take(site.ceremony.sign(b"{}", kind=PayloadType.ACK), "usb")).reason == "bad_type"


# Starting again


async def settled(folder: Path, raw: bytes) -> int:
    """The version that a daemon goes by that starts with `raw` in its file."""
    file = folder / "file.dsse.json"
    file.write_bytes(raw)
    authority = Authority.load(file)
    async with Journal.open(folder / FILE_NAME, "berlin-1", SystemClock(Source.HOST).stamp) as journal:
        await authority.settle(journal)
        assert (await journal.verify()).problems == ()
    return authority.root.version


async def test_at_the_start_the_newer_of_file_and_journal_counts(tmp_path, caplog) -> None:
    assert await settled(tmp_path, version(1)) == 1
    assert await settled(tmp_path, version(2)) == 2
    assert await settled(tmp_path, version(1)) == 2
    assert "older trust root than the journal, whose version 2 counts" in caplog.text
    assert await settled(tmp_path, version(3)) == 3


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (version(4), "does not follow version 2, which this site goes by: gap"),
        (version(2, expires_at="2030-01-01T00:00:00Z"), "conflict"),
        (version(3, ("stranger",), roots=("stranger",)), "threshold"),
    ],
)
async def test_a_file_that_does_not_follow_starts_nothing(tmp_path, raw, says) -> None:
    await settled(tmp_path, version(2))
    with pytest.raises(ConfigError, match=says):
        await settled(tmp_path, raw)
    assert await settled(tmp_path, version(2)) == 2
    in_use, offered = (Authority.load(_file(tmp_path, name, r)) for name, r in (("a", version(2)), ("b", raw)))
    with pytest.raises(ConfigError, match=says):
        in_use.could_begin_with(offered)
    in_use.could_begin_with(Authority.load(_file(tmp_path, "c", version(1))))


def _file(folder: Path, name: str, raw: bytes) -> Path:
    (folder / name).write_bytes(raw)
    return folder / name


async def test_a_power_cut_anywhere_in_a_root_update_leaves_the_old_or_the_new_one(tmp_path) -> None:
    async with rig(tmp_path) as site:
        await begin_with(site, version(1), tmp_path)
        path = tmp_path / FILE_NAME
        log = path.with_name(path.name + "-wal")
        before = log.stat().st_size
        assert (await site.intake.take(version(2), "user:ada")).accepted
        after = log.read_bytes()
        assert len(after) > before
        found = set()
        for place in [*range(before, len(after), 997), len(after)]:
            cut = tmp_path / f"cut-{place}"
            cut.mkdir()
            shutil.copy(path, cut)
            (cut / log.name).write_bytes(after[:place])
            found.add((place == len(after), await settled(cut, version(1))))
            shutil.rmtree(cut)
    assert found == {(False, 1), (True, 2)}


async def test_a_root_counts_only_once_its_file_is_there(tmp_path, monkeypatch) -> None:
    async with rig(tmp_path) as site:
        site.authority.folder = RootFolder(tmp_path / "roots")
        await begin_with(site, version(1), tmp_path)
        site.authority.folder = RootFolder(tmp_path / "roots")
        (tmp_path / "roots").write_bytes(b"no folder")
        with pytest.raises(JournalError, match=r"roots/2\.dsse\.json cannot be written: "):
            await site.intake.take(version(2), "user:ada")
        assert in_force(site) == site.authority.root.version == 1
        (tmp_path / "roots").unlink()
        assert (await site.intake.take(version(2), "user:ada")).accepted
        assert in_force(site) == 2
        assert RootFolder(tmp_path / "roots").read(2) == version(2)


async def test_a_folder_that_cannot_be_read_starts_nothing_and_one_that_cannot_be_written_is_told(tmp_path) -> None:
    (tmp_path / "roots").write_bytes(b"no folder")
    authority = Authority.load(_file(tmp_path, "a", version(1)))
    authority.folder = RootFolder(tmp_path / "roots")
    async with rig(tmp_path) as site:
        with pytest.raises(JournalError, match="where trust roots are kept, cannot be read: Not a directory"):
            await authority.settle(site.journal)
        (tmp_path / "roots").unlink()
        (tmp_path / "roots").mkdir()
        (tmp_path / "roots" / "1.dsse.json").mkdir()
        for other in ("0.dsse.json", "1.json", ".2.dsse.json.ab12", "01.dsse.json", "two.dsse.json"):
            (tmp_path / "roots" / other).write_bytes(version(2))  # no names of ours
        await authority.settle(site.journal)
        assert authority.root.version == 1
        assert "roots/1.dsse.json cannot be written: " in authority.trouble
        (tmp_path / "roots" / "1.dsse.json").rmdir()
        authority.keep(1, version(1))
        assert authority.trouble == ""


@pytest.mark.parametrize("first", [1, 2, 3])
async def test_a_new_journal_goes_by_the_highest_root_that_follows_the_file(tmp_path, first) -> None:
    folder = RootFolder(tmp_path / "roots")
    for number in (1, 2, 3):
        folder.keep(number, version(number))
    authority = Authority.load(_file(tmp_path, "a", version(first)))
    authority.folder = folder
    async with rig(tmp_path) as site:
        await authority.settle(site.journal)
        assert in_force(site) == authority.root.version == 3
        assert (await site.journal.verify()).problems == ()


async def test_who_read_the_journal_before_the_next_version_came_takes_nothing_back(tmp_path) -> None:
    async with rig(tmp_path) as site:
        await begin_with(site, version(1), tmp_path)
        seen = await site.journal.transact(lambda transaction: transaction.root_in_force())
        assert (await site.intake.take(revoking(2, STOLEN), "user:ada")).accepted
        assert not site.authority.adopt(seen)
        assert site.authority.root.version == 2


# What stands under it


async def test_an_order_is_judged_by_the_root_that_is_durable_before_anybody_has_adopted_it(
    tmp_path, monkeypatch
) -> None:
    async with rig(tmp_path) as site:
        await begin_with(site, version(1), tmp_path)
        monkeypatch.setattr(site.authority, "adopt", lambda known: False)
        assert (await site.intake.take(revoking(2, LOST), "user:ada")).accepted
        assert site.authority.root.version == 1
        order = await site.intake.take(site.ceremony.sign(json.dumps(site.order()).encode()), "user:ada")
        assert order.reason == "revoked_key"
        assert (await site.intake.take(version(3), "user:ada")).accepted


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (revoking(2, LOST), "revoked_key: 0 valid signatures of the role 'issuer', needs 1; revoked: orders@acme"),
        (version(2, issuers=("new@acme",)), "threshold: 0 valid signatures of the role 'issuer', needs 1"),
        (version(2, limits={ISSUER: {"sites": ["paris-1"]}}), "threshold: 0 of the keys that signed may order fdm"),
        (version(2, limits={ISSUER: {"processes": ["mill"]}}), "threshold: 0 of the keys that signed may order fdm"),
    ],
)
async def test_a_new_root_reaches_an_order_that_waits(tmp_path, raw, reason) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, _):
        await begin_with(site, version(1), tmp_path)
        waiting = await site.submit(files=False)
        await site.until(lambda: code(dispatcher, waiting.job_id) is Code.NO_PROGRAM)
        assert (await site.intake.take(raw, "user:ada")).accepted
        await site.until(lambda: code(dispatcher, waiting.job_id) is Code.UNSIGNED)
        (blockers,) = [found for key, found in dispatcher.waits.items() if key.job_id == waiting.job_id]
        assert blockers[0].text.startswith(reason)
        assert site.script.executed == []


async def test_a_later_root_may_let_an_order_go_on(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, _):
        await begin_with(site, version(1), tmp_path)
        await site.intake.take(version(2, limits={ISSUER: {"processes": ["fdm"]}}), "user:ada")
        begun = site.script.work_until_stopped()
        first = await site.submit()
        await begun.wait()
        waiting = await site.submit(b"G28\n")
        await site.intake.take(version(3, limits={ISSUER: {"processes": ["mill"]}}), "user:ada")
        await site.until(lambda: code(dispatcher, waiting.job_id) is Code.UNSIGNED)
        await site.intake.take(version(4), "user:ada")
        await site.until(lambda: code(dispatcher, waiting.job_id) is not Code.UNSIGNED)
        assert site.step(first.job_id)["state"] == "RUNNING"
        assert site.step(first.job_id)["requested"] == "none"


@pytest.mark.parametrize("raw", [revoking(2, LOST), version(2, issuers=("new@acme",))])
async def test_work_that_runs_finishes_when_its_key_counts_no_more(tmp_path, raw) -> None:
    async with dispatching(tmp_path) as (site, dispatcher, _):
        await begin_with(site, version(1), tmp_path)
        begun = site.script.work_until_stopped()
        running = await site.submit()
        await begun.wait()
        waiting = await site.submit(b"G28\n")
        assert (await site.intake.take(raw, "user:ada")).accepted
        await site.until(lambda: code(dispatcher, waiting.job_id) is Code.UNSIGNED)
        assert site.step(running.job_id)["requested"] == "none"
        assert site.events("cancel_requested") == []
        assert site.events("run_ended") == []


@pytest.mark.parametrize("gone", [False, True])
async def test_work_that_runs_under_a_compromised_key_is_stopped(tmp_path, gone) -> None:
    raw = revoking(2, STOLEN, **({"issuers": ("new@acme",)} if gone else {}))
    async with dispatching(tmp_path) as (site, _, _checker):
        await begin_with(site, version(1), tmp_path)
        begun = site.script.work_until_stopped()
        running = await site.submit()
        await begun.wait()
        assert (await site.intake.take(raw, "user:ada")).accepted
        assert (await site.ended())["outcome"] == "STOPPED"
        (asked,) = site.events("cancel_requested")
        assert (asked["actor"], asked["job_id"]) == ("site", running.job_id)
        assert asked["body"]["reason"].endswith("is compromised: stolen")
        assert site.step(running.job_id)["state"] == "ABORTED"


async def test_work_that_is_paused_under_a_compromised_key_is_stopped_before_anybody_releases_it(tmp_path) -> None:
    async with dispatching(tmp_path) as (site, _, _checker):
        await begin_with(site, version(1), tmp_path)
        site.script.pause = confirm
        begun = site.script.work_until_stopped()
        job_id = str((await site.submit()).job_id)
        await begun.wait()
        await site.journal.record([Draft(EventKind.HOLD_REQUESTED, "user:ada", {}, job_id)])
        await site.until(lambda: site.step(job_id)["state"] == "SUSPENDED")
        assert (await site.intake.take(revoking(2, STOLEN), "user:ada")).accepted
        assert (await site.ended())["outcome"] == "STOPPED"
        assert site.step(job_id)["state"] == "ABORTED"


@pytest.mark.parametrize(
    ("raw", "forbidden"),
    [
        (revoking(2, LOST), ""),
        (version(2, issuers=("new@acme",)), ""),
        (
            revoking(2, STOLEN),
            f"the order does not count any more: revoked_key: the key {ISSUER} is compromised: stolen",
        ),
    ],
)
async def test_a_run_that_a_dead_daemon_left_goes_on_under_the_root_it_began_with(tmp_path, raw, forbidden) -> None:
    async with left_rig(tmp_path, At({"after": 1}), "resume") as site:
        await begin_with(site, version(1), tmp_path)
        assert (await site.intake.take(raw, "user:ada")).accepted
        left = await left_runs(site.journal, site.artifacts, site.authority, {"prn-1"})
        assert left["prn-1"].forbids == forbidden
        await site.journal.transact(
            lambda t: t.connection.execute("UPDATE orders SET payload = replace(payload, 'resume', 'abort')")
        )
        left = await left_runs(site.journal, site.artifacts, site.authority, {"prn-1"})
        assert left["prn-1"].refusal != "", "what was altered goes on under no root"


async def test_work_that_another_issuer_answers_for_goes_on_without_the_compromised_key(tmp_path) -> None:
    async with rig(tmp_path) as site:
        authority = Authority.load(_file(tmp_path, "r", revoking(2, STOLEN, issuers=(ISSUER, "b@acme"))))

        def stops(issuer: str, *signers: str) -> bool:
            raw = site.ceremony.sign(json.dumps(site.order(issuer=issuer)).encode(), signers)
            return bool(authority.compromised(raw))

        assert stops(ISSUER, ISSUER)
        assert stops(ISSUER, ISSUER, "b@acme"), "who issued it is not among those who count"
        assert not stops("b@acme", ISSUER, "b@acme")


async def test_a_claim_that_an_older_root_verified_does_not_begin(tmp_path, caplog) -> None:
    async with rig(tmp_path) as site:
        await begin_with(site, version(1), tmp_path)
        serving = asyncio.create_task(site.runner.serve())
        try:
            assignment = await site.assignment()
            verify = site.artifacts.verify

            def verify_late(sha256: str) -> None:
                # Between the look at the signatures and the claim, another root has become durable.
                asyncio.run_coroutine_threadsafe(site.intake.take(revoking(2, LOST), "user:ada"), loop).result()
                site.artifacts.verify = verify
                verify(sha256)

            loop = asyncio.get_running_loop()
            site.artifacts.verify = verify_late
            await site.offer(assignment)
            await site.until(lambda: site.authority.root.version == 2 and site.runner.claimed is None)
            assert (site.events("run_began"), site.script.executed) == ([], [])
            assert "was verified by version 1 of the trust root, 2 is in force" in caplog.text
        finally:
            site.runner.close()
            await serving


async def test_what_was_found_of_orders_that_have_ended_is_forgotten(tmp_path, monkeypatch) -> None:
    async with rig(tmp_path) as site:
        asked: list[bytes] = []
        monkeypatch.setattr(site.authority, "refusal", lambda envelope, order: asked.append(envelope) or "")
        first, second = await site.assignment(), await site.assignment()

        def ask() -> None:
            for ident, item in (("1", first), ("2", second)):
                site.authority.known_refusal(ident, item.envelope, item.order, site.clock.now())

        ask()
        ask()
        assert asked == [first.envelope, second.envelope]
        site.authority.forget_all_but({"2"})
        ask()
        assert asked == [first.envelope, second.envelope, first.envelope]
        site.authority.root = site.authority.root.model_copy(update={"version": 2})
        site.authority.forget_all_but({"1", "2"})
        assert site.authority._verdicts == {}
