"""Looks at the journal whenever something changed, plans, and hands the plan to the machines.

The journal is the only memory: every round reads what is open, so nothing is lost when the daemon restarts, and what
was requested there (a stop, a pause, a resume) is acted on here. What has certainly expired is ended here, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge.artifacts.artifacts import Artifacts
from edge.artifacts.fetch import Story
from edge.artifacts.quarantine import set_aside
from edge.clock import SystemClock
from edge.driver import Program, Step
from edge.errors import ArtifactError, EdgeError, IllegalTransitionError, StaleRevisionError
from edge.intake.authority import Authority
from edge.jobstate import Requested
from edge.journal.journal import Journal
from edge.journal.rows import Row, held_in_words
from edge.journal.scribe import ACTOR
from edge.journal.transaction import KnownRoot, Transaction
from edge.model.event import Draft, EventKind, stamp_text
from edge.model.loaded import Loaded
from edge.model.order import JobOrder, parse_order
from edge.plugins import Equipment
from edge.reading import views
from edge.running.checker import Checker
from edge.running.claim import Assignment
from edge.running.planner import Blocker, Code, OpenStep, StepKey, plan
from edge.running.runner import Runner
from edge.running.work import work_of
from edge.trust import Now

LOOK_AGAIN_S = 30.0
"""Times pass (``not_before``, ``expires_at``) without anything being recorded."""

RETRY_S = 1.0
"""Pause after a round that failed."""

PLANNING_SHARE = 0.1
"""How much of its time the loop plans at most, while many orders come: machines are fed and stopped by it, too."""

LONGEST_PAUSE_S = 1.0
"""However long a look took: on a host that is busy with something else the next one is not slow for its orders."""

PAUSE_S = 0.03
"""Between two looks at the journal: what hundreds of orders a second change is looked at together."""

MOST_EXPIRED = 100
"""Jobs that are ended in one transaction; a site that was switched off for long may have many."""

log = logging.getLogger("edge.dispatch")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one round goes by, as the journal has it.

    Steps that may start, what was asked of runs, what machines need clearing by, machines that are out of service, what
    people have loaded, steps that run, the trust root in force, jobs that have certainly expired, and why nothing
    begins before somebody has confirmed the journal (empty if nobody needs to).
    """

    startable: list[Row]
    asked: list[tuple[str, str, Requested]]
    clearing: dict[str, str | None]
    out_of_service: dict[str, str]
    loaded: dict[str, dict[str, Loaded]]
    running: list[Row]
    root: Row | None
    overdue: list[Row]
    held: str


