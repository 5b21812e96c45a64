"""What the guard does when no daemon has come back: machines with an open run are made safe, and no others.

Opening any other port could disturb somebody. What was done is left as a note for the next daemon; the journal is only
read. A machine that does not confirm, such as one that blocks until its bed is hot, is tried again; between two
attempts the lock is free, so that a daemon can come up and take over.
"""

from __future__ import annotations

import fcntl
import logging
import sys
import time
from pathlib import Path
from typing import Any

from edge import logs, plugins
from edge.errors import EdgeError
from edge.guard.make_safe import GUARD, all_safe, leave_note, notes
from edge.guard.wait import take
from edge.logs import log_bug
from edge.model.site import SiteConfig
from edge.plugins import Equipment
from edge.reading import views

ATTEMPT_S = 120.0
"""How long a machine may take to confirm."""

AGAIN_S = 10.0
GIVE_UP_S = 3600.0
"""After that nothing is tried any more: a bed is hot, or a machine is gone, long before."""

log = logging.getLogger("edge.guard")


def main() -> None:
    """The entry of the process: the lock's descriptor, the token file and the token; the configuration on stdin."""
    lock, token_file, token = sys.argv[-3:]
    config = SiteConfig.model_validate_json(sys.stdin.read())
    try:
        logs.set_up(config.site.state_dir, screen=False)
    except OSError:
        logging.basicConfig(handlers=[logging.NullHandler()])  # no disk to log to; the machines come first
    try:
        equipment = plugins.load(config, Path("the configuration that the daemon had read"))
        give_up_s = time.monotonic() + GIVE_UP_S
        while attempt(config.site.state_dir, equipment) and time.monotonic() < give_up_s:
            fcntl.flock(int(lock), fcntl.LOCK_UN)
            time.sleep(AGAIN_S)
            if not take(int(lock), token_file, token):
                return
    except EdgeError as error:
        log.error("the guard cannot act: %s", error)
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - the outermost boundary of this process
        log_bug(log, error)
        sys.exit(2)


def attempt(state_dir: Path, equipment: list[Equipment]) -> bool:
    """Make safe every machine with an open run that nobody has made safe yet; whether one has not confirmed."""
    runs = _still_to_do(state_dir)
    made = all_safe([item for item in equipment if item.machine.id in runs], time.monotonic() + ATTEMPT_S)
    for one in made:
        if one.problem:
            log.error("%s is not made safe: %s", one.machine, one.problem)
        else:
            log.warning("no daemon came back; %s is made safe: %s", one.machine, one.confirmed or "nothing to do")
            if not one.confirmed:
                continue
        try:
            leave_note(state_dir, one, GUARD, runs[one.machine])
        except OSError as error:
            log.error("no note for the next daemon: %s", error)
    return any(one.problem for one in made)


def _still_to_do(state_dir: Path) -> dict[str, dict[str, Any]]:
    """Open runs by machine, less those of which a note says that their machine has confirmed."""
    confirmed = {note.run_id for note in notes(state_dir).values() if not note.problem}
    with views.open_readonly(state_dir) as snapshot:
        return {run["machine"]: run for run in snapshot.open_runs() if run["run_id"] not in confirmed}
