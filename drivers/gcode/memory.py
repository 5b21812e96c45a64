"""What a print leaves behind for the daemon that comes after this one.

Two places, for two prices. A *reservation* ("commands up to n may have been sent") is durable before the first of them
is sent; it goes through the journal's disk, once in some thousand commands. A *heartbeat* (what was acknowledged, when,
and how warm it was) goes to the host's memory every second: it costs no write to an SD card, and is worth nothing after
a boot, when no print could go on anyway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from drivers.gcode.resume import Left
from edge.driver import DriverContext, Json, Run

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HEARTBEAT = "print.json"
FORMAT = 1
"""Of what is written; another one is not understood."""


def boot_id() -> str:
    """The id of this boot of the host (random(4))."""
    return BOOT_ID.read_text(encoding="ascii").strip()


class Memory:
    """The writing side, for one run."""

    def __init__(self, context: DriverContext, run: Run, left: Left) -> None:
        self._context = context
        self._run_id = run.run_id
        self._left = left
        self.reserved = left.reserved

    def hold(self, held: bool) -> None:
        """The print is held from now on, or goes on; the next heartbeat says so."""
        self._left = replace(self._left, held=held)

    async def reserve(self, number: int, acked: int, heaters: Mapping[str, tuple[float, float]]) -> None:
        """Make durable that commands up to `number` may be sent from now on."""
        self._left = replace(self._left, reserved=number)
        await self._context.checkpoint(_as_json(self._now(acked, heaters)))
        self.reserved = number

    def beat(self, acked: int, heaters: Mapping[str, tuple[float, float]]) -> None:
        """Write the heartbeat, whole or not at all."""
        place = self._context.runtime_dir / HEARTBEAT
        half = place.with_suffix(".half")
        document = {"run_id": self._run_id, "left": _as_json(self._now(acked, heaters))}
        half.write_text(json.dumps(document), encoding="utf-8")
        half.replace(place)

    def _now(self, acked: int, heaters: Mapping[str, tuple[float, float]]) -> Left:
        return replace(self._left, acked=acked, at_mono_s=self._context.clock.mono_s(), heaters=dict(heaters))


def recall(context: DriverContext, run: Run) -> Left | str | None:
    """What the last daemon left of `run`: its reservation, with its heartbeat; None if nothing was sent.

    A text says why what it left cannot be understood.
    """
    if run.checkpoint is None:
        return None
    reservation = _left(run.checkpoint)
    if reservation is None:
        return "what the last daemon wrote down about the print is not understood by this version"
    try:
        heartbeat = json.loads((context.runtime_dir / HEARTBEAT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return reservation
    if not isinstance(heartbeat, dict) or heartbeat.get("run_id") != run.run_id:
        return reservation
    beat = _left(heartbeat.get("left"))
    if beat is None or beat.boot_id != reservation.boot_id:
        return reservation
    # What may have been sent is what the reservation says, which is durable; of the rest the newer one counts.
    newer = beat if beat.at_mono_s >= reservation.at_mono_s else reservation
    return replace(newer, reserved=max(beat.reserved, reservation.reserved))


def _as_json(left: Left) -> Json:
    document: dict[str, Json] = asdict(left)
    return document | {"format": FORMAT, "heaters": {name: list(pair) for name, pair in left.heaters.items()}}


def _left(value: object) -> Left | None:
    """What `_as_json` wrote; None for anything else."""
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("heaters"), dict):
        return None
    fields = {name: field for name, field in value.items() if name != "format"}
    try:
        heaters = {str(name): (float(pair[0]), float(pair[1])) for name, pair in value["heaters"].items()}
        return Left(**{**fields, "heaters": heaters})
    except (TypeError, ValueError, IndexError):
        return None
