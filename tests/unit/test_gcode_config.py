"""What site.toml may say of a printer's connection."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from drivers.gcode.config import Connection


@pytest.mark.parametrize("port", ["/dev/ttyUSB0", "/dev/serial/by-id/usb-1a86", "serial:A1B2", "usb:1-1.2"])
def test_a_port_is_a_path_a_serial_number_or_a_plug(port: str) -> None:
    assert Connection(port=port).place == port


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "give either port"),
        ({"port": "/dev/a", "url": "tcp://h:1"}, "give either port"),
        ({"port": "ttyUSB0"}, 'write it as "/dev/…"'),
        ({"port": "serial:"}, 'write it as "/dev/…"'),
        ({"url": "http://h:1"}, "write it as tcp://host:port"),
        ({"url": "tcp://h"}, "write it as tcp://host:port"),
        ({"port": "/dev/a", "uuid": "cede2a2f-41a2-4748-9b12-c55c62f367ff"}, "tells no printer from another"),
        ({"port": "/dev/a", "window": "wide"}, "'auto', 'one' or 'full'"),
        ({"port": "/dev/a", "baud": 1}, "greater than or equal to 1200"),
    ],
)
def test_anything_else_is_refused_in_words(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Connection.model_validate(fields)
    assert words in str(refused.value)
