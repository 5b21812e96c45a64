"""Newest values: one a key, gaps are told, and facts go first."""

from __future__ import annotations

import asyncio
import contextlib
import json

from edge.uplink.telemetry import MAX_KEYS, Telemetry
from tests.unit.test_outbox import Wire


def test_the_newest_value_of_each_key_is_sent_and_what_was_skipped_is_counted() -> None:
    telemetry = Telemetry("berlin-1")
    assert telemetry.take(0.0) is None
    for second in range(3):
        telemetry.put("prn-1.T", 200.0 + second, float(second))
    telemetry.put("prn-1.state", "EXECUTE", 1.0)
    first = json.loads(telemetry.take(4.0) or b"")
    assert first["values"] == {
        "prn-1.T": {"value": 202.0, "age_s": 2.0, "skipped": 2},
        "prn-1.state": {"value": "EXECUTE", "age_s": 3.0, "skipped": 0},
    }
    assert telemetry.take(5.0) is None
    telemetry.put("prn-1.T", 1, 6.0)
    second = json.loads(telemetry.take(6.0) or b"")
    assert (second["number"], second["run"], second["values"]["prn-1.T"]["skipped"]) == (2, first["run"], 0)


def test_keys_are_bounded() -> None:
    telemetry = Telemetry("berlin-1")
    for number in range(MAX_KEYS + 2):
        telemetry.put(str(number), number, 0.0)
    found = json.loads(telemetry.take(0.0) or b"")
    assert (len(found["values"]), found["dropped"]) == (MAX_KEYS, 2)


async def test_nothing_is_sent_while_facts_wait() -> None:
    telemetry, wire, asked = Telemetry("berlin-1"), Wire(), []
    telemetry.put("a", 1, 0.0)

    def facts_wait() -> bool:
        asked.append(wire.published.empty())
        return len(asked) < 3

    task = asyncio.create_task(telemetry.send(wire, facts_wait, period_s=0.0), name="test: telemetry")
    try:
        async with asyncio.timeout(30):
            assert b'"a"' in await wire.published.get()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert asked[:3] == [True, True, True]
