"""Hundreds of reports wait at a real Mosquitto for a collector that was away."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from edge.uplink import window
from edge.uplink.mqtt import connect
from edge.uplink.port import UplinkError
from edge.uplink.topics import What, topic
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.reporting import SITE, alarms_of, collecting, copy_of, events_of, fact, reporting

EVENTS = 400
DEADLINE_S = 30.0
OUT = topic(SITE, What.OUT)


async def test_all_that_waited_for_the_collector_is_taken_over_one_connection(
    tmp_path: Path, broker: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mosquitto 2.0.11 sends it all at once, and takes no answer meanwhile."""
    monkeypatch.setattr(window, "WINDOW", EVENTS)
    async with connect(broker.at(CENTRE), CENTRE, [OUT]):
        pass
    async with reporting(tmp_path, max_bytes=2000) as (journal, outbox), collecting(tmp_path) as collector:
        for _ in range(EVENTS):
            await journal.transact(lambda transaction: transaction.record(fact("x" * 600)))
        async with connect(broker.at(SITE), SITE, []) as site:
            while envelopes := await outbox.next(0.0):
                if not await copy_of(collector, journal.ident):
                    await collector.take(OUT, envelopes[0])  # so that there is something to say at once
                for raw in envelopes:
                    await site.publish(OUT, raw)

        async with connect(broker.at(CENTRE), CENTRE, [OUT]) as uplink:
            serving = asyncio.create_task(collector.serve(uplink), name="test: serve")
            async with asyncio.timeout(DEADLINE_S):
                while len(await copy_of(collector, journal.ident)) < journal.last_seq:
                    collector.moved.clear()
                    await collector.moved.wait()
            assert not serving.done(), "the connection was lost"
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError, UplinkError):
                await serving
        assert await copy_of(collector, journal.ident) == await events_of(journal)
        assert await alarms_of(collector) == {}
