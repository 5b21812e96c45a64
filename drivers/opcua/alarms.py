"""What a machine wants a person to take note of: its alarms and conditions (OPC 10000-9), and its safety stops.

Rules

1. A condition is open while it is active or nobody has acknowledged it. Each event of it is another occurrence, with a
   token of its own: what a person acknowledges is exactly what they have seen.
2. A safety stop is latched here when it is seen, whatever the server has to say of it later: after the reset at the
   machine nothing starts before a person has acknowledged it. That outlives the daemon.
3. Conditions count once the server has told all of them; before that nothing starts, where alarms let nothing start,
   and the server is asked again and again.
4. Acknowledging starts nothing. Releasing a run that is held acknowledges what is open: that person has looked.
5. What belongs to another machine of the server is not heard (`drivers.opcua.whose`). What may be anybody's counts for
   each machine, and no release acknowledges it: nobody has looked at all of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivers.opcua.client import Link, Method
from drivers.opcua.disk import write
from drivers.opcua.library import LocalizedText, NodeId, ua
from drivers.opcua.nodemap import place
from drivers.opcua.whose import Sources, Whose
from drivers.opcua.words import LinkError, RefusedError
from edge.driver import Condition, MachineError, Motion, shielded

NOT_TOLD = "the machine has not told its alarms yet"

REFRESH_S = 2.0
"""How long connecting waits for a server to tell all its alarms."""

AGAIN_S = 0.1
"""Between two tries to have them told, where somebody else is having them told, while connecting."""

LATER_S, LATEST_S = 4.0, 60.0
"""Between two tries afterwards: each pause is twice the one before, up to the last."""

_NOTHING_TO_REFRESH = frozenset(
    {
        "BadInternalError",
        "BadMethodInvalid",
        "BadNodeIdInvalid",
        "BadNodeIdUnknown",
        "BadNothingToDo",
        "BadNotImplemented",
        "BadNotSupported",
        "BadServiceUnsupported",
    }
)
"""Servers without the method say so in many ways; the first is node-opcua's and open62541's."""

_IN_PROGRESS = "BadRefreshInProgress"
"""One at a time, say some servers, and that of the machine beside ours may be under way."""

_NO_EVENTS = (_NOTHING_TO_REFRESH - {"BadInternalError"}) | {
    "BadAttributeIdInvalid",
    "BadEventFilterInvalid",
    "BadFilterNotAllowed",
    "BadMonitoredItemFilterInvalid",
    "BadMonitoredItemFilterUnsupported",
}
"""The server has no events, or none of this kind. What else it says is about us, or about this moment, as an internal
error is, too."""

_FULL = frozenset(
    {
        "BadOutOfMemory",
        "BadResourceUnavailable",
        "BadServerTooBusy",
        "BadTcpNotEnoughResources",
        "BadTcpServerTooBusy",
        "BadTooManyMonitoredItems",
        "BadTooManyOperations",
        "BadTooManySubscriptions",
    }
)
"""There is no room for our subscription now: an earlier session of ours may still have it."""

SERVER = ua.NodeId(ua.ObjectIds.Server)

REFRESH_END = ua.NodeId(ua.ObjectIds.RefreshEndEventType)

ANYBODYS = " (the server does not say of which machine)"

RESET_FIRST = "reset it at the machine first"

SAFETY_SEVERITY = 1000
"""The highest that there is (OPC 10000-5, 6.4.2). A safety stop has no event, and so no severity of its own."""

_OWN, _OF_TYPE = place("Acknowledge", {}), ua.NodeId(ua.ObjectIds.AcknowledgeableConditionType_Acknowledge)
_STATES = {"active": place("ActiveState/Id", {}), "acked": place("AckedState/Id", {})}
_ACKNOWLEDGE = ((ua.NodeId(ua.ObjectIds.ByteString), False), (ua.NodeId(ua.ObjectIds.LocalizedText), False))
_SOMEBODY_ELSE = "BadConditionBranchAlreadyAcked"
_REFUSALS = {
    _SOMEBODY_ELSE: "somebody else has acknowledged it already",
    "BadEventIdUnknown": "the machine knows nothing of this occurrence any more",
    "BadUserAccessDenied": "the machine does not let this user acknowledge",
}


@dataclass(slots=True)
class _Alarm:
    event_id: bytes
    text: str
    severity: int
    active: bool
    acknowledged: bool
    ours: bool

    @property
    def words(self) -> str:
        return self.text if self.ours else f"{self.text}{ANYBODYS}"


@dataclass(slots=True)
class _Stop:
    token: str
    active: bool = True


class Alarms:
    """Of one machine. `state_dir` keeps the safety stops that nobody has acknowledged. `say`: an alarm has come."""

    def __init__(self, state_dir: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self._say = say
        self._sources = Sources(ua.NodeId(), ())
        self._heard: deque[Mapping[str, Any]] = deque()  # and nobody knows yet of which machine
        self._file = state_dir / "safety.json"
        self._alarms: dict[str, _Alarm] = {}
        self._count, self._stops = _read(self._file)
        self._written = True
        self._writing = asyncio.Lock()
        self._end_came = asyncio.Event()
        self._all_told = False
        self._why_not = NOT_TOLD
        self._said: set[str] = set()  # once is enough
        self._subscription: int | None = None
        self._asked_s = 0.0
        self._pause_s = LATER_S

    def forget_events(self, sources: Sources) -> None:
        """On a new link the server tells all of them again, from these sources."""
        self._sources = sources
        self._heard.clear()
        self._alarms.clear()
        self._end_came.clear()
        self._all_told = False
        self._why_not = NOT_TOLD
        self._subscription = None
        self._pause_s = LATER_S

    async def hear(self, link: Link, tell: Callable[[Mapping[str, Any]], None]) -> str:
        """Hear of all events from here on, and of the conditions that are there. Raises `LinkError`.

        Waits until all are told, for a while. Words for people, once, if they cannot be.
        """
        words = await self._ask_for_all(link, tell, REFRESH_S)
        if self._why_not == NOT_TOLD and not self._all_told:
            try:
                async with asyncio.timeout(REFRESH_S):
                    await self._end_came.wait()
            except TimeoutError:
                pass  # it is in sight, and nothing starts before they are
        return words

    async def ask_again(self, link: Link, tell: Callable[[Mapping[str, Any]], None]) -> str:
        """As `hear`, once more, if it is time and not all were told: they come later, or never. Raises `LinkError`."""
        if self._all_told or _now_s() < self._asked_s + self._pause_s:
            return ""
        self._pause_s = min(2 * self._pause_s, LATEST_S)
        return await self._ask_for_all(link, tell, 0.0)

    async def _ask_for_all(self, link: Link, tell: Callable[[Mapping[str, Any]], None], within_s: float) -> str:
        on = self._sources  # others as soon as there is a new link, which is asked by itself
        try:
            if (subscription := self._subscription) is None:
                subscription = await link.subscribe_events(SERVER, tell)
                if self._sources is on:
                    self._subscription = subscription
            await _refresh(link, subscription, within_s)
        except RefusedError as error:
            return self._not_told(error) if self._sources is on else ""
        finally:
            self._asked_s = _now_s()
        if self._sources is on:
            self._why_not = NOT_TOLD
        return ""

    def _not_told(self, error: RefusedError) -> str:
        """Words for people, once, if there is nothing more to be had."""
        subscribed = self._subscription is not None
        if not subscribed and error.status in _FULL:
            raise LinkError(f"there is no room to hear of the machine's alarms: {error}") from error
        if error.status not in (_NOTHING_TO_REFRESH if subscribed else _NO_EVENTS):
            self._why_not = f"the machine does not tell its alarms: {error}"
            return ""
        self._all_told = True
        words = "alarms that are older than the connection are not seen" if subscribed else "alarms are not seen"
        if words in self._said:
            return ""
        self._said.add(words)
        return f"{words}: {error}"

    # What is seen

    def event(self, event: Mapping[str, Any]) -> None:
        """One event of the server; of a condition it counts once it is taken in."""
        if event.get("EventType") == REFRESH_END:
            self._heard.append(event)
            self._end_came.set()
        elif isinstance(event.get("ConditionId"), NodeId) and isinstance(event.get("ActiveState"), bool):
            self._heard.append(event)

    async def take_in(self, link: Link) -> None:
        """Have what was heard among what is open, as far as it is not another machine's. Raises `LinkError`."""
        while self._heard:
            event = self._heard[0]
            if event.get("EventType") == REFRESH_END:
                self._heard.popleft()
                self._all_told = True
                continue
            whose = await self._sources.whose(link, event.get("SourceNode"))
            # Somebody else may have taken it in meanwhile, or it is forgotten with its link.
            if self._heard and self._heard[0] is event:
                self._heard.popleft()
                if whose is not Whose.ANOTHERS:
                    self._take_in(event, ours=whose is Whose.OURS)

    def _take_in(self, event: Mapping[str, Any], *, ours: bool) -> None:
        key, message = event["ConditionId"].to_string(), event.get("Message")
        text = (message.Text if isinstance(message, LocalizedText) else "") or str(
            event.get("SourceName") or "an alarm"
        )
        # A server that does not tell AckedState has none: OPC 10000-9, 5.7.2, has it mandatory where there is one.
        acknowledged = event.get("AckedState") is not False
        active, before = bool(event["ActiveState"]), self._alarms.pop(key, None)
        if active or not acknowledged:
            severity = int(event.get("Severity") or 0)
            alarm = self._alarms[key] = _Alarm(event.get("EventId") or b"", text, severity, active, acknowledged, ours)
            if active and (before is None or not before.active):
                self._say(alarm.words)

    async def look(self, link: Link) -> None:
        """Ask for what is open, as far as the server shows its conditions as nodes: some clear them without an event.

        Raises `MachineError`.
        """
        for key, alarm in list(self._alarms.items()):
            found = await link.find_all(ua.NodeId.from_string(key), _STATES)
            names = list(found)
            read = await link.read([found[name] for name in names])
            said = {
                name: value.Value.Value
                for name, value in zip(names, read, strict=True)
                if value.Value is not None and isinstance(value.Value.Value, bool)
            }
            if self._alarms.get(key) is alarm:  # an event may have come meanwhile
                alarm.active = said.get("active", alarm.active)
                alarm.acknowledged = said.get("acked", alarm.acknowledged)
                if not alarm.active and alarm.acknowledged:
                    del self._alarms[key]

    def safety(self, words: str, *, broken: bool) -> None:
        """Whether a safety stop is seen now. One that comes again is another one, whoever has seen the first."""
        stop = self._stops.get(words)
        if broken and (stop is None or not stop.active):
            self._count += 1
            self._stops[words] = _Stop(f"s{self._count}")
            self._written = False
        elif stop is not None:
            stop.active = broken

    async def kept(self) -> None:
        """Have what was seen of safety stops on the disk. Raises `MachineError` if it is not; then it may be yet."""
        async with self._writing:
            if not self._written:
                await shielded(self._write(), f"keep {self._file.name}")

    async def _write(self) -> None:
        self._written = True
        document = {"count": self._count, "open": [[int(stop.token[1:]), words] for words, stop in self._stops.items()]}
        try:
            await asyncio.to_thread(write, self._file, json.dumps(document).encode())
        except OSError as error:
            self._written = False
            raise MachineError(f"safety stops cannot be kept in {self._file}: {error.strerror}", Motion.NONE) from error

    # For people

    @property
    def text(self) -> str:
        """Active alarms."""
        return "; ".join(alarm.words for alarm in self._alarms.values() if alarm.active)

    def blocking(self, machine: str, from_severity: int) -> list[str]:
        """Why nothing may start: active alarms of that severity (0: none) or not told, and stops not acknowledged."""
        serious = [a for a in self._alarms.values() if from_severity and a.active and a.severity >= from_severity]
        alarms = [f"alarm: {a.words}" for a in serious]
        if from_severity and not self._all_told:
            alarms.append(self._why_not)
        over = [(words, stop.token) for words, stop in self._stops.items() if not stop.active]
        return [
            *alarms,
            *(
                f"{words} is over, and nobody has acknowledged it: `edge machine acknowledge {machine} {token}`"
                for words, token in over
            ),
        ]

    @property
    def open(self) -> tuple[Condition, ...]:
        """All that is active or not acknowledged, safety stops first."""
        stops = [
            Condition(stop.token, words, SAFETY_SEVERITY, stop.active, False, RESET_FIRST if stop.active else "")
            for words, stop in self._stops.items()
        ]
        alarms = [
            Condition(_token(key, a.event_id), a.words, a.severity, a.active, a.acknowledged, alone=not a.ours)
            for key, a in self._alarms.items()
        ]
        return (*stops, *alarms)

    async def acknowledge(self, link: Link, token: str, comment: str) -> None:
        """Raises `MachineError`, in words for the person: it is not open, or the machine refuses."""
        for words, stop in self._stops.items():
            if stop.token == token:
                if stop.active:
                    raise MachineError(f"{words}: it is still there; {RESET_FIRST}", Motion.NONE)
                return await self._take_note([words])
        for key, alarm in self._alarms.items():
            if token == _token(key, alarm.event_id):
                if not alarm.acknowledged:
                    await self._ask(link, key, alarm, comment)
                return None
        raise MachineError(
            f"there is no open condition {token}; `edge machine show` lists those there are", Motion.NONE
        )

    async def acknowledge_all(self, link: Link, comment: str) -> None:
        """What is open and surely this machine's, as far as it can be. Raises `MachineError`."""
        for key, alarm in list(self._alarms.items()):
            # What the server has no event of cannot be named to it, and must not keep a run from going on.
            if alarm.ours and alarm.event_id and not alarm.acknowledged:
                try:
                    await self._ask(link, key, alarm, comment)
                except RefusedError as error:
                    if error.status != _SOMEBODY_ELSE:
                        raise
        await self._take_note([words for words, stop in self._stops.items() if not stop.active])

    async def _take_note(self, over: Sequence[str]) -> None:
        """Of stops that are over: they stay if that cannot be written down. Raises `MachineError`."""
        noted = {words: self._stops.pop(words) for words in over}
        self._written = self._written and not noted
        try:
            await self.kept()
        except MachineError:
            self._stops = {**noted, **self._stops}
            raise

    async def _ask(self, link: Link, key: str, alarm: _Alarm, comment: str) -> None:
        """OPC 10000-9, 5.7.3: Acknowledge with the event's id.

        The method is the condition's own; that of its type where the server does not show its conditions as nodes.
        """
        condition = ua.NodeId.from_string(key)
        try:
            node = (await link.find_all(condition, {"own": _OWN})).get("own", _OF_TYPE)
            method = Method(condition, node, _ACKNOWLEDGE, "Acknowledge")
            await link.call(method, alarm.event_id, ua.LocalizedText(comment))
        except RefusedError as error:
            why = _REFUSALS.get(error.status, str(error))
            raise RefusedError(f"the machine has not acknowledged {alarm.text!r}: {why}", error.status) from error
        alarm.acknowledged = True
        if not alarm.active and self._alarms.get(key) is alarm:
            del self._alarms[key]


async def _refresh(link: Link, subscription: int, within_s: float) -> None:
    """Raises `RefusedError`, or `LinkError`."""
    until_s = _now_s() + within_s
    while True:
        try:
            return await link.refresh(subscription)
        except RefusedError as error:
            if error.status != _IN_PROGRESS or _now_s() >= until_s:
                raise
        await asyncio.sleep(AGAIN_S)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _token(key: str, event_id: bytes) -> str:
    return hashlib.sha256(key.encode() + b"\0" + event_id).hexdigest()[:8]


def _read(path: Path) -> tuple[int, dict[str, _Stop]]:
    """How many stops there have been, and those that nobody has acknowledged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return int(found["count"]), {str(words): _Stop(f"s{index}", False) for index, words in found["open"]}
    except FileNotFoundError:
        return 0, {}
    except (OSError, ValueError, KeyError, TypeError):
        return 1, {f"a safety stop that cannot be read in {path}": _Stop("s1", False)}
