"""What a signed command does: one function a verb, in the transaction that accepts the command.

An action records events, by the same table (`edge.jobstate`, `edge.journal.projection`) that local requests go through.
It raises `JournalError` if the job or the machine is not in a state for it; then the command is refused, and nothing
done.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from edge.errors import IllegalTransitionError
from edge.intake import decisions
from edge.jobstate import Resolution
from edge.journal.rows import Row
from edge.journal.transaction import Transaction
from edge.model.command import Command, Verb
from edge.model.event import Draft, EventKind
from edge.reading.views import Snapshot

Action = Callable[[Transaction, Command, str], None]
"""Called with the transaction, the command, and the actor that its events name."""


def cancel(transaction: Transaction, command: Command, actor: str) -> None:
    """As `edge job cancel`."""
    body = {"reason": command.reason} if command.reason else {}
    transaction.record(Draft(EventKind.CANCEL_REQUESTED, actor, body, job_id=command.job_id))


def clear(transaction: Transaction, command: Command, actor: str, is_working: Callable[[str], bool]) -> None:
    """As `edge machine clear`. `is_working` is asked in the journal's thread."""
    if is_working(str(command.machine)):
        raise IllegalTransitionError(f"{command.machine} is working; clear it when it stands still")
    body = {"run_id": command.run_id}
    transaction.record(Draft(EventKind.MACHINE_CLEARED, actor, body, machine=command.machine))


def decline(transaction: Transaction, command: Command, actor: str) -> None:
    """As `edge job decline`."""
    body = {"reason": command.reason} if command.reason else {}
    transaction.record(Draft(EventKind.JOB_DECLINED, actor, body, job_id=command.job_id))


def hold(transaction: Transaction, command: Command, actor: str, can_pause: Callable[[str], bool]) -> None:
    """As `edge job hold`; nobody waits for the machines' answers. `can_pause` is asked in the journal's thread."""
    _record(transaction, decisions.hold(_job(transaction, command), actor, command.reason, can_pause))


def release(transaction: Transaction, command: Command, actor: str) -> None:
    """As `edge job release`."""
    _record(transaction, decisions.release(_job(transaction, command), actor, command.reason))


def resolve(transaction: Transaction, command: Command, actor: str, resolution: Resolution) -> None:
    """As `edge job retry` and `edge job scrap`: of the run that the command names, or of the only one in doubt."""
    found = _job(transaction, command)
    _record(transaction, decisions.resolve(found, resolution, actor, command.reason, run_id=command.run_id))


def _job(transaction: Transaction, command: Command) -> Row:
    found = Snapshot(transaction.connection).job(str(command.job_id))
    if found is None:
        raise IllegalTransitionError(f"there is no job {command.job_id} here")
    return found


def _record(transaction: Transaction, drafts: list[Draft]) -> None:
    for draft in drafts:
        transaction.record(draft)


def actions(can_pause: Callable[[str], bool], is_working: Callable[[str], bool]) -> Mapping[Verb, Action]:
    """What each verb does; `can_pause` says whether a run on a machine can be paused, `is_working` whether it moves.

    A verb that is missing here is refused as `unsupported`.
    """
    return {
        Verb.CANCEL: cancel,
        Verb.CLEAR: functools.partial(clear, is_working=is_working),
        Verb.DECLINE: decline,
        Verb.HOLD: functools.partial(hold, can_pause=can_pause),
        Verb.RELEASE: release,
        Verb.RETRY: functools.partial(resolve, resolution=Resolution.RETRY),
        Verb.SCRAP: functools.partial(resolve, resolution=Resolution.SCRAPPED),
    }
