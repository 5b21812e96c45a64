"""A daemon that runs on from before an update: what is asked of it until `edge restart`."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from edge.cli import status
from edge.cli.client import call, machines
from edge.errors import RefusedError
from edge.sitefile import SiteFile

ROW = {
    "id": "prn-1", "driver": "gcode", "processes": ["fdm"], "state": "EXECUTE", "detail": "", "seen_at": None,
    "needs_clearing": "run-1", "maintenance": None, "progress": None, "temperatures": {}, "readings": {}, "link": None,
    "message": None, "conditions": [], "identity": None, "run": {"job_id": "job-1", "run_id": "run-1"},
}  # fmt: skip
OLD = {
    "/v1/machines": [ROW],
    "/v1/status": {
        "site": "berlin-1", "level": 0, "daemon": {}, "journal": {}, "last_event": None, "attention": [], "notices": [],
        "uplink": None, "pruned": None, "jobs": [], "machines": [ROW],
    },
}  # fmt: skip


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(200 if self.path in OLD else 404, OLD.get(self.path, {"error": "Not Found"}))

    def do_POST(self) -> None:
        self._answer(404, {"error": "Not Found"})

    def _answer(self, code: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def address_string(self) -> str:
        return "a unix socket"

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Path]:
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "edge.sock"), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "edge.sock"
        server.shutdown()
        thread.join()


def test_what_it_does_not_say_is_nothing(daemon: Path, tmp_path: Path) -> None:
    (machine,) = machines(daemon)
    assert (machine["properties"], machine["run"]["overrun"]) == ({}, None)
    found = status.fetch(SiteFile(tmp_path / "site.toml", "berlin-1", tmp_path, daemon, {}))
    assert "EXECUTE" in "\n".join(status.machine_lines(found["machines"], properties=True))


def test_what_it_does_not_know_says_what_to_do(daemon: Path) -> None:
    with pytest.raises(RefusedError, match="older than this command and does not know it: `edge restart`"):
        call(daemon, "POST", "/v1/machines/prn-1/load", {"values": {"material": "PETG"}})
