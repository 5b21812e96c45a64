"""Daemon, Mosquitto and collector as processes, each killed in turn: the centre has the site's whole journal."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.trust import load_public_key
from edge.views import open_readonly
from tests import second_verifier
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.site import SITE, Daemon, SiteFolder, until
from tests.helpers.trust import root_document, signed_root

NAME = "berlin-1"
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def _needs_mosquitto(mosquitto: str) -> None:
    """See conftest.py."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto.begin(tmp_path / "broker") as broker:
        yield broker


class Centre:
    """A collector's folder, and its process."""

    def __init__(self, folder: Path, broker: Mosquitto, site_key: Path) -> None:
        self.config = folder / "collector.toml"
        self.database = folder / "state" / "collector.sqlite"
        self.lines = folder / "events.ndjson"
        self.daemon: Daemon | None = None
        assert self.edge("init", str(folder)).returncode == 0
        files = broker.files(CENTRE)
        self.config.write_text(
            f'[collector]\nstate_dir = "state"\n[uplink]\nkind = "mqtt"\nurl = "mqtts://127.0.0.1:{broker.port}"\n'
            f'ca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'
            f'[[sites]]\nid = "{NAME}"\nkeys = ["{site_key}"]\n'
        )
        self.public = load_public_key(folder / "state" / "collector.pub")

    def edge(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge.cli.main", "collect", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def start(self) -> None:
        program = [sys.executable, "-m", "edge.cli.main", "collect", "--config", str(self.config), "--ndjson"]
        # What it says comes to us, what it hands on goes to the file.
        shell = ["/bin/sh", "-c", 'lines=$1; shift; exec "$@" 2>&1 >>"$lines"', "sh", str(self.lines), *program]
        process = subprocess.Popen(shell, stdout=subprocess.PIPE, text=True)
        self.daemon = Daemon(process)
        self.daemon.wait_line("connected")

    def events(self) -> list[tuple[int, str, bytes]]:
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute("SELECT seq, hash, raw FROM events ORDER BY number").fetchall()

    def status(self) -> dict[str, Any]:
        return json.loads(self.edge("status", "--config", str(self.config), "--json").stdout)


def reporting(site: SiteFolder) -> dict[str, Any]:
    return site.json("status", code=None)["uplink"]["reporting"]


def site_events(site: SiteFolder) -> list[tuple[int, str, bytes]]:
    with open_readonly(site.state_dir) as snapshot:
        return snapshot.connection.execute("SELECT seq, hash, raw FROM events ORDER BY seq").fetchall()


@pytest.mark.timeout(240)
def test_whatever_dies_the_centre_has_every_event(tmp_path: Path, broker: Mosquitto) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    site = SiteFolder(folder, machines="")
    files = broker.files(NAME)
    site.config.write_text(
        SITE
        + f'[uplink]\nkind = "mqtt"\nurl = "mqtts://127.0.0.1:{broker.port}"\n'
        + f'ca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'
    )
    centre = Centre(tmp_path / "centre", broker, site.state_dir / "site.pub")
    document = root_document()
    document["keys"][centre.public.keyid] = {
        "name": "collector",
        "algorithm": "ed25519",
        "public": centre.public.public.hex(),
    }
    document["roles"]["collector"] = {"threshold": 1, "keyids": [centre.public.keyid]}
    (folder / "root.dsse.json").write_bytes(signed_root(document))

    def something_happens() -> None:
        for _ in range(3):
            site.submit(site.bundle(site="paris-1"), code=2)

    def arrived() -> bool:
        return centre.database.exists() and centre.events() == site_events(site)

    site.start(ready="connected to the broker")
    try:
        centre.start()
        assert centre.daemon is not None
        assert site.daemon is not None
        something_happens()
        until(arrived)

        centre.daemon.end(signal.SIGKILL)
        something_happens()
        centre.start()
        until(arrived)

        broker.end(signal.SIGKILL)
        something_happens()
        broker.start()
        until(arrived)

        site.daemon.end(signal.SIGKILL)
        site.start(ready="connected to the broker")
        something_happens()
        until(arrived)

        until(lambda: centre.status()["sites"][0]["backlog"] == 0)
        found = centre.status()
        assert found["alarms"] == []
        assert found["sites"][0]["online"] is True
        until(lambda: reporting(site)["backlog"] == 0)
        assert reporting(site)["refused_acks"] == 0
    finally:
        for daemon in (site.daemon, centre.daemon):
            if daemon is not None:
                daemon.end()
    assert second_verifier.verify(site.state_dir / "journal.sqlite")[1] == ""
    handed = [json.loads(line) for line in centre.lines.read_bytes().splitlines()]
    assert {one["seq"]: one["hash"] for one in handed} == {seq: digest for seq, digest, _ in centre.events()}
