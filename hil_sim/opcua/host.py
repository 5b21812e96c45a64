"""An OPC UA server around a simulated machine: endpoints, sessions, time, and the faults that any server has."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server

from hil_sim.clock import ScaledClock
from hil_sim.faults import FaultError
from hil_sim.opcua.carried_out import CarriedOut
from hil_sim.opcua.control import number as a_number
from hil_sim.opcua.library import ua
from hil_sim.opcua.security import POLICIES, TrustedFolder, Users, own_certificate, user_token
from hil_sim.opcua.space import Space
from hil_sim.wire import WireError

TICK_S = 0.05
"""Real seconds between two looks at the machine; its own time is exact whatever this is."""

VARIANTS = ("bare-status", "unknown-states", "wrong-types", "namespaces-reversed")
COMMON_FAULTS = ("freeze", "thaw", "drop", "sessions", "power-cycle", "wipe", "carried-out", "state")


@dataclass(frozen=True)
class Options:
    """How the server is set up."""

    host: str = "127.0.0.1"
    port: int = 0
    security: tuple[str, ...] = ("none",)
    users: dict[str, str] = field(default_factory=dict)
    user_certificates: frozenset[bytes] = frozenset()
    anonymous: bool = False
    pki: Path | None = None
    session_timeout_s: float = 60.0
    variants: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    """Methods that this machine does not have, by browse name."""


class Machine(Protocol):
    """What stands behind the server. Times are simulated seconds."""

    application_uri: str
    carried_out: CarriedOut

    async def build(self, space: Space) -> None:
        """Make the instances; once, before the server listens."""

    async def advance(self, now_s: float) -> None:
        """Let time pass up to `now_s`, and show what is then."""

    async def say(self, name: str, argument: str) -> Any:
        """A fault, or a question of the control channel, now. Raises `FaultError`."""

    async def power_cycle(self, now_s: float) -> None:
        """Forget what a controller forgets without power."""

    def wipe(self) -> None:
        """Forget programs and what was carried out, too."""

    def session_closed(self, session_id: Any) -> None:
        """A client is gone."""


session_id: ContextVar[Any] = ContextVar("session_id", default=None)
"""Which session a method is called by."""


class _Session(InternalSession):
    """Says whose call it is."""

    def activate_session(self, params: Any, peer_certificate: bytes | None) -> Any:
        user_token.set(None)
        return super().activate_session(params, peer_certificate)

    async def call(self, params: Any) -> Any:
        session_id.set(self.session_id)
        return await super().call(params)

    async def close_session(self, delete_subs: bool = True) -> None:
        await super().close_session(delete_subs)
        if isinstance(self.iserver, _Sessions):
            self.iserver.closed(self.session_id)


class _Sessions(InternalServer):
    """Refuses a session when the table is full."""

    def __init__(self, users: Users) -> None:
        super().__init__(user_manager=users)
        self.limit: int | None = None
        self.closed: Callable[[Any], None] = lambda _session_id: None

    def create_session(self, name: str, user: Any = None, external: bool = False) -> InternalSession:
        if self.limit is not None and len(self._external_sessions) >= self.limit:
            raise ServiceError(ua.StatusCodes.BadTooManySessions)
        anonymous = user or User(role=UserRole.Anonymous)
        return _Session(self, self.aspace, self.subscription_service, name, user=anonymous, external=external)

    def verify_x509_token(self, isession: Any, token: Any, signature: Any) -> bytes:
        certificate = super().verify_x509_token(isession, token, signature)
        user_token.set(certificate)
        return certificate

    async def end_sessions(self) -> None:
        for session in list(self._external_sessions.values()):
            await session.close_session(True)


class Host:
    """Runs a machine behind its server. An async context manager."""

    def __init__(self, machine: Machine, options: Options, clock: ScaledClock, namespaces: tuple[str, ...]) -> None:
        """`namespaces`: short names of those that the machine needs, `home` among them."""
        self._machine = machine
        self._options = options
        self._clock = clock
        self._order = namespaces[::-1] if "namespaces-reversed" in options.variants else namespaces
        self._stack = contextlib.AsyncExitStack()
        self._iserver = _Sessions(Users(options.users, options.user_certificates, anonymous=options.anonymous))
        self._iserver.closed = machine.session_closed
        self._iserver.bind_condition_methods = 1  # ConditionRefresh; the number is the severity of its two events
        self._server = Server(iserver=self._iserver)
        self._off: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def endpoint(self) -> str:
        """Where clients connect to; known once the host has been entered."""
        assert self._server.bserver is not None
        return f"opc.tcp://{self._server.bserver.hostname}:{self._server.bserver.port}/"

    async def __aenter__(self) -> Host:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # what clients do wrong is no news of the simulator's
        logging.getLogger("asyncua.server.address_space").setLevel(logging.ERROR)  # a method of ours that fails is
        server, options = self._server, self._options
        await server.init()
        server.set_endpoint(f"opc.tcp://{options.host}:{options.port}/")
        server.set_server_name("hil-sim")
        await server.set_application_uri(self._machine.application_uri)
        server.set_security_policy([POLICIES[name] for name in options.security])
        self._iserver.max_session_timeout_ms = options.session_timeout_s * 1000.0
        self._iserver.min_session_timeout_ms = min(
            self._iserver.min_session_timeout_ms, options.session_timeout_s * 1000.0
        )
        folder = options.pki
        if folder is None:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="hil-sim-")))
        else:
            server.set_certificate_validator(TrustedFolder(folder))
        if set(options.security) != {"none"}:
            certificate, key = own_certificate(folder, self._machine.application_uri)
            await server.load_certificate(certificate)
            await server.load_private_key(key)
        space = Space(server, f"{self._machine.application_uri}:instances", self._order)
        space.left_out = options.without
        await space.open()
        await self._machine.build(space)
        try:
            await server.start()
        except OSError as error:
            # The event loop puts words of its own around the system's.
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else str(error)
            raise WireError(f"cannot listen on {options.host}:{options.port}: {reason}") from error
        self._stack.push_async_callback(self._stop)
        self.time = asyncio.create_task(self._keep_time(), name="machine time")

    async def _stop(self) -> None:
        for task in (self.time, self._off):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self._server.stop()

    async def _keep_time(self) -> None:
        while True:
            await self._machine.advance(self._clock.now_s())
            await asyncio.sleep(TICK_S)

    async def say(self, name: str, argument: str) -> Any:
        """A line of the control channel. Raises `FaultError`."""
        match name:
            case "drop":
                await self.drop(a_number(name, argument) if argument else 0.0)
            case "sessions":
                self._iserver.limit = int(a_number(name, argument)) if argument not in ("", "off") else None
            case "power-cycle":
                await self._machine.power_cycle(self._clock.now_s())
                await self.drop(a_number(name, argument) if argument else 0.0)
                await self._iserver.end_sessions()
            case "wipe":
                await self.say("power-cycle", argument)
                self._machine.wipe()
            case "carried-out":
                await self._machine.advance(self._clock.now_s())
                return self._machine.carried_out.lines()
            case _:
                now_s = self._clock.now_s()
                await self._machine.advance(now_s)
                answer = await self._machine.say(name, argument)
                await self._machine.advance(now_s)
                return answer
        return None

    async def drop(self, for_s: float) -> None:
        """Cut every connection, and take none for `for_s` real seconds."""
        binary = self._server.bserver
        assert binary is not None
        if for_s > 0.0 and self._off is None and binary._server is not None:
            binary._server.close()
            self._off = asyncio.create_task(self._listen_again(for_s), name="listen again")
        for transport in list(self._iserver.asyncio_transports):
            transport.abort()

    async def _listen_again(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        binary = self._server.bserver
        assert binary is not None
        loop = asyncio.get_running_loop()
        binary._server = await loop.create_server(binary._make_protocol, binary.hostname, binary.port)
        self._off = None


def unknown(name: str, known: tuple[str, ...]) -> FaultError:
    """What to say of a line that nobody understands."""
    return FaultError(f"no fault is called {name!r}; there are {', '.join((*known, *COMMON_FAULTS))}")
