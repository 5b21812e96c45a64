"""`edge restart`: a new daemon, and prints that go on where they stood."""

from __future__ import annotations

import argparse
import os
import time

from edge import sitefile
from edge.cli import text
from edge.cli.client import call
from edge.errors import NotRunningError, UsageError
from edge.reading.status import FINE

RESTART_S = 180.0
LOOK_S = 0.1

GONE_S = 5.0
"""How long nobody may answer after the old process is gone: whoever supervises it may start another."""


def restart(args: argparse.Namespace) -> int:
    """Ask the daemon to begin anew, and wait until it answers again."""
    file = sitefile.read(sitefile.find(args.config))
    before = call(file.socket, "POST", "/v1/restart", {"force": args.force})
    if not args.json:
        said = f"process {before['pid']} begins anew: it lets go of its machines first, then closes the journal"
        print("\n".join(text.wrap(said, "")), flush=True)
    now_s = time.monotonic()
    deadline_s, gone_s = now_s + RESTART_S, now_s + GONE_S
    while time.monotonic() < min(deadline_s, gone_s):
        try:
            now = call(file.socket, "GET", "/v1/status")["daemon"]
        except NotRunningError:
            now = None
        if now is not None and now["since"] != before["since"]:
            break
        if now is not None or _is_there(before["pid"]):
            gone_s = time.monotonic() + GONE_S
        time.sleep(LOOK_S)
    else:
        what = "has ended" if time.monotonic() < deadline_s else f"did not come back within {RESTART_S:g} s"
        raise UsageError(f"the daemon {what}; {file.state_dir / 'log' / 'edge.log'} says why")
    if args.json:
        text.print_json({key: now[key] for key in ("pid", "version", "since")})
    else:
        said = f"the daemon has begun anew (process {now['pid']}); `edge status` shows how the site is"
        print("\n".join(text.wrap(said, "")))
    return FINE


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
