"""Bytes over a serial port or TCP; no protocol.

A `Link` moves bytes between a file descriptor and two callbacks on the running event loop. Opening a serial port causes
no more than the kernel does by itself: DTR rises once on open (most AVR boards reset on that edge if it was low), and
HUPCL is cleared so that closing does not drop it again; a daemon that restarts finds its printer as it left it. Raw
termios and the port's lock come from pyserial.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import serial

from edge.driver import ConnectError

Address: TypeAlias = tuple[Any, ...]
"""What `socket` takes; its shape depends on the family."""

LOCK_FILES = Path("/var/lock")
"""Where programs such as minicom say which ports they use."""

READ_BYTES = 256
"""Nearly all that a machine says is ``ok``: room for a page of text would be allocated for each of them."""

WRITE_BUFFER_MAX_BYTES = 64 * 1024
"""More waiting to be written than this means that the other side has stopped reading: the link is given up."""


class Link:
    """An open connection. Owns `source` (a serial port or a socket) and closes it."""

    def __init__(
        self,
        source: serial.Serial | socket.socket,
        on_bytes: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._source = source
        self._fd: int = source.fileno()
        self._on_bytes = on_bytes
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._unwritten = bytearray()
        self._closed = False
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._readable)

    def write(self, data: bytes) -> None:
        """Write now what the descriptor takes, the rest as soon as it takes more. Never blocks; nothing after close."""
        if self._closed or not data:
            return
        if not self._unwritten:
            written = self._write_some(data)
            if written == len(data):
                return
            data = data[written:]
        if not self._closed:
            if not self._unwritten:
                self._loop.add_writer(self._fd, self._writable)
            self._unwritten += data
            if len(self._unwritten) > WRITE_BUFFER_MAX_BYTES:
                self._lose("the machine has stopped reading")

    def set_dtr(self, raised: bool) -> bool:
        """Raise or drop DTR; False where there is none: TCP, a pseudo-terminal, a port that is gone (tty_ioctl(4))."""
        if self._closed or not isinstance(self._source, serial.Serial):
            return False
        request = termios.TIOCMBIS if raised else termios.TIOCMBIC
        try:
            fcntl.ioctl(self._fd, request, struct.pack("i", termios.TIOCM_DTR))
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go. Idempotent; sends nothing."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._source.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write_some(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._lose(_words(error))
            return 0

    def _writable(self) -> None:
        del self._unwritten[: self._write_some(self._unwritten)]
        if not self._unwritten and not self._closed:
            self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(_words(error))
            return
        if data:
            self._on_bytes(data)
        else:
            self._lose("the other side closed the connection")

    def _lose(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._on_lost(reason)


def open_serial(port: str, baud: int, on_bytes: Callable[[bytes], None], on_lost: Callable[[str], None]) -> Link:
    """Open a serial port (8N1, raw, exclusive). Raises `ConnectError` in words, naming who holds the port."""
    look_at_port(port)
    try:
        device = serial.Serial(port, baud, timeout=0, write_timeout=0, exclusive=True)
    except (serial.SerialException, OSError, ValueError) as error:
        raise ConnectError(_why_not(port, error)) from error
    try:
        attributes = termios.tcgetattr(device.fileno())
        attributes[2] &= ~termios.HUPCL
        termios.tcsetattr(device.fileno(), termios.TCSANOW, attributes)
    except termios.error as error:
        device.close()
        raise ConnectError(f"the port {port} went away while it was opened") from error
    return Link(device, on_bytes, on_lost)


async def open_tcp(
    url: str, deadline_s: float, on_bytes: Callable[[bytes], None], on_lost: Callable[[str], None]
) -> Link:
    """Connect to ``tcp://host:port`` before `deadline_s` (event loop time). Raises `ConnectError` in words."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(deadline_s):
            found = await loop.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
            peer = await _connected([(family, address) for family, _, _, _, address in found], deadline_s)
    except TimeoutError as error:
        raise ConnectError(f"nobody answers at {url}") from error
    except OSError as error:
        raise ConnectError(f"nobody answers at {url}: {_words(error)}") from error
    return Link(peer, on_bytes, on_lost)


