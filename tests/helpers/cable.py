"""A USB cable between a host and a simulated printer that stays powered when the cable is pulled."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

END_S = 10.0


class Cable:
    """Made by `cable`. What is sent into a cable that is pulled is gone, and so is what the printer says then."""

    def __init__(self, printer: str, name: Path) -> None:
        self._name = name
        self._printer = os.open(printer, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._printer)
        self._host = -1
        self._lock = threading.Lock()
        self._wake, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._carry)
        self._ends = False

    def start(self) -> None:
        self._thread.start()

    def plug_in(self) -> None:
        """The port appears under its name, a new one each time."""
        host, port = pty.openpty()
        tty.setraw(port)
        with self._lock:
            self._host = host
        self._name.symlink_to(os.ttyname(port))
        os.close(port)
        os.write(self._woken, b"!")

    def pull(self) -> None:
        """The port disappears, and whoever has it open is hung up."""
        self._name.unlink()
        with self._lock:
            os.close(self._host)
            self._host = -1
        os.write(self._woken, b"!")

    def end(self) -> None:
        self._ends = True
        os.write(self._woken, b"!")
        self._thread.join(END_S)
        for end in (self._host, self._printer, self._wake, self._woken):
            if end >= 0:
                os.close(end)

    def _carry(self) -> None:
        while not self._ends:
            with self._lock:
                host = self._host
            ready, _, _ = select.select([self._printer, self._wake, *([host] if host >= 0 else [])], [], [])
            if self._wake in ready:
                os.read(self._wake, 64)
                continue
            with self._lock, contextlib.suppress(OSError):  # nobody has the port open
                if self._printer in ready:
                    said = os.read(self._printer, 4096)
                    if self._host >= 0:
                        os.write(self._host, said)
                if host in ready and host == self._host:
                    os.write(self._printer, os.read(host, 4096))


@contextlib.contextmanager
def cable(printer: str, name: Path) -> Iterator[Cable]:
    """From the pty `printer` to a port called `name`; plugged in."""
    made = Cable(printer, name)
    made.start()
    made.plug_in()
    try:
        yield made
    finally:
        made.end()
