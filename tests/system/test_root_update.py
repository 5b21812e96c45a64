"""A trust root at a running site: over the socket, over a kill at any moment, and over the file at the next start."""

from __future__ import annotations

import json
import random
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.model.fields import time_text
from edge.trust import PayloadType, new_job_id
from tests.helpers.site import SHORT, SiteFolder
from tests.helpers.trust import ISSUER, OPERATOR, command_document, keyid, root_document, signed_root

REMOTE = "\n[remote]\nallow_clear = true\n"


def version(folder: Path, number: int, **fields: Any) -> Path:
    path = folder / f"root-{number}.json"
    path.write_bytes(signed_root(root_document(version=number, operators=(OPERATOR,), **fields)))
    return path


@pytest.fixture
def site(tmp_path):
    made = SiteFolder(tmp_path, machines="")
    try:
        yield made
    finally:
        if made.daemon is not None:
            made.daemon.end(signal.SIGKILL)


def start(site: SiteFolder) -> None:
    site.start(ready="it listens on")


def version_in_force(site: SiteFolder) -> int:
    return int(site.events("root_accepted")[-1]["body"]["version"])


def test_a_chain_comes_over_the_socket_and_outlives_the_daemon_and_an_older_file(site, tmp_path) -> None:
    start(site)
    two, three = version(tmp_path, 2), version(tmp_path, 3, revoked=(ISSUER,))
    early = site.json("root", "submit", str(three), code=2)
    assert [(verdict["accepted"], verdict["reason"]) for verdict in early] == [(False, "gap")]
    taken = site.json("root", "submit", str(two), str(three))
    assert [(verdict["accepted"], verdict["version"], verdict["repeated"]) for verdict in taken] == [
        (True, 2, False),
        (True, 3, False),
    ]
    assert site.submit(site.bundle(), code=2)["reason"] == "revoked_key"
    assert site.daemon is not None
    site.daemon.end(signal.SIGKILL)

    start(site)  # the file is still version 1
    site.daemon.wait_line("older trust root than the journal, whose version 3 counts")
    assert site.submit(site.bundle(SHORT + b";\n"), code=2)["reason"] == "revoked_key"
    assert "(as before" in site.edge("root", "submit", str(three)).stdout
    assert site.json("verify")["ok"]
    assert site.json("root", "show")["root"]["version"] == 3
    assert "trust root of ACME, version 3" in site.edge("root", "show").stdout
    assert site.edge("events").returncode == 0


def test_a_file_that_does_not_follow_neither_starts_nor_restarts_a_site(site, tmp_path) -> None:
    start(site)
    file = tmp_path / "root.dsse.json"
    original = file.read_bytes()
    file.write_bytes(version(tmp_path, 3).read_bytes())
    refused = site.edge("restart")
    assert refused.returncode == 2
    assert "does not follow version 1, which this site goes by: gap" in refused.stderr
    assert site.live()["daemon"]["pid"] == site.daemon.process.pid
    site.daemon.end()
    refused = site.edge("run")
    assert (refused.returncode, "does not follow version 1" in refused.stderr) == (2, True)
    file.write_bytes(original)
    start(site)
    file.write_bytes(version(tmp_path, 2).read_bytes())
    site.json("restart")
    assert version_in_force(site) == 2


@pytest.mark.timeout(240)
def test_killed_at_any_moment_of_an_update_the_site_has_the_old_or_the_new_root(site, tmp_path) -> None:
    moments = random.Random(20261122)
    start(site)
    for number in range(2, 7):
        path = version(tmp_path, number)
        pause = threading.Timer(moments.uniform(0.0, 0.4), site.daemon.process.kill)
        pause.start()
        done = site.edge("root", "submit", str(path))
        pause.join()
        site.daemon.end(signal.SIGKILL)
        start(site)
        found = version_in_force(site)
        assert found in (number - 1, number)
        if done.returncode == 0:
            assert found == number, "what was acknowledged is there"
        if found < number:
            site.json("root", "submit", str(path))
    assert [event["body"]["version"] for event in site.events("root_accepted")] == [1, 2, 3, 4, 5, 6]
    assert site.json("verify")["ok"]


def test_a_signed_command_comes_over_the_socket(site, tmp_path) -> None:
    site.config.write_text(site.config.read_text() + REMOTE)
    start(site)
    site.json("root", "submit", str(version(tmp_path, 2)))
    now = datetime.now(UTC).replace(microsecond=0)
    command = command_document(
        command_id=new_job_id(now), issued_at=time_text(now), expires_at=time_text(now + timedelta(minutes=5))
    )
    raw = site.ceremony.sign(json.dumps(command).encode(), (OPERATOR,), PayloadType.COMMAND)
    path = tmp_path / "command.json"
    path.write_bytes(raw)
    refused = site.json("command", "submit", str(path), code=2)
    assert (refused["kind"], refused["verb"], refused["reason"]) == ("command", "cancel", "unknown")
    assert site.json("command", "submit", str(path), code=2)["repeated"]
    (event,) = site.events("command_refused")
    assert event["actor"].startswith("user:")
    assert keyid(OPERATOR) not in json.dumps(event)
    large = tmp_path / "large"
    large.write_bytes(b" " * 2_000_000)
    assert site.json("command", "submit", str(large), code=2)["reason"] == "too_large"
