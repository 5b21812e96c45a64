"""`edge machine clear`, `maintain`, `identify` and `trust`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge import sitefile
from edge.cli import text
from edge.cli.client import call, machines, named
from edge.errors import NotRunningError, UsageError
from edge.journal.maintenance import back_command
from edge.reading.status import ATTENTION, FINE


def clear(args: argparse.Namespace) -> int:
    """Say that the part has been taken off. Names the run, so that it can never clear a later one."""
    file = sitefile.read(sitefile.find(args.config))
    machine = named(machines(file.socket), args.machine)
    run_id = args.run or machine["needs_clearing"]
    if run_id is None:
        raise UsageError(f"{args.machine} does not need clearing")
    answer = call(file.socket, "POST", f"/v1/machines/{quote(args.machine)}/clear", {"run_id": run_id})
    if args.json:
        text.print_json(answer)
    else:
        print(f"{args.machine} is clear; the journal names {answer['actor']}")
    return FINE


def maintain(args: argparse.Namespace) -> int:
    """Let nothing more begin on a machine, or let it work again."""
    file = sitefile.read(sitefile.find(args.config))
    body = {"end": args.end, "reason": args.reason}
    answer = call(file.socket, "POST", f"/v1/machines/{quote(args.machine)}/maintain", body)
    if args.json:
        text.print_json(answer)
    elif args.end:
        print(f"{args.machine} is in service again")
    else:
        print(f"{args.machine} is out of service; it takes no work until somebody says:")
        print(f"  {back_command(args.machine)}")
    return FINE


def identify(args: argparse.Namespace) -> int:
    """Ask a machine who it is; get what it wants before it lets anybody in, such as a key, if that is missing."""
    from edge.cli import identify as asking

    path = sitefile.find(args.config)
    found = _of_the_daemon(sitefile.read(path).socket, args.machine)
    if found is None:
        found = asking.ask(path, args.machine, lambda said: print(said, file=sys.stderr, flush=True))
    if args.json:
        text.print_json({"machine": args.machine, "identity": found})
    else:
        told = [f"{name}: {value}" for name, value in found.items() if value]
        print("\n".join([args.machine, *(f"  {line}" for line in told)]))
    return FINE


def trust(args: argparse.Namespace) -> int:
    """Show both sides' certificates and what each thinks of the other's; with --accept, trust the machine's."""
    from edge.cli import identify as asking

    path = sitefile.find(args.config)
    found = asking.trust(path, args.machine, args.accept, renew=args.renew)
    if args.accept is not None:
        with contextlib.suppress(NotRunningError):  # then the next daemon reads the word that was left
            call(sitefile.read(path).socket, "POST", "/v1/machines/trusted", {})
    if args.json:
        text.print_json({"machine": args.machine, "trust": found})
    else:
        print(args.machine)
        for name in ("server", "server_fingerprint", "here", "ours", "our_fingerprint", "there"):
            print("\n".join(text.wrap(f"{name.replace('_', ' ')}: {found[name]}", "  ", "    ")))
    return FINE if found["settled"] else ATTENTION


def _of_the_daemon(socket: Path, machine: str) -> dict[str, Any] | None:
    """What the running daemon knows of a machine that it has open: nobody else can open it then."""
    try:
        found = machines(socket)
    except NotRunningError:
        return None
    return next((dict(row["identity"]) for row in found if row["id"] == machine and row["identity"]), None)
