"""The parts of a running site in one process, with a fake machine instead of a real one, and a real journal."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edge.artifacts.artifacts import Artifacts
from edge.clock import SystemClock
from edge.driver import Machine, Program
from edge.intake.authority import Authority
from edge.intake.intake import Intake, Receipt
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.fields import time_text
from edge.plugins import Equipment
from edge.reading import views
from edge.running.claim import Assignment
from edge.running.planner import StepKey
from edge.running.runner import Runner
from edge.running.work import work_of
from edge.serving.steering import Steering
from edge.timefloor import Source
from edge.trust import new_job_id, write_bundle
from tests.helpers.fake_driver import Connection, FakePlugin, Limits, Script, confirm
from tests.helpers.trust import PROGRAM, Ceremony, order_document

DEADLINE_S = 10.0


class Rig:
    """A journal, a store of artifacts, an intake, and a runner for one machine that does fdm."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder = folder
        self.journal = journal
        self.clock = SystemClock(Source.HOST)
        self.ceremony = Ceremony()
        self.authority = Authority(self.ceremony.root)
        self.artifacts = Artifacts.open(folder / "artifacts")
        self.intake = Intake(journal, self.artifacts, self.authority, frozenset({"fdm"}), self.clock)
        self.script = Script()
        machine = Machine(
            "prn-1", "fake", "auto", ("fdm",), Connection(), Limits(), {"material": "PLA", "nozzle_mm": 0.4}
        )
        self.equipment = Equipment(machine, FakePlugin(self.script))
        self.on_change: Callable[[], None] = lambda: None
        self.runner = Runner(
            self.equipment,
            journal,
            self.artifacts,
            self.authority,
            self.clock,
            folder,
            folder / "runtime",
            self._changed,
        )
        self._moved = asyncio.Event()
        self._sequence = 0

    def _changed(self) -> None:
        self._moved.set()
        self.on_change()

    # Orders

    def order(self, program: bytes = PROGRAM, /, **fields: Any) -> dict[str, Any]:
        """An order of today, as JSON data."""
        now = datetime.now(UTC).replace(microsecond=0)
        self._sequence += 1
        sha256 = hashlib.sha256(program).hexdigest()
        artifact = {"sha256": sha256, "size_bytes": len(program), "media_type": "text/x.gcode", "sources": []}
        defaults = {
            "job_id": new_job_id(now),
            "issued_at": time_text(now - timedelta(minutes=1)),
            "expires_at": time_text(now + timedelta(days=7)),
            "sequence": self._sequence,
            "artifacts": {"body.gcode": artifact},
        }
        return order_document(**(defaults | fields))

    def bundle(self, program: bytes = PROGRAM, /, *, files: bool = True, **fields: Any) -> Path:
        """A signed order with its program."""
        raw = self.ceremony.sign(json.dumps(self.order(program, **fields)).encode())
        path = self.folder / f"order-{self._sequence}.mfjob"
        source = self.folder / "source.gcode"
        source.write_bytes(program)
        write_bundle(path, raw, {hashlib.sha256(program).hexdigest(): source} if files else {})
        return path

    async def submit(self, program: bytes = PROGRAM, /, **fields: Any) -> Receipt:
        return await self.intake.bundle(self.bundle(program, **fields), "user:ada")

    async def assignment(self, program: bytes = PROGRAM, **fields: Any) -> Assignment:
        """Submit a job; what the dispatcher would offer of it."""
        receipt = await self.submit(program, **fields)
        order = receipt.verdict.order
        assert receipt.verdict.accepted
        assert order is not None
        (row,) = [row for row in self.ask(lambda snapshot: snapshot.startable()) if row["job_id"] == order.job_id]
        return Assignment(StepKey(order.job_id, 1, "print"), 1, row["revision"], order, row["envelope"])

    def program_of(self, assignment: Assignment) -> Program:
        """What the assignment is to carry out."""
        return work_of(assignment.order, assignment.key.step, self.artifacts)[1]

    # The runner

    async def offer(self, assignment: Assignment) -> None:
        """Give the machine a step, as soon as it takes one."""
        await self.until(lambda: self.runner.offer(assignment))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds, looking whenever the runner or the journal says that something has changed."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._moved.clear()
                waiting = [
                    asyncio.create_task(self._moved.wait()),
                    asyncio.create_task(self.journal.wait_beyond(self.journal.last_seq)),
                    asyncio.create_task(asyncio.sleep(0.05)),  # what nobody announces
                ]
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in waiting:
                    task.cancel()
                await asyncio.wait(waiting)

    async def ended(self, run: int = 1) -> dict[str, Any]:
        """The body of the so-many-th ``run_ended``."""
        await self.until(lambda: len(self.events("run_ended")) >= run)
        body: dict[str, Any] = self.events("run_ended")[run - 1]["body"]
        return body

    async def carry_out(self, **fields: Any) -> dict[str, Any]:
        """One job from its order to the end of its run: the body of its ``run_ended``."""
        before = len(self.events("run_ended"))
        await self.offer(await self.assignment(**fields))
        return await self.ended(before + 1)

    # What is written down

    def ask(self, question: Callable[[views.Snapshot], Any]) -> Any:
        with views.open_readonly(self.folder) as snapshot:
            return question(snapshot)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.ask(lambda snapshot: snapshot.events()) if event["kind"] == kind]

    def step(self, job_id: str) -> dict[str, Any]:
        (step,) = self.ask(lambda snapshot: snapshot.job(job_id))["steps"]
        return dict(step)


