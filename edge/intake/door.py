"""Trust roots and commands from the centre: judged and written down in one transaction each. Part of `edge.intake`.

A signed refusal is one event for each payload and reason. An envelope can be spelled in many ways by whoever has a copy
(blanks, the order of its signatures); such repetitions are counted, so that they cannot fill the journal either, and so
is what has been over for long (`edge.journal.forgetting`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from edge.errors import JournalError, UsageError
from edge.intake.actions import Action, actions
from edge.intake.authority import Authority, root_accepted
from edge.intake.nonce import Nonce
from edge.journal.transaction import Transaction
from edge.model.command import Command, Verb
from edge.model.event import Draft, EventKind, signed_body, stamp_text
from edge.model.order import parse_order
from edge.trust import (
    CommandReason,
    CommandSnapshot,
    CommandVerdict,
    JobStanding,
    Now,
    RootVerdict,
    TimeVerdict,
    Verdict,
    admit_command,
    judge_root,
    judge_time,
    parse,
    payload_digest,
)


def take_root(transaction: Transaction, raw: bytes, authority: Authority, actor: str, now: datetime) -> RootVerdict:
    """Judge a trust root, and make it the one in force if it follows."""
    verdict = judge_root(raw, authority.judged_by(transaction.root_in_force()))
    if verdict.repeated:
        return verdict
    if verdict.root is not None:
        authority.keep(verdict.root.version, raw)
        transaction.record(root_accepted(actor, raw, verdict.root.version, verdict.signers))
        return verdict
    told = write_refusal(transaction, EventKind.ROOT_REFUSED, verdict, raw, actor, now)
    return verdict if told or not verdict.signed else replace(verdict, repeated=True)


def write_refusal(
    transaction: Transaction,
    kind: EventKind,
    verdict: Verdict | RootVerdict | CommandVerdict | TimeVerdict,
    raw: bytes,
    actor: str,
    now: datetime,
    job_id: str | None = None,
    expires_at: datetime | None = None,
) -> bool:
    """Record a refusal, or only count it; whether it was recorded.

    Of an order that has waited to be judged, and so is known outside, it is recorded whoever signs for it by now.
    """
    reason = str(verdict.reason)
    waited = transaction.parked_as(verdict.digest)
    of_payload = payload_digest(raw) if verdict.signed or waited else ""
    is_news = verdict.signed and not transaction.was_refused(of_payload, reason) and not transaction.is_over(expires_at)
    if not waited and not is_news:
        transaction.count_refusal(reason, now.strftime("%Y-%m-%dT%H:%MZ"))
        return False
    body = {
        "digest": verdict.digest,
        "payload_digest": of_payload,
        "reason": reason,
        "detail": verdict.detail,
        "signers": list(verdict.signers),
        "expires_at": None if expires_at is None else stamp_text(expires_at),
    }
    transaction.record(Draft(kind, actor, body, job_id=job_id or waited))
    return True


def take_time(
    transaction: Transaction, raw: bytes, authority: Authority, waiting: Iterable[Nonce], actor: str, now: datetime
) -> TimeVerdict:
    """Judge a signed time, the answer to one of the nonces that are `waiting`, and write it down."""
    before = transaction.known_time()
    nonces = {nonce.value: nonce for nonce in waiting if not nonce.is_used(before)}
    verdict = judge_time(raw, authority.judged_by(transaction.root_in_force()).root, nonces.keys())
    if verdict.at is None:
        write_refusal(transaction, EventKind.TIME_REFUSED, verdict, raw, actor, now)
    else:
        nonce = nonces[verdict.nonce]
        body = {
            **signed_body(raw, verdict.signers),
            "at": stamp_text(verdict.at),
            "nonce_mono_ms": round(nonce.mono_s * 1000),
            "boot_id": nonce.boot_id,
            "repairs": verdict.repairs,
        }
        transaction.record(Draft(EventKind.TIME_ACCEPTED, actor, body))
        after = transaction.known_time()
        if after.signed == before.signed:
            more = f"; but {stamp_text(after.floor)} has passed here for sure, and only operators beside it lower that"
            verdict = replace(verdict, detail=verdict.detail + more)
    return verdict


class _Ledger:
    """What the journal remembers, as `trust.commands` asks for it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def verdict_of(self, digest: str) -> CommandVerdict | None:
        known = self._transaction.verdict_of(digest)
        if known is None:
            return None
        reason = None if known.accepted else CommandReason(known.reason)
        return CommandVerdict(known.accepted, reason, known.detail, digest, signed=True)

    def refusal_of(self, payload_digest: str) -> tuple[CommandReason, str] | None:
        found = self._transaction.refusal_of(payload_digest, (EventKind.COMMAND_REFUSED,))
        return None if found is None else (CommandReason(found[0]), found[1])

    def is_used(self, command_id: str) -> bool:
        return self._transaction.is_command_used(command_id)

    def job(self, job_id: str) -> JobStanding | None:
        revision = self._transaction.revision(job_id)
        if revision is None:
            return None
        if not self._transaction.is_job(job_id):
            return self._unjudged(job_id, revision)
        processes = parse_order(self._transaction.payload_of(job_id)).processes
        return JobStanding(revision, processes, self._transaction.runs_of(job_id), self._transaction.has_moved(job_id))

    def _unjudged(self, job_id: str, revision: int) -> JobStanding | None:
        found = self._transaction.unjudged(job_id)
        if found is None:
            return None
        envelope, waits = found
        processes = parse_order(parse(envelope).payload).processes
        return JobStanding(revision, processes, frozenset(), moved=False, parked=waits)

    def clearing(self, machine: str) -> str | None:
        return self._transaction.needs_clearing(machine)


