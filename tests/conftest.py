"""What holds for every test: an async test that leaves tasks behind fails and names them; no example has to be fast."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

settings.register_profile("on any machine", deadline=None)
settings.load_profile("on any machine")


@pytest.fixture(autouse=True)
def _leaks_no_task(request: pytest.FixtureRequest) -> None:
    """Only async tests have an event loop to look at. Set up first, so torn down after what the test itself uses."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_tasks_are_ended")


@pytest.fixture
async def _tasks_are_ended() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)
        pytest.fail(f"tasks left behind: {', '.join(sorted(task.get_name() for task in left))}")
