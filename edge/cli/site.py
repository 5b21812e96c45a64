"""`edge init`, `edge check` and `edge run`."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edge import folders, logs, plugins, sitefile
from edge.cli import text
from edge.cli.client import call
from edge.cli.uplink import problem as uplink_problem
from edge.errors import ConfigError, DriverError, NotRunningError, RefusedError, UsageError
from edge.intake.authority import Authority
from edge.model.fields import SiteId, problem_of
from edge.model.site import SiteConfig, validate
from edge.plugins import Equipment
from edge.reading.status import ATTENTION, FINE, UNSAFE

TEMPLATE = """\
# The site, as `edge` sees it. Paths are relative to this file. `edge check` says what is wrong.

[site]
id = "{site}"
state_dir = "state"                 # journal, programs, log
socket = "edge.sock"
trust_root = "root.dsse.json"       # who may order work here: `edge root new`, or your organisation's
# guard_after_s = 60                # with the daemon dead for so long, machines with an open run are switched off

[time]
source = "ntp"                      # or "host", if this computer's own clock has a battery and is looked after;
                                    # or "signed": signed times only (docs/trust.md, Time)

# What the centre may do though nobody stands at the machine (docs/trust.md); both are off unless you say otherwise.

# [remote]
# allow_clear = false                # say that a finished part was taken off
# allow_release = false              # go on, or try again, after something can have moved

# [artifacts]                         # programs that orders name; fetched from the orders' https:// sources
# max_bytes = 8589934592              # what all of them may take; the oldest that no open order names give way
# ca = "ca.pem"                       # instead of the host's authorities
#
# [spool]                             # bundles that are dropped here are taken in
# dir = "spool"

# [uplink]                            # orders come from the centre, and facts go there (docs/uplink.md)
# kind = "mqtt"
# url = "mqtts://broker.example:8883"
# ca = "ca.pem"                       # who signed the broker's certificate
# certificate = "site.crt"            # who the site is; and key
# key = "site.tls.key"
# user = "{site}"   # or a name, and a password in a file of mode 0600
# password_file = "broker.password"
# telemetry_every_s = 10              # newest values for whoever watches; 0 for never

# One table for each machine. `properties` is what an order's `requires` is matched with, and `edge machine load` may
# change while the site runs; `limits` is what a program must stay within, or it is refused before anything moves.
#
# [[machines]]
# id = "prn-1"
# driver = "gcode"
# processes = ["fdm"]
# connection = {{port = "{port}", baud = 250000}}      # or {{url = "tcp://host:port"}}
# properties = {{material = "PLA", nozzle_mm = 0.4}}
# limits = {{x_mm = [0, 220], y_mm = [0, 220], z_mm = [0, 250], nozzle_degc = [0, 260], bed_degc = [0, 100]}}
# record = true                       # keep what crosses the wire, in state/wire/prn-1.txt (docs/install.md)
"""

BY_ID = Path("/dev/serial/by-id")

NEXT = """\
next
  1. put the trust root of your organisation beside it as root.dsse.json; or,
     to be your own organisation, in {folder}:
       edge key new owner
       edge key new orders
       edge root new --name Me --out root.dsse.json \\
            --root owner.pub --issuer orders.pub
       edge root sign root.dsse.json --key owner.key
  2. name your machines in site.toml
  3. edge check --config {file}
