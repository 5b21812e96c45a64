"""A robot is cleared at the end of a stop: whoever looks late still learns how the run has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from drivers.opcua.driver import OpcUaDriver
from edge.driver import OutcomeKind
from tests.helpers.opcua import sim_server
from tests.helpers.opcua_faults import WAIT_S, under_way

pytestmark = pytest.mark.slow


async def test_a_stop_that_has_cleared_the_robot_before_the_run_was_looked_at_is_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sim_server("robot", speed=5.0) as server:
        async with under_way(tmp_path, server) as at:
            assert isinstance(at.driver, OpcUaDriver)
            ask, cleared = at.driver.sight.ask, asyncio.Event()

            async def late(work: Any) -> Any:
                await cleared.wait()
                return await ask(work)

            monkeypatch.setattr(at.driver.sight, "ask", late)
            await at.driver.stop(at.context.clock.mono_s() + WAIT_S)
            cleared.set()
            outcome = await asyncio.wait_for(at.running, WAIT_S)
            assert (outcome.kind, outcome.reason) == (OutcomeKind.STOPPED, "stopped on request")
