"""The trust root: which keys a site believes, for what, and how many of them it takes.

The payload of an envelope of type `root`, a JSON object:

    version     integer from 1; a successor has exactly the next one
    name        whose root it is ("ACME")
    issued_at   RFC 3339 UTC with Z
    expires_at  the same, or null: after this time a site takes no new orders under this root
    keys        {keyid: {name, algorithm, public, processes, sites}}
                  keyid      SHA-256 of the 32 public bytes, lower-case hexadecimal
                  name       whose key it is; binds an order's `issuer`. Two keys may share a name, as old and new
                  algorithm  "ed25519"
                  public     the 32 bytes, lower-case hexadecimal
                  processes  null, or the only processes whose orders and commands this key may sign
                  sites      null, or the only sites whose orders and commands this key may sign
    roles       {role: {threshold, keyids}}, role one of root, issuer, operator, time, collector;
                  `root` must be there, nobody holds a role that is not
    revoked     {keyid: {compromise, reason}}: signatures by these keys count no more

Rules:

    1. A key id is the hash of its key: it is computed and compared, never believed.
    2. No public key stands twice, none is of small order (`edge.trust.ed25519`).
    3. A role names keys of this root, each once, at least as many as its threshold. The keys of the root role that
       are not revoked still reach its threshold: otherwise nothing could ever replace this root. Revoking all keys of
       another role is legal; it is how an issuer is stopped.
    4. A signature counts if its key id is a key of the role and it verifies with that key. Distinct public keys are
       counted, not signatures and not key ids.
    5. A root is signed by the threshold of its own root role; a successor also by that of the root it follows.
"""

from __future__ import annotations

import enum
import json
from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from edge.errors import EnvelopeError, FormatError, RootError
from edge.model.fields import (
    KeyName,
    Process,
    Sha256,
    SiteId,
    StrictModel,
    Text,
    UtcTime,
    broken_rule,
    matching,
)
from edge.model.order import MAX_SEQUENCE, JobOrder
from edge.trust.ed25519 import keyid_of, verifies, weakness
from edge.trust.envelope import MAX_ENVELOPE_BYTES, Envelope, PayloadType, parse

_MAX_KEYS = 256


class Role(enum.StrEnum):
    """What a key may sign."""

    ROOT = "root"
    ISSUER = "issuer"
    OPERATOR = "operator"
    TIME = "time"
    COLLECTOR = "collector"


ROLE_OF_TYPE = {
    PayloadType.ROOT: Role.ROOT,
    PayloadType.JOB: Role.ISSUER,
    PayloadType.COMMAND: Role.OPERATOR,
    PayloadType.TIME: Role.TIME,
    PayloadType.ACK: Role.COLLECTOR,
}


