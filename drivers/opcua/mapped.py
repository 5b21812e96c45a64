"""A controller without a companion model: its profile names variables and methods one by one.

The run's identity is a variable of ours on the controller (`run_tag`): it is written before the start, so after a
restart it tells whether what the state word says is about this run. Without one nothing can be found again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from drivers.opcua.client import Link, Method
from drivers.opcua.equipment import Equipment, Phase, Seen, Work, ended
from drivers.opcua.library import NodeId, VariantType
from drivers.opcua.profile import MappedProfile, Trigger
from drivers.opcua.words import LinkError, RefusedError
from edge.driver import Capability, IdentityError, Json, MachineError, Motion, NotAcceptableError, OutcomeKind

REACT_S = 2.0
"""How long a controller may take to react to a trigger before it is reset."""

_BITS = {
    VariantType.SByte: 7,
    VariantType.Byte: 8,
    VariantType.Int16: 15,
    VariantType.UInt16: 16,
    VariantType.Int32: 31,
    VariantType.UInt32: 32,
    VariantType.Int64: 63,
    VariantType.UInt64: 64,
}
"""Of the whole numbers from 0 that a variable of this type can hold (OPC 10000-6, 5.1.2)."""

_TRIGGERS = ("start", "stop", "abort", "pause", "resume")


class MappedMachine(Equipment):
    """Variables and triggers."""

    profile: MappedProfile
    started_by = "trigger start"
    _methods: dict[str, Method]
    _program: Any = None
    _tag: Any = None
    _word: Any = None
    _began_s = 0.0
    _tag_bits = 0

    @property
    def capabilities(self) -> frozenset[Capability]:
        mapped = self.profile.mapped
        pauses = mapped.pause is not None and mapped.resume is not None and mapped.states.held
        return frozenset({Capability.PAUSE}) if pauses else frozenset()

    def refusal(self) -> str:
        if self.profile.mapped.start is None:
            return f"the profile {self._profile_name} only watches: it names nothing that starts this machine"
        word = self._plain(self._nodes["state"]) if "state" in self._nodes else None
        unready = word is not None and self._named(word) in ("failed", "")
        return "; ".join(filter(None, [_unready(word) if unready else "", super().refusal()]))

    def _triggers(self) -> dict[str, Trigger]:
        mapped = self.profile.mapped
        found = {name: getattr(mapped, name) for name in _TRIGGERS}
        return {name: trigger for name, trigger in found.items() if trigger is not None}

    def wanted(self) -> Mapping[str, str]:
        mapped = self.profile.mapped
        named = {f"trigger {name}": trigger.node or trigger.method for name, trigger in self._triggers().items()}
        variables = {"state": mapped.state, "program": mapped.program, "tag": mapped.run_tag, "cycles": mapped.cycles}
        return {**variables, **named}

    async def found(self, link: Link) -> None:
        for name, text in self.wanted().items():
            if text and name not in self._nodes:
                raise IdentityError(f"the server has no {text}, which profile {self._profile_name!r} names")
        await self._find_methods(link)
        await self._let_go(link)
        there = [self._nodes[name] for name in ("state", "program", "tag", "cycles") if name in self._nodes]
        for node, value in zip(there, await link.read(there), strict=True):
            if value.StatusCode is not None and value.StatusCode.is_bad():
                raise IdentityError(f"{node.to_string()} cannot be read: {value.StatusCode.name}")
        if "tag" in self._nodes:
            self._tag_bits = await self._bits_of_tag(link)

    async def _find_methods(self, link: Link) -> None:
        self._methods = {}
        for name, trigger in self._triggers().items():
            if trigger.method:
                node = self._nodes[f"trigger {name}"]
                owner = await self._owner(link, trigger.method, node)
                self._methods[name] = await link.method(owner, node, name)

    async def _bits_of_tag(self, link: Link) -> int:
        """0 for a text. Raises `IdentityError` for what is neither that nor a whole number."""
        kind = await link.kind(self._nodes["tag"], "run_tag")
        if kind is VariantType.Variant:  # any: what it has is what it takes
            now = await link.value(self._nodes["tag"], "run_tag")
            if now is None or isinstance(now, str):
                return 0
            kind = VariantType.Int32 if type(now) is int else kind
        if kind is VariantType.String:
            return 0
        if kind not in _BITS:
            raise IdentityError("run_tag is neither a text nor a whole number")
        return _BITS[kind]

    async def _let_go(self, link: Link) -> None:
        """A trigger that a broken link has left set would start again at the program's end."""
        for name, trigger in self._triggers().items():
            if trigger.node and trigger.reset is not None:
                node = self._nodes[f"trigger {name}"]
                if await link.value(node, name) == trigger.value:
                    await link.write(node, trigger.reset, name)

    async def _owner(self, link: Link, text: str, method: NodeId) -> NodeId:
        place = self.profile.place(text)
        if place.kind:
            raise IdentityError(f"{text}: a method is named by its path, so that its object is known")
        *above, last = place.names
        for way in await link.ways(self.root, tuple(above)):
            if method in await link.find(way[-1], replace(place, names=(last,))):
                return way[-1]
        raise IdentityError(f"the server has no {text}, which profile {self._profile_name!r} names")

    def watched(self) -> Sequence[NodeId]:
        return [self._nodes[name] for name in ("state", "cycles") if name in self._nodes]

    # A run

    async def prepare(self, link: Link, work: Work) -> None:
        if self.profile.mapped.start is None:
            raise MachineError(self.refusal(), Motion.NONE)
        said = await self._meaning(link)
        if said in ("running", "held"):
            raise MachineError("the machine carries out a program of somebody else", Motion.NONE)
        if said not in ("idle", "ended"):
            raise MachineError(_unready(self._word), Motion.NONE)
        await link.write(self._nodes["program"], work.name, "the program's name")
        if "tag" in self._nodes:
            await link.write(self._nodes["tag"], tag_of(work.run.run_id, self._tag_bits), "run_tag")
        if await link.value(self._nodes["program"], "the program's name") != work.name:
            raise MachineError("the controller has not kept the program's name", Motion.NONE)
        if "cycles" in self._nodes:
            work.memory["cycles"] = await link.value(self._nodes["cycles"], "cycles")

    async def begin(self, link: Link, work: Work) -> None:
        self._began_s = self._context.clock.mono_s()
        await self._trigger(link, "start")

    async def _trigger(self, link: Link, name: str) -> None:
        trigger = self._triggers().get(name)
        if trigger is None:
            raise RefusedError(f"the profile has no {name}", "NotMapped")
        if trigger.method:
            await link.call(self._methods[name], *trigger.arguments)
            return
        node = self._nodes[f"trigger {name}"]
        before = await self._meaning(link)
        await link.write(node, trigger.value, name)
        if trigger.reset is None:
            return
        try:
            until_s = self._context.clock.mono_s() + REACT_S
            while self._context.clock.mono_s() < until_s:
                if await self._meaning(link) != before:
                    break
                await asyncio.sleep(0.05)
            await link.write(node, trigger.reset, name)
        except RefusedError as error:
            raise LinkError(f"{name} was asked for, and then: {error}") from error  # that was no refusal of it

    async def look(self, link: Link, work: Work) -> Seen:
        if self.profile.mapped.start is None:
            return Seen(Phase.ABSENT, self.refusal())
        meaning = await self._meaning(link)
        program = await link.value(self._nodes["program"], "the program's name")
        tagged = "tag" in self._nodes
        ours = program == work.name
        if tagged:
            ours = await link.value(self._nodes["tag"], "run_tag") == tag_of(work.run.run_id, self._tag_bits)
        evidence: dict[str, Json] = {"state": str(self._word), "program": str(program)}
        if work.begun and not work.unbroken and not tagged:
            reason = "the link was away, and the profile has no run_tag that would prove what the machine does"
            return ended(OutcomeKind.UNKNOWN, reason, evidence)
        if not ours or not work.begun:
            return Seen(Phase.ABSENT)
        match meaning:
            case "running":
                return Seen(Phase.RUNNING)
            case "held":
                return Seen(Phase.HELD, "" if work.pause_asked else self.alarms.text or "the machine waits by itself")
            case "failed":
                return ended(OutcomeKind.FAILED, self.alarms.text or f"the machine says {self._word!r}", evidence)
            case "ended" | "idle":
                return await self._at_rest(link, work, meaning, evidence)
            case _:
                words = f"a state {self._word!r} that the profile does not name"
                return Seen(Phase.RUNNING if work.ran else Phase.WAITING, words)

    async def _at_rest(self, link: Link, work: Work, meaning: str, evidence: dict[str, Json]) -> Seen:
        mapped = self.profile.mapped
        if work.stop_asked:
            return ended(OutcomeKind.STOPPED, "stopped on request", evidence)
        counted = False
        if "cycles" in self._nodes and "cycles" in work.memory:
            cycles = await link.value(self._nodes["cycles"], "cycles")
            counted = cycles != work.memory["cycles"]
            evidence["cycles"] = str(cycles)
            if not counted and not work.ran:
                return self._not_begun(evidence)
            if not counted:
                return ended(OutcomeKind.STOPPED, "ended at the machine before the program's end", evidence)
        elif not work.ran:
            if work.unbroken:
                return self._not_begun(evidence)
            reason = "the machine stands still, and was never seen at work"
            return ended(OutcomeKind.UNKNOWN, reason, evidence)
        if meaning == "ended" or mapped.ended_is_idle:
            return ended(OutcomeKind.SUCCEEDED, "", evidence)
        return ended(OutcomeKind.STOPPED, "ended at the machine before the program's end", evidence)

    def _not_begun(self, evidence: dict[str, Json]) -> Seen:
        """It was asked to start; from some time on nobody can say any more that it only has not begun yet."""
        limit_s = self.profile.mapped.begin_s
        if self._context.clock.mono_s() - self._began_s < limit_s:
            return Seen(Phase.WAITING, "the machine has not begun yet")
        return ended(OutcomeKind.UNKNOWN, f"the machine was never seen at work within {limit_s:g} s", evidence)

    async def _meaning(self, link: Link) -> str:
        self._word = word = await link.value(self._nodes["state"], "the state word")
        if isinstance(word, NodeId):
            self._word = word = await self.state_name(link, word)
        return self._named(word)

    def _named(self, word: Any) -> str:
        """What the profile calls a value of the state word; empty if it does not name it."""
        states = self.profile.mapped.states
        for name in ("running", "held", "ended", "failed", "idle"):
            values = getattr(states, name)
            if any(isinstance(value, bool) == isinstance(word, bool) and value == word for value in values):
                return name
        return ""

    # What is asked of it

    async def pause(self, link: Link, work: Work) -> None:
        await self._trigger(link, "pause")

    async def resume(self, link: Link, work: Work) -> None:
        if words := self.refusal():
            raise NotAcceptableError("resume", "asked", f"once this is over: {words}")
        await self._trigger(link, "resume")

    async def stop(self, link: Link, work: Work, seen: Seen) -> None:
        await self._trigger(link, "stop")

    async def abort(self, link: Link, work: Work | None) -> None:
        await self._trigger(link, "abort" if self.profile.mapped.abort is not None else "stop")

    async def rest(self, link: Link, work: Work | None) -> bool:
        return await self._meaning(link) not in ("running", "held")

    def busy_with(self, work: Work | None) -> str:
        word = self._values.get(self._nodes["state"]) if "state" in self._nodes else None
        running = self.profile.mapped.states.running + self.profile.mapped.states.held
        busy = any(isinstance(value, bool) == isinstance(word, bool) and value == word for value in running)
        return "the machine carries out a program of somebody else" if busy and work is None else ""


def tag_of(run_id: str, bits: int) -> str | int:
    """What `run_tag` gets of a run's id: all of it as a text, or a number of so many bits, which is never 0.

    All of the id counts for the number, so that two runs have the same one once in 2 to the power of `bits`. 0 is what
    a variable has that nobody has written.
    """
    if not bits:
        return run_id
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest(), "big") % ((1 << bits) - 1) + 1


def _unready(word: Any) -> str:
    return f"the machine says {word!r}: it has to be made ready first"
