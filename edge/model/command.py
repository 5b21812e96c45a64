"""A command: what an operator at the centre asks of one job or one machine. The payload of an envelope.

Rules, beyond the shape of each field:

    1. `issued_at` < `expires_at`, and at most ten minutes lie between them.
    2. `clear` names a machine and the run that left its part there. Every other verb names a job.
    3. `hold`, `release`, `retry` and `scrap` are bound to a run or to a revision of the job, so that a command that
       waited somewhere never hits the next part. `cancel` and `decline` mean the whole job, and may be bound as well.
"""

from __future__ import annotations

import enum
import json
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, model_validator

from edge.model.fields import (
    KeyName,
    SiteId,
    StrictModel,
    Text,
    Ulid,
    UtcTime,
    broken_rule,
    matching,
)
from edge.model.order import MAX_SEQUENCE

MAX_COMMAND_BYTES = 4096
LONGEST_VALIDITY = timedelta(minutes=10)


class Verb(enum.StrEnum):
    """What is asked."""

    CANCEL = "cancel"
    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    SCRAP = "scrap"
    DECLINE = "decline"
    CLEAR = "clear"


BOUND = frozenset({Verb.HOLD, Verb.RELEASE, Verb.RETRY, Verb.SCRAP})
"""Verbs that are about one run, or about the job as it was at one revision."""


class Command(StrictModel):
    """Every field of the signed document; `parse_command` makes it from bytes."""

    command_id: Ulid
    site: SiteId
    issuer: KeyName
    issued_at: UtcTime
    expires_at: UtcTime
    verb: Annotated[Verb, Field(strict=False)]
    job_id: Ulid | None = None
    machine: SiteId | None = None
    run_id: Annotated[str, matching(r"[0-9a-f]{32}", "32 lower-case hexadecimal digits")] | None = None
    if_revision: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)] | None = None
    reason: Text = ""

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.expires_at <= self.issued_at:
            raise broken_rule("expires_at is not after issued_at, must be later")
        if self.expires_at - self.issued_at > LONGEST_VALIDITY:
            raise broken_rule("expires_at is more than ten minutes after issued_at, must be ten minutes or less")
        wanted, other = ("machine", "job_id") if self.verb is Verb.CLEAR else ("job_id", "machine")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise broken_rule(f"'{self.verb}' must name a {wanted} and no {other}")
        if self.verb is Verb.CLEAR and (self.run_id is None or self.if_revision is not None):
            raise broken_rule("'clear' must name the run_id that left its part on the machine, and no if_revision")
        if self.verb in BOUND and self.run_id is None and self.if_revision is None:
            raise broken_rule(f"'{self.verb}' must name a run_id or an if_revision that it is bound to")
        return self


def parse_command(payload: bytes) -> Command:
    """The command that `payload` is.

    Raises:
        FormatError: anything else; names the field, the value and what would be right.
    """
    return Command.read(payload, what="the command", max_bytes=MAX_COMMAND_BYTES)


def command_bytes(command: Command) -> bytes:
    """The bytes to sign for `command`."""
    return json.dumps(command.model_dump(mode="json"), ensure_ascii=False, indent=1).encode()
