"""Talking to the daemon over its Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from edge.errors import NotRunningError, RefusedError, UsageError

UNKNOWN_TARGET = "Not Found"
"""The daemon's answer to a path that it has not (RFC 9110, 15.5.5): all else that is not there has a sentence."""

TIMEOUT_S = 150.0
"""Longest answer: a machine that stops, or events that are waited for."""


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("edge", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(
    path: Path,
    method: str,
    target: str,
    body: dict[str, Any] | IO[bytes] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """One request; the JSON of the answer. Raises `NotRunningError`, or `RefusedError` with the daemon's sentence."""
    connection = _Connection(path, timeout_s)
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    try:
        connection.request(method, target, content)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NotRunningError(f"the daemon is not running: nobody listens on {path}") from error
    except PermissionError as error:
        raise NotRunningError(f"no permission to talk to the daemon on {path}; its group has it") from error
    except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
        raise NotRunningError(f"the daemon on {path} does not answer: {error}") from error
    finally:
        connection.close()
    if response.status >= 400:
        unknown = "the daemon is older than this command and does not know it: `edge restart`"
        raise RefusedError(unknown if answer["error"] == UNKNOWN_TARGET else answer["error"])
    return answer


def machines(path: Path) -> list[dict[str, Any]]:
    """What is seen of each machine. Raises as `call` does."""
    return [as_now(machine) for machine in call(path, "GET", "/v1/machines")]


def named(machines: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The machine that a person means. Raises `UsageError`."""
    found = {machine["id"]: machine for machine in machines}
    if name not in found:
        raise UsageError(f"there is no machine {name}; there are: {', '.join(found) or 'none'}")
    return dict(found[name])


def as_now(machine: dict[str, Any]) -> dict[str, Any]:
    """A machine's row with what a daemon does not say that was begun before an update, and not restarted since."""
    run = machine["run"] and {"overrun": None, **machine["run"]}
    return {"properties": {}, **machine, "run": run}
