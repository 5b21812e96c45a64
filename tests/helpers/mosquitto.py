"""A real Mosquitto with its own configuration on a free port of 127.0.0.1; it can be killed and started again.

with Mosquitto.begin(folder, authority) as broker:
    async with connect(broker.at("berlin-1"), "berlin-1", ["mf/v1/berlin-1/in"]) as uplink: …
"""

from __future__ import annotations

import contextlib
import getpass
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from edge.uplink.broker import Broker
from edge.uplink.tls import TlsFiles
from tests.helpers.certificates import Authority

DEADLINE_S = 20.0
HOST = "127.0.0.1"
CENTRE = "centre"

LISTENING = " running\n"
"""How the line of its log ends that it writes when its listeners are open."""

CONFIG = """\
user {user}
per_listener_settings false
listener {port} 127.0.0.1
protocol mqtt
cafile {ca}
certfile {certificate}
keyfile {key}
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file {folder}/acl
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
max_queued_messages 100000
max_packet_size 262144
log_dest file {folder}/mosquitto.log
"""

ACL = """\
user centre
topic readwrite mf/v1/#

pattern read mf/v1/%u/in
pattern read mf/v1/%u/ack
pattern write mf/v1/%u/out
pattern write mf/v1/%u/state
pattern write mf/v1/%u/link
pattern write mf/v1/%u/telemetry
"""


def program() -> str:
    """Where Mosquitto is installed. Raises `FileNotFoundError`."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError("Mosquitto is missing: run these tests with `make peers`, which installs it")
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


class Mosquitto:
    """The broker's process, its files, and the certificates of those that may speak to it."""

    def __init__(self, folder: Path, host: str = HOST, valid: timedelta = timedelta(days=1)) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.authority = Authority(folder)
        self.port = free_port()
        files = self.authority.issue("broker", host, valid)
        (folder / "acl").write_text(ACL)
        config = CONFIG.format(
            user=getpass.getuser(),  # started by root it would become another user, who may not read the test's files
            port=self.port,
            folder=folder,
            ca=files.ca,
            certificate=files.certificate,
            key=files.key,
        )
        (folder / "mosquitto.conf").write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextlib.contextmanager
    def begin(cls, folder: Path, host: str = HOST, valid: timedelta = timedelta(days=1)) -> Iterator[Mosquitto]:
        """A running broker, ended after the block."""
        broker = cls(folder, host, valid)
        broker.start()
        try:
            yield broker
        finally:
            broker.end(signal.SIGTERM)

    def configure(self, **lines: str) -> None:
        """Other lines of its configuration; it has them when it is started again."""
        path = self.folder / "mosquitto.conf"
        kept = [line for line in path.read_text().splitlines() if line.split(" ")[0] not in lines]
        path.write_text("\n".join([*kept, *(f"{name} {value}" for name, value in lines.items()), ""]))

    def users(self, **passwords: str) -> None:
        """Let users in by their passwords, with no certificate."""
        path = self.folder / "passwords"
        path.touch()
        for user, password in passwords.items():
            done = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
            subprocess.run([done, "-b", path, user, password], check=True, capture_output=True, timeout=DEADLINE_S)
        self.configure(
            require_certificate="false",
            use_identity_as_username="false",
            password_file=str(path),
            acl_file=str(self.folder / "acl"),
        )

    def restart(self) -> None:
        """End it and start it anew."""
        self.end(signal.SIGTERM)
        self.start()

    def start(self) -> None:
        """Start it, or start it again, and wait until it says that it listens.

        It is not asked by a connection: Mosquitto 2.0.11 counts one that is dropped within its TLS handshake as minus
        one from then on, and `max_connections` lets another client in.
        """
        before = self.log().count(LISTENING)
        self._process = subprocess.Popen([program(), "-c", self.folder / "mosquitto.conf"])
        deadline_s = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        while self.log().count(LISTENING) == before:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline_s, "Mosquitto does not listen"
            pause.wait(0.02)

    def end(self, number: signal.Signals) -> None:
        """End it in this way."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE_S)
            self._process = None

    def reload(self) -> None:
        """Read the access list anew."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def has_saved(self, what: bytes) -> bool:
        """Whether this is in the file that outlives a kill."""
        path = self.folder / "mosquitto.db"
        return path.exists() and what in path.read_bytes()

    def log(self) -> str:
        """What it has logged."""
        path = self.folder / "mosquitto.log"
        return path.read_text() if path.exists() else ""

    def at(self, name: str, port: int | None = None) -> Broker:
        """The broker for `name`, with a certificate of its own; through a proxy at `port` if given."""
        return Broker(HOST, port or self.port, self.files(name))

    def files(self, name: str) -> TlsFiles:
        """The certificate of `name`, made when it is first asked for."""
        made = TlsFiles(self.authority.certificate, self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return made if made.certificate is not None and made.certificate.exists() else self.authority.issue(name)
