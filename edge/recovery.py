"""Runs that the last daemon left open, and what may become of them.

Nothing is decided here about hardware: the driver asks the machine (`Driver.recover`), and the order's `on_restart`
says what is to follow from the answer. What cannot be asked in time is UNKNOWN, and held for a person.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from edge.artifacts import Artifacts
from edge.driver import Program, Run, Step
from edge.errors import EdgeError
from edge.jobstate import Requested
from edge.journal import Journal, OpenRun, Transaction
from edge.model.order import OnRestart, parse_order

log = logging.getLogger("edge.recovery")

REASON = "the daemon ended while the run was going on"


@dataclass(frozen=True, slots=True)
class LeftRun:
    """A run that has begun and has no end. `stop_requested`: somebody had asked for its end before the daemon died."""

    run: Run
    program: Program
    machine: str
    on_restart: OnRestart
    stop_requested: bool


async def left_runs(journal: Journal, artifacts: Artifacts, machines: Collection[str]) -> dict[str, LeftRun]:
    """By machine, what may be recovered: runs of machines that are still configured and whose order can be read."""
    found: dict[str, LeftRun] = {}
    for left in await journal.open_runs():
        if left.machine in machines and left.machine not in found:
            try:
                found[left.machine] = await _left_run(journal, artifacts, left)
            except (EdgeError, KeyError) as error:
                log.error("run %s cannot be recovered, its order cannot be read: %s", left.run_id, error)
    return found


async def _left_run(journal: Journal, artifacts: Artifacts, left: OpenRun) -> LeftRun:
    def read(transaction: Transaction) -> tuple[bytes, str]:
        (requested,) = transaction.connection.execute(
            "SELECT requested FROM steps WHERE (job_id, part, step) = (?, ?, ?)", (left.job_id, left.part, left.step)
        ).fetchone()
        return transaction.payload_of(left.job_id), requested

    payload, requested = await journal.transact(read)
    order = parse_order(payload)
    step = {step.id: step for step in order.steps}[left.step]
    name = step.program or ""
    artifact = order.artifacts[name]
    run = Run(
        left.run_id,
        left.job_id,
        left.part,
        Step(step.id, step.process, dict(step.parameters)),
        left.attempt,
        await journal.checkpoint_of(left.run_id),
    )
    program = Program(name, artifacts.path(artifact.sha256), artifact.sha256, artifact.size_bytes)
    return LeftRun(run, program, left.machine, step.on_restart, Requested(requested) is not Requested.NONE)
