"""Serial ports that stay who they are: from what a site calls a port to the one device that it is now.

A site names a port in one of three ways:

``/dev/…``              a path, best one in /dev/serial/by-id
``serial:<number>``     the serial number of the USB adapter or board
``usb:<path>``          the place where it is plugged in, as in ``usb:1-1.2``

The first device that the kernel finds becomes ttyUSB0, so a plain path names another machine after the next reboot; a
cheap adapter has no serial number, so two of them have the same name in /dev/serial/by-id, which then leads to one of
them at random. What fits two devices is refused; nothing is ever opened to find out which is which.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serial.tools import list_ports

from edge.driver import ConnectError

SERIAL, USB = "serial:", "usb:"
LINKS = Path("/dev/serial/by-id")
_COUNTED = re.compile(r"/dev/tty(?:USB|ACM)\d+")


@dataclass(frozen=True, slots=True)
class Adapter:
    """One serial port that is there now, and what distinguishes it.

    `location`: the USB path (``1-1.2``), with the interface (``1-1.2:1.0``) if the device has several; empty for what
    is not on USB. `usb_id`: vendor and product, ``1a86:7523``. `links`: its names in /dev/serial/by-id.
    """

    device: str
    serial: str = ""
    location: str = ""
    usb_id: str = ""
    product: str = ""
    links: tuple[str, ...] = ()

    @property
    def plug(self) -> str:
        """The USB path without the interface: one for each plug."""
        return self.location.partition(":")[0]

    @property
    def interface(self) -> str:
        """Which port of a device that has several."""
        return self.location.partition(":")[2]

    def __str__(self) -> str:
        number = f"serial number {self.serial}" if self.serial else "no serial number"
        where = f"{USB}{self.location}, " if self.location else ""
        what = f"{self.product or 'USB serial'} {self.usb_id}, {number}" if self.usb_id else "not on USB"
        return f"{self.device} ({where}{what})"


def well_formed(wanted: str) -> str:
    """`wanted` itself, if it is one of the three ways. Raises ValueError, for a configuration to tell."""
    if wanted.startswith("/") or any(wanted.startswith(way) and len(wanted) > len(way) for way in (SERIAL, USB)):
        return wanted
    raise ValueError(f'write it as "/dev/…", "{SERIAL}<serial number>" or "{USB}<path, such as 1-1.2>"')


def choose(wanted: str, present: Sequence[Adapter]) -> str:
    """The device that `wanted` names among those `present`. A path that is none of theirs is left as it is.

    Raises `ConnectError` if none fits, or more than one; it lists what there is.
    """
    if wanted.startswith(SERIAL):
        number = wanted.removeprefix(SERIAL)
        found = [adapter for adapter in present if adapter.serial == number]
    elif wanted.startswith(USB):
        place = wanted.removeprefix(USB)
        found = [adapter for adapter in present if place in (adapter.location, adapter.plug)]
    else:
        found = [adapter for adapter in present if wanted in (adapter.device, *adapter.links)]
        if not found:
            return wanted
        if wanted != found[0].device:
            found += [other for other in present if other not in found and _same_name(other, found[0])]
    if len(found) == 1:
        return found[0].device
    if not found:
        raise ConnectError(f"no serial port is {wanted!r}; {_listed(present)}")
    names = "; ".join(f'"{name_of(adapter, present)}" is {adapter}' for adapter in found)
    raise ConnectError(f"{wanted!r} fits {len(found)} ports; name one of them: {names}")


def name_of(adapter: Adapter, present: Iterable[Adapter]) -> str:
    """What to call it so that it stays who it is: by serial number if that is its own, else by its plug."""
    if adapter.serial and not any(other.serial == adapter.serial for other in present if other != adapter):
        return SERIAL + adapter.serial
    return USB + adapter.location if adapter.location else adapter.device


def unsure(wanted: str, adapter: Adapter, present: Iterable[Adapter]) -> str:
    """Why `wanted`, which is this `adapter` now, may be another tomorrow, in words; empty if it will not.

    A link of the site's own (a rule for udev) is believed to know.
    """
    if not adapter.usb_id or not wanted.startswith("/"):
        return ""
    if wanted.startswith(f"{LINKS}/"):
        if adapter.serial and adapter.serial in wanted:
            return ""
        what = "any adapter of its kind"
    elif _COUNTED.fullmatch(wanted):
        what = "whatever comes first"
    else:
        return ""
    return f'{wanted} is {what}: write "{name_of(adapter, present)}", or the printer\'s uuid'


def present_ports(links: Path = LINKS) -> list[Adapter]:
    """What the kernel lists now. Opens nothing."""
    names: dict[str, list[str]] = {}
    for link in sorted(links.iterdir()) if links.is_dir() else ():
        names.setdefault(str(link.resolve()), []).append(str(link))
    return [
        Adapter(
            port.device,
            port.serial_number or "",
            port.location or "",
            "" if port.vid is None else f"{port.vid:04x}:{port.pid:04x}",
            port.product or "",
            tuple(names.get(port.device, ())),
        )
        for port in sorted(list_ports.comports())
    ]


def find(wanted: str) -> str:
    """The path to open for `wanted`, as things are plugged in now. Raises `ConnectError` in words."""
    return find_adapter(wanted).device


def find_adapter(wanted: str) -> Adapter:
    """What `wanted` names, as things are plugged in now; `device` is the path to open. Raises `ConnectError` in words.

    A path that the kernel does not list (a pseudo-terminal, a link of the site's own) is itself; what is known of the
    device that it leads to is told all the same.
    """
    present = present_ports()
    device = choose(wanted, present)
    if not Path(device).exists():
        raise ConnectError(f"the port {device} does not exist; {_listed(present)}")
    real = str(Path(device).resolve())
    behind = next((adapter for adapter in present if real == str(Path(adapter.device).resolve())), Adapter(device))
    return replace(behind, device=device)


def _same_name(one: Adapter, other: Adapter) -> bool:
    """Whether both get the same name in /dev/serial/by-id: identical devices in two plugs."""
    alike = (one.usb_id, one.serial, one.product, one.interface) == (
        other.usb_id,
        other.serial,
        other.product,
        other.interface,
    )
    return alike and one.plug != other.plug


def _listed(present: Sequence[Adapter]) -> str:
    return f"there are: {'; '.join(map(str, present))}" if present else "there is no serial port at all"
