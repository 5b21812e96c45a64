"""`edge restart`: a new daemon, and prints that go on where they stood."""

from __future__ import annotations

import argparse
import time

from edge import sitefile
from edge.cli import text
from edge.cli.client import call
from edge.errors import NotRunningError, UsageError
from edge.status import FINE

RESTART_S = 180.0
LOOK_S = 0.1


def restart(args: argparse.Namespace) -> int:
    """Ask the daemon to begin anew, and wait until it answers again."""
    file = sitefile.read(sitefile.find(args.config))
    before = call(file.socket, "POST", "/v1/restart", {})
    deadline_s = time.monotonic() + RESTART_S
    while time.monotonic() < deadline_s:
        try:
            now = call(file.socket, "GET", "/v1/status")["daemon"]
        except NotRunningError:
            now = before
        if now["since"] != before["since"]:
            break
        time.sleep(LOOK_S)
    else:
        raise UsageError(f"the daemon did not come back within {RESTART_S:g} s; its log says why")
    if args.json:
        text.print_json(now)
    else:
        print(f"the daemon has begun anew (process {now['pid']}); `edge status` shows how the site is")
    return FINE
