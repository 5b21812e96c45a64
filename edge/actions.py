"""What a signed command does: one function a verb, in the transaction that accepts the command.

An action records events, by the same table (`edge.jobstate`, `edge.projection`) that local requests go through. It
raises `JournalError` if the job or the machine is not in a state for it; then the command is refused, and nothing done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edge.journal import Transaction
from edge.model.command import Command, Verb
from edge.model.event import Draft, EventKind

Action = Callable[[Transaction, Command, str], None]
"""Called with the transaction, the command, and the actor that its events name."""


def cancel(transaction: Transaction, command: Command, actor: str) -> None:
    """As `edge job cancel`."""
    body = {"reason": command.reason} if command.reason else {}
    transaction.record(Draft(EventKind.CANCEL_REQUESTED, actor, body, job_id=command.job_id))


def clear(transaction: Transaction, command: Command, actor: str) -> None:
    """As `edge machine clear`."""
    body = {"run_id": command.run_id}
    transaction.record(Draft(EventKind.MACHINE_CLEARED, actor, body, machine=command.machine))


def decline(transaction: Transaction, command: Command, actor: str) -> None:
    """As `edge job decline`."""
    body = {"reason": command.reason} if command.reason else {}
    transaction.record(Draft(EventKind.JOB_DECLINED, actor, body, job_id=command.job_id))


ACTIONS: Mapping[Verb, Action] = {Verb.CANCEL: cancel, Verb.CLEAR: clear, Verb.DECLINE: decline}
"""A verb that is missing here is refused as `unsupported`."""
