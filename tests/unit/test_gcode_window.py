"""How much may be in flight: a choice by what carries the bytes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from drivers import ports
from drivers.gcode.config import Connection
from drivers.gcode.profile import WireTable
from drivers.gcode.window import NATIVE, window_for

WIRE = WireTable(rx_buffer_bytes=128, line_max_bytes=96, busy_interval_s=2.0, silence_s=20.0)
PROVEN = WIRE.model_copy(update={"proven_window": True})
SERIAL, TCP = Connection(port="/dev/ttyACM0"), Connection(url="tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("connection", "wire", "usb_id", "window_bytes", "reason"),
    [
        (SERIAL, WIRE, "0483:5740", 127, "0483:5740 is the controller's own USB (STM32 virtual COM port)"),
        (SERIAL, WIRE, "2c99:000c", 127, "2c99:000c is the controller's own USB (Prusa MINI)"),
        (SERIAL, WIRE, "1a86:7523", 0, "1a86:7523 is not known to be a controller's own USB"),
        (SERIAL, WIRE, "", 0, "a serial line without USB"),
        (SERIAL, PROVEN, "1a86:7523", 127, "the profile says that it is proven"),
        (TCP, WIRE, "", 127, 'TCP; if a serial server is behind it, say window = "one"'),
        (SERIAL.model_copy(update={"window": "full"}), WIRE, "1a86:7523", 127, 'window = "full"'),
        (SERIAL.model_copy(update={"window": "one"}), PROVEN, "0483:5740", 0, 'window = "one"'),
        (TCP.model_copy(update={"window": "one"}), WIRE, "", 0, 'window = "one"'),
    ],
)
def test_the_window_and_why(
    connection: Connection, wire: WireTable, usb_id: str, window_bytes: int, reason: str
) -> None:
    window = window_for(connection, wire, usb_id)
    assert (window.window_bytes, window.reason) == (window_bytes, reason)
    size = f"up to {window_bytes} bytes" if window_bytes else "one line"
    assert str(window) == f"{size} in flight: {reason}"


@pytest.mark.parametrize(
    "bridge",
    [
        *("1a86:7523", "1a86:55d4", "0403:6001", "0403:6015", "10c4:ea60", "067b:2303"),  # chips that are nothing else
        *("2341:0042", "2341:0010", "2341:0043", "2341:003d", "2a03:0042"),  # 16U2 of Arduinos
        *("2c99:0001", "2c99:0002"),  # 32U2 of Prusa's 8-bit boards
        *("2e8a:000a", "2e8a:000c", "2e8a:0004"),  # a Pico as a bridge, and the debug probes
        "0483:374b",  # ST-Link
    ],
)
def test_a_bridge_to_a_bare_uart_is_not_taken_for_native_usb(bridge: str) -> None:
    assert bridge not in NATIVE
    assert window_for(SERIAL, WIRE, bridge).window_bytes == 0


def test_ids_are_written_as_the_ports_tell_them() -> None:
    assert all(len(usb_id) == 9 and usb_id == usb_id.lower() for usb_id in NATIVE)


def test_a_link_of_the_site_s_own_is_known_by_the_device_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, link = tmp_path / "ttyACM0", tmp_path / "printer"
    device.touch()
    link.symlink_to(device)
    listed = [
        SimpleNamespace(
            device=str(device), serial_number="A1", location="1-1.2", vid=0x0483, pid=0x5740, product="Marlin"
        )
    ]
    monkeypatch.setattr(ports.list_ports, "comports", lambda: listed)
    found = ports.find_adapter(str(link))
    assert (found.device, found.usb_id, found.serial) == (str(link), "0483:5740", "A1")
    assert ports.find_adapter("serial:A1").device == str(device)
    other = tmp_path / "pts"
    other.touch()
    assert ports.find_adapter(str(other)) == ports.Adapter(str(other))