class RootKey(StrictModel):
    """One public key and its limits. Equal and hashable by content."""

    name: KeyName
    algorithm: Literal["ed25519"] = "ed25519"
    public: Annotated[str, matching(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
    processes: Annotated[tuple[Process, ...], Field(strict=False, min_length=1, max_length=256)] | None = None
    sites: Annotated[tuple[SiteId, ...], Field(strict=False, min_length=1, max_length=4096)] | None = None

    @property
    def public_bytes(self) -> bytes:
        """The 32 bytes of the key."""
        return bytes.fromhex(self.public)

    @property
    def keyid(self) -> str:
        """The key's id, computed."""
        return keyid_of(self.public_bytes)

    def may_act(self, site: str, processes: frozenset[str]) -> bool:
        """Whether the limits of this key leave room for something about `processes` at `site`."""
        return (self.processes is None or processes <= set(self.processes)) and (
            self.sites is None or site in self.sites
        )

    def may_sign(self, order: JobOrder) -> bool:
        """Whether the limits of this key leave room for `order`."""
        return self.may_act(order.site, order.processes)


class RoleRule(StrictModel):
    """`threshold` of `keyids` have to sign."""

    threshold: Annotated[int, Field(ge=1, le=_MAX_KEYS)]
    keyids: Annotated[tuple[Sha256, ...], Field(strict=False, min_length=1, max_length=_MAX_KEYS)]


class Revocation(StrictModel):
    """Why a key counts no more. `compromise`: somebody else may have it, so running work under it stops too."""

    compromise: bool
    reason: Text


class TrustRoot(StrictModel):
    """The keys, roles and revocations of one root version."""

    version: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
    name: Text
    issued_at: UtcTime
    expires_at: UtcTime | None
    keys: Annotated[dict[Sha256, RootKey], Field(max_length=_MAX_KEYS)]
    roles: dict[Annotated[Role, Field(strict=False)], RoleRule]
    revoked: Annotated[dict[Sha256, Revocation], Field(max_length=_MAX_KEYS)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.expires_at is not None and self.expires_at <= self.issued_at:
            raise broken_rule("expires_at is not after issued_at, must be later or null")
        publics: set[str] = set()
        for keyid, key in self.keys.items():
            if keyid != key.keyid:
                raise broken_rule(f"key id {keyid} is not the hash of its key '{key.name}', must be {key.keyid}")
            weak = weakness(key.public_bytes)
            if weak:
                raise broken_rule(f"the public key of '{key.name}' {weak}")
            publics.add(key.public)
        if Role.ROOT not in self.roles:
            raise broken_rule("roles has no 'root', must name who may sign the next root")
        for role, rule in self.roles.items():
            self._check_role(role, rule)
        return self

    def _check_role(self, role: Role, rule: RoleRule) -> None:
        if len(set(rule.keyids)) < len(rule.keyids):
            raise broken_rule(f"role '{role}' names a key twice, must name it once")
        for keyid in rule.keyids:
            if keyid not in self.keys:
                raise broken_rule(f"role '{role}' names key {keyid}, which is not in 'keys'")
        usable = set(rule.keyids) - (self.revoked.keys() if role is Role.ROOT else set())
        if rule.threshold > len(usable):
            raise broken_rule(
                f"role '{role}' has threshold {rule.threshold} and {len(usable)} usable keys, can never be reached"
            )

    def threshold(self, role: Role) -> int | None:
        """How many distinct keys `role` takes; None if nobody holds it."""
        rule = self.roles.get(role)
        return rule.threshold if rule else None

    def signers(self, role: Role, envelope: Envelope) -> frozenset[RootKey]:
        """The distinct keys of `role` that validly signed `envelope`, revoked ones included.

        Of several signatures under one key id the first two count, so that nobody makes a site verify 32 times.
        """
        rule = self.roles.get(role)
        if rule is None:
            return frozenset()
        message = envelope.signed_bytes
        valid: dict[str, RootKey] = {}
        looked_at: Counter[str] = Counter()
        for signature in envelope.signatures:
            looked_at[signature.keyid] += 1
            if signature.keyid in rule.keyids and looked_at[signature.keyid] <= 2:
                key = self.keys[signature.keyid]
                if key.public not in valid and verifies(key.public_bytes, signature.sig, message):
                    valid[key.public] = key
        return frozenset(valid.values())

    def verify(self, role: Role, envelope: Envelope) -> frozenset[RootKey]:
        """The distinct keys of `role` that validly signed `envelope` and are not revoked."""
        return frozenset(key for key in self.signers(role, envelope) if key.keyid not in self.revoked)


def root_bytes(root: TrustRoot) -> bytes:
    """The bytes to sign for `root`."""
    return json.dumps(root.model_dump(mode="json"), ensure_ascii=False, indent=1).encode()


def read_root(raw: bytes) -> tuple[TrustRoot, Envelope]:
    """A root as it claims to be, not verified: for the ceremony that signs it.

    Raises:
        RootError: it is no root, or breaks a rule other than that of its signatures.
    """
    try:
        envelope = parse(raw)
        if envelope.payload_type != PayloadType.ROOT:
            raise RootError(f"the payload type is '{envelope.payload_type}', must be '{PayloadType.ROOT}'")
        return TrustRoot.read(envelope.payload, what="the trust root", max_bytes=MAX_ENVELOPE_BYTES), envelope
    except (EnvelopeError, FormatError) as error:
        raise RootError(str(error)) from error


def load_root(raw: bytes) -> TrustRoot:
    """A root that enough of its own root keys have signed: what a site is given when it is set up.

    Raises:
        RootError: it is not.
    """
    root, envelope = read_root(raw)
    _require_threshold(root, root, envelope)
    return root


def verify_successor(old: TrustRoot, raw: bytes) -> TrustRoot:
    """The root that follows `old`, signed by the thresholds of both.

    Raises:
        RootError: it does not follow.
    """
    root, envelope = read_root(raw)
    if root.version != old.version + 1:
        raise RootError(f"the trust root has version {root.version}, must have {old.version + 1}")
    if root.name != old.name:
        raise RootError(f"the trust root is that of '{root.name}', must be that of '{old.name}'")
    _require_threshold(old, root, envelope)
    _require_threshold(root, root, envelope)
    return root


def _require_threshold(judge: TrustRoot, root: TrustRoot, envelope: Envelope) -> None:
    count, threshold = len(judge.verify(Role.ROOT, envelope)), judge.roles[Role.ROOT].threshold
    if count < threshold:
        raise RootError(
            f"version {root.version} of the trust root has {count} valid signatures of the root keys "
            f"of version {judge.version}, must have {threshold}"
        )
