"""Which machines can have their wire recorded, and what is said of those that cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge import plugins
from edge.driver import Wire
from edge.errors import ConfigError
from edge.model.site import MachineTable, SiteConfig, SiteTable

FILE = Path("site.toml")
GRBL = b"?!~\x18"
SPACE = {"x_mm": [0, 200], "y_mm": [0, 200], "z_mm": [0, 200]}


def loaded(driver: str, connection: dict[str, Any], limits: dict[str, Any], **more: Any) -> plugins.Equipment:
    table = MachineTable(id="m1", driver=driver, processes=["fdm"], connection=connection, limits=limits, **more)
    site = SiteTable(id="berlin-1", state_dir=Path("s"), socket=Path("e"), trust_root=Path("r"))
    (found,) = plugins.load(SiteConfig(site=site, machines=[table]), FILE)
    return found


@pytest.mark.parametrize(
    ("connection", "profile", "wire"),
    [
        ({"port": "/dev/ttyUSB0", "baud": 250000}, "auto", Wire("/dev/ttyUSB0, 250000 baud")),
        ({"url": "tcp://10.0.0.7:23"}, "marlin-2.1", Wire("tcp://10.0.0.7:23")),
        ({"port": "serial:A1B2"}, "grbl", Wire("serial:A1B2, 115200 baud", GRBL)),
        ({"url": "tcp://10.0.0.7:23"}, "nobodys", Wire("tcp://10.0.0.7:23")),
    ],
)
def test_a_line_that_takes_g_code_is_recorded_by_its_place(connection: dict, profile: str, wire: Wire) -> None:
    assert loaded("gcode", connection, SPACE, profile=profile, record=True).wire == wire
    assert loaded("gcode", connection, SPACE, profile=profile).wire is None, "only if the site says so"


@pytest.mark.parametrize(
    ("driver", "connection", "limits"),
    [
        ("octoprint", {"url": "http://10.0.0.8", "api_key_file": "/etc/edge/key"}, SPACE),
        ("opcua-jobcontrol", {"endpoint": "opc.tcp://10.0.0.9:4840", "security": "None"}, {"checked_by": "controller"}),
        ("opcua-robotics", {"endpoint": "opc.tcp://10.0.0.9:4840", "security": "None"}, {"checked_by": "controller"}),
    ],
)
def test_what_has_keys_in_it_is_not_recorded(driver: str, connection: dict, limits: dict) -> None:
    assert loaded(driver, connection, limits).wire is None
    with pytest.raises(ConfigError) as caught:
        loaded(driver, connection, limits, record=True)
    assert str(caught.value) == (
        f"site.toml: machines[0] (m1).record: is true, and what the driver '{driver}' and its machine say to each other"
        " is not recorded; remove the key"
    )
