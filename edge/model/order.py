"""The job order: what an issuer asks a site for. The payload of an envelope.

Rules, beyond the shape of each field:

    1. Times are UTC. `issued_at` < `expires_at`; `not_before` < `expires_at`. `expires_at` is the latest first motion.
    2. Step ids are unique; `after` and `tends` name other steps of the order; following `after` never returns.
    3. A step has a `program`, the name of an artifact. Only one that tends other steps may do without: the site knows
       which robot program moves a part from one machine to the other.
    4. Retrying needs attempts: `retry` and `retry_before_motion` ask for `max_attempts` of 2 or more. `hold` and
       `abort` may have several too, for a local operator to use.
    5. Two artifacts with one hash are one content, so they have one size.
    6. Units are in the names of properties. `requires` is matched by `unmet`.

Unknown fields are refused: a site must not carry out half of what an issuer meant.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from edge.model.fields import (
    FileName,
    KeyName,
    Process,
    PropertyName,
    Sha256,
    SiteId,
    StepId,
    StrictModel,
    Text,
    Ulid,
    UtcTime,
    broken_rule,
    matching,
    wrong_shape,
)
from edge.model.machine import Value as Scalar
from edge.model.machine import in_words, same

MAX_ORDER_BYTES = 192 * 1024  # what base64 makes 256 KiB of
MAX_ARTIFACTS = 256
MAX_STEPS = 256
MAX_ARTIFACT_BYTES = 2**34
MAX_SEQUENCE = 2**53 - 1  # the largest integer that every JSON reader keeps exact


class OnRestart(enum.StrEnum):
    """What becomes of a running step when the site comes up again."""

    RESUME = "resume"  # only if the machine proves where it is, else hold
    HOLD = "hold"
    ABORT = "abort"


class OnFailure(enum.StrEnum):
    """What becomes of a step whose run failed."""

    HOLD = "hold"
    ABORT = "abort"
    RETRY_BEFORE_MOTION = "retry_before_motion"  # a new attempt only if nothing can have moved
    RETRY = "retry"  # on the same or another machine


class Range(StrictModel):
    """A number from `min` to `max`, both included; one of them may be open."""

    min: int | float | None = None
    max: int | float | None = None


class AnyOf(StrictModel):
    """One of these values."""

    any: tuple[Scalar, ...]


Requirement = Scalar | Range | AnyOf

_REQUIREMENT = 'a value, {"min": …, "max": …} or {"any": […]}'
_MAX_CHOICES = 64
_MAX_VALUE_CHARACTERS = 200


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scalar(value: object) -> Scalar:
    if isinstance(value, str) and (len(value) > _MAX_VALUE_CHARACTERS or not value.isprintable()):
        raise wrong_shape(f"at most {_MAX_VALUE_CHARACTERS} printable characters")
    if not isinstance(value, str | bool | int | float):
        raise wrong_shape("text, a number, true or false")
    return value


def _requirement(value: object) -> Requirement:
    if isinstance(value, Range | AnyOf):
        return value
    if not isinstance(value, dict):
        return _scalar(value)
    if value.keys() == {"any"}:
        choices = value["any"]
        if not isinstance(choices, list) or not 1 <= len(choices) <= _MAX_CHOICES:
            raise wrong_shape(f"a list of 1 to {_MAX_CHOICES} values under 'any'")
        return AnyOf(any=tuple(_scalar(choice) for choice in choices))
    if not value or not value.keys() <= {"min", "max"}:
        raise wrong_shape(_REQUIREMENT)
    low, high = value.get("min"), value.get("max")
    if not all(_is_number(end) for end in value.values()):
        raise wrong_shape("numbers under 'min' and 'max'")
    if low is not None and high is not None and low > high:
        raise wrong_shape("a range whose 'min' is not above its 'max'")
    return Range(min=low, max=high)


def _requirement_json(value: Requirement) -> object:
    match value:
        case Range(min=low, max=high):
            return {name: end for name, end in (("min", low), ("max", high)) if end is not None}
        case AnyOf(any=choices):
            return {"any": list(choices)}
        case _:
            return value


class Artifact(StrictModel):
    """A file, named by what is in it. `sources` are places to fetch it from; a bundle needs none."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0, le=MAX_ARTIFACT_BYTES)]
    media_type: Annotated[str, matching(r"[a-z]+/[A-Za-z0-9.+-]{1,64}", "a media type such as 'text/x.gcode'")]
    sources: Annotated[
        tuple[
            Annotated[str, matching(r"https://[!-~]{1,2000}", "an https:// address of at most 2,000 characters")], ...
        ],
        Field(strict=False, max_length=8),
    ] = ()


