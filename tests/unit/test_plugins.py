"""Drivers are found by entry point, loaded only if they are named, and type their own tables."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from edge import plugins
from edge.errors import ConfigError
from edge.model.site import MachineTable, SiteConfig, SiteTable
from tests.helpers.fake_driver import PLUGIN, Connection

FILE = Path("site.toml")


@pytest.fixture(autouse=True)
def _installed(monkeypatch) -> None:
    here = "tests.helpers.fake_driver"
    points = [
        EntryPoint("fake", f"{here}:PLUGIN", plugins.GROUP),
        EntryPoint("none", f"{here}:NO_PLUGIN", plugins.GROUP),
        EntryPoint("gone", f"{here}:NOT_THERE", plugins.GROUP),
        EntryPoint("broken", "no.such.module:PLUGIN", plugins.GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == plugins.GROUP else [])


def config(*tables: dict) -> SiteConfig:
    site = SiteTable(id="berlin-1", state_dir=Path("s"), socket=Path("e"), trust_root=Path("r"), profiles_dir=Path("p"))
    defaults = {"driver": "fake", "processes": ["fdm"], "connection": {}}
    machines = [MachineTable(**(defaults | table)) for table in tables]
    return SiteConfig(site=site, machines=machines)


def complaint(*tables: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        plugins.load(config(*tables), FILE)
    return str(caught.value)


def test_a_machine_gets_its_typed_tables_and_its_plug_in() -> None:
    table = {"id": "m1", "connection": {"place": "here"}, "properties": {"nozzle_mm": 0.4}}
    (found,) = plugins.load(config(table), FILE)
    assert found.plugin is PLUGIN
    assert found.machine.connection == Connection(place="here")
    assert (found.machine.id, found.machine.processes) == ("m1", ("fdm",))
    assert found.machine.properties == {"nozzle_mm": 0.4}
    assert found.machine.profiles_dir == Path("p")


def test_machines_stay_in_their_order_and_share_the_plug_in() -> None:
    found = plugins.load(config({"id": "b"}, {"id": "a"}), FILE)
    assert [item.machine.id for item in found] == ["b", "a"]
    assert found[0].plugin is found[1].plugin


def test_a_driver_that_nobody_names_is_not_loaded() -> None:
    assert plugins.load(config(), FILE) == []  # two of the installed ones cannot even be loaded


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"driver": "fkae"}, "driver: no driver 'fkae' is installed; installed: broken, fake, gone, none"),
        ({"driver": "broken"}, "driver: the driver 'broken' cannot be loaded: No module named 'no'"),
        ({"driver": "gone"}, "driver: the driver 'gone' cannot be loaded: "),
        ({"driver": "none"}, "driver: tests.helpers.fake_driver:NO_PLUGIN is no DriverPlugin; "),
        ({"connection": {"plaice": "x"}}, "connection.plaice: unknown key; known here: place"),
        ({"connection": {"place": 5}}, "connection.place: is 5, must be a valid string"),
        ({"limits": {"x": 1}}, "limits.x: unknown key; known here: none"),
        (
            {"record": True},
            "record: is true, and what the driver 'fake' and its machine say to each other is not recorded; remove",
        ),
    ],
)
def test_what_is_wrong_with_a_machine_is_named(table: dict, expected: str) -> None:
    assert complaint({"id": "m0"}, {"id": "m1"} | table).startswith(f"site.toml: machines[1] (m1).{expected}")


def test_none_installed_is_said() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", lambda group: [])
        assert complaint({"id": "m1"}).endswith("installed: none")
