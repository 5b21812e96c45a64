"""A machine as its server shows it: which object it is, who it is, what must hold before it starts, and its alarms.

What differs between job management, robots and mapped controllers is a subclass. One lives as long as the driver;
`attach` puts it onto each new link.
"""

from __future__ import annotations

import asyncio
import enum
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drivers.opcua.alarms import Alarms
from drivers.opcua.client import Link
from drivers.opcua.config import OpcUaMachine
from drivers.opcua.files import Folder
from drivers.opcua.library import DataValue, LocalizedText, NodeId, ua
from drivers.opcua.nodemap import Place
from drivers.opcua.places import nodes_of
from drivers.opcua.profile import AnyProfile, Condition
from drivers.opcua.whose import learn
from drivers.opcua.words import LinkError
from edge.driver import (
    Capability,
    DriverContext,
    Identity,
    IdentityError,
    Json,
    MachineError,
    MachineState,
    Message,
    Motion,
    NotAcceptableError,
    Outcome,
    OutcomeKind,
    Program,
    Reading,
    Run,
)

STATE_S, VALUE_S = 0.1, 0.5
"""How often the server looks at what decides, and at what people look at."""

FOLDER = "folder"
_PROGRESS = ("progress", "progress of")

PROGRAM_PARAMETER = "controller_program"
"""The step's parameter that names a program which is on the controller already."""