@contextlib.asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    """Everything but a machine at work."""
    clock = SystemClock(Source.HOST)
    async with Journal.open(folder / FILE_NAME, "berlin-1", clock.stamp) as journal:
        yield Rig(folder, journal)


@contextlib.asynccontextmanager
async def working_rig(folder: Path) -> AsyncIterator[Rig]:
    """With the machine at work; closed at the end."""
    async with rig(folder) as made:
        serving = asyncio.create_task(made.runner.serve(), name="runner")
        try:
            yield made
        finally:
            made.runner.close()
            async with asyncio.timeout(DEADLINE_S):
                await serving


@contextlib.asynccontextmanager
async def steered_rig(folder: Path, steps: list[dict[str, Any]] | None = None) -> AsyncIterator[SteeredRig]:
    """A job whose run has begun and goes on until it is stopped, on a machine that can be paused."""
    async with working_rig(folder) as made:
        site = SteeredRig(made)
        begun = made.script.work_until_stopped()
        made.script.pause = confirm
        assignment = await made.assignment(**({"steps": steps} if steps else {}))
        site.job_id = assignment.key.job_id
        passing = asyncio.create_task(site.pass_on(), name="requests")
        try:
            await made.offer(assignment)
            await begun.wait()
            yield site
        finally:
            passing.cancel()
            await asyncio.wait([passing])


class SteeredRig:
    """A rig whose job is held, released and cancelled as over the socket, as user ada."""

    job_id: str

    def __init__(self, site: Rig) -> None:
        self.site = site
        self.script = site.script
        self.steering = Steering(site.journal, {"prn-1": site.runner}, self._look)

    async def _look(self, job_id: str) -> dict[str, Any]:
        found = self.site.ask(lambda snapshot: snapshot.job(job_id))
        assert found is not None
        return dict(found)

    async def pass_on(self) -> None:
        """What the dispatcher does with requests, after every event."""
        site, seen = self.site, -1
        while True:
            seen = site.journal.last_seq
            for run_id, _, requested in site.ask(lambda snapshot: snapshot.requests()):
                (site.runner.stop if requested.ends_the_run else site.runner.look)(run_id)
            await site.journal.wait_beyond(seen)

    async def hold(self, wait_s: float = DEADLINE_S) -> dict[str, Any]:
        """The step, after the machine has answered."""
        await self.steering.hold(self.job_id, "user:ada", "the spool looks wrong", wait_s)
        return self.site.step(self.job_id)

    async def release(self, wait_s: float = DEADLINE_S) -> dict[str, Any]:
        """The step, after the machine has answered."""
        await self.steering.release(self.job_id, "user:ada", "", wait_s)
        return self.site.step(self.job_id)

    async def cancel(self) -> dict[str, Any]:
        """The step, once the run has ended."""
        await self.steering.cancel(self.job_id, "user:ada", "")
        await self.site.ended()
        return self.site.step(self.job_id)

    async def until_step(self, **fields: Any) -> None:
        """Wait until the step has these values."""
        await self.site.until(lambda: fields.items() <= self.site.step(self.job_id).items())

    def kinds(self) -> list[str]:
        """What was recorded of the job since its run began."""
        found = [e["kind"] for e in self.site.ask(lambda snapshot: snapshot.events(job_id=self.job_id))]
        return found[found.index("run_began") + 1 :]
