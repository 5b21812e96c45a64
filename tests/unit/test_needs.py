"""What open orders need, counted as it comes, is what it is counted anew."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from edge.artifacts.needs import Needs
from edge.errors import EdgeError
from edge.journal.journal import parked
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from edge.trust import Claims
from tests.helpers.rig import rig


def counted(transaction: Transaction, needs: Needs) -> Claims:
    claims = needs.claims(transaction.connection)
    anew = Needs().claims(transaction.connection)
    assert claims == anew
    assert claims.held_bytes == sum(claims.held.values())
    return Claims(dict(claims.held), claims.held_bytes, claims.missing_bytes, claims.idle_bytes)


async def test_counting_what_is_new_gives_what_counting_everything_gives(tmp_path: Path) -> None:
    dice = random.Random(20261121)
    needs = Needs()
    contents = [bytes([65 + number]) * (100 + number) for number in range(5)]
    async with rig(tmp_path) as site:
        jobs: list[str] = []
        waiting: list[bytes] = []
        fdm = frozenset({"fdm"})
        verdicts: list[bool] = []
        for _ in range(120):
            content = dice.choice(contents)
            sha256 = hashlib.sha256(content).hexdigest()
            match dice.randrange(7):
                case 5:
                    raw = site.ceremony.sign(json.dumps(site.order(content)).encode())
                    await site.journal.record([parked(raw, "usb")])
                    waiting.append(raw)
                case 6 if waiting:  # it has its verdict
                    raw = waiting.pop(dice.randrange(len(waiting)))
                    site.intake._processes = dice.choice([frozenset(), fdm])
                    verdicts.append((await site.intake.envelope(raw, "usb")).verdict.accepted)
                    site.intake._processes = fdm
                case 0 | 1:
                    jobs.append(str((await site.submit(content, files=dice.random() < 0.5)).job_id))
                case 2 if jobs:
                    job_id = jobs.pop(dice.randrange(len(jobs)))
                    await site.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, job_id)])
                case 3:
                    body = {"sha256": sha256, "size_bytes": len(content)}
                    await site.journal.record([Draft(EventKind.ARTIFACT_EVICTED, "site", body)])
                case _:
                    body = {"sha256": sha256, "size_bytes": len(content)}
                    await site.journal.record([Draft(EventKind.ARTIFACT_STORED, "site", body)])
            if dice.random() < 0.7:
                await site.journal.transact(lambda transaction: counted(transaction, needs))
        assert set(verdicts) == {True, False}


async def test_what_was_rolled_back_is_not_counted(tmp_path: Path) -> None:
    needs = Needs()
    async with rig(tmp_path) as site:
        await site.submit(b"first", files=False)
        await site.journal.transact(lambda transaction: counted(transaction, needs))

        def fails(transaction: Transaction) -> None:
            body = {"sha256": "ab" * 32, "size_bytes": 7}
            transaction.record(Draft(EventKind.ARTIFACT_STORED, "site", body))
            assert counted(transaction, needs).idle_bytes == 7
            raise EdgeError("rolled back")

        with pytest.raises(EdgeError):
            await site.journal.transact(fails)
        assert (await site.journal.transact(lambda transaction: counted(transaction, needs))).idle_bytes == 0
        await site.submit(b"second", files=False)
        assert (await site.journal.transact(lambda transaction: counted(transaction, needs))).missing_bytes == 11


async def test_the_file_of_an_order_that_waits_is_held_once_it_is_here_and_idle_after_a_refusal(tmp_path: Path) -> None:
    needs, content = Needs(), b"G1 X1"
    sha256 = hashlib.sha256(content).hexdigest()
    async with rig(tmp_path) as site:

        async def now() -> tuple[int, int, int]:
            claims = await site.journal.transact(lambda transaction: counted(transaction, needs))
            return claims.held_bytes, claims.missing_bytes, claims.idle_bytes

        raw = site.ceremony.sign(json.dumps(site.order(content)).encode())
        await site.journal.record([parked(raw, "usb")])
        assert await now() == (0, 0, 0), "nothing is promised to it"
        body = {"sha256": sha256, "size_bytes": 5}
        await site.journal.record([Draft(EventKind.ARTIFACT_STORED, "site", body)])
        assert await now() == (5, 0, 0)
        site.intake._processes = frozenset()
        assert (await site.intake.envelope(raw, "usb")).verdict.reason == "unsupported"
        assert await now() == (0, 0, 5)
