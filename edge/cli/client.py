"""Talking to the daemon over its Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import IO, Any

from edge.errors import NotRunningError, RefusedError

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
        raise RefusedError(answer["error"])
    return answer
