"""`edge init`, `edge check` and `edge run`."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from edge import logs, plugins, sitefile
from edge.authority import Authority
from edge.cli import text
from edge.errors import ConfigError, DriverError, UsageError
from edge.model.site import SiteConfig, validate
from edge.plugins import Equipment
from edge.status import FINE, UNSAFE

TEMPLATE = """\
# The site, as `edge` sees it. Paths are relative to this file. `edge check` says what is wrong.

[site]
id = "{site}"
state_dir = "state"                 # journal, programs, log
socket = "edge.sock"
trust_root = "root.dsse.json"       # who may order work here: `edge root new`, or your organisation's

# One table for each machine. `properties` is what an order's `requires` is matched with; `limits` is what a program
# must stay within, or it is refused before anything moves.
#
# [[machines]]
# id = "prn-1"
# driver = "gcode"
# processes = ["fdm"]
# connection = {{port = "{port}", baud = 250000}}      # or {{url = "tcp://host:port"}}
# properties = {{material = "PLA", nozzle_mm = 0.4}}
# limits = {{x_mm = [0, 220], y_mm = [0, 220], z_mm = [0, 250], nozzle_degc = [0, 260], bed_degc = [0, 100]}}
"""

BY_ID = Path("/dev/serial/by-id")


def init(args: argparse.Namespace) -> int:
    """Write a site.toml into a directory that has none."""
    file = args.dir / "site.toml"
    ports = sorted(str(path) for path in BY_ID.iterdir()) if BY_ID.is_dir() else []
    content = TEMPLATE.format(site=args.site, port=ports[0] if ports else f"{BY_ID}/usb-…")
    try:
        args.dir.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            out.write(content)
    except FileExistsError as error:
        raise UsageError(f"{file} is there already; nothing was changed") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    if args.json:
        text.print_json({"file": str(file), "ports": ports})
        return FINE
    print(f"wrote {file}")
    print("serial ports here: " + (", ".join(ports) or f"none in {BY_ID}"))
    print(f"next: name your machines in it, put the trust root beside it, then\n  edge --config {file} check")
    return FINE


def check(args: argparse.Namespace) -> int:
    """Everything that can be known without opening a machine: a port that is opened may end somebody's print."""
    path = sitefile.find(args.config)
    config, equipment = _load(path)
    found = [(item.machine.id, _preflight(item)) for item in equipment]
    if args.json:
        text.print_json(
            {"file": str(path), "site": config.site.id, "machines": [{"id": i, "problem": p} for i, p in found]}
        )
    else:
        print(f"{path}: site {config.site.id}, {len(equipment)} machines")
        for ident, problem in found:
            print("\n".join(text.wrap(f"{ident}: {problem or 'ready to be opened'}", "  ")))
    return UNSAFE if any(problem for _, problem in found) else FINE


def _preflight(item: Equipment) -> str:
    try:
        item.plugin.preflight(item.machine)
    except DriverError as error:
        return str(error)
    return ""


def _load(path: Path) -> tuple[SiteConfig, list[Equipment]]:
    config = validate(sitefile.read(path))
    equipment = plugins.load(config, path)
    Authority.load(config.site.trust_root)
    return config, equipment


def run(args: argparse.Namespace) -> int:
    """Serve the site until SIGTERM or Ctrl-C."""
    from edge import daemon

    path = sitefile.find(args.config)
    config, _ = _load(path)
    try:
        log = logs.set_up(config.site.state_dir, verbose=args.verbose)
    except OSError as error:
        raise ConfigError(path, "site.state_dir", f"{config.site.state_dir}: {error.strerror}") from error
    try:
        return asyncio.run(daemon.run(config, path))
    except OSError as error:
        raise UsageError(f"the daemon cannot start: {error}; the log is {log}") from error
