"""What an operator reads when the way to the centre is wrong, from a real Mosquitto: in `edge check` while no daemon
runs, and in `edge status` and `edge check` while one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.uplink.mqtt import connect
from edge.uplink.tls import TlsFiles
from tests.helpers.certificates import Authority
from tests.helpers.mosquitto import CENTRE, Mosquitto
from tests.helpers.site import SITE, SiteFolder, until

NAME = "berlin-1"
SECRET = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _needs_mosquitto(mosquitto: str) -> None:
    """See conftest.py."""


class Impatient(SiteFolder):
    """Its daemon wonders after a second, and not after minutes, why no collector acknowledges."""

    def command(self, *words: str) -> list[str]:
        program = "from edge.uplink import service; service.SILENT_S = 1.0; from edge.cli.main import main; main()"
        command = super().command(*words)
        return command if words[0] != "run" else [sys.executable, "-c", program, *command[3:]]


class Case:
    """A site, its table `[uplink]`, and a broker that is not started yet."""

    def __init__(self, folder: Path, **broker: Any) -> None:
        self.folder = folder
        self.broker = Mosquitto(folder / "broker", **broker)
        self.other = Authority(folder, "other")
        self.site = Impatient(folder, machines="")
        self.table: dict[str, object] = {"kind": "mqtt", "url": f"mqtts://127.0.0.1:{self.broker.port}"}
        self.files(self.broker.files(NAME))

    def files(self, files: TlsFiles) -> None:
        self.table |= {"ca": files.ca, "certificate": files.certificate, "key": files.key}

    def login(self, password: str, mode: int = 0o600) -> Path:
        """Name and password instead of a certificate."""
        self.broker.users(**{NAME: SECRET, CENTRE: SECRET})
        path = self.folder / "password"
        path.write_text(password + "\n")
        path.chmod(mode)
        self.table |= {"user": NAME, "password_file": path}
        del self.table["certificate"], self.table["key"]
        return path

    def deny(self, what: str) -> None:
        acl = self.broker.folder / "acl"
        acl.write_text(acl.read_text().replace(f"pattern write mf/v1/%u/{what}\n", ""))

    def written(self) -> SiteFolder:
        lines = [f"{name} = {str(value)!r}" for name, value in self.table.items()]
        uplink = "\n".join(["\n[uplink]", "telemetry_every_s = 1.0", *lines, ""])
        self.site.config.write_text(SITE + '\n[time]\nsource = "host"\n' + uplink)
        return self.site


@contextlib.contextmanager
def ended(case: Case) -> Iterator[None]:
    try:
        yield
    finally:
        if case.site.daemon is not None:
            case.site.daemon.end()
        case.broker.end(signal.SIGTERM)


@contextlib.contextmanager
def running(case: Case, ready: str = "") -> Iterator[None]:
    """The broker runs and site.toml is written; with `ready` the daemon runs, too, and has said it."""
    with ended(case):
        case.broker.start()
        case.written()
        if ready:
            case.site.start(ready=ready)
        yield


def flat(said: str) -> str:
    """Without the line breaks of an 80-column terminal."""
    return " ".join(said.split())


def check(case: Case) -> str:
    done = case.site.edge("check")
    assert done.returncode == 1
    assert "uplink: " in done.stderr
    assert SECRET not in done.stdout + done.stderr
    return flat(done.stderr)


def told(case: Case, trouble: str, words: str) -> None:
    """The running daemon says it: as a word, in `edge status`, and in `edge check`."""
    until(lambda: case.site.live()["uplink"]["trouble"] == trouble)
    assert words in flat(case.site.edge("status").stdout)
    assert words in check(case)
    assert SECRET not in str(case.site.live())


def wrong_ca(case: Case) -> None:
    case.table["ca"] = case.other.certificate


def of_another_authority(case: Case) -> None:
    case.files(dataclasses.replace(case.other.issue(NAME), ca=case.broker.authority.certificate))


def expired(case: Case) -> None:
    case.files(case.broker.authority.issue("late", valid=timedelta(hours=-1)))


def no_certificate(case: Case) -> None:
    del case.table["certificate"], case.table["key"]


def plain(case: Case) -> None:
    case.table = {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{case.broker.port}"}


def wrong_password(case: Case) -> None:
    case.login("not-" + SECRET)


def unknown_user(case: Case) -> None:
    case.login(SECRET)
    case.table["user"] = "nobody"


def open_password(case: Case) -> None:
    case.login(SECRET, mode=0o644)


def no_password(case: Case) -> None:
    case.login(SECRET)
    del case.table["user"], case.table["password_file"]


CASES: dict[str, tuple[Callable[[Case], object], str, str]] = {
    "wrong CA": (wrong_ca, "wrong_ca", "is not signed by uplink.ca"),
    "our certificate is of another CA": (
        of_another_authority,
        "ours_refused",
        "does not accept the site's certificate",
    ),
    "our certificate has expired": (expired, "ours_expired", "has expired on"),
    "no certificate": (no_certificate, "no_certificate", "give uplink.certificate and uplink.key"),
    "no TLS": (plain, "no_mqtt", "it wants TLS, or speaks no MQTT 5"),
    "wrong password": (wrong_password, "wrong_password", "as the user 'berlin-1': the password in"),
    "unknown user": (unknown_user, "wrong_password", "as the user 'nobody': the password in"),
    "password for all to read": (open_password, "configuration", "others may read it (mode 0644); run: chmod 600"),
    "no password": (no_password, "refused", "perhaps it wants uplink.user and uplink.password_file"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_site_that_cannot_come_in_reads_why(tmp_path: Path, name: str) -> None:
    change, trouble, words = CASES[name]
    case = Case(tmp_path)
    change(case)
    with running(case):
        assert words in check(case)
        case.site.start(ready="is up")
        told(case, trouble, words)
        assert not case.site.live()["uplink"]["online"]


@pytest.mark.parametrize(
    ("broker", "trouble", "words"),
    [
        ({"valid": timedelta(hours=-1)}, "broker_expired", "has expired, or this host's clock is wrong"),
        ({"host": "broker.example"}, "wrong_host", "certificate is not for 127.0.0.1"),
    ],
)
def test_a_broker_with_a_wrong_certificate_is_named(
    tmp_path: Path, broker: dict[str, Any], trouble: str, words: str
) -> None:
    case = Case(tmp_path, **broker)
    with running(case):
        assert words in check(case)
        case.site.start(ready="is up")
        told(case, trouble, words)


def test_a_broker_that_is_gone_is_named_at_once_and_needs_a_hand_only_after_a_minute(tmp_path: Path) -> None:
    case = Case(tmp_path)
    with ended(case):
        words = "cannot be reached: connection refused"
        case.written()
        assert words in check(case).lower()
        case.broker.start()
        case.site.start(ready="connected to the broker")
        case.broker.end(signal.SIGKILL)
        until(lambda: case.site.live()["uplink"]["trouble"] == "unreachable")
        assert words in flat(case.site.edge("status").stdout).lower()
        assert case.site.live()["uplink"]["attention"] == []
        assert words in check(case).lower()


@pytest.mark.parametrize("what", ["out", "state", "link", "telemetry"])
def test_a_denied_topic_is_named(tmp_path: Path, what: str) -> None:
    case = Case(tmp_path)
    case.deny(what)
    with running(case):
        words = f"does not let this site write to mf/v1/berlin-1/{what}"
        assert words in check(case)
        case.site.start(ready="is up")
        if what != "telemetry":  # a site without machines has no values
            told(case, "denied", words)
            assert case.site.live()["uplink"]["online"]


def test_what_the_check_asks_means_nothing_to_the_centre_and_is_not_kept(tmp_path: Path) -> None:
    async def knock(case: Case) -> list[tuple[str, bytes]]:
        topics = [f"mf/v1/{NAME}/{what}" for what in ("out", "state", "link", "telemetry")]
        async with connect(case.broker.at(CENTRE), CENTRE, topics, session_s=0) as centre:
            for topic in topics:
                await centre.publish(topic, b"kept", retain=True)
            assert case.site.edge("check").stdout.count("answers") == 1
            found = []
            async with asyncio.timeout(20):
                async for message in centre.messages():
                    await message.ack()
                    found.append((message.topic, message.payload))
                    if len(found) == 2 * len(topics):
                        return found
        raise AssertionError("unreachable")

    async def kept(case: Case) -> set[bytes]:
        async with connect(case.broker.at(CENTRE), "another", [f"mf/v1/{NAME}/#"], session_s=0) as centre:
            messages = centre.messages()
            async with asyncio.timeout(20):
                return {(await anext(messages)).payload for _ in range(4)}

    case = Case(tmp_path)
    with running(case):
        found = asyncio.run(knock(case))
        assert sorted(payload for _, payload in found) == [b""] * 4 + [b"kept"] * 4
        assert asyncio.run(kept(case)) == {b"kept"}


def test_a_message_that_is_too_large_is_named_with_both_sizes(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.broker.configure(max_packet_size="400")
    with running(case, ready="is up"):
        told(case, "too_large", "bytes, the broker 127.0.0.1:")
        assert "takes 400" in flat(case.site.edge("status").stdout)


def test_a_broker_that_throws_out_what_is_too_large_is_not_taken_for_a_second_daemon(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.broker.configure(message_size_limit="300")
    with running(case, ready="is up"):
        told(case, "no_mqtt", "give it max_packet_size instead")


def test_a_broker_that_is_full_says_so_as_far_as_it_does(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.broker.configure(memory_limit="60000")
    with running(case, ready="is up"):
        told(case, "ended", "does not say why; it may be full: see its log")
        until(lambda: case.site.live()["uplink"]["attention"])  # again and again: it does not pass by itself


def test_a_broker_without_room_for_another_connection_is_named(tmp_path: Path) -> None:
    async def meanwhile(case: Case, then: Callable[[], object]) -> None:
        async with connect(case.broker.at(CENTRE), CENTRE, [], session_s=0):
            await asyncio.to_thread(then)

    said: list[str] = []
    case = Case(tmp_path)
    case.broker.configure(max_connections="1")
    with running(case):
        asyncio.run(meanwhile(case, lambda: said.append(check(case))))
    assert "before it says anything; it may be full: see its log" in said[0]


def test_a_broker_that_takes_all_while_no_collector_acknowledges_is_told(tmp_path: Path) -> None:
    case = Case(tmp_path)
    with running(case, ready="connected to the broker"):
        told(case, "no_acknowledgement", "takes what is reported, and no collector has acknowledged for")


def test_a_login_with_the_right_password_works_and_a_new_one_needs_no_restart(tmp_path: Path) -> None:
    case = Case(tmp_path)
    path = case.login(SECRET)
    with running(case):
        assert "answers" in case.site.edge("check").stdout
        case.site.start(ready="connected to the broker")
        case.broker.users(**{NAME: "another one"})
        case.broker.restart()
        told(case, "wrong_password", "as the user 'berlin-1': the password in")
        path.write_text("another one\n")
        until(lambda: case.site.live()["uplink"]["online"])
        log = (case.site.state_dir / "log" / "edge.log").read_text()
        assert "another one" not in log + str(case.site.live()) + str(case.site.daemon and case.site.daemon.lines)
        assert SECRET not in log
