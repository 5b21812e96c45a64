"""Whether a site takes a command from the centre. Pure, as `edge.trust.admit` is for orders.

The checks, in this order; the first that fails gives the reason:

    1. size                                            too_large
    2. the envelope's form                             malformed
    3. its payload type                                bad_type
    4. the same bytes were judged before               that verdict again
    5. distinct operator keys that signed              revoked_key, threshold
    6. the command's form                              malformed
    7. the issuer signed; the signers' sites           threshold
    8. the same payload was refused before             that reason again
    9. the site                                        wrong_site
   10. the trust root has not expired                  stale_root
   11. the time                                        clock_untrusted, expired, not_yet_valid
   12. the command's id was used                       replayed
   13. the job or machine is here                      unknown
   14. the signers' processes                          threshold
   15. the run and the revision it is bound to         stale
   16. what this site takes from the centre            not_allowed

Rules:

    - A refusal that `signed` marks is final for its bytes, and binds no id. Unless it is for the signers, it is final
      however the envelope is spelled.
    - A command cannot wait: it is at most ten minutes old. With a clock that nobody vouches for, it is refused; except
      for a `cancel` or `decline` of an order that waits for that very clock. Nothing of it has begun, and it names no
      other: it cannot come too late.
    - Clearing a machine, and setting one in motion again that may have something on it, needs somebody who sees it.
      From the centre both are refused unless the site's configuration says otherwise.
    - Local people need none of this; they act under their Unix user.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from edge.errors import FormatError
from edge.model.command import Command, Verb, parse_command
from edge.timefloor import Now
from edge.trust.envelope import PayloadType
from edge.trust.opening import (
    RefusalError,
    check_not_ahead,
    check_not_over,
    check_root_date,
    check_site,
    enough_signers,
    names_of,
    opened,
)
from edge.trust.root import Role, RootKey, TrustRoot


class CommandReason(enum.StrEnum):
    """Why a command was refused. The last two are given when it is carried out."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    BAD_TYPE = "bad_type"
    THRESHOLD = "threshold"
    REVOKED_KEY = "revoked_key"
    WRONG_SITE = "wrong_site"
    STALE_ROOT = "stale_root"
    CLOCK_UNTRUSTED = "clock_untrusted"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    REPLAYED = "replayed"
    UNKNOWN = "unknown"
    STALE = "stale"
    NOT_ALLOWED = "not_allowed"
    UNSUPPORTED = "unsupported"  # this version has no action for the verb
    NOT_POSSIBLE = "not_possible"  # the job or machine is not in a state for it


@dataclass(frozen=True, slots=True)
class CommandVerdict:
    """What becomes of some bytes; the fields are those of `edge.trust.admit.Verdict`."""

    accepted: bool
    reason: CommandReason | None
    detail: str
    digest: str
    command: Command | None = None
    signers: tuple[str, ...] = ()
    signed: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class JobStanding:
    """What a site knows of a job.

    `runs` are the newest runs of its steps; `moved` says that something can have moved in any of its runs, also in an
    earlier attempt. `parked`: the order waits until somebody vouches for the clock, and is no job yet.
    """

    revision: int
    processes: frozenset[str]
    runs: frozenset[str]
    moved: bool
    parked: bool = False


class CommandLedger(Protocol):
    """What the site remembers; answers from committed state only."""

    def verdict_of(self, digest: str) -> CommandVerdict | None:
        """The verdict on the envelope with this digest, if it was a signed one."""
        ...

    def refusal_of(self, payload_digest: str) -> tuple[CommandReason, str] | None:
        """Reason and detail with which a command with this payload was refused, unless it was for its signers."""
        ...

    def is_used(self, command_id: str) -> bool:
        """Whether a command with this id was accepted."""
        ...

    def job(self, job_id: str) -> JobStanding | None:
        """How a job stands, or an order that waits to be judged."""
        ...

    def clearing(self, machine: str) -> str | None:
        """The run that left its part on the machine."""
        ...


@dataclass(frozen=True, slots=True)
class CommandSnapshot:
    """What a site knows when it judges. `machines` are the processes of each configured machine."""

    site: str
    root: TrustRoot
    machines: Mapping[str, frozenset[str]]
    ledger: CommandLedger
    allow_clear: bool = False
    allow_release: bool = False


@dataclass(slots=True)
class _Case:
    """What is known so far about the bytes under judgement."""

    digest: str
    command: Command | None = None
    signers: tuple[str, ...] = ()
    signed: bool = False