@dataclass(frozen=True, slots=True)
class Remote:
    """What a site lets the centre do. `machines` are the processes of each; `actions` what each verb does."""

    machines: Mapping[str, frozenset[str]]
    allow_clear: bool = False
    allow_release: bool = False
    actions: Mapping[Verb, Action] = field(default_factory=lambda: actions(lambda machine: True, lambda machine: False))


def take_command(
    transaction: Transaction, raw: bytes, authority: Authority, remote: Remote, site: str, actor: str, now: Now
) -> CommandVerdict:
    """Judge a command and carry it out. Its events name the key that issued it; `actor` is who brought it."""
    snapshot = CommandSnapshot(
        site=site,
        root=authority.judged_by(transaction.root_in_force()).root,
        machines=remote.machines,
        ledger=_Ledger(transaction),
        allow_clear=remote.allow_clear,
        allow_release=remote.allow_release,
    )
    verdict = admit_command(raw, snapshot, now)
    if verdict.repeated:
        return verdict
    if verdict.accepted and verdict.command is not None:
        verdict = _carry_out(transaction, raw, verdict, verdict.command, remote.actions, actor)
    if not verdict.accepted:
        job_id, until = (None, None) if (read := verdict.command) is None else (read.job_id, read.expires_at)
        write_refusal(transaction, EventKind.COMMAND_REFUSED, verdict, raw, actor, now.wall, job_id, until)
    return verdict


def _carry_out(
    transaction: Transaction,
    raw: bytes,
    verdict: CommandVerdict,
    command: Command,
    actions: Mapping[Verb, Action],
    via: str,
) -> CommandVerdict:
    action = actions.get(command.verb)
    if action is None:
        detail = f"this version takes no {command.verb} from the centre"
        return replace(verdict, accepted=False, reason=CommandReason.UNSUPPORTED, detail=detail)
    body = {
        **signed_body(raw, verdict.signers),
        "command_id": command.command_id,
        "verb": str(command.verb),
        "detail": verdict.detail,
        "via": via,
    }
    actor = f"key:{command.issuer}"
    accepted = Draft(
        EventKind.COMMAND_ACCEPTED, actor, body, job_id=command.job_id, run_id=command.run_id, machine=command.machine
    )
    try:
        with transaction.all_or_nothing():
            transaction.record(accepted)
            action(transaction, command, actor)
    except (JournalError, UsageError) as error:
        return replace(verdict, accepted=False, reason=CommandReason.NOT_POSSIBLE, detail=str(error))
    return verdict
