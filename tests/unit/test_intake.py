"""What becomes of bytes that are sent in: one verdict for the same bytes, and no file without a signature."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.errors import BundleError
from edge.intake.intake import RESERVE_BYTES, Intake
from edge.model.event import Draft, EventKind
from edge.model.fields import time_text
from edge.trust import PayloadType, write_bundle
from tests.helpers.rig import Rig, rig
from tests.helpers.trust import ISSUER, PROGRAM, Ceremony, step_document

SHA256 = hashlib.sha256(PROGRAM).hexdigest()
LONG_AGO = time_text(datetime.now(UTC) - timedelta(days=2))


async def send(site: Rig, raw: bytes):
    return await site.intake.envelope(raw, "user:ada")


def signed(rig: Rig, /, **fields: object) -> bytes:
    return rig.ceremony.sign(json.dumps(rig.order(**fields)).encode())


async def test_an_accepted_order_is_one_event_with_its_bytes_and_its_signers(tmp_path) -> None:
    async with rig(tmp_path) as site:
        raw = signed(site)
        receipt = await send(site, raw)
        assert receipt.verdict.accepted
        (event,) = site.events("job_accepted")
        assert (event["actor"], event["job_id"]) == ("user:ada", receipt.job_id)
        assert event["body"] == {"digest": hashlib.sha256(raw).hexdigest(), "signers": ["orders@acme"]}
        assert await site.journal.transact(lambda transaction: transaction.envelope_of(receipt.job_id)) == raw
        assert site.step(receipt.job_id)["state"] == "ALLOWED_TO_START"


async def test_the_same_bytes_again_get_the_same_answer_and_nothing_is_done(tmp_path) -> None:
    async with rig(tmp_path) as site:
        raw = signed(site)
        first = await send(site, raw)
        seq = site.journal.last_seq
        again = await send(site, raw)
        assert (again.verdict.accepted, again.verdict.repeated, again.job_id) == (True, True, first.job_id)
        assert site.journal.last_seq == seq


async def test_the_same_bytes_many_times_at_once_are_one_job(tmp_path) -> None:
    async with rig(tmp_path) as site:
        raw = signed(site)
        receipts = await asyncio.gather(*(send(site, raw) for _ in range(10)))
        assert [receipt.verdict.repeated for receipt in receipts].count(False) == 1
        assert len(site.events("job_accepted")) == 1


REFUSALS = {
    "wrong_site": {"site": "berlin-2"},
    "expired": {"issued_at": LONG_AGO, "expires_at": time_text(datetime.now(UTC) - timedelta(days=1))},
    "not_yet_valid": {"issued_at": time_text(datetime.now(UTC) + timedelta(days=1))},
    "stale_root": {"root_version_min": 9},
    "unsupported": {"steps": [step_document(process="mill")]},
    "malformed": {"product": 7},
    "threshold": {"issuer": "qa@acme"},
}


@pytest.mark.parametrize("reason", REFUSALS)
async def test_a_signed_order_that_is_refused_is_one_event_and_final(tmp_path, reason) -> None:
    async with rig(tmp_path) as site:
        raw = signed(site, **REFUSALS[reason])
        receipt = await send(site, raw)
        assert (receipt.verdict.accepted, receipt.verdict.reason) == (False, reason)
        (event,) = site.events("job_refused")
        assert (event["body"]["reason"], event["body"]["detail"]) == (reason, receipt.verdict.detail)
        assert event["job_id"] == receipt.job_id
        again = await send(site, raw)
        assert (again.verdict.reason, again.verdict.detail, again.verdict.repeated) == (
            reason,
            receipt.verdict.detail,
            True,
        )
        assert len(site.events("job_refused")) == 1
        (notice,) = site.ask(lambda snapshot: snapshot.notices())
        assert reason in notice["text"]
        assert "None" not in notice["text"]


async def test_a_number_that_was_used_and_an_id_that_is_taken_are_refused(tmp_path) -> None:
    async with rig(tmp_path) as site:
        order = site.order()
        accepted = await send(site, site.ceremony.sign(json.dumps(order).encode()))
        replayed = await send(site, signed(site, sequence=order["sequence"]))
        assert replayed.verdict.reason == "replayed"
        conflict = await send(site, signed(site, job_id=order["job_id"], product="another"))
        assert (conflict.verdict.reason, conflict.job_id) == ("conflict", order["job_id"])
        assert site.step(order["job_id"])["state"] == "ALLOWED_TO_START", "the accepted one is none the worse for it"
        assert accepted.job_id == order["job_id"]


async def test_a_refused_order_binds_neither_its_number_nor_its_id(tmp_path) -> None:
    async with rig(tmp_path) as site:
        order = site.order()
        refused = await send(site, site.ceremony.sign(json.dumps(order | {"site": "berlin-2"}).encode()))
        assert not refused.verdict.accepted
        assert (await send(site, site.ceremony.sign(json.dumps(order).encode()))).verdict.accepted


async def test_a_full_disk_is_a_reason_to_refuse(tmp_path) -> None:
    async with rig(tmp_path) as site:
        room = [RESERVE_BYTES + len(PROGRAM) - 1]
        processes = frozenset({"fdm"})
        site.intake = Intake(site.journal, site.artifacts, site.authority, processes, site.clock, lambda: room[0])
        assert (await send(site, signed(site))).verdict.reason == "storage_full"
        room[0] += 1
        assert (await send(site, signed(site))).verdict.accepted


def _tampered(site: Rig) -> bytes:
    envelope = json.loads(signed(site))
    payload = base64.b64decode(envelope["payload"]).replace(b"bracket-v3", b"bracket-v4")
    return json.dumps(envelope | {"payload": base64.b64encode(payload).decode()}).encode()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda site: b"garbage", "malformed"),
        (lambda site: b"x" * 2_000_000, "too_large"),
        (lambda site: site.ceremony.sign(b"{}", kind=PayloadType.ROOT), "bad_type"),
        (lambda site: site.ceremony.sign(json.dumps(site.order()).encode(), signers=("stranger",)), "threshold"),
        (_tampered, "threshold"),
    ],
)
async def test_bytes_without_a_valid_signature_are_counted_and_not_journaled(tmp_path, make, reason) -> None:
    async with rig(tmp_path) as site:
        raw = make(site)
        for _ in range(3):
            receipt = await send(site, raw)
            assert (receipt.verdict.accepted, receipt.verdict.reason, receipt.verdict.signed) == (False, reason, False)
        assert site.journal.last_seq == 0
        (notice,) = site.ask(lambda snapshot: snapshot.notices())
        assert (notice["kind"], notice["reason"], notice["count"]) == ("refusals", reason, 3)


# Bundles


async def test_files_are_taken_only_after_the_order_is_accepted(tmp_path) -> None:
    async with rig(tmp_path) as site:
        refused = await site.submit(site="berlin-2")
        assert not refused.verdict.accepted
        assert not site.artifacts.has(SHA256)
        accepted = await site.submit()
        assert accepted.stored == (SHA256,)
        assert site.artifacts.has(SHA256)
        (event,) = site.events("artifact_stored")
        assert event["body"] == {"sha256": SHA256, "size_bytes": len(PROGRAM)}
        assert event["seq"] > site.events("job_accepted")[0]["seq"]


async def test_only_files_that_the_order_names_are_taken(tmp_path) -> None:
    async with rig(tmp_path) as site:
        other = tmp_path / "other"
        other.write_bytes(b"something else")
        sha256 = hashlib.sha256(b"something else").hexdigest()
        (tmp_path / "source").write_bytes(PROGRAM)
        write_bundle(tmp_path / "two.mfjob", signed(site), {SHA256: tmp_path / "source", sha256: other})
        receipt = await site.intake.bundle(tmp_path / "two.mfjob", "user:ada")
        assert receipt.stored == (SHA256,)
        assert not site.artifacts.has(sha256)


async def test_a_second_submission_brings_the_file_that_was_missing(tmp_path) -> None:
    async with rig(tmp_path) as site:
        raw = signed(site)
        write_bundle(tmp_path / "empty.mfjob", raw, {})
        first = await site.intake.bundle(tmp_path / "empty.mfjob", "user:ada")
        assert (first.verdict.accepted, first.missing, site.events("artifact_stored")) == (True, (SHA256,), [])
        (tmp_path / "source").write_bytes(PROGRAM)
        write_bundle(tmp_path / "whole.mfjob", raw, {SHA256: tmp_path / "source"})
        second = await site.intake.bundle(tmp_path / "whole.mfjob", "user:eve")
        assert (second.verdict.repeated, second.stored, second.missing) == (True, (SHA256,), ())
        (event,) = site.events("artifact_stored")
        assert (event["actor"], event["job_id"]) == ("user:eve", first.job_id)
        third = await site.intake.bundle(tmp_path / "whole.mfjob", "user:eve")
        assert (third.stored, third.missing, len(site.events("artifact_stored"))) == ((), (), 1)


async def test_a_wrong_file_is_refused_by_name_and_the_order_waits_for_the_right_one(tmp_path) -> None:
    async with rig(tmp_path) as site:
        with zipfile.ZipFile(tmp_path / "wrong.mfjob", "w") as archive:
            archive.writestr("job.dsse.json", signed(site))
            archive.writestr(f"sha256/{SHA256}", PROGRAM[:-1] + b"!")
        receipt = await site.intake.bundle(tmp_path / "wrong.mfjob", "user:ada")
        assert receipt.verdict.accepted
        ((sha256, reason),) = receipt.refused
        assert sha256 == SHA256
        assert "is not what was sent" in reason
        assert not site.artifacts.has(SHA256)


async def test_a_file_that_came_right_before_a_power_cut_is_written_down_the_next_time(tmp_path) -> None:
    async with rig(tmp_path) as site:
        bundle = site.bundle()
        with bundle.open("rb"):
            source = tmp_path / "source.gcode"
            with source.open("rb") as stream:
                site.artifacts.store(stream, SHA256, len(PROGRAM))
        await site.intake.bundle(bundle, "user:ada")
        assert len(site.events("artifact_stored")) == 1


async def test_a_file_that_was_lost_comes_again_with_the_same_bundle(tmp_path) -> None:
    async with rig(tmp_path) as site:
        bundle = site.bundle()
        await site.intake.bundle(bundle, "user:ada")
        site.artifacts.quarantine(SHA256)
        await site.journal.record([Draft(EventKind.ARTIFACT_LOST, "site", {"sha256": SHA256, "reason": "damaged"})])
        receipt = await site.intake.bundle(bundle, "user:ada")
        assert (receipt.stored, len(site.events("artifact_stored"))) == ((SHA256,), 2)


async def test_a_file_is_an_envelope_or_a_bundle_by_what_is_in_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        (tmp_path / "one").write_bytes(b"\n " + signed(site))
        alone = await site.intake.file(tmp_path / "one", "user:ada")
        assert (alone.verdict.accepted, alone.stored) == (True, ())
        bundled = await site.intake.file(site.bundle(), "user:ada")
        assert (bundled.verdict.accepted, bundled.stored) == (True, (SHA256,))
        (tmp_path / "large").write_bytes(b"{" + b" " * 2_000_000)
        assert (await site.intake.file(tmp_path / "large", "user:ada")).verdict.reason == "too_large"
        (tmp_path / "empty").touch()
        for name, words in (("empty", "not a zip file"), ("missing", "cannot be read: No such file")):
            with pytest.raises(BundleError, match=words):
                await site.intake.file(tmp_path / name, "user:ada")


async def test_what_a_bundle_is_bringing_is_known_until_it_is_there(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        seen = []

        async def make_room() -> None:
            seen.append(site.intake.arriving)

        processes = frozenset({"fdm"})
        site.intake = Intake(site.journal, site.artifacts, site.authority, processes, site.clock, make_room=make_room)
        bundle = site.bundle()
        await asyncio.gather(*(site.intake.bundle(bundle, "user:ada") for _ in range(2)))
        assert seen[0] == {SHA256}
        assert site.intake.arriving == frozenset()


async def test_what_is_no_bundle_is_refused_without_a_trace(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        (tmp_path / "garbage").write_bytes(b"garbage")
        with pytest.raises(BundleError, match="not a zip file"):
            await site.intake.bundle(tmp_path / "garbage", "user:ada")
        assert site.journal.last_seq == 0


async def test_other_spellings_of_a_signed_order_do_not_grow_the_journal(tmp_path) -> None:
    async with rig(tmp_path) as site:
        accepted = signed(site)
        refused = signed(site, site="berlin-2")
        assert (await send(site, accepted)).verdict.accepted
        for number in range(20):
            assert (await send(site, accepted + b" " * (number + 1))).verdict.reason == "replayed"
            assert (await send(site, refused + b" " * number)).verdict.reason == "wrong_site"
        reasons = [event["body"]["reason"] for event in site.events("job_refused")]
        assert sorted(reasons) == ["replayed", "wrong_site"]
        counts = {n["reason"]: n["count"] for n in site.ask(lambda snapshot: snapshot.notices()) if "count" in n}
        assert counts == {"replayed": 19, "wrong_site": 19}
        assert (await site.journal.verify()).problems == ()


async def test_a_refusal_is_final_in_every_spelling_of_the_envelope(tmp_path) -> None:
    """Whoever has a copy can spell it anew; the issuer may have given the work to another site."""
    async with rig(tmp_path) as site:
        raw = signed(site)
        free, site.intake._free_bytes = site.intake._free_bytes, lambda: 0
        assert (await send(site, raw)).verdict.reason == "storage_full"
        site.intake._free_bytes = free
        for number in range(3):
            verdict = (await send(site, raw + b" " * number)).verdict
            assert (verdict.accepted, verdict.reason) == (False, "storage_full")
        assert (len(site.events("job_refused")), site.events("job_accepted")) == (1, [])


async def test_a_refusal_for_its_signers_is_cured_by_more_of_them(tmp_path) -> None:
    async with rig(tmp_path) as site:
        site.ceremony = Ceremony(issuers=(ISSUER, "b@acme"), limits={ISSUER: {"processes": ["mill"]}})
        site.authority.root = site.ceremony.root
        payload = json.dumps(site.order(issuer="b@acme")).encode()
        assert (await send(site, site.ceremony.sign(payload, (ISSUER,)))).verdict.reason == "threshold"
        assert (await send(site, site.ceremony.sign(payload, (ISSUER, "b@acme")))).verdict.accepted


async def test_planning_goes_by_the_verification_of_the_acceptance(tmp_path, monkeypatch) -> None:
    async with rig(tmp_path) as site:
        raw = signed(site)
        receipt = await send(site, raw)
        order, now = receipt.verdict.order, site.clock.now()
        verified = []
        monkeypatch.setattr(
            "edge.intake.authority.verify_order", lambda raw, root: verified.append(raw) or receipt.verdict
        )
        assert site.authority.known_refusal(receipt.verdict.digest, raw, order, now) == ""
        assert verified == []
        site.authority.forget_all_but(())
        site.authority.known_refusal(receipt.verdict.digest, raw, order, now)
        assert verified == [raw]


async def test_nobody_vouches_for_an_order_that_was_refused(tmp_path) -> None:
    async with rig(tmp_path) as site:
        raw = signed(site, site="elsewhere")
        verdict = (await send(site, raw)).verdict
        assert not verdict.accepted
        assert site.authority.known_refusal(verdict.digest, b"{}", verdict.order, site.clock.now()) != ""