async def _connected(addresses: list[tuple[int, Address]], deadline_s: float) -> socket.socket:
    """A connection to the first that takes it: a name such as `localhost` has one for each family.

    Each has its share of the time that is left: one that nobody answers at must not use up that of the next.
    """
    loop = asyncio.get_running_loop()
    for left, (family, address) in zip(range(len(addresses), 1, -1), addresses, strict=False):
        now_s = loop.time()
        with contextlib.suppress(OSError):  # a time-out is one, too
            async with asyncio.timeout_at(now_s + (deadline_s - now_s) / left):
                return await _connect(family, address)
    return await _connect(*addresses[-1])


async def _connect(family: int, address: Address) -> socket.socket:
    peer = socket.socket(family, socket.SOCK_STREAM)
    try:
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(peer, address)
    except BaseException:
        peer.close()
        raise
    return peer


def look_at_port(port: str) -> None:
    """Whether `port` could be opened, without opening it. Raises `ConnectError` in words."""
    path = Path(port)
    if not path.exists():
        raise ConnectError(f"the port {port} does not exist")
    if not path.is_char_device():
        raise ConnectError(f"{port} is no serial port")
    if holder := holder_of(path):
        raise ConnectError(f"the port {port} is held by {holder}")
    if not os.access(path, os.R_OK | os.W_OK):
        raise ConnectError(f"no permission to use the port {port}; its group is usually 'dialout'")


def holder_of(port: Path) -> str | None:
    """``name (process id)`` of another process that has `port` open, as far as /proc lets us see.

    Of other users' processes only those that have locked it, or left a lock file; what merely has it open, nobody else
    is told. The process that made a pseudo-terminal is its other side, not its holder.
    """
    port = port.resolve()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            opened = _opened_by(entry)
            if str(port) in opened.values() and not _made_pty(entry, port, opened):
                return _process(entry.name)
        except OSError:
            continue  # gone meanwhile, or another user's
    return _locker_of(port)


def _opened_by(process: Path) -> dict[str, str]:
    return {fd.name: str(fd.readlink()) for fd in (process / "fd").iterdir()}


def _process(pid: str) -> str:
    return f"{(Path('/proc') / pid / 'comm').read_text().strip()} (process {pid})"


def _locker_of(port: Path) -> str | None:
    """By the kernel's list of locks (proc_locks(5)), and by lock files (FHS 3.0, 5.9)."""
    pids: list[str] = []
    with contextlib.suppress(OSError):
        node = port.stat()
        place = f"{os.major(node.st_dev):02x}:{os.minor(node.st_dev):02x}:{node.st_ino}"
        # `1: FLOCK  ADVISORY  WRITE 4242 00:05:613 0 EOF`; one that waits has `->` behind the number.
        rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        pids += [row[4] for row in rows if len(row) > 5 and row[5] == place]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        pids.append((LOCK_FILES / f"LCK..{port.name}").read_text("ascii").strip())
    for pid in pids:
        if pid.isdigit() and int(pid) != os.getpid():
            with contextlib.suppress(OSError):  # it is gone
                return _process(pid)
    return None


def _made_pty(process: Path, port: Path, opened: dict[str, str]) -> bool:
    """Whether `process` holds the master of the pseudo-terminal `port` (proc(5), ``tty-index`` in fdinfo)."""
    masters = (fd for fd, name in opened.items() if name.endswith("ptmx"))
    return port.parent == Path("/dev/pts") and any(
        f"tty-index:\t{port.name}\n" in (process / "fdinfo" / fd).read_text() for fd in masters
    )


def _why_not(port: str, error: Exception) -> str:
    if getattr(error, "errno", None) in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return f"the port {port} is held by another process"
    return f"the port {port} cannot be opened: {_words(error)}"


def _words(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.errno is not None and error.errno > 0:  # asyncio puts the address into the text; those of gaierror are < 0
        return os.strerror(error.errno)
    return error.strerror or str(error)
