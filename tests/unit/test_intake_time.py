"""Signed times at a site: each answer counts once, and a repair is not undone by what is recorded beside it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.intake.intake import Intake
from edge.intake.nonce import NonceFile
from edge.journal.transaction import Transaction
from edge.model.event import Draft, EventKind
from edge.timefloor import Source
from edge.trust import PayloadType, Reason, TrustRoot, time_bytes
from tests.helpers.rig import Rig, rig
from tests.helpers.trust import keyid, private_key, public_bytes, root_document, sign

KEYS = {"time": "time-1", "operator": "operator-1"}


def trust_root() -> TrustRoot:
    document = root_document()
    for role, name in KEYS.items():
        document["keys"][keyid(name)] = {"name": name, "public": public_bytes(private_key(name)).hex()}
        document["roles"][role] = {"threshold": 1, "keyids": [keyid(name)]}
    return TrustRoot.model_validate(document)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def intake_of(site: Rig, nonce: NonceFile) -> Intake:
    site.authority.root = trust_root()
    return Intake(site.journal, site.artifacts, site.authority, frozenset({"fdm"}), site.clock, nonce=nonce)


def repair(nonce: NonceFile) -> bytes:
    """What both roles say that the time is: the truth."""
    return sign(PayloadType.TIME, time_bytes(now(), nonce.to_show().value), [private_key(k) for k in KEYS.values()])


async def test_an_answer_that_comes_several_times_at_once_counts_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as site:
        nonce = NonceFile.open(tmp_path, site.clock)
        intake, raw = intake_of(site, nonce), repair(nonce)
        verdicts = await asyncio.gather(*(intake.time(raw, "user:ada") for _ in range(3)))
        assert sorted(str(verdict.reason) for verdict in verdicts) == ["None", "replayed", "replayed"]
        assert len(site.events("time_accepted")) == 1
        notices = [notice["text"] for notice in site.ask(lambda snapshot: snapshot.notices())]
        assert notices[0].startswith("a signed time was refused, replayed: ")


async def test_what_is_durable_counts_though_the_connection_that_brought_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes again would be refused: their nonce is used up."""
    async with rig(tmp_path) as site:
        nonce = NonceFile.open(tmp_path, site.clock)
        intake, raw = intake_of(site, nonce), repair(nonce)
        transact, asked = site.journal.transact, asyncio.Event()

        def watched(fn: Callable[[Transaction], Any]) -> Any:
            asked.set()
            return transact(fn)

        monkeypatch.setattr(site.journal, "transact", watched)
        taking = asyncio.create_task(intake.take(raw, "mqtt"))
        await asked.wait()
        taking.cancel()
        await asyncio.wait([taking])
        await site.until(lambda: site.events("time_accepted"))
        await site.until(lambda: site.clock.known.signed is not None)


async def test_an_answer_does_not_count_again_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut comes right after the answer is in the journal."""
    async with rig(tmp_path) as site:
        nonce = NonceFile.open(tmp_path, site.clock)
        intake, raw = intake_of(site, nonce), repair(nonce)

        def cut(known: object) -> None:
            raise OSError("the power is cut")

        with monkeypatch.context() as patch:
            patch.setattr(site.clock, "repair", cut)
            with pytest.raises(OSError, match="the power is cut"):
                await intake.time(raw, "user:ada")
        assert len(site.events("time_accepted")) == 1
        site.clock.repair(await site.journal.transact(lambda transaction: transaction.known_time()))  # the next daemon
        again = await intake_of(site, NonceFile.open(tmp_path, site.clock)).time(raw, "user:ada")
        assert again.reason is Reason.REPLAYED
        assert len(site.events("time_accepted")) == 1


class Ahead(SystemClock):
    """A host whose clock somebody has set ahead."""

    def wall(self) -> datetime.datetime:
        return super().wall() + datetime.timedelta(days=300)


async def test_what_is_recorded_beside_a_repair_does_not_undo_it(tmp_path: Path) -> None:
    """The floor of a journal whose clock was wrong is that of the repair, also for the next daemon."""
    async with rig(tmp_path) as site:
        site.clock = Ahead(Source.HOST)
        site.journal._stamp = site.clock.stamp
        nonce = NonceFile.open(tmp_path, site.clock)
        intake, raw = intake_of(site, nonce), repair(nonce)
        seen = Draft(EventKind.MACHINE_ONLINE, "site", {}, machine="prn-1")
        await site.journal.record([seen])
        tomorrow = now() + datetime.timedelta(days=1)
        assert (await site.journal.transact(lambda transaction: transaction.known_time())).floor > tomorrow

        async def record_without_end() -> None:
            while True:
                await site.journal.record([seen])

        others = [asyncio.create_task(record_without_end()) for _ in range(3)]
        try:
            assert (await intake.time(raw, "user:ada")).repairs
        finally:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        assert (await site.journal.transact(lambda transaction: transaction.known_time())).floor < tomorrow
        assert site.clock.now().floor < tomorrow
