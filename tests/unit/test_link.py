"""Bytes over real pseudo-terminals and sockets."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers import link
from edge.driver import ConnectError

DEADLINE_S = 10.0


class Ear:
    """What a link tells."""

    def __init__(self) -> None:
        self.data = b""
        self.reasons: list[str] = []
        self._changed = asyncio.Event()

    def heard(self, data: bytes) -> None:
        self.data += data
        self._changed.set()

    def lost(self, reason: str) -> None:
        self.reasons.append(reason)
        self._changed.set()

    async def change(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self._changed.wait()
        self._changed.clear()


@contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: the machine's side, and the path that a host opens."""
    master, slave = pty.openpty()
    path = os.ttyname(slave)
    os.close(slave)
    try:
        yield master, path
    finally:
        os.close(master)


@contextmanager
def python(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which ends when its input does."""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.communicate(timeout=DEADLINE_S)


def said_by(process: subprocess.Popen[bytes]) -> str:
    """The line that it prints when it is ready."""
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], DEADLINE_S)[0]
    return process.stdout.readline().decode().strip()


async def test_bytes_go_both_ways_and_a_port_that_closes_is_lost_once() -> None:
    ear = Ear()
    master, slave = pty.openpty()
    path = os.ttyname(slave)
    with link.open_serial(path, 115200, ear.heard, ear.lost) as line:
        os.close(slave)
        line.write(b"M115\n\x00\x1b")
        assert os.read(master, 100) == b"M115\n\x00\x1b"
        os.write(master, b"ok\r\n")
        await ear.change()
        assert ear.data == b"ok\r\n"
        os.close(master)
        await ear.change()
        assert len(ear.reasons) == 1
        line.write(b"more")
    assert len(ear.reasons) == 1


async def test_a_serial_port_is_raw_and_keeps_dtr_when_it_is_closed() -> None:
    ear = Ear()
    with terminal() as (master, path):
        hosts = os.open(path, os.O_RDWR | os.O_NOCTTY)
        with link.open_serial(path, 115200, ear.heard, ear.lost):
            flags = termios.tcgetattr(hosts)
            assert not flags[2] & termios.HUPCL
            assert not flags[3] & (termios.ICANON | termios.ECHO)
        os.close(hosts)
        assert master


def test_a_port_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConnectError, match="the port /dev/nothing does not exist"):
        link.look_at_port("/dev/nothing")


async def test_what_is_no_serial_port_is_refused_in_words(tmp_path: Path) -> None:
    ear = Ear()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConnectError, match="is no serial port"):
        link.open_serial(str(file), 115200, ear.heard, ear.lost)
    with pytest.raises(ConnectError, match="the port /dev/full cannot be opened: "):
        link.open_serial("/dev/full", 115200, ear.heard, ear.lost)


async def test_a_port_that_another_process_holds_names_it() -> None:
    ear = Ear()
    with terminal() as (_, path):
        code = f"import os, sys; os.open({path!r}, os.O_RDWR | os.O_NOCTTY); print(flush=True); sys.stdin.read()"
        with python(code) as holder:
            said_by(holder)
            name = Path(f"/proc/{holder.pid}/comm").read_text().strip()
            assert link.holder_of(Path(path)) == f"{name} (process {holder.pid})"
            with pytest.raises(ConnectError, match=rf"is held by {name} \(process {holder.pid}\)"):
                link.open_serial(path, 115200, ear.heard, ear.lost)
        assert link.holder_of(Path(path)) is None


@pytest.mark.parametrize("way", ["a lock", "a lock file"])
async def test_a_process_of_another_user_that_holds_a_port_is_named_by_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """What a process has open, only its own user sees (proc(5)); the service has a user of its own."""

    def nothing(process: Path) -> dict[str, str]:
        raise PermissionError

    monkeypatch.setattr(link, "_opened_by", nothing)
    monkeypatch.setattr(link, "LOCK_FILES", tmp_path)
    ear = Ear()
    with terminal() as (_, path):
        locks = "fcntl.flock(port, fcntl.LOCK_EX); " if way == "a lock" else ""
        code = f"import fcntl, os, sys; port = os.open({path!r}, os.O_RDWR | os.O_NOCTTY); {locks}print(flush=True)"
        with python(f"{code}; sys.stdin.read()") as holder:
            said_by(holder)
            if way == "a lock file":
                (tmp_path / f"LCK..{Path(path).name}").write_text(f"{holder.pid:10d}\n")
            name = Path(f"/proc/{holder.pid}/comm").read_text().strip()
            with pytest.raises(ConnectError, match=rf"is held by {name} \(process {holder.pid}\)"):
                link.open_serial(path, 115200, ear.heard, ear.lost)
        assert link.holder_of(Path(path)) is None, "a lock file that somebody has left behind holds nothing"


@pytest.mark.parametrize("content", ["", "nobody\n", "0\n"])
def test_a_lock_file_that_names_no_process_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(link, "LOCK_FILES", tmp_path)
    with terminal() as (_, path):
        (tmp_path / f"LCK..{Path(path).name}").write_text(content)
        assert link.holder_of(Path(path)) is None


async def test_a_port_that_this_process_holds_is_not_opened_twice() -> None:
    ear = Ear()
    with (
        terminal() as (_, path),
        link.open_serial(path, 115200, ear.heard, ear.lost),
        pytest.raises(ConnectError, match="is held by another process"),
    ):
        link.open_serial(path, 115200, ear.heard, ear.lost)


def test_the_process_that_made_a_pseudo_terminal_is_not_its_holder() -> None:
    code = "import os, pty, sys; m, s = pty.openpty(); print(os.ttyname(s), flush=True); sys.stdin.read()"
    with python(code) as maker:
        assert link.holder_of(Path(said_by(maker))) is None


async def test_tcp_finds_the_address_that_answers() -> None:
    ear = Ear()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        deadline_s = asyncio.get_running_loop().time() + DEADLINE_S
        with await link.open_tcp(f"tcp://localhost:{port}", deadline_s, ear.heard, ear.lost) as line:
            peer, _ = server.accept()
            with peer:
                line.write(b"M115\n")
                assert peer.recv(100) == b"M115\n"
                peer.sendall(b"ok\n")
                await ear.change()
                assert ear.data == b"ok\n"
            await ear.change()
            assert ear.reasons == ["the other side closed the connection"]


async def test_tcp_that_refuses_is_named() -> None:
    ear = Ear()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    deadline_s = asyncio.get_running_loop().time() + DEADLINE_S
    with pytest.raises(ConnectError, match=rf"tcp://127.0.0.1:{port}: .*(refused|failed)"):
        await link.open_tcp(f"tcp://127.0.0.1:{port}", deadline_s, ear.heard, ear.lost)


@contextmanager
def nobody_answers() -> Iterator[tuple[str, int]]:
    """An address that takes what comes and says nothing: a backlog that is full."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()
        for filler in fillers:
            filler.close()


async def test_tcp_that_does_not_answer_ends_at_its_deadline() -> None:
    ear = Ear()
    with nobody_answers() as address:
        deadline_s = asyncio.get_running_loop().time() + 0.05
        with pytest.raises(ConnectError, match="nobody answers at tcp://"):
            await link.open_tcp(f"tcp://127.0.0.1:{address[1]}", deadline_s, ear.heard, ear.lost)


async def test_an_address_that_nobody_answers_at_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with the name of a host that has IPv6 and whose IPv6 leads nowhere."""
    ear, loop = Ear(), asyncio.get_running_loop()
    with nobody_answers() as deaf, socket.create_server(("127.0.0.1", 0)) as server:

        async def found(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in (deaf, deaf, server.getsockname())]

        monkeypatch.setattr(loop, "getaddrinfo", found)
        with await link.open_tcp("tcp://printer.local:23", loop.time() + 3.0, ear.heard, ear.lost):
            server.accept()[0].close()


async def test_what_does_not_fit_is_written_when_there_is_room_and_nothing_blocks() -> None:
    ear = Ear()
    ours, theirs = socket.socketpair()
    with theirs, link.Link(ours, ear.heard, ear.lost) as line:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent = b"".join(b"%06d\n" % i for i in range(5000))
        for start in range(0, len(sent), 700):
            line.write(sent[start : start + 700])
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        seen = b""
        async with asyncio.timeout(DEADLINE_S):
            while len(seen) < len(sent):
                seen += await loop.sock_recv(theirs, 4096)
        assert seen == sent


async def test_a_machine_that_has_stopped_reading_is_given_up() -> None:
    ear = Ear()
    ours, theirs = socket.socketpair()
    with theirs, link.Link(ours, ear.heard, ear.lost) as line:
        while not ear.reasons:
            line.write(b"x" * 10_000)
        assert ear.reasons == ["the machine has stopped reading"]


async def test_a_broken_pipe_is_a_loss_and_no_exception() -> None:
    ear = Ear()
    ours, theirs = socket.socketpair()
    with link.Link(ours, ear.heard, ear.lost) as line:
        theirs.close()
        line.write(b"M105\n")
        assert len(ear.reasons) == 1
        line.close()


async def test_dtr_is_where_there_is_a_line_for_it_and_nowhere_else() -> None:
    with terminal() as (_, path):
        opened = link.open_serial(path, 115200, lambda data: None, lambda reason: None)
        with opened:
            assert not opened.set_dtr(False), "a pseudo-terminal has no such line"
        assert not opened.set_dtr(True), "a closed port has none either"
    here, there = socket.socketpair()
    with there, link.Link(here, lambda data: None, lambda reason: None) as over_tcp:
        assert not over_tcp.set_dtr(False)


async def test_dtr_is_dropped_and_raised_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, bytes]] = []
    with terminal() as (_, path), link.open_serial(path, 115200, lambda data: None, lambda reason: None) as opened:
        monkeypatch.setattr(link.fcntl, "ioctl", lambda fd, request, bits: asked.append((request, bits)))
        assert opened.set_dtr(False)
        assert opened.set_dtr(True)
    bits = termios.TIOCM_DTR.to_bytes(4, sys.byteorder)
    assert asked == [(termios.TIOCMBIC, bits), (termios.TIOCMBIS, bits)]
