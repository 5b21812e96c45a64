"""The wire a simulated machine hangs on: a pseudo-terminal or a TCP port, and the pace of a serial line.

Both wires are non-blocking file descriptors in the running event loop. Nobody at the other end means that what is sent
is lost, as on a serial line. A host that does not read, or asks for more than its baud rate carries, loses the answers
(whole ones) that do not fit into `MAX_UNSENT_BYTES`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import select
import socket
import termios
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

READ_BYTES = 4096
MAX_UNSENT_BYTES = 65536
PTY_LOOK_S = 0.02
"""How often a closed pseudo-terminal is looked at: the kernel does not announce that somebody opens it."""
PACE_TICK_S = 0.001
"""The event loop's timers are not finer than this."""

OnBytes = Callable[[bytes], None]
OnChange = Callable[[], None]


class WireError(Exception):
    """The wire cannot be made; the text is for the person who asked for it."""


class Wire(Protocol):
    """One machine's end of a connection that hosts open and close."""

    def describe(self) -> str:
        """What a host connects to, as in `ready …`."""

    def start(self, on_bytes: OnBytes, on_open: OnChange, on_close: OnChange) -> None:
        """Begin to listen; needs a running event loop."""

    def send(self, data: bytes) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...


class _Channel:
    """A non-blocking file descriptor with something at the other end, until `on_end`."""

    def __init__(self, fd: int, on_bytes: OnBytes, on_end: OnChange) -> None:
        self._fd = fd
        self._on_bytes = on_bytes
        self._on_end = on_end
        self._unsent = b""
        self._loop = asyncio.get_running_loop()
        self.resume()

    def pause(self) -> None:
        self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        self._loop.add_reader(self._fd, self._readable)

    def send(self, data: bytes) -> None:
        if self._unsent:
            if len(self._unsent) + len(data) <= MAX_UNSENT_BYTES:
                self._unsent += data
            return
        rest = self._write(data)
        if rest:
            self._unsent = rest
            self._loop.add_writer(self._fd, self._writable)

    def detach(self) -> None:
        """Let go of the descriptor, which stays open."""
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)

    def _write(self, data: bytes) -> bytes:
        try:
            return data[os.write(self._fd, data) :]
        except BlockingIOError:
            return data
        except OSError:
            # The other end is gone; reading says so, too, and ends the channel.
            return b""

    def _writable(self) -> None:
        self._unsent = self._write(self._unsent)
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._on_bytes(data)
        else:
            self.detach()
            self._on_end()


