"""A print has failed, and its printer still answers: no heater is left on, and the nozzle does not stay in the part.

What has failed is latched: nothing goes out over that session any more. So this has a session of its own on the same
link, until the link is closed; it is a stop like any other, numbered and counted.
"""

from __future__ import annotations

import asyncio

from drivers.gcode.device import Device, wire_of
from drivers.gcode.events import Cause
from drivers.gcode.replies import Busy, Reply, Temperatures
from drivers.gcode.stopping import Stopping
from edge.driver import LinkLostError, MachineError, Motion, NotConfirmedError

SAFE_S = 60.0
"""How long it may take: the moves in the planner, then 10 mm upwards."""

_NOBODY_ANSWERS = (Cause.RESTARTED, Cause.HALTED, Cause.SILENT)
"""What is over with these: a board that was reset has its heaters off, one that has halted does nothing more."""


def answers_still(device: Device, failed: MachineError) -> bool:
    """Whether the printer of a run that has failed can be told anything more, and may need to be."""
    session = device.session
    over = session.gone or session.cause in _NOBODY_ANSWERS or isinstance(failed, LinkLostError)
    return failed.motion is Motion.POSSIBLE and not over


async def made_safe(device: Device, stopping: Stopping) -> str:
    """Switch everything off; what came of it, in words. `stopping` is that of `device`, for a session that works."""
    deadline_s = device.clock.mono_s() + SAFE_S
    try:
        async with asyncio.timeout(SAFE_S):
            if device.session.failure is None:
                await stopping.stop(deadline_s)
            else:
                await _stop_past(device, deadline_s)
    except TimeoutError:
        return "and it has not confirmed that it is switched off"
    except MachineError as error:
        return f"and it has not confirmed that it is switched off: {error}"
    return "it was switched off, and has confirmed it"


async def _stop_past(device: Device, deadline_s: float) -> None:
    """A stop over the link of a session that has latched."""
    safe = Device(device.machine, device.context, lambda reply: heard(reply))
    stopping = Stopping(safe, lambda: None)

    def heard(reply: Reply) -> None:
        match reply:
            case Temperatures(heaters=heaters):
                safe.heaters.update(heaters)
            case Busy():
                stopping.break_wait()
            case _:
                pass

    safe.profile, safe.profile_name = device.profile, device.profile_name
    safe.firmware, safe.in_part = device.firmware, device.in_part
    safe.session.renew(wire_of(safe.known_profile, 0))
    safe.session.follow(device.session)
    try:
        # Half a line may stand in its buffer, and acknowledgements for what has failed may be under way.
        safe.session.write_now(b"\n")
        await safe.look_at_heaters()
        await stopping.stop(deadline_s)
    finally:
        safe.session.fail(NotConfirmedError("the run has failed"))
        await stopping.close()