"""


def init(args: argparse.Namespace) -> int:
    """Write a site.toml into a directory that has none."""
    file = args.dir / "site.toml"
    try:
        TypeAdapter(SiteId).validate_python(args.site)
    except ValidationError as error:
        raise UsageError(problem_of(error, "--site")) from error
    ports = sorted(str(path) for path in BY_ID.iterdir()) if BY_ID.is_dir() else []
    if file.exists():
        raise UsageError(f"{file} is there already; nothing was changed")
    content = TEMPLATE.format(site=args.site, port=ports[0] if ports else f"{BY_ID}/usb-…")
    try:
        args.dir.mkdir(parents=True, exist_ok=True)
        state_dir = args.dir / "state"
        folders.make_state_dir(state_dir)
        is_new = not any(state_dir.iterdir())  # where a site has run, a journal that is missing was lost
        with file.open("x", encoding="utf-8") as out:
            out.write(content)
        if is_new:
            folders.set_up_anew(state_dir)
    except FileExistsError as error:
        raise UsageError(f"{error.filename} is there already; nothing was changed") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    if args.json:
        text.print_json({"file": str(file), "ports": ports})
        return FINE
    print(f"wrote {file}")
    print("serial ports here:" + ("".join(f"\n  {port}" for port in ports) or f" none in {BY_ID}"))
    print(NEXT.format(folder=args.dir, file=file.absolute()), end="")
    return FINE


def check(args: argparse.Namespace) -> int:
    """Everything that can be known without opening a machine: a port that is opened may end somebody's print."""
    path = sitefile.find(args.config)
    config, equipment, _ = _load(path)
    daemon = _own_daemon(config.site.socket)
    found = [(item.machine.id, _preflight(item)) for item in equipment]
    held = [ident for ident, problem in found if daemon and _holds(daemon, ident, problem)]
    found = [(ident, "" if ident in held else problem) for ident, problem in found]
    uplink = config.uplink and uplink_problem(config.uplink, config.site.id, daemon)
    spool = config.spool and _spool_problem(config.spool.dir)
    level = UNSAFE if any(problem for _, problem in found) else FINE
    if level == FINE and (uplink or spool or not found):
        level = ATTENTION
    if args.json:
        records = {item.machine.id: item.wire is not None for item in equipment}
        machines = [{"id": ident, "problem": problem, "record": records[ident]} for ident, problem in found]
        shown = {"file": str(path), "site": config.site.id, "level": level, "machines": machines}
        text.print_json(shown | {"uplink": uplink, "spool": spool})
        return level
    print(f"{path}: the configuration of site {config.site.id} is right")
    for ident, problem in found:
        if problem:
            text.complain(f"{ident}: {problem}")
        elif ident in held:
            print(f"  {ident}: in use by this site's own daemon")
        else:
            print(f"  {ident}: ready to be opened")
    for item in equipment:
        if item.wire is not None:
            print(f"  {item.machine.id}: what crosses its wire is recorded, in")
            print(f"    {folders.recording(config.site.state_dir, item.machine.id)}")
    if uplink:
        text.complain(f"uplink: {uplink}")
    elif config.uplink is not None:
        print(f"  uplink: {config.uplink.url} answers")
    if spool:
        text.complain(f"spool: {spool}")
    if not found:
        print("  no machine yet: add a table [[machines]] to it")
    elif level == FINE:
        print("next: edge restart" if daemon else "next: edge run")
    return level


def _spool_problem(directory: Path) -> str:
    """Why nothing can be taken in from it; empty if it can. The daemon moves what it has taken in."""
    return folders.unwritable(directory) if directory.is_dir() else f"{directory} is no directory; make it"


def _own_daemon(socket: Path) -> dict[str, Any] | None:
    """What the site's running daemon says of the site, if there is one."""
    try:
        answer: dict[str, Any] = call(socket, "GET", "/v1/status")
    except (NotRunningError, RefusedError):
        return None
    return answer


def _holds(daemon: dict[str, Any], ident: str, problem: str) -> bool:
    """Whether what keeps the machine from being opened is that this daemon has opened it."""
    online = any(machine["id"] == ident and machine["state"] != "OFFLINE" for machine in daemon["machines"])
    return online and f"(process {daemon['daemon']['pid']})" in problem


def _preflight(item: Equipment) -> str:
    try:
        item.plugin.preflight(item.machine)
    except DriverError as error:
        return str(error)
    return ""


def _load(path: Path) -> tuple[SiteConfig, list[Equipment], Authority]:
    """Everything the configuration names, except the machines themselves. Raises `ConfigError`."""
    config = validate(sitefile.read(path))
    equipment = plugins.load(config, path)
    authority = Authority.load(config.site.trust_root)
    if problem := folders.unwritable(config.site.state_dir):
        raise ConfigError(
            path, "site.state_dir", problem, "the daemon must be able to write there: run this as its user"
        )
    if problem := folders.no_socket(config.site.socket):
        raise ConfigError(path, "site.socket", problem, "choose another path")
    if (ca := config.artifacts.ca) is not None:
        try:
            ssl.create_default_context(cafile=ca)
        except OSError as error:  # what is no certificate is one, too
            expected = "name a file of certificates in PEM, or remove the key"
            raise ConfigError(path, "artifacts.ca", f"{ca} cannot be used: {error.strerror}", expected) from error
    return config, equipment, authority


def run(args: argparse.Namespace) -> int:
    """Serve the site until SIGTERM or Ctrl-C.

    A machine that cannot be opened is no reason not to start: after a power cut the others must work, orders must be
    taken, and what was left open must be written down. It is said at once, and tried again for ever.
    """
    import uvloop

    from edge import daemon

    path = sitefile.find(args.config)
    config, equipment, authority = _load(path)
    os.umask(folders.UMASK)
    try:
        folders.make_state_dir(config.site.state_dir)
        log = logs.set_up(config.site.state_dir, verbose=args.verbose)
    except OSError as error:
        raise ConfigError(path, "site.state_dir", f"{config.site.state_dir}: {error.strerror}") from error
    try:
        code = uvloop.run(_serve(path, config, equipment, authority))
        if code == daemon.RESTART:
            # The same process id, so that whoever supervises the daemon sees no end of it; started as it was.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        return code
    except OSError as error:
        raise UsageError(f"the daemon cannot start: {error}; the log is {log}") from error


async def _serve(path: Path, config: SiteConfig, equipment: list[Equipment], authority: Authority) -> int:
    from edge import daemon

    stop = daemon.Stop()
    code = await daemon.run(config, equipment, authority, stop, lambda: _load(path)[2])
    return FINE if stop.signalled and code == daemon.RESTART else code