class PtyWire:
    """A pseudo-terminal in raw mode, with a symbolic link to it that hosts open like a serial device."""

    def __init__(self, link: Path) -> None:
        """Makes both. A symbolic link that is there already is replaced; anything else raises `WireError`."""
        self._link = link
        self._channel: _Channel | None = None
        self._look: asyncio.TimerHandle | None = None
        try:
            self._master, slave = pty.openpty()
        except OSError as error:
            raise WireError(f"no pseudo-terminal to be had: {error.strerror}") from error
        self.device = os.ttyname(slave)
        tty.setraw(slave)
        os.close(slave)
        os.set_blocking(self._master, False)
        try:
            if link.is_symlink():
                link.unlink()
            link.symlink_to(self.device)
        except OSError as error:
            os.close(self._master)
            raise WireError(f"cannot make the link {link}: {error.strerror}") from error

    def describe(self) -> str:
        return f"pty {self.device}"

    def start(self, on_bytes: OnBytes, on_open: OnChange, on_close: OnChange) -> None:
        self._on_bytes, self._on_open, self._on_close = on_bytes, on_open, on_close
        self._look_for_host()

    def send(self, data: bytes) -> None:
        if self._channel:
            self._channel.send(data)

    def pause_reading(self) -> None:
        if self._channel:
            self._channel.pause()

    def resume_reading(self) -> None:
        if self._channel:
            self._channel.resume()

    def close(self) -> None:
        if self._look:
            self._look.cancel()
        if self._channel:
            self._channel.detach()
        os.close(self._master)
        with contextlib.suppress(OSError):
            if self._link.readlink() == Path(self.device):
                self._link.unlink()

    def _look_for_host(self) -> None:
        self._look = None
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        state = dict(poll.poll(0)).get(self._master, 0)
        if state & select.POLLHUP and not state & select.POLLIN:
            self._look = asyncio.get_running_loop().call_later(PTY_LOOK_S, self._look_for_host)
            return
        self._channel = _Channel(self._master, self._on_bytes, self._end)
        self._on_open()

    def _end(self) -> None:
        self._channel = None
        self._drop_unread()
        self._on_close()
        self._look_for_host()

    def _drop_unread(self) -> None:
        # A pseudo-terminal keeps what the last host has not read and hands it to the next; a serial port does not.
        slave = os.open(self.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            termios.tcflush(slave, termios.TCIFLUSH)
        finally:
            os.close(slave)


class TcpWire:
    """A TCP port for one host at a time; a new connection takes the place of the one before it."""

    def __init__(self, host: str, port: int) -> None:
        """Binds at once; port 0 takes any free one. Raises `WireError`."""
        self._connection: socket.socket | None = None
        self._channel: _Channel | None = None
        try:
            self._listener = socket.create_server((host, port))
        except OSError as error:
            reason = str(error.strerror or error).partition(" (")[0]
            raise WireError(f"cannot listen on {host}:{port}: {reason}") from error
        self._listener.setblocking(False)

    def describe(self) -> str:
        host, port = self._listener.getsockname()[:2]
        return f"tcp {host}:{port}"

    def start(self, on_bytes: OnBytes, on_open: OnChange, on_close: OnChange) -> None:
        self._on_bytes, self._on_open, self._on_close = on_bytes, on_open, on_close
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def send(self, data: bytes) -> None:
        if self._channel:
            self._channel.send(data)

    def pause_reading(self) -> None:
        if self._channel:
            self._channel.pause()

    def resume_reading(self) -> None:
        if self._channel:
            self._channel.resume()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._hang_up()

    def _accept(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        if self._connection:
            self._end()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._channel = _Channel(connection.fileno(), self._on_bytes, self._end)
        self._on_open()

    def _end(self) -> None:
        self._hang_up()
        self._on_close()

    def _hang_up(self) -> None:
        if self._channel:
            self._channel.detach()
            self._channel = None
        if self._connection:
            self._connection.close()
            self._connection = None


class Pace:
    """Lets bytes through at a baud rate of real time (ten bits a byte), or at once."""

    def __init__(self, baud: int | None, deliver: OnBytes, on_empty: OnChange | None) -> None:
        """`on_empty` is called when all that was held back has been delivered."""
        self._bytes_per_s = baud / 10.0 if baud else 0.0
        self._deliver = deliver
        self._on_empty = on_empty
        self._held = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._credit_from_s = 0.0

    def push(self, data: bytes) -> bool:
        """Deliver `data` now or bit by bit; whether it is held back. What does not fit into the bound is lost."""
        if not data:
            return False
        if not self._bytes_per_s:
            self._deliver(data)
            return False
        if self._timer is None:
            self._credit_from_s = time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(PACE_TICK_S, self._tick)
        if len(self._held) + len(data) <= MAX_UNSENT_BYTES:
            self._held += data
        return True

    def clear(self) -> None:
        """Forget what is held back."""
        self._held.clear()
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        count = int((time.monotonic() - self._credit_from_s) * self._bytes_per_s)
        self._credit_from_s += count / self._bytes_per_s
        self._timer = None
        if count < len(self._held):
            self._timer = asyncio.get_running_loop().call_later(PACE_TICK_S, self._tick)
        part = bytes(self._held[:count])
        del self._held[:count]
        if part:
            self._deliver(part)
        if self._timer is None and self._on_empty:
            self._on_empty()
