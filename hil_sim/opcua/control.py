"""What a test says to a simulated machine beside its OPC UA server: one line `NAME[=ARG]`, one line of JSON back.

It has a thread of its own, so that it answers while the server is frozen. The answer is `{"ok": …}` with what the
machine has to say, or `{"error": "…"}` with a sentence for the person who typed it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import socketserver
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from hil_sim.faults import FaultError
from hil_sim.wire import WireError

ANSWER_S = 60.0

Command = Callable[[str, str], Any]
"""Carries out what is said, in the event loop; raises `FaultError`."""


class Control:
    """The control channel of one machine."""

    def __init__(self, address: tuple[str, int], loop: asyncio.AbstractEventLoop, command: Command) -> None:
        """Binds at once; raises `WireError`. `command` is called in `loop`."""
        self._loop = loop
        self._command = command
        self._thaw = threading.Event()
        control = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    answer = control.answer(line.decode("utf-8", "replace").strip())
                    self.wfile.write(json.dumps(answer).encode() + b"\n")

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        try:
            self._server = socketserver.ThreadingTCPServer(address, Handler)
        except OSError as error:
            reason = str(error.strerror or error).partition(" (")[0]
            raise WireError(f"cannot listen on {address[0]}:{address[1]}: {reason}") from error
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="control", daemon=True)

    def describe(self) -> str:
        """`host:port`."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks until nobody is served any more."""
        self._thaw.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, line: str) -> dict[str, Any]:
        """Called in the channel's own thread."""
        name, _, argument = line.partition("=")
        try:
            match name:
                case "freeze":
                    self._freeze(argument)
                    return {"ok": None}
                case "thaw":
                    self._thaw.set()
                    return {"ok": None}
                case _:
                    return {
                        "ok": asyncio.run_coroutine_threadsafe(self._say(name, argument), self._loop).result(ANSWER_S)
                    }
        except FaultError as error:
            return {"error": str(error)}
        except (TimeoutError, CancelledError):
            return {"error": f"the machine did not get to {name} within {ANSWER_S:.0f} s; is it frozen?"}

    async def _say(self, name: str, argument: str) -> Any:
        said = self._command(name, argument)
        return await said if asyncio.iscoroutine(said) else said

    def _freeze(self, argument: str) -> None:
        seconds = number("freeze", argument) if argument else None
        frozen = threading.Event()
        self._thaw.clear()
        self._loop.call_soon_threadsafe(self._stand_still, seconds, frozen)
        frozen.wait(ANSWER_S)

    def _stand_still(self, seconds: float | None, frozen: threading.Event) -> None:
        """The loop's thread stays inside of this call: no answer, no notification, no keep-alive."""

        def end(*_: object) -> None:
            # In a thread of its own: a signal may come while this one holds the lock of the event.
            threading.Thread(target=self._thaw.set, name="thaw").start()

        before = {each: signal.signal(each, end) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            frozen.set()
            self._thaw.wait(seconds)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def number(name: str, argument: str) -> float:
    """`argument` as a number from 0; raises `FaultError`."""
    try:
        value = float(argument)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise FaultError(f"{name} needs a number from 0, like {name}=5")
    return value


def switch(name: str, argument: str, on: str, off: str) -> bool:
    """Whether `argument` is `on`; raises `FaultError` if it is not `off` either."""
    if argument not in (on, off):
        raise FaultError(f"{name} is {name}={on} or {name}={off}")
    return argument == on


def say(address: tuple[str, int], line: str) -> dict[str, Any]:
    """Say one line to a machine; its answer. Raises OSError if it cannot be reached."""
    with socket.create_connection(address, ANSWER_S) as connection:
        connection.sendall(f"{line}\n".encode())
        with connection.makefile("rb") as answers:
            answer = answers.readline()
    if not answer:
        raise ConnectionError("it hung up")
    said: dict[str, Any] = json.loads(answer)
    return said
