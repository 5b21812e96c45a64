"""`edge machine clear`."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from edge import sitefile
from edge.cli import text
from edge.cli.client import call
from edge.errors import UsageError
from edge.status import FINE


def clear(args: argparse.Namespace) -> int:
    """Say that the part has been taken off. Names the run, so that it can never clear a later one."""
    file = sitefile.read(sitefile.find(args.config))
    found = {machine["id"]: machine for machine in call(file.socket, "GET", "/v1/machines")}
    machine = found.get(args.machine)
    if machine is None:
        raise UsageError(f"there is no machine {args.machine}; there are: {', '.join(found) or 'none'}")
    run_id = args.run or machine["needs_clearing"]
    if run_id is None:
        raise UsageError(f"{args.machine} does not need clearing")
    answer = call(file.socket, "POST", f"/v1/machines/{quote(args.machine)}/clear", {"run_id": run_id})
    if args.json:
        text.print_json(answer)
    else:
        print(f"{args.machine} is clear; the journal names {answer['actor']}")
    return FINE
