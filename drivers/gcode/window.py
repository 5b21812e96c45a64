"""How much may be in flight on a connection, and why.

On an error Marlin throws its receive buffer away and carries out the tail of a cut line unchecked. So the full window
is for wires that cannot change or lose a byte unseen: TCP, and USB that ends in the printer's own controller, where
every packet has a CRC and is sent again. A bridge (CH340, FT232, CP210x, and also the 16U2 or 32U2 of an Arduino or of
an 8-bit Prusa, though it looks like any native port) ends in a bare UART: one line at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from drivers.gcode.config import Connection
from drivers.gcode.profile import WireTable

NATIVE = {
    # stm32duino/Arduino_Core_STM32, libraries/USBDevice/src/usbd_desc.c: what Marlin on STM32 is built with.
    "0483:5740": "STM32 virtual COM port",
    # Smoothieware, src/libs/USBDevice/USB.cpp.
    "1d50:6015": "Smoothieboard",
    # openmoko/openmoko-usb-oui, usb_product_ids.psv: "Marlin 2.0 (USB Serial)", on LPC176x.
    "1d50:6029": "Marlin's own USB",
    # openmoko/openmoko-usb-oui, usb_product_ids.psv: "Duet 3D Printer Controller".
    "1d50:60ec": "Duet",
    # arduino/ArduinoCore-sam, boards.txt, "Native USB Port". 003d, the programming port, is a 16U2.
    "2341:003e": "Arduino Due's native port",
    "2a03:003e": "Arduino Due's native port",
    # PaulStoffregen/cores, teensy4/usb_desc.h.
    "16c0:0483": "Teensy",
    # prusa3d/Prusa-Firmware-Buddy 6.3.0, include/common/printer_model_data.hpp and src/buddy/usb_device.cpp.
    "2c99:000c": "Prusa MINI",
    "2c99:000d": "Prusa MK4",
    "2c99:0010": "Prusa iX",
    "2c99:0011": "Prusa XL",
    "2c99:0015": "Prusa MK3.9",
    "2c99:0017": "Prusa MK3.5",
    "2c99:001a": "Prusa MK4S",
    "2c99:001b": "Prusa MK3.9S",
    "2c99:001c": "Prusa MK3.5S",
    "2c99:001f": "Prusa CORE One",
}
"""USB vendor and product ids that only a printer's own controller has. An id that is not here is taken for a bridge.

Ids that say nothing are left out on purpose: the Raspberry Pi's 2e8a:000a is that of a printer's RP2040 and of the
UART bridge that a Pico can be programmed to be.
"""


@dataclass(frozen=True, slots=True)
class Window:
    """`window_bytes`: in flight at most, 0 for one line at a time. `reason` is for people."""

    window_bytes: int
    reason: str

    def __str__(self) -> str:
        size = f"up to {self.window_bytes} bytes" if self.window_bytes else "one line"
        return f"{size} in flight: {self.reason}"


def window_for(connection: Connection, wire: WireTable, usb_id: str) -> Window:
    """The window of a connection; `usb_id` is vendor and product (``1a86:7523``), empty for what is not on USB."""
    # One byte of a ring buffer stays free (Marlin/src/HAL/AVR/MarlinSerial.cpp).
    full_bytes = wire.rx_buffer_bytes - 1
    if connection.window != "auto":
        full = connection.window == "full"
        return Window(full_bytes if full else 0, f'window = "{connection.window}"')
    if wire.proven_window:
        return Window(full_bytes, "the profile says that it is proven")
    if connection.url is not None:
        return Window(full_bytes, 'TCP; if a serial server is behind it, say window = "one"')
    if board := NATIVE.get(usb_id):
        return Window(full_bytes, f"{usb_id} is the controller's own USB ({board})")
    if usb_id:
        return Window(0, f"{usb_id} is not known to be a controller's own USB")
    return Window(0, "a serial line without USB")
