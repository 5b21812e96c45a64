"""The stop that follows when a run is cancelled (rule 5 of `edge.driver`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from edge.driver import DriverContext, MachineError, Message


async def quietly(stop: Callable[[float], Awaitable[None]], context: DriverContext, within_s: float) -> None:
    """Stop for a caller that cannot take an answer, such as one that is being cancelled: what failed goes to people."""
    try:
        await stop(context.clock.mono_s() + within_s)
    except MachineError as error:
        context.emit(Message(f"not stopped: {error}"))
