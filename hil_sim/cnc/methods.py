"""Job management as clients see it: the methods of JobOrderControl and JobOrderResults, lists and events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from hil_sim.cnc.jobs import SUBSTATES, Job, Jobs, JobState, Status
from hil_sim.cnc.nodes import Nodes
from hil_sim.opcua.alarms import emit, plain_event
from hil_sim.opcua.library import Variant, ua
from hil_sim.opcua.space import STRING, TEXT, UINT64, Argument, Space

NAMES = {
    JobState.NOT_ALLOWED_TO_START: ("NotAllowedToStart", 5035),
    JobState.ALLOWED_TO_START: ("AllowedToStart", 5036),
    JobState.RUNNING: ("Running", 5037),
    JobState.INTERRUPTED: ("Interrupted", 5038),
    JobState.ENDED: ("Ended", 5039),
    JobState.ABORTED: ("Aborted", 5040),
}
UNKNOWN_STATE = 42
"""What `unknown-states` shows for a running job."""

_ORDER, _RESPONSE, _STATE, _LISTED, _MASTER = "isa95:3008", "isa95:3013", "isa95:3006", "isa95:3015", "isa95:3007"
_COMMENT = Argument("Comment", TEXT, array=True)
_STATUS = Argument("ReturnStatus", UINT64)


class Acts(Protocol):
    """The machine, as far as job orders move it."""

    def programs(self) -> list[str]: ...

    async def act(self, job: Job, verb: str) -> Status: ...

    async def settle(self) -> None: ...


class JobMethods:
    """Binds the methods to `jobs` and to the machine."""

    def __init__(self, space: Space, nodes: Nodes, jobs: Jobs, machine: Acts, variants: frozenset[str]) -> None:
        self._space = space
        self._nodes = nodes
        self._jobs = jobs
        self._machine = machine
        self._variants = variants
        self._classes: dict[str, Any] = nodes.classes
        by_type = {_ORDER: self._classes["ISA95JobOrderDataType"], _STATE: self._classes["ISA95StateDataType"]}
        order = Argument("JobOrder", _ORDER)
        control = nodes.job_control
        for verb, start in (("Store", False), ("StoreAndStart", True)):
            space.method(control, f"isa95:{verb}", [order, _COMMENT], [_STATUS], self._storing(start), by_type)
        space.method(control, "isa95:Update", [order, _COMMENT], [_STATUS], self._update, by_type)
        by_id = [Argument("JobOrderID", STRING), _COMMENT]
        for verb in ("Start", "Stop", "Pause", "Resume", "Abort", "RevokeStart"):
            space.method(control, f"isa95:{verb}", by_id, [_STATUS], self._moving(verb))
        for verb in ("Cancel", "Clear"):
            space.method(control, f"isa95:{verb}", by_id, [_STATUS], self._removing(verb))
        results = nodes.job_results
        space.method(
            results,
            "isa95:RequestJobResponseByJobOrderID",
            [Argument("JobOrderID", STRING)],
            [Argument("JobResponse", _RESPONSE), _STATUS],
            self._response_by_id,
        )
        space.method(
            results,
            "isa95:RequestJobResponseByJobOrderState",
            [Argument("JobOrderState", _STATE, array=True)],
            [Argument("JobResponses", _RESPONSE, array=True), _STATUS],
            self._responses_by_state,
            by_type,
        )

    # -- the receiver

    def _storing(self, start: bool) -> Callable[..., Awaitable[tuple[Any, ...]]]:
        async def store(order: Any, _comment: Any) -> tuple[Any, ...]:
            if order is None:
                return (self._said(Status.INVALID_REQUEST),)
            masters = order.WorkMasterID or []
            name = masters[0].ID or "" if masters else ""
            known = name in self._machine.programs()
            status = self._jobs.store(order.JobOrderID or "", order, name, known=known, start=start)
            await self._machine.settle()
            return (self._said(status),)

        return store

    async def _update(self, order: Any, _comment: Any) -> tuple[Any, ...]:
        status = self._jobs.move(order.JobOrderID or "", "Update", datetime.now(UTC))
        if status is Status.OK:
            job = self._jobs.jobs[order.JobOrderID]
            job.order = order
            if order.WorkMasterID:
                job.work_master = order.WorkMasterID[0].ID or ""
        await self._machine.settle()
        return (self._said(status),)

    def _moving(self, verb: str) -> Callable[..., Awaitable[tuple[Any, ...]]]:
        async def move(job_id: str | None, _comment: Any) -> tuple[Any, ...]:
            status = self._jobs.allows(job_id or "", verb)
            if status is Status.OK:
                job = self._jobs.jobs[job_id or ""]
                status = await self._machine.act(job, verb) if job.state in IN_HAND else self._move(job, verb)
            await self._machine.settle()
            return (self._said(status),)

        return move

    def _move(self, job: Job, verb: str) -> Status:
        return self._jobs.move(job.job_id, verb, datetime.now(UTC))

    def _removing(self, verb: str) -> Callable[..., Awaitable[tuple[Any, ...]]]:
        async def remove(job_id: str | None, _comment: Any) -> tuple[Any, ...]:
            status = self._jobs.remove(job_id or "", verb)
            await self._machine.settle()
            return (self._said(status),)

        return remove

    def _said(self, status: Status) -> Variant:
        value = int(status)
        if "bare-status" in self._variants:
            value = value.bit_length() - 1  # 0 is fine; otherwise the number of the bit
        kind = ua.VariantType.Int32 if "wrong-types" in self._variants else ua.VariantType.UInt64
        said: Variant = ua.Variant(value & 0x7FFFFFFF if kind == ua.VariantType.Int32 else value, kind)
        return said

    # -- the response provider

    async def _response_by_id(self, job_id: str | None) -> tuple[Any, ...]:
        job = self._jobs.jobs.get(job_id or "")
        if job is None:
            return self._classes["ISA95JobResponseDataType"](), self._said(Status.UNKNOWN_ID)
        return self._response(job), self._said(Status.OK)

    async def _responses_by_state(self, states: Any) -> tuple[Any, ...]:
        wanted = {each.StateNumber for each in states or []}
        found = [self._response(job) for job in self._jobs.jobs.values() if int(job.state) in wanted]
        return found, self._said(Status.OK)

    def _response(self, job: Job) -> Any:
        made = self._classes["ISA95JobResponseDataType"]()
        made.JobResponseID = f"{job.job_id}/1"
        made.JobOrderID = job.job_id
        made.StartTime, made.EndTime = job.began_at, job.ended_at
        made.JobState = self._states(job)
        return made

    def _states(self, job: Job) -> list[Any]:
        text, _ = NAMES[job.state]
        state_number = int(job.state)
        if "unknown-states" in self._variants and job.state is JobState.RUNNING:
            text, state_number = "Churning", UNKNOWN_STATE
        made = [self._state([text], state_number)]
        if job.substate:
            made.append(self._state([text, job.substate], SUBSTATES[job.substate]))
        return made

    def _state(self, path: list[str], state_number: int) -> Any:
        made = self._classes["ISA95StateDataType"]()
        elements = []
        for each in path:
            element = ua.RelativePathElement()
            element.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HasComponent)
            element.IsInverse = False
            element.IncludeSubtypes = True
            element.TargetName = self._space.name(f"isa95:{each}")
            elements.append(element)
        made.BrowsePath = ua.RelativePath(Elements=elements)
        made.StateText = ua.LocalizedText(path[-1])
        made.StateNumber = state_number
        return made

    # -- what is seen without asking

    async def publish(self, *, programs_changed: bool) -> None:
        """Events for jobs that have moved, and the lists."""
        moved, self._jobs.moved = self._jobs.moved, []
        if programs_changed:
            await self._publish_programs()
        if not (moved or self._jobs.changed):
            return
        self._jobs.changed = False
        await self._publish_list()
        for job, snapshot in moved:
            text, node = NAMES[snapshot.state]
            wrong = "wrong-types" in self._variants
            await self._nodes.job_state.show(text, f"isa95:{node}", int(snapshot.state), as_string=wrong)
            await self._send_event(job, snapshot)

    async def _publish_programs(self) -> None:
        masters = []
        for name in self._machine.programs():
            master = self._classes["ISA95WorkMasterDataType"]()
            master.ID = name
            masters.append(master)
        await self._space.write(self._nodes.work_masters, _MASTER, masters, array=True)

    async def _publish_list(self) -> None:
        listed: Any = []
        for job in self._jobs.jobs.values():
            entry = self._classes["ISA95JobOrderAndStateDataType"]()
            entry.JobOrder, entry.State = job.order, self._states(job)
            listed.append(entry)
        if "wrong-types" in self._variants:
            texts = [f"{job.job_id} {job.state.name}" for job in self._jobs.jobs.values()]
            listed = ua.Variant(texts, ua.VariantType.String, is_array=True)
        await self._space.write(self._nodes.job_list, _LISTED, listed, array=True)

    async def _send_event(self, job: Job, snapshot: Job) -> None:
        extension = ua.VariantType.ExtensionObject
        event = plain_event(
            self._space.node("isa95:1006"),
            [
                ("JobOrder", job.order, extension),
                ("JobState", self._states(snapshot), extension),
                ("JobResponse", self._response(snapshot), extension),
            ],
        )
        text = f"{job.job_id}: {NAMES[snapshot.state][0]}"
        await emit(self._space, event, (self._nodes.job_control, self._nodes.machine), text, 100)


IN_HAND = (JobState.RUNNING, JobState.INTERRUPTED)
