"""What OctoPrint says and is told: the shapes of its REST answers and push messages. PURE.

Shapes are those of OctoPrint 1.11.8 and 2.0.0rc7 without the header ``X-OctoPrint-Api-Version``, recorded in
tests/transcripts; https://docs.octoprint.org/en/1.11.8/api/ describes them. Rules:

1. What an answer does not have is absent, never guessed: 2.0 has no `hash` and no `owner`, and an error without text.
2. An answer of another form is a `NotUnderstoodError` that names what was asked.
3. The outcome of a print is what `prints` of its file says. No entry there and nothing going on: nobody knows.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

FOLDER = "edge"
"""Where our files are, below OctoPrint's uploads."""

OLDEST = (1, 11)
"""The oldest version that this was tried with."""

NEEDED = frozenset(
    {"STATUS", "FILES_LIST", "FILES_UPLOAD", "FILES_DOWNLOAD", "FILES_DELETE", "FILES_SELECT", "PRINT", "CONTROL"}
)
"""Permissions of the key's user; the group `users` has all of them (octoprint/access/permissions.py)."""

EVENTS = (
    *("PrintStarted", "PrintDone", "PrintFailed", "PrintCancelling", "PrintCancelled", "PrintPaused", "PrintResumed"),
    *("FilamentChange", "Error", "Connected", "Disconnected", "PrinterStateChanged", "MetadataStatisticsUpdated"),
)
"""Events that are asked for (https://docs.octoprint.org/en/1.11.8/events/)."""


class NotUnderstoodError(ValueError):
    """An answer that OctoPrint does not give."""


class Phase(enum.Enum):
    """What a state of OctoPrint means here."""

    READY = "connected to a printer, and nothing is going on"
    BUSY = "a print is going on, also while it is paused or ends"
    HELD = "a print is paused"
    CONNECTING = "not connected to its printer yet"
    OFFLINE = "not connected to its printer"
    UNKNOWN = "a state that this version does not know"


_PHASES = (
    ("Operational", Phase.READY),
    ("Paused", Phase.HELD),
    *((word, Phase.BUSY) for word in ("Starting", "Printing", "Sending", "Transferring", "Pausing", "Resuming")),
    *((word, Phase.BUSY) for word in ("Finishing", "Cancelling")),
    *((word, Phase.CONNECTING) for word in ("Opening", "Detecting", "Connecting")),
    *((word, Phase.OFFLINE) for word in ("Offline", "Error", "Closed")),
)
"""State texts by how they begin (octoprint/util/comm.py, `getStateString`)."""


_MARLIN_NAMES = {"tool0": "T", "bed": "B", "chamber": "C"}


@dataclass(frozen=True, slots=True)
class Job:
    """What OctoPrint is doing. `path` is the selected file's; `by` the user who started it; `filepos` bytes sent."""

    state: str
    path: str = ""
    by: str = ""
    filepos: int | None = None
    completion: float | None = None
    print_time_s: float | None = None
    error: str = ""

    @property
    def phase(self) -> Phase:
        return next((phase for word, phase in _PHASES if self.state.startswith(word)), Phase.UNKNOWN)

    @property
    def active(self) -> bool:
        """Whether a print is going on."""
        return self.phase in (Phase.BUSY, Phase.HELD)


@dataclass(frozen=True, slots=True)
class Prints:
    """How often a file was printed to its end or not, since it was uploaded; kept over restarts."""

    success: int = 0
    failure: int = 0
    print_time_s: float | None = None

    @property
    def total(self) -> int:
        return self.success + self.failure


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in OctoPrint. `run` is our token in its `userdata`, empty if it is not ours; `date_s` since 1970."""

    path: str
    run: str
    date_s: float
    prints: Prints


@dataclass(frozen=True, slots=True)
class Account:
    """Whose key it is; an empty name is nobody's: OctoPrint takes a wrong key for a guest."""

    name: str
    permissions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Heater:
    """`name` by Marlin's names, temperatures in degC."""

    name: str
    actual_degc: float
    target_degc: float


