"""Drivers: found by entry point, loaded only if the site's configuration names them, typed by their own models."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edge.driver import DriverPlugin, Machine, Wire
from edge.errors import ConfigError
from edge.model.site import MachineTable, SiteConfig, config_error

GROUP = "edge.drivers"

AnyMachine = Machine[Any, Any]
AnyPlugin = DriverPlugin[Any, Any]


@dataclass(frozen=True, slots=True)
class Equipment:
    """A configured machine, and the plug-in that knows its kind. `wire`: what is recorded, if the site wants that."""

    machine: AnyMachine
    plugin: AnyPlugin
    wire: Wire | None = None


def installed() -> dict[str, AnyPlugin]:
    """Every driver that is installed, by name. Raises `ConfigError` for one that cannot be loaded."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    return {name: _load(points, name, Path("the installed drivers"), name) for name in sorted(points)}


def load(config: SiteConfig, file: Path) -> list[Equipment]:
    """Every configured machine, in the order of the file. Raises `ConfigError`."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    loaded: dict[str, AnyPlugin] = {}
    found = []
    for index, table in enumerate(config.machines):
        where = f"machines[{index}] ({table.id})"
        if table.driver not in loaded:
            loaded[table.driver] = _load(points, table.driver, file, where)
        plugin = loaded[table.driver]
        machine = _machine(table, plugin, config, file, where)
        found.append(Equipment(machine, plugin, _wire(machine, plugin, file, where) if table.record else None))
    return found


def _load(points: dict[str, EntryPoint], name: str, file: Path, where: str) -> AnyPlugin:
    if name not in points:
        known = ", ".join(sorted(points)) or "none"
        raise ConfigError(file, f"{where}.driver", f"no driver '{name}' is installed", f"installed: {known}")
    try:
        plugin = points[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(file, f"{where}.driver", f"the driver '{name}' cannot be loaded: {error}") from error
    if not isinstance(plugin, DriverPlugin):
        expected = "the entry point must name an object of that class"
        raise ConfigError(file, f"{where}.driver", f"{points[name].value} is no DriverPlugin", expected)
    return plugin


def _machine(table: MachineTable, plugin: AnyPlugin, config: SiteConfig, file: Path, where: str) -> AnyMachine:
    return Machine(
        id=table.id,
        driver=table.driver,
        profile=table.profile,
        processes=tuple(table.processes),
        connection=_typed(plugin.connection, table.connection, file, f"{where}.connection"),
        limits=_typed(plugin.limits, table.limits, file, f"{where}.limits"),
        properties=table.properties,
        profiles_dir=config.site.profiles_dir,
    )


def _wire(machine: AnyMachine, plugin: AnyPlugin, file: Path, where: str) -> Wire:
    wire = plugin.wire(machine)
    if wire is None:
        problem = f"is true, and what the driver '{machine.driver}' and its machine say to each other is not recorded"
        raise ConfigError(file, f"{where}.record", problem, "remove the key")
    return wire


def _typed(schema: type[BaseModel], values: dict[str, Any], file: Path, where: str) -> BaseModel:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise config_error(file, where, error, schema) from error
