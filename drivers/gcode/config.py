"""What site.toml says of a printer on a serial port or TCP."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from drivers import ports
from drivers.check import Limits as PrinterLimits
from drivers.check import Range
from edge.driver import Machine

__all__ = ["Connection", "Limits", "Printer", "Range"]

_NOBODYS = ("cede2a2f-41a2-4748-9b12-c55c62f367ff", "00000000-0000-0000-0000-000000000000")
"""DEFAULT_MACHINE_UUID of Marlin/src/inc/Version.h at 2.1.2.1, and nothing at all."""


def _port(value: str | None) -> str | None:
    return None if value is None else ports.well_formed(value)


def _uuid(value: str | None) -> str | None:
    if value in _NOBODYS:
        raise ValueError("this UUID is that of every unconfigured firmware, and tells no printer from another")
    return value


def _tcp(value: str | None) -> str | None:
    if value is not None:
        parts = urlsplit(value)
        if parts.scheme != "tcp" or not parts.hostname or parts.port is None:
            raise ValueError("write it as tcp://host:port")
    return value


class Connection(BaseModel):
    """Either a serial port with its speed in baud, or ``tcp://host:port``.

    `port` is ``/dev/…``, best in /dev/serial/by-id, or ``serial:<number>`` or ``usb:<path>`` (see `drivers.ports`).
    `uuid` is what the firmware must say in its answer to M115; another one is refused.

    `window` says how much may be in flight: ``one`` line at a time, or the ``full`` receive buffer of the firmware.
    ``auto`` takes the full buffer only where single bytes cannot get lost or changed: over TCP, over USB that ends in
    the printer's own controller (`drivers.gcode.window`), and where the profile says that it is proven. Say ``one``
    where a serial server such as ser2net turns TCP into a bare UART, and ``full`` for a serial line that you know to be
    clean.

    `standby_after_s`: so long after a print was held its nozzle cools to standby. `unprotected_heaters`: print even if
    the firmware does not say that it switches off a heater that runs away; only for a printer that is never alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: Annotated[str | None, AfterValidator(_port)] = None
    baud: int = Field(default=115200, ge=1200, le=4_000_000)
    window: Literal["auto", "one", "full"] = "auto"
    uuid: Annotated[str | None, AfterValidator(_uuid)] = None
    url: Annotated[str | None, AfterValidator(_tcp)] = None
    standby_after_s: float = Field(default=300.0, ge=0)
    unprotected_heaters: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> Connection:
        if (self.port is None) == (self.url is None):
            raise ValueError('give either port = "/dev/…" or url = "tcp://host:port"')
        return self

    @property
    def place(self) -> str:
        """Where the printer is, for people."""
        return self.port or self.url or ""


class Limits(PrinterLimits):
    """What a program may ask of this machine.

    For grbl the ranges are the machine's own coordinates (G53). `homing` says who homes it: a ``person`` at the
    machine, and until then no work begins; or each ``program``, whose first line is then ``$H``.
    """

    homing: Literal["person", "program"] = "person"


Printer: TypeAlias = Machine[Connection, Limits]
