"""Which device a port's name means, with data in the shape that list_ports gives."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from drivers import ports
from drivers.ports import Adapter, choose, find, name_of, present_ports, unsure, well_formed
from edge.driver import ConnectError

BY_ID = "/dev/serial/by-id/usb-1a86_USB_Serial-if00-port0"
# Two CH340 without serial number: udev makes one link for both, and it leads to the one that came last.
CH340_A = Adapter("/dev/ttyUSB0", "", "1-1.2", "1a86:7523", "USB Serial")
CH340_B = Adapter("/dev/ttyUSB1", "", "1-1.3", "1a86:7523", "USB Serial", (BY_ID,))
PRUSA = Adapter("/dev/ttyACM0", "CZPX1018X004XK12345", "1-1.4:1.0", "2c99:0002", "Original Prusa i3 MK3")
FTDI_1 = Adapter("/dev/ttyUSB2", "FT4XYZ", "1-1.5:1.0", "0403:6011", "Quad RS232-HS")
FTDI_2 = Adapter("/dev/ttyUSB3", "FT4XYZ", "1-1.5:1.1", "0403:6011", "Quad RS232-HS")
CLONE_A = Adapter("/dev/ttyUSB4", "0001", "1-1.6", "10c4:ea60", "CP2102 USB to UART")
CLONE_B = Adapter("/dev/ttyUSB5", "0001", "1-1.7", "10c4:ea60", "CP2102 USB to UART")
BUILT_IN = Adapter("/dev/ttyAMA0")
ALL = (CH340_A, CH340_B, PRUSA, FTDI_1, FTDI_2, CLONE_A, CLONE_B, BUILT_IN)


@pytest.mark.parametrize(
    ("wanted", "device"),
    [
        ("/dev/ttyUSB0", "/dev/ttyUSB0"),
        ("/dev/pts/7", "/dev/pts/7"),
        ("serial:CZPX1018X004XK12345", "/dev/ttyACM0"),
        ("usb:1-1.2", "/dev/ttyUSB0"),
        ("usb:1-1.3", "/dev/ttyUSB1"),
        ("usb:1-1.4", "/dev/ttyACM0"),
        ("usb:1-1.4:1.0", "/dev/ttyACM0"),
        ("usb:1-1.5:1.1", "/dev/ttyUSB3"),
    ],
)
def test_a_name_that_fits_one_port_is_that_port(wanted: str, device: str) -> None:
    assert choose(wanted, ALL) == device


def test_a_link_is_followed_while_it_means_one_device() -> None:
    assert choose(BY_ID, (CH340_B, PRUSA)) == "/dev/ttyUSB1"


def test_two_adapters_with_one_name_are_refused_and_told_apart_by_their_plugs() -> None:
    with pytest.raises(ConnectError) as refused:
        choose(BY_ID, ALL)
    assert str(refused.value) == (
        f"'{BY_ID}' fits 2 ports; name one of them: "
        '"usb:1-1.3" is /dev/ttyUSB1 (usb:1-1.3, USB Serial 1a86:7523, no serial number); '
        '"usb:1-1.2" is /dev/ttyUSB0 (usb:1-1.2, USB Serial 1a86:7523, no serial number)'
    )


@pytest.mark.parametrize("wanted", ["serial:0001", "serial:FT4XYZ", "usb:1-1.5"])
def test_what_fits_two_ports_is_refused(wanted: str) -> None:
    with pytest.raises(ConnectError, match=r"fits 2 ports; name one of them: \"usb:1-1\.[56]"):
        choose(wanted, ALL)


def test_a_missing_one_says_what_is_there() -> None:
    with pytest.raises(ConnectError) as refused:
        choose("serial:A1", (PRUSA, BUILT_IN))
    assert str(refused.value) == (
        "no serial port is 'serial:A1'; there are: /dev/ttyACM0 (usb:1-1.4:1.0, Original Prusa i3 MK3 2c99:0002, "
        "serial number CZPX1018X004XK12345); /dev/ttyAMA0 (not on USB)"
    )
    with pytest.raises(ConnectError, match="there is no serial port at all"):
        choose("usb:1-1", ())


def test_every_port_has_a_name_that_stays() -> None:
    names = [name_of(adapter, ALL) for adapter in ALL]
    assert names[0] == "usb:1-1.2"
    assert names[2] == "serial:CZPX1018X004XK12345"
    assert names[-1] == "/dev/ttyAMA0"
    assert [choose(name, ALL) for name in names] == [adapter.device for adapter in ALL]


@pytest.mark.parametrize("wanted", ["/dev/ttyUSB0", "serial:A1", "usb:1-1.2"])
def test_three_ways_to_name_a_port(wanted: str) -> None:
    assert well_formed(wanted) == wanted


@pytest.mark.parametrize("wanted", ["ttyUSB0", "serial:", "usb:", "COM3", ""])
def test_other_ways_are_refused_with_the_right_ones(wanted: str) -> None:
    with pytest.raises(ValueError, match="serial:<serial number>"):
        well_formed(wanted)


class Listed(SimpleNamespace):
    """What `comports` gives, in the order of its device names."""

    def __lt__(self, other: Listed) -> bool:
        return bool(self.device < other.device)


def recorded(device: str, **known: object) -> Listed:
    return Listed(
        **(dict.fromkeys(("serial_number", "location", "vid", "pid", "product")) | {"device": device} | known)
    )


def test_the_list_of_the_kernel_is_read_and_its_links_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "ttyUSB0"
    device.touch()
    links = tmp_path / "by-id"
    assert present_ports(links) is not None
    links.mkdir()
    (links / "usb-one").symlink_to(device)
    listed = [
        recorded("/dev/ttyS9"),
        recorded(str(device), vid=0x1A86, pid=0x7523, location="1-1.2", product="USB Serial"),
    ]
    monkeypatch.setattr(ports.list_ports, "comports", lambda: listed)
    assert present_ports(links) == [
        Adapter("/dev/ttyS9"),
        Adapter(str(device), "", "1-1.2", "1a86:7523", "USB Serial", (str(links / "usb-one"),)),
    ]
    assert find("usb:1-1.2") == str(device)
    with pytest.raises(ConnectError, match=r"/dev/none does not exist; there are: /dev/ttyS9 \(not on USB\)"):
        find("/dev/none")


@pytest.mark.parametrize(
    ("wanted", "adapter", "words"),
    [
        (BY_ID, CH340_B, f'{BY_ID} is any adapter of its kind: write "usb:1-1.3", or the printer\'s uuid'),
        ("/dev/ttyUSB4", CLONE_A, '/dev/ttyUSB4 is whatever comes first: write "usb:1-1.6", or the printer\'s uuid'),
        (
            "/dev/ttyACM0",
            PRUSA,
            '/dev/ttyACM0 is whatever comes first: write "serial:CZPX1018X004XK12345", or the printer\'s uuid',
        ),
        ("/dev/serial/by-id/usb-Prusa_CZPX1018X004XK12345-if00", PRUSA, ""),
        ("serial:CZPX1018X004XK12345", PRUSA, ""),
        ("usb:1-1.3", CH340_B, ""),
        ("/dev/ttyAMA0", BUILT_IN, ""),
        ("/dev/pts/7", Adapter("/dev/pts/7"), ""),
        ("/dev/printer-7", CH340_B, ""),
    ],
)
def test_a_name_that_may_mean_another_printer_tomorrow_is_told(wanted: str, adapter: Adapter, words: str) -> None:
    assert unsure(wanted, adapter, ALL) == words
