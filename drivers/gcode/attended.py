"""An open driver of either dialect: connected, looked after, let go of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar


class _Attended(Protocol):
    async def connect(self) -> None: ...

    async def keep_looking(self) -> None: ...

    async def close(self) -> None: ...


DriverT = TypeVar("DriverT", bound=_Attended)


@asynccontextmanager
async def attended(driver: DriverT, machine: str) -> AsyncIterator[DriverT]:
    """Connect, identify, and look after the connection until the block is left. Leaving commands nothing."""
    try:
        await driver.connect()
        looking = asyncio.create_task(driver.keep_looking(), name=f"look at {machine}")
        try:
            yield driver
        finally:
            looking.cancel()
            await asyncio.wait([looking])
    finally:
        await driver.close()
