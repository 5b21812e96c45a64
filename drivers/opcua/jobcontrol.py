"""A machine tool with job management: an order is stored with the run's id, started, and asked about by that id."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drivers.opcua import isa95
from drivers.opcua.client import Link, Method
from drivers.opcua.disk import write
from drivers.opcua.equipment import Equipment, Phase, Seen, Work, ended
from drivers.opcua.isa95 import OrderState, Status
from drivers.opcua.library import DataValue, LocalizedText, NodeId, ua
from drivers.opcua.profile import JobsProfile
from drivers.opcua.structures import StructureError
from drivers.opcua.words import LinkError, RefusedError
from edge.driver import (
    Capability,
    IdentityError,
    Json,
    MachineError,
    Message,
    Motion,
    NotAcceptableError,
    OutcomeKind,
)

_VERBS = ("Store", "StoreAndStart", "Start", "Stop", "Abort", "Cancel", "Clear", "Pause", "Resume", "RevokeStart")
_RESPONSE = "RequestJobResponseByJobOrderID"
_ORDERS_KEPT = 4
_COMMENT = "edge"


class JobMachine(Equipment):
    """ISA95JobOrderReceiverObjectType, all of whose methods are optional, and its response provider."""

    profile: JobsProfile
    started_by = "control"
    _methods: dict[str, Method]
    _running: dict[str, str]  # orders that the machine carries out, as its list had them last: `isa95.running`
    _known: list[str]
    _over = ""  # ID of the order that its response has told the end of: the list may be late
    _changed = True
    _share: float | None = None  # of the order that is asked for, by its response

    @property
    def capabilities(self) -> frozenset[Capability]:
        pauses = "Pause" in self._methods and "Resume" in self._methods
        return frozenset({Capability.PAUSE}) if pauses else frozenset()

    def wanted(self) -> Mapping[str, str]:
        jobs = self.profile.jobs
        isa95_alias = next((alias for alias, uri in self.profile.namespaces.items() if uri.endswith(_ISA95)), "")
        self._prefix = f"{isa95_alias}:" if isa95_alias else ""
        found = {f"method {name}": f"{jobs.control}/{self._prefix}{name}" for name in _VERBS}
        return {
            **found,
            "control": jobs.control,
            "results": jobs.results,
            "list": f"{jobs.control}/{self._prefix}JobOrderList",
            f"method {_RESPONSE}": f"{jobs.results}/{self._prefix}{_RESPONSE}",
        }

    async def found(self, link: Link) -> None:
        self._methods = {}
        for name in (*_VERBS, _RESPONSE):
            if node := self._nodes.get(f"method {name}"):
                owner = self._nodes["results" if name == _RESPONSE else "control"]
                self._methods[name] = await link.method(owner, node, name)
        if "list" in self._nodes:
            await self._learn_the_list(link)
        if _RESPONSE not in self._methods and "list" not in self._nodes:
            raise IdentityError(
                "the machine has neither a list of its orders nor responses: nobody could ask for a run"
            )
        if "StoreAndStart" not in self._methods and not {"Store", "Start"} <= self._methods.keys():
            raise IdentityError("the machine has neither StoreAndStart nor Store and Start: it takes no orders")
        if not {"Stop", "Abort"} & self._methods.keys():
            raise IdentityError("the machine has neither Stop nor Abort: what it begins could not be ended")
        self._running = {}

    async def _learn_the_list(self, link: Link) -> None:
        (said,) = await link.read([self._nodes["list"]], ua.AttributeIds.DataType)
        data_type = said.Value.Value if said.Value is not None else None
        if isinstance(data_type, NodeId):
            await link.learn([data_type])
            if data_type in link.types.definitions:
                return
        del self._nodes["list"]
        lost = "what it carries out for others is not seen"
        self._context.emit(Message(f"JobOrderList of the machine is no list of structures, and is not read: {lost}"))

    def watched(self) -> Sequence[NodeId]:
        return [self._nodes["list"]] if "list" in self._nodes else []

    def saw(self, node: NodeId, value: DataValue) -> None:
        super().saw(node, value)
        if node == self._nodes.get("list"):
            self._values.pop(node, None)  # a hint: who needs it reads it
            self._changed = True

    # A run

    async def prepare(self, link: Link, work: Work) -> None:
        await self._clear_ours(link, work)
        if not self._at_once:
            status = await self._call(link, "Store", self._order(link, work), self._comment())
            if status.done is not True:
                raise MachineError(f"the order is not taken: {status.words}", Motion.NONE)
            await self._remember(work.run.run_id)

    @property
    def _at_once(self) -> bool:
        two_calls = {"Store", "Start"} <= self._methods.keys()
        return "StoreAndStart" in self._methods and (self.profile.jobs.start == "store_and_start" or not two_calls)

    async def begin(self, link: Link, work: Work) -> None:
        if self._at_once:
            await self._remember(work.run.run_id)
            status = await self._call(link, "StoreAndStart", self._order(link, work), self._comment())
        else:
            status = await self._call(link, "Start", work.run.run_id, self._comment())
        if status.done is False:
            raise RefusedError(status.words, "ReturnStatus")
        if status.done is None:
            raise LinkError(status.words)  # neither yes nor no: what the machine knows of the order tells

    def _order(self, link: Link, work: Work) -> dict[str, Any]:
        jobs, run = self.profile.jobs, work.run
        words = ua.LocalizedText(f"job {run.job_id}, part {run.part}, step {run.step.id}, attempt {run.attempt}")
        return isa95.job_order(run.run_id, work.name, jobs.program, jobs.parameter_id, words)

    def _comment(self) -> list[LocalizedText]:
        return [ua.LocalizedText(_COMMENT)]

    async def _call(self, link: Link, name: str, *values: Any) -> Status:
        if name not in self._methods:
            raise RefusedError(f"the machine has no method {name}", "BadMethodInvalid")
        answer = await link.call(self._methods[name], *values)
        return isa95.read_status(answer[0] if answer else None, self.profile.jobs.return_status)

    async def look(self, link: Link, work: Work) -> Seen:
        run_id = work.run.run_id
        listed, evidence = await self._listed(link, run_id), dict[str, Json]()
        state, strange = listed, ""
        if _RESPONSE in self._methods:
            responded, evidence, strange = await self._response(link, run_id)
            state = responded or listed
        if state is None:
            return Seen(Phase.ABSENT, strange)
        evidence = {**evidence, "order": run_id, "state": state.words}
        self._over = run_id if state.number in (isa95.ENDED, isa95.ABORTED) else ""
        match state.number:
            case isa95.NOT_ALLOWED_TO_START | isa95.ALLOWED_TO_START:
                return Seen(Phase.WAITING, f"the machine has the order and has not begun: {state.words}")
            case isa95.RUNNING:
                return Seen(Phase.RUNNING)
            case isa95.INTERRUPTED:
                return Seen(Phase.HELD, "" if work.pause_asked else self.alarms.text or self._why_held())
            case isa95.ENDED:
                return self._end(work, state, evidence)
            case isa95.ABORTED:
                if work.stop_asked:
                    return ended(OutcomeKind.STOPPED, "stopped on request", evidence)
                because = f": {self.alarms.text}" if self.alarms.text else ""
                return ended(OutcomeKind.FAILED, f"the machine says that the order is Aborted{because}", evidence)
            case _:
                return Seen(Phase.RUNNING if work.ran else Phase.WAITING, f"the order is in {state.words}")

    def begins(self) -> None:
        super().begins()
        self._share = None

    async def progress(self, link: Link) -> float | None:
        return self._share if self._share is not None else await super().progress(link)

    def _why_held(self) -> str:
        broken = self.broken()
        return (
            "; ".join(condition.words for condition in broken)
            or "the machine has interrupted the order by itself; its panel says why"
        )

    def _end(self, work: Work, state: OrderState, evidence: Mapping[str, Json]) -> Seen:
        match state.substate:
            case "completed":
                return ended(OutcomeKind.SUCCEEDED, "", evidence)
            case "closed":
                by = "stopped on request" if work.stop_asked else "the order was closed at the machine before its end"
                return ended(OutcomeKind.STOPPED, by, evidence)
            case _ if work.stop_asked:
                return ended(OutcomeKind.STOPPED, "stopped on request", evidence)
            case _ if self.profile.jobs.ended_without_substate == "succeeded":
                return ended(OutcomeKind.SUCCEEDED, "", evidence)
            case _:
                reason = "the machine says Ended, and not whether the order was completed"
                return ended(OutcomeKind.UNKNOWN, reason, evidence)

    async def _listed(self, link: Link, run_id: str) -> OrderState | None:
        if "list" not in self._nodes:
            return None
        entries = await self._entries(link)
        self._running = isa95.running(entries)
        return isa95.state_in_list(entries, run_id)

    async def _entries(self, link: Link) -> Any:
        said = await link.value(self._nodes["list"], "the list of orders")
        try:
            return link.types.value(said)
        except StructureError as error:
            raise RefusedError(f"the list of orders: {error}", "BadDecodingError") from error

    async def _response(self, link: Link, run_id: str) -> tuple[OrderState | None, dict[str, Json], str]:
        """The order's state, evidence for its outcome, and what cannot be understood of it in words."""
        answer = await link.call(self._methods[_RESPONSE], run_id)
        status = isa95.read_status(answer[1] if len(answer) > 1 else None, self.profile.jobs.return_status)
        if status.done is False or not answer:
            return None, {}, ""
        try:
            response = link.types.value(answer[0])
        except StructureError as error:
            raise RefusedError(f"the machine's job response: {error}", "BadDecodingError") from error
        if response is not None and not isinstance(response, Mapping):
            return None, {}, f"its job response is {response!r}, which is not understood"
        if response is None or response.get("JobOrderID") != run_id:
            return None, {}, ""
        if (share := isa95.response_number(response, self.profile.jobs.progress_id)) is not None:
            self._share = min(1.0, max(0.0, share / self.profile.progress_total))
        times = {
            key: time.isoformat()
            for key, name in (("began_at", "StartTime"), ("ended_at", "EndTime"))
            if (time := response.get(name)) is not None and hasattr(time, "isoformat")
        }
        state = isa95.read_state(response.get("JobState"))
        strange = "" if state is not None else "its job response has no state that is understood"
        return state, {"response": str(response.get("JobResponseID")), **times}, strange

    # What is asked of it

    async def pause(self, link: Link, work: Work) -> None:
        await self._ask(link, "Pause", work)

    async def resume(self, link: Link, work: Work) -> None:
        if words := self.refusal():
            raise NotAcceptableError("resume", "asked", f"once this is over: {words}")
        await self._ask(link, "Resume", work)

    async def _ask(self, link: Link, name: str, work: Work) -> None:
        status = await self._call(link, name, work.run.run_id, self._comment())
        if status.done is False:
            raise RefusedError(f"{name}: {status.words}", "ReturnStatus")

    async def stop(self, link: Link, work: Work, seen: Seen) -> None:
        # Before it runs, an order cannot be stopped, only taken back (OPC 10031-4, table of transitions).
        waiting = seen.phase is Phase.WAITING
        order = ("Cancel", "RevokeStart", "Abort") if waiting else ("Stop", "Abort")
        last: RefusedError | None = None
        for name in order:
            if name not in self._methods:
                continue
            try:
                await self._ask(link, name, work)
            except RefusedError as error:
                last = error
                continue
            if name != "RevokeStart":
                return
        if last is not None:
            raise last

    async def abort(self, link: Link, work: Work | None) -> None:
        ids = [work.run.run_id] if work is not None else []
        calls = [
            self._call(link, "Abort" if "Abort" in self._methods else "Stop", each, self._comment()) for each in ids
        ]
        await asyncio.gather(*calls)

    async def rest(self, link: Link, work: Work | None) -> bool:
        return True  # what a machine tool does after a program's end is its own matter

    def busy_with(self, work: Work | None) -> str:
        mine = work.run.run_id if work is not None else ""
        others = [name for name in self._running if name not in (mine, self._over)]
        if not others:
            return ""
        whose = "that it got from here earlier" if others[0] in self._ours() else "of somebody else"
        if strange := self._running[others[0]]:
            return f"the machine has the order {others[0]} {whose} in {strange}"
        return f"the machine carries out the order {others[0]} {whose}"

    async def catch_up(self, link: Link) -> None:
        await super().catch_up(link)
        if "list" in self._nodes and self._changed:
            self._changed = False
            self._running = isa95.running(await self._entries(link))

    # Orders of earlier runs

    async def _clear_ours(self, link: Link, work: Work) -> None:
        """Take ended orders of ours off the machine's list, which is short; their ends are durable by now."""
        if "list" not in self._nodes or "Clear" not in self._methods:
            return
        ours = self._ours()
        gone = [name for name in isa95.finished(await self._entries(link)) if name in ours]
        for name in gone[: max(0, len(gone) - _ORDERS_KEPT + 1)]:
            with contextlib.suppress(RefusedError):
                await self._call(link, "Clear", name, self._comment())

    def _ours(self) -> list[str]:
        if not hasattr(self, "_known"):
            try:
                self._known = _read(self._file)
            except (OSError, ValueError) as error:
                self._known = []
                self._tell_of_names("read", error)
        return self._known

    async def _remember(self, run_id: str) -> None:
        self._known = [*self._ours(), run_id][-100:]
        try:
            await asyncio.to_thread(write, self._file, json.dumps(self._known).encode())
        except OSError as error:
            self._tell_of_names("kept", error)

    def _tell_of_names(self, done: str, error: Exception) -> None:
        # Then old orders stay on the machine's list, and nothing worse: that is no reason not to begin.
        lost = "orders that the machine got from here then stay on its list, and look like those of others"
        why = getattr(error, "strerror", None) or error
        self._context.emit(Message(f"the names of old orders in {self._file} cannot be {done} ({why}): {lost}"))

    @property
    def _file(self) -> Path:
        return self._context.state_dir / "orders.json"


_ISA95 = "/ISA95-JOBCONTROL_V2/"


def _read(path: Path) -> list[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError("it is no list of names")
    return found
