"""`edge machine profiles`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge import plugins, sitefile
from edge.cli import text
from edge.errors import ConfigError
from edge.model.site import validate
from edge.status import FINE


def profiles(args: argparse.Namespace) -> int:
    """Every profile that the installed drivers know, with the site's own if there is a site."""
    found = [
        {"driver": driver, "name": profile.name, "summary": profile.summary, "tried_on": profile.tried_on}
        for driver, plugin in plugins.installed().items()
        for profile in plugin.profiles(_own(args.config))
    ]
    if args.json:
        text.print_json(found)
        return FINE
    for profile in found:
        print("\n".join(text.wrap(f"{profile['name']} ({profile['driver']}): {profile['summary']}", "")))
        print("\n".join(text.wrap(f"tried on: {profile['tried_on']}", "    ")))
    return FINE


def _own(config: Path | None) -> Path | None:
    """The site's own profiles; none where there is no site."""
    try:
        file = sitefile.find(config)
    except ConfigError:
        return None
    return validate(sitefile.read(file)).site.profiles_dir
