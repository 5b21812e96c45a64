"""Every exception of edge.

    EdgeError
    ├── ConfigError                 site.toml or a file it names is wrong
    ├── UsageError                  a command cannot be carried out as given
    │   ├── NotRunningError         the daemon does not answer on its socket
    │   └── RefusedError            the daemon answers, and did not do what was asked
    ├── FormatError                 bytes do not have their documented format
    ├── TrustError
    │   ├── EnvelopeError           bytes are not a DSSE envelope
    │   ├── RootError               a trust root cannot be used
    │   ├── BatchError              a batch of events, or the acknowledgement of one, is refused
    │   └── KeyFileError            a key file cannot be read or is not ours to read
    ├── JournalError
    │   ├── NoJournalError          there is none yet
    │   ├── CorruptJournalError     the file, the chain or a projection does not hold together
    │   ├── StaleRevisionError      somebody recorded something since the caller looked
    │   ├── IllegalTransitionError  no entry in the table of `edge.jobstate`
    │   └── StoreClosedError        written to after close
    ├── UplinkError                 the centre cannot be reached, or does not take a message (`edge.uplink.port`)
    ├── ArtifactError               a file is missing, too large, or not what its hash says
    │   ├── WrongHashError          its bytes are not those that its name says
    │   ├── BundleError             a .mfjob bundle is malformed
    │   └── FetchError              a source did not give a file, or gave another one
    └── DriverError                 the only errors a driver may raise
        ├── NotAcceptableError      the program asks for what the machine must not do; nothing moved
        └── MachineError            the machine or the way to it failed; says whether motion is possible
            ├── ConnectError        nobody there, or somebody else holds the port; no motion
            ├── IdentityError       another machine than configured; no motion
            ├── ProtocolError       it speaks, but not as its firmware should
            └── NotConfirmedError   asked, and no confirmation before the deadline; motion possible
                └── LinkLostError   the way to the machine broke; the run is judged when it can be asked again

A `DriverError` is *their* fault: it ends a run with an outcome. Everything else that escapes a driver is *our* fault:
it ends the run as UNKNOWN, and the traceback is in the log under an id.
"""

from __future__ import annotations

import enum


class Motion(enum.StrEnum):
    """Whether the machine can have moved since the run began."""

    NONE = "none"
    POSSIBLE = "possible"


class EdgeError(Exception):
    """Base of all errors of edge. `str()` is one sentence for a person."""


class ConfigError(EdgeError):
    """A configuration file is wrong.

    `file` and `field` say where, `value` what stands there, `expected` what would be right.
    """

    def __init__(self, file: object, field: str, problem: str, expected: str = "") -> None:
        where = f"{file}: {field}: " if field else f"{file}: "
        super().__init__(where + problem + (f"; {expected}" if expected else ""))
        self.file = str(file)
        self.field = field
        self.problem = problem
        self.expected = expected


class UsageError(EdgeError):
    """A command cannot be carried out as given."""


class NotRunningError(UsageError):
    """The daemon does not answer on its socket."""


class RefusedError(UsageError):
    """The daemon did not do what was asked; its own sentence."""


class FormatError(EdgeError):
    """Bytes do not have their documented format: an order, a stored replay window."""


class TrustError(EdgeError):
    """Something signed, or a key, is not acceptable."""


class EnvelopeError(TrustError):
    """Bytes are not a DSSE envelope."""


class RootError(TrustError):
    """A trust root cannot be used."""


class BatchError(TrustError):
    """A batch of events, or the acknowledgement of one, is refused."""


class KeyFileError(TrustError):
    """A key file cannot be read, or is readable by others."""


class JournalError(EdgeError):
    """The journal cannot do what was asked."""


class NoJournalError(JournalError):
    """There is no journal: the site has never run."""


class NotNowError(JournalError):
    """The disk is full, or another program has the file: nothing of this was kept, and the same may work later."""


class CorruptJournalError(JournalError):
    """The journal's file, chain or projections do not hold together."""


class StaleRevisionError(JournalError):
    """Somebody recorded something since the caller looked; look again and decide anew."""


class IllegalTransitionError(JournalError):
    """No entry in the table of `edge.jobstate` for this state and this fact."""


class StoreClosedError(JournalError):
    """The store was written to after it was closed."""


class ArtifactError(EdgeError):
    """A file is missing, too large, or not what its hash says."""


class WrongHashError(ArtifactError):
    """A file's bytes are not those that its name says."""


class BundleError(ArtifactError):
    """A .mfjob bundle is malformed."""


class FetchError(ArtifactError):
    """A source did not give a file, or gave another one. Names the host, never the whole address."""


class DriverError(EdgeError):
    """Base of the errors that a driver may raise."""


class NotAcceptableError(DriverError):
    """The program asks for what the machine must not do. Raised before anything moves.

    `what` names it (``line 6023 X``), `value` is what the program asks for, `limit` what the machine allows, `unit`
    the unit of both, or an empty string.
    """

    def __init__(self, what: str, value: object, limit: object, unit: str = "") -> None:
        super().__init__(what, value, limit, unit)
        self.what = what
        self.value = value
        self.limit = limit
        self.unit = unit

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.what}: {self.value}{unit}, allowed: {self.limit}{unit}"


class MachineError(DriverError):
    """The machine, or the way to it, failed. `motion` says whether it can have moved since the run began."""

    def __init__(self, message: str, motion: Motion = Motion.POSSIBLE) -> None:
        super().__init__(message, motion)
        self.message = message
        self.motion = motion

    def __str__(self) -> str:
        return self.message


class ConnectError(MachineError):
    """Nobody answers there, or another process holds the port. Nothing moved."""

    def __init__(self, message: str, motion: Motion = Motion.NONE) -> None:
        super().__init__(message, motion)


class IdentityError(MachineError):
    """Another machine or firmware than the configuration says. Nothing moved."""

    def __init__(self, message: str, motion: Motion = Motion.NONE) -> None:
        super().__init__(message, motion)


class ProtocolError(MachineError):
    """The machine speaks, but not as its firmware should."""


class NotConfirmedError(MachineError):
    """Something was asked of the machine and not confirmed before the deadline."""


class LinkLostError(NotConfirmedError):
    """The way to the machine broke, and nothing else is known of it: a run is judged when it can be asked again."""
