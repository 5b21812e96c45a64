"""Newest values for whoever watches: no facts, never in the journal, and sent only when no fact waits.

Rules

1. One value a key is kept, the newest, for `MAX_KEYS` keys: what is in memory is bounded however long nobody listens.
2. What was not sent is told: values that a newer one has replaced, values of keys beyond the bound, and from when to
   when nothing could be sent.
3. Nothing is sent while a fact is not acknowledged, no message is larger than `MAX_BYTES`, and the next is made when
   the one before is on the line: a fact that comes meanwhile waits for little.
4. The broker keeps none of it for a collector that is away, where it would take the place of facts. Only the first of
   each connection is sent so that the broker has to answer: the answer says whether the site may write there.

The payload of an envelope, which docs/uplink.md describes. The signature says who has said it. It is no proof of
anything: no number, no hash and no acknowledgement joins it to what came before.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from edge.clock import SystemClock
from edge.driver import (
    Conditions,
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
from edge.model.event import stamp_text
from edge.uplink.port import Uplink, UplinkError
from edge.uplink.topics import What, topic

MAX_KEYS = 1024
KEY_CHARACTERS = 128
TEXT_CHARACTERS = 200

MAX_NUMBER = 1e18
"""JSON has no greater integer that every reader takes, and nothing that is measured is greater."""

MAX_BYTES = 16 * 1024
"""Of a message's values: 22 kB in its envelope, which is 5 s of a line of 5 kB/s. What is left goes with the next."""

AGAIN_S = 1.0
"""While facts wait, whether they still do is looked at so often."""

Value: TypeAlias = float | int | str | None
"""None: no longer known."""


@dataclass(slots=True)
class _Newest:
    value: Value
    unit: str
    at_s: float
    skipped: int