@dataclass(frozen=True, slots=True)
class _Allowed:
    """A step that may start, with what its order says."""

    open: OpenStep
    assignment: Assignment
    step: Step
    program: Program


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
        fetching: Callable[[str], Story | None] = lambda sha256: None,
        too_early: Callable[[], str] = str,
    ) -> None:
        self._journal = journal
        self._state_dir = state_dir
        self._artifacts = artifacts
        self._authority = authority
        self._checker = checker
        self._clock = clock
        self._equipment = equipment
        self._runners = runners
        self._fetching = fetching
        self._too_early = too_early
        self._orders: dict[str, JobOrder] = {}
        self._sound: set[tuple[str, int]] = set()  # jobs that run, with the version of the root that lets them
        self._wake = asyncio.Event()
        self._plan_from_s = 0.0  # by the clock's `mono_s`: not before
        self._plan_owed = False
        self.waits: Mapping[StepKey, tuple[Blocker, ...]] = {}
        self.open: Sequence[OpenStep] = ()  # what may start, as of the newest plan
        self.given: dict[str, str] = {}  # by machine, the program that it was given last
        self.checks = checker.results
        self.trouble = ""  # why nothing is planned and no stop is passed on; empty while that goes well

    def wake(self) -> None:
        """Something other than the journal changed: a machine's state, a check's result."""
        self._wake.set()

    async def serve(self) -> None:
        """Plan after every change, until cancelled."""
        while True:
            self._wake.clear()
            seen = self._journal.last_seq
            try:
                await self._round()
            except EdgeError as error:
                if str(error) != self.trouble:
                    log.error("nothing is planned: %s; trying again", error)
                self.trouble = str(error)
                await asyncio.sleep(RETRY_S)
                continue
            self.trouble = ""
            await asyncio.sleep(PAUSE_S)
            if self._wake.is_set():
                continue
            await self._until_something_changes(seen)

    async def _until_something_changes(self, seq: int) -> None:
        recorded = asyncio.create_task(self._journal.wait_beyond(seq), name="wait for the journal")
        woken = asyncio.create_task(self._wake.wait(), name="wait for a machine")
        try:
            wait_s = max(0.0, self._plan_from_s - self._clock.mono_s()) if self._plan_owed else LOOK_AGAIN_S
            await asyncio.wait([recorded, woken], timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (recorded, woken):
                task.cancel()
            await asyncio.wait([recorded, woken])  # not one by one: that would take our own cancellation for theirs

    async def _round(self) -> None:
        """Pass on what was asked of runs; and plan, unless that was done a moment ago and took long."""
        began_s = self._clock.mono_s()
        self._plan_owed = began_s < self._plan_from_s
        floor = self._clock.now().floor
        seen = await asyncio.to_thread(self._read, not self._plan_owed, floor)
        if seen.root is not None:
            self._authority.adopt(KnownRoot(**seen.root))
        await self._stop_compromised(seen.running)
        for run_id, machine, requested in seen.asked:
            if machine in self._runners and requested.ends_the_run:
                self._runners[machine].stop(run_id)
            elif machine in self._runners:
                self._runners[machine].look(run_id)
        await self._set_damaged_aside()
        if self._plan_owed:
            return
        ended = await self._end(seen, floor)
        await self._plan(seen, [row for row in seen.startable if row["job_id"] not in ended])
        ended_s = self._clock.mono_s()
        self._plan_from_s = ended_s + min(LONGEST_PAUSE_S, (ended_s - began_s) * (1 / PLANNING_SHARE - 1))

    async def _plan(self, seen: _Seen, rows: list[Row]) -> None:
        claimed = {runner.claimed for runner in self._runners.values()}
        self._orders = {row["job_id"]: self._orders[row["job_id"]] for row in rows if row["job_id"] in self._orders}
        self._authority.forget_all_but({row["digest"] for row in rows})
        now = self._clock.now()
        steps: dict[StepKey, _Allowed] = {}
        unreadable: dict[StepKey, tuple[Blocker, ...]] = {}
        for row in rows:
            await asyncio.sleep(0)  # the others in the loop have their turn: a new order costs a parse, if not more
            key = StepKey(row["job_id"], row["part"], row["step"])
            try:
                if key not in claimed:
                    steps[key] = self._allowed(key, row, now)
            except EdgeError as error:
                text = f"this version cannot carry the order out: {error}"
                unreadable[key] = (Blocker(Code.UNREADABLE, text, f"edge job cancel {key.job_id}"),)
        self._checker.forget_all_but({item.open.program for item in steps.values()} | set(self.given.values()))
        for item in steps.values():
            self._want_checks(item)
        machines = [
            runner.view(seen.clearing.get(name), seen.out_of_service.get(name, ""), seen.loaded.get(name))
            for name, runner in self._runners.items()
        ]
        open_steps, checks = [item.open for item in steps.values()], dict(self._checker.results)
        made = await asyncio.to_thread(plan, open_steps, machines, checks, now, seen.held, self._too_early())
        self.waits = {**unreadable, **made.waits}
        self.open = open_steps
        for key, machine in made.assignments.items():
            step = steps[key]
            predicted_s = checks[step.open.program, machine].duration_s
            if self._runners[machine].offer(replace(step.assignment, predicted_s=predicted_s)):
                self.given[machine] = step.open.program

    async def _end(self, seen: _Seen, floor: datetime.datetime) -> set[str]:
        """End what has expired, unless something was recorded about it since we looked; the jobs that ended.

        None ends while the journal may miss a run.
        """
        if not seen.overdue or seen.held or self._too_early():
            return set()
        body = {"floor": stamp_text(floor)}

        def write(transaction: Transaction) -> set[str]:
            ended = set()
            for row in seen.overdue:
                with contextlib.suppress(StaleRevisionError, IllegalTransitionError):
                    transaction.expect_revision(row["job_id"], row["revision"])
                    transaction.record(Draft(EventKind.JOB_EXPIRED, ACTOR, body, row["job_id"]))
                    ended.add(row["job_id"])
            return ended

        ended = await self._journal.transact(write)
        for job_id in sorted(ended):
            log.warning("job %s has ended: its latest start has passed", job_id)
        return ended

    def _read(self, to_plan: bool, floor: datetime.datetime) -> _Seen:
        with views.open_readonly(self._state_dir) as snapshot:
            return _Seen(
                snapshot.startable() if to_plan else [],
                snapshot.requests(),
                snapshot.clearing(),
                snapshot.out_of_service(),
                snapshot.loaded(),
                snapshot.going_on(),
                snapshot.root_in_force(),
                snapshot.overdue(floor)[:MOST_EXPIRED] if to_plan else [],
                snapshot.journal_held(),
            )

    async def _stop_compromised(self, running: list[Row]) -> None:
        """End what runs under a key that somebody else may have; nothing else could ever come of such a job."""
        for row in running:
            key = (row["job_id"], self._authority.root.version)
            if key in self._sound:
                continue
            if reason := self._authority.compromised(row["envelope"]):
                log.warning("job %s on %s is stopped: %s", row["job_id"], row["machine"], reason)
                draft = Draft(EventKind.CANCEL_REQUESTED, ACTOR, {"reason": reason}, row["job_id"])
                with contextlib.suppress(IllegalTransitionError):  # it has ended meanwhile
                    await self._journal.record([draft])
            else:
                self._sound.add(key)
        self._sound &= {(row["job_id"], self._authority.root.version) for row in running}

    async def _set_damaged_aside(self) -> None:
        """What the checker found to be damaged must come anew."""
        for sha256, reason in self._checker.take_damaged().items():
            log.error("a program is set aside: %s", reason)
            try:
                await self._journal.record([await set_aside(self._artifacts, ACTOR, sha256, reason)])
            except ArtifactError as error:
                log.error("%s", error)

    def _allowed(self, key: StepKey, row: Row, now: Now) -> _Allowed:
        """Raises `EdgeError` for an order that this version cannot carry out."""
        order = self._order(row["job_id"], row["payload"])
        step, program = work_of(order, key.step, self._artifacts)
        fetch = self._fetching(program.sha256)
        return _Allowed(
            OpenStep(
                key=key,
                process=step.process,
                requires=order.step(step.id).requires,
                program=program.sha256,
                program_name=program.name,
                program_here=self._artifacts.has(program.sha256),
                priority=order.priority,
                due_at=order.due_at,
                not_before=order.not_before,
                expires_at=order.expires_at,
                accepted_seq=row["accepted_seq"],
                fetch=str(fetch or ""),
                fetch_fails=fetch is not None and fetch.failing,
                held=held_in_words(row["held"]),
                refusal=self._authority.known_refusal(row["digest"], row["envelope"], order, now),
            ),
            Assignment(key, row["attempt"] + 1, row["revision"], order, row["envelope"]),
            step,
            program,
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
                self._checker.want(equipment, item.step, item.program)
