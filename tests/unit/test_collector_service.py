"""The collector's connections: what of them is said."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.collector import service
from edge.uplink.attempts import FLAPS
from edge.uplink.port import Trouble, Uplink, UplinkError
from tests.helpers.memory_uplink import MemoryUplink
from tests.helpers.reporting import collecting

DEADLINE_S = 30.0


async def test_a_connection_that_is_lost_again_and_again_is_told_once_and_why_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "PAUSE_S", 0.0)
    caplog.set_level(logging.INFO, "edge.collector")
    enough, count = asyncio.Event(), 0

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Uplink]:
        nonlocal count
        count += 1
        if count == 50:
            enough.set()
        if count == 30:  # the broker is away for a moment
            raise UplinkError(Trouble.UNREACHABLE, "nobody answers")
        uplink = MemoryUplink()
        asyncio.get_running_loop().call_soon(uplink.cut)
        yield uplink

    async with asyncio.timeout(DEADLINE_S), collecting(tmp_path) as collector:
        task = asyncio.create_task(service._keep_serving(collector, connect), name="test: serve")
        await enough.wait()
        task.cancel()
        await asyncio.wait([task])
    said = [record.getMessage() for record in caplog.records]
    assert any("another client connects under the collector's name" in line for line in said)
    assert sum(line == "connected" for line in said) <= 2 * FLAPS
    assert len(said) <= 2 * (FLAPS + 2) + 1
