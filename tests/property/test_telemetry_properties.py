"""Newest values: whatever is told in whatever order, none is unaccounted for, and the centre shows the newest."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from edge.collector import schema
from edge.collector import telemetry as theirs
from edge.uplink import telemetry as ours
from edge.uplink.telemetry import Telemetry
from tests.unit.test_telemetry import Clock

AT = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
KEYS = 5

put = st.tuples(
    st.just("put"), st.sampled_from("abcdefgh"), st.integers() | st.just(10**30) | st.floats() | st.text() | st.none()
)
gone = st.tuples(st.just("gone"), st.sampled_from("abcdefgh"), st.none())
take = st.tuples(st.just("take"), st.booleans(), st.none())
late = st.tuples(st.just("late"), st.sampled_from(["link", "facts"]), st.none())
story = st.lists(put | put | put | gone | take | late, max_size=60)


@given(story)
def test_every_value_is_sent_or_told_to_be_missing_and_memory_is_bounded(story: list[tuple[str, Any, Any]]) -> None:
    with mock.patch.object(ours, "MAX_KEYS", KEYS), mock.patch.object(ours, "MAX_BYTES", 300):
        clock = Clock()
        telemetry = Telemetry("berlin-1", bytes, clock, 10.0)
        told = sent = 0
        for what, key, value in [*story, *[("take", True, None)] * (KEYS + 1)]:
            clock.passed_s += 1
            if what == "put":
                telemetry.put(key, value)
                told += 1
            elif what == "gone":
                told += key in telemetry._keys
                telemetry.gone(key)
            elif what == "late":
                telemetry.held_up(key)
            elif (raw := telemetry.take()) is not None:
                document = json.loads(raw)
                assert document["values"], "no message says nothing"
                sent += len(document["values"]) + document["skipped"] + document["dropped"]
            assert len(telemetry._values) <= len(telemetry._keys) <= KEYS
        assert telemetry.take() is None
        assert sent + telemetry._dropped == told


@given(story)
def test_the_centre_shows_the_newest_that_arrived_and_counts_what_was_lost(
    story: list[tuple[str, Any, Any]],
) -> None:
    connection = sqlite3.connect(":memory:")
    for statement in schema.ADDED.split(";\n"):
        connection.execute(statement)
    telemetry = Telemetry("berlin-1", bytes, Clock(), 10.0)
    newest: dict[str, Any] = {}
    arrived = number = 0
    for what, key, value in [*story, ("put", "z", 1), ("take", True, None)]:
        if what == "put":
            telemetry.put(key, value)
        elif what == "gone":
            telemetry.gone(key)
        elif what == "take" and (raw := telemetry.take()) is not None:
            number += 1
            if not key:
                continue  # lost on the way
            arrived += 1
            found = theirs.read(raw, "berlin-1")
            assert theirs.keep(connection, found, AT + timedelta(seconds=number))
            assert not theirs.keep(connection, found, AT), "and once only"
            newest |= {name: row["value"] for name, row in json.loads(raw)["values"].items()}
    rows = connection.execute("SELECT key, value FROM telemetry").fetchall()
    assert {name: json.loads(value) for name, value in rows} == {k: v for k, v in newest.items() if v is not None}
    (lost,) = connection.execute("SELECT lost FROM telemetry_heard").fetchone()
    assert lost == number - arrived
    connection.close()
