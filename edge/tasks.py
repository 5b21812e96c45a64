"""Tasks that live and end together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any


async def until_first(work: Mapping[str, Coroutine[Any, Any, object]]) -> None:
    """Run all of `work`, each as a task of its name, until one ends; the others are cancelled. Raises its error."""
    tasks = [asyncio.create_task(one, name=name) for name, one in work.items()]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
