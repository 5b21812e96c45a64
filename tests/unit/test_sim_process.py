"""`hil-sim printer` as a process, over its real wires."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from sim_rig import numbered

DEADLINE_S = 20.0


@contextmanager
def simulator(machine: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A running simulator and where it is, from its ready line."""
    command = [sys.executable, "-m", "hil_sim.main", machine, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            readable, _, _ = select.select([process.stdout], [], [], DEADLINE_S)
            assert readable, "no ready line"
            ready = process.stdout.readline().decode().split()
            assert ready[0] == "ready"
            yield process, ready[2]
        finally:
            process.terminate()
            assert process.wait(DEADLINE_S) in (0, -signal.SIGKILL)


def printer(*arguments: str) -> AbstractContextManager[tuple[subprocess.Popen[bytes], str]]:
    """A running printer."""
    return simulator("printer", *arguments)


@contextmanager
def tcp(where: str) -> Iterator[int]:
    host, port = where.split(":")
    with socket.create_connection((host, int(port)), DEADLINE_S) as connection:
        connection.setblocking(False)
        yield connection.fileno()


@contextmanager
def terminal(path: str | Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        tty.setraw(fd)
        yield fd
    finally:
        os.close(fd)


def read_until(fd: int, enough: Callable[[bytes], bool]) -> bytes:
    """What comes until it is enough; fails at the deadline."""
    seen = b""
    until = time.monotonic() + DEADLINE_S
    while not enough(seen):
        readable, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
        assert readable, f"only {seen!r} came"
        seen += os.read(fd, 4096)
    return seen


def ask(fd: int, text: str) -> bytes:
    """Send, and read up to and with the next line that begins with `ok`."""
    os.write(fd, text.encode())
    return read_until(
        fd, lambda seen: any(line.startswith(b"ok") for line in seen.splitlines()[-1:]) and seen[-1] == 10
    )


def test_a_print_goes_through_a_pseudo_terminal_fast_and_is_logged(tmp_path: Path) -> None:
    link, log = tmp_path / "printer", tmp_path / "log"
    count = 3000
    with printer("--pty", str(link), "--speed", "2000", "--log", str(log)), terminal(link) as fd:
        started_s = time.monotonic()
        for i in range(1, count + 1):
            assert ask(fd, numbered(i, f"G1 X{i % 100} Y{i % 7} F6000")).endswith(b"ok\n")
        assert time.monotonic() - started_s < DEADLINE_S
        rows = [row.split("\t") for row in log.read_text().splitlines()]
    assert rows[0][1:] == ["!", "boot"]
    assert [row[1] for row in rows[1:]] == [str(i) for i in range(1, count + 1)]
    assert rows[1][2] == "G1 X1 Y1 F6000"
    assert not link.is_symlink()


def test_the_line_counter_survives_a_host_that_closes_and_reopens(tmp_path: Path) -> None:
    link = tmp_path / "printer"
    with printer("--pty", str(link)):
        with terminal(link) as fd:
            ask(fd, numbered(1, "G90"))
            os.write(fd, b"M115\n")
        with terminal(link) as fd:
            assert read_answer(fd, numbered(999999999, "M105")) == b"Resend: 2"


def read_answer(fd: int, text: str) -> bytes:
    """The `Resend` line that `text` brings about, whatever else comes."""
    os.write(fd, b"\n" + text.encode())
    seen = read_until(fd, lambda seen: b"Resend: " in seen and seen.endswith(b"ok\n"))
    return next(line for line in seen.splitlines() if line.startswith(b"Resend"))


def test_tcp_resets_on_open_only_if_told_to() -> None:
    with printer("--tcp", "127.0.0.1:0") as (_, where):
        with tcp(where) as fd:
            ask(fd, numbered(1, "G90"))
        with tcp(where) as fd:
            assert read_answer(fd, numbered(99, "G90")) == b"Resend: 2"
    with printer("--tcp", "127.0.0.1:0", "--reset-on-open") as (_, where):
        for _attempt in range(2):
            with tcp(where) as fd:
                read_until(fd, lambda seen: seen.startswith(b"start\n") and b"PlannerBufferBytes" in seen)
                ask(fd, numbered(1, "G90"))


def test_a_pseudo_terminal_resets_on_open_if_told_to(tmp_path: Path) -> None:
    link = tmp_path / "printer"
    with printer("--pty", str(link), "--reset-on-open"), terminal(link) as fd:
        assert read_until(fd, lambda seen: b"PlannerBufferBytes" in seen).startswith(b"start\n")


def test_sigusr1_is_the_reset_button() -> None:
    with printer("--tcp", "127.0.0.1:0") as (process, where), tcp(where) as fd:
        os.write(fd, b"M112\n")
        read_until(fd, lambda seen: seen.endswith(b"//action:poweroff\n"))
        process.send_signal(signal.SIGUSR1)
        read_until(fd, lambda seen: b"PlannerBufferBytes" in seen)
        assert ask(fd, numbered(1, "G90")) == b"ok\n"


def test_a_baud_rate_paces_both_directions() -> None:
    with printer("--tcp", "127.0.0.1:0", "--baud", "9600") as (_, where), tcp(where) as fd:
        started_s = time.monotonic()
        answer = ask(fd, "M115\n")
        assert time.monotonic() - started_s > 0.9 * (len(answer) + 5) / 960


def test_time_passes_faster_with_speed() -> None:
    with printer("--tcp", "127.0.0.1:0", "--speed", "1000") as (_, where), tcp(where) as fd:
        started_s = time.monotonic()
        assert ask(fd, "G4 S500\n").endswith(b"ok\n")
        assert 0.4 < time.monotonic() - started_s < 5.0


def test_the_log_survives_a_killed_simulator(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with printer("--tcp", "127.0.0.1:0", "--log", str(log)) as (process, where), tcp(where) as fd:
        ask(fd, numbered(1, "G90"))
        process.kill()
        process.wait(DEADLINE_S)
    assert log.read_text().endswith("\t1\tG90\n")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--tcp", "nowhere"],
        ["--tcp", "127.0.0.1:0", "--pty", "x"],
        ["--pty", "/nonexistent/dir/printer"],
        ["--tcp", "127.0.0.1:0", "--fault", "fire"],
        ["--tcp", "127.0.0.1:0", "--log", "/nonexistent/log"],
        ["--tcp", "127.0.0.1:0", "--speed", "0"],
    ],
)
def test_bad_arguments_are_one_line_and_exit_2(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "hil_sim.main", "printer", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)


def test_a_port_in_use_is_one_line_and_exit_2() -> None:
    with printer("--tcp", "127.0.0.1:0") as (_, where):
        command = [sys.executable, "-m", "hil_sim.main", "printer", "--tcp", where]
        result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert result.returncode == 2
    assert result.stderr == f"hil-sim printer: cannot listen on {where}: Address already in use\n"
