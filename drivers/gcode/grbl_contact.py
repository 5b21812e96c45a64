"""How a controller that speaks grbl is met: the link opens, it says who it is, and how its reports are to be read."""

from __future__ import annotations

import asyncio
import logging

from drivers import link, ports
from drivers.gcode import grbl_replies
from drivers.gcode import profile as profiles
from drivers.gcode.config import Connection, Printer
from drivers.gcode.events import Cause
from drivers.gcode.framing import Wire
from drivers.gcode.grbl import SETTLE_POLL_S, SPOIL
from drivers.gcode.grbl_replies import Status
from drivers.gcode.grbl_session import GrblSession
from drivers.gcode.grbl_watch import Watch
from drivers.gcode.identity import Firmware
from drivers.gcode.profile import GRBL, Profile
from drivers.gcode.replies import Reply
from edge.driver import ConnectError, IdentityError, MachineError

HANDSHAKE_S = 20.0
"""How long a controller that does nothing may take to say who it is; a bootloader alone takes 2 s."""

LOOKS = 40
"""Reports within which every field must have come: work offsets are told in each 30th at the latest (grbl/config.h,
REPORT_WCO_REFRESH_BUSY_COUNT)."""

log = logging.getLogger("drivers.gcode")


class Contact:
    """With one controller. What it says of itself is in `firmware` and `has_mist` afterwards."""

    def __init__(self, machine: Printer, session: GrblSession, watch: Watch, profile: Profile) -> None:
        self._machine = machine
        self._session = session
        self._watch = watch
        self._profile = profile
        self._patience: asyncio.Timeout | None = None  # how long an unidentified controller may take to answer
        self.firmware = Firmware("")
        self.has_mist = True

    def heard(self, status: Status) -> bool:
        """Whether the report is part of an introduction; one that moves is given time to come to its end."""
        if self._patience is None:
            return False
        if status.state in ("Run", "Home", "Jog") and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + HANDSHAKE_S)
        return True

    async def make(self, *, stop: bool = False) -> None:
        """Open the link and learn who is there; with `stop`, whatever moves is stopped before it can be asked.

        Raises `ConnectError` or `IdentityError`.
        """
        wanted = self._machine.connection
        received, lost = self._session.received, self._session.link_lost
        unsure = ""
        if wanted.port is not None:
            adapter = ports.find_adapter(wanted.port)
            unsure = "" if wanted.uuid else ports.unsure(wanted.port, adapter, ports.present_ports())
            self._session.attach(link.open_serial(adapter.device, wanted.baud, received, lost))
        else:
            deadline_s = asyncio.get_running_loop().time() + HANDSHAKE_S
            self._session.attach(await link.open_tcp(str(wanted.url), deadline_s, received, lost))
        try:
            async with asyncio.timeout(HANDSHAKE_S) as self._patience:
                introduction = await self._introduction(stop=stop)
        except TimeoutError as error:
            raise ConnectError(f"{wanted.place}: {self._silence()}") from error
        finally:
            self._patience = None
        self.firmware = grbl_replies.identity(introduction)
        if wanted.uuid is not None and self.firmware.uuid != wanted.uuid:
            found = self.firmware.uuid or "none"
            raise IdentityError(f"{wanted.place}: the text that $I tells is {found}, must be {wanted.uuid}")
        profiles.fitting(self.firmware.name, self._machine.profile, self._machine.profiles_dir, GRBL)
        log.warning("%s: profile %s was tried on: %s", self._machine.id, self._machine.profile, self._profile.tried_on)
        if unsure:
            log.warning("%s: %s", self._machine.id, unsure)
        self._session.renew(_wire(self._profile, wanted, grbl_replies.rx_bytes(introduction)))
        try:
            await self._learn(introduction)
        except MachineError as error:
            raise ConnectError(f"{wanted.place}: {error}") from error

    async def _introduction(self, *, stop: bool) -> tuple[Reply, ...]:
        """The answer to ``$I``, past a board that is just booting and one that ends what it was told before.

        A report first: it needs no room in a buffer that a dead host has filled, and a controller that moves takes no
        ``$I``, one that is held reads nothing at all.
        """
        while True:
            try:
                status = await self._session.look()
                if stop and status.state in ("Run", "Hold", "Jog", "Door", "Home", "Tool"):
                    await self._session.halt()
                elif status.state in ("Idle", "Alarm", "Check", "Sleep"):
                    self._session.write_now(f"{SPOIL}\n".encode("ascii"))
                    replies = await self._session.ask("$I", grbl_replies.introduces)
                    if any(map(grbl_replies.introduces, replies)):
                        return replies
                await asyncio.sleep(SETTLE_POLL_S)
            except MachineError as error:
                if self._session.cause is not Cause.RESTARTED:
                    raise ConnectError(f"{self._machine.connection.place}: {error}") from error
                self._session.renew(Wire())

    def _silence(self) -> str:
        match self._watch.status:
            case None:
                return "nothing answers `?`; is its speed right, does it speak grbl, does it wait for a reset?"
            case Status(state=("Hold" | "Door" | "Tool"), text=text):
                return f"the controller is held ({text}) and takes no command: release or reset it at the machine"
            case Status(text=text):
                return f"the controller says {text} and does not answer $I"

    async def _learn(self, introduction: tuple[Reply, ...]) -> None:
        """What bears on how its reports are to be read."""
        self.has_mist = grbl_replies.has_mist(introduction)
        self._watch.use(grbl_replies.settings(await self._session.ask("$$")))
        is_plain = self.firmware.name.startswith("Grbl ")  # it never says whether it is homed
        for _ in range(LOOKS):
            await self._session.look()
            if self._watch.offset_mm is not None and (self._watch.homed is not None or is_plain):
                break


def _wire(profile: Profile, connection: Connection, told_bytes: int | None) -> Wire:
    wire = profile.wire
    safe = connection.url is not None or wire.proven_window
    full = connection.window == "full" or (connection.window == "auto" and safe)
    window_bytes = min(wire.rx_buffer_bytes, told_bytes or wire.rx_buffer_bytes)
    return Wire(window_bytes=window_bytes if full else 0, stall_s=wire.silence_s, silence_s=wire.silence_s)