@dataclass(frozen=True, slots=True)
class Current:
    """A push message: the state now."""

    job: Job
    heaters: tuple[Heater, ...]


@dataclass(frozen=True, slots=True)
class Occurred:
    """A push message: an event. `path` is the file's, `user` who did it: empty where it is not said."""

    kind: str
    path: str = ""
    user: str = ""
    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first push message. `safe_mode` says why OctoPrint has left its plug-ins out; empty if it has not."""

    safe_mode: str


@dataclass(frozen=True, slots=True)
class Stale:
    """A push message: the session counts no more, a new log-in is wanted."""


Push: TypeAlias = Current | Occurred | Greeting | Stale


def version(answer: object) -> str:
    """Of ``GET /api/version``."""
    found = _text(_table(answer, "/api/version").get("server"))
    if not re.match(r"\d+\.\d+", found):
        raise NotUnderstoodError("/api/version does not answer as an OctoPrint does")
    return found


def too_old(server: str) -> bool:
    """Whether a version (as `version` gives it) is older than all that this was tried with."""
    major, minor = server.split(".")[:2]
    return (int(major), int(re.sub(r"\D.*", "", minor))) < OLDEST


def safe_mode(answer: object) -> str:
    """Of ``GET /api/server``: why OctoPrint runs in safe mode; empty if it does not."""
    return _text(_table(answer, "/api/server").get("safemode"))


def account(answer: object) -> Account:
    """Of ``GET /api/currentuser``."""
    table = _table(answer, "/api/currentuser")
    permissions = table.get("permissions")
    names = permissions if isinstance(permissions, list) else []
    return Account(_text(table.get("name")), frozenset(name for name in names if isinstance(name, str)))


def authentication(answer: object) -> str:
    """Of ``POST /api/login`` with `passive`: what the push socket wants as `auth`."""
    table = _table(answer, "/api/login")
    name, session = _text(table.get("name")), _text(table.get("session"))
    if not name or not session:
        raise NotUnderstoodError("/api/login gives no session")
    return f"{name}:{session}"


def job(answer: object) -> Job:
    """Of ``GET /api/job``."""
    table = _table(answer, "/api/job")
    state = _text(table.get("state"))
    if not state:
        raise NotUnderstoodError("/api/job does not say the state")
    return _job(state, table, _text(table.get("error")))


def heaters(answer: object) -> tuple[Heater, ...]:
    """Of ``GET /api/printer``."""
    return _heaters(_table(_table(answer, "/api/printer").get("temperature"), "/api/printer"))


def stored(answer: object) -> Stored:
    """Of ``GET /api/files/local/…``, of a file."""
    table = _table(answer, "a file")
    path = _text(table.get("path"))
    if not path:
        raise NotUnderstoodError("a file has no path")
    userdata = table.get("userdata")
    run = _text(userdata.get("run")) if isinstance(userdata, dict) else ""
    return Stored(path, run, _number(table.get("date")) or 0.0, _prints(table.get("prints")))


def children(answer: object) -> list[Stored]:
    """Of ``GET /api/files/local/…``, of a folder: the files in it."""
    found = _table(answer, "a folder").get("children")
    if not isinstance(found, list):
        raise NotUnderstoodError("a folder has no list of files")
    return [stored(child) for child in found if isinstance(child, dict) and child.get("type") != "folder"]


def app_token(answer: object) -> str:
    """Of ``POST /plugin/appkeys/request``."""
    token = _text(_table(answer, "/plugin/appkeys/request").get("app_token"))
    if not token:
        raise NotUnderstoodError("/plugin/appkeys/request gives no token")
    return token


def granted_key(answer: object) -> str:
    """Of ``GET /plugin/appkeys/request/…`` when it is 200."""
    key = _text(_table(answer, "/plugin/appkeys/request").get("api_key"))
    if not key:
        raise NotUnderstoodError("/plugin/appkeys/request gives no key")
    return key


def error_text(body: str) -> str:
    """What OctoPrint says in an answer that is an error; empty if it says nothing that is meant for people."""
    try:
        document = json.loads(body)
    except ValueError:
        return ""
    return _text(document.get("error")) if isinstance(document, dict) else ""


def push(text: str) -> list[Push]:
    """One message of the push socket: nothing if it tells nothing that matters here."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise NotUnderstoodError("the push socket does not speak JSON") from error
    found: list[Push] = []
    for kind, value in _table(document, "the push socket").items():
        match kind:
            case "current" | "history":
                found.append(_current(_table(value, "the push socket")))
            case "event":
                found.append(_occurred(_table(value, "the push socket")))
            case "connected":
                found.append(Greeting(_text(_table(value, "the push socket").get("safe_mode"))))
            case "reauthRequired":
                found.append(Stale())
            case _:
                pass
    return found


