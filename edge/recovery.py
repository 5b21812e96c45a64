"""Runs that the last daemon left open, and what may become of them.

Nothing is decided here about hardware: the driver asks the machine (`Driver.recover`), and the order's `on_restart`
says what is to follow from the answer. What cannot be asked in time is UNKNOWN, and held for a person.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from edge.artifacts import Artifacts
from edge.authority import Authority
from edge.driver import Program, Run
from edge.jobstate import Requested
from edge.journal import Journal, OpenRun, Transaction
from edge.logs import log_bug
from edge.make_safe import made_safe
from edge.model.event import Draft
from edge.model.order import OnRestart, parse_order
from edge.work import work_of

log = logging.getLogger("edge.recovery")

REASON = "the daemon ended while the run was going on"

STOP_REQUESTED = "a stop was requested"


@dataclass(frozen=True, slots=True)
class LeftRun:
    """A run that has begun and has no end.

    `stop_requested`: somebody had asked for its end before the daemon died. `refusal`: why the order is no longer what
    was signed, or by nobody who may; empty if it is. It does not depend on the time: a print may outlast a root.
    `made_safe`: who switched the machine off while no daemon ran; empty if nobody has.
    """

    run: Run
    program: Program
    machine: str
    on_restart: OnRestart
    stop_requested: bool
    refusal: str = ""
    made_safe: str = ""

    @property
    def forbids(self) -> str:
        """Why the run must not go on, even if the machine could; empty if it may."""
        if self.stop_requested:
            return STOP_REQUESTED
        if self.refusal:
            return f"the order does not count any more: {self.refusal}"
        if self.made_safe:
            return self.made_safe
        return "" if self.on_restart is OnRestart.RESUME else f"the order says: {self.on_restart} after a restart"

    def unless_asked_to_end(self, resumed: Draft) -> Callable[[Transaction], bool]:
        """For `Journal.transact`: record that the run goes on, unless its end was asked for; whether it was recorded.

        In one transaction: a request that comes later finds the run going on.
        """

        def write(transaction: Transaction) -> bool:
            run = self.run
            if transaction.requested_of(run.job_id, run.part, run.step.id) is not Requested.NONE:
                return False
            transaction.record(resumed)
            return True

        return write


async def left_runs(
    journal: Journal, artifacts: Artifacts, authority: Authority, machines: Collection[str]
) -> dict[str, LeftRun]:
    """By machine, what may be recovered: runs of machines that are still configured and whose order can be read."""
    found: dict[str, LeftRun] = {}
    for left in await journal.open_runs():
        if left.machine in machines and left.machine not in found:
            try:
                found[left.machine] = await _left_run(journal, artifacts, authority, left)
            except Exception as error:  # noqa: BLE001 - a journal that is damaged must not keep the others from working
                log.error("run %s cannot be recovered, its order cannot be read (%s)", left.run_id, log_bug(log, error))
    return found


async def _left_run(journal: Journal, artifacts: Artifacts, authority: Authority, left: OpenRun) -> LeftRun:
    def read(transaction: Transaction) -> tuple[bytes, bytes, Requested, str]:
        requested = transaction.requested_of(left.job_id, left.part, left.step)
        safe = made_safe(transaction, left.machine, left.run_id)
        return transaction.payload_of(left.job_id), transaction.envelope_of(left.job_id), requested, safe

    payload, envelope, requested, safe = await journal.transact(read)
    order = parse_order(payload)
    step, program = work_of(order, left.step, artifacts)
    checkpoint = await journal.checkpoint_of(left.run_id)
    run = Run(left.run_id, left.job_id, left.part, step, left.attempt, checkpoint)
    (on_restart,) = [ordered.on_restart for ordered in order.steps if ordered.id == left.step]
    asked = requested is not Requested.NONE
    return LeftRun(run, program, left.machine, on_restart, asked, authority.refusal(envelope, order), safe)
