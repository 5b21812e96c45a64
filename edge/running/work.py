"""What a driver is given of an order: the one place where a step of it becomes a `Step` and a `Program`."""

from __future__ import annotations

from edge.artifacts.artifacts import Artifacts
from edge.driver import Program, Step
from edge.errors import JournalError
from edge.model.order import JobOrder


def work_of(order: JobOrder, step_id: str, artifacts: Artifacts) -> tuple[Step, Program]:
    """The step and its program. Raises `JournalError` for a step that the order has not, or that has no program."""
    step = next((step for step in order.steps if step.id == step_id), None)
    if step is None or step.program is None:
        raise JournalError(f"the order has no program for step {step_id}")
    artifact = order.artifacts[step.program]
    program = Program(step.program, artifacts.path(artifact.sha256), artifact.sha256, artifact.size_bytes)
    return Step(step.id, step.process, dict(step.parameters)), program