def admit_command(raw: bytes, snapshot: CommandSnapshot, now: Now) -> CommandVerdict:
    """The verdict on `raw`. Raises nothing, whatever the bytes are."""
    case = _Case(hashlib.sha256(raw).hexdigest())
    try:
        envelope = opened(raw, PayloadType.COMMAND)
        known = snapshot.ledger.verdict_of(case.digest)
        if known is not None:
            return replace(known, repeated=True)
        signers = enough_signers(envelope, snapshot.root, Role.OPERATOR)
        case.signed, case.signers = True, names_of(signers)
        case.command = command = _command(envelope.payload)
        _check_signers(command, signers, snapshot.root)
        if refusal := snapshot.ledger.refusal_of(hashlib.sha256(envelope.payload).hexdigest()):
            raise RefusalError(*refusal)
        _check_addressee(command, snapshot, now)
        _check_time(command, snapshot.ledger, now)
        if snapshot.ledger.is_used(command.command_id):
            raise RefusalError(CommandReason.REPLAYED, f"command {command.command_id} was taken before")
        _check_standing(command, signers, snapshot)
    except RefusalError as refusal:
        return CommandVerdict(
            False, CommandReason(refusal.reason), refusal.detail, case.digest, case.command, case.signers, case.signed
        )
    what = command.job_id or command.machine
    return CommandVerdict(
        True, None, f"{command.verb} {what} is accepted", case.digest, command, case.signers, signed=True
    )


def _command(payload: bytes) -> Command:
    try:
        return parse_command(payload)
    except FormatError as error:
        raise RefusalError(CommandReason.MALFORMED, str(error)) from error


def _check_signers(command: Command, signers: frozenset[RootKey], root: TrustRoot) -> None:
    names = names_of(signers)
    if command.issuer not in names:
        raise RefusalError(
            CommandReason.THRESHOLD, f"the command is issued by {command.issuer}, but signed by {', '.join(names)}"
        )
    _check_limits(command, frozenset(), signers, root)


def _check_limits(command: Command, processes: frozenset[str], signers: frozenset[RootKey], root: TrustRoot) -> None:
    allowed = sum(key.may_act(command.site, processes) for key in signers)
    threshold = root.roles[Role.OPERATOR].threshold
    if allowed < threshold:
        what = f" for {', '.join(sorted(processes))}" if processes else ""
        raise RefusalError(
            CommandReason.THRESHOLD,
            f"{allowed} of the keys that signed may command {command.site}{what}, needs {threshold}",
        )


def _check_addressee(command: Command, snapshot: CommandSnapshot, now: Now) -> None:
    check_site("the command", command.site, snapshot.site)
    check_root_date(snapshot.root, now)


def _check_time(command: Command, ledger: CommandLedger, now: Now) -> None:
    check_not_over("the command", command.expires_at, now)
    if not now.trusted:
        if command.verb in (Verb.CANCEL, Verb.DECLINE) and _is_parked(command, ledger):
            return
        raise RefusalError(
            CommandReason.CLOCK_UNTRUSTED, "nobody has vouched for this site's clock, and a command is short-lived"
        )
    check_not_ahead("the command", command.issued_at, now)


def _is_parked(command: Command, ledger: CommandLedger) -> bool:
    job = ledger.job(str(command.job_id))
    return job is not None and job.parked


def _check_standing(command: Command, signers: frozenset[RootKey], snapshot: CommandSnapshot) -> None:
    if command.machine is not None:
        _check_machine(command, command.machine, signers, snapshot)
        return
    job = snapshot.ledger.job(str(command.job_id))
    if job is None:
        raise RefusalError(CommandReason.UNKNOWN, f"there is no job {command.job_id} here")
    _check_limits(command, job.processes, signers, snapshot.root)
    if command.run_id is not None and command.run_id not in job.runs:
        raise RefusalError(CommandReason.STALE, f"job {command.job_id} is no longer at run {command.run_id}")
    if command.if_revision is not None and command.if_revision != job.revision:
        raise RefusalError(
            CommandReason.STALE, f"job {command.job_id} is at revision {job.revision}, not {command.if_revision}"
        )
    if command.verb in (Verb.RELEASE, Verb.RETRY) and job.moved and not snapshot.allow_release:
        raise RefusalError(
            CommandReason.NOT_ALLOWED,
            f"{command.verb} after motion is for somebody at the machine; this site takes it from nobody else",
        )


def _check_machine(command: Command, machine: str, signers: frozenset[RootKey], snapshot: CommandSnapshot) -> None:
    if machine not in snapshot.machines:
        raise RefusalError(CommandReason.UNKNOWN, f"there is no machine {machine} here")
    _check_limits(command, snapshot.machines[machine], signers, snapshot.root)
    if snapshot.ledger.clearing(machine) != command.run_id:
        raise RefusalError(CommandReason.STALE, f"{machine} does not need clearing by run {command.run_id}")
    if not snapshot.allow_clear:
        raise RefusalError(
            CommandReason.NOT_ALLOWED, "clear is for somebody at the machine; this site takes it from nobody else"
        )
