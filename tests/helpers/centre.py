"""A centre and a site that reports to it, as processes: `edge collect`, `edge run`, and a broker between them.

site = site_at(folder / "site", uplink_table(broker, NAME))
centre = Centre(folder / "centre", uplink_table(broker, CENTRE), site)
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.reading.views import open_readonly
from edge.trust import load_public_key
from tests.helpers.mosquitto import Mosquitto
from tests.helpers.site import SITE, Daemon, SiteFolder
from tests.helpers.trust import root_document, signed_root

NAME = "berlin-1"
DEADLINE_S = 60.0

Events = list[tuple[int, str, bytes]]
"""Number, hash and bytes of each."""


def uplink_table(broker: Mosquitto, name: str, port: int | None = None) -> str:
    """The table of `name` at a Mosquitto; through a proxy at `port` if given."""
    files = broker.files(name)
    return (
        f'[uplink]\nkind = "mqtt"\nurl = "mqtts://127.0.0.1:{port or broker.port}"\n'
        f'ca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'
    )


def site_at(folder: Path, uplink: str) -> SiteFolder:
    """A site without machines."""
    folder.mkdir()
    site = SiteFolder(folder, machines="")
    site.config.write_text(SITE + uplink)
    return site


class Centre:
    """A collector's folder, and its process. The site's root is made to trust it."""

    def __init__(self, folder: Path, uplink: str, site: SiteFolder) -> None:
        self.config = folder / "collector.toml"
        self.database = folder / "state" / "collector.sqlite"
        self.lines = folder / "events.ndjson"
        self.daemon: Daemon | None = None
        assert self.edge("init", str(folder)).returncode == 0
        self.config.write_text(
            f'[collector]\nstate_dir = "state"\n{uplink}[[sites]]\nid = "{NAME}"\n'
            f'keys = ["{site.state_dir / "site.pub"}"]\n'
        )
        public = load_public_key(folder / "state" / "collector.pub")
        document = root_document()
        key = {"name": "collector", "algorithm": "ed25519", "public": public.public.hex()}
        document["keys"][public.keyid] = key
        document["roles"]["collector"] = {"threshold": 1, "keyids": [public.keyid]}
        (site.folder / "root.dsse.json").write_bytes(signed_root(document))

    def edge(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`edge collect`."""
        command = [sys.executable, "-m", "edge.cli.main", "collect", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def start(self, *options: str) -> None:
        """Start it, and wait until it is connected."""
        program = [sys.executable, "-m", "edge.cli.main", "collect", "--config", str(self.config), "--ndjson", *options]
        # What it says comes to us, what it hands on goes to the file.
        shell = ["/bin/sh", "-c", 'lines=$1; shift; exec "$@" 2>&1 >>"$lines"', "sh", str(self.lines), *program]
        process = subprocess.Popen(shell, stdout=subprocess.PIPE, text=True)
        self.daemon = Daemon(process)
        self.daemon.wait_line("connected")

    def count(self) -> int:
        """How many events are here."""
        if not self.database.exists():
            return 0
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            found: int = connection.execute("SELECT count(*) FROM events").fetchone()[0]
            return found

    def events(self) -> Events:
        """As they came here."""
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            return connection.execute("SELECT seq, hash, raw FROM events ORDER BY number").fetchall()

    def status(self) -> dict[str, Any]:
        """`edge collect status`."""
        found: dict[str, Any] = json.loads(self.edge("status", "--config", str(self.config), "--json").stdout)
        return found


@contextlib.contextmanager
def ended(site: SiteFolder, centre: Centre) -> Iterator[None]:
    """End both processes after the block."""
    try:
        yield
    finally:
        for daemon in (site.daemon, centre.daemon):
            if daemon is not None:
                daemon.end()


def site_events(site: SiteFolder) -> Events:
    """The same from the site's journal."""
    with open_readonly(site.state_dir) as snapshot:
        return snapshot.connection.execute("SELECT seq, hash, raw FROM events ORDER BY seq").fetchall()


def reporting(site: SiteFolder) -> dict[str, Any]:
    """How reporting goes, as the site sees it."""
    found: dict[str, Any] = site.json("status", code=None)["uplink"]["reporting"]
    return found
