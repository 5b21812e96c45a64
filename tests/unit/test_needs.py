"""What open orders need, counted as it comes, is what it is counted anew."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from edge.artifacts.needs import Needs
from edge.clock import SystemClock
from edge.errors import EdgeError, IllegalTransitionError
from edge.journal.journal import parked
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind, stamp_text
from edge.model.fields import time_text
from edge.trust import Claims
from tests.helpers.rig import rig
from tests.journal_kit import began, ended


def counted(transaction: Transaction, needs: Needs) -> Claims:
    claims = needs.claims(transaction.connection)
    anew = Needs().claims(transaction.connection)
    assert claims == anew
    assert claims.held_bytes == sum(claims.held.values())
    return Claims(dict(claims.held), claims.held_bytes, claims.missing_bytes, claims.idle_bytes)


def repaired(at: datetime) -> Draft:
    body = {"at": stamp_text(at), "nonce_mono_ms": 0, "boot_id": "boot-0", "repairs": True}
    return Draft(EventKind.TIME_ACCEPTED, "usb", body)


async def test_counting_what_is_new_gives_what_counting_everything_gives(tmp_path: Path, monkeypatch) -> None:
    shift, wall = [timedelta()], SystemClock.wall
    monkeypatch.setattr(SystemClock, "wall", lambda self: wall(self) + shift[0])
    dice = random.Random(20261121)
    needs = Needs()
    contents = [bytes([65 + number]) * (100 + number) for number in range(5)]
    async with rig(tmp_path) as site:
        jobs: list[str] = []
        waiting: list[bytes] = []
        fdm = frozenset({"fdm"})
        verdicts: list[bool] = []
        for number in range(240):
            content = dice.choice(contents)
            sha256 = hashlib.sha256(content).hexdigest()
            match dice.randrange(11):
                case 7:
                    shift[0] += timedelta(hours=dice.randrange(12))
                case 8 | 9 if jobs:  # also one that has expired; then it is held
                    job_id = dice.choice(jobs)
                    begins = began(f"run-{number}", f"prn-{number}", job_id=job_id)
                    ends = ended(f"run-{number}", "UNKNOWN", machine=f"prn-{number}", job_id=job_id)
                    with contextlib.suppress(IllegalTransitionError):
                        await site.journal.record([begins])
                        await site.journal.transact(lambda transaction: counted(transaction, needs))
                        if dice.random() < 0.7:
                            await site.journal.record([ends])
                case 10:  # two roles say that it is earlier
                    ahead = shift[0]
                    shift[0] = timedelta()
                    await site.journal.record([repaired(site.clock.wall())])
                    shift[0] = dice.choice([ahead, timedelta()])
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
                    until = time_text(site.clock.wall().replace(microsecond=0) + timedelta(hours=dice.randrange(1, 48)))
                    issued = time_text(site.clock.wall().replace(microsecond=0))
                    fields = {"expires_at": until, "issued_at": issued, "files": dice.random() < 0.5}
                    jobs.append(str((await site.submit(content, **fields)).job_id))
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


async def test_an_order_is_counted_until_it_expires_and_while_it_is_at_a_machine(tmp_path: Path, monkeypatch) -> None:
    shift, wall = [timedelta()], SystemClock.wall
    monkeypatch.setattr(SystemClock, "wall", lambda self: wall(self) + shift[0])
    needs = Needs()
    async with rig(tmp_path) as site:

        async def count(hours: int, draft: Draft | None = None) -> set[str]:
            shift[0] = timedelta(hours=hours)
            if draft is not None:
                await site.journal.record([draft])
            return set((await site.journal.transact(lambda transaction: counted(transaction, needs))).held)

        def until(hours: int) -> str:
            return time_text((wall(site.clock) + timedelta(hours=hours)).replace(microsecond=0))

        long, short = (hashlib.sha256(content).hexdigest() for content in (b"long", b"short"))
        await site.submit(b"long", files=False, expires_at=until(40))
        assert await count(0) == {long}
        job_id = str((await site.submit(b"short", files=False, expires_at=until(2))).job_id)
        assert await count(1) == {long, short}
        assert await count(3, Draft(EventKind.SITE_STARTED, "site")) == {long}
        assert await count(3, began("run-1", "prn-1", job_id=job_id)) == {long, short}
        assert await count(4, Draft(EventKind.SITE_STARTED, "site")) == {long, short}
        assert await count(4, ended("run-1", "UNKNOWN", job_id=job_id)) == {long}
        assert await count(41, Draft(EventKind.SITE_STARTED, "site")) == set()


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
