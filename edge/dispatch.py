"""Looks at the journal whenever something changed, plans, and hands the plan to the machines.

The journal is the only memory: every round reads what is open, so nothing is lost when the daemon restarts, and what
was requested there (a stop) is acted on here.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import views
from edge.artifacts import Artifacts
from edge.authority import Authority
from edge.checker import Checker
from edge.clock import SystemClock
from edge.driver import Program, Step
from edge.errors import JournalError
from edge.journal import Journal
from edge.model.order import JobOrder, parse_order
from edge.planner import Blocker, OpenStep, StepKey, plan
from edge.plugins import Equipment
from edge.runner import Assignment, Runner

LOOK_AGAIN_S = 30.0
"""Times pass (``not_before``, ``expires_at``) without anything being recorded."""


@dataclass(frozen=True, slots=True)
class _Allowed:
    """A step that may start, with what its order says."""

    open: OpenStep
    assignment: Assignment


class Dispatcher:
    """The task between the journal and the machines."""

    def __init__(
        self,
        journal: Journal,
        state_dir: Path,
        artifacts: Artifacts,
        authority: Authority,
        checker: Checker,
        clock: SystemClock,
        equipment: Sequence[Equipment],
        runners: Mapping[str, Runner],
    ) -> None:
        self._journal = journal
        self._state_dir = state_dir
        self._artifacts = artifacts
        self._authority = authority
        self._checker = checker
        self._clock = clock
        self._equipment = equipment
        self._runners = runners
        self._orders: dict[str, JobOrder] = {}
        self._wake = asyncio.Event()
        self.waits: Mapping[StepKey, tuple[Blocker, ...]] = {}

    def wake(self) -> None:
        """Something other than the journal changed: a machine's state, a check's result."""
        self._wake.set()

    async def serve(self) -> None:
        """Plan after every change, until cancelled."""
        seq = -1
        while True:
            self._wake.clear()
            seen = self._journal.last_seq
            await self._round()
            if self._wake.is_set() or self._journal.last_seq > seen:
                continue
            seq = seen
            await self._until_something_changes(seq)

    async def _until_something_changes(self, seq: int) -> None:
        recorded = asyncio.create_task(self._journal.wait_beyond(seq), name="wait for the journal")
        woken = asyncio.create_task(self._wake.wait(), name="wait for a machine")
        try:
            await asyncio.wait([recorded, woken], timeout=LOOK_AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (recorded, woken):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _round(self) -> None:
        rows, stops, clearing = await asyncio.to_thread(self._read)
        for run_id, machine in stops:
            if machine in self._runners:
                self._runners[machine].stop(run_id)
        claimed = {runner.claimed for runner in self._runners.values()}
        allowed = [self._allowed(row) for row in rows]
        steps = {item.open.key: item for item in allowed if item.open.key not in claimed}
        for item in steps.values():
            self._want_checks(item)
        machines = [runner.view(clearing.get(name)) for name, runner in self._runners.items()]
        made = plan([item.open for item in steps.values()], machines, self._checker.results, self._clock.wall())
        self.waits = made.waits
        for key, machine in made.assignments.items():
            self._runners[machine].offer(steps[key].assignment)

    def _read(self) -> tuple[list[views.Row], list[tuple[str, str]], dict[str, str | None]]:
        with views.open_readonly(self._state_dir) as snapshot:
            return snapshot.startable(), snapshot.stop_requests(), snapshot.clearing()

    def _allowed(self, row: views.Row) -> _Allowed:
        order = self._order(row["job_id"], row["payload"])
        step = next(step for step in order.steps if step.id == row["step"])
        if step.program is None:
            raise JournalError(f"step {step.id} of job {row['job_id']} has no program; this version cannot tend")
        artifact = order.artifacts[step.program]
        key = StepKey(row["job_id"], row["part"], row["step"])
        program = Program(step.program, self._artifacts.path(artifact.sha256), artifact.sha256, artifact.size_bytes)
        return _Allowed(
            OpenStep(
                key=key,
                process=step.process,
                requires=step.requires,
                program=artifact.sha256,
                program_name=step.program,
                program_here=self._artifacts.has(artifact.sha256),
                priority=order.priority,
                due_at=order.due_at,
                not_before=order.not_before,
                expires_at=order.expires_at,
                accepted_seq=row["accepted_seq"],
                refusal=self._authority.known_refusal(row["digest"], row["envelope"]),
            ),
            Assignment(
                key=key,
                step=Step(step.id, step.process, dict(step.parameters)),
                attempt=row["attempt"] + 1,
                revision=row["revision"],
                program=program,
                envelope=row["envelope"],
                expires_at=order.expires_at,
            ),
        )

    def _order(self, job_id: str, payload: str) -> JobOrder:
        if job_id not in self._orders:
            self._orders[job_id] = parse_order(payload.encode())
        return self._orders[job_id]

    def _want_checks(self, item: _Allowed) -> None:
        if not item.open.program_here:
            return
        for equipment in self._equipment:
            if item.open.process in equipment.machine.processes:
                self._checker.want(equipment, item.assignment.step, item.assignment.program)

    def now(self) -> datetime.datetime:
        """The wall clock that plans are made by."""
        return self._clock.wall()
