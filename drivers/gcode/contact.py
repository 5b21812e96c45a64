"""How a printer that speaks Marlin's G-code is met: the link opens, it says who it is, and what it is at."""

from __future__ import annotations

import asyncio
import logging

from drivers import link, ports
from drivers.gcode import grbl_replies
from drivers.gcode import identity as firmware_identity
from drivers.gcode import profile as profiles
from drivers.gcode.config import Printer
from drivers.gcode.device import Device, wire_of
from drivers.gcode.framing import Wire
from drivers.gcode.identity import Firmware
from drivers.gcode.profile import Profile
from drivers.gcode.replies import Busy, Reply, Text
from drivers.gcode.resting import Resting
from drivers.gcode.window import window_for
from edge.driver import ConnectError, IdentityError, MachineError, MachineState

HANDSHAKE_S = 20.0
"""How long a printer that is not busy may take to say who it is; a bootloader alone takes 2 s."""

PAUSED = "paused"
"""How what a busy firmware says begins if a person is to end it: ``paused for user``, ``paused for input``
(STR_BUSY_PAUSED_FOR_USER and …_INPUT, Marlin/src/core/language.h)."""

GRBL_MET = "this is grbl ({text}), which profile = 'auto' does not try: name the profile, 'grbl' or 'grblhal'"

log = logging.getLogger("drivers.gcode")


class Contact:
    """With one printer. What it says of itself, and its profile, are in the `Device` afterwards."""

    def __init__(self, machine: Printer, device: Device, resting: Resting) -> None:
        self._machine = machine
        self._device = device
        self._session = device.session
        self._resting = resting
        self._patience: asyncio.Timeout | None = None  # how long an unidentified printer may take to answer
        self._other_dialect = ""  # what a firmware that is no printer has said

    def heard(self, reply: Reply) -> None:
        """Before it has said who it is: one that is busy is given time, one of the other dialect is not asked on."""
        if self._patience is None:
            return
        match reply:
            case Busy(what=what) if not self._patience.expired():
                self._patience.reschedule(asyncio.get_running_loop().time() + HANDSHAKE_S)
                # It can be so for hours: why it was away before is no news any more, and this may need a person.
                ends = "; a person at it must end that" if what.startswith(PAUSED) else ""
                self._device.see(MachineState.OFFLINE, f"it does not say who it is yet, for it is busy: {what}{ends}")
            case Text(text=text) if grbl_replies.is_spoken(text):
                self._other_dialect = GRBL_MET.format(text=text)
                self._session.fail(ConnectError(self._other_dialect))
            case _:
                pass

    async def make(self) -> None:
        """Open the link and learn who is there. Raises `ConnectError` or `IdentityError`."""
        wanted = self._machine.connection
        received, lost = self._session.received, self._session.link_lost
        usb_id = unsure = ""
        if wanted.port is not None:
            adapter = ports.find_adapter(wanted.port)
            usb_id = adapter.usb_id
            unsure = "" if wanted.uuid else ports.unsure(wanted.port, adapter, ports.present_ports())
            self._session.attach(link.open_serial(adapter.device, wanted.baud, received, lost))
        else:
            deadline_s = asyncio.get_running_loop().time() + HANDSHAKE_S
            self._session.attach(await link.open_tcp(str(wanted.url), deadline_s, received, lost))
        firmware = self._device.firmware = await self._introduction()
        if wanted.uuid is not None and firmware.uuid != wanted.uuid:
            found = firmware.uuid or "none"
            raise IdentityError(f"{wanted.place}: the printer's UUID is {found}, must be {wanted.uuid}")
        name, profile = profiles.fitting(firmware.name, self._machine.profile, self._machine.profiles_dir)
        self._device.profile_name, self._device.profile = name, profile
        log.warning("%s: profile %s was tried on: %s", self._machine.id, name, profile.tried_on)
        if unsure:
            log.warning("%s: %s", self._machine.id, unsure)
        window = window_for(wanted, profile.wire, usb_id)
        log.info("%s: %s", self._machine.id, window)
        self._session.renew(wire_of(profile, window.window_bytes))
        try:
            # Unchecked: on a bad line it may arrive as another command, and one that waits for a person.
            async with asyncio.timeout(HANDSHAKE_S):
                await self._prepare(profile)
        except TimeoutError as error:
            raise ConnectError(f"{wanted.place} says who it is, and then does not answer") from error
        except MachineError as error:
            raise ConnectError(f"{wanted.place}: {error}") from error

    async def _prepare(self, profile: Profile) -> None:
        """Have it report what it can by itself, and see whether it is at work for somebody else."""
        if self._device.firmware.has("AUTOREPORT_TEMP") and profile.macro.report_temperatures:
            await self._session.ask(profile.macro.report_temperatures)
        await self._resting.look_for_others(closely=True)

    async def _introduction(self) -> Firmware:
        """The answer to M115, past a board that is just booting and one that ends what it was told before."""
        # A line end first: half a line may stand in the firmware's buffer, left there by a host that died.
        self._session.write_now(b"\n")
        place = self._machine.connection.place
        self._other_dialect = ""
        try:
            async with asyncio.timeout(HANDSHAKE_S) as self._patience:
                while True:
                    try:
                        return firmware_identity.read(await self._session.ask("M115", firmware_identity.introduces))
                    except MachineError as error:
                        said = str(error).rpartition(": ")[2]
                        for text in (said, f"error:{said}"):  # an error is told without that word
                            if grbl_replies.is_spoken(text):
                                self._other_dialect = GRBL_MET.format(text=text)
                        if self._other_dialect:
                            raise ConnectError(f"{place}: {self._other_dialect}") from error
                        if not self._session.restarted:
                            raise ConnectError(f"{place}: {error}") from error
                        self._device.booted = True
                        self._session.renew(Wire())
        except TimeoutError as error:
            reason = self._other_dialect or "it does not answer M115; is its speed right?"
            raise ConnectError(f"{place}: {reason}") from error
        finally:
            self._patience = None