class Telemetry:
    """The newest value of each key, from one start of the daemon on. Off with `every_s` 0.

    `seal` makes the envelope that is signed with the site's key.
    """

    def __init__(self, site: str, seal: Callable[[bytes], bytes], clock: SystemClock, every_s: float) -> None:
        self._site = site
        self._seal = seal
        self._clock = clock
        self.every_s = every_s
        self._run = secrets.token_hex(8)
        self._number = 0
        self._keys: set[str] = set()  # of which something was told, or is to be
        self._values: dict[str, _Newest] = {}
        self._dropped = 0
        self._late: set[str] = set()  # what has kept the next message from being sent in time
        self._told_s, self._told_at = clock.mono_s(), stamp_text(clock.now().wall)

    def view(self) -> dict[str, Any]:
        """The object ``uplink.telemetry`` of `edge status --json`."""
        return {"every_s": self.every_s, "sent": self._number, "waiting": len(self._values)}

    def put(self, key: str, value: Value, unit: str = "") -> None:
        """A value was seen; it takes the place of the one before. Cheap: a driver may call it for every line."""
        if not self.every_s:
            return
        key = key[:KEY_CHARACTERS]
        if key not in self._keys:
            if len(self._keys) >= MAX_KEYS:
                self._dropped += 1
                return
            self._keys.add(key)
        if isinstance(value, str):
            value = value[:TEXT_CHARACTERS]
        elif value is not None and not -MAX_NUMBER < value < MAX_NUMBER:  # true of NaN, too
            value = None
        before = self._values.get(key)
        skipped = 0 if before is None else before.skipped + 1
        self._values[key] = _Newest(value, unit[:KEY_CHARACTERS], self._clock.mono_s(), skipped)

    def gone(self, prefix: str) -> None:
        """Nothing is known any more of the keys that begin so."""
        for key in [key for key in self._keys if key.startswith(prefix)]:
            self.put(key, None)

    def held_up(self, why: str) -> None:
        """The next message is late, and this is why: ``link`` or ``facts``."""
        if self._values:
            self._late.add(why)

    def take(self) -> bytes | None:
        """The envelope of what is to be sent, which counts as sent; None if nothing has changed."""
        if not self._values:
            return None
        self._number += 1
        now_s, now = self._clock.mono_s(), self._clock.now()
        at = stamp_text(now.wall)
        values = self._next(now_s)
        over_s = round(now_s - self._told_s, 3)
        gap = {"from": self._told_at, "to": at, "over_s": over_s, "why": sorted(self._late)}
        document = {
            "site": self._site,
            "run": self._run,
            "number": self._number,
            "at": at,
            "clock": str(now.trust),
            "values": values,
            "skipped": sum(value["skipped"] for value in values.values()),
            "dropped": self._dropped,
            "gap": gap if self._late else None,
        }
        self._dropped = 0
        self._late.clear()
        self._told_s, self._told_at = now_s, at
        return self._seal(_json(document))

    def _next(self, now_s: float) -> dict[str, dict[str, Any]]:
        """Those that have waited longest, as many as go into one message."""
        found: dict[str, dict[str, Any]] = {}
        size = 0
        for key, seen in self._values.items():
            age_s = round(now_s - seen.at_s, 3)
            row = {"value": seen.value, "unit": seen.unit, "age_s": age_s, "skipped": seen.skipped}
            size += len(_json({key: row}))
            if found and size > MAX_BYTES:
                break
            found[key] = row
        for key, row in found.items():
            del self._values[key]
            if row["value"] is None:
                self._keys.discard(key)
        return found

    async def send(self, uplink: Uplink, facts_wait: Callable[[], bool]) -> None:
        """Send over one connection, until cancelled. Raises `UplinkError`."""
        due_s = self._told_s + self.every_s
        if self._clock.mono_s() > due_s:
            self.held_up("link")
        may_write = False
        while True:
            await asyncio.sleep(max(0.0, due_s - self._clock.mono_s()))
            if facts_wait():
                self.held_up("facts")
                await asyncio.sleep(AGAIN_S)
                continue
            if (envelope := self.take()) is not None:
                try:
                    await uplink.publish(topic(self._site, What.TELEMETRY), envelope, sure=not may_write)
                    may_write = True
                except UplinkError as error:
                    if error.ends_the_connection:
                        raise
            if not self._values or not may_write:
                due_s = self._clock.mono_s() + self.every_s


class MachineValues:
    """What the driver of one machine tells, as values: ``<machine>/<what>`` or ``<machine>/<what>/<name>``."""

    def __init__(self, telemetry: Telemetry, machine: str) -> None:
        self._telemetry = telemetry
        self._machine = machine

    def seen(self, observation: Observation) -> None:
        """The driver has told this."""
        match observation:
            case Progress(done=done, total=total, unit=unit):  # stages are no share of the work: their unit says so
                self._put("progress/done", done, unit)
                self._put("progress/total", total, unit)
            case Temperature(name=name, actual_degc=actual_degc, target_degc=target_degc):
                self._put(f"temperature/{name}", actual_degc, "degC")
                self._put(f"target/{name}", target_degc, "degC")
            case Reading(name=name, value=value, unit=unit):
                self._put(f"reading/{name}", value, unit)
            case LinkHealth(resends=resends, time_outs=time_outs):
                self._put("link/resends", resends)
                self._put("link/time_outs", time_outs)
            case Message(text=text):
                self._put("message", text)
            case Conditions() | ForeignWork():
                pass  # what a person is to acknowledge is in the site's state; foreign work is a fact
            case StateSeen(state=state):
                if state is MachineState.OFFLINE:
                    self._telemetry.gone(f"{self._machine}/")
                self._put("state", str(state))
            case _ as never:
                assert_never(never)

    def run_over(self) -> None:
        """How far it was is not seen any more."""
        self._telemetry.gone(f"{self._machine}/progress/")

    def _put(self, what: str, value: Value, unit: str = "") -> None:
        self._telemetry.put(f"{self._machine}/{what}", value, unit)


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