class Tends(StrictModel):
    """A robot's step: it takes the part of step `from` and gives it to step `to`."""

    from_step: StepId = Field(alias="from")
    to_step: StepId = Field(alias="to")


_RequirementField = Annotated[Requirement, PlainValidator(_requirement), PlainSerializer(_requirement_json)]
_Names = Annotated[tuple[StepId, ...], Field(strict=False, max_length=MAX_STEPS)]


class Step(StrictModel):
    """One piece of work for one machine.

    `quality` names the checks to record for each part, `holds` the points to wait at for a person. `max_duration_s`
    raises attention when passed and stops nothing; without it the site takes it from its prediction.
    """

    id: StepId
    process: Process
    program: FileName | None = None
    after: _Names = ()
    requires: Annotated[dict[PropertyName, _RequirementField], Field(max_length=64)] = Field(default_factory=dict)
    parameters: Annotated[dict[PropertyName, Annotated[Scalar, PlainValidator(_scalar)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    quality: _Names = ()
    holds: _Names = ()
    on_restart: Annotated[OnRestart, Field(strict=False)] = OnRestart.HOLD
    on_failure: Annotated[OnFailure, Field(strict=False)] = OnFailure.HOLD
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 1
    max_duration_s: Annotated[int | float, Field(gt=0, le=30 * 86_400)] | None = None
    tends: Tends | None = None

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.program is None and self.tends is None:
            raise broken_rule(f"step '{self.id}' has no program, must name an artifact unless it tends other steps")
        if self.on_failure in (OnFailure.RETRY, OnFailure.RETRY_BEFORE_MOTION) and self.max_attempts < 2:
            raise broken_rule(
                f"step '{self.id}' has on_failure '{self.on_failure}' and max_attempts {self.max_attempts}, "
                "must allow 2 attempts or more to retry"
            )
        return self


class JobOrder(StrictModel):
    """What an issuer asks one site for. Every field of the signed document; `parse_order` makes it from bytes."""

    job_id: Ulid
    site: SiteId
    issuer: KeyName
    issued_at: UtcTime
    not_before: UtcTime | None = None
    expires_at: UtcTime
    series: Annotated[str, matching(r"[0-9a-f]{8,64}", "8 to 64 lower-case hexadecimal digits")]
    sequence: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
    root_version_min: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)] = 1
    reference: Text = ""
    product: Text
    quantity: Annotated[int, Field(ge=1, le=10_000)] = 1
    priority: Annotated[int, Field(ge=0, le=100)] = 50
    due_at: UtcTime | None = None
    artifacts: Annotated[dict[FileName, Artifact], Field(max_length=MAX_ARTIFACTS)]
    steps: Annotated[tuple[Step, ...], Field(strict=False, min_length=1, max_length=MAX_STEPS)]

    def step(self, step_id: str) -> Step:
        """The step of this name. Raises `KeyError` if there is none."""
        return {step.id: step for step in self.steps}[step_id]

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.expires_at <= self.issued_at:
            raise broken_rule("expires_at is not after issued_at, must be later")
        if self.not_before is not None and self.not_before >= self.expires_at:
            raise broken_rule("not_before is not before expires_at, must be earlier")
        if len({(artifact.sha256, artifact.size_bytes) for artifact in self.artifacts.values()}) > len(self._sizes):
            raise broken_rule("two artifacts have the same sha256 and different size_bytes, must have the same")
        steps = {step.id: step for step in self.steps}
        if len(steps) < len(self.steps):
            raise broken_rule("two steps have the same id, must differ")
        for step in self.steps:
            self._check_references(step, steps)
        circle = _in_a_circle(steps)
        if circle:
            raise broken_rule(f"steps {', '.join(circle)} wait for each other, 'after' must not lead back")
        return self

    def _check_references(self, step: Step, steps: Mapping[str, Step]) -> None:
        if step.program is not None and step.program not in self.artifacts:
            raise broken_rule(f"step '{step.id}' has program '{step.program}', must be the name of an artifact")
        if len(set(step.after)) < len(step.after):
            raise broken_rule(f"step '{step.id}' names a step twice in 'after', must name it once")
        tended = (step.tends.from_step, step.tends.to_step) if step.tends else ()
        for field, names in (("after", step.after), ("tends", tended)):
            for name in names:
                if name not in steps or name == step.id:
                    raise broken_rule(f"step '{step.id}' has '{name}' in '{field}', must be another step of this order")
        if step.tends is not None and step.tends.from_step == step.tends.to_step:
            raise broken_rule(f"step '{step.id}' tends from and to '{step.tends.to_step}', must be two steps")

    @property
    def processes(self) -> frozenset[str]:
        """Every process that a step of this order needs."""
        return frozenset(step.process for step in self.steps)

    @property
    def total_bytes(self) -> int:
        """The size of all artifacts together, each content counted once."""
        return sum(self._sizes.values())

    @property
    def _sizes(self) -> dict[str, int]:
        return {artifact.sha256: artifact.size_bytes for artifact in self.artifacts.values()}


def _in_a_circle(steps: Mapping[str, Step]) -> list[str]:
    """The steps that can never start because they wait, at last, for themselves."""
    waiting = {name: set(step.after) for name, step in steps.items()}
    while free := [name for name, after in waiting.items() if not after]:
        for name in free:
            del waiting[name]
        for after in waiting.values():
            after.difference_update(free)
    return list(waiting)[:8]


def parse_order(payload: bytes) -> JobOrder:
    """The order that `payload` is.

    Raises:
        FormatError: anything else; names the field, the value and what would be right.
    """
    return JobOrder.read(payload, what="the order", max_bytes=MAX_ORDER_BYTES)


def order_bytes(order: JobOrder) -> bytes:
    """The bytes to sign for `order`; `parse_order` gives back an equal one."""
    return json.dumps(order.model_dump(mode="json", by_alias=True), ensure_ascii=False, indent=1).encode()


def lacking(requires: Mapping[str, Requirement], properties: Mapping[str, Scalar]) -> list[str]:
    """The names of what a machine with `properties` does not meet of `requires`, in their order."""
    return [name for name, wanted in requires.items() if name not in properties or not _meets(properties[name], wanted)]


def unmet(
    requires: Mapping[str, Requirement], properties: Mapping[str, Scalar], origins: Mapping[str, str] | None = None
) -> str | None:
    """Why a machine with `properties` does not do for `requires`, in words; None if it does.

    `origins` says where a property's value is from, as far as somebody wants to read that.
    """
    found = [_lack(name, requires[name], properties, origins or {}) for name in lacking(requires, properties)]
    return "; ".join(found) or None


def _lack(name: str, wanted: Requirement, properties: Mapping[str, Scalar], origins: Mapping[str, str]) -> str:
    if name not in properties:
        return f"{name} is not known, needs {_in_words(wanted)}"
    origin = f" ({origins[name]})" if name in origins else ""
    return f"{name} is {in_words(properties[name])}{origin}, needs {_in_words(wanted)}"


def _meets(value: Scalar, wanted: Requirement) -> bool:
    match wanted:
        case Range(min=low, max=high):
            if isinstance(value, str | bool):
                return False
            return (low is None or value >= low) and (high is None or value <= high)
        case AnyOf(any=choices):
            return any(same(value, choice) for choice in choices)
        case _:
            return same(value, wanted)


def _in_words(wanted: Requirement) -> str:
    match wanted:
        case Range(min=low, max=None):
            return f"at least {low}"
        case Range(min=None, max=high):
            return f"at most {high}"
        case Range(min=low, max=high):
            return f"{low} to {high}"
        case AnyOf(any=choices):
            return " or ".join(_in_words(choice) for choice in choices)
        case _:
            return in_words(wanted)
