"""A thousand hostile messages: how much work they make, which is what a good one waits for. Nothing is measured."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from edge.errors import EnvelopeError
from edge.intake import intake
from edge.trust import PayloadType, parse
from edge.trust import root as root_module
from edge.trust.envelope import MAX_ENVELOPE_BYTES
from tests.helpers.rig import Rig, rig
from tests.helpers.trust import ISSUER, Ceremony, keyid

HOSTILE = 1000
BAD = base64.b64encode(bytes(range(1, 64)) + b"\0").decode()


def envelope(content: bytes, signatures: int = 32) -> bytes:
    found = [{"keyid": keyid(ISSUER), "sig": BAD} for _ in range(signatures)]
    text = base64.b64encode(content).decode()
    return json.dumps({"payloadType": PayloadType.JOB, "payload": text, "signatures": found}).encode()


def good(site: Rig) -> bytes:
    return site.ceremony.sign(json.dumps(site.order()).encode())


async def test_a_thousand_waiting_messages_make_no_events_and_a_good_one_comes_through_behind_them(
    tmp_path, monkeypatch
) -> None:
    commits: list[int] = []
    async with rig(tmp_path) as site:
        store = site.journal._store
        commit = store._commit
        monkeypatch.setattr(store, "_commit", lambda *args: (commits.append(1), commit(*args)))
        kinds = [b"garbage", envelope(b"{}"), site.ceremony.sign(b"{}", signers=("stranger",))]
        raws = [kinds[number % 3] + b" " * number for number in range(HOSTILE)]
        sent = [asyncio.create_task(site.intake.take(raw, "usb")) for raw in raws]
        verdict = await site.intake.take(good(site), "usb")
        assert verdict.accepted
        refused = await asyncio.gather(*sent)
        assert not any(one.accepted or one.signed for one in refused)
        assert [event["kind"] for event in site.ask(lambda snapshot: snapshot.events())] == ["job_accepted"]
        count, total = site.ask(
            lambda snapshot: snapshot.connection.execute("SELECT count(*), sum(count) FROM refusals").fetchone()
        )
        assert (total, count <= 4) == (HOSTILE, True), "a row for each reason and minute"
        assert len(commits) < HOSTILE / 4, "they share transactions"


async def test_large_messages_take_turns_among_a_few_and_no_order_waits_for_them(tmp_path, monkeypatch) -> None:
    judged: list[int] = []
    admit = intake.admit

    def counted(raw: bytes, *more: Any) -> Any:
        judged.append(len(raw))
        return admit(raw, *more)

    monkeypatch.setattr(intake, "admit", counted)
    async with rig(tmp_path) as site:
        raws = [envelope(b" " * (30_000 + number)) for number in range(100)]
        sent = [asyncio.create_task(site.intake.take(raw, "usb")) for raw in raws]
        await asyncio.sleep(0)
        verdict = await site.intake.take(good(site), "usb")
        assert verdict.accepted
        assert len(judged) - 1 <= 2 * intake.LARGE_AT_ONCE, "of a hundred that came before"
        assert not any(one.accepted for one in await asyncio.gather(*sent))
        assert len(judged) == 101


def test_no_envelope_has_a_site_verify_more_than_twice_for_each_key(monkeypatch) -> None:
    asked: list[bytes] = []
    verifies = root_module.verifies

    def counted(public: bytes, signature: bytes, message: bytes) -> bool:
        asked.append(public)
        return verifies(public, signature, message)

    monkeypatch.setattr(root_module, "verifies", counted)
    ceremony = Ceremony(issuers=(ISSUER, "qa@acme"), threshold=2)
    assert ceremony.root.signers(root_module.Role.ISSUER, parse(envelope(b"{}"))) == frozenset()
    assert len(asked) == 2


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":[' + b"1," * 120_000 + b"1]}",
        b'""' * 120_000,
        b'{"a":["' + b'","' * 60_000 + b'"]}',
    ],
)
def test_what_can_be_no_envelope_is_not_even_parsed(raw, monkeypatch) -> None:
    monkeypatch.setattr("edge.trust.envelope.load_object", lambda *args, **kwargs: pytest.fail("it was parsed"))
    assert len(raw) <= MAX_ENVELOPE_BYTES
    with pytest.raises(EnvelopeError, match="or is none"):
        parse(raw)