class Phase(enum.Enum):
    """Where a run is, as the machine says."""

    ABSENT = "absent"  # the machine does not know it
    WAITING = "waiting"  # the machine knows it, and has not begun
    RUNNING = "running"
    HELD = "held"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the machine says of one run; `outcome` once it has ended, `detail` for people."""

    phase: Phase
    detail: str = ""
    outcome: Outcome | None = None

    @property
    def goes_on(self) -> bool:
        """The machine has begun the run, and has not ended it."""
        return self.phase in (Phase.RUNNING, Phase.HELD)


@dataclass(slots=True)
class Work:
    """One run of ours and what is known of it beside what the machine says.

    `begun`: a request that starts it may have been sent. `ran`: it was seen running. `unbroken`: the same link all the
    time since it began. `name`: of its program on the machine. `over`: what a stop has heard of the run's end, for it
    has the program unloaded next. `stopped`: set with `stop_asked`. `memory`: the checkpoint, durable before the run
    begins.
    """

    run: Run
    name: str
    begun: bool = False
    ran: bool = False
    unbroken: bool = True
    stop_asked: bool = False
    pause_asked: bool = False
    over: Seen | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    memory: dict[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.run.checkpoint, dict):
            self.memory = dict(self.run.checkpoint)


class Equipment(ABC):
    """Made for one profile. `started_by`: which of `wanted` is what starts a run."""

    started_by = ""

    def __init__(self, machine: OpcUaMachine, name: str, profile: AnyProfile, context: DriverContext) -> None:
        self._machine = machine
        self._profile_name = name
        self.profile = profile
        self._context = context
        self.identity = Identity("", "")
        self.root = ua.NodeId()
        self._nodes: dict[str, NodeId] = {}
        self._conditions: list[list[NodeId]] = [[] for _ in profile.conditions]
        self._values: dict[NodeId, Any] = {}
        self._shown: dict[NodeId, tuple[str, str]] = {}
        self._decides: dict[NodeId, str] = {}  # all that is watched but not only shown, with its place
        self._had: Counter[str] = Counter()  # how many nodes at each place, on the links before
        self._told_once: set[str] = set()  # once is enough
        self._state_names: dict[NodeId, str] = {}
        self.alarms = Alarms(context.state_dir, lambda text: context.emit(Message(f"alarm: {text}")))
        self.folder: Folder | None = None
        self._before: float | None = None  # while the machine says this of progress, it is about what was before
        self._has_looked = False  # since the run has begun
        self.tell: Callable[[], None] = lambda: None

    # On a link

    async def attach(self, link: Link, root: NodeId, beside: Sequence[NodeId]) -> Mapping[NodeId, float]:
        """Find everything anew; what is to be watched, and how often (s). `IdentityError` for another machine.

        `beside`: the objects of other machines that the profile finds.
        """
        self.root = root
        self._values.clear()
        self.alarms.forget_events(await learn(link, root, beside))
        await self._find_conditions(link)
        await self._find_nodes(link)
        had = self._compare()
        await self._identify(link)
        await self._units(link)
        try:
            await self._folder(link)
            await self.found(link)
        except IdentityError as error:
            if not self._had:
                raise
            raise LinkError(f"{error}; it has been there: not all of it may be up yet") from error
        conditions = {node: condition.node for condition, node in self._each_condition()}
        progress = [self._nodes[name] for name in _PROGRESS if name in self._nodes]
        # What decides comes first: a server that has room for some of them only shall refuse what is only shown.
        decides = dict.fromkeys([*conditions, *self.watched()], STATE_S)
        watched = decides | {node: VALUE_S for node in (*progress, *self._shown) if node not in decides}
        named = {**self._other_places(), **self._own_places()}
        places = {node: named[name] for name, node in self._nodes.items() if name in named}
        self._decides = {node: places[node] for node in (*progress, *self.watched())} | conditions
        await self._look_at(link, list(watched))
        if words := await self.alarms.hear(link, self._event):
            self._context.emit(Message(words))
        await self.alarms.take_in(link)
        self._had = had
        return watched

    async def _folder(self, link: Link) -> None:
        profile, folder = self.profile, self._nodes.get(FOLDER)
        self.folder = await Folder.open(link, folder, profile) if folder is not None else None
        if profile.programs == "files" and self.folder is None and profile.files is not None:
            raise IdentityError(f"the server has no {profile.files.directory} to put programs into")

    def _compare(self) -> Counter[str]:
        """How many nodes there are at each place. Raises `LinkError` if an earlier link has found more.

        A server may be up before all its nodes are, and a condition that is left out does not hold anything up.
        """
        named = {**self._other_places(), **self._own_places()}
        found = Counter(named[name] for name in self._nodes if name in named)
        # Two conditions may be about the same place.
        found |= Counter(
            {c.node: len(nodes) for c, nodes in zip(self.profile.conditions, self._conditions, strict=True)}
        )
        if gone := [place for place, count in self._had.items() if found[place] < count]:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            raise LinkError(f"the server has had {gone[0]}{more}, and has it no more: not all of it may be up yet")
        for condition, nodes in zip(self.profile.conditions, self._conditions, strict=True):
            if condition.required and not nodes:
                raise IdentityError(
                    f"the server has no {condition.node}, which profile {self._profile_name!r} requires"
                )
        return found

    def unwatched(self, refused: Mapping[NodeId, str]) -> None:
        """The server does not let these be watched, and says which status. Raises `LinkError` if one of them decides.

        What decides would stay as it was when it was read, for as long as the link lives. A server that has no more
        room (an earlier session of ours may still have it) has some later.
        """
        for node, status in refused.items():
            if node in self._decides:
                raise LinkError(f"the server does not let {self._decides[node]} be watched: {status}")
        for node, status in refused.items():
            self._values.pop(node, None)
            name, _ = self._shown[node]
            self._say_once(f"{name} is not shown: the server does not let it be watched ({status})")

    def _say_once(self, words: str) -> None:
        if words not in self._told_once:
            self._told_once.add(words)
            self._context.emit(Message(words))

    def _own_places(self) -> dict[str, str]:
        """Names and places of what starts runs and tells of them."""
        return {**self.wanted(), FOLDER: self.profile.files.directory if self.profile.files is not None else ""}

    def _other_places(self) -> dict[str, str]:
        """Names and places of what else the machine says of itself, conditions and values apart."""
        who, progress = self.profile.identity, (self.profile.progress, self.profile.progress_of)
        named = {"firmware": who.firmware, "version": who.version, "name": who.name, "serial": who.serial}
        return {**named, **dict(zip(_PROGRESS, progress, strict=True))}

    def _places(self, texts: Mapping[str, str]) -> dict[str, Place]:
        return {name: self.profile.place(text) for name, text in texts.items() if text}

    @property
    def left_out(self) -> list[str]:
        """Conditions and values that the profile names and this server has not: a slip of the pen looks the same."""
        pairs = zip(self.profile.conditions, self._conditions, strict=True)
        named = [condition.node for condition, nodes in pairs if not nodes]
        named += [value.node for name, value in self.profile.values.items() if f"value {name}" not in self._nodes]
        return list(dict.fromkeys(named))

    async def _find_conditions(self, link: Link) -> None:
        """Behind a star every node counts: a cell is not safe because the first of its safety states is."""
        conditions = self.profile.conditions
        places = {str(index): (self.root, self.profile.place(each.node)) for index, each in enumerate(conditions)}
        found = await link.find_each(places)
        self._conditions = [found.get(name, []) for name in places]

    async def _find_nodes(self, link: Link) -> None:
        """All but the conditions."""
        shown, ours = {f"value {name}": value.node for name, value in self.profile.values.items()}, self._own_places()
        places = self._places({**shown, **self._other_places(), **ours})
        self._nodes = await nodes_of(link, self.root, places, ours, self.started_by)

    async def _identify(self, link: Link) -> None:
        names = ("firmware", "version", "name", "serial")
        there = [name for name in names if name in self._nodes]
        read = await link.read([self._nodes[name] for name in there])
        said = {name: _text(value) for name, value in zip(there, read, strict=True)}
        firmware = said.get("firmware") or self.profile.summary
        found = Identity(
            firmware, said.get("version", ""), said.get("name", ""), said.get("serial", ""), self._profile_name
        )
        before = self.identity
        for name in there:
            if not said[name] and (known := getattr(before, name)) not in ("", self.profile.summary):
                raise LinkError(f"the machine does not say its {name} yet; it was {known}")
        if before.firmware and (before.serial, before.name, before.firmware) != (
            found.serial,
            found.name,
            found.firmware,
        ):
            raise IdentityError(f"another machine answers now: {_who(found)}, and it was {_who(before)}")
        self.identity = found

    async def _units(self, link: Link) -> None:
        nodes = {name: self._nodes[f"value {name}"] for name in self.profile.values if f"value {name}" in self._nodes}
        for gone in {name for name, _ in self._shown.values()} - nodes.keys():
            place = self.profile.values[gone].node
            self._say_once(f"{gone} is not shown any more: the server has no {place} now")
        self._shown.clear()
        for name, node in nodes.items():
            unit = self.profile.values[name].unit
            if not unit:
                places = {"unit": self.profile.place("EngineeringUnits")}
                if found := (await link.find_all(node, places)).get("unit"):
                    said = (await link.read([found]))[0]
                    information = said.Value.Value if said.Value is not None else None
                    unit = information.DisplayName.Text or "" if isinstance(information, ua.EUInformation) else ""
            self._shown[node] = (name, unit)

    async def _look_at(self, link: Link, nodes: Sequence[NodeId]) -> None:
        for node, value in zip(nodes, await link.read(nodes), strict=True):
            await self._keep(link, node, value)

    async def _keep(self, link: Link, node: NodeId, value: DataValue) -> None:
        found = _good(value)
        if isinstance(found, NodeId):
            await self.state_name(link, found)
        self.saw(node, value)

    async def state_name(self, link: Link, state: NodeId) -> str:
        """The browse name of a state's node, which is what specifications name; read once."""
        if state not in self._state_names:
            said = (await link.read([state], ua.AttributeIds.BrowseName))[0]
            name = _good(said)
            self._state_names[state] = name.Name if isinstance(name, ua.QualifiedName) else state.to_string()
        return self._state_names[state]

    async def catch_up(self, link: Link) -> None:
        """Learn the names of states that have come meanwhile, and whose alarms. Raises `MachineError`."""
        for found in list(self._values.values()):
            if isinstance(found, NodeId):
                await self.state_name(link, found)
        self._latch()
        try:
            await self.alarms.kept()
        except MachineError as error:  # the latch holds all the same, as long as the daemon lives
            self._context.emit(Message(str(error)))
        await self.alarms.take_in(link)

    # What is seen

    def saw(self, node: NodeId, value: DataValue) -> None:
        """One value has changed."""
        found = _good(value)
        self._values[node] = found
        if node in self._shown and isinstance(found, int | float) and not isinstance(found, bool):
            name, unit = self._shown[node]
            self._context.emit(Reading(name, float(found), unit))
        elif node not in self._shown:
            self._latch()
            self.tell()

    def _latch(self) -> None:
        """A safety stop counts from when it is seen until a person has acknowledged it."""
        seen: dict[str, list[bool]] = {}
        unknown: set[str] = set()
        for condition, node in self._each_condition():
            if not condition.safety:
                continue
            if (value := self._plain(node)) is not None and condition.understands(value):
                seen.setdefault(condition.words, []).append(not condition.holds(value))
            else:
                unknown.add(condition.words)
        for words, broken in seen.items():  # several may have the same words
            # What is not known is no stop, and no end of one; it lets nothing start either.
            if any(broken) or words not in unknown:
                self.alarms.safety(words, broken=any(broken))

    def confirm(self) -> None:
        """Values that do not change are not sent again; while the link lives, they are what they were."""
        for node, (name, unit) in self._shown.items():
            found = self._values.get(node)
            if isinstance(found, int | float) and not isinstance(found, bool):
                self._context.emit(Reading(name, float(found), unit))

    def _plain(self, node: NodeId) -> Any:
        found = self._values.get(node)
        if isinstance(found, NodeId):
            return self._state_names.get(found)
        if isinstance(found, LocalizedText):
            return found.Text
        return found if isinstance(found, bool | int | float | str) else None

    def broken(self, *, safety: bool = False) -> list[Condition]:
        """Conditions that do not hold now; with `safety` only those that hold a run."""
        found = [condition for condition, _ in self._broken() if condition.safety or not safety]
        return list(dict.fromkeys(found))

    def _broken(self) -> list[tuple[Condition, Any]]:
        found = [(condition, self._plain(node)) for condition, node in self._each_condition()]
        return [(condition, value) for condition, value in found if not condition.holds(value)]

    def _each_condition(self) -> Iterator[tuple[Condition, NodeId]]:
        """With every node that it is about: the worst of them counts."""
        for condition, nodes in zip(self.profile.conditions, self._conditions, strict=True):
            for node in nodes:
                yield condition, node

    def refusal(self) -> str:
        """Why nothing can be started now, in words; empty if it can."""
        blocking = self.alarms.blocking(self._machine.id, self.profile.alarms.blocks_from)
        words = dict.fromkeys(_words(condition, value) for condition, value in self._broken())
        return "; ".join([*words, *blocking])

    def begins(self) -> None:
        """A run begins."""
        self._before, self._has_looked = None, False

    async def progress(self, link: Link) -> float | None:
        """Share of the program that the machine says is done, 0 to 1; None if it says nothing of this run.

        What it says first of a run that goes on may still be about the one before. It is read, as the state is: what
        the subscription brings may be older. Raises `LinkError`.
        """
        said = await self._said_of_progress(link)
        if not self._has_looked:
            self._before, self._has_looked = said, True
        if said is None or said == self._before:
            return None
        self._before = None  # the run has moved it: from now on every value is about the run
        return said

    async def _said_of_progress(self, link: Link) -> float | None:
        named = [name for name in _PROGRESS if name in self._nodes]
        read = await link.read([self._nodes[name] for name in named])
        found = {name: _number(_good(value)) for name, value in zip(named, read, strict=True)}
        done, total = (found.get(name) for name in _PROGRESS)
        if not self.profile.progress_of:
            total = self.profile.progress_total
        if done is None or not total or total < 0:
            return None
        return min(1.0, max(0.0, done / total))

    def _event(self, event: Mapping[str, Any]) -> None:
        self.alarms.event(event)
        self.tell()  # it may also be that an order's state has changed: whoever waits looks

    async def ask_again(self, link: Link) -> None:
        """Have the alarms told that are missing yet. Raises `MachineError`."""
        if words := await self.alarms.ask_again(link, self._event):
            self._context.emit(Message(words))
        await self.alarms.take_in(link)

    async def acknowledge(self, link: Link, token: str, comment: str) -> None:
        """A person has taken note of a condition. Raises `MachineError`."""
        await self.alarms.acknowledge(link, token, comment)
        self.tell()

    async def acknowledge_all(self, link: Link) -> None:
        """A person has looked, and lets the machine go on. Raises `MachineError`."""
        await self.alarms.acknowledge_all(link, "edge: released by a person")

    # Programs

    def program_name(self, run: Run, program: Program) -> tuple[str, bool]:
        """What the program of a run is called on the machine, and whether it is sent there. `NotAcceptableError`."""
        named = run.step.parameters.get(PROGRAM_PARAMETER)
        if named is None:
            if self.profile.programs == "named":
                what, limit = f"parameters.{PROGRAM_PARAMETER}", "the name of a program on the controller"
                raise NotAcceptableError(what, "nothing", limit)
            suffix = self.profile.files.suffix if self.profile.files is not None else ""
            return f"edge-{run.run_id}{suffix}", True
        if self.profile.programs == "files" or not isinstance(named, str) or not named:
            what = f"parameters.{PROGRAM_PARAMETER}"
            raise NotAcceptableError(what, named, "nothing: this machine's programs are sent with the order")
        return named, False

    async def send(self, link: Link, name: str, program: Program) -> None:
        """Have the program on the machine, byte by byte, under its final name only when it is whole. `MachineError`."""
        if self.folder is None:
            raise MachineError(f"the machine takes no files, and {program.name} is one", Motion.NONE)
        await self.folder.put(link, name, program)

    async def tidy(self, link: Link, keep: str) -> None:
        """Remove what earlier runs have left; their ends are durable by now."""
        if self.folder is not None:
            await self.folder.tidy(link, keep)

    # What differs

    @property
    @abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """As found on the server."""

    @abstractmethod
    def wanted(self) -> Mapping[str, str]:
        """Names and places of nodes of its own."""

    @abstractmethod
    async def found(self, link: Link) -> None:
        """The nodes are known: get ready. Raises `IdentityError` for what is missing."""

    @abstractmethod
    def watched(self) -> Sequence[NodeId]:
        """Nodes of its own that decide."""

    @abstractmethod
    async def prepare(self, link: Link, work: Work) -> None:
        """What has to be done before the one request that starts the run; nothing moves. Raises `MachineError`."""

    def unprepared(self, work: Work) -> str:
        """Why what was prepared for the run is of no use any more, by what was read last; empty if it is."""
        return ""

    @abstractmethod
    async def begin(self, link: Link, work: Work) -> None:
        """The one request that starts the run; never repeated. `RefusedError` if it surely has not."""

    @abstractmethod
    async def look(self, link: Link, work: Work) -> Seen:
        """What the machine says of the run. Raises `MachineError` if it cannot be asked."""

    @abstractmethod
    async def pause(self, link: Link, work: Work) -> None:
        """Ask for it once."""

    @abstractmethod
    async def resume(self, link: Link, work: Work) -> None:
        """Ask for it once."""

    @abstractmethod
    async def stop(self, link: Link, work: Work, seen: Seen) -> None:
        """Ask for the end of the run once."""

    @abstractmethod
    async def abort(self, link: Link, work: Work | None) -> None:
        """Stop at once whatever goes on."""

    @abstractmethod
    async def rest(self, link: Link, work: Work | None) -> bool:
        """After a stop: bring the machine to rest; whether it is there."""

    @abstractmethod
    def busy_with(self, work: Work | None) -> str:
        """Whether the machine carries out what is not ours; in words, or empty."""

    def state(self, work: Work | None, seen: Seen | None) -> tuple[MachineState, str]:
        """The machine's state, as far as the server says."""
        if work is not None and seen is not None:
            match seen.phase:
                case Phase.RUNNING:
                    return MachineState.EXECUTE, seen.detail
                case Phase.HELD:
                    return MachineState.HELD, seen.detail or self.alarms.text
                case Phase.ENDED:
                    return MachineState.EXECUTE, ""  # for the moment until its outcome is told
                case Phase.WAITING | Phase.ABSENT:
                    pass
        if other := self.busy_with(work):
            return MachineState.EXECUTE, other
        if words := self.refusal():
            return MachineState.STOPPED, words
        if work is None:
            return MachineState.IDLE, ""
        return MachineState.EXECUTE, (seen.detail if seen else "") or "the machine has not begun yet"


def ended(kind: OutcomeKind, reason: str, evidence: Mapping[str, Json]) -> Seen:
    """The machine's word on a run that may have moved it."""
    return Seen(Phase.ENDED, outcome=Outcome(kind, Motion.POSSIBLE, reason, evidence))


def _words(condition: Condition, value: Any) -> str:
    if value is None or condition.understands(value):
        return condition.words
    return f"{condition.words}, as far as is known: it says {value!r}"


def _number(value: Any) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _good(value: DataValue) -> Any:
    if value.StatusCode is not None and value.StatusCode.is_bad():
        return None
    return value.Value.Value if value.Value is not None else None


def _text(value: DataValue) -> str:
    found = _good(value)
    if isinstance(found, LocalizedText):
        found = found.Text
    return str(found) if found is not None else ""


def _who(identity: Identity) -> str:
    return " ".join(part for part in (identity.firmware, identity.name, identity.serial) if part)