def subscription() -> dict[str, Any]:
    """What is wanted of the push socket: state without logs, and the events that matter."""
    return {"subscribe": {"state": {"logs": False, "messages": False}, "events": list(EVENTS), "plugins": False}}


def cooling(seen: Sequence[Heater]) -> list[tuple[str, dict[str, Any]]]:
    """Paths and bodies of the requests that switch off what is heated."""
    hot = {heater.name for heater in seen if heater.target_degc > 0}
    asked: list[tuple[str, dict[str, Any]]] = []
    tools: dict[str, Any] = {f"tool{name[1:] or 0}": 0 for name in sorted(hot - {"B", "C"})}
    if tools:
        asked.append(("/api/printer/tool", {"command": "target", "targets": tools}))
    for name, path in (("B", "/api/printer/bed"), ("C", "/api/printer/chamber")):
        if name in hot:
            asked.append((path, {"command": "target", "target": 0}))
    return asked


def missing_permissions(who: Account) -> list[str]:
    """What the key's user may not do, and must be able to."""
    return sorted(NEEDED - who.permissions)


def _current(table: Mapping[str, Any]) -> Current:
    state = _table(table.get("state"), "the push socket")
    temps = table.get("temps")
    latest = temps[-1] if isinstance(temps, list) and temps and isinstance(temps[-1], dict) else {}
    return Current(_job(_text(state.get("text")), table, _text(state.get("error"))), _heaters(latest))


def _occurred(table: Mapping[str, Any]) -> Occurred:
    payload = table.get("payload")
    fields = payload if isinstance(payload, dict) else {}
    path, user, reason, error = (_text(fields.get(name)) for name in ("path", "user", "reason", "error"))
    return Occurred(_text(table.get("type")), path, user, reason, error)


def _job(state: str, table: Mapping[str, Any], error: str) -> Job:
    what, progress = _inner(table, "job"), _inner(table, "progress")
    file = _inner(what, "file")
    path = _text(file.get("path"))
    if path and file.get("origin") != "local":
        path = f"sd:{path}"  # a file on the printer's own card can have the name of one of ours
    filepos = _number(progress.get("filepos"))
    return Job(
        state,
        path,
        _text(what.get("user")),
        None if filepos is None else int(filepos),
        _number(progress.get("completion")),
        _number(progress.get("printTime")),
        error,
    )


def _prints(value: object) -> Prints:
    if not isinstance(value, dict):
        return Prints()
    success, failure = _number(value.get("success")) or 0, _number(value.get("failure")) or 0
    return Prints(int(success), int(failure), _number(_inner(value, "last").get("printTime")))


def _heaters(table: Mapping[str, Any]) -> tuple[Heater, ...]:
    found = []
    for name, value in table.items():
        if isinstance(value, dict) and (actual := _number(value.get("actual"))) is not None:
            found.append(Heater(_marlin_name(name), actual, _number(value.get("target")) or 0.0))
    return tuple(found)


def _marlin_name(name: str) -> str:
    """``tool0`` is T, ``tool1`` is T1, ``bed`` is B, ``chamber`` is C."""
    return _MARLIN_NAMES.get(name) or name.replace("tool", "T")


def _inner(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = table.get(name)
    return value if isinstance(value, dict) else {}


def _table(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise NotUnderstoodError(f"{what}: the answer is not understood")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
