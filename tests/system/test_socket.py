"""The daemon's socket, with clients that do not behave."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from edge.cli.client import call
from edge.errors import RefusedError
from tests.helpers.site import DEADLINE_S, SiteFolder, until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    """A site without machines."""
    site = SiteFolder(tmp_path_factory.mktemp("site"), "")
    daemon = site.start(ready="is up")
    yield site
    assert daemon.end() == 0
    assert not any("internal error" in line for line in daemon.lines)


def connected(site: SiteFolder) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_S)
    client.connect(str(site.socket))
    return client


def ask(site: SiteFolder, method: str, target: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and document of one request."""
    connection = http.client.HTTPConnection("edge")
    connection.sock = connected(site)
    connection.request(method, target, body)
    answer = connection.getresponse()
    status, document = answer.status, json.loads(answer.read())
    connection.close()
    return status, document


def test_an_upload_that_breaks_off_leaves_nothing_behind(site: SiteFolder) -> None:
    incoming = site.state_dir / "incoming"
    with connected(site) as client:
        client.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300_000)
        until(lambda: list(incoming.iterdir()))
    until(lambda: not list(incoming.iterdir()))
    assert call(site.socket, "GET", "/v1/status")["level"] == 0


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "words"),
    [
        ("GET", "/v1/nothing", None, 404, "Not Found"),
        ("DELETE", "/v1/status", None, 405, "Method Not Allowed"),
        ("GET", "/v1/events?after=x", None, 400, "after is 'x', a whole number is needed"),
        ("GET", "/v1/events?limit=-1", None, 400, "a whole number is needed"),
        ("GET", "/v1/events?after=99999999999999999999", None, 400, "a whole number is needed"),
        ("GET", "/v1/jobs/01J9", None, 400, "there is no job 01J9 here"),
        ("POST", "/v1/jobs/01J9/cancel", b"{}", 400, "there is no job 01J9 here"),
        ("POST", "/v1/jobs/01J9/cancel", b"[]", 400, "no JSON object"),
        ("POST", "/v1/jobs/01J9/cancel", b"{", 400, "no JSON"),
        ("POST", "/v1/jobs/01J9/cancel", b"\xff\xfe\xff", 400, "no JSON"),
        ("POST", "/v1/jobs/01J9/cancel", b'{"reason": "' + b"x" * 201 + b'"}', 400, "at most 200 printable"),
        ("POST", "/v1/jobs/01J9/cancel", b'{"reason": "\\u001b[2J"}', 400, "at most 200 printable"),
        ("POST", "/v1/jobs/01J9/hold", b"{}", 400, "there is no job 01J9 here"),
        ("POST", "/v1/jobs/01J9/release?wait=-1", b"{}", 400, "wait is '-1', a whole number is needed"),
        ("POST", "/v1/jobs/01J9/resolve", b"{}", 400, "resolution is None; one of good, scrapped, retry is needed"),
        ("POST", "/v1/jobs/01J9/resolve", b'{"resolution": "good", "part": true}', 400, "part is to be a number"),
        ("POST", "/v1/jobs/01J9/resolve", b'{"resolution": "good"}', 400, "there is no job 01J9 here"),
        ("POST", "/v1/jobs/01J9/cancel", b" " * 70_000, 413, "Too Large"),
        ("POST", "/v1/machines/prn-9/clear", b"{}", 400, "run_id: name the run"),
        ("POST", "/v1/machines/prn-9/clear", b'{"run_id": "r"}', 400, "there is no machine prn-9; there are: none"),
        ("POST", "/v1/jobs", b"", 400, "not a zip file"),
        ("POST", "/v1/jobs", b"garbage", 400, "not a zip file"),
    ],
)
def test_what_is_asked_wrongly_is_answered_with_a_sentence(site, method, target, body, status, words) -> None:
    found, document = ask(site, method, target, body)
    assert found == status
    assert words in document["error"]


def test_the_cli_gets_the_daemons_own_sentence(site: SiteFolder) -> None:
    with pytest.raises(RefusedError, match="there is no job 01J9 here"):
        call(site.socket, "GET", "/v1/jobs/01J9")


def test_the_journal_can_be_verified_while_the_daemon_has_it(site: SiteFolder) -> None:
    assert site.json("verify")["problems"] == []


def test_a_socket_whose_folder_cannot_be_made_is_named_with_its_key(tmp_path: Path) -> None:
    made = SiteFolder(tmp_path, machines="")
    made.config.write_text(re.sub("socket = .*", 'socket = "/proc/nowhere/edge.sock"', made.config.read_text()))
    done = made.edge("run")
    assert (done.returncode, done.stdout) == (2, "")
    said = "edge: site.socket: cannot listen on /proc/nowhere/edge.sock: No such file or directory"
    assert done.stderr.splitlines()[-1] == said


def test_the_socket_is_for_its_group_and_nobody_else(site: SiteFolder) -> None:
    found = site.socket.stat()
    assert found.st_mode & 0o777 == 0o660
    assert found.st_gid == site.state_dir.stat().st_gid
    assert site.state_dir.stat().st_mode & 0o7777 == 0o2750
    log = site.state_dir / "log" / "edge.log"
    assert log.stat().st_mode & 0o777 == 0o640
    assert {path.stat().st_mode & 0o007 for path in site.state_dir.rglob("*")} == {0}


def test_a_follower_of_a_quiet_machine_waits_without_turning(site: SiteFolder) -> None:
    before = _cpu_s(site)
    assert call(site.socket, "GET", "/v1/events?after=0&machine=prn-9&wait=1") == []
    assert _cpu_s(site) - before < 0.5


def _cpu_s(site: SiteFolder) -> float:
    """What the daemon has worked so far (proc(5), utime and stime)."""
    assert site.daemon is not None
    fields = Path(f"/proc/{site.daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
