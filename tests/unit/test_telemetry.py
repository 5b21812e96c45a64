"""Newest values: one a key, gaps are told, memory and messages are bounded, and facts go first."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.driver import (
    ForeignWork,
    LinkHealth,
    MachineState,
    Message,
    Observation,
    Progress,
    Reading,
    StateSeen,
    Temperature,
)
from edge.running.observed import Observed
from edge.uplink import telemetry as module
from edge.uplink.port import Trouble, UplinkError
from edge.uplink.telemetry import (
    KEY_CHARACTERS,
    MAX_BYTES,
    MAX_KEYS,
    TEXT_CHARACTERS,
    MachineValues,
    Telemetry,
)
from tests.helpers.memory_uplink import MemoryUplink

DEADLINE_S = 30.0


class Clock(SystemClock):
    """`passed_s` goes on only when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 100.0

    def mono_s(self) -> float:
        return self.passed_s


def made(every_s: float = 10.0) -> tuple[Telemetry, Clock]:
    clock = Clock()
    return Telemetry("berlin-1", bytes, clock, every_s), clock


def taken(telemetry: Telemetry) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(telemetry.take() or b"null")
    return document


def values(telemetry: Telemetry) -> dict[str, Any]:
    return {key: row["value"] for key, row in taken(telemetry)["values"].items()}


def test_the_newest_value_of_each_key_is_sent_and_what_was_skipped_is_counted() -> None:
    telemetry, clock = made()
    assert telemetry.take() is None
    for degc in range(3):
        telemetry.put("prn-1/temperature/T", 200.0 + degc, "degC")
        clock.passed_s += 1
    telemetry.put("prn-1/state", "EXECUTE")
    clock.passed_s += 2
    first = taken(telemetry)
    assert first["values"] == {
        "prn-1/temperature/T": {"value": 202.0, "unit": "degC", "age_s": 3.0, "skipped": 2},
        "prn-1/state": {"value": "EXECUTE", "unit": "", "age_s": 2.0, "skipped": 0},
    }
    assert (first["site"], first["number"], first["skipped"], first["dropped"], first["gap"]) == (
        "berlin-1",
        1,
        2,
        0,
        None,
    )
    assert telemetry.take() is None, "what has been sent, and did not change, is not sent again"
    telemetry.put("prn-1/temperature/T", 1)
    second = taken(telemetry)
    assert (second["number"], second["run"], second["skipped"]) == (2, first["run"], 0)


def test_memory_is_bounded_however_much_is_told_and_nobody_listens() -> None:
    telemetry, _ = made()
    for number in range(3 * MAX_KEYS):
        telemetry.put(f"{number}/" + "k" * 10_000, "v" * 10_000, "u" * 10_000)
    for _ in range(10_000):
        telemetry.put("0/" + "k" * 10_000, "again")
    assert telemetry.view() == {"every_s": 10.0, "sent": 0, "waiting": MAX_KEYS}
    first = taken(telemetry)
    assert first["dropped"] == 2 * MAX_KEYS
    assert first["skipped"] == 10_000
    assert all(len(key) <= KEY_CHARACTERS for key in first["values"])
    assert all(len(row["value"]) <= TEXT_CHARACTERS for row in first["values"].values())


def test_a_message_is_bounded_and_every_key_has_its_turn() -> None:
    telemetry, _ = made()
    for number in range(MAX_KEYS):
        telemetry.put(f"prn-1/reading/{number}", float(number), "%")
    found: dict[str, Any] = {}
    sizes = []
    while (raw := telemetry.take()) is not None:
        sizes.append(len(raw))
        found |= json.loads(raw)["values"]
        telemetry.put("prn-1/reading/0", 1.0)  # one that changes all the time takes nobody's turn
        if len(found) == MAX_KEYS:
            break
    assert len(found) == MAX_KEYS
    assert max(sizes) <= MAX_BYTES + 1024
    assert len(sizes) < MAX_KEYS


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**30, -(10**400)])
def test_what_the_centre_reads_as_no_number_is_no_value(value: float) -> None:
    telemetry, _ = made()
    telemetry.put("a", value)
    assert values(telemetry) == {"a": None}


def test_half_a_character_does_not_stop_the_rest() -> None:
    telemetry, _ = made()
    telemetry.put("a", "\ud800")
    telemetry.put("b", 1)
    assert values(telemetry) == {"a": "?", "b": 1}


def test_a_gap_is_told_with_its_reason_and_its_length() -> None:
    telemetry, clock = made()
    telemetry.held_up("link")
    telemetry.put("a", 1)
    assert taken(telemetry)["gap"] is None, "nothing waited when the line was away"
    telemetry.put("a", 2)
    clock.passed_s += 500
    telemetry.held_up("link")
    telemetry.held_up("facts")
    telemetry.put("a", 3)
    found = taken(telemetry)
    assert (found["gap"]["why"], found["gap"]["over_s"], found["skipped"]) == (["facts", "link"], 500.0, 1)
    assert found["gap"]["from"] <= found["gap"]["to"] == found["at"]
    telemetry.put("a", 4)
    assert taken(telemetry)["gap"] is None


