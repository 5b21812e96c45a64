"""`edge machine profiles`."""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import asdict
from pathlib import Path

from edge import plugins, sitefile
from edge.cli import text
from edge.driver import ProfileInfo
from edge.errors import ConfigError
from edge.model.site import validate
from edge.reading.status import FINE


def profiles(args: argparse.Namespace) -> int:
    """Every profile that the installed drivers know, with the site's own if there is a site."""
    own = _own(args.config)
    drivers: dict[ProfileInfo, list[str]] = {}  # the drivers that take a profile
    for driver, plugin in plugins.installed().items():
        for profile in plugin.profiles(own):
            drivers.setdefault(profile, []).append(driver)
    _none_left_out(own, {profile.name for profile in drivers})
    if args.json:
        text.print_json([{**asdict(profile), "drivers": taken_by} for profile, taken_by in drivers.items()])
        return FINE
    for profile, taken_by in drivers.items():
        print("\n".join(text.wrap(f"{profile.name} ({', '.join(taken_by)}): {profile.summary}", "")))
        print("\n".join(text.wrap(f"tried on: {profile.tried_on}", "    ")))
        for hazard in profile.hazards:
            print("\n".join(text.wrap(f"! {hazard}", "    ", "      ")))
    return FINE


def _none_left_out(own: Path | None, names: set[str]) -> None:
    """Raises `ConfigError` for a file that no driver takes for one of its profiles."""
    for path in sorted(own.glob("*.toml")) if own is not None else ():
        if path.stem not in names:
            dialect = tomllib.loads(path.read_text(encoding="utf-8")).get("dialect")
            problem = "is missing" if dialect is None else f"{dialect!r} is of no driver that is installed"
            raise ConfigError(path, "dialect", problem, "copy it from a profile that is like yours")


def _own(config: Path | None) -> Path | None:
    """The site's own profiles; none where there is no site."""
    try:
        file = sitefile.find(config)
    except ConfigError:
        return None
    return validate(sitefile.read(file)).site.profiles_dir
