"""Who may order work here: the trust root in force, and whether an accepted order still stands under it.

Rules

1. The journal has the root in force; site.toml's file is what a site begins with, and one way in which the next
   version comes. An older file is no way back.
2. A newer root reaches every order that waits at once, and nothing begins that was verified by an older one: the
   journal refuses such a ``run_began``.
3. Each root is kept as a file, too (`edge.intake.rootfolder`), before it counts. A journal that is lost or put back
   goes on with the files that follow what it has, one by one; none is a way back, and none is believed without its
   signatures.
4. Work that runs goes on when its signatures stop counting, and nothing of its order starts after it. Only if they need
   a key that is revoked as compromised it is stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from edge.errors import ConfigError, JournalError, TrustError
from edge.intake.rootfolder import RootFolder
from edge.journal.journal import Journal
from edge.journal.transaction import KnownRoot, Transaction
from edge.model.event import Draft, EventKind, signed_body
from edge.model.fields import time_text
from edge.trust import (
    CurrentRoot,
    JobOrder,
    Now,
    Role,
    TrustRoot,
    judge_root,
    load_root,
    parse,
    payload_digest,
    verify_order,
)

NOT_AS_SIGNED = "what the journal's tables say of the order is not what was signed; `edge verify` says more"

log = logging.getLogger("edge.intake.authority")


class Authority:
    """The trust root in force. `envelope` is the root as it was signed; `file` is where it was read.

    `folder` is where each root is kept, None for nowhere.
    """

    def __init__(self, root: TrustRoot, envelope: bytes = b"", file: Path | None = None) -> None:
        self.root = root
        self._envelope = envelope
        self._digest = payload_digest(envelope) if envelope else ""
        self._file = file
        self.folder: RootFolder | None = None
        self._problems: dict[int, str] = {}
        self._verdicts: dict[tuple[str, int], str] = {}

    @classmethod
    def load(cls, path: Path) -> Authority:
        """Read and verify the root that site.toml names. Raises `ConfigError`."""
        try:
            raw = path.read_bytes()
            return cls(load_root(raw), raw, path)
        except OSError as error:
            new = "make one with `edge root new`, or copy your organisation's"
            expected = new if isinstance(error, FileNotFoundError) else ""
            raise ConfigError(path, "", f"the trust root cannot be read: {error.strerror}", expected) from error
        except TrustError as error:
            raise ConfigError(path, "", f"no usable trust root: {error}") from error

    # Which root is in force

    async def settle(self, journal: Journal) -> None:
        """Go by the newest of the journal's root, this one, and what follows in `folder`; write down what is new.

        Raises `ConfigError` if this one is neither older than the journal's, nor the same, nor its successor.
        """

        def run(transaction: Transaction) -> KnownRoot:
            if transaction.root_in_force() is None:
                self._take(transaction)
            self._take_what_follows(transaction)
            if self._is_news(in_force(_known(transaction))):
                self._take(transaction)
                self._take_what_follows(transaction)
            self._complete(transaction.roots())
            return _known(transaction)

        if self.adopt(await journal.transact(run)):
            log.warning(
                "%s has an older trust root than the journal, whose version %d counts", self._file, self.root.version
            )

    @property
    def trouble(self) -> str:
        """What is wrong with the files of `folder`; empty if nothing is."""
        return "; ".join(self._problems.values())

    def keep(self, version: int, envelope: bytes) -> None:
        """Have a root as a file before it counts. Raises `JournalError` if that fails."""
        if self.folder is not None:
            self.folder.keep(version, envelope)
            self._problems.pop(version, None)

    def _take(self, transaction: Transaction) -> None:
        signers = sorted(key.name for key in self.root.verify(Role.ROOT, parse(self._envelope)))
        transaction.record(root_accepted("site", self._envelope, self.root.version, signers))

    def _take_what_follows(self, transaction: Transaction) -> None:
        """Go on from the root in force with the files that follow it, up to the first that does not."""
        if (folder := self.folder) is None:
            return
        current = in_force(_known(transaction))
        for version in folder.versions():
            if version <= current.root.version:
                continue
            raw = folder.read(version)
            verdict = judge_root(raw, current)
            if verdict.root is None or verdict.repeated:
                said = f"{verdict.reason}: " if verdict.reason else ""
                self._doubt(version, f"{folder.file(version)} is refused: {said}{verdict.detail}")
                return
            log.warning("version %d of the trust root was lost and comes from %s", version, folder.path)
            transaction.record(root_accepted("site", raw, version, verdict.signers))
            current = in_force(_known(transaction))

    def _complete(self, roots: Sequence[bytes]) -> None:
        """Have every root of the journal as a file; one that says something else is replaced."""
        if (folder := self.folder) is None:
            return
        here = set(folder.versions())
        for raw in roots:
            version = load_root(raw).version
            if version in here and folder.read(version) == raw:
                continue
            if version in here:
                log.error("%s is not what this site went by, and is replaced", folder.file(version))
            try:
                self.keep(version, raw)
            except JournalError as error:
                self._doubt(version, str(error))

    def _doubt(self, version: int, problem: str) -> None:
        log.error("%s", problem)
        self._problems[version] = problem

    def adopt(self, known: KnownRoot) -> bool:
        """Go by the root that the journal has; whether it is another one than before.

        Never back: who has read the journal may come here after who has written the next version.
        """
        if known.payload_digest == self._digest or (self._digest and known.version < self.root.version):
            return False
        self.root, self._envelope, self._digest = load_root(known.envelope), known.envelope, known.payload_digest
        log.info("version %d of the trust root is in force", self.root.version)
        return True

    def judged_by(self, known: KnownRoot | None) -> CurrentRoot:
        """The root to judge by in a transaction that found `known`: what is durable, before anybody has adopted it."""
        if known is None or known.payload_digest == self._digest:
            return CurrentRoot(self.root, self._digest)
        return in_force(known)

    def could_begin_with(self, other: Authority) -> None:
        """Whether a daemon that starts now could begin with the file's root `other`. Raises `ConfigError`."""
        other._is_news(CurrentRoot(self.root, self._digest))

    def _is_news(self, current: CurrentRoot) -> bool:
        """Whether this root follows `current`; False if it is older or the same."""
        if self.root.version < current.root.version:
            return False
        verdict = judge_root(self._envelope, current)
        if not verdict.accepted:
            raise ConfigError(
                self._file,
                "",
                f"the trust root does not follow version {current.root.version}, which this site goes by: "
                f"{verdict.reason}: {verdict.detail}",
                "give the versions one after the other with `edge root submit`",
            )
        return not verdict.repeated

    # What stands under it

    def verified(self, envelope: bytes, now: Now) -> JobOrder:
        """The order that was signed, if work on it may begin at `now`. Raises `TrustError`."""
        verdict = verify_order(envelope, self.root)
        if verdict.order is None or not verdict.accepted:
            raise TrustError(f"{verdict.reason}: {verdict.detail}")
        if stale := self._stale(verdict.order, now):
            raise TrustError(stale)
        return verdict.order

    def refusal(self, envelope: bytes, order: JobOrder) -> str:
        """Why `order` is not what the signatures stand for under the current root; empty if it is. Not of the time."""
        verdict = verify_order(envelope, self.root)
        if not verdict.accepted:
            return f"{verdict.reason}: {verdict.detail}"
        return "" if verdict.order == order else NOT_AS_SIGNED

    def known_refusal(self, digest: str, envelope: bytes, order: JobOrder, now: Now) -> str:
        """Why work on `order` may not begin at `now`; empty if it may.

        What the signatures say is remembered by envelope and version of the root: good enough for planning, not for a
        claim. The time is looked at anew.
        """
        key = (digest, self.root.version)
        if key not in self._verdicts:
            self._verdicts[key] = self.refusal(envelope, order)
        return self._verdicts[key] or self._stale(order, now)

    def vouch(self, digest: str, version: int) -> None:
        """Remember that an order was verified by this version of the root, when it was accepted."""
        self._verdicts[digest, version] = ""

    def forget_all_but(self, digests: Collection[str]) -> None:
        """What is remembered of other orders than these, and under other roots, is asked for no more."""
        version = self.root.version
        self._verdicts = {key: told for key, told in self._verdicts.items() if key[0] in digests and key[1] == version}

    def forbids_going_on(self, envelope: bytes, order: JobOrder, earlier: Sequence[bytes]) -> str:
        """Why a run that was left open must not go on; empty if it may. `earlier` are the roots that the site went by.

        It began under one of them: a key that was rotated or revoked since ends no work that runs, a compromised one
        does.
        """
        refusal = self.refusal(envelope, order)
        if not refusal or (stolen := self.compromised(envelope)):
            return refusal and stolen
        verdicts = (verify_order(envelope, load_root(raw)) for raw in earlier)
        return "" if any(verdict.accepted and verdict.order == order for verdict in verdicts) else refusal

    def compromised(self, envelope: bytes) -> str:
        """Why work that runs on this order must stop: it needs a key that somebody else may have. Empty if it need not.

        A key that is in the root no more cannot be asked whether it signed; then its id in the envelope is enough.
        """
        verdict = verify_order(envelope, self.root)
        if verdict.accepted:
            return ""
        signed = parse(envelope)
        genuine = {key.keyid for role in self.root.roles for key in self.root.signers(role, signed)}
        for keyid in sorted({signature.keyid for signature in signed.signatures}):
            revocation = self.root.revoked.get(keyid)
            if revocation is not None and revocation.compromise and (keyid in genuine or keyid not in self.root.keys):
                name = self.root.keys[keyid].name if keyid in self.root.keys else keyid[:16]
                return f"{verdict.reason}: the key {name} is compromised: {revocation.reason}"
        return ""

    def _stale(self, order: JobOrder, now: Now) -> str:
        """Why the root is too old for the order."""
        if order.root_version_min > self.root.version:
            return f"the order needs version {order.root_version_min} of the trust root, this is {self.root.version}"
        if self.root.expires_at is not None and now.passed(self.root.expires_at):
            return f"this site's trust root expired at {time_text(self.root.expires_at)}, it needs a newer one"
        return ""


def _known(transaction: Transaction) -> KnownRoot:
    known = transaction.root_in_force()
    if known is None:
        raise JournalError("the journal has no trust root")
    return known


def in_force(known: KnownRoot) -> CurrentRoot:
    """The root that the journal has. Raises `RootError` if what is kept there is none."""
    return CurrentRoot(load_root(known.envelope), known.payload_digest)


def root_accepted(actor: str, envelope: bytes, version: int, signers: Sequence[str]) -> Draft:
    """What the journal keeps of a new trust root."""
    body = {
        "version": version,
        "payload_digest": payload_digest(envelope),
        **signed_body(envelope, signers),
    }
    return Draft(EventKind.ROOT_ACCEPTED, actor, body)