def test_off_keeps_nothing() -> None:
    telemetry, _ = made(every_s=0)
    telemetry.put("a", 1)
    assert telemetry.take() is None


# What drivers tell


def test_everything_that_a_driver_tells_has_a_key_and_facts_have_none() -> None:
    telemetry, _ = made()
    observed = Observed(lambda: 0.0, lambda: None, MachineValues(telemetry, "prn-1"))
    told: list[Observation] = [
        Progress(3, 10),
        Temperature("T", 199.5, 200.0),
        Reading("load", 31.0, "%"),
        LinkHealth(2, 1),
        Message("hello"),
        ForeignWork("ab" * 16, "ada printed cup.gcode"),
        StateSeen(MachineState.EXECUTE),
    ]
    for observation in told:
        observed.add(observation)
    assert values(telemetry) == {
        "prn-1/progress/done": 3,
        "prn-1/progress/total": 10,
        "prn-1/temperature/T": 199.5,
        "prn-1/target/T": 200.0,
        "prn-1/reading/load": 31.0,
        "prn-1/link/resends": 2,
        "prn-1/link/time_outs": 1,
        "prn-1/message": "hello",
        "prn-1/state": "EXECUTE",
    }
    observed.forget_run()
    assert values(telemetry) == {"prn-1/progress/done": None, "prn-1/progress/total": None}


def test_nothing_is_known_of_a_machine_that_is_offline_and_of_its_neighbour_all() -> None:
    telemetry, _ = made()
    first, second = (Observed(lambda: 0.0, lambda: None, MachineValues(telemetry, name)) for name in ("a", "ab"))
    for observed in (first, second):
        observed.add(Temperature("T", 200.0, 200.0))
    taken(telemetry)
    first.offline("unplugged")
    assert values(telemetry) == {"a/temperature/T": None, "a/target/T": None, "a/state": "OFFLINE"}
    first.offline("still")
    assert values(telemetry) == {"a/state": "OFFLINE"}, "what is gone is told once, and its key is free again"


# At a connection


@contextlib.asynccontextmanager
async def sending(telemetry: Telemetry, uplink: MemoryUplink) -> AsyncIterator[None]:
    task = asyncio.create_task(telemetry.send(uplink, lambda: False), name="test: telemetry")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.002)


def live() -> Telemetry:
    return Telemetry("berlin-1", bytes, SystemClock(), 0.01)


class Sure(MemoryUplink):
    """Remembers which messages the broker had to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.sure: list[bool] = []

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False, sure: bool = True) -> None:
        self.sure.append(sure)
        await super().publish(topic, payload, retain=retain, sure=sure)


async def test_nothing_is_sent_while_facts_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.0)
    telemetry, uplink, asked = live(), MemoryUplink(), 0

    def facts_wait() -> bool:
        nonlocal asked
        asked += 1
        assert not uplink.published
        return asked < 50

    task = asyncio.create_task(telemetry.send(uplink, facts_wait), name="test: telemetry")
    telemetry.put("a", 1)
    try:
        await until(lambda: uplink.published)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert asked == 50
    assert json.loads(uplink.published[0][1])["gap"]["why"] == ["facts"]


async def test_only_the_first_of_a_connection_has_to_be_answered_and_after_a_refusal_the_next() -> None:
    telemetry, uplink = live(), Sure()
    denied = UplinkError(Trouble.DENIED, "the broker does not let this site write there")
    uplink.refuses = lambda _: denied if len(uplink.sure) < 3 else None
    async with sending(telemetry, uplink):
        for number in range(5):
            telemetry.put("a", number)
            await until(lambda n=number: len(uplink.sure) > n)
    assert uplink.sure[:5] == [True, True, True, False, False]


async def test_a_lost_connection_ends_it_and_the_next_message_tells_of_the_gap() -> None:
    telemetry, clock = made(every_s=0.01)
    uplink = MemoryUplink()
    uplink.refuses = lambda _: UplinkError(Trouble.LOST, "the line was cut")
    telemetry.put("a", 1)
    with pytest.raises(UplinkError, match="cut"):
        async with asyncio.timeout(DEADLINE_S):
            await telemetry.send(uplink, lambda: False)
    telemetry.put("a", 2)
    clock.passed_s += 500
    uplink.refuses = lambda _: None
    async with sending(telemetry, uplink):
        await until(lambda: uplink.published)
    document = json.loads(uplink.published[0][1])
    assert document["number"] == 2, "message 1 was lost, and its number says so"
    assert (document["gap"]["why"], document["gap"]["over_s"]) == (["link"], 500.0)
